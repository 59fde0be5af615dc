"""What plugins may do to an exchange, through the whole walk."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from aigw.canonical import Answer, Choice, Event, Finished, Message, Request, Text, TextDelta
from aigw.errors import CallerError
from aigw.exchange import Attempt, Headers, Record
from aigw.hooks import AskAgain, EndStream, Phase, Plugin, Reads, Reply, View
from tests.plugged import entry, manager
from tests.walk import ANSWER, CONFIG, DONE, GOOD, USAGE_EVENT, Walk, answers, attempts, chunk, says, streams

ALL: frozenset[Reads] = frozenset({"request", "answer", "stream"})
ASK = {"model": "fast", "messages": [{"role": "user", "content": "Why is the sky blue?"}], "x_own": 1}
TOLD = {"model": "fast", "max_tokens": 9, "messages": [{"role": "user", "content": "Why?"}]}
END = b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'


def walk(*plugins: Any, plays: Sequence[Any] = (GOOD,)) -> Walk:
    return Walk(CONFIG, *plays, plugins=manager(*plugins))


def sent(walk: Walk, number: int = -1) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(walk.transport.requests[number].body)
    return found


class Shouts(Plugin):
    """Upper case, both ways."""

    name = "shouts"
    reads = ALL

    async def request(self, view: View) -> Request:
        for message in view.request.messages:
            for part in message.parts:
                if isinstance(part, Text):
                    part.text = part.text.upper()
        return view.request

    def event(self, view: View, event: Event) -> None:
        if isinstance(event, TextDelta):
            event.text = event.text.upper()


async def test_nothing_is_read_for_those_who_read_nothing() -> None:
    """The request's and the answer's bytes go through as they came."""
    seen: list[str] = []

    class Looks(Plugin):
        async def request(self, view: View) -> None:
            seen.extend((view.consumer, view.group, view.tags["team"], view.model, view.route, view.headers.get("x-own", "")))
            assert "authorization" not in view.headers

    one = walk(Looks)
    near, record = await one.ask(ASK, headers={"X-Own": "yes"})
    assert near.status == 200
    assert json.loads(near.body) == ANSWER
    assert sent(one) == ASK | {"model": "gpt-fast"}
    assert seen == ["ci", "eng", "core", "fast", "fast", "yes"]
    assert record.outcome == "ok"


async def test_a_changed_request_goes_out_in_its_place() -> None:
    """And fields that have no canonical word stay; the answer is not touched by who does not read it."""

    class Politely(Plugin):
        reads = frozenset({"request"})

        async def request(self, view: View) -> Request:
            view.request.messages.insert(0, Message("system", [Text("Be kind.")]))
            return view.request

    one = walk(Politely)
    near, _ = await one.ask(ASK)
    assert sent(one)["messages"][0]["content"] == "Be kind."
    assert sent(one)["x_own"] == 1
    assert sent(one)["model"] == "gpt-fast"
    assert json.loads(near.body) == ANSWER


@pytest.mark.parametrize(("operation", "ask"), [("chat", ASK), ("messages", TOLD)])
async def test_words_are_the_same_whatever_is_spoken(operation: str, ask: dict[str, Any]) -> None:
    one = walk(Shouts)
    near, _ = await one.ask(ask, operation)
    assert "WHY" in json.dumps(sent(one))
    assert b"RAYLEIGH." in near.body


@pytest.mark.parametrize(("operation", "ask"), [("chat", ASK), ("messages", TOLD)])
async def test_streams_come_event_by_event(operation: str, ask: dict[str, Any]) -> None:
    one = walk(Shouts, plays=[streams(chunk("Ray"), chunk("leigh"), END, USAGE_EVENT, DONE)])
    near, record = await one.ask(ask | {"stream": True}, operation)
    assert b"RAY" in near.body
    assert b"LEIGH" in near.body
    assert near.ended
    assert (record.input, record.output) == (100, 10)


async def test_order_on_the_way_in_and_out() -> None:
    """By phase, then as the config has it; answers come back through them the other way round."""
    order: list[str] = []

    def made(called: str, where: Phase) -> type[Plugin]:
        class One(Plugin):
            name, phase, reads = called, where, ALL

            async def request(self, view: View) -> None:
                order.append(called)

            async def answer(self, view: View, answer: Answer) -> None:
                order.append(f"-{called}")

        return One

    one = walk(made("cache", "cache"), made("b", "prompt"), made("a", "prompt"), made("door", "access"))
    await one.ask(ASK)
    assert order == ["door", "b", "a", "cache", "-cache", "-a", "-b", "-door"]


async def test_an_answer_in_a_providers_place() -> None:
    """Nobody is asked; those before it hear the answer, those after it nothing; it costs nothing, and says what it saved."""
    heard: list[str] = []

    class Knows(Plugin):
        phase, reads = "cache", ALL

        async def request(self, view: View) -> Reply:
            return Reply(
                Answer(id="a", model="m", choices=[Choice([Text("known")])]),
                headers=(("x-aigw-cache", "hit"),),
                cost_saved=7,
            )

    class After(Plugin):
        phase, reads = "record", ALL

        async def request(self, view: View) -> None:
            heard.append("after")

        def complete(self, view: View, answer: Answer | bytes) -> None:
            heard.append("after, answered")

    for stream in (False, True):
        one = walk(Shouts, Knows, After)
        near, record = await one.ask(ASK | {"stream": stream})
        assert not one.transport.requests
        assert near.headers[b"x-aigw-cache"] == b"hit"
        assert b"KNOWN" in near.body
        assert near.ended
        assert (record.outcome, record.cost, record.cache_saving, record.input, record.provider) == ("ok", 0, 7, 0, "")
    assert not heard


async def test_an_answer_for_another_dialect_and_for_vectors() -> None:
    class Knows(Plugin):
        phase, reads, covers = "cache", ALL, frozenset({"conversation", "embeddings"})

        async def request(self, view: View) -> Reply:
            return Reply(Answer(choices=[Choice([Text("known")])]) if view.conversation else b'{"data": []}')

    one = walk(Knows)
    near, _ = await one.ask(TOLD, "messages")
    assert json.loads(near.body)["content"] == [{"type": "text", "text": "known"}]
    near, _ = await one.ask({"model": "fast", "input": "x"}, "embeddings")
    assert near.body == b'{"data": []}'


async def test_refusing() -> None:
    class Never(Plugin):
        async def request(self, view: View) -> None:
            view.refuse("Not here.")

    one = walk(Never)
    near, record = await one.ask(ASK)
    assert (near.status, near.error["message"], record.error) == (403, "Not here.", "policy_plugin_refused")
    assert not one.transport.requests


async def test_refusing_before_anybody_is_known() -> None:
    class Door(Plugin):
        phase = "access"

        async def received(self, view: View) -> None:
            if view.address == "10.0.0.1":
                view.refuse("Not from there.")

    one = walk(Door)
    near, record = await one.ask(ASK, key="wrong", address="10.0.0.1")
    assert (near.status, record.error) == (403, "policy_plugin_refused")
    near, record = await one.ask(ASK, address="10.0.0.2")
    assert near.status == 200


async def test_a_body_that_nobody_could_have_read() -> None:
    """It is replaced before it is looked at; here it names no model."""

    class Expands(Plugin):
        reads = frozenset({"request"})

        async def body(self, view: View, body: bytes) -> bytes | None:
            return json.dumps(ASK).encode() if body == b'{"template": "blue"}' else None

    one = walk(Expands)
    near, record = await one.ask(b'{"template": "blue"}')
    assert near.status == 200
    assert record.requested_model == "fast"
    near, record = await one.ask(b'{"template": "red"}')
    assert record.error == "caller_invalid_request"


async def test_another_model() -> None:
    """The route is found anew, and the consumer's permission with it."""

    class Elsewhere(Plugin):
        reads = frozenset({"request"})

        async def request(self, view: View) -> Request:
            view.request.model = "alone"
            return view.request

    one = walk(Elsewhere)
    _, record = await one.ask(ASK)
    assert (record.route, record.provider, record.model) == ("alone", "deepseek", "deepseek-chat")


