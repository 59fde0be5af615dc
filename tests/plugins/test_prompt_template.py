"""Prompts by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aigw.errors import ConfigError
from aigw.plugins.prompt_template import LONGEST, PromptTemplate
from tests.plugged import entry, manager
from tests.walk import CONFIG, GOOD, Walk

TABLE = {
    "templates": {
        "review": {"messages": [{"content": "old"}]},
        "review@2": {
            "messages": [
                {"role": "system", "content": "You review {{language}} for {{consumer}}."},
                {"content": "Review:\n{{code}}"},
            ],
            "defaults": {"language": "Python"},
            "model": "fast",
        },
        "review@10": {"messages": [{"content": "v10 {{code}}"}], "model": "fast"},
    }
}


async def asked(said: Any, operation: str = "chat", **table: Any) -> tuple[Any, Any]:
    walk = Walk(CONFIG, GOOD, plugins=manager(entry(PromptTemplate, TABLE | table)))
    near, _ = await walk.ask(said, operation)
    return near, json.loads(walk.transport.requests[0].body) if walk.transport.requests else None


async def test_expanded() -> None:
    """Values stay texts, whatever they hold; the rest of the request stays as it is."""
    near, body = await asked({"template": "review@2", "properties": {"code": '"}]{{language}}\n'}, "temperature": 0.5})
    assert near.status == 200
    assert body == {
        "model": "gpt-fast",
        "temperature": 0.5,
        "messages": [
            {"role": "system", "content": "You review Python for ci."},
            {"role": "user", "content": 'Review:\n"}]{{language}}\n'},
        ],
    }


async def test_the_highest_version_and_what_is_said_besides() -> None:
    said = {
        "template": "review",
        "properties": {"code": 1},
        "messages": [{"role": "user", "content": "thanks"}],
        "model": "fast",
    }
    _, body = await asked(said)
    assert [message["content"] for message in body["messages"]] == ["v10 1", "thanks"]


async def test_other_dialects() -> None:
    near, body = await asked(
        {"template": "review@2", "properties": {"code": "x"}, "max_tokens": 5, "system": "Be kind."}, "messages"
    )
    assert near.status == 200, near.body
    assert body["messages"][0]["content"] == "You review Python for ci.\n\nBe kind."
    assert body["messages"][-1]["content"] == "Review:\nx"
    near, body = await asked({"template": "review@2", "properties": {"code": "x"}, "input": "and?"}, "responses")
    assert near.status in (200, 502)  # whatever is answered: it went out so
    assert "Review:\\nx" in json.dumps(body)


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"template": "nosuch"}, "template"),
        ({"template": 3}, "template"),
        ({"template": "review@2"}, "properties.code"),
        ({"template": "review@2", "properties": []}, "properties"),
        ({"template": "review@2", "properties": {"code": ["x"]}}, "properties.code"),
        ({"template": "review@2", "properties": {"code": True}}, "properties.code"),
        ({"template": "review@2", "properties": {"code": "x" * (LONGEST + 1)}}, "properties.code"),
    ],
)
async def test_the_callers_mistakes(said: Any, param: str) -> None:
    near, body = await asked(said)
    assert (near.status, near.error["param"], body) == (400, param, None)


async def test_without_a_template() -> None:
    plain = {"model": "fast", "messages": [{"role": "user", "content": 'a "template" of mine'}]}
    near, body = await asked(plain)
    assert near.status == 200
    assert body == plain | {"model": "gpt-fast"}
    near, _ = await asked(plain, required=True)
    assert (near.status, near.error["param"]) == (400, "template")
    near, _ = await asked(b"{")
    assert near.status == 400


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"templates": {"a": {"messages": []}}},
        {"templates": {"a": {"messages": [{"content": "x"}], "defaults": {"y": "z"}}}},
    ],
)
def test_what_cannot_be(table: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        entry(PromptTemplate, table)
