"""Responses streams, both ways, cut anywhere."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from aigw.canonical import (
    CallDelta,
    CallStarted,
    Citation,
    CitationDelta,
    Event,
    Finished,
    RefusalDelta,
    Request,
    Spent,
    SpentSoFar,
    Started,
    TextDelta,
    ThinkingDelta,
    Tool,
    ToolCall,
)
from aigw.protocols.translation.assembly import Assembly
from aigw.protocols.translation.contract import Reply
from aigw.protocols.translation.openai_responses import OpenAIResponses

SHAPE = OpenAIResponses()
VALID = TypeAdapter(ResponseStreamEvent)

RICH: list[Event] = [
    Started("chatcmpl-1", "big"),
    ThinkingDelta("let "),
    ThinkingDelta("me", signature="sig", origin="anthropic_messages"),
    TextDelta("Hé"),
    TextDelta('l"lo'),
    CitationDelta(Citation("http://x", "t")),
    CallStarted(0, "c1", "f", signature="g", origin="gemini"),
    CallDelta(0, '{"a"'),
    CallStarted(1, "c2", "patch"),
    CallDelta(0, ":1}"),
    CallDelta(1, '{"input":"*** x"}'),
    CallStarted(2, "c3", "f"),
    Finished("tool_calls"),
    SpentSoFar(Spent(10, 2, 0, 0, 5, 1)),
]


def written(events: list[Event]) -> bytes:
    tools = [Tool("f", schema={"type": "object"}), Tool("patch", custom=True)]
    asked = Request(dialect="openai_responses", model="m", messages=[], tools=tools)
    renderer = SHAPE.renderer(Reply(request=asked, id="req_1", model="", now=1.0))
    return b"".join(renderer.render([event]) for event in events) + renderer.end()


def shown(stream: bytes) -> list[dict[str, Any]]:
    """Its events, each as the SDK's type wants it, numbered without a gap, named twice alike."""
    found = []
    for number, block in enumerate(stream.decode().removesuffix("\n\n").split("\n\n")):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert event["sequence_number"] == number
        VALID.validate_python(event)
        found.append(event)
    return found


def read(stream: bytes, *cuts: int) -> tuple[list[Event], Any]:
    parser = SHAPE.parser()
    events: list[Event] = []
    for start, end in zip((0, *cuts), (*cuts, len(stream)), strict=True):
        if stream[start:end]:
            events += parser.feed(stream[start:end])
    return events + parser.end(), parser


def test_a_stream_has_every_event_in_order() -> None:
    """Each item is announced, grows and comes whole; the last event holds the whole answer again."""
    events = shown(written(RICH))
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds[:2] == ["created", "in_progress"]
    assert kinds[2:9] == [
        "output_item.added", "reasoning_summary_part.added", "reasoning_summary_text.delta", "reasoning_summary_text.delta",
        "reasoning_summary_text.done", "reasoning_summary_part.done", "output_item.done",
    ]  # fmt: skip
    assert kinds[9:17] == [
        "output_item.added", "content_part.added", "output_text.delta", "output_text.delta", "output_text.annotation.added",
        "output_text.done", "content_part.done", "output_item.done",
    ]  # fmt: skip
    whole = events[-1]["response"]
    Response.model_validate(whole)
    done = [event for event in events if event["type"] == "response.output_item.done"]
    assert [event["item"] for event in sorted(done, key=lambda event: event["output_index"])] == whole["output"]
    calls = [item for item in whole["output"] if item["type"].endswith("_call")]
    assert [(item["type"], item.get("arguments", item.get("input"))) for item in calls] == [
        ("function_call", '{"a":1}'), ("custom_tool_call", "*** x"), ("function_call", "{}"),
    ]  # fmt: skip
    assert whole["usage"]["total_tokens"] == 15


def test_a_refusal_and_an_incomplete_answer() -> None:
    events = shown(written([RefusalDelta("I "), RefusalDelta("will not."), Finished("content_filter")]))
    assert "response.refusal.done" in [event["type"] for event in events]
    assert events[-1]["type"] == "response.completed"
    events = shown(written([TextDelta("long"), Finished("length")]))
    assert events[-1]["type"] == "response.incomplete"
    assert events[-1]["response"]["incomplete_details"] == {"reason": "max_output_tokens"}