async def test_embeddings_are_bytes() -> None:
    class Trims(Plugin):
        reads, covers = frozenset({"request"}), frozenset({"embeddings"})

        async def request(self, view: View) -> bytes:
            return view.body.replace(b"secret", b"***")

    one = walk(Trims)
    await one.ask({"model": "fast", "input": "my secret"}, "embeddings")
    assert sent(one)["input"] == "my ***"
    await one.ask(ASK | {"user": "secret"})
    assert sent(one)["user"] == "secret", "it does not cover conversations"


async def test_headers_of_the_answer() -> None:
    class Names(Plugin):
        async def request(self, view: View) -> None:
            view.header("X-Early", "1")

        def head(self, view: View, headers: Headers) -> Headers:
            return [*headers, (b"x-late", view.provider.encode())]

    one = walk(Names)
    near, _ = await one.ask(ASK)
    assert (near.headers[b"x-early"], near.headers[b"x-late"]) == (b"1", b"openai")


async def test_what_is_listened_to() -> None:
    """Failed attempts, whole answers (also those that came in pieces), and the record."""
    heard: list[Any] = []

    class Listens(Plugin):
        reads = ALL

        def failed(self, view: View, attempt: Attempt) -> None:
            heard.append(attempt.error)

        def complete(self, view: View, answer: Answer | bytes) -> None:
            assert isinstance(answer, Answer)
            heard.append(answer.choices[0].parts)

        def recorded(self, view: View, record: Record) -> None:
            heard.append(record.output)

    one = walk(Listens, plays=[says(500), GOOD, streams(chunk("Ray"), chunk("leigh"), END, USAGE_EVENT, DONE)])
    await one.ask(ASK)
    await one.ask(ASK | {"stream": True})
    assert heard == ["provider_error", [Text("Rayleigh.")], 10, [Text("Rayleigh")], 10]


