"""Words around, and words replaced, in every dialect."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aigw.errors import ConfigError
from aigw.plugins.prompt_decorator import LONGEST, PromptDecorator
from tests.plugged import entry, manager
from tests.walk import ANSWER, CONFIG, GOOD, Walk


async def sent(table: dict[str, Any], ask: dict[str, Any], operation: str = "chat", **more: Any) -> tuple[Any, Walk]:
    walk = Walk(CONFIG, GOOD, plugins=manager(entry(PromptDecorator, table)))
    near, _ = await walk.ask(ask, operation, **more)
    assert near.status == 200, near.body
    return json.loads(walk.transport.requests[0].body), walk


ASK = {"model": "fast", "messages": [{"role": "user", "content": "Where is Acme?"}], "x_own": 1}


async def test_before_and_after() -> None:
    table = {
        "prepend": [{"text": "You help {{consumer}} of {{group}} ({{tag.team}}, {{header.x-lang}}) with {{model}}."}],
        "append": [{"role": "user", "text": "Be brief."}],
    }
    body, _ = await sent(table, ASK, headers={"X-Lang": "de"})
    assert [message["content"] for message in body["messages"]] == [
        "You help ci of eng (core, de) with fast.",
        "Where is Acme?",
        "Be brief.",
    ]
    assert body["x_own"] == 1


async def test_in_another_dialect() -> None:
    told = {"model": "fast", "max_tokens": 9, "messages": [{"role": "user", "content": "Why?"}]}
    body, _ = await sent({"prepend": [{"text": "Be kind."}]}, told, "messages")
    assert body["messages"][0]["content"] == "Be kind."


async def test_words_replaced() -> None:
    table = {
        "replace": [
            {"pattern": "Acme", "text": "ACME Inc."},
            {"pattern": r"(\d+) EUR", "text": r"€\1", "regex": True},
            {"pattern": "secret", "text": "-", "role": "system"},
        ]
    }
    messages = [
        {"role": "system", "content": "secret"},
        {"role": "user", "content": [{"type": "text", "text": "Acme: 5 EUR, secret"}]},
    ]
    body, _ = await sent(table, {"model": "fast", "messages": messages})
    assert body["messages"][0]["content"] == "-"
    assert "ACME Inc.: €5, secret" in json.dumps(body["messages"][1], ensure_ascii=False)


async def test_nothing_to_do_leaves_the_bytes() -> None:
    body, walk = await sent({"replace": [{"pattern": "Zebra", "text": "x"}]}, ASK)
    assert body == ASK | {"model": "gpt-fast"}
    assert json.loads(walk.journal.near.body) == ANSWER  # type: ignore[union-attr]


async def test_a_huge_text_is_left_alone() -> None:
    long = "a" * (LONGEST + 1)
    body, _ = await sent(
        {"replace": [{"pattern": "a", "text": "b"}]}, {"model": "fast", "messages": [{"role": "user", "content": long}]}
    )
    assert body["messages"][0]["content"] == long


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"prepend": [{"text": "{{nosuch}}"}]},
        {"replace": [{"pattern": "", "text": "x"}]},
        {"replace": [{"pattern": "(", "text": "x", "regex": True}]},
        {"replace": [{"pattern": "a", "text": r"\9", "regex": True}]},
        {"append": [{"text": "x", "role": "tool"}]},
    ],
)
def test_what_cannot_be(table: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        entry(PromptDecorator, table)
