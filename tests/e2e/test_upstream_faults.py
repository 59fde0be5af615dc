"""What a provider may do to us: what the caller sees, which attempts are recorded, who is asked next, and who never is."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest

from tests.e2e.conftest import Make
from tests.e2e.far_side import (
    ANTHROPIC,
    DONE,
    END,
    OPENAI,
    STREAM_HEAD,
    USAGE,
    FarSide,
    Script,
    answer,
    chunk,
    completion,
    delta,
    plays,
    provider,
    route,
    stream,
)
from tests.e2e.world import Answer, Gateway, ask
from tests.loopback import Peer, Request

ASK = {"messages": [{"role": "user", "content": "hello"}]}

CONTENT = (delta("one "), delta("two"))

BROKEN = {"error": {"message": "the engine fell over", "type": "server_error", "param": None, "code": None}}


# --- scripts ---------------------------------------------------------------------------------------------------------------


def first(data: bytes, then: str = "close", pause: float = 0.0) -> Script:
    """Sends *data*, then closes, resets, or waits for the gateway to go ("hold")."""

    async def script(peer: Peer, request: Request, number: int) -> None:
        if data:
            await peer.send(data, pause)
        if then == "reset":
            peer.reset()
        elif then == "close":
            peer.close()
        else:
            await peer.gone()
        raise ConnectionResetError

    return script


def late(data: bytes, seconds: float) -> Script:
    async def script(peer: Peer, request: Request, number: int) -> None:
        await asyncio.sleep(seconds)
        await peer.send(data)

    return script


def drips(blocks: Iterable[bytes], pause: float) -> Script:
    """One block after the other."""
    blocks = list(blocks)

    async def script(peer: Peer, request: Request, number: int) -> None:
        for block in blocks:
            await peer.send(block, pause)

    return script


GOOD = plays(answer(200, completion()))

GOOD_STREAM = stream(*CONTENT, USAGE, DONE)


def by_stream(peer: Peer, request: Request, number: int) -> Any:
    wants = json.loads(request.body).get("stream")
    return peer.send(GOOD_STREAM if wants else answer(200, completion()))


# --- the table -------------------------------------------------------------------------------------------------------------


class Fault(NamedTuple):
    """What the provider plays, and what becomes of it. `attempts`: each one's status and code. With `fallback` the route has a
    second provider, which is good; then the caller gets its answer and `attempts` are those before it."""

    script: Script | None
    status: int
    code: str
    attempts: tuple[tuple[int | None, str], ...]
    settings: str = ""
    says: str = ""
    url: str = ""
    headers: dict[str, str] | None = None


LOST, REFUSED = (None, "provider_connection_lost"), (None, "provider_unreachable")
QUICK = "first_byte_timeout = 0.4"

# Before the first byte: everything may still be tried elsewhere.
EARLY = {
    "refuses": Fault(None, 502, "provider_unreachable", (REFUSED,) * 2, url="http://127.0.0.1:1/v1"),
    "has-no-address": Fault(None, 502, "provider_unreachable", (REFUSED,) * 2, url="http://nobody.invalid/v1"),
    "resets": Fault(first(b"", "reset"), 502, "provider_connection_lost", (LOST,) * 2),
    "closes": Fault(first(b""), 502, "provider_connection_lost", (LOST,) * 2),
    "closes-in-its-head": Fault(first(b"HTTP/1.1 200 OK\r\ncontent-ty"), 502, "provider_connection_lost", (LOST,) * 2),
    "resets-in-its-body": Fault(
        first(answer(200, completion())[:-20], "reset", 0.05),
        502,
        "provider_connection_lost",
        ((200, "provider_connection_lost"),) * 2,
    ),
    "speaks-garbage": Fault(
        first(b"\x00\x01\x02 hello\r\n\r\n", "hold"), 502, "provider_bad_response", ((None, "provider_bad_response"),) * 2
    ),
    "sends-a-page": Fault(
        plays(answer(200, b"<html><title>Log in</title></html>", kind="text/html")),
        502,
        "provider_bad_response",
        ((200, "provider_bad_response"),) * 2,
        says="web page",
    ),
    "sends-no-json": Fault(
        plays(answer(200, b"fine, thanks")), 502, "provider_bad_response", ((200, "provider_bad_response"),) * 2
    ),
    "sends-nothing": Fault(plays(answer(200, b"")), 502, "provider_bad_response", ((200, "provider_bad_response"),) * 2),
    "compresses": Fault(
        plays(answer(200, b"\x1f\x8b\x08", "content-encoding: gzip")),
        502,
        "provider_bad_response",
        ((200, "provider_bad_response"),) * 2,
    ),
    "error-in-a-200": Fault(
        plays(answer(200, BROKEN)), 502, "provider_error", ((200, "provider_error"),) * 2, says="the engine fell over"
    ),
    "never-answers": Fault(first(b"", "hold"), 504, "provider_timeout", ((None, "provider_timeout"),) * 2, QUICK),
    "redirects": Fault(
        plays(answer(307, b"", "location: http://127.0.0.1:1/v1/chat/completions")),
        502,
        "provider_bad_response",
        ((307, "provider_bad_response"),) * 2,
        says="redirect",
    ),
    "has-a-huge-head": Fault(
        first(b"HTTP/1.1 200 OK\r\nx-pad: " + b"x" * 2_000_000 + b"\r\n\r\n", "hold"),
        502,
        "provider_bad_response",
        ((None, "provider_bad_response"),) * 2,
    ),
    "fails-500": Fault(
        plays(answer(500, BROKEN)), 500, "provider_error", ((500, "provider_error"),) * 2, says="the engine fell over"
    ),
    "fails-502": Fault(
        plays(answer(502, b"<html>Bad Gateway", kind="text/html")), 502, "provider_error", ((502, "provider_error"),) * 2
    ),
    "fails-503": Fault(plays(answer(503, BROKEN)), 503, "provider_overloaded", ((503, "provider_overloaded"),) * 2),
    "fails-529": Fault(
        plays(answer(529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})),
        529,
        "provider_overloaded",
        ((529, "provider_overloaded"),) * 2,
    ),
    "refuses-the-key": Fault(
        plays(answer(401, {"error": {"message": "Incorrect API key provided: KEY", "code": "invalid_api_key"}})),
        502,
        "provider_credentials_invalid",
        ((401, "provider_credentials_invalid"),),
    ),
    "has-no-credit": Fault(
        plays(answer(402, {"error": {"message": "Insufficient Balance", "type": "invalid_request_error"}})),
        503,
        "provider_credentials_exhausted",
        ((402, "provider_credentials_exhausted"),),
    ),
    "forbids": Fault(
        plays(answer(403, {"error": {"message": "Your project may not use this model", "type": "permission_error"}})),
        502,
        "provider_credentials_invalid",
        ((403, "provider_credentials_invalid"),),
    ),
    "wants-less": Fault(
        plays(answer(429, {"error": {"message": "slow down", "type": "rate_limit_error"}}, "retry-after: 7")),
        429,
        "provider_rate_limited",
        ((429, "provider_rate_limited"),),
        headers={"retry-after": "7"},
    ),
}


KEYED = {"refuses-the-key", "has-no-credit", "wants-less", "forbids"}
"""Faults that rest a key (or would): each of their tests has a provider of its own."""


@pytest.fixture(scope="module")
def untouched() -> Iterator[FarSide]:
    """A far side that only tests of what must not be sent twice ask: no connection of others is kept to it."""
    with FarSide() as far:
        yield far


@pytest.fixture(scope="module")
def gateway(make: Make, far_side: FarSide, untouched: FarSide) -> Gateway:
    """One provider for each fault, and for those that rest keys one more for each test."""
    config = [provider("backup", far_side.url("backup"))]
    far_side.scripts["backup"] = by_stream
    for name, fault in EARLY.items():
        for one in (name, f"{name}.f", f"{name}.2"):
            config.append(provider(one, fault.url or far_side.url(one), fault.settings, keys=1 + one.endswith(".2")))
            if fault.script is not None:
                far_side.scripts[one] = fault.script
        config += [route(name), route(f"{name}.f", fallback="backup"), route(f"{name}.2")]
    for name, script in UNSAFE.items():
        settings = QUICK if script is SILENCE else ""
        config += [
            provider(name, untouched.url(name), settings),
            route(name),
            route(f"{name}.f", target=name, fallback="backup"),
        ]
        untouched.scripts[name] = script
    for name, (script, settings, kind) in OTHERS.items():
        config += [
            provider(name, far_side.url(name), settings, 1, kind),
            route(name),
            route(f"{name}.f", target=name, fallback="backup"),
        ]
        far_side.scripts[name] = script
    return make("\n".join(config))


@pytest.fixture(scope="module")
def early(gateway: Gateway) -> dict[str, list[Answer]]:
    """What each fault's three requests got: alone, with a fallback, and the same as a stream. Asked side by side, for speed."""

    def ask_all(name: str) -> list[Answer]:
        fallback = ASK | {"model": f"{name}.f"}
        return [gateway.ask(ASK | {"model": name}), gateway.ask(fallback), gateway.ask(fallback | {"stream": True})]

    with ThreadPoolExecutor(8) as pool:
        return dict(zip(EARLY, pool.map(ask_all, EARLY), strict=True))