async def test_a_broken_stream_is_not_complete() -> None:
    class Listens(Plugin):
        reads = ALL

        def complete(self, view: View, answer: Answer | bytes) -> None:
            raise AssertionError

    one = walk(Listens, plays=[streams(chunk("Ray"))])
    _, record = await one.ask(ASK | {"stream": True})
    assert record.outcome != "ok"


async def test_all_of_it_before_anybody_sees_a_piece() -> None:
    """A stream is put together for a plugin that must see all of it, and goes on as a stream."""

    class Judges(Plugin):
        reads, buffers = ALL, True

        async def answer(self, view: View, answer: Answer) -> Answer:
            assert answer.choices[0].parts == [Text("Rayleigh")]
            answer.choices[0].parts = [Text("judged")]
            return answer

    one = walk(Judges, plays=[streams(chunk("Ray"), chunk("leigh"), END, USAGE_EVENT, DONE)])
    near, record = await one.ask(ASK | {"stream": True})
    assert b"judged" in near.body
    assert b"Ray" not in near.body
    assert near.body.endswith(b"data: [DONE]\n\n")
    assert record.output == 10


async def test_asking_again() -> None:
    """Both attempts are in the record; the first one's cost is not lost."""

    class Wants(Plugin):
        reads = ALL

        async def answer(self, view: View, answer: Answer) -> None:
            if view.state is None:
                view.state = "asked"
                view.request.messages.append(Message("user", [Text("Better!")]))
                raise AskAgain(view.request)

    better = ANSWER | {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Better."}, "finish_reason": "stop"}]
    }
    one = walk(Wants, plays=[GOOD, answers(better)])
    near, record = await one.ask(ASK)
    assert b"Better." in near.body
    assert "Better!" in json.dumps(sent(one))
    assert attempts(record)[0]["cost"] == 100 * 1000 + 10 * 10_000
    assert record.abandoned_cost == 200_000


async def test_waiting_on_a_stream() -> None:
    """The events wait for somebody, in their order, and the stream ends as it should."""

    class Waits(Plugin):
        reads = ALL

        async def events(self, view: View, events: Sequence[Event]) -> Sequence[Event]:
            await asyncio.sleep(0.005)
            for event in events:
                if isinstance(event, TextDelta):
                    event.text = event.text.upper()
            return events

    blocks = [chunk(letter) for letter in "abcdefghij"]
    one = walk(Waits, plays=[streams(*blocks, END, USAGE_EVENT, DONE)])
    near, record = await one.ask(ASK | {"stream": True})
    said = [json.loads(line[6:]) for line in near.body.decode().split("\n\n") if line.startswith("data: {")]
    assert "".join(one["choices"][0]["delta"].get("content") or "" for one in said if one["choices"]) == "ABCDEFGHIJ"
    assert near.body.endswith(b"[DONE]\n\n")
    assert record.outcome == "ok"
    near, _ = await walk(Waits).ask(ASK)
    assert b"RAYLEIGH." in near.body


async def test_ending_a_stream() -> None:
    """The caller gets the plugin's last words, and the provider is told to stop."""

    class Stops(Plugin):
        reads = ALL

        def event(self, view: View, event: Event) -> None:
            if isinstance(event, TextDelta) and "bad" in event.text:
                raise EndStream([TextDelta("[stopped]"), Finished("content_filter")])

    one = walk(Stops, plays=[streams(chunk("good "), chunk("bad"), chunk("worse"), END, DONE)])
    near, record = await one.ask(ASK | {"stream": True})
    assert b"[stopped]" in near.body
    assert b"worse" not in near.body
    assert b"bad" not in near.body
    assert b'"content_filter"' in near.body
    assert near.ended
    assert (record.outcome, record.finish_reason, record.estimated) == ("ok", "content_filter", True)