def test_what_was_written_is_read_again() -> None:
    """The calls, the text and the tokens; a finish of tool_calls although the status is completed."""
    events, parser = read(written(RICH))
    assembly = Assembly()
    assembly.add(events)
    answer = assembly.done()
    choice = answer.choices[0]
    assert choice.finish == "tool_calls"
    assert [part for part in choice.parts if isinstance(part, ToolCall)] == [
        ToolCall("c1", "f", '{"a":1}'), ToolCall("c2", "patch", "*** x", custom=True), ToolCall("c3", "f"),
    ]  # fmt: skip
    assert answer.spent == Spent(10, 2, 0, 0, 5, 1)
    assert parser.done
    assert (parser.told.model, parser.told.finish_reason, parser.told.usage.output) == ("big", "completed", 5)


STREAM = written(RICH)


@given(st.lists(st.integers(0, len(STREAM)), max_size=30), st.sampled_from([b"\n", b"\r\n", b"\r"]))
@settings(max_examples=80, deadline=None)
def test_a_stream_cut_anywhere_says_the_same(cuts: list[int], end: bytes) -> None:
    stream = (b"\xef\xbb\xbf: a comment\n\n" + STREAM.replace(b"data: ", b"data:")).replace(b"\n", end)
    assert read(stream, *sorted(cuts))[0] == read(STREAM)[0]


def event(kind: str, **fields: Any) -> bytes:
    return b"data: " + json.dumps({"type": kind, **fields}).encode() + b"\n\n"


def test_hosts_that_send_whole_items_only_are_read() -> None:
    """No deltas, no names: the items at their end are enough."""
    stream = event("response.created", response={"id": "resp_1", "model": "m"})
    items = [
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": "gA"},
        {"type": "message", "content": [{"type": "output_text", "text": "hi"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
    ]
    for index, item in enumerate(items):
        stream += event("response.output_item.done", output_index=index, item=item)
    stream += event("response.completed", response={"status": "completed", "usage": {"input_tokens": 1, "output_tokens": 2}})
    events, parser = read(stream)
    assert [type(one) for one in events] == [
        Started, ThinkingDelta, TextDelta, CallStarted, CallDelta, Finished, SpentSoFar,
    ]  # fmt: skip
    assert parser.begun


@pytest.mark.parametrize(
    "last",
    [
        event("response.failed", response={"status": "failed", "error": {"code": "server_error", "message": "no"}}),
        event("error", code="rate_limit_exceeded", message="slow down", param=None),
        b'data: {"error":{"message":"no"}}\n\n',
    ],
)
def test_errors_end_a_stream(last: bytes) -> None:
    """Nothing after them is read."""
    events, parser = read(
        event("response.created", response={"id": "r"}) + last + event("response.output_text.delta", delta="x")
    )
    assert parser.failed
    assert not parser.done
    assert [type(one) for one in events] == [Started]


def test_usage_of_an_incomplete_answer_is_kept() -> None:
    """It is billed like any other."""
    usage = {"input_tokens": 11, "output_tokens": 7, "output_tokens_details": {"reasoning_tokens": 2}}
    why = {"reason": "max_output_tokens"}
    stream = event("response.incomplete", response={"status": "incomplete", "incomplete_details": why, "usage": usage})
    events, parser = read(event("response.output_text.delta", delta="x") + stream)
    assert (parser.told.usage.input, parser.told.usage.output, parser.told.usage.reasoning) == (11, 7, 2)
    assert Finished("length") in events


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_garbage_is_skipped(junk: bytes) -> None:
    """Whatever stands between two events."""
    stream = (
        b"data: " + junk.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n\n" + event("response.output_text.delta", delta="x")
    )
    parser = SHAPE.parser()
    events = parser.feed(stream)
    assert TextDelta("x") in events or parser.failed
