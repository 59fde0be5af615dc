"""ConverseStream: the same events however the frames are cut, and no event behind a wrong checksum."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, strategies as st

from aigw.canonical import (
    CallDelta,
    CallStarted,
    Event,
    Finished,
    Spent,
    SpentSoFar,
    Started,
    TextDelta,
    ThinkingDelta,
)
from aigw.exchange import Usage
from aigw.protocols import eventstream
from aigw.protocols.translation.bedrock_converse.stream import ConverseParser


def frame(kind: str, payload: dict[str, Any]) -> bytes:
    headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    return eventstream.write(headers, json.dumps(payload | {"p": "abc"}).encode())


STREAM = b"".join(
    (
        frame("messageStart", {"role": "assistant"}),
        frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "hm"}}}),
        frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"signature": "sig"}}}),
        frame("contentBlockStop", {"contentBlockIndex": 0}),
        frame("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"text": "你好"}}),
        frame("contentBlockStop", {"contentBlockIndex": 1}),
        frame("contentBlockStart", {"contentBlockIndex": 2, "start": {"toolUse": {"toolUseId": "t1", "name": "look"}}}),
        frame("contentBlockDelta", {"contentBlockIndex": 2, "delta": {"toolUse": {"input": '{"at"'}}}),
        frame("contentBlockDelta", {"contentBlockIndex": 2, "delta": {"toolUse": {"input": ':"x"}'}}}),
        frame("contentBlockStop", {"contentBlockIndex": 2}),
        frame("contentBlockStart", {"contentBlockIndex": 3, "start": {"toolUse": {"toolUseId": "t2", "name": "rest"}}}),
        frame("contentBlockStop", {"contentBlockIndex": 3}),
        frame("somethingNew", {"x": 1}),
        frame("messageStop", {"stopReason": "tool_use"}),
        frame("metadata", {"usage": {"inputTokens": 3, "outputTokens": 4, "totalTokens": 9, "cacheReadInputTokens": 2}}),
    )
)
EVENTS: list[Event] = [
    Started(),
    ThinkingDelta("hm", origin="bedrock_converse"),
    ThinkingDelta(signature="sig", origin="bedrock_converse"),
    TextDelta("你好"),
    CallStarted(0, "t1", "look"),
    CallDelta(0, '{"at"'),
    CallDelta(0, ':"x"}'),
    CallStarted(1, "t2", "rest"),
    CallDelta(1, "{}"),
    Finished("tool_calls"),
    SpentSoFar(Spent(input=5, cached=2, output=4)),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_cut_anywhere(cuts: list[int]) -> None:
    parser = ConverseParser()
    at, events = 0, []
    for cut in [*sorted(cuts), len(STREAM)]:
        events += parser.feed(STREAM[at:cut])
        at = cut
    assert events + parser.end() == EVENTS
    assert parser.done
    assert parser.told.usage == Usage(input=5, cached=2, output=4)
    assert parser.told.finish_reason == "tool_use"


def test_a_wrong_checksum_fails_the_stream() -> None:
    broken = bytearray(STREAM)
    broken[200] ^= 1
    parser = ConverseParser()
    parser.feed(bytes(broken))
    assert b"broken_stream" in parser.failed
    assert parser.feed(STREAM) == []


def test_an_exception_in_the_stream() -> None:
    said = {":message-type": "exception", ":exception-type": "modelStreamErrorException"}
    parser = ConverseParser()
    parser.feed(STREAM[:150] + b"")
    parser = ConverseParser()
    parser.feed(
        frame("messageStart", {}) + eventstream.write(said, b'{"message":"no","originalStatusCode":429,"originalMessage":"x"}')
    )
    assert json.loads(parser.failed)["error"] == {
        "type": "modelStreamErrorException",
        "message": "no",
        "originalStatusCode": 429,
    }


def test_an_error_that_is_all_head() -> None:
    said = {":message-type": "error", ":error-code": "InternalFailure", ":error-message": "broke"}
    parser = ConverseParser()
    parser.feed(eventstream.write(said, b""))
    assert json.loads(parser.failed)["error"] == {"type": "InternalFailure", "message": "broke"}


def test_a_stream_that_ends_inside_a_frame() -> None:
    parser = ConverseParser()
    parser.feed(STREAM[:-5])
    parser.end()
    assert b"broke off" in parser.failed