async def test_refusing_in_a_stream() -> None:
    """Before the first byte it is an error; after it, an event in the caller's dialect. The provider is not to blame."""

    class Refuses(Plugin):
        reads = ALL

        def event(self, view: View, event: Event) -> None:
            if isinstance(event, TextDelta) and "bad" in event.text:
                view.refuse("No.", code="policy_content_blocked")

    one = walk(Refuses, plays=[streams(chunk("bad"), END, DONE)])
    near, record = await one.ask(ASK | {"stream": True})
    assert (near.status, record.error) == (400, "policy_content_blocked")
    one = walk(Refuses, plays=[streams(chunk("good"), chunk("bad"), END, DONE)])
    near, record = await one.ask(ASK | {"stream": True})
    assert near.status == 200
    assert b"policy_content_blocked" in near.body
    assert record.outcome == "policy_error"
    assert len(one.transport.requests) == 1


# --- plugins that fail ---


class Broken(Plugin):
    """Raises in the hook that its config names."""

    name = "broken"
    reads = ALL
    at: ClassVar[str] = ""

    def _may(self, hook: str) -> None:
        if hook == self.at:
            raise ValueError("the prompt was: top secret")

    async def received(self, view: View) -> None:
        self._may("received")

    async def body(self, view: View, body: bytes) -> None:
        self._may("body")

    async def request(self, view: View) -> None:
        self._may("request")

    def failed(self, view: View, attempt: Attempt) -> None:
        self._may("failed")

    def head(self, view: View, headers: Headers) -> None:
        self._may("head")

    def event(self, view: View, event: Event) -> None:
        self._may("event")

    async def answer(self, view: View, answer: Answer) -> None:
        self._may("answer")

    def complete(self, view: View, answer: Answer | bytes) -> None:
        self._may("complete")

    def recorded(self, view: View, record: Record) -> None:
        self._may("recorded")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("hook", ["received", "body", "request", "failed", "head", "event", "answer", "complete", "recorded"])
