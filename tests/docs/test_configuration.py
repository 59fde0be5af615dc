"""docs/configuration.md against the schema: nothing missing, nothing invented, every type and default as it is."""

from __future__ import annotations

import tomllib
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import msgspec
import pytest

from aigw.config import schema
from aigw.plugins.load import Common
from aigw.providers.compatible import Patience
from tests.docs.pages import ROOT, headings, spans, tables

PAGE = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
NAMED = {"prices": '"PROVIDER/MODEL"', "routes": '"NAME"'}  # what stands for a table's name in a heading; else NAME


def expected_tables() -> dict[str, type[msgspec.Struct]]:
    """Heading -> the schema's table."""
    found: dict[str, type[msgspec.Struct]] = {}
    for field in msgspec.structs.fields(schema.Config):
        if field.name == "model_groups":
            continue  # a plain table, of names of the operator's own
        if field.name == "plugins":
            found["`[plugins.NAME]`"] = Common  # besides what each has of its own
        elif get_origin(field.type) is dict:
            found[f"`[{field.name}.{NAMED.get(field.name, 'NAME')}]`"] = get_args(field.type)[1]
        else:
            found[f"`[{field.name}]`"] = field.type
    found["Entries of `targets` and `fallback`"] = schema.RouteTarget
    found["Entries of `keys`"] = schema.ProviderKey
    found["`when`"] = schema.When
    found["`[auth.jwt]`"] = schema.Jwt
    found["`hedge`"] = schema.Hedge
    found["`on_budget`"] = schema.OnBudget
    return found


def words_for(kind: Any) -> str:
    kind = next((option for option in get_args(kind) if option is not NoneType), kind) if NoneType in get_args(kind) else kind
    if get_origin(kind) is Union:
        return " or ".join(words_for(option).removeprefix("one of ") for option in get_args(kind))
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(f'`"{choice}"`' for choice in get_args(kind))
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        if isinstance(item, UnionType):
            return "list of strings or tables"
        if get_origin(item) is Literal:
            return "list of " + ", ".join(f'`"{choice}"`' for choice in get_args(item))
        return "list of strings" if item is str else "list of tables"
    if get_origin(kind) is dict:
        return "table" if get_args(kind)[1] is Any else "table of strings"
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return "table"
    return {bool: "true or false", int: "whole number", float: "number", str: "string"}[kind]


@pytest.mark.parametrize("heading", expected_tables())
def test_every_key(heading: str) -> None:
    """Each table has exactly the keys of the schema, in any order, with their types and defaults."""
    written = {row[0].strip("`"): row for row in tables(PAGE)[heading]}
    fields = {field.encode_name: field for field in msgspec.structs.fields(expected_tables()[heading])}
    assert sorted(written) == sorted(fields)
    for name, field in fields.items():
        _, kind, default, meaning = written[name]
        assert kind == words_for(field.type), name
        assert meaning, name
        value = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        if field.required:
            assert default == "required", name
        elif value is None:
            assert default == "unset", name
        else:
            value = list(value) if isinstance(value, tuple) else value
            assert tomllib.loads(f"value = {default.strip('`')}") == {"value": value}, name


def test_no_other_tables() -> None:
    """A heading that names a table names one that exists."""
    named = {heading.title for heading in headings(PAGE) if heading.title.startswith("`[")}
    assert named == {heading for heading in expected_tables() if heading.startswith("`[")}


def test_what_unset_timeouts_are() -> None:
    """The figures that hold where nobody wrote any are those of the code."""
    rows = {row[0].strip("`"): row[3] for row in tables(PAGE)["`[upstream]`"]}
    names = ("connect_timeout", "first_byte_timeout", "stream_idle_timeout", "timeout")
    for name, seconds in zip(names, Patience(), strict=False):
        more = f" for streams, {Patience().plain:g} for other answers" if name == "first_byte_timeout" else ""
        assert rows[name].endswith(f"Unset everywhere: {seconds:g}{more}"), name


def test_codes_in_the_night_table() -> None:
    """Every error code the page names is one."""
    from aigw.errors import CODES

    starts = ("caller_", "policy_", "provider_", "gateway_")
    named = {word for word in spans(PAGE) if word.startswith(starts) and word not in starts}
    assert named
    assert named <= set(CODES)
