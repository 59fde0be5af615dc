"""Responses requests, both ways."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from aigw.canonical import (
    Cache,
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
)
from aigw.errors import CallerError
from aigw.protocols.translation.contract import Toward
from aigw.protocols.translation.openai_responses import OpenAIResponses, request
from aigw.protocols.translation.openai_responses.items import OWN, Signed, sealed

SHAPE = OpenAIResponses()


def read(**fields: Any) -> Request:
    return SHAPE.parse_request(json.dumps({"model": "m", "input": "hi"} | fields).encode(), "m", stream=False)


def write(asked: Request, model: str = "gpt-5", *, stream: bool = False) -> tuple[dict[str, Any], list[str]]:
    losses = Losses(SHAPE.spelling)
    body = SHAPE.render_request(asked, Toward(model=model, stream=stream), losses)
    return json.loads(body), list(losses)


CODEX = {
    "instructions": "You are a coding agent.",
    "input": [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "sandbox: none"}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "run it"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": "gAAA"},
        {"type": "function_call", "call_id": "call_1", "name": "shell", "arguments": '{"command":["ls"]}'},
        {"type": "function_call_output", "call_id": "call_1", "output": "a.txt"},
        {"type": "custom_tool_call", "call_id": "call_2", "name": "apply_patch", "input": "*** Begin"},
        {"type": "custom_tool_call_output", "call_id": "call_2", "output": "done"},
    ],
    "tools": [
        {"type": "function", "name": "shell", "parameters": {"type": "object", "properties": {}}, "strict": False},
        {"type": "custom", "name": "apply_patch", "format": {"type": "grammar", "syntax": "lark", "definition": "start: x"}},
        {"type": "web_search"},
        {"type": "namespace", "name": "mail", "description": "post", "tools": [{"type": "function", "name": "send"}]},
    ],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "reasoning": {"effort": "high", "summary": "auto"},
    "text": {"verbosity": "low", "format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}},
    "include": ["reasoning.encrypted_content"],
    "store": False,
    "prompt_cache_key": "thread",
}


def test_what_an_agent_sends_is_read() -> None:
    """Calls and thoughts of one turn are one message, their results the next."""
    asked = read(**CODEX)
    assert [message.role for message in asked.messages] == [
        "system", "developer", "user", "assistant", "user", "assistant", "user",
    ]  # fmt: skip
    thought, call = asked.messages[3].parts
    assert thought == Thinking("hm", "rs_1:gAAA", "", OWN, "rs_1")
    assert call == ToolCall("call_1", "shell", '{"command":["ls"]}')
    assert asked.messages[4].parts == [ToolResult("call_1", [Text("a.txt")])]
    assert asked.messages[5].parts == [ToolCall("call_2", "apply_patch", "*** Begin", custom=True)]
    assert [(tool.name, tool.custom, tool.server) for tool in asked.tools] == [
        ("shell", False, False), ("apply_patch", True, False), ("web_search", False, True), ("mail__send", False, False),
    ]  # fmt: skip
    assert (asked.parallel, asked.verbosity, asked.store, asked.cache_key) == (False, "low", False, "thread")
    assert asked.reasoning == Reasoning(None, "high", shown="auto")
    assert asked.format == Format({"type": "object"}, "x")
    assert asked.extras == {}


def test_there_and_back_means_the_same() -> None:
    """Read, written and read again it is the same request."""
    asked = read(**CODEX)
    body, losses = write(asked)
    assert losses == []
    again = SHAPE.parse_request(json.dumps(body).encode(), "m", stream=False)
    again.tools[0].strict = asked.tools[0].strict
    again.tools[3].strict, again.tools[3].schema = None, None  # functions are strict here unless it is said
    assert again == asked


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
        ({"input": [{"id": "msg_1"}]}, "input[0]"),
        ({"input": [{"type": "hologram"}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_smell"}]}]}, "input[0].content[0].type"),
        ({"tools": [{"type": "local_shell"}]}, "tools[0].type"),
        ({"tools": [{"type": "computer_use_preview"}]}, "tools[0].type"),
    ],
)
def test_what_needs_a_memory_or_has_no_word_is_refused(fields: dict[str, Any], param: str) -> None:
    """With the path and what to do instead; an unknown tool is never dropped in silence."""
    with pytest.raises(CallerError) as refused:
        read(**fields)
    assert (refused.value.code, refused.value.param, refused.value.status) == ("caller_unsupported", param, 400)
    assert refused.value.message.count(".") >= 1
    assert "Send" in refused.value.message or "Leave" in refused.value.message or "Offer" in refused.value.message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": 7}, "input"),
        ({"input": []}, "input"),
        ({"input": [7]}, "input[0]"),
        ({"temperature": "hot"}, "temperature"),
        ({"max_output_tokens": 1.5}, "max_output_tokens"),
        ({"tools": {}}, "tools"),
        ({"tool_choice": "maybe"}, "tool_choice"),
        ({"store": "no"}, "store"),
        ({"metadata": []}, "metadata"),
    ],
)
def test_wrong_types_are_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(CallerError) as refused:
        read(**fields)
    assert refused.value.code == "caller_invalid_request"
    assert refused.value.param == param


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"input":' + b"[" * 10_000 + b"]" * 10_000 + b"}", b"\xff"])
def test_garbage_is_refused(body: bytes) -> None:
    """Also what is nested 10,000 deep."""
    with pytest.raises(CallerError) as refused:
        SHAPE.parse_request(body, "m", stream=False)
    assert refused.value.code in ("caller_invalid_json", "caller_invalid_request")


def test_half_of_a_surrogate_pair_is_read() -> None:
    """JavaScript cuts strings so."""
    asked = SHAPE.parse_request(b'{"input":"cut \\ud83d"}', "m", stream=False)
    assert asked.messages[0].parts == [Text("cut ?")]


def test_unknown_members_are_kept_for_the_list_of_losses() -> None:
    """Nulls and defaults are no loss."""
    asked = read(
        truncation="auto", max_tool_calls=3, zeta={"a": 1}, moderation=None, user=None, metadata={}, service_tier="auto"
    )
    assert asked.extras == {"truncation": "auto", "max_tool_calls": 3, "zeta": {"a": 1}}
    assert read(truncation="disabled", stream_options={"include_obfuscation": False}, prompt_cache_retention="24h").extras == {}
    assert read(include=["web_search_call.action.sources"], reasoning={"mode": "pro"}).extras == {
        "include": ["web_search_call.action.sources"],
        "reasoning.mode": "pro",
    }


def test_a_foreign_signature_comes_back_to_its_maker() -> None:
    """Thoughts of Anthropic's, a hidden one, and a call and a text that Gemini signed."""
    found = read(
        input=[
            {"role": "user", "content": "hi"},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}],
             "encrypted_content": sealed(Signed("sig"), "anthropic_messages")},
            {"type": "reasoning", "id": "rs_2", "summary": [],
             "encrypted_content": sealed(Signed(hidden="secret"), "anthropic_messages")},
            {"role": "assistant", "content": [{"type": "output_text", "text": "so"}]},
            {"type": "reasoning", "id": "rs_3", "summary": [], "encrypted_content": sealed(Signed("t", on="text"), "gemini")},
            {"type": "reasoning", "id": "rs_4", "summary": [], "encrypted_content": sealed(Signed("c", on="call"), "gemini")},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": ""},
            {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "ok"}]},
        ]
    )  # fmt: skip
    assert found.messages[1].parts == [
        Thinking("hm", "sig", "", "anthropic_messages", "rs_1"),
        Thinking("", "", "secret", "anthropic_messages", "rs_2"),
        Text("so", signature="t", origin="gemini"),
        ToolCall("c1", "f", "{}", signature="c", origin="gemini"),
    ]
    body, _ = write(found)
    assert [item["type"] for item in body["input"]] == ["message", "message", "function_call", "function_call_output"]