@pytest.mark.parametrize("name", EARLY)
def test_alone(gateway: Gateway, far_side: FarSide, early: dict[str, list[Answer]], name: str) -> None:
    """Nobody else to ask: the caller gets our error with what may be repeated of the provider's, never a 401, 402 or 403; what
    often passes is tried once more, and SDKs are told not to multiply that."""
    fault = EARLY[name]
    answer = early[name][0]
    check(answer, fault.status, fault.code)
    assert fault.says in answer.error["message"]
    for header, value in (fault.headers or {}).items():
        assert answer.headers[header] == value
    if fault.status != 429:
        assert answer.headers["x-should-retry"] == "false"
    record = gateway.record(answer.id)
    assert (record.status, record.error, record.outcome) == (fault.status, fault.code, "provider_error")
    assert (record.route, record.provider, record.model) == (name, name, "m")
    attempts = gateway.attempts(answer.id)
    assert [(attempt.status, attempt.error) for attempt in attempts] == list(fault.attempts)
    assert all(attempt.key == f"{name}#1" for attempt in attempts)
    assert all(attempt.detail for attempt in attempts)
    if fault.script is not None:
        # A kept connection that closes before any byte is replaced by a fresh one, and is no attempt.
        more = len(fault.attempts) if fault.attempts[0] == LOST else 0
        assert len(fault.attempts) <= len(far_side.seen[name]) <= len(fault.attempts) + more
        assert all(seen.json["model"] == "m" for seen in far_side.seen[name])


