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

from aigw import relay
from aigw.errors import CallerError, UpstreamError
from aigw.exchange import Headers, Receiver, Record, UpstreamRequest
from aigw.providers.compatible import Patience
from aigw.routing import retry
from aigw.storage.base import Claim, Permit
from aigw.storage.counters import MemoryCounters
from tests.walk import (
    EVENTS,
    JSON,
    KEY,
    Near,
    NoFlow,
    Play,
    Walk,
    answers,
    attempts,
    fails,
    lost,
    streams,
    timed_out,
    unreachable,
)

CONFIG = f"""
[consumers.ci]
key = "{KEY}"
group = "eng"
tags = {{team = "core"}}
concurrency = 1

[providers.openai]
keys = ["sk-one", "sk-two"]

[providers.deepseek]
keys = ["sk-deep"]

[providers.anthropic]
keys = ["sk-ant"]

[routes.fast]
targets = [{{provider = "openai", model = "gpt-fast"}}]
fallback = [{{provider = "deepseek", model = "deepseek-chat"}}]

[routes.alone]
targets = [{{provider = "deepseek", model = "deepseek-chat"}}]

[routes.once]
targets = [{{provider = "openai"}}]
fallback = [{{provider = "deepseek"}}]
retries = 0

[routes.twice]
targets = [{{provider = "openai"}}]
fallback = [{{provider = "deepseek"}}]
retries = 1

[routes.hasty]
targets = [{{provider = "openai"}}]
connect_timeout = 1
first_byte_timeout = 2
stream_idle_timeout = 3
timeout = 4

[routes.alias]
targets = [{{provider = "openai", model = "gpt-real"}}]
response_model = "requested"

[routes.mixed]
targets = [{{provider = "anthropic", model = "claude"}}]
fallback = [{{provider = "openai", model = "gpt-fast"}}]

[prices."openai/*"]
input = 1
output = 10

[prices."deepseek/*"]
input = 2
output = 20
currency = "CNY"
"""

OPENAI_1, OPENAI_2, DEEPSEEK = "api.openai.com sk-one", "api.openai.com sk-two", "api.deepseek.com sk-deep"

ASK = {"model": "fast", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-fast-2026",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Rayleigh."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
}
GOOD = answers(ANSWER)


def event(data: dict[str, Any] | str) -> bytes:
    return b"data: " + (data if isinstance(data, str) else json.dumps(data)).encode() + b"\n\n"


