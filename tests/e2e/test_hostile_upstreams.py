"""Providers that are broken, or mean it: for each way to go wrong what the caller gets, what the record says, whether the
connection is used again, and that it takes no longer and no more memory than it may. Whole and streamed, in both dialects."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from aigw.errors import CODES
from tests.e2e.conftest import Make
from tests.e2e.far_side import ANTHROPIC, OPENAI, FarSide, provider, route
from tests.e2e.world import Answer, Gateway, eventually
from tests.faults import (
    CHAT_EVENTS,
    COMPLETION,
    END,
    GOOD,
    JSON_HEAD,
    MESSAGE,
    MESSAGE_EVENTS,
    STREAM_HEAD,
    Good,
    Script,
    chunk,
    close_at,
    corrupt,
    delay,
    drip,
    endless,
    garbage,
    only_marked,
    plays,
    reset_at,
    split,
    stall_at,
    streamed,
    then_holds,
    throttled,
    whole,
)

QUICK = "first_byte_timeout = 0.5\nstream_idle_timeout = 0.5\ntimeout = 2.0"

LOST, TIMEOUT, BAD = "provider_connection_lost", "provider_timeout", "provider_bad_response"


class Fault(NamedTuple):
    """`case` as the list of cases numbers it. `code` is what it comes to ("" = a good answer); `begun`: a stream has reached
    its caller by then, and ends with an error event. `again`: the connection may serve another request. `modes` are those in
    which it makes sense; `within` are the seconds it may take."""

    case: int
    play: Callable[[Good], Script]
    code: str = ""
    begun: bool = False
    again: bool = False
    modes: tuple[str, ...] = tuple(GOOD)
    within: float = 1.5
    status: int | None = None


BUSY = 1.0
"""Seconds that a machine with other work may be late."""

STREAMS = ("chat-stream", "messages-stream")
WHOLES = ("chat", "messages")
CHAT = ("chat",)


def headed(*fields: bytes, line: bytes = b"HTTP/1.1 200 OK") -> Callable[[Good], Script]:
    return lambda good: plays(good.with_head(*fields, line=line))


def chunked(tail: bytes, begin: bool = True) -> Callable[[Good], Script]:
    """A chunked answer whose first content is good and whose framing then is *tail*."""

    def play(good: Good) -> Script:
        if good.streaming:
            return then_holds((good.wire[: good.begun] if begin else good.head) + tail)
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        return then_holds(head + (chunk(good.body[:20]) if begin else b"") + tail)

    return play


def endlessly(tail: bytes, block: bytes, pause: float = 0.0, *, begin: bool = True) -> Callable[[Good], Script]:
    """As `chunked`, and then *block* for ever."""

    def play(good: Good) -> Script:
        if good.streaming:
            return endless((good.wire[: good.begun] if begin else good.head) + tail, block, pause)
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        return endless(head + (chunk(good.body[:20]) if begin else b"") + tail, block, pause)

    return play


def with_usage(usage: Any) -> Callable[[Good], Script]:
    """The same answer, with another usage in it."""

    def play(good: Good) -> Script:
        if not good.streaming:
            return plays(whole((MESSAGE if good.anthropic else COMPLETION) | {"usage": usage}, good.anthropic).wire)
        ours = json.dumps(usage).encode()
        if good.anthropic:
            theirs = (b'{"input_tokens": 7, "output_tokens": 1}', b'{"output_tokens": 3}')
        else:
            theirs = (b'{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}',)
        events = list(MESSAGE_EVENTS if good.anthropic else CHAT_EVENTS)
        for old in theirs:
            events = [one.replace(old, ours) for one in events]
        return plays(streamed(events, good.anthropic).wire)

    return play


def error(status: int, *fields: bytes, body: bytes = b'{"error": {"message": "no", "type": "x"}}') -> Callable[[Good], Script]:
    head = b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\n" % status + b"".join(field + b"\r\n" for field in fields)
    return lambda good: plays(head + b"content-length: %d\r\n\r\n" % len(body) + body)


def rewritten(change: Callable[[bytes], bytes]) -> Callable[[Good], Script]:
    """A stream whose bytes are otherwise, in one chunk."""

    def play(good: Good) -> Script:
        events = b"".join(MESSAGE_EVENTS if good.anthropic else CHAT_EVENTS)
        return plays(STREAM_HEAD + chunk(change(events)) + END)

    return play


def one_byte_chunks(good: Good) -> Script:
    events = b"".join(MESSAGE_EVENTS if good.anthropic else CHAT_EVENTS)
    head, body = (
        (STREAM_HEAD, events) if good.streaming else (STREAM_HEAD.replace(b"text/event-stream", b"application/json"), good.body)
    )
    return plays(head + b"".join(chunk(bytes([byte])) for byte in body) + END)


FIRST = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"

FAULTS: dict[str, Fault] = {
    # 63-65: silence
    "accepts-and-says-nothing": Fault(63, lambda good: stall_at(good.wire, 0), TIMEOUT),
    "stalls-in-its-head": Fault(63, lambda good: stall_at(good.wire, good.body_at - 9), TIMEOUT),
    "drips-its-head": Fault(63, lambda good: drip(good.wire, 0.1), TIMEOUT),
    "stalls-behind-its-head": Fault(64, lambda good: stall_at(good.wire, good.body_at), TIMEOUT),
    "stalls-in-its-body": Fault(65, lambda good: stall_at(good.wire, good.begun), TIMEOUT, True),
    "stalls-in-an-event": Fault(65, lambda good: stall_at(good.wire, good.inside), TIMEOUT, True),
    "drips-its-body": Fault(65, lambda good: _then_drips(good, 0.1), TIMEOUT, True, within=3.5),
    "is-late": Fault(63, lambda good: delay(good.wire, 0.2), again=True),
    "is-slow": Fault(65, lambda good: throttled(good.wire, 2000), again=True, within=4.0),
    # 66: ends before its end, or behind it
    "resets-at-once": Fault(66, lambda good: reset_at(good.wire, 0), LOST),
    "closes-at-once": Fault(66, lambda good: close_at(good.wire, 0), LOST),
    "closes-in-its-head": Fault(66, lambda good: close_at(good.wire, 20), LOST),
    "closes-behind-its-head": Fault(66, lambda good: close_at(good.wire, good.body_at), LOST),
    "resets-behind-its-head": Fault(66, lambda good: reset_at(good.wire, good.body_at), LOST),
    "closes-in-its-body": Fault(66, lambda good: close_at(good.wire, good.begun), LOST, True),
    "resets-in-its-body": Fault(66, lambda good: reset_at(good.wire, good.begun), LOST, True),
    "closes-in-an-event": Fault(66, lambda good: close_at(good.wire, good.inside), LOST, True),
    "length-too-large": Fault(
        66, lambda good: close_at(JSON_HEAD % (len(good.body) + 9) + good.body, 10**6), LOST, modes=WHOLES
    ),
    "length-too-small": Fault(66, lambda good: plays(JSON_HEAD % (len(good.body) - 9) + good.body), BAD, modes=WHOLES),
    "length-too-large-and-waits": Fault(
        66, lambda good: then_holds(JSON_HEAD % (len(good.body) + 9) + good.body), TIMEOUT, modes=WHOLES
    ),
    "more-behind-its-end": Fault(66, lambda good: plays(good.wire + b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad")),
    "garbage-behind-its-end": Fault(66, lambda good: plays(good.wire + b"\x00\xff garbage")),
    # 67: framing
    "one-byte-chunks": Fault(67, one_byte_chunks, again=True),
    "chunk-size-overflows": Fault(67, chunked(b"fffffffffffffffff\r\nab"), BAD, True),
    "chunk-size-of-nobody": Fault(67, chunked(b"7fffffffffffffff\r\nab"), TIMEOUT, True),
    "chunk-size-negative": Fault(67, chunked(b"-1\r\nab"), BAD, True),
    "chunk-size-0x": Fault(67, chunked(b"0x2\r\nab"), BAD, True),
    "chunk-without-end": Fault(67, chunked(b"2\r\nabcd\r\n"), BAD, True),
    "chunk-with-bare-lf": Fault(67, chunked(b"2\nab\n"), BAD, True),
    "chunk-extension-flood": Fault(67, endlessly(b"2;", b"x" * 65536), BAD, True),
    "chunk-extension-drip": Fault(67, endlessly(b"2;", b"x", 0.1), TIMEOUT, True),
    "chunk-zeros-flood": Fault(67, endlessly(b"", b"0" * 65536), BAD, True),
    "chunk-flood-first": Fault(67, endlessly(b"2;", b"x" * 65536, begin=False), BAD),
    "trailer-flood": Fault(67, endlessly(b"0\r\n", b"x-t: " + b"v" * 8000 + b"\r\n"), BAD, True),
    "trailer-line-flood": Fault(67, endlessly(b"0\r\nx-t: ", b"v" * 65536), BAD, True),
    "trailer-drip": Fault(67, endlessly(b"0\r\nx-t: ", b"v", 0.1), TIMEOUT, True),
    # 68: compressed though nobody asked
    "gzip": Fault(68, headed(b"content-encoding: gzip"), BAD),
    "brotli": Fault(68, headed(b"Content-Encoding: BR"), BAD),
    "gzip-as-transfer-coding": Fault(68, lambda good: plays(_coded(good, b"gzip, chunked")), BAD),
    "unknown-transfer-coding": Fault(68, lambda good: plays(_coded(good, b"xchunked")), BAD),
    "chunked-and-not": Fault(68, lambda good: plays(_coded(good, b"chunked, identity")), BAD),
    "gzip-error": Fault(68, error(503, b"content-encoding: gzip", body=b"\x1f\x8b" * 999), "provider_overloaded", again=True),
    # 69: odd, but whole
    "split-at-every-byte": Fault(69, lambda good: split(good.wire), again=True),
    "crlf": Fault(69, rewritten(lambda events: events.replace(b"\n", b"\r\n")), again=True, modes=STREAMS),
    "cr": Fault(69, rewritten(lambda events: events.replace(b"\n", b"\r")), again=True, modes=STREAMS),
    "comments": Fault(69, rewritten(lambda events: b": hello\n\n" + events), again=True, modes=STREAMS),
    "no-last-event": Fault(
        69, rewritten(lambda events: events.removesuffix(b"data: [DONE]\n\n")), again=True, modes=("chat-stream",)
    ),
    "no-last-line-end": Fault(69, rewritten(lambda events: events[:-1]), again=True, modes=STREAMS),
    "no-utf-8": Fault(69, rewritten(lambda events: events.replace(b"two", b"t\xff\xfeo")), again=True, modes=STREAMS),
    "an-event-of-no-json": Fault(69, rewritten(lambda events: b"data: {oh\n\n" + events), again=True, modes=STREAMS),
    # 70: a page, a redirect, absurd waits
    "an-html-page": Fault(70, lambda good: plays(_page()), BAD, again=True),
    "redirects": Fault(70, error(307, b"location: http://127.0.0.1:1/v1/chat/completions"), BAD, again=True),
    "redirects-to-a-file": Fault(70, error(302, b"location: file:///etc/passwd"), BAD, again=True),
    "waits-of-the-past": Fault(
        70, error(503, b"retry-after: Thu, 01 Jan 1970 00:00:00 GMT"), "provider_overloaded", again=True
    ),
    "negative-wait": Fault(70, error(503, b"retry-after: -5"), "provider_overloaded", again=True),
    "endless-wait": Fault(70, error(503, b"retry-after: 1000000000"), "provider_overloaded", again=True),
    "wait-of-nonsense": Fault(70, error(529, b"retry-after: \xff\xfe soon"), "provider_overloaded", again=True, status=529),
    # 72: usage
    "usage-missing": Fault(72, with_usage(None), again=True),
    "usage-negative": Fault(
        72, with_usage({"prompt_tokens": -7, "completion_tokens": -3, "input_tokens": -7, "output_tokens": -3}), again=True
    ),
    "usage-huge": Fault(
        72,
        with_usage({"prompt_tokens": 10**30, "completion_tokens": 1e300, "input_tokens": 10**30, "output_tokens": 1e300}),
        again=True,
    ),
    "usage-of-words": Fault(72, with_usage({"prompt_tokens": "many", "input_tokens": "many", "output_tokens": []}), again=True),
    "usage-a-list": Fault(72, with_usage([1, 2]), again=True),
    "usage-contradicts": Fault(
        72,
        with_usage(
            {
                "prompt_tokens": 7,
                "completion_tokens": 3,
                "total_tokens": 1,
                "prompt_tokens_details": {"cached_tokens": 999},
                "input_tokens": 7,
                "output_tokens": 3,
                "cache_read_input_tokens": -999,
            }
        ),
        again=True,
    ),
    # 73: heads
    "10000-fields": Fault(73, headed(*(b"x-%d: v" % number for number in range(10_000))), again=True),
    "a-field-of-1-mb": Fault(73, headed(b"x-a: " + b"v" * 2**20), BAD),
    "endless-head": Fault(73, lambda good: endless(b"HTTP/1.1 200 OK\r\n", b"x-a: " + b"v" * 1000 + b"\r\n"), BAD),
    "endless-field": Fault(73, lambda good: endless(b"HTTP/1.1 200 OK\r\nx-a: ", b"v" * 65536), BAD),
    "endless-status-line": Fault(73, lambda good: endless(b"HTTP/1.1 200 ", b"v" * 65536), BAD),
    "cookies": Fault(73, headed(b"set-cookie: a=b", b"set-cookie: c=d"), again=True),
    "two-lengths": Fault(73, headed(b"content-length: 5", b"content-length: 6"), BAD),
    "length-and-chunks": Fault(73, headed(b"content-length: 5", b"transfer-encoding: chunked"), BAD),
    "length-of-20-digits": Fault(
        73, lambda good: then_holds(b"HTTP/1.1 200 OK\r\ncontent-length: " + b"9" * 20 + b"\r\n\r\n{}"), BAD
    ),
    "chunked-twice": Fault(73, lambda good: plays(_coded(good, b"chunked\r\ntransfer-encoding: chunked")), again=True),
    "bare-lf": Fault(73, lambda good: plays(good.wire.replace(b"\r\n", b"\n")), BAD),
    "bare-lf-in-a-field": Fault(73, headed(b"x-a: b\nx-b: c"), BAD),
    "a-folded-field": Fault(73, headed(b"x-a: b\r\n c: d"), BAD),
    "a-nul-in-a-field": Fault(73, headed(b"x-a: b\0c"), BAD),
    "a-nul-in-a-name": Fault(73, headed(b"x\0a: b"), BAD),
    "escapes-in-a-field": Fault(73, headed(b"x-request-id: \x1b[31mred"), BAD),
    "a-space-before-the-colon": Fault(73, headed(b"x-a : b"), BAD),
    "no-name": Fault(73, headed(b": b"), BAD),
    "empty-lines-first": Fault(73, lambda good: plays(b"\r\n\r\n" + good.wire), BAD),
    # what is not HTTP/1
    "http2": Fault(73, headed(line=b"HTTP/2.0 200 OK"), BAD),
    "rtsp": Fault(73, headed(line=b"RTSP/1.0 200 OK"), BAD),
    "http09": Fault(73, lambda good: close_at(good.body, 10**6), BAD),
    "status-42": Fault(73, headed(line=b"HTTP/1.1 042 What"), BAD, again=True),
    "status-999": Fault(73, headed(line=b"HTTP/1.1 999 What"), "provider_error", again=True, status=502),
    "random-bytes": Fault(73, lambda good: garbage(4096), BAD),
    "a-tls-hello": Fault(73, lambda good: then_holds(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)), BAD),
    "a-byte-of-the-status-line-is-wrong": Fault(73, lambda good: corrupt(good.wire, 5), BAD),
    "a-byte-of-the-head-is-wrong": Fault(73, lambda good: corrupt(good.wire, 18, 0), BAD),
    # 74: answers before answers
    "100-and-103-first": Fault(74, lambda good: plays(b"HTTP/1.1 100 Continue\r\n\r\n" + FIRST + good.wire), again=True),
    "103-flood": Fault(74, lambda good: endless(b"", FIRST * 1000), BAD),
    "103-drip": Fault(74, lambda good: endless(b"", FIRST, 0.05), TIMEOUT),
    "101": Fault(74, headed(b"upgrade: websocket", b"connection: upgrade", line=b"HTTP/1.1 101 Switching Protocols"), BAD),
    "200-with-upgrade": Fault(74, headed(b"upgrade: h2c", b"connection: upgrade"), again=True),
    # errors that do not end
    "endless-error": Fault(67, lambda good: endless(b"HTTP/1.1 503 No\r\n\r\n", b"x" * 65536), "provider_overloaded"),
    "error-with-a-page": Fault(70, lambda good: plays(_page(b"502 Bad Gateway")), "provider_error", again=True),
}


def _page(status: bytes = b"200 OK") -> bytes:
    page = b"<html><title>Please log in</title>" + b" " * 5000 + b"</html>"
    return b"HTTP/1.1 %b\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: %d\r\n\r\n%b" % (status, len(page), page)


def _then_drips(good: Good, pause: float) -> Script:
    """Content all the time, and too little to end in time."""
    if good.streaming:
        return endless(good.wire[: good.begun], chunk(b": still here\n\n"), pause)
    return endless(good.head.replace(b"content-length: ", b"content-length: 9"), b" ", pause)


def _coded(good: Good, coding: bytes) -> bytes:
    kind = b"text/event-stream" if good.streaming else b"application/json"
    body = good.body if good.streaming else chunk(good.body) + END
    return b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: %b\r\n\r\n%b" % (kind, coding, body)


CASES = [(name, mode) for name, fault in FAULTS.items() for mode in fault.modes]


def asked(model: str, mode: str, *, mark: bool = True) -> tuple[dict[str, Any], str]:
    """The request of a mode, and its path."""
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 9}
    body |= {"stream": True} if mode.endswith("stream") else {}
    body |= {"user": "fault"} if mark else {}
    return body, "/v1/messages" if mode.startswith("messages") else "/v1/chat/completions"


class Shown(NamedTuple):
    """What came of one case: the faulty request, how long it took, and a good one behind it."""

    answer: Answer
    seconds: float
    next: Answer


@pytest.fixture(scope="module")
def gateway(make: Make, far_side: FarSide) -> Gateway:
    config = []
    for mode, good in GOOD.items():
        kind = ANTHROPIC if good.anthropic else OPENAI
        far_side.scripts[f"good.{mode}"] = plays(good.wire)
        config.append(provider(f"good.{mode}", far_side.url(f"good.{mode}"), kind=kind))
    for name, mode in CASES:
        one, good = f"{name}.{mode}", GOOD[mode]
        far_side.scripts[one] = only_marked(FAULTS[name].play(good), plays(good.wire))
        config.append(provider(one, far_side.url(one), QUICK, kind=ANTHROPIC if good.anthropic else OPENAI))
        config.append(route(one, more="retries = 0"))
        config.append(route(f"{one}.f", target=one, fallback=f"good.{mode}"))
    return make("\n".join(config))


@pytest.fixture(scope="module")
def shown(gateway: Gateway) -> dict[tuple[str, str], Shown]:
    """All of it, eight at a time."""

    def show(case: tuple[str, str]) -> Shown:
        name, mode = case
        body, path = asked(f"{name}.{mode}", mode)
        began = time.monotonic()
        answer = gateway.ask(body, path)
        seconds = time.monotonic() - began
        good, _ = asked(f"{name}.{mode}", mode, mark=False)
        return Shown(answer, seconds, gateway.ask(good, path))

    with ThreadPoolExecutor(8) as pool:
        return dict(zip(CASES, pool.map(show, CASES), strict=True))


def last_error(answer: Answer, mode: str) -> dict[str, Any]:
    """The error of a stream's last event."""
    last = answer.events[-1]
    if mode.startswith("messages"):
        assert last.startswith(b"event: error\ndata: "), last
        last = last.partition(b"\n")[2]
    said = json.loads(last.removeprefix(b"data: "))
    error: dict[str, Any] = said["error"]
    assert (error.get("request_id") or said.get("request_id")) == answer.id
    return error


