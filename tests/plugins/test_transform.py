"""Parameters and headers, changed on the way."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aigw.errors import ConfigError
from aigw.plugins.transform import Transform
from tests.plugged import entry, manager
from tests.walk import CONFIG, GOOD, Walk

ASK = {
    "model": "fast",
    "messages": [{"role": "user", "content": "hi"}],
    "temperature": 0.10000000000000001,
    "big": 12345678901234567890,
}


async def asked(table: dict[str, Any], said: Any = ASK) -> tuple[Any, Any]:
    walk = Walk(CONFIG, GOOD, plugins=manager(entry(Transform, table)))
    near, _ = await walk.ask(said)
    return near, walk.transport.requests[0].body if walk.transport.requests else None


async def test_parameters() -> None:
    """Renamed, dropped, given, set; all else stays byte for byte what it was."""
    table = {
        "rename": {"max_tokens": "max_completion_tokens"},
        "drop": ["user"],
        "default": {"temperature": 1, "seed": 7},
        "set": {"n": 1},
    }
    near, body = await asked(table, ASK | {"max_tokens": 5, "user": "me", "n": 3})
    found = json.loads(body)
    assert near.status == 200
    assert (found["max_completion_tokens"], found["temperature"], found["seed"], found["n"]) == (5, 0.1, 7, 1)
    assert "user" not in found
    assert "max_tokens" not in found
    assert b"12345678901234567890" in body


async def test_headers() -> None:
    near, _ = await asked({"set_headers": {"X-Team": "search"}, "drop_headers": ["x-aigw-model"]})
    assert near.headers[b"x-team"] == b"search"
    assert b"x-aigw-model" not in near.headers
    assert b"x-aigw-provider" in near.headers


async def test_nothing_to_do() -> None:
    _, body = await asked({"drop": ["user"]})
    assert json.loads(body) == ASK | {"model": "gpt-fast"}
    near, _ = await asked({"drop": ["user"]}, b"[1]")
    assert near.status == 400


@pytest.mark.parametrize(
    "table",
    [
        {"set": {"model": "x"}},
        {"rename": {"stream": "x"}},
        {"set_headers": {"content-length": "1"}},
        {"set_headers": {"x": "a\r\nb: c"}},
        {"drop_headers": ["x y"]},
        {"sett": {}},
    ],
)
def test_what_cannot_be(table: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        entry(Transform, table)


async def test_only_for_some_models() -> None:
    """Although nobody has read the request yet; by route it cannot be."""
    _, body = await asked({"models": ["fast"], "set": {"n": 1}})
    assert json.loads(body)["n"] == 1
    _, body = await asked({"models": ["other"], "set": {"n": 1}})
    assert "n" not in json.loads(body)
