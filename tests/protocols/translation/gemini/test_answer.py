"""Gemini's whole answers, read and written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.genai import types

from aigw.canonical import (
    Answer,
    Choice,
    Citation,
    Foreign,
    Media,
    Refusal,
    Request,
    Spent,
    Text,
    Thinking,
    ToolCall,
    unseal,
)
from aigw.protocols.translation.contract import Reply
from aigw.protocols.translation.gemini.answer import finish_of, read, write
from aigw.protocols.translation.gemini.request import HIDDEN

REPLY = Reply(request=Request(dialect="gemini", model="asked", messages=[]), id="req_1", model="", now=0.0)


def answer(*parts: dict[str, Any], finish: str = "STOP", **more: Any) -> bytes:
    candidate = {"content": {"parts": list(parts), "role": "model"}, "finishReason": finish, "index": 0, **more}
    usage = {"promptTokenCount": 9, "candidatesTokenCount": 5, "thoughtsTokenCount": 2, "totalTokenCount": 16}
    body = {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-3.8-flash", "responseId": "r"}
    return json.dumps(body).encode()


def test_an_answer_is_read() -> None:
    """Thoughts, text, a signed call, an image, code that ran; calls are why it stopped."""
    call = {"functionCall": {"name": "f", "args": {"a": 1}, "id": "c"}, "thoughtSignature": "c2ln"}
    image = {"inlineData": {"mimeType": "image/png", "data": "aGk="}}
    code = {"executableCode": {"code": "1", "language": "PYTHON"}}
    found, told = read(answer({"text": "hm", "thought": True}, {"text": "Hi"}, call, image, code))
    (choice,) = found.choices
    assert choice.parts == [
        Thinking("hm", origin="gemini"),
        Text("Hi"),
        ToolCall("c", "f", '{"a":1}', signature="c2ln", origin="gemini"),
        Media("image", "aGk=", type="image/png"),
        Foreign("gemini", "executableCode", code),
    ]
    assert choice.finish == "tool_calls"
    assert (found.id, found.model, found.spent) == ("r", "gemini-3.8-flash", Spent(9, output=7, reasoning=2))
    assert told.usage is not None
    assert (told.usage.output, told.model, told.finish_reason) == (7, "gemini-3.8-flash", "tool_calls")


@pytest.mark.parametrize(
    ("reason", "called", "finish"),
    [
        ("STOP", False, "stop"),
        ("STOP", True, "tool_calls"),
        ("MAX_TOKENS", True, "length"),
        ("SAFETY", False, "content_filter"),
        ("RECITATION", False, "content_filter"),
        ("MALFORMED_FUNCTION_CALL", False, "stop"),
        ("", True, "tool_calls"),
    ],
)
def test_why_it_stopped(reason: str, called: bool, finish: str) -> None:
    """In our words."""
    assert finish_of(reason, called=called) == finish


def test_a_blocked_prompt_and_an_empty_answer() -> None:
    """Both are answers, though there is no text in them."""
    found, told = read(b'{"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"promptTokenCount":3}}')
    assert (found.choices, told.finish_reason) == ([Choice([], "content_filter")], "SAFETY")
    found, _ = read(b'{"candidates":[{"content":{"role":"model"},"finishReason":"STOP"}]}')
    assert found.choices == [Choice([])]


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"error":{"code":400}}', b'{"candidates":[]}', b'{"candidates":7}'])
def test_no_answer(body: bytes) -> None:
    """What has neither candidates nor a reason for none."""
    with pytest.raises(ValueError, match=r"JSON|candidates"):
        read(body)


def test_citations_count_characters_here_and_bytes_there() -> None:
    """And are the same when they have been both ways."""
    metadata = {
        "groundingChunks": [{"web": {"uri": "https://a", "title": "A"}}],
        "groundingSupports": [{"segment": {"startIndex": 3, "endIndex": 8, "text": "Köln"}, "groundingChunkIndices": [0, 9]}],
    }
    found, _ = read(answer({"text": "In Köln."}, groundingMetadata=metadata))
    (text,) = found.choices[0].parts
    assert isinstance(text, Text)
    assert text.citations == [Citation("https://a", "A", "Köln", 3, 7)]
    again = json.loads(write(found, REPLY))["candidates"][0]["groundingMetadata"]
    assert again["groundingSupports"][0]["segment"] == metadata["groundingSupports"][0]["segment"]  # type: ignore[index]


def test_log_probabilities_both_ways() -> None:
    """OpenAI's object here."""
    result = {
        "chosenCandidates": [{"token": "Hi", "logProbability": -0.5}],
        "topCandidates": [{"candidates": [{"token": "Hi", "logProbability": -0.5}]}],
    }
    found, _ = read(answer({"text": "Hi"}, logprobsResult=result))
    content = found.choices[0].logprobs["content"]
    assert (content[0]["token"], content[0]["logprob"], content[0]["bytes"]) == ("Hi", -0.5, [72, 105])
    assert json.loads(write(found, REPLY))["candidates"][0]["logprobsResult"] == result


def test_an_answer_is_written_and_the_official_types_read_it() -> None:
    """Foreign signatures and encrypted thoughts sealed, a refusal as text, usage as Gemini counts."""
    parts = [
        Thinking("hm", "sig", origin="anthropic_messages"),
        Thinking(hidden="opaque", origin="anthropic_messages"),
        Text("Hi"),
        Refusal("No."),
        ToolCall("c", "f", '{"a":1}', signature="b3du", origin="gemini"),
        ToolCall("d", "g", "free", custom=True),
    ]
    said = json.loads(write(Answer(choices=[Choice(parts, "tool_calls")], spent=Spent(10, 4, output=8, reasoning=3)), REPLY))  # type: ignore[arg-type]
    read_by_sdk = types.GenerateContentResponse.model_validate(said)
    assert read_by_sdk.function_calls is not None
    assert [call.name for call in read_by_sdk.function_calls] == ["f", "g"]
    thought, hidden, text, refusal, call, free = said["candidates"][0]["content"]["parts"]
    assert unseal(thought["thoughtSignature"], "gemini") == ("anthropic_messages", "sig")
    assert unseal(hidden["thoughtSignature"], "gemini") == ("anthropic_messages" + HIDDEN, "opaque")
    assert (text, refusal) == ({"text": "Hi"}, {"text": "No."})
    assert call == {"functionCall": {"name": "f", "args": {"a": 1}, "id": "c"}, "thoughtSignature": "b3du"}
    assert free["functionCall"]["args"] == {"input": "free"}
    assert said["candidates"][0]["finishReason"] == "STOP"
    assert said["usageMetadata"]["totalTokenCount"] == 18
    assert (said["modelVersion"], said["responseId"]) == ("asked", "req_1")
