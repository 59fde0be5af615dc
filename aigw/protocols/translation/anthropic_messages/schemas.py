"""JSON Schemas as `output_config.format` takes them: a subset, which the vendor's page on structured outputs lists."""

from __future__ import annotations

from typing import Any

_LIMITS = (
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
)
"""Not taken, but said in the description, where the model reads them."""

_REFUSED = (
    "patternProperties",
    "propertyNames",
    "contains",
    "minContains",
    "maxContains",
    "prefixItems",
    "unevaluatedItems",
    "unevaluatedProperties",
    "dependentRequired",
    "dependentSchemas",
    "if",
    "then",
    "else",
    "not",
)
_NAMED = ("properties", "$defs", "definitions")
_DEEPEST = 64


def accepted(schema: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """*schema* in what is taken, and whether it still asks for the same."""
    found, exact = _schema(schema, 0)
    return found, exact


def _schema(schema: Any, depth: int) -> tuple[Any, bool]:
    if not isinstance(schema, dict) or depth > _DEEPEST:
        return schema, depth <= _DEEPEST
    exact = True
    made: dict[str, Any] = {}
    limits = []
    for name, value in schema.items():
        if name in _REFUSED:
            exact = False
        elif name in _LIMITS:
            if not (name == "minItems" and value in (0, 1)):
                limits.append(f"{name}: {value}")
                exact = False
            else:
                made[name] = value
        elif name in _NAMED and isinstance(value, dict):
            pairs = {key: _schema(inner, depth + 1) for key, inner in value.items()}
            made[name] = {key: inner for key, (inner, _) in pairs.items()}
            exact = exact and all(same for _, same in pairs.values())
        elif name in ("anyOf", "oneOf", "allOf") and isinstance(value, list):
            many = [_schema(inner, depth + 1) for inner in value]
            made["anyOf" if name == "oneOf" else name] = [inner for inner, _ in many]
            exact = exact and all(same for _, same in many)
        elif name == "items":
            made[name], same = _schema(value, depth + 1)
            exact = exact and same
        else:
            made[name] = value
    if limits:
        words = "; ".join(limits)
        about = made.get("description")
        made["description"] = f"{about} ({words})" if isinstance(about, str) and about else words
    if schema.get("type") == "object" or isinstance(schema.get("properties"), dict):
        open_ended = schema.get("additionalProperties") not in (None, False) or not schema.get("properties")
        exact = exact and not (open_ended and schema.get("additionalProperties") is not False)
        made["additionalProperties"] = False
    return made, exact
