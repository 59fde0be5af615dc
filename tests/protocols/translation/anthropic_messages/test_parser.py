"""Messages streams, read: however the network cuts them, whatever is odd about them."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from aigw.canonical import (
    CallDelta,
    CallStarted,
    Citation,
    CitationDelta,
    Event,
    Finished,
    Foreign,
    ForeignPart,
    RefusalDelta,
    Spent,
    SpentSoFar,
    Started,
    TextDelta,
    ThinkingDelta,
)
from aigw.protocols.translation.anthropic_messages.blocks import DIALECT, JSON_TOOL
from aigw.protocols.translation.anthropic_messages.parser import MessagesParser
from tests.recordings import RECORDINGS, Recording

RECORDED = [recording for recording in RECORDINGS if recording.dialect == DIALECT]


def sse(*events: dict[str, Any]) -> bytes:
    return b"".join(b"event: %b\ndata: %b\n\n" % (one["type"].encode(), json.dumps(one).encode()) for one in events)


def start(index: int, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind} | fields}


def stop(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def ends(reason: str, **fields: Any) -> list[dict[str, Any]]:
    usage = {"output_tokens": 9}
    return [{"type": "message_delta", "delta": {"stop_reason": reason} | fields, "usage": usage}, {"type": "message_stop"}]


USAGE = {"input_tokens": 5, "cache_read_input_tokens": 7, "output_tokens": 1}
BEGIN = {"type": "message_start", "message": {"id": "msg_1", "model": "claude-x", "usage": USAGE}}
FULL = sse(
    BEGIN,
    {"type": "ping"},
    start(0, type="thinking", thinking="", signature=""),
    delta(0, "thinking_delta", thinking="hm é"),
    delta(0, "signature_delta", signature="c2ln"),
    stop(0),
    start(1, type="text", text=""),
    delta(1, "text_delta", text="Schön "),
    delta(1, "text_delta", text="雨"),
    stop(1),
    start(2, type="tool_use", id="toolu_1", name="f", input={}),
    delta(2, "input_json_delta", partial_json=""),
    delta(2, "input_json_delta", partial_json='{"x"'),
    delta(2, "input_json_delta", partial_json=":1}"),
    stop(2),
    start(3, type="tool_use", id="toolu_2", name="g", input={}),
    stop(3),
    {"type": "something_new", "delta": {"type": "odd"}},
    *ends("tool_use"),
)
EVENTS: list[Event] = [
    Started("msg_1", "claude-x", 0, Spent(12, 7, output=1)),
    ThinkingDelta("hm é", origin=DIALECT),
    ThinkingDelta(signature="c2ln", origin=DIALECT),
    TextDelta("Schön "),
    TextDelta("雨"),
    CallStarted(0, "toolu_1", "f"),
    CallDelta(0, '{"x"'),
    CallDelta(0, ":1}"),
    CallStarted(1, "toolu_2", "g"),
    CallDelta(1, "{}"),
    Finished("tool_calls"),
    SpentSoFar(Spent(12, 7, output=9)),
]


def read(stream: bytes, *cuts: int) -> tuple[list[Event], MessagesParser]:
    parser = MessagesParser()
    events: list[Event] = []
    edges = [0, *sorted(cuts), len(stream)]
    for at, to in pairwise(edges):
        events += parser.feed(stream[at:to])
    return events + parser.end(), parser


def test_a_stream_of_all_kinds() -> None:
    """Event by event; what the record wants to know is told."""
    events, parser = read(FULL)
    assert events == EVENTS
    assert (parser.done, parser.begun, parser.failed) == (True, True, b"")
    assert (parser.told.model, parser.told.finish_reason) == ("claude-x", "tool_use")
    assert parser.told.usage is not None
    assert (parser.told.usage.input, parser.told.usage.cached, parser.told.usage.output) == (12, 7, 9)


@settings(max_examples=60)
@given(st.data())
def test_cut_anywhere(data: st.DataObject) -> None:
    """The same events, with any line ending, a mark at the beginning, comments, and no space after the colon."""
    stream = FULL
    if data.draw(st.booleans()):
        stream = b"\xef\xbb\xbf" + stream.replace(b"data: ", b"data:").replace(b"event: ping", b": a comment\nevent: ping")
    stream = stream.replace(b"\n", data.draw(st.sampled_from([b"\n", b"\r\n"])))
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    assert read(stream, *cuts)[0] == EVENTS


@pytest.mark.parametrize("recording", RECORDED, ids=[recording.name for recording in RECORDED])
def test_recordings_tell_the_same_as_when_they_pass_through(recording: Recording) -> None:
    """Usage, model, end and errors: by whichever way."""
    _, parser = read(recording.stream)
    told = parser.told
    assert (told.usage, told.model, told.finish_reason) == (recording.usage, recording.model, recording.finish_reason)
    assert bool(parser.failed) == (recording.error_event is not None)


def test_final_input_usage_counts_once() -> None:
    """What message_delta says of the input replaces what message_start said; it is not added."""
    last = ends("end_turn")
    last[0]["usage"] = {"input_tokens": 6, "cache_read_input_tokens": 7, "output_tokens": 9}
    _, parser = read(sse(BEGIN, *last))
    assert parser.told.usage is not None
    assert parser.told.usage.input == 13


def test_an_error_ends_it() -> None:
    """Its data is kept, and nothing is read after it."""
    failed = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    events, parser = read(sse(BEGIN, failed, start(0, type="text", text="x")))
    assert len(events) == 1
    assert json.loads(parser.failed) == failed


def test_a_stream_without_its_last_words() -> None:
    """The end was told; no empty line came after it."""
    stream = FULL[: FULL.rindex(b"event: message_stop")]
    assert read(stream.rstrip(b"\n"))[0] == EVENTS


def test_garbage_between_events_is_skipped() -> None:
    """Also JSON of odd types, half a surrogate pair, and deltas of blocks that were never begun."""
    text = delta(0, "text_delta", text="TEXT")
    odd = json.dumps(text).replace("TEXT", "a\\ud83d").encode()
    wrong = delta(0, "text_delta", text=["x"])
    stream = b"data: {broken\n\ndata: [1]\n\ndata: 7\n\n" + sse(BEGIN, wrong, delta(9, "input_json_delta", partial_json="x"))
    events, parser = read(stream + b"data: " + odd + b"\n\n" + b"data: " + b"[" * 10_000 + b"\n\n" + sse(*ends("end_turn")))
    assert TextDelta("a?") in events
    assert (parser.done, parser.failed) == (True, b"")


def test_a_giant_event() -> None:
    """Eight megabytes."""
    events, _ = read(sse(BEGIN, delta(0, "text_delta", text="x" * 8_000_000)), 100, 5_000_000)
    assert events[1] == TextDelta("x" * 8_000_000)


def test_the_tool_that_brings_json_is_text() -> None:
    """Also when it comes whole with its block's beginning."""
    stream = sse(BEGIN, start(0, type="tool_use", id="t", name=JSON_TOOL, input={}))
    pieces = sse(delta(0, "input_json_delta", partial_json='{"a":1}'), stop(0), *ends("tool_use"))
    events, _ = read(stream + pieces)
    assert events[1:3] == [TextDelta('{"a":1}'), Finished("stop")]
    whole = sse(BEGIN, start(0, type="tool_use", id="t", name=JSON_TOOL, input={"a": 1}), stop(0), *ends("tool_use"))
    assert read(whole)[0][1:3] == [TextDelta('{"a":1}'), Finished("stop")]


