"""Gemini's streams, from providers and to callers: cut anywhere, out of order, broken off."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.genai import types
from hypothesis import given, strategies as st

from aigw.canonical import (
    CallDelta,
    CallStarted,
    Citation,
    CitationDelta,
    Event,
    Finished,
    MediaPart,
    Request,
    Spent,
    SpentSoFar,
    Started,
    TextDelta,
    ThinkingDelta,
    unseal,
)
from aigw.protocols import framing
from aigw.protocols.translation import translator
from aigw.protocols.translation.contract import Reply
from aigw.protocols.translation.gemini.stream import GeminiParser, GeminiRenderer
from tests.recordings import RECORDINGS

STREAMS = [recording for recording in RECORDINGS if recording.dialect == "gemini"]


def parsed(*blocks: bytes) -> tuple[list[Event], GeminiParser]:
    parser = GeminiParser()
    events = [event for block in blocks for event in parser.feed(block)]
    return events + parser.end(), parser


def sse(*answers: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(one).encode() + b"\r\n\r\n" for one in answers)


def parts(*said: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"role": "model", "parts": list(said)}, "index": 0, **more}]}


@pytest.mark.parametrize("recording", STREAMS, ids=lambda recording: recording.name)
@given(st.data())
def test_cut_anywhere(recording, data) -> None:  # type: ignore[no-untyped-def]
    """The same events as whole, and the record's facts right."""
    stream = recording.stream
    whole, one = parsed(stream)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    events, parser = parsed(*(stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)))
    assert (events, parser.told, parser.failed) == (whole, one.told, one.failed)
    assert parser.told.usage == recording.usage
    assert (parser.told.model, parser.told.finish_reason) == (recording.model, recording.finish_reason)
    assert bool(parser.failed) == (recording.error_event is not None)


def test_a_call_and_its_reason_in_different_chunks_finish_with_tool_calls() -> None:
    """Gemini says STOP, and sometimes a chunk later."""
    events, _ = parsed(next(one.stream for one in STREAMS if one.name == "thoughts_and_call"))
    assert events == [
        Started("resp-1", "gemini-3.8-flash"),
        ThinkingDelta("**Thinking**"),
        CallStarted(0, "fc1", "weather", False, "c2lnbmF0dXJl", "gemini"),
        CallDelta(0, '{"city":"Zürich"}'),
        CallStarted(1, "fc2", "weather"),
        CallDelta(1, '{"city":"Köln"}'),
        Finished("tool_calls"),
        SpentSoFar(Spent(20, 12, 0, 0, 44, 30)),
    ]


def test_an_empty_stop_answer_is_an_answer() -> None:
    """It ends with stop, and without a word."""
    events, parser = parsed(next(one.stream for one in STREAMS if one.name == "empty_stop"))
    assert [type(event) for event in events] == [Started, Finished, SpentSoFar]
    assert not parser.begun


def test_a_blocked_prompt_is_a_content_filter() -> None:
    """There are no candidates then."""
    events, _ = parsed(next(one.stream for one in STREAMS if one.name == "blocked"))
    assert Finished("content_filter") in events


def test_a_stream_that_breaks_off_does_not_finish() -> None:
    """Without a reason nothing says that all was said."""
    events, parser = parsed(sse(parts({"text": "Ray"})))
    assert not any(isinstance(event, Finished) for event in events)
    assert not parser.done


def test_garbage_and_unknown_members_are_passed_over() -> None:
    """Comments, names, no space behind the colon, odd types, a mark at the beginning."""
    stream = (
        b'\xef\xbb\xbf: hi\n\nevent: x\ndata:{\n\ndata: [1]\n\ndata: {"candidates":7}\n\n'
        b'data:{"candidates":[{"content":{"parts":[{"text":"a","new":1}]},"finishReason":"STOP"}]}'
    )
    events, parser = parsed(stream)
    assert events == [Started(), TextDelta("a"), Finished("stop")]
    assert parser.told.finish_reason == "STOP"


def test_images_citations_and_several_candidates() -> None:
    """Each where it belongs."""
    image = {"inlineData": {"mimeType": "image/png", "data": "aGk="}}
    grounding = {"groundingChunks": [{"web": {"uri": "https://a", "title": "A"}}]}
    second = {"content": {"parts": [{"text": "two"}]}, "index": 1, "finishReason": "MAX_TOKENS"}
    events, _ = parsed(sse(parts(image), parts(finishReason="STOP", groundingMetadata=grounding), {"candidates": [second]}))
    assert isinstance(events[1], MediaPart)
    assert events[1].media.kind == "image"
    assert events[2:] == [
        CitationDelta(Citation("https://a", "A")),
        TextDelta("two", 1),
        Finished("stop", None, 0),
        Finished("length", None, 1),
    ]


