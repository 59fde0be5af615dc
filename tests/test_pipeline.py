"""The walk: whatever happens on it, one record, one permit given back, and an answer the caller's SDK understands."""

from __future__ import annotations

import asyncio
import gc
import json
import time
import zlib
from collections.abc import Sequence
from typing import Any

import pytest

from aigw.errors import CallerError
from aigw.exchange import Headers, Receiver, Record, UpstreamRequest
from aigw.routing import retry
from aigw.storage.base import Claim, Permit
from aigw.storage.counters import MemoryCounters
from tests.walk import (
    ANSWER,
    ASK,
    CONFIG,
    DONE,
    GOOD,
    OPENAI_1,
    USAGE_EVENT,
    Near,
    Play,
    Walk,
    answers,
    attempts,
    chunk,
    fails,
    hangs,
    hangs_after_a_chunk,
    lost,
    says,
    streams,
    timed_out,
    unreachable,
)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "SECOND_TRY_PAUSE", 0.001)


async def admitted(walk: Walk) -> bool:
    """Whether the consumer's one place is free: the permit came back."""
    near, _ = await walk.ask(b"{", receive=None)
    return near.status == 400


# --- a good answer ------------------------------------------------------------------------------------------------------


async def test_a_good_answer_goes_through_untouched() -> None:
    """The caller gets the provider's bytes; the record tells the whole story."""
    walk = Walk(CONFIG, GOOD)
    near, record = await walk.ask(ASK | {"user": "u-7"}, client_ip="10.0.0.9", client_agent="curl")
    assert (near.status, json.loads(near.body), near.ended) == (200, ANSWER, True)
    assert near.headers[b"content-type"] == b"application/json"
    assert near.headers[b"x-aigw-provider"] == b"openai"
    assert near.headers[b"x-aigw-model"] == b"gpt-fast"
    assert b"x-aigw-attempts" not in near.headers
    sent = json.loads(walk.transport.requests[0].body)
    assert sent == ASK | {"user": "u-7", "model": "gpt-fast"}
    expected = {
        "status": 200,
        "outcome": "ok",
        "error": "",
        "operation": "chat",
        "dialect": "openai_chat",
        "stream": False,
        "consumer": "ci",
        "consumer_id": "config:ci",
        "key_id": "config:ci",
        "group": "eng",
        "tags": '{"team":"core"}',
        "requested_model": "fast",
        "route": "fast",
        "provider": "openai",
        "model": "gpt-fast",
        "answer_model": "gpt-fast-2026",
        "input": 100,
        "output": 10,
        "estimated": False,
        "cost": 100 * 1000 + 10 * 10_000,  # 1 and 10 a million, in billionths
        "currency": "USD",
        "price_source": "config",
        "finish_reason": "stop",
        "end_user": "u-7",
        "client_ip": "10.0.0.9",
        "client_agent": "curl",
        "config_hash": "cafe",
        "bytes_out": len(near.body),
        "abandoned_cost": 0,
    }
    assert {name: getattr(record, name) for name in expected} == expected
    assert 0 < record.took < 5_000_000
    assert record.first_token is None
    (attempt,) = attempts(record)
    assert (attempt["provider"], attempt["key"], attempt["status"], attempt["error"]) == ("openai", "openai#1", 200, "")
    assert await admitted(walk)