@pytest.mark.parametrize("name", ["sends-a-page", "error-in-a-200", "fails-500", "has-no-credit"])
def test_a_message_names_the_provider(early: dict[str, list[Answer]], name: str) -> None:
    """A sentence that begins with who failed."""
    assert early[name][0].error["message"].startswith(f"The provider {name!r} ")


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", EARLY)
def test_with_a_fallback(gateway: Gateway, early: dict[str, list[Answer]], name: str, streaming: bool) -> None:
    """The caller gets the fallback's answer and need not know, but may: it is in the headers and in the record."""
    fault = EARLY[name]
    answer = early[name][1 + streaming]
    assert answer.status == 200
    if streaming:
        assert answer.events == [event.strip() for event in (*CONTENT, DONE)]
    else:
        assert answer.json == completion()
    assert answer.headers["x-aigw-provider"] == "backup"
    record = gateway.record(answer.id)
    assert (record.provider, record.outcome, record.input, record.output) == ("backup", "ok", 7, 3)
    attempts = gateway.attempts(answer.id)
    assert (attempts[-1].provider, attempts[-1].status, attempts[-1].error) == ("backup", 200, "")
    if name in KEYED and streaming and name != "forbids":  # its key rests since the call before: not asked at all
        assert len(attempts) == 1
        return
    assert [(attempt.status, attempt.error) for attempt in attempts[:-1]] == list(fault.attempts[:1])
    assert answer.headers["x-aigw-attempts"] == "2"


