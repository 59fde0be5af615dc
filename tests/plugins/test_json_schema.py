"""Values and the schemas that describe them."""

from __future__ import annotations

from typing import Any

import pytest

from aigw.plugins.json_schema import MOST, errors

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "minLength": 1}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}
TREE = {
    "$defs": {"node": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}}},
    "$ref": "#/$defs/node",
}


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (
            PERSON,
            [{"name": "a"}, {"name": "a", "age": 3.0}],
            [{}, {"name": ""}, {"name": "a", "age": -1}, {"name": "a", "x": 1}, []],
        ),
        (TREE, [{}, {"next": None}, {"next": {"next": {"next": None}}}], [{"next": 1}, {"next": {"next": "x"}}, 3]),
        ({"type": ["string", "null"]}, ["x", None], [1, [], {}]),
        ({"type": "integer"}, [1, 1.0, -3], [1.5, True, "1"]),
        ({"type": "number"}, [1, 1.5], [True, "1"]),
        ({"type": "boolean"}, [True], [1, 0]),
        ({"enum": [1, "a", {"b": [True]}]}, [1, 1.0, "a", {"b": [True]}], [True, 2, {"b": [1]}]),
        ({"const": 0}, [0, 0.0], [False, None]),
        (
            {"items": {"type": "string"}, "minItems": 1, "maxItems": 2, "uniqueItems": True},
            [["a"], ["a", "b"]],
            [[], ["a"] * 2, [1]],
        ),
        ({"prefixItems": [{"type": "string"}], "items": False}, [["a"], []], [["a", 1], [1]]),
        ({"minimum": 1, "exclusiveMaximum": 3, "multipleOf": 0.5}, [1, 2.5], [0, 3, 1.2]),
        ({"maximum": 1, "exclusiveMinimum": 0}, [1], [0, 2]),
        ({"pattern": "^a+$", "maxLength": 3}, ["aa"], ["b", "aaaa"]),
        ({"allOf": [{"minimum": 1}, {"maximum": 2}]}, [1, 2], [0, 3]),
        ({"oneOf": [{"type": "integer"}, {"minimum": 5}]}, [1, 5.5, "x"], [6, 1.5]),
        ({"not": {"type": "null"}}, [1], [None]),
        (
            {"patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": {"type": "string"}},
            [{"x1": 1, "y": "a"}],
            [{"x1": "a"}, {"y": 1}],
        ),
        ({"minProperties": 1, "maxProperties": 1}, [{"a": 1}], [{}, {"a": 1, "b": 2}]),
        (
            {"properties": {"a/b": {"type": "integer"}}, "additionalProperties": {"$ref": "#/properties/a~1b"}},
            [{"c": 1}],
            [{"c": "x"}],
        ),
        (True, [1, None], []),
        (False, [], [1]),
        ({"format": "date", "unheard": 1}, ["x"], []),
    ],
)
def test_what_fits(schema: Any, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        assert errors(value, schema) == [], value
    for value in bad:
        assert errors(value, schema), value


def test_what_is_said() -> None:
    assert errors({"age": "x"}, PERSON) == ["$: 'name' is missing", "$.age: expected integer, got string"]
    assert errors([1, {"a": None}], {"items": {"type": "object", "properties": {"a": {"type": "array"}}}}) == [
        "$[0]: expected object, got number",
        "$[1].a: expected array, got null",
    ]
    assert len(errors([1] * 1000, {"items": {"type": "string"}})) == MOST


@pytest.mark.parametrize(
    "schema",
    [3, {"type": "strin"}, {"$ref": "https://example.org/x"}, {"$ref": "#/none"}, {"$ref": "#"}, {"items": 7}],
)
def test_what_is_no_schema(schema: Any) -> None:
    with pytest.raises(ValueError, match=r"schema|type|reference|nothing|deep"):
        errors([1], schema)


def test_an_expression_that_may_take_forever_says_nothing() -> None:
    assert errors("a" * 50, {"pattern": "^(a+)+$b"}) == []
