"""Whether a value is what a JSON Schema describes: the words that callers of models use (draft 2020-12 and before).

`$ref` is followed within the schema only. `format` and words that are not known here say nothing, as the standard has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from aigw.plugins.patterns import Pattern

DEEPEST = 200
"""Levels of a value, and references that follow one another, that are looked at."""

MOST = 20
"""Errors that are told."""

_KINDS: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
}


def errors(value: Any, schema: Any) -> list[str]:
    """What is wrong with *value*, each as "where: what", at most `MOST`; none: it is valid. Raises ValueError for a schema that
    is none."""
    found: list[str] = []
    for error in _check(value, schema, schema, "$", 0):
        found.append(error)
        if len(found) == MOST:
            break
    return found


def _check(value: Any, schema: Any, root: Any, at: str, depth: int) -> Iterator[str]:
    if schema is True:
        return
    if schema is False:
        yield f"{at}: nothing is allowed here"
        return
    if not isinstance(schema, dict):
        raise ValueError("a schema is an object, true, or false")  # noqa: TRY004 - it is what the caller wrote that is wrong
    if depth > DEEPEST:
        raise ValueError("it is nested too deeply")
    if "$ref" in schema:
        yield from _check(value, _referred(schema["$ref"], root), root, at, depth + 1)
    if "type" in schema and not _is_one_of(value, schema["type"]):
        yield f"{at}: expected {_said(schema['type'])}, got {_kind(value)}"
        return
    if "enum" in schema and not any(_same(value, one) for one in schema["enum"]):
        yield f"{at}: expected one of {str(schema['enum'])[:200]}"
    if "const" in schema and not _same(value, schema["const"]):
        yield f"{at}: expected {str(schema['const'])[:200]}"
    if isinstance(value, dict):
        yield from _object(value, schema, root, at, depth)
    elif isinstance(value, list):
        yield from _array(value, schema, root, at, depth)
    elif isinstance(value, str):
        yield from _string(value, schema, at)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield from _number(value, schema, at)
    for one in schema.get("allOf", ()):
        yield from _check(value, one, root, at, depth + 1)
    for word in ("anyOf", "oneOf"):
        if word in schema:
            fits = sum(next(_check(value, one, root, at, depth + 1), None) is None for one in schema[word])
            if not fits or (word == "oneOf" and fits != 1):
                yield f"{at}: fits {fits} of the {len(schema[word])} schemas of {word}"
    if "not" in schema and next(_check(value, schema["not"], root, at, depth + 1), None) is None:
        yield f"{at}: is what it must not be"


def _object(value: dict[str, Any], schema: dict[str, Any], root: Any, at: str, depth: int) -> Iterator[str]:
    known = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{at}: {name!r} is missing"
    others = schema.get("additionalProperties", True)
    patterns = {re.compile(said): one for said, one in schema.get("patternProperties", {}).items()}
    for name, one in value.items():
        place = f"{at}.{name}"
        if name in known:
            yield from _check(one, known[name], root, place, depth + 1)
        matching = [pattern for pattern in patterns if pattern.search(name)]
        for pattern in matching:
            yield from _check(one, patterns[pattern], root, place, depth + 1)
        if name not in known and not matching and others is not True:
            if others is False:
                yield f"{at}: {name!r} is not expected"
            else:
                yield from _check(one, others, root, place, depth + 1)
    yield from _bounds(len(value), schema, "minProperties", "maxProperties", at, "members")


def _array(value: list[Any], schema: dict[str, Any], root: Any, at: str, depth: int) -> Iterator[str]:
    first = schema.get("prefixItems", [])
    for number, one in enumerate(value):
        wanted = first[number] if number < len(first) else schema.get("items", True)
        yield from _check(one, wanted, root, f"{at}[{number}]", depth + 1)
    yield from _bounds(len(value), schema, "minItems", "maxItems", at, "items")
    if schema.get("uniqueItems") and any(_same(one, other) for n, one in enumerate(value) for other in value[:n]):
        yield f"{at}: two items are the same"


def _string(value: str, schema: dict[str, Any], at: str) -> Iterator[str]:
    yield from _bounds(len(value), schema, "minLength", "maxLength", at, "characters")
    if "pattern" in schema:
        try:
            pattern = Pattern(schema["pattern"])
        except ValueError:
            return  # one that cannot be run safely says nothing
        if next(pattern.places(value), None) is None:
            yield f"{at}: does not match {schema['pattern'][:100]}"


def _number(value: float, schema: dict[str, Any], at: str) -> Iterator[str]:
    if "minimum" in schema and value < schema["minimum"]:
        yield f"{at}: expected at least {schema['minimum']}"
    if "maximum" in schema and value > schema["maximum"]:
        yield f"{at}: expected at most {schema['maximum']}"
    if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
        yield f"{at}: expected more than {schema['exclusiveMinimum']}"
    if "exclusiveMaximum" in schema and value >= schema["exclusiveMaximum"]:
        yield f"{at}: expected less than {schema['exclusiveMaximum']}"
    step = schema.get("multipleOf")
    if step and abs(value / step - round(value / step)) > 1e-9:
        yield f"{at}: expected a multiple of {step}"


def _bounds(size: int, schema: dict[str, Any], least: str, most: str, at: str, what: str) -> Iterator[str]:
    if size < schema.get(least, 0):
        yield f"{at}: expected at least {schema[least]} {what}"
    if most in schema and size > schema[most]:
        yield f"{at}: expected at most {schema[most]} {what}"


def _referred(reference: Any, root: Any) -> Any:
    if not isinstance(reference, str) or not reference.startswith("#"):
        raise ValueError("a reference leads out of the schema")
    found = root
    for step in reference[1:].split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        try:
            found = found[int(name)] if isinstance(found, list) else found[name]
        except (KeyError, IndexError, TypeError, ValueError):
            raise ValueError(f"nothing is at {reference[:100]}") from None
    return found


def _is_one_of(value: Any, kinds: Any) -> bool:
    return any(_is(value, kind) for kind in (kinds if isinstance(kinds, list) else [kinds]))


def _is(value: Any, kind: str) -> bool:
    if kind == "integer":
        return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())
    if kind == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    wanted = _KINDS.get(kind)
    if wanted is None:
        raise ValueError(f"no type is called {str(kind)[:50]!r}")
    return isinstance(value, wanted)


def _same(one: Any, other: Any) -> bool:
    """As JSON: true is not 1, and 1.0 is 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    found: bool = one == other
    return found


def _kind(value: Any) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return "number"
    return next(name for name, kind in _KINDS.items() if isinstance(value, kind))


def _said(kinds: Any) -> str:
    return " or ".join(kinds) if isinstance(kinds, list) else str(kinds)