@pytest.mark.parametrize("name", sorted(KEYED))
def test_the_pool_has_another_key(gateway: Gateway, far_side: FarSide, name: str) -> None:
    """The second key takes over within the same exchange; the first rests, so the next exchange does not ask with it."""
    name = f"{name}.2"
    bad = EARLY[name[:-2]].script
    assert bad is not None

    async def by_key(peer: Peer, request: Request, number: int) -> None:
        if b".1." in request.headers[b"authorization"]:
            await bad(peer, request, number)
        else:
            await peer.send(answer(200, completion()))

    far_side.scripts[name] = by_key
    found = gateway.ask(ASK | {"model": name})
    assert found.status == 200
    assert [attempt.key for attempt in gateway.attempts(found.id)] == [f"{name}#1", f"{name}#2"]
    again = [gateway.ask(ASK | {"model": name}) for _ in range(3)]
    assert [one.status for one in again] == [200] * 3
    asked = [".1." in seen.key for seen in far_side.seen[name]][2:]
    if name == "forbids.2":  # what an account may not do is not the key's fault: it does not rest
        assert True in asked
    else:
        assert asked == [False] * 3


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("wants-less", 429, "provider_credentials_exhausted"),
        ("refuses-the-key", 502, "provider_credentials_invalid"),
        ("has-no-credit", 503, "provider_credentials_exhausted"),
    ],
)
def test_a_pool_that_rests_is_not_asked(gateway: Gateway, far_side: FarSide, name: str, status: int, code: str) -> None:
    """While its only key rests, a provider hears nothing; the caller learns why, and when to come back."""
    gateway.ask(ASK | {"model": name})  # rests, if it did not already
    before = len(far_side.seen[name])
    answer = gateway.ask(ASK | {"model": name})
    assert len(far_side.seen[name]) == before
    check(answer, status, code)
    assert int(answer.headers["retry-after"]) > 0
    record = gateway.record(answer.id)
    assert (record.error, record.attempts) == (code, "[]")


def check(answer: Answer, status: int, code: str) -> None:
    assert (answer.status, answer.headers["x-aigw-error"]) == (status, code), answer
    assert answer.error["aigw_code"] == code
    assert answer.error["request_id"] == answer.id
    assert answer.status not in (401, 402, 403)


# --- the rest: after the first byte, and what is no fault at all -----------------------------------------------------------

EVENT_ERROR = b"data: " + json.dumps(BROKEN).encode() + b"\n\n"

MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
    "usage": {"input_tokens": 7, "output_tokens": 1},
}


def event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: ".encode() + json.dumps({"type": kind} | fields).encode() + b"\n\n"


SPOKEN = (
    event("message_start", message=MESSAGE),
    event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    event("content_block_delta", index=0, delta={"type": "text_delta", "text": "one"}),
)

OVERLOADED = event("error", error={"type": "overloaded_error", "message": "Overloaded"})

IDLE = "stream_idle_timeout = 0.4"

BEGUN = STREAM_HEAD + b"".join(chunk(one) for one in CONTENT)

SPEAKS = STREAM_HEAD + b"".join(chunk(one) for one in SPOKEN)

NO_USAGE = {name: value for name, value in completion().items() if name != "usage"}

