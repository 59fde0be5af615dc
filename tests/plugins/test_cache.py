"""The same question is asked once; nobody gets an answer to another's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from aigw.canonical import Answer, Choice, Citation, Foreign, Media, Refusal, Spent, Text, Thinking, ToolCall
from aigw.errors import ConfigError, StoreError, UpstreamError
from aigw.plugins import cache
from aigw.plugins.cache import Cache, Likes, Shelf, read, write
from aigw.plugins.mask import Mask
from tests.plugged import Alone, entry, manager
from tests.walk import ANSWER, CONFIG, DONE, GOOD, USAGE_EVENT, Play, Walk, answers, chunk, fails, streams, unreachable

END = b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]


def ask(text: Any = "Why?", **more: Any) -> dict[str, Any]:
    return {"model": "fast", "temperature": 0, "messages": [{"role": "user", "content": text}]} | more


def says(text: str) -> Play:
    return answers(
        ANSWER | {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}
    )


def slowly(play: Play, seconds: float = 0.05) -> Play:
    async def later(request: Any, receiver: Any) -> None:
        await asyncio.sleep(seconds)
        await play(request, receiver)

    return later


class World:
    """A walk with a cache in it."""

    def __init__(self, *plays: Play, more: Any = (), **table: Any) -> None:
        self.host = Alone("cache")
        self.entry = entry(Cache, table, host=self.host)
        self.walk = Walk(CONFIG.replace("concurrency = 1", ""), *(plays or (GOOD,)), plugins=manager(self.entry, *more))

    async def ask(self, said: dict[str, Any], operation: str = "chat", **more: Any) -> tuple[Any, str]:
        near, _ = await self.walk.ask(said, operation, **more)
        return near, dict(near.headers).get(b"x-aigw-cache", b"").decode()

    async def at_once(self, number: int, body: dict[str, Any]) -> list[tuple[int, str]]:
        """Status and what the cache said of *number* equal requests at once."""
        begun = [self.walk.begin(body) for _ in range(number)]
        await asyncio.gather(*(task for task, _ in begun))
        return [(near.status, dict(near.headers).get(b"x-aigw-cache", b"").decode()) for _, near in begun]

    @property
    def asked(self) -> int:
        return len(self.walk.transport.requests)


def text_of(near: Any) -> str:
    text: str = json.loads(near.body)["choices"][0]["message"]["content"]
    return text


async def test_the_same_question_again() -> None:
    world = World()
    first, said = await world.ask(ask())
    assert said == "miss"
    again, said = await world.ask(ask())
    assert said == "hit"
    assert world.asked == 1
    assert json.loads(again.body)["choices"] == json.loads(first.body)["choices"]
    assert json.loads(again.body)["usage"] == json.loads(first.body)["usage"]
    assert dict(again.headers)[b"age"] == b"0"
    assert world.host.counts == {"missed": 1, "hit": 1}
    before, after = world.walk.journal.records
    assert (after.cost, after.input, after.attempts) == (0, 0, "[]")
    assert after.cache_saving == before.cost


async def test_streamed_or_not_in_any_dialect() -> None:
    """What one way of asking brought, every other gets."""
    world = World(streams(chunk("He"), chunk("llo"), END, USAGE_EVENT, DONE))
    first, _ = await world.ask(ask(stream=True, stream_options={"include_usage": True}))
    assert b'"He"' in first.body
    near, said = await world.ask(ask())
    assert (text_of(near), said) == ("Hello", "hit")
    near, said = await world.ask(ask(stream=True))
    assert said == "hit"
    assert b"Hello" in near.body
    assert near.body.endswith(b"data: [DONE]\n\n")
    messages = ask(max_tokens=9)
    world = World()
    await world.ask(messages)
    near, said = await world.ask(messages, "messages")
    assert said == "hit"
    assert json.loads(near.body)["type"] == "message"
    near, said = await world.ask(messages | {"stream": True}, "messages")
    assert said == "hit"
    assert b"event: message_stop" in near.body
    assert world.asked == 1


async def test_tools() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at":"x"}'}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    world = World(answers(ANSWER | {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}))
    await world.ask(ask(tools=TOOLS))
    near, said = await world.ask(ask(tools=TOOLS))
    assert said == "hit"
    assert json.loads(near.body)["choices"][0]["message"]["tool_calls"] == [call]
    assert json.loads(near.body)["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(
    "other",
    [
        ask("Why not?"),
        ask(model="gpt-fast"),
        ask(max_tokens=5),
        ask(seed=7),
        ask(tools=TOOLS),
        ask(tools=TOOLS, tool_choice="none"),
        ask(response_format={"type": "json_object"}),
        ask(reasoning_effort="low"),
        ask(strange_new_thing=1),
        ask(messages=[{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Why?"}]),
        ask(messages=[{"role": "assistant", "content": "Why?"}]),
        ask([{"type": "text", "text": "Why?"}, {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}]),
    ],
)
async def test_what_makes_it_another_question(other: dict[str, Any]) -> None:
    world = World()
    await world.ask(ask())
    assert (await world.ask(other))[1] == "miss"
    assert world.asked == 2


@pytest.mark.parametrize(
    "same", [ask(user="u2"), ask(metadata={"a": "b"}), ask(prompt_cache_key="x"), ask(service_tier="auto")]
)
async def test_what_does_not(same: dict[str, Any]) -> None:
    world = World()
    await world.ask(ask())
    assert (await world.ask(same))[1] == "hit"


@pytest.mark.parametrize(
    ("said", "operation"),
    [
        (ask(temperature=0.5), "chat"),
        ({"model": "fast", "messages": [{"role": "user", "content": "Why?"}]}, "chat"),
        ({"model": "fast", "input": "Why?", "temperature": 0}, "responses"),  # its id may be asked for later
        (ask(max_tokens=9, tools=[{"type": "web_search_20250305", "name": "web_search"}]), "messages"),
    ],
)
async def test_what_is_not_kept(said: dict[str, Any], operation: str) -> None:
    world = World()
    for _ in range(2):
        assert (await world.ask(said, operation))[1] == "skip"
    assert world.asked == 2
    if operation == "chat":
        world = World(always=True)
        assert [(await world.ask(said))[1] for _ in range(2)] == ["miss", "hit"]


async def test_what_is_skipped_stays_as_it_came() -> None:
    near, _ = await World().ask(ask(temperature=1))
    assert near.body == json.dumps(ANSWER).encode()


@pytest.mark.parametrize(
    "play",
    [
        fails(unreachable()),
        answers({"error": {"message": "no", "type": "invalid_request_error"}}, 400),
        answers(ANSWER | {"choices": [{"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "stop"}]}),
        answers(
            ANSWER
            | {"choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "content_filter"}]}
        ),
    ],
)
async def test_failures_and_empty_answers_are_not_kept(play: Play) -> None:
    world = World(play)
    await world.ask(ask())
    before = world.asked
    await world.ask(ask())
    assert world.asked > before


async def test_a_stream_that_broke_is_not_kept() -> None:
    world = World(streams(chunk("He"), then=unreachable()), GOOD)
    await world.ask(ask(stream=True))
    assert (await world.ask(ask()))[1] == "miss"


async def test_embeddings_and_rerank() -> None:
    vectors = {"object": "list", "data": [{"index": 0, "embedding": [0.5]}], "usage": {"prompt_tokens": 3, "total_tokens": 3}}
    world = World(answers(vectors))
    said = {"model": "fast", "input": ["x"]}
    first, _ = await world.ask(said, "embeddings")
    again, how = await world.ask({"input": ["x"], "user": "u", "model": "fast"}, "embeddings")
    assert how == "hit"
    assert again.body == first.body
    assert (await world.ask(said | {"input": ["y"]}, "embeddings"))[1] == "miss"
    assert (await world.ask(said | {"dimensions": 3}, "embeddings"))[1] == "miss"


@pytest.mark.parametrize(
    ("headers", "found", "next_one"),
    [
        ({"cache-control": "no-cache"}, "miss", "hit"),
        ({"x-aigw-cache": "refresh"}, "miss", "hit"),
        ({"cache-control": "max-age=0"}, "miss", "hit"),
        ({"cache-control": "max-age=60, no-transform"}, "hit", "hit"),
        ({"cache-control": "no-store"}, "hit", "hit"),
        ({"x-aigw-cache": "skip"}, "skip", "hit"),
    ],
)
async def test_what_callers_may_say(headers: dict[str, str], found: str, next_one: str) -> None:
    world = World(says("old"), says("new"))
    await world.ask(ask())
    assert (await world.ask(ask(), headers=headers))[1] == found
    near, said = await world.ask(ask())
    assert said == next_one
    fresh = found == "miss"
    assert text_of(near) == ("new" if fresh else "old")


async def test_not_stored() -> None:
    world = World()
    for _ in range(2):
        assert (await world.ask(ask(), headers={"cache-control": "no-store"}))[1] == "miss"


async def test_at_once() -> None:
    """A thousand of the same: one is asked, the others have its answer."""
    world = World(slowly(GOOD))
    found = await world.at_once(1000, ask())
    assert world.asked == 1
    assert sorted(set(found)) == [(200, "hit"), (200, "miss")]
    assert world.host.counts == {"missed": 1, "joined": 999, "hit": 999}


async def test_when_the_first_fails_one_more_tries() -> None:
    world = World(slowly(answers({"error": {"message": "no"}}, 400)), slowly(GOOD))
    found = await world.at_once(50, ask())
    assert sorted(status for status, _ in found) == [200] * 49 + [400]
    assert world.asked == 2


async def test_when_the_first_hangs_up() -> None:
    world = World(slowly(GOOD, 60), GOOD)
    first, _ = world.walk.begin(ask())
    await asyncio.sleep(0.01)
    second, near = world.walk.begin(ask())
    await asyncio.sleep(0.01)
    first.cancel()
    await second
    assert near.status == 200
    assert world.asked == 2


async def test_old_ones_are_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(says("old"), says("new"), ttl=60)
    await world.ask(ask())
    real = cache.time.time
    monkeypatch.setattr(cache.time, "time", lambda: real() + 61)
    near, said = await world.ask(ask())
    assert (text_of(near), said) == ("new", "miss")


async def test_behind_mask() -> None:
    """What differs only in what is masked is the same question, and each gets its own back."""
    world = World(says("Dear <EMAIL_1>"), more=[Mask])
    near, said = await world.ask(ask("Write to ann@example.org"))
    assert (text_of(near), said) == ("Dear ann@example.org", "miss")
    near, said = await world.ask(ask("Write to bob@example.org"))
    assert (text_of(near), said) == ("Dear bob@example.org", "hit")


async def test_whose() -> None:
    """By default nobody gets what another asked for."""
    found = {}
    for share in ("consumer", "group", "all"):
        plugin = entry(Cache, {"share": share}).plugin
        assert isinstance(plugin, Cache)
        keys = [plugin._key(View(*who), b"q") for who in (("a", "g"), ("b", "g"), ("c", "h"), ("d", ""))]
        found[share] = len(set(keys))
    assert found == {"consumer": 4, "group": 3, "all": 1}


class View:
    """As much of one as a key takes."""

    def __init__(self, consumer_id: str, group: str) -> None:
        self.consumer_id, self.group = consumer_id, group
        self.conversation, self.operation, self.route, self.model = True, "chat", "fast", "fast"


# --- the store ---


async def test_in_the_store() -> None:
    world = World(kept="store")
    await world.ask(ask())
    await world.entry.plugin.shutdown()
    other = World(kept="store")
    other.host.kv.kept.update(world.host.kv.kept)
    assert [(await other.ask(ask()))[1] for _ in range(2)] == ["hit", "hit"]
    assert other.asked == 0
    for key in other.host.kv.kept:
        other.host.kv.kept[key] = b"\xc1 not one of ours"
    third = World(kept="store")
    third.host.kv.kept.update(other.host.kv.kept)
    assert (await third.ask(ask()))[1] == "miss"
    assert third.host.counts["corrupt"] == 1


async def test_a_store_that_is_away() -> None:
    world = World(kept="store")

    async def away(*_: Any) -> Any:
        raise StoreError("storage_unavailable", "away")

    world.host.kv.get = world.host.kv.put = away  # type: ignore[method-assign,assignment]
    assert [(await world.ask(ask()))[1] for _ in range(2)] == ["miss", "hit"]
    await world.entry.plugin.shutdown()
    assert world.host.counts["store_failed"] == 2


async def test_a_reload_keeps_what_is_known() -> None:
    world = World()
    await world.ask(ask())
    newer = entry(Cache, {"memory": 1})
    newer.plugin.inherit(world.entry.plugin)
    walk = Walk(CONFIG, GOOD, plugins=manager(newer))
    near, _ = await walk.ask(ask())
    assert dict(near.headers)[b"x-aigw-cache"] == b"hit"


# --- what means the same ---


def vectors(*known: tuple[str, list[float]]) -> Callable[[Any], list[list[float]]]:
    return lambda texts: [dict(known)[text] for text in texts]


async def test_semantic() -> None:
    table = {"semantic": {"model": "embed", "threshold": 0.9}}
    world = World(says("Paris"), **table)
    world.host.vectors = vectors(
        ("Capital of France?", [1.0, 0.0, 0.2]), ("What is France's capital?", [0.9, 0.1, 0.2]), ("Red?", [0.0, 1.0, 0.0])
    )
    assert (await world.ask(ask("Capital of France?")))[1] == "miss"
    near, said = await world.ask(ask("What is France's capital?"))
    assert (said, text_of(near)) == ("hit", "Paris")
    assert 0.98 < float(dict(near.headers)[b"x-aigw-similarity"]) < 1
    assert (await world.ask(ask("Red?")))[1] == "miss"
    system = [{"role": "system", "content": "In German."}, {"role": "user", "content": "What is France's capital?"}]
    assert (await world.ask(ask(messages=system)))[1] == "miss"
    assert (await world.ask(ask("What is France's capital?", max_tokens=3)))[1] == "miss"
    assert (await world.ask(ask("What is France's capital?", tools=TOOLS)))[1] == "miss"
    assert world.host.counts["alike"] == 1


async def test_no_vectors() -> None:
    world = World(semantic={"model": "embed"})

    def broken(_: Any) -> Any:
        raise UpstreamError("provider_unreachable", "away")

    world.host.vectors = broken
    assert [(await world.ask(ask()))[1] for _ in range(2)] == ["miss", "hit"]
    assert world.host.counts["embedding_failed"] == 1


def test_the_nearest_of_many() -> None:
    likes = Likes()
    for number in range(300):
        likes.add(
            str(number), cache._unit([(number * 7919 % 101) - 50.0 + place for place in range(40)]) or cache.array("f"), 100
        )
    assert len(likes) == 100
    wanted = cache._unit([(250 * 7919 % 101) - 50.0 + place for place in range(40)])
    assert wanted is not None
    found = likes.nearest(wanted, 0.99)
    assert found[0][0] == "250"
    assert found[0][1] == pytest.approx(1.0)
    assert cache._unit([0.0, 0.0]) is None


# --- what is kept ---

texts = st.text(max_size=20)
parts = st.one_of(
    st.builds(Text, texts, citations=st.lists(st.builds(Citation, texts, texts), max_size=2)),
    st.builds(Media, st.just("image"), data=texts, type=texts),
    st.builds(Thinking, texts, texts, texts, texts, texts),
    st.builds(ToolCall, texts, texts, texts, st.booleans()),
    st.builds(Refusal, texts),
    st.builds(Foreign, texts, texts, st.dictionaries(texts, st.none() | st.integers(-9, 9) | texts)),
)
choices = st.builds(
    Choice, st.lists(parts, max_size=4), st.sampled_from(["stop", "length", "tool_calls"]), st.integers(0, 3), st.none() | texts
)


@given(
    st.builds(
        Answer,
        id=texts,
        model=texts,
        choices=st.lists(choices, max_size=3),
        spent=st.none() | st.builds(Spent, st.integers(0, 9)),
    )
)
@settings(max_examples=200)
def test_written_and_read_is_the_same(answer: Answer) -> None:
    said = write(answer)
    assert said is not None
    assert read(said) == answer


@given(st.binary(max_size=200))
def test_garbage_is_no_answer(said: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        read(said)


def test_the_shelf_is_bounded() -> None:
    shelf: Shelf[int] = Shelf(10_000)
    for number in range(100):
        shelf.put(str(number), number, 600)
        shelf.get("0")
    assert len(shelf) == 10
    assert shelf.size == 10_000
    assert shelf.get("0") is not None
    assert shelf.get("50") is None


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ({"ttl": 0}, "plugins.cache.ttl"),
        ({"memory": -1}, "plugins.cache.memory"),
        ({"semantic": {"model": "m", "threshold": 2}}, "plugins.cache.semantic.threshold"),
        ({"semantic": {"model": "m", "most": 0}}, "plugins.cache.semantic.most"),
        ({"share": "everyone"}, "plugins.cache.share"),
        ({"semantic": {}}, "plugins.cache.semantic"),
    ],
)
def test_bad_settings(table: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        entry(Cache, table)
    assert caught.value.key == key