@pytest.mark.parametrize("play", [GOOD, streams(chunk("Ray"), USAGE_EVENT, DONE)], ids=["whole", "stream"])
async def test_the_record_is_kept_before_the_caller_sees_the_end(play: Play) -> None:
    """Or a crash between the two would lose a row that somebody was answered for."""
    walk = Walk(CONFIG, play)
    near, _ = await walk.ask(ASK | {"stream": play is not GOOD})
    assert near.ended
    assert walk.journal.seen == [False]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_nothing_is_left_for_the_garbage_collector(stream: bool) -> None:
    """An exchange frees itself: cycles would wait for collections, which cost every request its share."""
    body = {"id": "x", "model": "m", "choices": [{"finish_reason": "stop"}], "usage": {"prompt_tokens": 1}}
    event = b'data: {"model":"m","choices":[{"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\n'
    play = streams(event, b"data: [DONE]\n\n") if stream else answers(body)
    walk = Walk(CONFIG, *[play] * 30)
    for _ in range(5):
        await walk.ask({"model": "alone", "stream": stream})
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            await walk.ask({"model": "alone", "stream": stream})
        assert gc.collect() < 20  # not one object for each exchange
    finally:
        gc.enable()


async def test_a_streams_usage_is_asked_for_and_hidden() -> None:
    """The caller did not ask for the usage event, so it does not see it; the record does."""
    walk = Walk(CONFIG, streams(chunk("Ray"), chunk("leigh."), USAGE_EVENT + DONE))
    near, record = await walk.ask(ASK | {"stream": True})
    assert json.loads(walk.transport.requests[0].body)["stream_options"] == {"include_usage": True}
    assert near.body == chunk("Ray") + chunk("leigh.") + DONE
    assert (record.input, record.output, record.estimated, record.stream) == (100, 10, False, True)
    assert record.first_token is not None
    assert 0 < record.first_token <= record.took


async def test_a_caller_who_asks_for_usage_gets_the_stream_as_it_is() -> None:
    """Its own stream_options are not touched, nor is anything in the stream."""
    walk = Walk(CONFIG, streams(chunk("Ray"), USAGE_EVENT, DONE))
    near, record = await walk.ask(ASK | {"stream": True, "stream_options": {"include_usage": True}})
    assert near.body == chunk("Ray") + USAGE_EVENT + DONE
    assert record.input == 100


async def test_the_requested_name_in_the_answer() -> None:
    """response_model = "requested": the caller never learns what stands behind its alias; the record does."""
    walk = Walk(CONFIG, answers(ANSWER), streams(chunk("Ray"), DONE))
    near, record = await walk.ask(ASK | {"model": "alias"})
    assert json.loads(near.body) == ANSWER | {"model": "alias"}
    assert (record.model, record.answer_model) == ("gpt-real", "gpt-fast-2026")
    near, _ = await walk.ask(ASK | {"model": "alias", "stream": True})
    assert json.loads(near.body.split(b"\n")[0][6:])["model"] == "alias"


async def test_usage_is_estimated_when_nobody_tells_it() -> None:
    """An answer without usage is not free: prompt and answer are counted from their bytes, and marked."""
    walk = Walk(
        CONFIG, answers({name: value for name, value in ANSWER.items() if name != "usage"}), streams(chunk("Ray"), DONE)
    )
    for stream in (False, True):
        near, record = await walk.ask(ASK | {"stream": stream})
        assert near.status == 200
        assert record.estimated
        assert 3 <= record.input <= 40
        assert 1 <= record.output <= 40
        assert record.cost


async def test_an_unknown_price_is_no_price() -> None:
    """None, not 0."""
    walk = Walk(CONFIG.replace('[prices."openai/*"]', '[prices."openai/other"]'), GOOD)
    _, record = await walk.ask(ASK)
    assert record.input == 100
    assert record.cost is None


async def test_prices_follow_the_provider_that_answered() -> None:
    """After a fallback the money is the other provider's, in its currency."""
    walk = Walk(CONFIG, fails(unreachable()), GOOD)
    _, record = await walk.ask(ASK)
    assert (record.provider, record.currency, record.cost) == ("deepseek", "CNY", 100 * 2000 + 10 * 20_000)


# --- refusals -----------------------------------------------------------------------------------------------------------


async def _too_large() -> bytes:
    raise CallerError("caller_body_too_large", "It is too large.")


async def _bug() -> bytes:
    raise RuntimeError("sk-aigw-secret-in-a-traceback")


