"""Whole chat answers: read from any host of the shape, and written such that OpenAI's own types take them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletion

from aigw.canonical import (
    Answer,
    Choice,
    Citation,
    Media,
    Refusal,
    Request,
    Spent,
    Text,
    Thinking,
    Tool,
    ToolCall,
    unseal,
)
from aigw.protocols.translation.contract import Reply
from aigw.protocols.translation.openai_chat.answer import read, write
from aigw.protocols.translation.openai_chat.request import LEGACY


def answered(message: dict[str, Any], finish: str = "stop", **fields: Any) -> Answer:
    body = {"id": "c", "model": "m", "created": 9, "choices": [{"index": 0, "message": message, "finish_reason": finish}]}
    return read(json.dumps(body | fields).encode())[0]


def reply(*tools: Tool) -> Reply:
    return Reply(
        request=Request(dialect="openai_chat", model="asked", messages=[], tools=list(tools)), id="req_7", model="", now=5.0
    )


def written(answer: Answer, to: Reply | None = None) -> dict[str, Any]:
    body = write(answer, to or reply())
    ChatCompletion.model_validate_json(body)
    found: dict[str, Any] = json.loads(body)
    return found


FULL = Answer(
    id="c",
    model="m",
    created=9,
    service_tier="flex",
    spent=Spent(input=9, cached=4, output=3, reasoning=1),
    choices=[
        Choice(
            [
                Thinking("hm", origin="openai_chat"),
                Text("a", citations=[Citation("u", "t", "", 0, 1)]),
                ToolCall("x", "f", "{}"),
            ],
            "tool_calls",
        ),
        Choice([Text("b")], "length", 1, None, {"content": [], "refusal": None}),
        Choice([Refusal("no")], "content_filter", 2),
        Choice([Text("c"), Media("image", "AAAA", type="image/png"), ToolCall("y", "g", "free", True)], "tool_calls", 3),
    ],
)


def test_what_is_written_is_read_again() -> None:
    assert read(json.dumps(written(FULL)).encode())[0] == FULL


def test_facts_for_the_record() -> None:
    told = read(json.dumps(written(FULL)).encode())[1]
    assert told.usage is not None
    assert (told.model, told.finish_reason, told.usage.input, told.usage.cached, told.usage.reasoning) == (
        "m",
        "tool_calls",
        9,
        4,
        1,
    )
    assert told.usage.service_tier == "flex", "mozilla-ai/otari 561: it decides the price"


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        ({"content": "a", "reasoning": "hm"}, [Thinking("hm", origin="openai_chat"), Text("a")]),
        (
            {"content": None, "audio": {"id": "au", "data": "AA", "transcript": "hi"}},
            [Text("hi"), Media("audio", "AA", name="au")],
        ),
        (
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "a"}]},
            [Thinking("hm", origin="openai_chat"), Text("a")],
        ),
        ({"content": "", "function_call": {"name": "f", "arguments": ""}}, [ToolCall("", "f", "{}")]),
        ({"content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]}, [ToolCall("", "f", '{"x":1}')]),
        ({"content": None, "tool_calls": None, "annotations": []}, []),
    ],
)
def test_other_hosts_spellings(message: dict[str, Any], parts: list[Any]) -> None:
    assert answered(message).choices[0].parts == parts


def test_a_call_is_a_call_although_the_host_says_stop() -> None:
    calls = [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    assert answered({"content": None, "tool_calls": calls}).choices[0].finish == "tool_calls"


def test_text_of_the_older_completions() -> None:
    answer, _ = read(b'{"choices":[{"text":"a","index":0,"finish_reason":"length"}]}')
    assert answer.choices == [Choice([Text("a")], "length")]


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"choices":null}', b'{"choices":[{"finish_reason":"network_error"}]}']
)
def test_what_is_no_answer(body: bytes) -> None:
    with pytest.raises(ValueError):
        read(body)


def test_half_a_surrogate_pair_and_infinity_are_still_an_answer() -> None:
    answer, _ = read(b'{"choices":[{"message":{"content":"a\\ud83d"},"logprobs":{"content":[{"logprob":-Infinity}]}}]}')
    assert answer.choices[0].parts == [Text("a?")]


def test_signatures_are_sealed_and_kept() -> None:
    """maximhq/bifrost 6342: thoughts that change on their way wedge the next turn."""
    parts = [Thinking("hm", "c2ln", origin="anthropic_messages"), Thinking(hidden="aGlk", origin="anthropic_messages")]
    call = ToolCall("x", "f", signature="Z3M=", origin="gemini")
    message = written(Answer(choices=[Choice([*parts, call])]))["choices"][0]["message"]
    first, second = message["thinking_blocks"]
    assert first["thinking"] == message["reasoning_content"] == "hm"
    assert unseal(first["signature"], "openai_chat") == ("anthropic_messages", "c2ln")
    assert unseal(second["data"], "openai_chat") == ("anthropic_messages", "aGlk")
    signature = message["tool_calls"][0]["extra_content"]["google"]["thought_signature"]
    assert unseal(signature, "openai_chat") == ("gemini", "Z3M=")


def test_what_has_no_id_is_named_by_the_request() -> None:
    body = written(Answer(choices=[Choice([ToolCall("", "f"), ToolCall("", "g")], "tool_calls")]))
    assert (body["id"], body["model"], body["created"]) == ("chatcmpl-7", "asked", 5)
    assert [call["id"] for call in body["choices"][0]["message"]["tool_calls"]] == ["call_7_0", "call_7_1"]


def test_who_offered_functions_gets_a_function_call() -> None:
    body = written(Answer(choices=[Choice([ToolCall("x", "f", "{}")], "tool_calls")]), reply(Tool("f", dialect=LEGACY)))
    assert body["choices"][0]["message"]["function_call"] == {"name": "f", "arguments": "{}"}
    assert body["choices"][0]["finish_reason"] == "function_call"
