"""Schemas of tools and answers: JSON Schema here, and Gemini's own, a part of OpenAPI 3.0's, where a model takes no other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEEPEST = 24
"""References that are followed within each other: a schema that holds itself has no end."""

_KEPT = frozenset(
    """title description format minimum maximum minLength maxLength pattern minItems maxItems minProperties maxProperties
    example default required enum nullable propertyOrdering""".split()  # noqa: SIM905 - reads better
)
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")  # int64: strings on the wire


def from_openapi(schema: Any) -> Any:
    """JSON Schema from Gemini's own, in its camel case or protobuf's."""
    if not isinstance(schema, dict):
        return schema
    found: dict[str, Any] = {}
    for name, value in schema.items():
        key = _camel(name)
        if key == "type":
            found[key] = value.lower() if isinstance(value, str) else value
        elif key == "properties" and isinstance(value, dict):
            found[key] = {inner: from_openapi(one) for inner, one in value.items()}
        elif key in ("items", "additionalProperties"):
            found[key] = from_openapi(value)
        elif key in ("anyOf", "prefixItems") and isinstance(value, list):
            found[key] = [from_openapi(one) for one in value]
        elif key in _COUNTS and isinstance(value, str) and value.isdigit():
            found[key] = int(value)
        elif key not in ("nullable", "propertyOrdering", "example") and not (key == "format" and value == "enum"):
            found[key] = value
    if found.get("type") == "type_unspecified":
        del found["type"]
    if schema.get("nullable") is True:
        if isinstance(found.get("type"), str):
            found["type"] = [found["type"], "null"]
        elif "anyOf" in found:
            found["anyOf"] = [*found["anyOf"], {"type": "null"}]
    return found


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


def to_openapi(schema: Mapping[str, Any], *, root: Mapping[str, Any] | None = None, depth: int = 0) -> dict[str, Any]:
    """Gemini's own from JSON Schema: references put in, `const` as `enum`, `oneOf` as `anyOf`, null as `nullable`. What it has
    no word for (`additionalProperties`, `if`, `not` ...) is left out: it narrows what may be answered; descriptions stay."""
    top = schema if root is None else root
    reference = schema.get("$ref")
    if isinstance(reference, str):
        target = _resolved(reference, top) if depth < DEEPEST else None
        rest = {name: value for name, value in schema.items() if name != "$ref"}
        if target is None:
            return {"type": "OBJECT", **({"description": rest["description"]} if "description" in rest else {})}
        return to_openapi({**target, **rest}, root=top, depth=depth + 1)
    found: dict[str, Any] = {name: value for name, value in schema.items() if name in _KEPT}
    parts = schema.get("allOf")
    if isinstance(parts, list):
        merged: dict[str, Any] = {name: value for name, value in schema.items() if name != "allOf"}
        for part in parts:
            if isinstance(part, dict):
                merged = _merged(merged, _followed(part, top))
        return to_openapi(merged, root=top, depth=depth + 1) if depth < DEEPEST else found
    _types(schema, found)
    if "const" in schema and "enum" not in found:
        found["enum"] = [schema["const"]]
    if isinstance(found.get("enum"), list):
        values = [value for value in found["enum"] if value is not None]
        if len(values) < len(found["enum"]):
            found["nullable"] = True
        if all(isinstance(value, str) for value in values):
            found["enum"] = values
            found.setdefault("type", "STRING")
        else:  # Gemini's enums are strings
            found.pop("enum")
            said = f"One of {', '.join(map(str, values))}."
            found["description"] = f"{found['description']} {said}" if found.get("description") else said
    choices = schema.get("anyOf") or schema.get("oneOf")
    if isinstance(choices, list):
        given = [one for one in choices if isinstance(one, dict)]
        inner = [to_openapi(one, root=top, depth=depth + 1) for one in given if one.get("type") != "null"]
        if len(inner) < len(given):
            found["nullable"] = True
        if len(inner) == 1:
            found = {**inner[0], **found}
        elif inner:
            found["anyOf"] = [*found.get("anyOf", ()), *inner]
            found.pop("type", None)
    properties = schema.get("properties")
    if isinstance(properties, dict) and properties:
        found["properties"] = {
            name: to_openapi(one if isinstance(one, dict) else {}, root=top, depth=depth + 1)
            for name, one in properties.items()
        }
        found.setdefault("type", "OBJECT")
        if isinstance(found.get("required"), list):
            found["required"] = [name for name in found["required"] if name in properties]
    items = schema.get("items")
    if isinstance(items, dict):
        found["items"] = to_openapi(items, root=top, depth=depth + 1)
    elif found.get("type") == "ARRAY":
        found["items"] = {"type": "STRING"}  # it must have some
    if found.get("type") == "STRING" and found.get("format") not in (None, "enum", "date-time"):
        del found["format"]
    if not found.get("required", True):
        del found["required"]
    return found


def _types(schema: Mapping[str, Any], found: dict[str, Any]) -> None:
    kind = schema.get("type")
    if isinstance(kind, str):
        found["type"] = kind.upper()
    elif isinstance(kind, list):
        real = [one.upper() for one in kind if isinstance(one, str) and one != "null"]
        if "null" in kind:
            found["nullable"] = True
        if len(real) == 1:
            found["type"] = real[0]
        elif real:
            found["anyOf"] = [{"type": one} for one in real]


def _resolved(reference: str, root: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a reference within the schema means; None for any other."""
    if not reference.startswith("#"):
        return None
    value: Any = root
    for step in reference[1:].split("/"):
        if step:
            value = value.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(value, Mapping) else None
    return dict(value) if isinstance(value, Mapping) else None


def _followed(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref")
    return (_resolved(reference, root) or {}) if isinstance(reference, str) else schema


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Both at once: the properties and the required ones of either."""
    both = {**other, **one}
    if isinstance(one.get("properties"), dict) and isinstance(other.get("properties"), dict):
        both["properties"] = {**other["properties"], **one["properties"]}
    if isinstance(one.get("required"), list) and isinstance(other.get("required"), list):
        both["required"] = list(dict.fromkeys([*one["required"], *other["required"]]))
    return both