REFUSALS: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "no key": ({"key": None}, 401, "policy_key_missing", "policy_error"),
    "unknown key": ({"key": "sk-what"}, 401, "policy_key_invalid", "policy_error"),
    "too large": ({"receive": _too_large}, 413, "caller_body_too_large", "caller_error"),
    "a bug of ours": ({"receive": _bug}, 500, "gateway_internal", "gateway_error"),
    "not JSON": ({"body": b"{"}, 400, "caller_invalid_json", "caller_error"),
    "no object": ({"body": b"[]"}, 400, "caller_invalid_json", "caller_error"),
    "no model": ({"body": b"{}"}, 400, "caller_invalid_request", "caller_error"),
    "empty model": ({"body": b'{"model":""}'}, 400, "caller_invalid_request", "caller_error"),
    "model a number": ({"body": b'{"model":1}'}, 400, "caller_invalid_request", "caller_error"),
    "two models": ({"body": b'{"model":"fast","model":"alone"}'}, 400, "caller_invalid_request", "caller_error"),
    "unknown model": ({"body": b'{"model":"gtp-7"}'}, 404, "caller_model_not_found", "caller_error"),
    "a header that cannot be sent": ({"headers": {"idempotency-key": "a\nb"}}, 400, "caller_invalid_request", "caller_error"),
}


