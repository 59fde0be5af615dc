"""Converse requests: what is asked arrives in Bedrock's words, and what has no word there is told."""

from __future__ import annotations

import json
from typing import Any

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
from aigw.protocols.translation.bedrock_converse.upstream import SAID, write
from aigw.protocols.translation.contract import Toward

CLAUDE, OLDER, NOVA, LLAMA = (
    "global.anthropic.claude-opus-5-5",
    "us.anthropic.claude-sonnet-4-20250514-v1:0",
    "us.amazon.nova-2-lite-v1:0",
    "meta.llama4-maverick-17b-instruct-v1:0",
)
USER = Message("user", [Text("hi")])
TOOL = Tool("look", "Looks.", {"type": "object", "properties": {"at": {"type": "string"}}})


def wrote(model: str = OLDER, *messages: Message, **fields: Any) -> tuple[dict[str, Any], list[str]]:
    losses = Losses()
    request = Request(dialect="openai_chat", model="m", messages=list(messages) or [USER], **fields)
    return json.loads(write(request, Toward(model=model), losses)), list(losses)


def test_a_plain_request() -> None:
    body, lost = wrote(OLDER, Message("system", [Text("Be brief.")]), USER, max_tokens=9, temperature=0.5, stop=["END"])
    assert body == {
        "system": [{"text": "Be brief."}],
        "messages": [{"role": "user", "content": [{"text": "hi"}]}],
        "inferenceConfig": {"maxTokens": 9, "temperature": 0.5, "stopSequences": ["END"]},
        "additionalModelResponseFieldPaths": ["/stop_sequence"],
    }
    assert lost == []


def test_every_field_is_said_or_told() -> None:
    """Nothing is dropped in silence."""
    values: dict[str, Any] = {
        "seed": 1,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.5,
        "logprobs": True,
        "top_logprobs": 2,
        "logit_bias": {"1": 2},
        "verbosity": "low",
    }
    assert set(Request.__struct_fields__) == SAID | values.keys()
    _, lost = wrote(LLAMA, extras={"web_search_options": {}}, **values)
    assert set(lost) == {*values, "web_search_options"}
    told = {"top_k": 3, "parallel": False, "store": True, "audio": {"voice": "x"}, "service_tier": "scale", "user": "ü"}
    told |= {"reasoning": Reasoning(effort="high"), "format": Format(), "temperature": 1.5, "metadata": {"a": 1}, "stop": [" "]}
    _, lost = wrote(LLAMA, tools=[TOOL], **told)
    assert set(lost) == set(told)


def test_tools_and_their_results_come_first_in_a_users_turn() -> None:
    called = Message("assistant", [ToolCall("call.1", "look", '{"at":"x"}')])
    result = Message("user", [Text("and?"), ToolResult("call.1", [Text("seen")], is_error=True)])
    body, lost = wrote(OLDER, USER, called, result, tools=[TOOL], tool_choice=ToolChoice("tool", ("look",)))
    call_id = body["messages"][1]["content"][0]["toolUse"]["toolUseId"]
    assert body["messages"][1]["content"] == [{"toolUse": {"toolUseId": call_id, "name": "look", "input": {"at": "x"}}}]
    assert body["messages"][2]["content"] == [
        {"toolResult": {"toolUseId": call_id, "content": [{"text": "seen"}], "status": "error"}},
        {"text": "and?"},
    ]
    spec = {"name": "look", "description": "Looks.", "inputSchema": {"json": TOOL.schema}}
    assert body["toolConfig"] == {"tools": [{"toolSpec": spec}], "toolChoice": {"tool": {"name": "look"}}}
    assert lost == []


@pytest.mark.parametrize(
    ("choice", "wanted", "lost"),
    [
        (ToolChoice("auto"), None, []),
        (ToolChoice("required"), {"any": {}}, []),
        (ToolChoice("allowed", ("look",), must=True), {"any": {}}, []),
    ],
)
def test_tool_choices_keep_their_meaning(choice: ToolChoice, wanted: Any, lost: list[str]) -> None:
    body, told = wrote(OLDER, tools=[TOOL, Tool("other")], tool_choice=choice)
    assert body["toolConfig"].get("toolChoice") == wanted
    assert len(body["toolConfig"]["tools"]) == (1 if choice.names else 2)
    assert told == lost


