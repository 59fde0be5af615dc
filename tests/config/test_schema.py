"""What an operator may write."""

from __future__ import annotations

import inspect

import msgspec
import pytest

from aigw.config import schema
from aigw.config.schema import Config, Table

TABLES = [kind for _, kind in inspect.getmembers(schema, inspect.isclass) if issubclass(kind, Table) and kind is not Table]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.__name__)
def test_an_unknown_key_is_refused(table: type[Table]) -> None:
    """In every table: a typo that is swallowed is a setting that does not hold."""
    needed = {field.name: [] if field.name == "targets" else 1 for field in msgspec.structs.fields(table) if field.required}
    words = {"issuer": "https://login.example", "audience": "aigw", "jwks": "/jwks.json"} | {
        "use": "cheap",
        "url": "https://ops.example",
        "provider": "openai",
        "key": "sk-x",
        "input": 1.0,
        "targets": [],
    }
    fine = {name: words.get(name, value) for name, value in needed.items()}
    msgspec.convert(fine, table)
    with pytest.raises(msgspec.ValidationError, match="unknown field `hots`"):
        msgspec.convert(fine | {"hots": 1}, table)


def test_nothing_written_is_safe() -> None:
    """Without a config: this machine only, a key for every request, no provider."""
    config = Config()
    assert config.server.host == config.admin.host == "127.0.0.1"
    assert config.auth.required
    assert not config.providers
    assert config.storage.url == "sqlite:"


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.__name__)
def test_a_config_cannot_be_changed_in_place(table: type[Table]) -> None:
    """A reload builds another one; whoever holds this one may rely on it."""
    assert table.__struct_config__.frozen
    assert table.__struct_config__.forbid_unknown_fields