OTHERS: dict[str, tuple[Script, str, str]] = {
    # broken streams, by dialect
    "stream-resets": (first(BEGUN, "reset", 0.1), "", OPENAI),
    "stream-closes": (first(BEGUN), "", OPENAI),
    "stream-closes-in-an-event": (first(BEGUN + chunk(delta("three")[:30]), "close", 0.05), "", OPENAI),
    "stream-stalls": (first(BEGUN, "hold"), IDLE, OPENAI),
    "stream-fails": (plays(stream(*CONTENT, EVENT_ERROR, DONE)), "", OPENAI),
    "stream-speaks-garbage": (first(BEGUN + b"zz\r\nnonsense", "hold"), "", OPENAI),
    "messages-reset": (first(SPEAKS, "reset", 0.1), "", ANTHROPIC),
    "messages-close": (first(SPEAKS), "", ANTHROPIC),
    "messages-stall": (first(SPEAKS, "hold"), IDLE, ANTHROPIC),
    "messages-fail": (plays(stream(*SPOKEN, OVERLOADED)), "", ANTHROPIC),
    # a stream's error before anything else
    "error-first": (plays(stream(EVENT_ERROR, DONE)), "", OPENAI),
    "messages-error-first": (plays(stream(OVERLOADED)), "", ANTHROPIC),
    "empty-stream": (plays(stream()), "", OPENAI),
    # what is no fault
    "late": (late(answer(200, completion()), 0.3), "first_byte_timeout = 1", OPENAI),
    "drips": (drips([STREAM_HEAD, *(chunk(one) for one in (*CONTENT, USAGE, DONE)), END], 0.25), IDLE, OPENAI),
    "bytewise": (drips([bytes([one]) for one in GOOD_STREAM], 0.0), "", OPENAI),
    "no-usage": (plays(answer(200, NO_USAGE)), "", OPENAI),
    "no-usage-stream": (plays(stream(*CONTENT, DONE)), "", OPENAI),
    "hints-first": (
        plays(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + answer(200, completion())),
        "",
        OPENAI,
    ),
    "until-it-closes": (
        first(b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n" + json.dumps(completion()).encode()),
        "",
        OPENAI,
    ),
    "says-more": (first(answer(200, completion()) + b"HTTP/1.1 200 OK\r\n\r\nand", "hold"), "", OPENAI),
    "cookies": (
        plays(answer(200, completion(), "set-cookie: a=b", "x-ratelimit-remaining-tokens: 5", "x-request-id: req-theirs")),
        "",
        OPENAI,
    ),
    "closes-after": (first(answer(200, completion()), "close"), "", OPENAI),
    # words of the provider's that the caller gets
    "rejects-400": (
        plays(
            answer(
                400,
                {
                    "error": {
                        "message": "max_tokens is too large",
                        "type": "invalid_request_error",
                        "param": "max_tokens",
                        "code": "x1",
                    }
                },
            )
        ),
        "",
        OPENAI,
    ),
    "rejects-404": (
        plays(
            answer(
                404,
                {
                    "error": {
                        "message": "The model `m` does not exist",
                        "type": "invalid_request_error",
                        "code": "model_not_found",
                    }
                },
            )
        ),
        "",
        OPENAI,
    ),
    "rejects-422": (plays(answer(422, {"detail": [{"msg": "field required", "loc": ["body"]}]})), "", OPENAI),
    "messages-rejects": (
        plays(
            answer(400, {"type": "error", "error": {"type": "invalid_request_error", "message": "max_tokens: field required"}})
        ),
        "",
        ANTHROPIC,
    ),
    # what repeats our key
    "leaks-in-its-head": (plays(answer(200, completion())), "", OPENAI),
    "leaks": (plays(answer(400, b"REPLACED")), "", OPENAI),
    "leaks-in-a-stream": (plays(answer(400, b"REPLACED")), "", OPENAI),
    "leaks-a-401": (plays(answer(400, b"REPLACED")), "", OPENAI),
}

SILENCE = first(b"", "hold")


async def _reset_images(peer: Peer, request: Request, number: int) -> None:
    if b"images" in request.line:
        peer.reset()
        raise ConnectionResetError
    await peer.send(answer(200, completion()))


UNSAFE = {
    "unsafe-resets": first(b"", "reset"),
    "unsafe-never-answers": SILENCE,
    "unsafe-breaks": first(answer(200, {"data": []})[:-3], "reset", 0.05),
    "unsafe-busy": plays(answer(503, BROKEN), answer(200, {"created": 1, "data": []})),
    "unsafe-in-use": _reset_images,
}

BROKEN_STREAMS = {
    "stream-resets": "provider_connection_lost",
    "stream-closes": "provider_connection_lost",
    "stream-closes-in-an-event": "provider_connection_lost",
    "stream-stalls": "provider_timeout",
    "stream-fails": "provider_error",
    "stream-speaks-garbage": "provider_bad_response",
    "messages-reset": "provider_connection_lost",
    "messages-close": "provider_connection_lost",
    "messages-stall": "provider_timeout",
    "messages-fail": "provider_overloaded",
}


@pytest.mark.parametrize("name", BROKEN_STREAMS)
def test_a_stream_that_breaks_ends_with_an_error_event(gateway: Gateway, far_side: FarSide, name: str) -> None:
    """After the first byte nothing is retried: what came goes on byte for byte, in whole events, then an error event in the
    caller's dialect, then the end, properly framed; and what it took is recorded."""
    anthropic = name.startswith("messages")
    path = "/v1/messages" if anthropic else "/v1/chat/completions"
    answer = gateway.ask(ASK | {"model": f"{name}.f", "stream": True, "max_tokens": 9}, path)
    assert answer.status == 200
    assert not answer.cut
    came = SPOKEN if anthropic else CONTENT
    *events, last = answer.events
    assert events == [one.strip() for one in came]
    code = BROKEN_STREAMS[name]
    if anthropic:
        assert last.startswith(b"event: error\ndata: ")
        said = json.loads(last.partition(b"data: ")[2])
        assert (said["type"], said["request_id"]) == ("error", answer.id)
    else:
        said = json.loads(last.removeprefix(b"data: "))
        assert said["error"]["request_id"] == answer.id
    assert said["error"]["aigw_code"] == code
    record = gateway.record(answer.id)
    assert (record.status, record.outcome, record.error) == (200, "provider_error", code)
    assert record.output > 0
    assert record.estimated != anthropic  # Anthropic says its usage first
    assert record.first_token is not None
    assert [(attempt.provider, attempt.error) for attempt in gateway.attempts(answer.id)] == [(name, code)]
    assert len(far_side.seen[name]) == 1


@pytest.mark.parametrize(("name", "code"), [("error-first", "provider_error"), ("empty-stream", "provider_bad_response")])
def test_a_stream_that_fails_first_is_tried_elsewhere(gateway: Gateway, name: str, code: str) -> None:
    """A 200 is not believed before its first event."""
    answer = gateway.ask(ASK | {"model": f"{name}.f", "stream": True})
    assert answer.status == 200
    assert answer.events == [one.strip() for one in (*CONTENT, DONE)]
    attempts = gateway.attempts(answer.id)
    assert [(attempt.provider, attempt.error) for attempt in attempts] == [(name, code), ("backup", "")]


def test_a_stream_that_fails_first_is_an_error_where_nobody_else_is(gateway: Gateway) -> None:
    """Then it is a plain error answer: SDKs see its status."""
    answer = gateway.ask(ASK | {"model": "messages-error-first", "stream": True, "max_tokens": 9}, "/v1/messages")
    assert (answer.status, answer.headers["x-aigw-error"]) == (503, "provider_overloaded")
    assert answer.error["type"] == "overloaded_error"
    assert len(gateway.attempts(answer.id)) == 2


@pytest.mark.parametrize("name", ["late", "no-usage", "hints-first", "until-it-closes", "says-more", "cookies", "closes-after"])
def test_what_is_no_fault(gateway: Gateway, far_side: FarSide, name: str) -> None:
    """Slow but in time, odd but whole: the answer as it is, in one attempt, twice in a row."""
    for _ in range(2):
        answer = gateway.ask(ASK | {"model": name})
        assert answer.status == 200
        assert answer.json == (NO_USAGE if name == "no-usage" else completion())
        assert [attempt.error for attempt in gateway.attempts(answer.id)] == [""]
    assert len(far_side.seen[name]) == 2


@pytest.mark.parametrize("name", ["drips", "bytewise"])
def test_a_stream_in_any_pieces(gateway: Gateway, name: str) -> None:
    """Slower than the idle timeout in all, but not between two blocks; and cut at every byte."""
    answer = gateway.ask(ASK | {"model": name, "stream": True})
    assert answer.events == [one.strip() for one in (*CONTENT, DONE)]
    assert (gateway.record(answer.id).input, gateway.record(answer.id).output) == (7, 3)


def test_no_usage_is_estimated_and_said_so(gateway: Gateway) -> None:
    """Tokens of our own counting, marked in the record, stream or not."""
    for name, streaming in (("no-usage", False), ("no-usage-stream", True)):
        record = gateway.record(gateway.ask(ASK | {"model": name, "stream": streaming}).id)
        assert record.estimated
        assert 0 < record.input < 50
        assert 0 < record.output < 10


def test_headers_that_are_not_the_callers_business(gateway: Gateway, far_side: FarSide) -> None:
    """No cookies, no rate limits of our account, no foreign request id on the way back; on the way out not the consumer's key,
    no cookie, no address; the provider's request id is in the record."""
    sent = {"cookie": "session=1", "x-forwarded-for": "10.1.1.1", "x-api-key": gateway.key, "openai-beta": "assistants=v2"}
    answer = gateway.ask(ASK | {"model": "cookies"}, headers=sent)
    assert answer.status == 200
    assert not {"set-cookie", "x-ratelimit-remaining-tokens"} & set(answer.headers)
    assert answer.id.startswith("req_")
    assert gateway.record(answer.id).upstream_id == "req-theirs"
    request = far_side.seen["cookies"][-1].request
    assert request.headers[b"authorization"] == b"Bearer far.cookies.1.0123456789abcdef"
    assert request.headers[b"openai-beta"] == b"assistants=v2"
    assert gateway.key.encode() not in b"".join(request.headers.values())
    assert not {b"cookie", b"x-forwarded-for", b"x-api-key"} & set(request.headers)


def test_a_pooled_connection_that_was_closed_is_no_attempt(gateway: Gateway, far_side: FarSide) -> None:
    """The provider closed it while it was idle, or just as our request left: a fresh one, and nobody notices."""
    before = len(far_side.seen["closes-after"])
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    ids = [ask(connection, ASK | {"model": "closes-after"}, headers=gateway.headers()).id for _ in range(20)]
    connection.close()
    for request_id in ids:
        assert [attempt.error for attempt in gateway.attempts(request_id)] == [""]
    connections = [seen.connection for seen in far_side.seen["closes-after"][before:]]
    assert len(set(connections)) == len(connections) == 20


@pytest.mark.parametrize(
    ("name", "status", "fields"),
    [
        ("rejects-400", 400, {"type": "invalid_request_error", "param": "max_tokens", "code": "x1"}),
        ("rejects-404", 404, {"type": "invalid_request_error", "code": "model_not_found"}),
        ("rejects-422", 422, {"type": "invalid_request_error"}),
    ],
)
def test_a_providers_own_refusal_keeps_its_status_and_words(
    gateway: Gateway, far_side: FarSide, name: str, status: int, fields: dict[str, str]
) -> None:
    """It is the caller's to mend: not retried, not sent to the fallback."""
    answer = gateway.ask(ASK | {"model": f"{name}.f"})
    check(answer, status, "provider_rejected")
    assert {key: answer.error[key] for key in fields} == fields
    assert {"rejects-400": "max_tokens is too large", "rejects-404": "does not exist", "rejects-422": "field required"}[
        name
    ] in answer.error["message"]
    assert len(far_side.seen[name]) == 1
    assert gateway.record(answer.id).status == status


def test_anthropics_own_refusal(gateway: Gateway) -> None:
    """In its dialect."""
    answer = gateway.ask(ASK | {"model": "messages-rejects"}, "/v1/messages")
    assert (answer.status, answer.error["type"], answer.json["type"]) == (400, "invalid_request_error", "error")
    assert "max_tokens: field required" in answer.error["message"]


@pytest.mark.parametrize("path", ["/v1/images/generations", "/v1/audio/speech"])
@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("unsafe-resets", "provider_connection_lost"),
        ("unsafe-never-answers", "provider_timeout"),
        ("unsafe-breaks", "provider_connection_lost"),
    ],
)
def test_images_and_speech_are_never_sent_twice(gateway: Gateway, untouched: FarSide, name: str, code: str, path: str) -> None:
    """Once the body went out the provider may be painting: no second try, no fallback."""
    before = len(untouched.seen[name])
    answer = gateway.ask({"model": f"{name}.f", "prompt": "a cat", "input": "a cat", "voice": "alloy"}, path)
    if path.endswith("speech") and name == "unsafe-breaks":
        assert answer.cut  # sound flows as it comes: the caller sees that it is not whole
    else:
        check(answer, 504 if code == "provider_timeout" else 502, code)
    assert [(attempt.provider, attempt.error) for attempt in gateway.attempts(answer.id)] == [(name, code)]
    assert len(untouched.seen[name]) == before + 1