def uses_before(far_side: FarSide, name: str) -> int:
    """How many requests the connection of *name*'s fault had served by then, this one with them. All share one pool."""
    fault = far_side.seen[name][0]
    every = [seen for of_one in far_side.seen.values() for seen in of_one]
    return sum(seen.connection == fault.connection and seen.at <= fault.at for seen in every)


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_a_fault(gateway: Gateway, far_side: FarSide, shown: dict[tuple[str, str], Shown], name: str, mode: str) -> None:
    """The caller gets a good answer, or an error of ours in its dialect (as a plain answer, or as the last event of a stream
    that had begun), in time; one record says the same; and the next request gets its own answer, over another connection
    whenever there was a doubt about this one."""
    fault, good = FAULTS[name], GOOD[mode]
    answer, seconds, following = shown[name, mode]
    assert seconds < fault.within + BUSY
    assert not answer.cut
    begun = fault.begun and good.streaming
    record = gateway.record(answer.id)
    attempts = gateway.attempts(answer.id)
    assert [attempt.error for attempt in attempts] == [fault.code]
    if not fault.code:
        assert (answer.status, record.status, record.outcome, record.error) == (200, 200, "ok", "")
        if not good.streaming and fault.case != 72:
            assert answer.json == (MESSAGE if good.anthropic else COMPLETION)
        assert "set-cookie" not in answer.headers
        assert 0 <= record.input < 2**53
        assert 0 <= record.output < 2**53
        assert record.cached <= record.input
    elif begun:
        assert answer.status == record.status == 200
        assert last_error(answer, mode)["aigw_code"] == fault.code
        assert (record.outcome, record.error) == ("provider_error", fault.code)
        assert record.output > 0
    else:
        status = fault.status or CODES[fault.code].status
        assert (answer.status, answer.headers["x-aigw-error"]) == (status, fault.code), answer.body
        assert answer.error["aigw_code"] == fault.code
        assert (record.status, record.outcome, record.error) == (status, "provider_error", fault.code)
        assert answer.headers["x-should-retry"] == "false"
        assert 0 < int(answer.headers.get("retry-after", 1)) <= 3600
        if good.anthropic:
            assert answer.json["type"] == "error"
        assert attempts[0].detail.isprintable()
    assert following.status == 200, following
    assert gateway.record(following.id).outcome == "ok"
    if not fault.again:
        served = [seen.connection for every in far_side.seen.values() for seen in every]
        assert served.count(far_side.seen[f"{name}.{mode}"][0].connection) == uses_before(far_side, f"{name}.{mode}")