FULL = Request(
    dialect="anthropic_messages",
    model="asked",
    messages=[
        Message("system", [Text("a"), Text("b")]),
        Message(
            "user", [Text("look", Cache()), Media("image", data="aGk=", type="image/png"), Media("document", url="http://x/y")]
        ),
        Message(
            "assistant", [Thinking("mine", "sig", origin="anthropic_messages"), Text("ok"), ToolCall("t" * 80, "a.b", "{}")]
        ),
        Message(
            "user", [ToolResult("t" * 80, [Text("1"), Media("image", url="http://i")], is_error=True), Text("go on")], "bob"
        ),
    ],
    stream=True,
    tools=[Tool("a.b", "does", {"type": "object"}), Tool("web_search", server=True, dialect="anthropic_messages", value={})],
    tool_choice=ToolChoice("tool", ("a.b",)),
    parallel=True,
    max_tokens=1,
    temperature=0.5,
    top_p=0.5,
    top_k=5,
    stop=["x"],
    n=2,
    seed=1,
    presence_penalty=1.0,
    frequency_penalty=1.0,
    logprobs=True,
    top_logprobs=2,
    logit_bias={"1": 2},
    reasoning=Reasoning(True, budget=2000),
    format=Format({"type": "object"}),
    verbosity="low",
    modalities=["audio"],
    audio={"voice": "x"},
    user="u",
    metadata={"a": "b", "c": 1},
    service_tier="flex",
    store=True,
    cache=Cache(),
    cache_key="k",
    include_usage=True,
    extras={"container": "c"},
)


def test_every_field_is_said_or_named_as_lost() -> None:
    """One request with all there is."""
    body, losses = write(FULL, "some-model", stream=True)
    said = set(request.SAID)
    assert said | {
        "top_k",
        "stop",
        "n",
        "seed",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "modalities",
        "audio",
    } == {*Request.__struct_fields__}
    assert set(Request.__struct_fields__) - said <= set(losses)
    assert {"messages.name", "messages.content.is_error", "metadata", "tools.web_search", "container"} <= set(losses)
    assert body["instructions"] == "a\n\nb"
    assert body["max_output_tokens"] == 16
    assert (body["temperature"], body["top_p"]) == (0.5, 0.5)
    assert body["reasoning"] == {"effort": "medium", "summary": "auto"}
    assert body["store"] is True
    assert body["include"] == ["message.output_text.logprobs"]
    name = body["tools"][0]["name"]
    assert name.replace("_", "").isalnum()
    assert body["tool_choice"] == {"type": "function", "name": name}
    call, result = body["input"][2], body["input"][3]
    assert (call["type"], result["type"]) == ("function_call", "function_call_output")
    assert call["call_id"] == result["call_id"]
    assert len(call["call_id"]) <= 64
    assert "mine" not in json.dumps(body)


def test_models_that_reason_get_no_sampling_and_give_their_thoughts_along() -> None:
    body, losses = write(msgspec.structs.replace(FULL, store=None), "gpt-5.1-codex")
    assert "temperature" not in body
    assert {"temperature", "top_p"} <= set(losses)
    assert body["store"] is False
    assert "reasoning.encrypted_content" in body["include"]


def test_film_is_refused() -> None:
    with pytest.raises(CallerError, match="video"):
        write(Request(dialect="gemini", model="m", messages=[Message("user", [Media("video", url="http://v")])]))
