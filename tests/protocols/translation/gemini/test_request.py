"""Gemini's requests, read: both spellings, ids for calls that have none, nothing dropped in silence."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from aigw.canonical import (
    Foreign,
    Format,
    Losses,
    Media,
    Message,
    Reasoning,
    Request,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    seal,
)
from aigw.errors import CallerError
from aigw.protocols.translation.contract import Toward
from aigw.protocols.translation.gemini import upstream
from aigw.protocols.translation.gemini.request import HIDDEN, read


def asked(contents: Any = "hi", **more: Any) -> Request:
    return read(json.dumps({"contents": contents, **more}).encode(), "m", stream=False)


def only(part: dict[str, Any]) -> Any:
    ((found,),) = [message.parts for message in asked([{"role": "user", "parts": [part]}]).messages]
    return found


def test_every_parameter() -> None:
    """In our words."""
    request = asked(
        [{"role": "user", "parts": [{"text": "hi"}]}],
        systemInstruction={"parts": [{"text": "be brief"}]},
        generationConfig={
            "maxOutputTokens": 10,
            "temperature": 0.5,
            "topP": 0.9,
            "topK": 40,
            "stopSequences": ["x"],
            "candidateCount": 2,
            "seed": 7,
            "presencePenalty": 0.1,
            "frequencyPenalty": 0.2,
            "responseLogprobs": True,
            "logprobs": 3,
            "responseModalities": ["TEXT", "IMAGE"],
            "thinkingConfig": {"includeThoughts": True, "thinkingBudget": 512},
            "mediaResolution": "MEDIA_RESOLUTION_LOW",
        },
        safetySettings=[{"category": "c", "threshold": "t"}],
        labels={"team": "x"},
        cachedContent=None,
    )
    assert request.messages == [Message("system", [Text("be brief")]), Message("user", [Text("hi")])]
    assert (request.max_tokens, request.temperature, request.top_p, request.top_k) == (10, 0.5, 0.9, 40)
    assert (request.stop, request.n, request.seed) == (["x"], 2, 7)
    assert (request.presence_penalty, request.frequency_penalty) == (0.1, 0.2)
    assert (request.logprobs, request.top_logprobs, request.modalities) == (True, 3, ["text", "image"])
    assert request.reasoning == Reasoning(on=True, budget=512, shown="auto")
    assert request.metadata == {"team": "x"}
    assert request.extras == {
        "safetySettings": [{"category": "c", "threshold": "t"}],
        "generationConfig.mediaResolution": "MEDIA_RESOLUTION_LOW",
    }


def test_protobufs_spelling_means_the_same() -> None:
    """Google's own examples for curl have it; a caller's own names below `args` and `properties` keep theirs."""
    request = asked(
        [{"role": "model", "parts": [{"function_call": {"name": "f", "args": {"my_arg": 1}}}]}],
        system_instruction={"parts": {"text": "s"}} if False else {"parts": [{"text": "s"}]},
        generation_config={"max_output_tokens": 5, "response_mime_type": "application/json"},
        tools=[
            {
                "function_declarations": [
                    {"name": "f", "parameters": {"type": "OBJECT", "properties": {"my_arg": {"type": "INTEGER"}}}}
                ]
            }
        ],
    )
    assert request.max_tokens == 5
    assert request.format == Format()
    assert request.tools[0].schema == {"type": "object", "properties": {"my_arg": {"type": "integer"}}}
    assert isinstance(request.messages[1].parts[0], ToolCall)
    assert request.messages[1].parts[0].arguments == '{"my_arg":1}'
    assert not request.extras


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ({"thinkingBudget": 0}, Reasoning(on=False, effort="none")),
        ({"thinkingBudget": -1}, Reasoning(on=True, adaptive=True)),
        ({"thinkingLevel": "HIGH"}, Reasoning(on=True, effort="high")),
        ({"includeThoughts": False}, Reasoning(shown="omitted")),
    ],
)
def test_thinking(said: dict[str, Any], meant: Reasoning) -> None:
    """By budget, by level, or only whether it is shown."""
    assert asked(generationConfig={"thinkingConfig": said}).reasoning == meant


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ({"mode": "AUTO"}, ToolChoice("auto")),
        ({"mode": "ANY"}, ToolChoice("required")),
        ({"mode": "NONE"}, ToolChoice("none")),
        ({"mode": "ANY", "allowedFunctionNames": ["f"]}, ToolChoice("tool", ("f",))),
        ({"mode": "ANY", "allowedFunctionNames": ["f", "g"]}, ToolChoice("allowed", ("f", "g"), must=True)),
        ({"mode": "VALIDATED"}, ToolChoice("auto")),
    ],
)
def test_which_tool(said: dict[str, Any], meant: ToolChoice) -> None:
    """Of the modes of functionCallingConfig."""
    assert asked(toolConfig={"functionCallingConfig": said}).tool_choice == meant


def test_googles_own_tools_are_told_apart() -> None:
    """They run at the provider."""
    tools = asked(tools=[{"googleSearch": {}, "functionDeclarations": [{"name": "f", "description": "d"}]}]).tools
    assert tools == [
        Tool("f", "d"),
        Tool("googleSearch", server=True, dialect="gemini", value={"googleSearch": {}}),
    ]


def test_media_of_every_kind() -> None:
    """Inline by media type, files by where they are; base64 in either alphabet."""
    assert only({"inlineData": {"mimeType": "image/png", "data": "a-_="}}) == Media("image", "a+/=", type="image/png")
    assert only({"inline_data": {"mime_type": "application/pdf", "data": "aa"}}) == Media(
        "document", "aa", type="application/pdf"
    )
    assert only({"inlineData": {"mimeType": "audio/wav", "data": "aa"}}).kind == "audio"
    assert only({"fileData": {"fileUri": "https://x/v.mp4", "mimeType": "video/mp4"}}).url == "https://x/v.mp4"
    assert only({"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/a"}}).file.endswith("files/a")


def test_calls_without_ids_get_the_same_ones_in_every_turn() -> None:
    """Models before Gemini 3 have none: results find their calls by name and order, parallel ones too."""
    turn = [
        {"role": "user", "parts": [{"text": "weather?"}]},
        {"role": "model", "parts": [{"functionCall": {"name": "w", "args": {"c": n}}} for n in (1, 2)]},
        {"role": "user", "parts": [{"functionResponse": {"name": "w", "response": {"result": str(n)}}} for n in (1, 2)]},
    ]
    first = asked(turn)
    later = asked([*turn, {"role": "model", "parts": [{"text": "fine"}]}])
    calls = [part for part in first.messages[1].parts if isinstance(part, ToolCall)]
    results = [part for part in first.messages[2].parts if isinstance(part, ToolResult)]
    assert [call.id for call in calls] == [result.id for result in results]
    assert len({call.id for call in calls}) == 2
    assert [result.parts for result in results] == [[Text("1")], [Text("2")]]
    assert first.messages == later.messages[:3]


def test_a_tools_answer() -> None:
    """An object is JSON; one word for it is the word; an error is one."""

    def result(response: Any) -> ToolResult:
        found = only({"functionResponse": {"name": "f", "id": "c", "response": response}})
        assert isinstance(found, ToolResult)
        return found

    assert result({"a": 1}).parts == [Text('{"a":1}')]
    assert result({"output": "x"}).parts == [Text("x")]
    assert (result({"error": "no"}).parts, result({"error": "no"}).is_error) == ([Text("no")], True)


def test_thoughts_come_back_with_their_makers_signature() -> None:
    """Pieces of a stream are one thought again; sealed ones name their maker; encrypted ones are whole. The SDK's alphabet of
    base64 is another one."""
    foreign = seal("s>>??~~", "anthropic_messages", "gemini").replace("+", "-").replace("/", "_")
    hidden = seal("opaque", "anthropic_messages" + HIDDEN, "gemini")
    said = [
        {"text": "h", "thought": True},
        {"text": "m", "thought": True},
        {"text": "", "thought": True, "thoughtSignature": foreign},
        {"text": "", "thought": True, "thoughtSignature": hidden},
        {"functionCall": {"name": "f"}, "thoughtSignature": base64.b64encode(b"own").decode()},
    ]
    thought, redacted, call = asked([{"role": "model", "parts": said}]).messages[0].parts
    assert thought == Thinking("hm", "s>>??~~", origin="anthropic_messages")
    assert redacted == Thinking(hidden="opaque", origin="anthropic_messages")
    assert isinstance(call, ToolCall)
    assert (call.origin, call.signature, call.arguments) == ("gemini", "b3du", "{}")


def test_code_that_ran_at_google_is_foreign() -> None:
    """Only its own dialect has a word for it."""
    code = {"executableCode": {"language": "PYTHON", "code": "1"}}
    assert only(code) == Foreign("gemini", "executableCode", code)


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"contents": 7}, "caller_invalid_request", "contents"),
        ({"contents": [{"role": "robot", "parts": []}]}, "caller_unsupported", "contents[0].role"),
        ({"contents": [{"parts": [{"hologram": {}}]}]}, "caller_unsupported", "contents[0].parts[0].hologram"),
        ({"contents": [{"parts": [{"text": "a", "inlineData": {}}]}]}, "caller_unsupported", "contents[0].parts[0].inlineData"),
        ({"contents": [{"parts": [{"functionCall": {}}]}]}, "caller_invalid_request", "contents[0].parts[0].functionCall.name"),
        ({"contents": [], "generationConfig": {"topK": "x"}}, "caller_invalid_request", "generationConfig.topK"),
    ],
)
def test_what_is_refused(body: dict[str, Any], code: str, param: str) -> None:
    """With its path. An unknown part is refused, never dropped."""
    with pytest.raises(CallerError) as caught:
        read(json.dumps(body).encode(), "m", stream=False)
    assert (caught.value.code, caught.value.param) == (code, param)


def test_nesting_without_bottom() -> None:
    """Is no crash."""
    with pytest.raises(CallerError):
        read(b'{"contents":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "m", stream=False)


def test_from_gemini_to_gemini_nothing_is_lost() -> None:
    """What has no word here goes back to where it stood."""
    body: dict[str, Any] = {
        "contents": [
            {"role": "user", "parts": [{"text": "hi"}]},
            {
                "role": "model",
                "parts": [{"functionCall": {"name": "f", "args": {"a": 1}, "id": "c"}, "thoughtSignature": "c2ln"}],
            },
            {"role": "user", "parts": [{"functionResponse": {"name": "f", "id": "c", "response": {"result": "x"}}}]},
        ],
        "systemInstruction": {"parts": [{"text": "s"}]},
        "tools": [
            {
                "functionDeclarations": [
                    {"name": "f", "description": "d", "parametersJsonSchema": {"type": "object", "properties": {"a": {}}}}
                ]
            },
            {"googleSearch": {}},
        ],
        "toolConfig": {"functionCallingConfig": {"mode": "AUTO"}, "retrievalConfig": {"languageCode": "de"}},
        "generationConfig": {
            "topK": 4,
            "speechConfig": {"x": 1},
            "thinkingConfig": {"includeThoughts": True, "thinkingLevel": "low"},
        },
        "safetySettings": [{"category": "c"}],
        "cachedContent": "cachedContents/1",
    }
    losses = Losses()
    request = read(json.dumps(body).encode(), "m", stream=False)
    assert upstream.write(request, Toward(model="gemini-3.8-flash"), losses) == body
    assert not losses
