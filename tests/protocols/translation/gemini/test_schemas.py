"""JSON Schema and Gemini's own."""

from __future__ import annotations

from typing import Any

import pytest

from aigw.protocols.translation.gemini.schemas import from_openapi, to_openapi


@pytest.mark.parametrize(
    ("schema", "wanted"),
    [
        ({"type": "string", "format": "uri"}, {"type": "STRING"}),
        ({"type": ["integer", "null"]}, {"type": "INTEGER", "nullable": True}),
        ({"type": ["integer", "string"]}, {"anyOf": [{"type": "INTEGER"}, {"type": "STRING"}]}),
        ({"const": "a"}, {"type": "STRING", "enum": ["a"]}),
        ({"enum": ["a", None]}, {"type": "STRING", "enum": ["a"], "nullable": True}),
        ({"type": "integer", "enum": [1, 2]}, {"type": "INTEGER", "description": "One of 1, 2."}),
        ({"oneOf": [{"type": "string"}, {"type": "null"}]}, {"type": "STRING", "nullable": True}),
        ({"anyOf": [{"type": "string"}, {"type": "number"}]}, {"anyOf": [{"type": "STRING"}, {"type": "NUMBER"}]}),
        ({"type": "array"}, {"type": "ARRAY", "items": {"type": "STRING"}}),
        (
            {
                "type": "object",
                "properties": {"a": {}},
                "required": ["a", "gone"],
                "additionalProperties": False,
                "$schema": "x",
            },
            {"type": "OBJECT", "properties": {"a": {}}, "required": ["a"]},
        ),
        (
            {"allOf": [{"properties": {"a": {"type": "string"}}}, {"properties": {"b": {"type": "null"}}}], "type": "object"},
            {"type": "OBJECT", "properties": {"a": {"type": "STRING"}, "b": {"type": "NULL"}}},
        ),
    ],
)
def test_to_geminis_own(schema: dict[str, Any], wanted: dict[str, Any]) -> None:
    """What it has words for, in its words."""
    assert to_openapi(schema) == wanted


def test_references_are_put_in() -> None:
    """Also by way of each other; one that holds itself has an end."""
    schema = {"$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"type": "string"}}, "properties": {"x": {"$ref": "#/$defs/A"}}}
    assert to_openapi(schema) == {"type": "OBJECT", "properties": {"x": {"type": "STRING"}}}
    tree: dict[str, Any] = {
        "$ref": "#/$defs/T",
        "$defs": {"T": {"type": "object", "properties": {"next": {"$ref": "#/$defs/T"}}}},
    }
    found = to_openapi(tree)
    depth = 0
    while "properties" in found:
        found, depth = found["properties"]["next"], depth + 1
    assert 5 < depth < 30
    assert to_openapi({"$ref": "https://elsewhere/schema"}) == {"type": "OBJECT"}


def test_from_geminis_own() -> None:
    """Capitals, nullable, int64 as strings, either spelling; a property may be called like a keyword."""
    own = {
        "type": "OBJECT",
        "properties": {
            "type": {"type": "STRING", "nullable": True},
            "n": {"type": "ARRAY", "items": {"type": "INTEGER"}, "min_items": "2", "maxItems": 3},
        },
        "propertyOrdering": ["n"],
        "required": ["n"],
    }
    assert from_openapi(own) == {
        "type": "object",
        "properties": {
            "type": {"type": ["string", "null"]},
            "n": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3},
        },
        "required": ["n"],
    }