def test_no_tools_may_be_called() -> None:
    """There is no such word: the tools stay at home, unless a history needs them."""
    body, lost = wrote(OLDER, tools=[TOOL], tool_choice=ToolChoice("none"))
    assert "toolConfig" not in body
    assert lost == []
    history = (USER, Message("assistant", [ToolCall("c", "look")]), Message("user", [ToolResult("c", [Text("x")])]))
    body, lost = wrote(OLDER, *history, tools=[TOOL], tool_choice=ToolChoice("none"))
    assert body["toolConfig"]["tools"]
    assert lost == ["tool_choice"]


def test_a_history_with_calls_has_its_tools_though_none_are_offered() -> None:
    body, _ = wrote(OLDER, USER, Message("assistant", [ToolCall("c", "look")]), Message("user", [ToolResult("c", [])]))
    assert [tool["toolSpec"]["name"] for tool in body["toolConfig"]["tools"]] == ["look"]
    assert body["messages"][2]["content"][0]["toolResult"]["content"] == [{"text": "(empty)"}]


def test_turns_of_one_role_are_joined_and_a_user_begins() -> None:
    body, _ = wrote(LLAMA, Message("assistant", [Text("a ")]), USER, USER, Message("assistant", [Text("go ")]))
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user", "assistant"]
    assert body["messages"][2]["content"] == [{"text": "hi"}, {"text": "hi"}]
    assert body["messages"][3]["content"] == [{"text": "go"}]


def test_thinking_by_model() -> None:
    """Budgets, adaptive thinking, Nova's levels, gpt-oss's effort: each in its own words."""
    wanted = Reasoning(effort="high")
    body, _ = wrote(OLDER, reasoning=wanted, temperature=0.2)
    assert body["additionalModelRequestFields"] == {"thinking": {"type": "enabled", "budget_tokens": 4096}}
    body, lost = wrote(CLAUDE, reasoning=wanted, temperature=0.2)
    assert body["additionalModelRequestFields"] == {
        "thinking": {"type": "adaptive", "display": "summarized"},
        "output_config": {"effort": "high"},
    }
    assert lost == ["temperature"]
    body, _ = wrote(NOVA, reasoning=wanted)
    assert body["additionalModelRequestFields"] == {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "high"}}
    body, _ = wrote("openai.gpt-oss-120b-1:0", reasoning=wanted)
    assert body["additionalModelRequestFields"] == {"reasoning_effort": "high"}


def test_signed_thoughts_go_back_to_claude_alone() -> None:
    thoughts = [Thinking("t", "sig", origin="bedrock_converse"), Thinking("g", "sig", origin="gemini"), Text("so")]
    body, lost = wrote(OLDER, USER, Message("assistant", list(thoughts)), USER)
    assert body["messages"][1]["content"] == [
        {"reasoningContent": {"reasoningText": {"text": "t", "signature": "sig"}}},
        {"text": "so"},
    ]
    assert lost == []


def test_pictures_and_documents() -> None:
    parts = [
        Media("image", data="iVBORw0", type=""),
        Media("document", data="JVBERi0=", type="application/pdf", name="a/b.pdf"),
    ]
    body, lost = wrote(OLDER, Message("user", list(parts)))
    assert body["messages"][0]["content"] == [
        {"image": {"format": "png", "source": {"bytes": "iVBORw0"}}},
        {"document": {"format": "pdf", "name": "a b 1", "source": {"bytes": "JVBERi0="}}},
        {"text": "(see the document)"},
    ]
    assert lost == []


def test_an_image_url_is_refused_never_fetched() -> None:
    with pytest.raises(CallerError, match="as base64") as caught:
        wrote(OLDER, Message("user", [Media("image", url="https://x/y.png")]))
    assert caught.value.code == "caller_unsupported"


def test_cache_marks_become_points_four_at_most() -> None:
    marked = [Text(f"{number}", Cache("1h")) for number in range(6)]
    body, _ = wrote(OLDER, Message("user", list(marked)))
    content = body["messages"][0]["content"]
    assert sum("cachePoint" in block for block in content) == 4
    assert content[-1] == {"cachePoint": {"type": "default", "ttl": "1h"}}
    assert "cachePoint" not in content[1]
    body, lost = wrote(LLAMA, Message("user", list(marked)))
    assert all("text" in block for block in body["messages"][0]["content"])
    assert lost == []


def test_structured_output() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}
    body, lost = wrote(CLAUDE, format=Format(schema, "thing"))
    said = body["outputConfig"]["textFormat"]["structure"]["jsonSchema"]
    assert (json.loads(said["schema"]), said["name"]) == (schema, "thing")
    assert lost == []
    body, lost = wrote(LLAMA, format=Format(schema, "thing"))
    assert "JSON Schema" in body["system"][0]["text"]
    assert lost == ["format"]