def test_images_are_sent_again_when_the_provider_says_it_did_nothing(gateway: Gateway, untouched: FarSide) -> None:
    """A 503 is a plain no."""
    answer = gateway.ask({"model": "unsafe-busy", "prompt": "a cat"}, "/v1/images/generations")
    assert answer.status == 200
    assert len(untouched.seen["unsafe-busy"]) == 2


def test_images_are_not_sent_twice_over_a_connection_in_use(gateway: Gateway, untouched: FarSide) -> None:
    """A kept connection that breaks before its answer may break because of the request: what is not safe is not repeated."""
    assert gateway.ask(ASK | {"model": "unsafe-in-use"}).status == 200
    gateway.ask({"model": "unsafe-in-use", "prompt": "a cat"}, "/v1/images/generations")
    assert [b"images" in seen.request.line for seen in untouched.seen["unsafe-in-use"]] == [False, True]


def test_our_key_is_never_repeated(gateway: Gateway, far_side: FarSide) -> None:
    """A provider that says our key aloud, in an error, a header or a stream: it is not in any answer, nor in records, the
    journal, the log, metrics or statistics; nor is the caller's own."""
    gateway.ask(ASK | {"model": "no-usage"})
    said: list[bytes] = []
    for name, status in (("leaks", 400), ("leaks-a-401", 401), ("leaks-in-a-stream", 200)):
        secret = f"far.{name}.1.0123456789abcdef"
        body = {
            "error": {"message": f"the key {secret} is bad: Bearer {secret}", "type": secret, "param": secret, "code": secret}
        }
        if status == 200:
            script = plays(stream(*CONTENT, b"data: " + json.dumps(body).encode() + b"\n\n"))
        else:
            script = plays(answer(status, body, "x-request-id: req-theirs"))
        far_side.scripts[name] = script
        found = gateway.ask(ASK | {"model": name, "stream": status == 200})
        assert found.status == (502 if status == 401 else status)
        gateway.record(found.id)
        said += [found.body, json.dumps(found.headers).encode()]
    said += [json.dumps(gateway.metrics()).encode(), json.dumps(gateway.stats("provider")).encode()]
    said += ["\n".join(gateway.lines).encode()]
    said += [path.read_bytes() for path in gateway.data_dir.rglob("*") if path.is_file()]
    assert sum(map(len, said)) > 10_000
    for text in said:
        assert b"0123456789abcdef" not in text
        assert gateway.key.encode() not in text


def test_our_key_is_not_repeated_from_a_head(gateway: Gateway, far_side: FarSide) -> None:
    """Headers of an answer that echo our key lose it like bodies do."""
    secret = "far.leaks-in-its-head.1.0123456789abcdef"
    fields = (f"x-request-id: {secret}", f"openai-version: {secret}")
    far_side.scripts["leaks-in-its-head"] = plays(answer(200, completion(), *fields))
    found = gateway.ask(ASK | {"model": "leaks-in-its-head"})
    assert secret not in str(found.headers)
    assert secret not in str(gateway.record(found.id))