SPARED = [
    (name, mode)
    for name, mode in CASES
    if FAULTS[name].code and mode in ("chat-stream", "messages") and name != "drips-its-body"
]


@pytest.fixture(scope="module")
def spared(gateway: Gateway, shown: dict[tuple[str, str], Shown]) -> dict[tuple[str, str], Answer]:
    """The same faults where there is a fallback."""
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda case: gateway.ask(*asked(f"{case[0]}.{case[1]}.f", case[1])), SPARED)
        return dict(zip(SPARED, answers, strict=True))


@pytest.mark.parametrize(("name", "mode"), SPARED)
def test_a_fault_before_the_first_byte_is_not_the_callers(
    gateway: Gateway, spared: dict[tuple[str, str], Answer], name: str, mode: str
) -> None:
    """With a fallback the caller gets its answer, unless it had begun to get this one."""
    fault, answer = FAULTS[name], spared[name, mode]
    codes = [attempt.error for attempt in gateway.attempts(answer.id)]
    if fault.begun and mode == "chat-stream":
        assert codes == [fault.code]
        assert last_error(answer, mode)["aigw_code"] == fault.code
    else:
        assert codes == [fault.code, ""]
        assert answer.status == 200
        assert answer.headers["x-aigw-provider"] == f"good.{mode}"


