"""Schemas as structured outputs take them."""

from __future__ import annotations

from aigw.protocols.translation.anthropic_messages.schemas import accepted


def test_what_is_taken_goes_as_it_is() -> None:
    """With no more members than those named."""
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
    assert accepted(schema) == (schema, True)
    del schema["additionalProperties"]
    assert accepted(schema) == (schema | {"additionalProperties": False}, True)


def test_limits_are_told_in_words() -> None:
    """They are refused as limits, and read as words."""
    found, exact = accepted({"type": "integer", "minimum": 1, "maximum": 5, "description": "stars"})
    assert (found, exact) == ({"type": "integer", "description": "stars (minimum: 1; maximum: 5)"}, False)


def test_inner_schemas() -> None:
    """Below members, lists, choices and definitions."""
    inner = {"type": "object", "properties": {"s": {"type": "string", "minLength": 2}}}
    mended = {
        "type": "object",
        "properties": {"s": {"type": "string", "description": "minLength: 2"}},
        "additionalProperties": False,
    }
    found, exact = accepted({"$defs": {"d": inner}, "items": inner, "oneOf": [inner]})
    assert (found, exact) == ({"$defs": {"d": mended}, "items": mended, "anyOf": [mended]}, False)


def test_what_cannot_be_said_is_told() -> None:
    """An object of any members would be one of none."""
    assert accepted({"type": "object", "additionalProperties": {"type": "string"}})[1] is False
    assert accepted({"not": {"type": "string"}}) == ({}, False)


def test_a_deep_one_ends() -> None:
    """However deep."""
    schema: dict[str, object] = {}
    for _ in range(500):
        schema = {"items": schema}
    assert accepted(schema)[1] is False