# --- to callers ---

REPLY = Reply(request=Request(dialect="gemini", model="asked", messages=[]), id="req_1", model="", now=0.0)

EVENTS: list[Event] = [
    Started("id-1", "gpt-6"),
    ThinkingDelta("hm"),
    ThinkingDelta("", "sig", origin="anthropic_messages"),
    TextDelta("Ray"),
    CallStarted(0, "c1", "f"),
    CallStarted(1, "c2", "g"),
    CallDelta(1, '{"b":'),
    CallDelta(0, '{"a":1}'),
    CallDelta(1, "2}"),
    Finished("tool_calls"),
    SpentSoFar(Spent(10, 4, 0, 0, 8, 3)),
]


def rendered(renderer: GeminiRenderer, events: list[Event]) -> bytes:
    return b"".join(renderer.render([event]) for event in events) + renderer.end()


def answers(stream: bytes) -> list[dict[str, Any]]:
    return [json.loads(framing.data(event)) for event in framing.split(stream)]


def test_calls_go_out_whole_and_the_official_types_read_them() -> None:
    """Whatever order their pieces came in; thoughts keep their maker's signature; usage comes with the reason, last."""
    found = answers(rendered(GeminiRenderer(REPLY), EVENTS))
    for one in found:
        types.GenerateContentResponse.model_validate(one)
    said = [part for one in found for part in one["candidates"][0]["content"]["parts"]]
    assert said[0] == {"text": "hm", "thought": True}
    assert unseal(said[1]["thoughtSignature"], "gemini") == ("anthropic_messages", "sig")
    assert said[2:] == [
        {"text": "Ray"},
        {"functionCall": {"name": "f", "args": {"a": 1}, "id": "c1"}},
        {"functionCall": {"name": "g", "args": {"b": 2}, "id": "c2"}},
        {"text": ""},
    ]
    assert found[-1]["candidates"][0]["finishReason"] == "STOP"
    assert found[-1]["usageMetadata"] == {
        "promptTokenCount": 10,
        "candidatesTokenCount": 5,
        "totalTokenCount": 18,
        "cachedContentTokenCount": 4,
        "thoughtsTokenCount": 3,
    }
    assert {one["modelVersion"] for one in found} == {"gpt-6"}
    assert {one["responseId"] for one in found} == {"id-1"}


def test_without_alt_sse_it_is_one_array() -> None:
    """Of the same answers."""
    array = json.loads(rendered(GeminiRenderer(REPLY, array=True), EVENTS))
    assert array == answers(rendered(GeminiRenderer(REPLY), EVENTS))
    assert isinstance(json.loads(rendered(GeminiRenderer(REPLY, array=True), [])), list)


def test_what_is_rendered_is_read_again() -> None:
    """Round trip: the same text, calls, reason and usage."""
    events, parser = parsed(rendered(GeminiRenderer(REPLY), EVENTS))
    assert TextDelta("Ray") in events
    assert [event for event in events if isinstance(event, (CallStarted, CallDelta))] == [
        CallStarted(0, "c1", "f"),
        CallDelta(0, '{"a":1}'),
        CallStarted(1, "c2", "g"),
        CallDelta(1, '{"b":2}'),
    ]
    assert events[-2:] == [Finished("tool_calls"), SpentSoFar(Spent(10, 4, 0, 0, 8, 3))]
    assert parser.told.usage is not None


def test_a_call_that_was_cut_off_is_still_one() -> None:
    """Half of its arguments are shown as what they are."""
    found = answers(rendered(GeminiRenderer(REPLY), [CallStarted(0, "c", "f"), CallDelta(0, '{"a'), Finished("length")]))
    assert found[0]["candidates"][0]["content"]["parts"] == [
        {"functionCall": {"name": "f", "args": {"input": '{"a'}, "id": "c"}}
    ]
    assert found[-1]["candidates"][0]["finishReason"] == "MAX_TOKENS"


def test_the_shapes_are_on_the_list() -> None:
    """By both names."""
    assert translator("generate").content_type == b"text/event-stream"
    assert translator("generate_array").content_type == b"application/json"