@pytest.mark.parametrize("mode", STREAMS)
@pytest.mark.parametrize("name", ["split-at-every-byte", "one-byte-chunks", "crlf", "cr", "no-last-line-end"])
def test_a_stream_says_the_same_however_it_is_written(
    gateway: Gateway, shown: dict[tuple[str, str], Shown], name: str, mode: str
) -> None:
    """Usage, finish reason and first token are found; the caller gets the bytes as they came."""
    record = gateway.record(shown[name, mode].answer.id)
    assert (record.input, record.output, record.estimated) == (7, 3, False)
    assert record.finish_reason in ("stop", "end_turn")
    assert record.first_token is not None
    if name in ("split-at-every-byte", "one-byte-chunks"):
        whole = gateway.ask(*asked(f"good.{mode}/m", mode)).body
        assert shown[name, mode].answer.body == whole


@pytest.mark.parametrize("mode", GOOD)
@pytest.mark.parametrize("name", ["usage-missing", "usage-of-words", "usage-a-list"])
def test_a_usage_that_says_nothing_is_estimated(
    gateway: Gateway, shown: dict[tuple[str, str], Shown], name: str, mode: str
) -> None:
    """And marked as such, never taken for 0."""
    record = gateway.record(shown[name, mode].answer.id)
    assert record.estimated
    assert record.input > 0
    assert record.output > 0