async def test_open_goes_on_without_it(hook: str, stream: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever it raises, wherever: the caller gets its answer, and the log names plugin, hook and line, and no prompt."""
    made = entry(type("Now", (Broken,), {"at": hook}))
    play = streams(chunk("Ray"), chunk("leigh."), END, USAGE_EVENT, DONE) if stream else GOOD
    one = Walk(CONFIG, says(500), play, plugins=manager(made))
    near, record = await one.ask(ASK | {"stream": stream})
    assert near.status == 200
    assert b"leigh." in near.body
    assert record.outcome == "ok"
    fails = not (hook == "event" and not stream) and not (hook == "answer" and stream)
    assert made.counts.errors == fails
    assert ("'broken'" in caplog.text and hook in caplog.text) == fails
    assert "top secret" not in caplog.text


@pytest.mark.parametrize("hook", ["received", "body", "request", "event", "answer"])
async def test_closed_ends_the_exchange(hook: str) -> None:
    made = entry(type("Now", (Broken,), {"at": hook}), {"fail": "closed"})
    stream = hook == "event"
    play = streams(chunk("Ray"), END, USAGE_EVENT, DONE) if stream else GOOD
    one = Walk(CONFIG, play, plugins=manager(made))
    near, record = await one.ask(ASK | {"stream": stream})
    assert record.error == "gateway_plugin_failed"
    assert b"Ray" not in near.body
    assert near.status == 500
    assert "top secret" not in near.body.decode()


async def test_a_wrong_answer_to_a_hook() -> None:
    class Wrong(Plugin):
        reads = ALL

        async def request(self, view: View) -> Any:
            return {"model": "x"}

        def event(self, view: View, event: Event) -> Any:
            return "text"

    made = entry(Wrong)
    near, _ = await Walk(CONFIG, GOOD, plugins=manager(made)).ask(ASK)
    assert near.status == 200
    assert made.counts.errors == 1, "it has left after the first"


async def test_reading_what_it_does_not_declare(caplog: pytest.LogCaptureFixture) -> None:
    class Peeks(Plugin):
        async def request(self, view: View) -> None:
            assert view.request

    made = entry(Peeks)
    near, _ = await Walk(CONFIG, GOOD, plugins=manager(made)).ask(ASK)
    assert near.status == 200
    assert "add it to `reads`" in caplog.text


async def test_a_request_that_cannot_be_read_is_the_callers() -> None:
    class Reader(Plugin):
        reads = ALL

        async def request(self, view: View) -> None:
            assert view.request

    near, record = await walk(Reader).ask({"model": "fast", "messages": "hello"})
    assert (near.status, record.error) == (400, "caller_invalid_request")
    assert CallerError.__name__ not in near.body.decode()


async def test_a_time_limit() -> None:
    class Slow(Plugin):
        async def request(self, view: View) -> None:
            await asyncio.sleep(30)

    made = entry(Slow, {"timeout": 0.05})
    near, _ = await Walk(CONFIG, GOOD, plugins=manager(made)).ask(ASK)
    assert near.status == 200
    assert made.counts.errors == 1


async def test_who_blocks_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """Also in a hook that could wait, and does not."""

    class Blocks(Plugin):
        name = "blocks"

        async def request(self, view: View) -> None:
            await asyncio.sleep(0)
            time.sleep(0.15)

    made = entry(Blocks)
    with caplog.at_level(logging.WARNING):
        await Walk(CONFIG, GOOD, plugins=manager(made)).ask(ASK)
    assert made.counts.blocked == 1
    assert "'blocks' kept every other request waiting" in caplog.text


async def test_a_caller_who_leaves_ends_a_plugins_waiting() -> None:
    left: list[str] = []

    class Waits(Plugin):
        async def request(self, view: View) -> None:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                left.append("left")
                raise

    one = walk(Waits)
    task, _ = one.begin(ASK)
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left == ["left"]
    assert one.journal.records[0].outcome == "client_closed"


# --- whom it concerns ---


@pytest.mark.parametrize(
    ("scope", "asked"),
    [
        ({}, 1),
        ({"routes": ["fa*"]}, 1),
        ({"routes": ["slow"]}, 0),
        ({"models": ["fast"]}, 1),
        ({"consumers": ["ci", "bob"]}, 1),
        ({"consumers": ["bob"]}, 0),
        ({"groups": ["eng"]}, 1),
        ({"groups": ["ops"]}, 0),
        ({"tags": ["team=co*"]}, 1),
        ({"tags": ["team=web"]}, 0),
        ({"groups": ["eng"], "routes": ["slow"]}, 0),
    ],
)
async def test_scope(scope: dict[str, Any], asked: int) -> None:
    seen: list[str] = []

    class Looks(Plugin):
        async def request(self, view: View) -> None:
            seen.append(view.id)

    near, _ = await Walk(CONFIG, GOOD, plugins=manager(entry(Looks, scope))).ask(ASK)
    assert near.status == 200
    assert len(seen) == asked


@pytest.mark.parametrize(("table", "status"), [({}, 403), ({"uncovered": "pass"}, 200), ({"fail": "open"}, 200)])
async def test_what_it_cannot_look_into(table: dict[str, Any], status: int) -> None:
    """Nothing passes a mask or a guard unseen, unless the operator says so."""

    class Guards(Plugin):
        name, phase, fail = "guards", "guard", "closed"

        async def request(self, view: View) -> None: ...

    near, _ = await Walk(CONFIG, GOOD, plugins=manager(entry(Guards, table))).ask({"model": "fast", "input": "x"}, "embeddings")
    assert near.status == status


async def test_who_has_enough_leaves_the_bytes_alone() -> None:
    class Once(Plugin):
        reads = ALL

        async def request(self, view: View) -> None:
            view.done()

        def event(self, view: View, event: Event) -> None:
            raise AssertionError

    near, _ = await walk(Once).ask(ASK)
    assert near.body == json.dumps(ANSWER).encode()


async def test_another_attempt_begins_anew() -> None:
    """What was heard of an attempt that failed before its first byte is forgotten."""

    class Holds(Plugin):
        reads = ALL

        def event(self, view: View, event: Event) -> Sequence[Event] | None:
            view.heard = (view.heard or "") + (event.text if isinstance(event, TextDelta) else "")
            if isinstance(event, Finished):
                return [TextDelta(view.heard), event]
            return [] if isinstance(event, TextDelta) else None

    one = walk(Holds, plays=[streams(chunk("lost")), streams(chunk("Ray"), chunk("leigh"), END, USAGE_EVENT, DONE)])
    near, record = await one.ask(ASK | {"stream": True})
    assert record.outcome == "ok"
    assert b"Rayleigh" in near.body
    assert b"lost" not in near.body
