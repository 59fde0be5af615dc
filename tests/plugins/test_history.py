"""What was said before goes along, for whoever said it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aigw.errors import ConfigError, StoreError
from aigw.plugins.history import History, _newest
from aigw.plugins.mask import Mask
from tests.plugged import Alone, entry, manager
from tests.walk import ANSWER, CONFIG, DONE, USAGE_EVENT, Play, Walk, answers, chunk, streams

END = b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
HEADER = {"x-aigw-conversation": "c-1"}


def says(text: str, finish: str = "stop") -> Play:
    message = {"role": "assistant", "content": text}
    return answers(ANSWER | {"choices": [{"index": 0, "message": message, "finish_reason": finish}]})


class World:
    def __init__(self, *plays: Play, host: Alone | None = None, more: Any = (), **table: Any) -> None:
        self.host = host or Alone("history")
        self.entry = entry(History, table, host=self.host)
        self.walk = Walk(CONFIG, *plays, plugins=manager(self.entry, *more))

    async def ask(self, *said: tuple[str, str], operation: str = "chat", headers: Any = HEADER, **more: Any) -> Any:
        messages = [{"role": role, "content": text} for role, text in said]
        body = {"model": "fast", "messages": messages} | more
        near, _ = await self.walk.ask(body, operation, headers=headers)
        await self.entry.plugin.shutdown()
        return near

    @property
    def sent(self) -> list[tuple[str, str]]:
        messages = json.loads(self.walk.transport.requests[-1].body)["messages"]
        return [(one["role"], one["content"]) for one in messages]


async def test_a_conversation() -> None:
    world = World(says("one"), says("two"), says("three"))
    await world.ask(("system", "Be brief."), ("user", "1?"))
    await world.ask(("user", "2?"))
    assert world.sent == [("system", "Be brief."), ("user", "1?"), ("assistant", "one"), ("user", "2?")]
    await world.ask(("system", "Be kind."), ("user", "3?"))
    assert world.sent[0] == ("system", "Be kind.")
    assert [text for _, text in world.sent[1:]] == ["1?", "one", "2?", "two", "3?"]
    assert world.host.counts == {"begun": 1, "continued": 2}


async def test_streams_and_other_dialects() -> None:
    world = World(streams(chunk("o"), chunk("ne"), END, USAGE_EVENT, DONE), says("two"))
    await world.ask(("user", "1?"), stream=True)
    await world.ask(("user", "2?"), operation="messages", max_tokens=9)
    assert world.sent == [("user", "1?"), ("assistant", "one"), ("user", "2?")]


async def test_it_outlives_the_process_and_has_a_name() -> None:
    world = World(says("one"))
    await world.ask(("user", "1?"))
    other = World(says("two"), host=world.host)
    await other.ask(("user", "x?"), headers={"x-aigw-conversation": "c-2"})
    assert other.sent == [("user", "x?")]
    await other.ask(("user", "2?"))
    assert other.sent[0] == ("user", "1?")


async def test_without_the_header_nothing_is_touched() -> None:
    world = World(says("one"))
    near = await world.ask(("user", "1?"), headers={})
    assert world.host.kv.kept == {}
    assert json.loads(near.body)["choices"][0]["message"]["content"] == "one"
    near = await world.ask(("user", "1?"), headers={"x-aigw-conversation": "no spaces"})
    assert near.status == 400
    assert b"x-aigw-conversation" in near.body


async def test_what_did_not_end_well_is_not_remembered() -> None:
    world = World(says("no", "content_filter"), answers({"error": {"message": "bad"}}, 400), says("two"))
    await world.ask(("user", "1?"))
    await world.ask(("user", "2?"))
    await world.ask(("user", "3?"))
    assert world.sent == [("user", "3?")]


async def test_a_call_and_its_result() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    play = answers(ANSWER | {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]})
    world = World(play, says("done"))
    tools = [{"type": "function", "function": {"name": "f"}}]
    await world.ask(("user", "do"), tools=tools)
    body = {"model": "fast", "messages": [{"role": "tool", "tool_call_id": "c1", "content": "7"}], "tools": tools}
    await world.walk.ask(body, headers=HEADER)
    roles = [one["role"] for one in json.loads(world.walk.transport.requests[-1].body)["messages"]]
    assert roles == ["user", "assistant", "tool"]


async def test_masked_anew_each_time() -> None:
    world = World(says("hello <EMAIL_1>"), says("two"), more=[Mask])
    near = await world.ask(("user", "I am ann@example.org"))
    assert b"hello ann@example.org" in near.body
    await world.ask(("user", "who am I?"))
    assert world.sent[:2] == [("user", "I am <EMAIL_1>"), ("assistant", "hello <EMAIL_1>")]


async def test_only_the_newest_go_along() -> None:
    world = World(*(says(str(number)) for number in range(9)), most=4)
    for number in range(6):
        await world.ask(("user", f"{number}?"))
    assert [text for _, text in world.sent] == ["3?", "3", "4?", "4", "5?"]
    assert _newest([], 3) == []


async def test_a_store_that_is_away() -> None:
    """Without the past no answer; what cannot be written is remembered here."""
    world = World(says("one"), says("two"))

    async def away(*_: Any) -> Any:
        raise StoreError("storage_unavailable", "away")

    kept = world.host.kv.put
    world.host.kv.put = away  # type: ignore[method-assign]
    await world.ask(("user", "1?"))
    assert world.host.counts["store_failed"] == 1
    world.host.kv.put = kept  # type: ignore[method-assign]
    await world.ask(("user", "2?"))
    assert world.sent[0] == ("user", "1?")
    world.host.kv.get = away  # type: ignore[method-assign]
    near = await World(says("x"), host=world.host).ask(("user", "3?"))
    assert near.status == 500


async def test_garbage_in_the_store_begins_anew() -> None:
    world = World(says("one"))
    await world.ask(("user", "1?"))
    for key in world.host.kv.kept:
        world.host.kv.kept[key] = b"\xc1"
    other = World(says("two"), host=world.host)
    await other.ask(("user", "2?"))
    assert other.sent == [("user", "2?")]
    assert other.host.counts["corrupt"] == 1


@pytest.mark.parametrize("table", [{"days": 0}, {"most": 0}, {"header": "no header"}])
def test_bad_settings(table: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        entry(History, table)
