"""Which try comes next: another key, another target, the fallbacks, and when it is enough."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from aigw import relay
from aigw.errors import UpstreamError
from aigw.exchange import Receiver, UpstreamRequest
from aigw.routing import retry
from tests.walk import (
    ASK,
    CONFIG,
    DEEPSEEK,
    DONE,
    EVENTS,
    GOOD,
    JSON,
    OPENAI_1,
    OPENAI_2,
    USAGE_EVENT,
    NoFlow,
    Play,
    Walk,
    attempts,
    chunk,
    event,
    fails,
    hangs,
    lost,
    says,
    streams,
    timed_out,
    unreachable,
)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "SECOND_TRY_PAUSE", 0.001)


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
    assert (near.status, record.error, record.attempts) == (429, "provider_credentials_exhausted", "[]")
    assert 28 <= int(near.headers[b"retry-after"]) <= 30


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


# --- places ---------------------------------------------------------------------------------------------------------------

PAIR = CONFIG.replace('targets = [{provider = "openai", model = "gpt-fast"}]', "targets = [{A}]\nstrategy = 'priority'", 1)


def pair(first: str, rest: str = "") -> str:
    """CONFIG, whose route `fast` has *first* before deepseek; *rest* is what stands at the end."""
    return PAIR.replace("{A}", first, 1) + rest


async def test_an_open_circuit_is_passed_over_and_the_record_says_so() -> None:
    """Three failures; then nobody asks there before its pause is over, and the chain tells why."""
    walk = Walk(CONFIG, says(500), GOOD, says(500), GOOD, says(500), GOOD)
    for _ in range(3):
        near, _ = await walk.ask(ASK)
        assert near.status == 200
    asked = len(walk.transport.requests)
    near, record = await walk.ask(ASK)
    assert near.status == 200
    assert len(walk.transport.requests) == asked + 1
    assert attempts(record)[0]["detail"] == "passed over: openai/gpt-fast: circuit open (provider_error)"


async def test_what_is_too_long_goes_to_who_is_marked_for_it() -> None:
    """A refusal for its length is no failure of the place, and the caller never hears of it."""
    config = pair('{provider = "openai", model = "gpt-fast"}, {provider = "openai", model = "gpt-long", for = "context"}')
    walk = Walk(config, says(400, code="context_length_exceeded"), GOOD)
    near, record = await walk.ask(ASK)
    assert near.status == 200
    assert [one["model"] for one in attempts(record)] == ["gpt-fast", "gpt-long"]
    walk = Walk(config, says(400, code="content_filter"), GOOD)
    near, _ = await walk.ask(ASK)
    assert (near.status, len(walk.transport.requests)) == (400, 1), "nobody is marked for that"


async def test_a_place_has_parameters_and_timeouts_of_its_own() -> None:
    """Set in the body of that attempt only."""
    config = pair('{provider = "openai", model = "gpt-fast", first_byte_timeout = 7}').replace(
        '{provider = "deepseek", model = "deepseek-chat"}]',
        '{provider = "deepseek", model = "deepseek-chat", params = {max_tokens = 5}}]',
        1,
    )
    walk = Walk(config, says(500), GOOD)
    near, _ = await walk.ask(ASK | {"max_tokens": 900})
    assert near.status == 200
    bodies = [json.loads(request.body)["max_tokens"] for request in walk.transport.requests]
    assert bodies == [900, 5]
    assert [request.first_byte_timeout for request in walk.transport.requests] == [7.0, pytest.approx(60.0, abs=5)]


async def test_no_place_for_a_request() -> None:
    """Conditions that exclude it: an error of the gateway's, not of the caller's."""
    config = CONFIG.replace(
        'targets = [{provider = "deepseek", model = "deepseek-chat"}]',
        'targets = [{provider = "deepseek", model = "deepseek-chat", when = {tools = true}}]',
    )
    near, record = await Walk(config, GOOD).ask(ASK | {"model": "alone"})
    assert (near.status, record.error) == (503, "gateway_no_provider")


async def test_the_budget_ends_what_leads_nowhere() -> None:
    """With all places down each request makes its first attempt, and few make more."""
    walk = Walk(CONFIG, fails(unreachable()))
    for _ in range(600):
        await walk.ask(ASK)
    assert 600 <= len(walk.transport.requests) < 600 * 1.2


HEDGED = CONFIG.replace("[routes.fast]", '[routes.fast]\nhedge = {after = "0.05", extra = 1.0}', 1)


async def test_a_slow_beginning_is_overtaken() -> None:
    """The second place answers, the first is hung up on; its prompt is an abandoned cost and no failure of it."""
    for stream, good in ((False, GOOD), (True, streams(chunk("Ray"), USAGE_EVENT, DONE))):
        walk = Walk(HEDGED, hangs, good)
        near, record = await walk.ask(ASK | {"stream": stream})
        assert near.status == 200
        assert near.headers[b"x-aigw-provider"] == b"deepseek"
        assert (record.provider, record.outcome, record.output) == ("deepseek", "ok", 10)
        assert walk.transport.cancelled == 1
        assert walk.transport.running == 0
        first, second = attempts(record)
        assert first["detail"] == "given up for deepseek/deepseek-chat, which began first"
        assert record.abandoned_cost == first["cost"] > 0
        assert second.get("error", "") == ""


async def test_the_first_may_still_win() -> None:
    """Then the second is hung up on."""

    async def late(request: UpstreamRequest, receiver: Receiver) -> None:
        await asyncio.sleep(0.1)
        await GOOD(request, receiver)

    walk = Walk(HEDGED, late, hangs)
    near, record = await walk.ask(ASK)
    assert (near.status, record.provider, walk.transport.cancelled) == (200, "openai", 1)
    assert attempts(record)[1]["detail"] == "given up for openai/gpt-fast, which began first"


async def test_who_is_never_asked_twice_at_once() -> None:
    """With tools or state it waits; and beyond its share of extra requests."""
    slow = HEDGED.replace("0.05", "0.01", 1)

    async def late(request: UpstreamRequest, receiver: Receiver) -> None:
        await asyncio.sleep(0.05)
        await GOOD(request, receiver)

    walk = Walk(slow, late)
    await walk.ask(ASK | {"tools": [{"type": "function", "function": {"name": "f"}}]})
    await walk.ask(ASK | {"store": True})
    assert len(walk.transport.requests) == 2
    walk = Walk(slow.replace("extra = 1.0", "extra = 0.05"), late)
    for _ in range(10):
        await walk.ask(ASK)
    assert len(walk.transport.requests) == 11


SLOW = CONFIG.replace("[routes.fast]", "[routes.fast]\nslow_start = {tokens_per_second = 100, seconds = 0.1}", 1)


async def drips(request: UpstreamRequest, receiver: Receiver) -> None:
    receiver.head(200, [EVENTS], NoFlow())
    for _ in range(100):
        receiver.feed(chunk("so"))
        await asyncio.sleep(0.05)


async def test_a_stream_that_only_drips_is_replaced() -> None:
    """The caller sees nothing of it; what it may cost is recorded, and why it was given up."""
    walk = Walk(SLOW, drips, streams(chunk("Ray"), chunk("leigh"), USAGE_EVENT, DONE))
    near, record = await walk.ask(ASK | {"stream": True})
    assert near.headers[b"x-aigw-provider"] == b"deepseek"
    assert b'"so"' not in near.body
    assert near.body.count(b"Ray") == 1
    first, second = attempts(record)
    assert "tokens in its first 0.1 s" in first["detail"]
    assert record.abandoned_cost == first["cost"] > 0
    assert (second.get("error", ""), record.outcome, record.output, walk.transport.running) == ("", "ok", 10, 0)


async def test_a_stream_that_breaks_off_while_held_is_replaced() -> None:
    """Nobody has seen its beginning, so there is still another place."""
    walk = Walk(SLOW, streams(chunk("Ra"), then=lost()), streams(chunk("Ray"), USAGE_EVENT, DONE))
    near, record = await walk.ask(ASK | {"stream": True})
    assert (near.status, record.provider, record.outcome) == (200, "deepseek", "ok")
    assert b'"Ra"' not in near.body


async def test_a_quick_stream_is_only_held_for_its_first_seconds() -> None:
    """And one that must not be asked twice not at all."""
    words = [chunk("many words at once " * 20) for _ in range(5)]
    for more in ({}, {"tools": [{"type": "function", "function": {"name": "f"}}]}):
        walk = Walk(SLOW, streams(*words, USAGE_EVENT, DONE))
        near, record = await walk.ask(ASK | {"stream": True} | more)
        assert (near.status, record.provider, len(attempts(record))) == (200, "openai", 1)
        assert near.body.count(b"many words") == 100
        assert near.ended
