"""Whole Responses answers, both ways."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.responses import Response

from aigw.canonical import Answer, Choice, Citation, Media, Refusal, Request, Spent, Text, Thinking, Tool, ToolCall
from aigw.protocols.translation.contract import Reply
from aigw.protocols.translation.openai_responses import OpenAIResponses

SHAPE = OpenAIResponses()


def reply(**fields: Any) -> Reply:
    asked = Request(dialect="openai_responses", model="asked", messages=[], **fields)
    return Reply(request=asked, id="req_1", model="", now=1_700_000_000.5)


def written(answer: Answer, to: Reply | None = None) -> tuple[dict[str, Any], Response]:
    body = json.loads(SHAPE.render_answer(answer, to or reply()))
    return body, Response.model_validate(body)


def test_an_answer_is_what_the_sdk_expects() -> None:
    """Thought, cited text, call and image, and the tokens they took."""
    parts = [
        Thinking("hm", "sig", origin="anthropic_messages"),
        Text("sky", citations=[Citation("http://x", "X")]),
        ToolCall("c1", "f", '{"a":1}', signature="g", origin="gemini"),
        Media("image", data="aGk=", type="image/webp"),
    ]
    tools = [Tool("f", schema={"type": "object"})]
    answer = Answer(id="chatcmpl-1", model="big", choices=[Choice(parts, "tool_calls")], spent=Spent(10, 4, 1, 0, 7, 3))
    body, sdk = written(answer, reply(tools=tools))
    assert [item["type"] for item in body["output"]] == [
        "reasoning", "message", "reasoning", "function_call", "image_generation_call",
    ]  # fmt: skip
    assert sdk.output_text == "sky"
    assert (sdk.status, sdk.model, sdk.created_at) == ("completed", "big", 1_700_000_000)
    assert sdk.id.startswith("resp_")
    assert sdk.usage is not None
    assert (sdk.usage.input_tokens, sdk.usage.output_tokens, sdk.usage.total_tokens) == (10, 7, 17)
    assert (sdk.usage.input_tokens_details.cached_tokens, sdk.usage.output_tokens_details.reasoning_tokens) == (4, 3)
    assert len({item["id"] for item in body["output"]}) == 5
    again, told = SHAPE.parse_answer(json.dumps(body).encode())
    assert again.choices[0].finish == "tool_calls"
    assert [part for part in again.choices[0].parts if isinstance(part, ToolCall)] == [ToolCall("c1", "f", '{"a":1}')]
    assert told.usage is not None
    assert (told.usage.input, told.usage.cached, told.usage.output, told.usage.reasoning) == (10, 4, 7, 3)


@pytest.mark.parametrize(
    ("parts", "finish", "status", "why"),
    [
        ([Text("a")], "stop", "completed", None),
        ([Text("a")], "length", "incomplete", "max_output_tokens"),
        ([Text("a")], "content_filter", "incomplete", "content_filter"),
        ([Refusal("no")], "content_filter", "completed", None),
    ],
)
def test_how_an_answer_ended_goes_both_ways(parts: list[Any], finish: Any, status: str, why: str | None) -> None:
    body, sdk = written(Answer(choices=[Choice(parts, finish)]))
    assert sdk.status == status
    assert (sdk.incomplete_details.reason if sdk.incomplete_details else None) == why
    assert SHAPE.parse_answer(json.dumps(body).encode())[0].choices[0].finish == finish


def test_a_custom_tool_that_went_as_a_function_comes_back_as_one() -> None:
    """Its free text stood in an object of one member, where only functions are known; a namespace's tool gets its name back."""
    tools = [
        Tool("patch", custom=True),
        Tool("mail__send", dialect="openai_responses", value={"namespace": "mail", "name": "send"}),
    ]
    calls = [
        ToolCall("1", "patch", '{"input":"*** x"}'),
        ToolCall("2", "patch", "raw", custom=True),
        ToolCall("3", "mail__send"),
    ]
    body, _ = written(Answer(choices=[Choice(list(calls), "tool_calls")]), reply(tools=tools))
    assert [(item["type"], item["name"], item.get("input"), item.get("namespace")) for item in body["output"]] == [
        ("custom_tool_call", "patch", "*** x", None),
        ("custom_tool_call", "patch", "raw", None),
        ("function_call", "send", None, "mail"),
    ]


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"output":{}}', b"<html>", b"\xff"])
def test_what_is_no_answer_is_none(body: bytes) -> None:
    with pytest.raises(ValueError):
        SHAPE.parse_answer(body)


def test_odd_logprobs_are_left_out() -> None:
    """A provider's list may hold anything: what cannot be read is left out, and the answer is whole."""
    good = {"token": "a", "logprob": -0.5, "bytes": None, "top_logprobs": 3}
    body, _ = written(Answer(choices=[Choice([Text("a")], logprobs={"content": [1, None, good, "x"]})]))
    assert body["output"][0]["content"][0]["logprobs"] == [good | {"bytes": [], "top_logprobs": []}]