def chunk(text: str, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return event({"id": "c", "object": "chat.completion.chunk", "model": "gpt-fast-2026", "choices": [choice]} | more)


USAGE_EVENT = event({"id": "c", "model": "gpt-fast-2026", "choices": [], "usage": ANSWER["usage"]})
DONE = event("[DONE]")


def says(status: int, message: str = "no", headers: Sequence[tuple[bytes, bytes]] = (), **fields: Any) -> Play:
    """A provider's error in OpenAI's shape."""
    return answers({"error": {"message": message, "type": None, "code": None} | fields}, status, JSON, *headers)


async def hangs(request: UpstreamRequest, receiver: Receiver) -> None:
    await asyncio.sleep(60)


async def hangs_after_a_chunk(request: UpstreamRequest, receiver: Receiver) -> None:
    receiver.head(200, [EVENTS], NoFlow())
    receiver.feed(chunk("Ray"))
    await asyncio.sleep(60)


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


async def test_targets_of_another_dialect_are_passed_over() -> None:
    """A route may mix: whoever speaks the caller's dialect answers."""
    walk = Walk(CONFIG, GOOD)
    near, _ = await walk.ask(ASK | {"model": "mixed"})
    assert near.status == 200
    assert walk.transport.went_to == [OPENAI_1]
    near, _ = await walk.ask(ASK | {"model": "mixed", "max_tokens": 9}, "messages")
    assert walk.transport.requests[1].target.origin.host == "api.anthropic.com"


# --- cancellation -------------------------------------------------------------------------------------------------------


class SlowCounters(MemoryCounters):
    """Counters behind a network: hold takes a moment."""

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


# --- another try --------------------------------------------------------------------------------------------------------


async def test_another_key_then_another_target(caplog: pytest.LogCaptureFixture) -> None:
    """Limits are the key's: the next key is tried, then the fallback. The chain is in the record."""
    walk = Walk(CONFIG, says(429), says(429), GOOD)
    near, record = await walk.ask(ASK)
    assert near.status == 200
    assert walk.transport.went_to == [OPENAI_1, OPENAI_2, DEEPSEEK]
    assert near.headers[b"x-aigw-attempts"] == b"3"
    assert near.headers[b"x-aigw-provider"] == b"deepseek"
    assert near.headers[b"x-aigw-model"] == b"deepseek-chat"
    assert [(one["key"], one["status"], one["error"]) for one in attempts(record)] == [
        ("openai#1", 429, "provider_rate_limited"),
        ("openai#2", 429, "provider_rate_limited"),
        ("deepseek#1", 200, ""),
    ]
    assert [one["model"] for one in attempts(record)] == ["gpt-fast", "gpt-fast", "deepseek-chat"]
    assert json.loads(walk.transport.requests[2].body)["model"] == "deepseek-chat"
    assert (record.provider, record.outcome) == ("deepseek", "ok")


@pytest.mark.parametrize("failure", [says(500), says(503), says(529), fails(unreachable()), fails(lost())])
async def test_a_broken_deployment_is_left_at_once(failure: Play) -> None:
    """Another key at the same place would meet the same failure."""
    walk = Walk(CONFIG, failure, GOOD)
    near, _ = await walk.ask(ASK)
    assert near.status == 200
    assert walk.transport.went_to == [OPENAI_1, DEEPSEEK]


async def test_an_invalid_key_goes_out_and_the_next_serves() -> None:
    """The caller never hears of it; the key rests."""
    walk = Walk(CONFIG, says(401, code="invalid_api_key"), GOOD)
    near, _ = await walk.ask(ASK)
    assert near.status == 200
    assert walk.transport.went_to == [OPENAI_1, OPENAI_2]
    assert [label for label, _, _ in walk.pools["openai"].resting(time.perf_counter())] == ["openai#1"]
    await walk.ask(ASK)
    assert walk.transport.went_to[2] == OPENAI_2


async def test_the_only_deployment_is_tried_once_more() -> None:
    """Most connection errors are over a moment later."""
    walk = Walk(CONFIG, says(500), GOOD)
    near, record = await walk.ask(ASK | {"model": "alone"})
    assert near.status == 200
    assert walk.transport.went_to == [DEEPSEEK, DEEPSEEK]
    assert [one["status"] for one in attempts(record)] == [500, 200]


async def test_the_only_deployment_is_tried_twice_at_most() -> None:
    """And then the caller is told not to try by itself."""
    walk = Walk(CONFIG, says(500), says(503), GOOD)
    near, record = await walk.ask(ASK | {"model": "alone"})
    assert (near.status, record.outcome) == (503, "provider_error")
    assert len(walk.transport.requests) == 2
    assert near.headers[b"x-should-retry"] == b"false"
    assert near.headers[b"x-aigw-attempts"] == b"2"
    assert near.headers[b"x-aigw-provider"] == b"deepseek"


@pytest.mark.parametrize(("route", "most"), [("once", 1), ("twice", 2)])
async def test_retries_of_a_route(route: str, most: int) -> None:
    """`retries` is how many further attempts one exchange may make."""
    walk = Walk(CONFIG, says(429))
    near, record = await walk.ask(ASK | {"model": route})
    assert near.status == 429
    assert len(walk.transport.requests) == len(attempts(record)) == most


async def test_attempts_are_bounded() -> None:
    """A pool of many keys that are all refused: six calls, then the answer."""
    keys = ", ".join(f'"sk-{number}"' for number in range(20))
    walk = Walk(CONFIG.replace('"sk-one", "sk-two"', keys), says(429))
    near, _ = await walk.ask(ASK)
    assert near.status == 429
    assert len(walk.transport.requests) == retry.MAX_ATTEMPTS


async def test_the_callers_mistake_is_not_tried_again() -> None:
    """A 400 is a 400 everywhere: status, type and code are the provider's own."""
    walk = Walk(CONFIG, says(400, "bad temperature", type="invalid_request_error", code="bad_temperature", param="temperature"))
    near, record = await walk.ask(ASK)
    assert (near.status, len(walk.transport.requests)) == (400, 1)
    assert (near.error["code"], near.error["param"]) == ("bad_temperature", "temperature")
    assert "bad temperature" in near.error["message"]
    assert near.headers[b"x-should-retry"] == b"false"
    assert (record.error, record.outcome) == ("provider_rejected", "provider_error")


async def test_a_first_429_leaves_the_caller_its_own_retry() -> None:
    """We tried once only: waiting for retry-after and trying again is right."""
    walk = Walk(CONFIG, says(429, headers=((b"retry-after", b"7"),)))
    near, _ = await walk.ask(ASK | {"model": "once"})
    assert near.status == 429
    assert near.headers[b"retry-after"] == b"7"
    assert b"x-should-retry" not in near.headers


async def test_when_every_key_rests_nobody_is_asked() -> None:
    """The answer says how long."""
    walk = Walk(CONFIG, says(429, headers=((b"retry-after", b"30"),)))
    await walk.ask(ASK | {"model": "alone"})
    near, record = await walk.ask(ASK | {"model": "alone"})
    assert len(walk.transport.requests) == 1
    assert (near.status, record.error, record.attempts) == (429, "provider_rate_limited", "[]")
    assert 28 <= int(near.headers[b"retry-after"]) <= 30


@pytest.mark.parametrize(("status", "ours"), [(401, 502), (402, 503), (403, 502)])
async def test_a_providers_401_is_never_the_callers(status: int, ours: int) -> None:
    """Agents would ask their users to log in."""
    walk = Walk(CONFIG, says(status, "Incorrect API key provided: sk-deep"))
    near, record = await walk.ask(ASK | {"model": "alone"})
    assert near.status == ours
    assert record.error.startswith("provider_credentials_")
    assert b"sk-deep" not in near.body
    assert "sk-deep" not in record.attempts


async def test_a_provider_that_repeats_a_key_is_not_repeated() -> None:
    """Neither in the answer nor in the record."""
    walk = Walk(CONFIG, says(400, "cannot read sk-one and sk-two, sorry"))
    near, record = await walk.ask(ASK)
    assert b"sk-" not in near.body
    assert "sk-" not in record.attempts
    assert "sorry" in near.error["message"]


# --- what must not be sent twice ----------------------------------------------------------------------------------------


async def test_images_are_not_sent_twice_after_the_body_went_out() -> None:
    """Somebody may have painted already; before that, another try is free."""
    paint = {"model": "twice", "prompt": "a house"}
    for failure in (lost(), timed_out()):
        walk = Walk(CONFIG, fails(failure), GOOD)
        near, record = await walk.ask(paint, "images")
        assert near.status in (502, 504)
        assert len(walk.transport.requests) == 1
        assert record.error == failure.code
    walk = Walk(CONFIG, says(429), GOOD)
    near, _ = await walk.ask(paint, "images")
    assert near.status == 200
    walk = Walk(CONFIG, fails(unreachable()), GOOD)
    near, record = await walk.ask({"model": "gpt-image-1", "prompt": "a house"}, "images")
    assert near.status == 200
    assert len(attempts(record)) == 2


async def test_a_timeout_is_followed_by_one_more_try() -> None:
    """Each may have been billed: what the first may have cost is in the record."""
    walk = Walk(CONFIG, fails(timed_out()), GOOD)
    near, record = await walk.ask(ASK)
    assert near.status == 200
    assert record.abandoned_cost > 0
    assert attempts(record)[0]["cost"] == record.abandoned_cost
    assert attempts(record)[1].get("cost") is None

    several = CONFIG.replace(
        'fallback = [{provider = "deepseek", model = "deepseek-chat"}]',
        'fallback = [{provider = "deepseek", model = "deepseek-chat"}, {provider = "openai", model = "gpt-slow"}]',
    )
    walk = Walk(several, fails(timed_out()), fails(timed_out()), GOOD)
    near, record = await walk.ask(ASK)
    assert (near.status, len(walk.transport.requests)) == (504, 2)
    assert near.headers[b"x-should-retry"] == b"false"
    assert record.abandoned_cost == sum(one["cost"] for one in attempts(record))


async def test_a_timeout_before_the_body_went_out_costs_nothing() -> None:
    """And does not count."""
    never = UpstreamError("provider_timeout", "no connection", fault="deployment", may_retry=True, sent=False)
    walk = Walk(CONFIG, fails(never), GOOD)
    near, record = await walk.ask(ASK)
    assert near.status == 200
    assert record.abandoned_cost == 0


# --- the first byte -----------------------------------------------------------------------------------------------------


async def test_a_stream_that_breaks_before_its_first_event_is_tried_elsewhere() -> None:
    """The caller has seen nothing yet, and sees one clean stream."""
    walk = Walk(CONFIG, streams(then=lost()), streams(chunk("Ray"), USAGE_EVENT, DONE))
    near, record = await walk.ask(ASK | {"stream": True})
    assert near.body == chunk("Ray") + DONE
    assert walk.transport.went_to == [OPENAI_1, DEEPSEEK]
    assert record.outcome == "ok"


async def test_an_error_event_before_any_content_is_tried_elsewhere() -> None:
    """A 200 whose first event is an error is an error."""
    refused = event({"error": {"message": "overloaded", "type": "server_error", "code": None}})
    walk = Walk(CONFIG, streams(refused), streams(chunk("Ray"), DONE))
    near, record = await walk.ask(ASK | {"stream": True})
    assert near.body == chunk("Ray") + DONE
    assert len(attempts(record)) == 2


async def test_a_stream_that_breaks_later_ends_with_an_error_event() -> None:
    """In the caller's dialect, after whole events only; nothing is tried again, and what was sent is counted."""
    half = chunk("leigh.")[:20]
    walk = Walk(CONFIG, streams(chunk("Ray"), half, then=lost()), GOOD)
    near, record = await walk.ask(ASK | {"stream": True})
    assert (near.status, near.ended, len(walk.transport.requests)) == (200, True, 1)
    assert near.body.startswith(chunk("Ray"))
    told = json.loads(near.body.removeprefix(chunk("Ray")).split(b"\n")[0].removeprefix(b"data: "))
    assert told["error"]["aigw_code"] == "provider_connection_lost"
    assert told["error"]["request_id"] == record.id
    assert (record.status, record.outcome, record.error) == (200, "provider_error", "provider_connection_lost")
    assert record.estimated
    assert record.output >= 1


async def test_a_long_answer_that_breaks_is_cut_off() -> None:
    """It is no stream, so no error can be said in it: the caller must see that it is not whole."""

    async def breaks(request: UpstreamRequest, receiver: Receiver) -> None:
        receiver.head(200, [JSON], NoFlow())
        receiver.feed(b'{"data":"' + b"x" * relay.BUFFER)
        raise lost()

    walk = Walk(CONFIG, breaks, GOOD)
    near, record = await walk.ask(ASK)
    assert (near.aborted, near.ended, len(walk.transport.requests)) == (True, False, 1)
    assert record.outcome == "provider_error"


@pytest.mark.parametrize(
    "garbage",
    [answers(b"<html>", 200, (b"content-type", b"text/html")), answers(b"hello"), answers(b"[1]"), answers(b'{"a":')],
)
async def test_garbage_in_a_200_is_no_answer(garbage: Play) -> None:
    """Another target is asked; alone, it is a 502."""
    walk = Walk(CONFIG, garbage, GOOD)
    near, record = await walk.ask(ASK)
    assert near.status == 200
    assert attempts(record)[0]["error"] == "provider_bad_response"
    near, record = await Walk(CONFIG, garbage).ask(ASK | {"model": "alone"})
    assert (near.status, record.error) == (502, "provider_bad_response")


async def test_an_error_in_a_200_is_an_error() -> None:
    """Some gateways answer 200 with an error object."""
    told = answers({"error": {"message": "slow down", "code": "rate_limit_exceeded", "type": "requests"}})
    walk = Walk(CONFIG, told, GOOD)
    near, record = await walk.ask(ASK)
    assert json.loads(near.body) == ANSWER
    assert attempts(record)[0]["error"] == "provider_rate_limited"


async def test_a_bug_after_the_first_byte_ends_the_stream_cleanly(caplog: pytest.LogCaptureFixture) -> None:
    """Not with a second answer inside the first."""
    walk = Walk(CONFIG, streams(chunk("Ray"), then=RuntimeError("sk-secret")))
    near, record = await walk.ask(ASK | {"stream": True})
    assert near.ended
    assert b"gateway_internal" in near.body
    assert (record.status, record.outcome, record.error) == (200, "gateway_error", "gateway_internal")
    assert f"request {record.id}: RuntimeError at walk.py:" in caplog.text
    assert "secret" not in caplog.text
    assert b"secret" not in near.body


# --- time ---------------------------------------------------------------------------------------------------------------


async def test_the_routes_own_timeouts_are_used() -> None:
    """For this route's calls only."""
    walk = Walk(CONFIG, GOOD)
    await walk.ask(ASK | {"model": "hasty"})
    await walk.ask(ASK)
    hasty, usual = walk.transport.requests
    assert (hasty.connect_timeout, hasty.first_byte_timeout, hasty.idle_timeout, hasty.timeout) == (1, 2, 3, 4)
    assert (usual.connect_timeout, usual.idle_timeout, usual.timeout) == (Patience().connect, Patience().idle, Patience().total)


async def test_a_callers_patience_bounds_the_wait() -> None:
    """What its SDK says in x-stainless-timeout, and never more than [server] timeout."""
    walk = Walk(CONFIG, GOOD, patience=20.0)
    await walk.ask(ASK, patience=5.0)
    await walk.ask(ASK, patience=500.0)
    await walk.ask(ASK)
    waits = [request.first_byte_timeout for request in walk.transport.requests]
    assert waits == [pytest.approx(5.0, abs=0.5), pytest.approx(20.0, abs=0.5), pytest.approx(20.0, abs=0.5)]


async def test_no_further_try_when_the_patience_is_over() -> None:
    """The caller has gone by then: an answer would be paid for and thrown away."""
    walk = Walk(CONFIG, fails(unreachable(), after=0.06), GOOD)
    near, record = await walk.ask(ASK, patience=0.05)
    assert near.status == 502
    assert len(attempts(record)) == 1


# --- pools --------------------------------------------------------------------------------------------------------------


async def test_keys_take_turns_from_one_exchange_to_the_next() -> None:
    """And each exchange is recorded under the label of its key, never the key."""
    walk = Walk(CONFIG, GOOD)
    keys = [attempts((await walk.ask(ASK))[1])[0]["key"] for _ in range(4)]
    assert keys == ["openai#1", "openai#2", "openai#1", "openai#2"]
    assert not any("sk-" in record.attempts for record in walk.journal.records)


async def test_a_provider_without_keys() -> None:
    """A server of one's own: no credential is sent, and the caller's own never is."""
    config = CONFIG + '[providers.local]\nkind = "vllm"\nbase_url = "http://127.0.0.1:8000/v1"\n'
    walk = Walk(config, GOOD)
    near, record = await walk.ask(ASK | {"model": "local/llama"})
    assert near.status == 200
    assert b"authorization" not in walk.transport.requests[0].target.wire.lower() + walk.transport.requests[0].extra.lower()
    assert KEY.encode() not in walk.transport.requests[0].target.wire + walk.transport.requests[0].extra
    assert record.residency == "local"


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