# --- one at a time: memory, other callers, and clocks ----------------------------------------------------------------------

MIB = 2**20


def peak(gateway: Gateway) -> int:
    """The most memory that the server has had since `forget_peak`, in bytes."""
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def forget_peak(gateway: Gateway) -> int:
    Path(f"/proc/{gateway.process.pid}/clear_refs").write_text("5")
    return peak(gateway)


def neighbour(gateway: Gateway, ended: threading.Event, waits: list[float]) -> None:
    """Another caller, who asks something small all the time."""
    while not ended.is_set():
        began = time.monotonic()
        assert gateway.ask(None, "/healthz", method="GET").status == 200
        waits.append(time.monotonic() - began)
        time.sleep(0.02)


class Weight(NamedTuple):
    """A fault that weighs: what it may cost in memory and time, how long it may hold up others, and how it ends."""

    play: Script
    code: str
    memory: int
    within: float
    stream: bool = True
    settings: str = "stream_idle_timeout = 2\ntimeout = 3"


EVENT = b"data: " + b"x" * (4 * MIB - 200) + b"\n\n"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n"
TINY = HEAD % b"application/json" + chunk(b'{"a":"')

WEIGHTS = {
    "endless-line": Weight(endless(STREAM_HEAD, chunk(b"x" * 65536), 0.001), TIMEOUT, 40 * MIB, 6),
    "line-of-100-mb": Weight(
        plays(STREAM_HEAD, *[chunk(b"x" * MIB)] * 100, chunk(b"\n\n"), *(chunk(one) for one in CHAT_EVENTS), END),
        "",
        40 * MIB,
        10,
    ),
    "event-of-4-mb-in-segments": Weight(
        plays(STREAM_HEAD + b"%x\r\n" % len(EVENT), *(EVENT[at : at + 700] for at in range(0, len(EVENT), 700)), b"\r\n", END),
        "",
        40 * MIB,
        10,
    ),
    "event-of-1-mb-in-one-byte-chunks": Weight(
        plays(STREAM_HEAD, *[chunk(b"x") * 10_000] * 100, chunk(b"\n\n"), END), "", 40 * MIB, 10
    ),
    "json-in-two-byte-chunks": Weight(endless(TINY, chunk(b"xx") * 10_000, 0.01), TIMEOUT, 60 * MIB, 6, stream=False),
    "endless-json": Weight(endless(TINY, chunk(b"x" * 65536), 0.001), TIMEOUT, 60 * MIB, 6, stream=False),
    "gzip-bomb": Weight(
        endless(HEAD.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n") % b"application/json", chunk(b"\0" * 65536)),
        BAD,
        16 * MIB,
        1,
    ),
    "endless-error": Weight(endless(b"HTTP/1.1 500 No\r\n\r\n", b"x" * 65536), "provider_error", 16 * MIB, 1),
    "endless-head": Weight(endless(b"HTTP/1.1 200 OK\r\n", b"x-a: b\r\n" * 5000), BAD, 16 * MIB, 1),
    "flood-behind-its-end": Weight(
        endless(STREAM_HEAD + b"".join(chunk(one) for one in CHAT_EVENTS), chunk(b"x" * 65536)), "", 16 * MIB, 2
    ),
    "drip-behind-its-end": Weight(
        endless(STREAM_HEAD + b"".join(chunk(one) for one in CHAT_EVENTS), chunk(b"x"), 0.1), "", 16 * MIB, 2
    ),
}


@pytest.fixture(scope="module")
def heavy(make: Make, far_side: FarSide) -> Gateway:
    config = [provider("good", far_side.url("good.chat-stream"))]
    for name, weight in WEIGHTS.items():
        far_side.scripts[name] = weight.play
        config += [provider(name, far_side.url(name), weight.settings), route(name, more="retries = 0")]
    gateway = make("\n".join(config))
    far_side.scripts["good.chat-stream"] = plays(GOOD["chat-stream"].wire)
    for _ in range(20):
        gateway.ask(asked("good/m", "chat-stream")[0])
    return gateway


@pytest.mark.parametrize("name", WEIGHTS)
def test_what_weighs(heavy: Gateway, far_side: FarSide, name: str) -> None:
    """However much a provider sends, and in however small pieces: bounded memory, an end in time, a connection that is closed,
    and another caller who is not held up for long."""
    weight = WEIGHTS[name]
    before = forget_peak(heavy)
    waits: list[float] = []
    ended = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(neighbour, heavy, ended, waits)
        began = time.monotonic()
        try:
            answer = heavy.ask(asked(name, "chat-stream" if weight.stream else "chat")[0], timeout=12)
            took = time.monotonic() - began
        finally:
            ended.set()
        other.result()
    assert took < weight.within
    assert peak(heavy) - before < weight.memory
    assert max(waits) < 1.5  # most of it is this process, which plays the provider, too
    record = heavy.record(answer.id)
    assert record.error == weight.code
    if weight.code == TIMEOUT and weight.stream:  # half an event went out: ours stands apart from it
        assert last_error(answer, "chat-stream")["aigw_code"] == TIMEOUT
    if "endless" in name or "behind" in name:
        eventually(lambda: far_side.closed[name], within=2.5)
