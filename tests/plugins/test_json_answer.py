"""Who asks for JSON gets it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aigw.errors import ConfigError
from aigw.plugins.cache import Cache
from aigw.plugins.json_answer import JsonAnswer
from tests.plugged import Alone, entry, manager
from tests.walk import ANSWER, CONFIG, DONE, USAGE_EVENT, Play, Walk, answers, chunk, streams

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
WANTED = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}
END = b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'


def ask(wanted: Any = WANTED, **more: Any) -> dict[str, Any]:
    return {"model": "fast", "messages": [{"role": "user", "content": "n?"}], "response_format": wanted} | more


def says(text: str, finish: str = "stop") -> Play:
    message = {"role": "assistant", "content": text}
    return answers(ANSWER | {"choices": [{"index": 0, "message": message, "finish_reason": finish}]})


class World:
    def __init__(self, *plays: Play, more: Any = (), **table: Any) -> None:
        self.host = Alone("json_answer")
        self.walk = Walk(CONFIG, *plays, plugins=manager(entry(JsonAnswer, table, host=self.host), *more))

    async def ask(self, said: dict[str, Any]) -> Any:
        return (await self.walk.ask(said))[0]

    @property
    def sent(self) -> list[Any]:
        return [json.loads(request.body) for request in self.walk.transport.requests]


def text_of(near: Any) -> str:
    text: str = json.loads(near.body)["choices"][0]["message"]["content"]
    return text


@pytest.mark.parametrize(
    ("said", "got"),
    [
        ('{"n": 1}', '{"n": 1}'),
        (' {"n": 1}\n', ' {"n": 1}\n'),
        ('```json\n{"n": 1}\n```', '{"n": 1}'),
        ('Sure!\n```\n{"n": 1}\n```\nAnything else?', '{"n": 1}'),
        ('Here it is: {"n": 1}. Fine?', '{"n": 1}'),
    ],
)
async def test_what_is_right_or_plain(said: str, got: str) -> None:
    world = World(says(said))
    near = await world.ask(ask())
    assert text_of(near) == got
    assert len(world.sent) == 1


@pytest.mark.parametrize("said", ["no", "{", '{"n": "x"}', '{"m": 1}', '{"n": 1, "x": 2}', '```\n{"n":\n```', "``` ``` ```"])
async def test_asked_again(said: str) -> None:
    world = World(says(said), says('{"n": 2}'))
    near = await world.ask(ask())
    assert text_of(near) == '{"n": 2}'
    _, second = world.sent
    assert [message["role"] for message in second["messages"]] == ["user", "assistant", "user"]
    assert second["messages"][1]["content"] == said
    assert "not the JSON that was asked for" in second["messages"][2]["content"]
    assert world.host.counts == {"invalid": 1, "asked_again": 1}
    assert len(json.loads(world.walk.journal.records[-1].attempts)) == 2


async def test_when_that_does_not_help() -> None:
    world = World(says("no"), again=2)
    near = await world.ask(ask())
    assert near.status == 502
    assert b"is not the JSON" in near.body
    assert len(world.sent) == 3
    near = await World(says("no"), again=0, otherwise="pass").ask(ask())
    assert text_of(near) == "no"


async def test_streams_come_whole() -> None:
    bad = streams(chunk("I can"), chunk("not"), END, USAGE_EVENT, DONE)
    good = streams(chunk('```json\n{"n"'), chunk(": 3}\n```"), END, USAGE_EVENT, DONE)
    world = World(bad, good)
    near = await world.ask(ask(stream=True))
    assert b"cannot" not in near.body
    assert b'{\\"n\\": 3}' in near.body
    assert near.body.endswith(b"data: [DONE]\n\n")


async def test_json_without_a_schema() -> None:
    assert text_of(await World(says("[1]")).ask(ask({"type": "json_object"}))) == "[1]"
    assert (await World(says("7")).ask(ask({"type": "json_object"}))).status == 502


async def test_what_is_cut_off() -> None:
    near = await World(says('{"n": 1', "length")).ask(ask())
    assert near.status == 502
    assert b"cut off" in near.body


async def test_others_pass_untouched() -> None:
    near = await World(answers(ANSWER)).ask(ask(None) | {"response_format": {"type": "text"}})
    assert near.body == json.dumps(ANSWER).encode()
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": "hm", "tool_calls": [call]}
    play = answers(ANSWER | {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]})
    near = await World(play).ask(ask(tools=[{"type": "function", "function": {"name": "f"}}]))
    assert json.loads(near.body)["choices"][0]["message"]["tool_calls"] == [call]


async def test_an_answer_from_the_cache_that_will_not_do() -> None:
    """The provider is asked then, and that answer is what counts."""
    lenient = entry(JsonAnswer, {"again": 0, "otherwise": "pass"})
    world = World(says("no"), says('{"n": 4}'))
    world.walk.pipeline.plugins = manager(lenient, entry(Cache, {"always": True}))
    await world.ask(ask())
    lenient.plugin.config.again = 1
    near = await world.ask(ask())
    assert text_of(near) == '{"n": 4}'
    assert world.walk.journal.records[-1].cost


@pytest.mark.parametrize("again", [-1, 6])
def test_bad_settings(again: int) -> None:
    with pytest.raises(ConfigError):
        entry(JsonAnswer, {"again": again})