def test_redacted_thinking_citations_and_refusals() -> None:
    """Each in its word."""
    cited = {"type": "web_search_result_location", "url": "https://x.example", "title": "T", "cited_text": "w"}
    events, _ = read(
        sse(
            start(0, type="redacted_thinking", data="aGlk"),
            stop(0),
            start(1, type="text", text="a"),
            delta(1, "citations_delta", citation=cited),
            stop(1),
            *ends("refusal", stop_details={"type": "refusal", "explanation": "cyber"}),
        )
    )
    assert events[:5] == [
        ThinkingDelta(hidden="aGlk", origin=DIALECT),
        TextDelta("a"),
        CitationDelta(Citation("https://x.example", "T", "w")),
        RefusalDelta("cyber"),
        Finished("content_filter"),
    ]


def test_a_servers_tool_at_work() -> None:
    """Whole, with what came of its input in pieces."""
    events, _ = read(
        sse(
            start(0, type="server_tool_use", id="s", name="web_search", input={}),
            delta(0, "input_json_delta", partial_json='{"query":"x"}'),
            stop(0),
            *ends("end_turn"),
        )
    )
    value = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}}
    assert events[0] == ForeignPart(Foreign(DIALECT, "server_tool_use", value))


def test_a_host_that_says_it_just_stopped_after_a_call() -> None:
    """It called."""
    events, _ = read(sse(BEGIN, start(0, type="tool_use", id="t", name="f", input={"a": 1}), *ends("end_turn")))
    assert events[1:4] == [CallStarted(0, "t", "f"), CallDelta(0, '{"a":1}'), Finished("tool_calls")]
