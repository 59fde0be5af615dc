"""Ollama's own chat: what it is sent, and its lines of JSON read however they are cut."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from aigw.canonical import (
    CallDelta,
    CallStarted,
    Event,
    Finished,
    Losses,
    Request,
    Spent,
    SpentSoFar,
    Started,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolCall,
)
from aigw.errors import CallerError
from aigw.protocols.translation import translator
from aigw.protocols.translation.contract import Toward
from aigw.protocols.translation.ollama import OllamaChat, OllamaParser

CHAT = translator("chat")


def written(body: dict[str, Any], model: str = "llama3.3", stream: bool = False) -> tuple[dict[str, Any], list[str]]:
    asked = CHAT.parse_request(json.dumps({"model": "m", **body}).encode(), "m", stream=stream)
    losses = Losses(CHAT.spelling)
    said = json.loads(OllamaChat().render_request(asked, Toward(model=model, stream=stream), losses))
    return said, list(losses)


def test_a_conversation_with_tools_and_an_image() -> None:
    """Options in their table, arguments as objects, results with the tool's name, images as bare bytes."""
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Ulm"}'}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}}
    tool = {"type": "function", "function": {"name": "weather", "description": "d", "parameters": {"type": "object"}}}
    said, losses = written(
        {
            "messages": [
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "Look:"}, image]},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c1", "content": "rain"},
            ],
            "tools": [tool],
            "max_completion_tokens": 50,
            "temperature": 0.5,
            "seed": 7,
            "stop": "END",
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
        },
        stream=True,
    )
    assert said == {
        "model": "llama3.3",
        "stream": True,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Look:", "images": ["iVBO"]},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Ulm"}}}],
            },
            {"role": "tool", "content": "rain", "tool_name": "weather"},
        ],
        "options": {"num_predict": 50, "temperature": 0.5, "seed": 7, "stop": ["END"]},
        "tools": [tool],
        "format": {"type": "object"},
    }
    assert losses == []


@pytest.mark.parametrize(
    ("more", "lost"),
    [
        ({"n": 2}, "n"),
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"user": "u"}, "user"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"something": 1}, "something"),
        ({"tools": [{"type": "web_search"}]}, "tools.web_search"),
    ],
)
def test_what_it_cannot_be_told(more: dict[str, Any], lost: str) -> None:
    """Each is named to the caller, in the caller's own words."""
    _, losses = written({"messages": [{"role": "user", "content": "hi"}], **more})
    assert losses == [lost]


def test_every_field_is_said_or_named() -> None:
    """No field of a request is passed over: each changes what is sent, or is a loss; but for what is advice."""
    values: dict[str, Any] = {
        "presence_penalty": 1.0,
        "frequency_penalty": 1.0,
        "logprobs": True,
        "verbosity": "low",
        "modalities": ["audio"],
        "audio": {"voice": "x"},
        "metadata": {"a": "b"},
        "top_p": 0.5,
        "top_k": 5,
    }
    for name, value in values.items():
        request = Request(dialect="openai_chat", model="m", messages=[])
        losses = Losses()
        plain = OllamaChat().render_request(request, Toward(model="m"), losses)
        setattr(request, name, value)
        assert OllamaChat().render_request(request, Toward(model="m"), losses) != plain or list(losses) == [name], name


@pytest.mark.parametrize(
    ("part", "remedy"),
    [
        ({"type": "image_url", "image_url": {"url": "https://x/y.png"}}, "base64"),
        ({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}, "audio"),
    ],
)
def test_what_it_does_not_take_is_refused(part: dict[str, Any], remedy: str) -> None:
    """Never fetched, never dropped."""
    with pytest.raises(CallerError, match=remedy) as caught:
        written({"messages": [{"role": "user", "content": [part]}]})
    assert caught.value.code == "caller_unsupported"


@pytest.mark.parametrize(
    ("effort", "model", "think"), [("none", "qwen3", False), ("high", "qwen3", True), ("xhigh", "gpt-oss:20b", "high")]
)
def test_thinking(effort: str, model: str, think: Any) -> None:
    said, _ = written({"messages": [{"role": "user", "content": "hi"}], "reasoning_effort": effort}, model)
    assert said["think"] == think


ANSWER = {
    "model": "llama3.3",
    "created_at": "2026-01-01T00:00:00Z",
    "message": {
        "role": "assistant",
        "content": "It rains.",
        "thinking": "Hm.",
        "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Ulm"}}}],
    },
    "done": True,
    "done_reason": "stop",
    "prompt_eval_count": 26,
    "eval_count": 8,
}


def test_a_whole_answer() -> None:
    answer, told = OllamaChat().parse_answer(json.dumps(ANSWER).encode())
    (choice,) = answer.choices
    assert choice.parts == [
        Thinking("Hm.", origin="ollama"),
        Text("It rains."),
        ToolCall("", "weather", '{"city":"Ulm"}'),
    ]
    assert choice.finish == told.finish_reason == "tool_calls"
    assert (told.usage.input, told.usage.output) == (26, 8)  # type: ignore[union-attr]
    assert answer.spent == Spent(26, output=8)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"error":"no such model"}', b'{"done":true}', b"<html>"])
def test_what_is_no_answer(body: bytes) -> None:
    with pytest.raises(ValueError):
        OllamaChat().parse_answer(body)


def line(**fields: Any) -> bytes:
    return json.dumps({"model": "llama3.3", "done": False} | fields, ensure_ascii=False).encode() + b"\n"


STREAM = b"".join(
    (
        line(message={"role": "assistant", "content": "", "thinking": "Hm"}),
        line(message={"role": "assistant", "content": "你"}),
        b"garbage\r\n\n",
        line(message={"role": "assistant", "content": "好"}),
        line(message={"role": "assistant", "content": "", "tool_calls": ANSWER["message"]["tool_calls"]}),  # type: ignore[index]
        line(message={"role": "assistant", "content": ""}, done=True, done_reason="stop", prompt_eval_count=3, eval_count=4),
        line(message={"role": "assistant", "content": "after the end"}),
    )
)
EVENTS: list[Event] = [
    Started(model="llama3.3"),
    ThinkingDelta("Hm", origin="ollama"),
    TextDelta("你"),
    TextDelta("好"),
    CallStarted(0, "", "weather"),
    CallDelta(0, '{"city":"Ulm"}'),
    Finished("tool_calls"),
    SpentSoFar(Spent(3, output=4)),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_cut_anywhere(cuts: list[int]) -> None:
    """Lines are found whatever the blocks are; what is no JSON is passed over; nothing counts after the end."""
    parser, events, at = OllamaParser(), [], 0
    for cut in [*sorted(cuts), len(STREAM)]:
        events += parser.feed(STREAM[at:cut])
        at = cut
    events += parser.end()
    assert events == EVENTS
    assert (parser.done, parser.begun, parser.failed) == (True, True, b"")
    assert parser.told.usage is not None
    assert parser.told.usage.output == 4


def test_an_error_in_the_stream() -> None:
    parser = OllamaParser()
    assert parser.feed(b'{"error":"out of memory"}') == []
    assert parser.end() == []
    assert msgspec.json.decode(parser.failed) == {"error": "out of memory"}