@pytest.mark.parametrize(("arguments", "status", "code", "outcome"), REFUSALS.values(), ids=REFUSALS)
async def test_a_refusal(
    arguments: dict[str, Any], status: int, code: str, outcome: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Answered in the caller's dialect with our code, recorded once, the permit back, no provider asked, no secret logged."""
    walk = Walk(CONFIG, GOOD)
    near, record = await walk.ask(**({"body": ASK} | arguments))
    assert (near.status, near.ended) == (status, True)
    assert near.headers[b"x-aigw-error"] == code.encode()
    assert near.headers[b"content-type"] == b"application/json"
    assert (near.error["aigw_code"], near.error["request_id"]) == (code, record.id)
    assert (record.status, record.error, record.outcome) == (status, code, outcome)
    assert (record.input, record.cost) == (0, None)
    assert walk.transport.requests == []
    assert "secret" not in caplog.text
    assert await admitted(walk)


async def test_a_refusal_speaks_the_callers_dialect() -> None:
    """Anthropic's SDK reads `type: error`."""
    near, _ = await Walk(CONFIG, GOOD).ask(ASK | {"model": "gtp-7", "max_tokens": 5}, "messages")
    told = json.loads(near.body)
    assert (told["type"], told["error"]["type"]) == ("error", "not_found_error")


async def test_over_the_limit() -> None:
    """The second at once is refused with retry-after, and has not taken the first one's place away."""
    walk = Walk(CONFIG, hangs)
    first, _ = walk.begin(ASK)
    await asyncio.sleep(0.01)
    near, record = await walk.ask(ASK)
    assert (near.status, record.outcome, record.error) == (429, "policy_error", "policy_concurrency_limited")
    assert near.headers[b"retry-after"] == b"1"
    assert b"x-should-retry" not in near.headers, "waiting helps here"
    near, _ = await walk.ask(ASK)
    assert near.status == 429, "the refused one gave nothing back that it never had"
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await admitted(walk)


async def test_retry_after_is_rounded_up() -> None:
    """A client that comes back too early is refused again."""
    config = CONFIG.replace("concurrency = 1", "rpm = 1")
    walk = Walk(config, GOOD)
    await walk.ask(ASK)
    near, _ = await walk.ask(ASK)
    assert near.status == 429
    assert 1 <= int(near.headers[b"retry-after"]) <= 121


async def test_an_endpoint_the_provider_does_not_have() -> None:
    """It says so, as the caller's mistake: this model is not served there."""
    walk = Walk(CONFIG, GOOD)
    near, record = await walk.ask({"model": "anthropic/claude", "input": "x"}, "embeddings")
    assert (near.status, record.error) == (400, "caller_unsupported")
    assert "'anthropic'" in near.error["message"]
    assert walk.transport.requests == []


async def test_targets_that_do_not_serve_it_are_passed_over() -> None:
    """A route may mix: who serves what is asked answers, in whichever dialect; Anthropic moderates nothing."""
    walk = Walk(CONFIG, answers({"id": "m", "results": []}))
    near, _ = await walk.ask({"model": "mixed", "input": "x"}, "moderations")
    assert near.status == 200
    assert walk.transport.went_to == [OPENAI_1]
    walk = Walk(CONFIG, GOOD)
    await walk.ask(ASK | {"model": "mixed", "max_tokens": 9}, "messages")
    assert walk.transport.requests[0].target.origin.host == "api.anthropic.com"


# --- cancellation -------------------------------------------------------------------------------------------------------


class SlowCounters(MemoryCounters):
    """Counters behind a network: hold takes a moment."""

    at_once = False

    async def hold(self, claims: Sequence[Claim], now: float) -> Permit:
        await asyncio.sleep(0.05)
        return await super().hold(claims, now)


async def _slow_body() -> bytes:
    await asyncio.sleep(60)
    return b""


@pytest.mark.parametrize("cutting", [False, True], ids=["caller gone", "server stops"])
@pytest.mark.parametrize(
    ("place", "play", "fields", "status"),
    [
        ("hold", GOOD, {}, 499),
        ("body", GOOD, {"receive": _slow_body}, 499),
        ("upstream", hangs, {}, 499),
        ("mid-stream", hangs_after_a_chunk, {}, 200),
        ("pause", fails(unreachable()), {}, 499),
    ],
)
async def test_cancelled(
    place: str, play: Play, fields: dict[str, Any], status: int, cutting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the walk waits: one record that says who ended it, the permit back, the provider let go, no answer's end."""
    monkeypatch.setattr(retry, "SECOND_TRY_PAUSE", 60.0)
    counters = SlowCounters() if place == "hold" else MemoryCounters()
    walk = Walk(CONFIG, play, counters=counters)
    task, near = walk.begin(ASK | {"stream": True, "model": "alone"}, **fields)
    await asyncio.sleep(0.02)
    assert not task.done()
    walk.pipeline.cutting = cutting
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (record,) = walk.journal.records
    expected = ("gateway_draining", "gateway_error") if cutting else ("caller_closed", "client_closed")
    assert (record.error, record.outcome) == expected
    assert record.status == (503 if cutting and status == 499 else status)
    assert not near.ended
    assert walk.transport.running == 0
    assert walk.transport.cancelled == (place in ("upstream", "mid-stream"))
    if place == "mid-stream":
        assert record.output, "what was sent is counted"
        assert record.estimated
    assert await admitted(walk)


async def test_cancelled_before_it_began() -> None:
    """A caller that is gone at once leaves no permit behind."""
    walk = Walk(CONFIG, GOOD)
    task, near = walk.begin(ASK)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not near.started
    assert await admitted(walk)


async def test_a_second_cancellation_changes_nothing() -> None:
    """Settle and record only enqueue: there is nothing in the end of a walk that a second cancel could hit."""
    walk = Walk(CONFIG, hangs)
    task, _ = walk.begin(ASK)
    await asyncio.sleep(0.01)
    task.cancel()
    asyncio.get_running_loop().call_soon(task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(walk.journal.records) == 1
    assert await admitted(walk)


# --- listeners ----------------------------------------------------------------------------------------------------------


class Ear:
    def __init__(self, error: Exception | None = None) -> None:
        self.heard: list[Record] = []
        self._error = error

    def recorded(self, record: Record) -> None:
        self.heard.append(record)
        if self._error is not None:
            raise self._error


async def test_a_listener_that_raises_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """The caller has its answer, the others hear, and the log says where it broke and nothing more."""
    broken, well = Ear(ValueError("sk-secret")), Ear()
    walk = Walk(CONFIG, GOOD, listeners=(broken, well))
    near, record = await walk.ask(ASK)
    assert (near.status, near.ended) == (200, True)
    assert broken.heard == well.heard == [record]
    assert "a listener failed: ValueError at test_pipeline.py:" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("play", [GOOD, streams(chunk("Ray"), DONE), fails(lost())], ids=["whole", "stream", "failure"])
async def test_a_journal_that_raises_costs_no_answer(play: Play) -> None:
    """A journal never raises. Should one do it all the same, the caller still gets its whole answer, and listeners hear."""
    ear = Ear()
    walk = Walk(CONFIG, play, listeners=(ear,))
    walk.journal.error = RuntimeError("bug")
    near, _ = await walk.ask(ASK | {"stream": play is not GOOD})
    assert near.ended
    assert len(ear.heard) == 1
    walk.journal.error = None
    assert await admitted(walk)


# --- many at once -----------------------------------------------------------------------------------------------------


async def test_many_at_once_are_counted_one_by_one() -> None:
    """A hundred exchanges of every fate, interleaved: a hundred records, each once, and every permit back."""
    config = CONFIG.replace("concurrency = 1", "concurrency = 100")
    plays: list[Play] = [GOOD, says(500), streams(chunk("Ray"), then=lost()), says(400), fails(timed_out())]

    async def any_of_them(request: UpstreamRequest, receiver: Receiver) -> None:
        await asyncio.sleep(len(request.body) % 7 / 1000)
        await plays[zlib.crc32(request.body) % len(plays)](request, receiver)

    walk = Walk(config, any_of_them)
    tasks = []
    for number in range(100):
        body = json.dumps(ASK | {"user": f"u{number}", "stream": number % 2 == 0}).encode()

        async def receive(body: bytes = body) -> bytes:
            return body

        near = Near()
        tasks.append(asyncio.ensure_future(walk.pipeline.serve(walk.exchange(end_user=str(number)), near, receive)))
    await asyncio.sleep(0.003)
    for task in tasks[::10]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert len(walk.journal.records) == 100
    for pool in walk.pools.values():
        assert pool.resting(time.perf_counter()) == []
    waiting = [walk.begin(ASK)[0] for _ in range(100)]
    await asyncio.sleep(0)
    near, _ = await walk.ask(ASK)
    assert near.status == 429, "all hundred places were free, and are taken now"
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_what_ends_together_is_recorded_together() -> None:
    """Answers that come in one turn of the event loop are one write to the journal, before any of them has its end; one
    whose sink fails keeps nobody else's answer back."""
    gate = asyncio.Event()

    async def at_the_gate(request: UpstreamRequest, receiver: Receiver) -> None:
        await gate.wait()
        await GOOD(request, receiver)

    class Broken(Near):
        def answer(self, status: int, headers: Headers, body: bytes) -> None:
            raise RuntimeError("a bug")

    walk = Walk(CONFIG.replace("concurrency = 1", "concurrency = 100"), at_the_gate)
    writes: list[tuple[int, int]] = []
    nears = [Near(), Broken(), Near(), Near()]
    write = walk.journal.write

    def watched(*records: Record) -> None:
        writes.append((len(records), sum(near.ended for near in nears)))
        write(*records)

    walk.journal.write = watched  # type: ignore[method-assign]

    async def body() -> bytes:
        return json.dumps(ASK).encode()

    walks = [asyncio.ensure_future(walk.pipeline.serve(walk.exchange(), near, body)) for near in nears]
    await asyncio.sleep(0.01)
    gate.set()
    await asyncio.gather(*walks)
    assert writes == [(4, 0)]
    assert [near.ended for near in nears] == [True, False, True, True]
    assert nears[1].aborted
    assert [record.outcome for record in walk.journal.records] == ["ok"] * 4
