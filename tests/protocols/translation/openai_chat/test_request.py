"""Chat requests from callers: every word of OpenAI's, and what other hosts added, has its place; what has none is kept by
its name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aigw.canonical import (
    Cache,
    Foreign,
    Format,
    Media,
    Reasoning,
    Refusal,
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
from aigw.protocols.translation.openai_chat.request import DIALECT, LEGACY, read


def asked(*messages: dict[str, Any], **fields: Any) -> Request:
    return read(json.dumps({"model": "m", "messages": list(messages), **fields}).encode(), "m", stream=False)


def parts(message: dict[str, Any]) -> list[Any]:
    (found,) = asked(message).messages
    return list(found.parts)


def test_roles_stay_where_they_stood() -> None:
    request = asked(
        {"role": "developer", "content": "d"},
        {"role": "user", "content": "u", "name": "Ann"},
        {"role": "system", "content": "s"},
    )
    assert [(message.role, message.name) for message in request.messages] == [
        ("developer", ""),
        ("user", "Ann"),
        ("system", ""),
    ]


def test_parts_of_a_user() -> None:
    found = parts(
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "t", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
                {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
                {"type": "image_url", "image_url": "data:image/jpeg;base64,AAAA"},
                {"type": "input_audio", "input_audio": {"data": "BBBB", "format": "mp3"}},
                {"type": "file", "file": {"file_data": "data:application/pdf;base64,CCCC", "filename": "a.pdf"}},
                {"type": "file", "file": {"file_data": "CCCC", "filename": "a.pdf"}},
                {"type": "file", "file": {"file_id": "file-1"}},
                {"type": "video_url", "video_url": {"url": "https://x/y.mp4"}},
            ],
        }
    )
    assert found == [
        Text("t", Cache("1h")),
        Media("image", url="https://x/y.png", detail="low"),
        Media("image", "AAAA", type="image/jpeg"),
        Media("audio", "BBBB", type="audio/mpeg"),
        Media("document", "CCCC", type="application/pdf", name="a.pdf"),
        Media("document", "CCCC", type="application/pdf", name="a.pdf"),
        Media("document", file="file-1"),
        Media("video", url="https://x/y.mp4"),
    ]


def test_an_assistant_with_all_it_may_say() -> None:
    signature = seal("c2ln", "anthropic_messages", DIALECT)
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1.0}'}}
    google = {"extra_content": {"google": {"thought_signature": seal("Z3M=", "gemini", DIALECT)}}}
    found = parts(
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "t"}, {"type": "refusal", "refusal": "r"}],
            "reasoning_content": "hm",
            "thinking_blocks": [
                {"type": "thinking", "thinking": "hm", "signature": signature, "index": 0},
                {"type": "redacted_thinking", "data": seal("aGlk", "anthropic_messages", DIALECT)},
            ],
            "tool_calls": [call | google, {"id": "b", "type": "custom", "custom": {"name": "g", "input": "free"}}],
            "audio": {"id": "au"},
        }
    )
    assert found == [
        Thinking("hm", "c2ln", origin="anthropic_messages"),
        Thinking(hidden="aGlk", origin="anthropic_messages"),
        Text("t"),
        Refusal("r"),
        Foreign(DIALECT, "audio", {"id": "au"}),
        ToolCall("a", "f", '{"x": 1.0}', False, "Z3M=", "gemini"),
        ToolCall("b", "g", "free", True),
    ]


def test_results_one_after_another_are_one_turn() -> None:
    request = asked(
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "2"}]},
        {"role": "user", "content": "u"},
    )
    assert [message.parts for message in request.messages] == [
        [ToolResult("a", [Text("1")]), ToolResult("b", [Text("2")])],
        [Text("u")],
    ]


def test_the_older_functions_are_tools() -> None:
    request = asked(
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": ""}},
        {"role": "function", "name": "f", "content": "1"},
        functions=[{"name": "f", "parameters": {"type": "object"}}],
        function_call={"name": "f"},
    )
    (call,), (result,) = request.messages[0].parts, request.messages[1].parts
    assert isinstance(call, ToolCall)
    assert isinstance(result, ToolResult)
    assert call.arguments == "{}"
    assert call.id == result.id
    assert request.tools == [Tool("f", schema={"type": "object"}, dialect=LEGACY)]
    assert request.tool_choice == ToolChoice("tool", ("f",))
    assert request.extras == {}


def test_tools() -> None:
    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {}}}
    request = asked(
        tools=[
            {"type": "function", "function": {"name": "f", "description": "d", "parameters": schema, "strict": True}},
            {"type": "custom", "custom": {"name": "g", "format": {"type": "text"}}},
            {"type": "web_search", "web_search": {"enable": True}},
        ],
        web_search_options={},
    )
    assert request.tools == [
        Tool("f", "d", schema, True),
        Tool("g", custom=True, value={"type": "text"}),
        Tool("web_search", server=True, dialect=DIALECT, value={"type": "web_search", "web_search": {"enable": True}}),
        Tool("web_search_options", server=True, dialect=DIALECT, value={"web_search_options": {}}),
    ]


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        ("auto", ToolChoice("auto")),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("required")),
        ({"type": "function", "function": {"name": "f"}}, ToolChoice("tool", ("f",))),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "f"}}]},
            },
            ToolChoice("allowed", ("f",), True),
        ),
    ],
)
def test_tool_choice(choice: Any, wanted: ToolChoice) -> None:
    assert asked(tools=[{"type": "function", "function": {"name": "f"}}], tool_choice=choice).tool_choice == wanted


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"reasoning_effort": "high"}, Reasoning(effort="high")),
        ({"reasoning_effort": "none"}, Reasoning(on=False, effort="none")),
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, Reasoning(on=True, budget=2048)),
        ({"thinking": {"type": "disabled"}}, Reasoning(on=False)),
        ({"enable_thinking": True, "thinking_budget": 9}, Reasoning(on=True, budget=9)),
        ({"reasoning": {"effort": "low", "exclude": True}}, Reasoning(effort="low", shown="omitted")),
    ],
)
def test_every_way_to_ask_for_thoughts(fields: dict[str, Any], wanted: Reasoning) -> None:
    request = asked(**fields)
    assert request.reasoning == wanted
    assert request.extras == {}


def test_null_and_defaults_say_nothing() -> None:
    request = asked(
        response_format={"type": "text"},
        logprobs=False,
        top_logprobs=0,
        presence_penalty=0,
        logit_bias={},
        metadata={},
        stop=None,
        modalities=["text"],
        service_tier="auto",
        prediction=None,
        tool_choice="auto",
        tools=[],
        prompt_cache_retention="24h",
        stream_options={"include_usage": True},
    )
    assert request == Request(dialect=DIALECT, model="m", messages=[], include_usage=True)


def test_the_rest_is_kept_by_its_name() -> None:
    request = asked(
        {"role": "user", "content": "u", "prefix": True}, min_p=0.1, prediction={"type": "content"}, max_tokens=100.0
    )
    assert request.extras == {"messages.prefix": True, "min_p": 0.1, "prediction": {"type": "content"}}
    assert request.max_tokens == 100


def test_structured_output() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True}}
    assert asked(response_format=form).format == Format({"type": "object"}, "n", "", True)
    assert asked(response_format={"type": "json_object"}).format == Format()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "hologram"}]}]}, "messages[0].content[0].type"),
        ({"tools": [{"type": "teleport"}]}, "tools[0].type"),
        ({"response_format": {"type": "grammar"}}, "response_format.type"),
    ],
)
def test_unknown_kinds_are_refused_and_never_dropped(fields: dict[str, Any], param: str) -> None:
    """envoyproxy/ai-gateway 2467: unknown tools vanished."""
    with pytest.raises(CallerError) as refused:
        read(json.dumps({"model": "m", "messages": [], **fields}).encode(), "m", stream=False)
    assert refused.value.code == "caller_unsupported"
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": "hi"}, "messages"),
        ({"messages": [3]}, "messages[0]"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "robot"}]}, "messages[0].role"),
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"stop": [1]}, "stop"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tool_choice": "perhaps"}, "tool_choice"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(CallerError) as refused:
        read(json.dumps({"model": "m", "messages": [], **fields}).encode(), "m", stream=False)
    assert refused.value.code == "caller_invalid_request"
    assert refused.value.param == param


def test_nothing_strange_breaks_the_reader() -> None:
    lone = read(b'{"model":"m","messages":[{"role":"user","content":"a\\ud83d"}]}', "m", stream=False)
    assert lone.messages[0].parts == [Text("a?")]
    for body in (b"[" * 10_000, b'{"messages":' + b"[" * 10_000, b'{"temperature":NaN,"messages":[]}', b"\xff", b"[]", b""):
        with pytest.raises(CallerError) as refused:
            read(body, "m", stream=False)
        assert refused.value.code == "caller_invalid_json"
    with pytest.raises(CallerError):
        read(b'{"messages":[],"seed":' + b"9" * 400 + b"}", "m", stream=False)
