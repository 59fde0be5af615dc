"""Gemini's requests, written: every field said or named as lost, and what each generation wants otherwise."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from google.genai import types

from aigw.canonical import (
    Format,
    Losses,
    Media,
    Message,
    Part,
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
from aigw.protocols.translation.gemini.upstream import SAID, SKIP, UNSAID, generation, write

NEW, OLD, MIDDLE = "gemini-3.8-flash", "gemini-2.0-flash", "gemini-2.5-flash"


def written(
    model: str = NEW, *parts: Part, messages: list[Message] | None = None, **more: Any
) -> tuple[dict[str, Any], list[str]]:
    losses = Losses()
    said = messages if messages is not None else [Message("user", list(parts) or [Text("hi")])]
    body = write(Request(dialect="openai_chat", model="x", messages=said, **more), Toward(model=model), losses)
    json.dumps(body)
    for content in body["contents"]:
        types.Content.model_validate(content)
    return body, list(losses)


def config(model: str = NEW, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = written(model, **more)[0].get("generationConfig", {})
    return found


def test_every_field_is_said_or_named_as_lost() -> None:
    """The two tables hold them all, and none twice."""
    assert sorted([*SAID, *UNSAID]) == sorted(field.name for field in msgspec.structs.fields(Request))
    values: dict[str, Any] = {"logit_bias": {"1": 2}, "verbosity": "low", "audio": {"voice": "v"}, "user": "u"}
    values |= {"metadata": {"a": "b"}, "store": True}
    assert values.keys() == set(UNSAID)
    for name, value in values.items():
        assert written(**{name: value})[1] == [name]
    assert written(store=False, cache_key="k")[1] == []  # advice, and what is so anyway


def test_what_others_say_beside_is_lost_by_its_name() -> None:
    """Extras of another dialect have no place."""
    assert written(extras={"prediction": {}})[1] == ["prediction"]


def test_sampling() -> None:
    """By Google's names; of stops the first five; penalties not to Gemini 3."""
    said = config(
        temperature=1.5, top_p=0.5, top_k=3, max_tokens=9, n=2, seed=4, stop=list("abcdef"), logprobs=True, top_logprobs=2
    )
    assert said == {
        "temperature": 1.5,
        "topP": 0.5,
        "topK": 3,
        "maxOutputTokens": 9,
        "candidateCount": 2,
        "seed": 4,
        "stopSequences": list("abcde"),
        "responseLogprobs": True,
        "logprobs": 2,
    }
    assert written(stop=list("abcdef"))[1] == ["stop"]
    assert written(presence_penalty=0.5)[1] == ["presence_penalty"]
    assert config(MIDDLE, presence_penalty=0.5, frequency_penalty=0.1) == {"presencePenalty": 0.5, "frequencyPenalty": 0.1}


@pytest.mark.parametrize(
    ("model", "number"),
    [
        ("gemini-2.5-pro", 2.5),
        ("models/gemini-3-pro-preview", 3.0),
        ("gemini-3.8-flash", 3.8),
        ("gemini-4-argon", 4.0),
        ("gemini-flash-latest", 3.0),
        ("gemma-3-27b-it", 2.0),
        ("gemini-1.5-pro-002", 1.5),
    ],
)
def test_generations(model: str, number: float) -> None:
    """By the name; one that says nothing is of today's."""
    assert generation(model) == number


@pytest.mark.parametrize(
    ("model", "said", "wanted"),
    [
        (MIDDLE, Reasoning(effort="low"), {"includeThoughts": True, "thinkingBudget": 1024}),
        (MIDDLE, Reasoning(on=False), {"includeThoughts": False, "thinkingBudget": 0}),
        ("gemini-2.5-pro", Reasoning(effort="none"), {"includeThoughts": False, "thinkingBudget": 128}),
        (MIDDLE, Reasoning(on=True, budget=99999), {"includeThoughts": True, "thinkingBudget": 24576}),
        (MIDDLE, Reasoning(on=True, adaptive=True), {"includeThoughts": True, "thinkingBudget": -1}),
        (NEW, Reasoning(effort="none"), {"includeThoughts": False, "thinkingLevel": "minimal"}),
        ("gemini-3.1-pro-preview", Reasoning(on=False), {"includeThoughts": False, "thinkingLevel": "low"}),
        ("gemini-3-pro-preview", Reasoning(effort="medium"), {"includeThoughts": True, "thinkingLevel": "high"}),
        (NEW, Reasoning(effort="max"), {"includeThoughts": True, "thinkingLevel": "high"}),
        (NEW, Reasoning(on=True, budget=5000), {"includeThoughts": True, "thinkingLevel": "medium"}),
        (NEW, Reasoning(on=True, budget=5000, shown="omitted"), {"includeThoughts": False, "thinkingLevel": "medium"}),
    ],
)
def test_budget_and_level_are_never_sent_together(model: str, said: Reasoning, wanted: dict[str, Any]) -> None:
    """A budget to 2.5, a level from 3 on: both are a 400."""
    assert config(model, reasoning=said) == {"thinkingConfig": wanted}


def test_a_model_that_cannot_think_is_not_asked_to() -> None:
    """It is a loss, unless not thinking was wanted."""
    assert written(OLD, reasoning=Reasoning(effort="high"))[1] == ["reasoning"]
    assert written(OLD, reasoning=Reasoning(on=False)) == written(OLD)


SCHEMA = {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"type": ["string", "null"]}}}


def test_structured_output() -> None:
    """JSON Schema to today's models, Gemini's own to old ones; not together with functions before Gemini 3."""
    assert config(format=Format()) == {"responseMimeType": "application/json"}
    assert config(format=Format(SCHEMA)) == {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA}
    assert config(OLD, format=Format(SCHEMA))["responseSchema"] == {
        "type": "OBJECT",
        "properties": {"a": {"type": "STRING", "nullable": True}},
    }
    assert written(MIDDLE, format=Format(), tools=[Tool("f")])[1] == ["format"]
    assert written(NEW, format=Format(), tools=[Tool("f")])[1] == []


def test_tools() -> None:
    """With their schema where they have one; of another provider's own tools none."""
    web = Tool("web_search", server=True, dialect="openai_responses", value={"type": "web_search"})
    body, lost = written(tools=[Tool("f", "d", SCHEMA), Tool("none", schema={"type": "object", "properties": {}}), web])
    assert body["tools"] == [
        {
            "functionDeclarations": [
                {"name": "f", "description": "d", "parametersJsonSchema": SCHEMA},
                {"name": "none", "description": "none"},
            ]
        }
    ]
    assert lost == ["tools.web_search"]
    types.Tool.model_validate(body["tools"][0])
    free = written(tools=[Tool("shell", custom=True)])[0]["tools"][0]["functionDeclarations"][0]
    assert free["parametersJsonSchema"]["required"] == ["input"]
    assert written(parallel=False, tools=[Tool("f")])[1] == ["parallel"]


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (ToolChoice("auto"), {"mode": "AUTO"}),
        (ToolChoice("required"), {"mode": "ANY"}),
        (ToolChoice("none"), {"mode": "NONE"}),
        (ToolChoice("tool", ("f",)), {"mode": "ANY", "allowedFunctionNames": ["f"]}),
        (ToolChoice("allowed", ("f",), must=True), {"mode": "ANY", "allowedFunctionNames": ["f"]}),
        (ToolChoice("allowed", ("f",)), {"mode": "VALIDATED", "allowedFunctionNames": ["f"]}),
    ],
)
def test_which_tool(said: ToolChoice, wanted: dict[str, Any]) -> None:
    """Names may be listed with ANY and VALIDATED alone."""
    assert written(tools=[Tool("f")], tool_choice=said)[0]["toolConfig"] == {"functionCallingConfig": wanted}
    assert "toolConfig" not in written(tool_choice=said)[0]


TURN = [
    Message("user", [Text("weather?")]),
    Message(
        "assistant",
        [Thinking("hm", "sig", origin="anthropic_messages"), ToolCall("c1", "w", '{"c":1}'), ToolCall("c2", "v", "{}")],
    ),
    Message("user", [Text("here:"), ToolResult("c2", [Text("sun")])]),
    Message("user", [ToolResult("c1", [Text('{"t":9}')], is_error=False)]),
]


def test_a_foreign_thought_is_left_out_and_its_call_gets_the_constant_that_skips_the_check() -> None:
    """Gemini 3 refuses a step whose first call has no signature, and everybody else's signatures."""
    body, lost = written(messages=TURN)
    assert body["contents"][1] == {
        "role": "model",
        "parts": [
            {"functionCall": {"name": "w", "args": {"c": 1}, "id": "c1"}, "thoughtSignature": SKIP},
            {"functionCall": {"name": "v", "args": {}, "id": "c2"}},
        ],
    }
    assert lost == []


def test_results_are_one_turn_and_have_the_names_of_their_calls() -> None:
    """First in it, with an object for an answer; ids only from Gemini 3 on, for older models refuse the member."""
    body, _ = written(messages=TURN)
    assert [content["role"] for content in body["contents"]] == ["user", "model", "user"]
    assert body["contents"][2]["parts"] == [
        {"functionResponse": {"name": "v", "response": {"result": "sun"}, "id": "c2"}},
        {"functionResponse": {"name": "w", "response": {"t": 9}, "id": "c1"}},
        {"text": "here:"},
    ]
    old, _ = written(MIDDLE, messages=TURN)
    assert '"id"' not in json.dumps(old)
    assert "thoughtSignature" not in json.dumps(old)


def test_its_own_signatures_go_back_where_they_came_from() -> None:
    """On calls, texts and thoughts."""
    call = ToolCall("c", "f", signature="AA==", origin="gemini")
    parts: list[Part] = [Thinking("t", "BA==", origin="gemini"), Text("x", signature="CA==", origin="gemini"), call]
    body, _ = written(messages=[Message("user", [Text("q")]), Message("assistant", parts)])
    assert [part["thoughtSignature"] for part in body["contents"][1]["parts"]] == ["BA==", "CA==", "AA=="]


def test_an_image_in_a_tools_answer() -> None:
    """Inside it from Gemini 3 on, beside it before."""
    messages = [Message("user", [ToolResult("c", [Text("see"), Media("image", "aGk=", type="image/png")], "shot")])]
    image = {"inlineData": {"mimeType": "image/png", "data": "aGk="}}
    (part,) = written(messages=messages)[0]["contents"][0]["parts"]
    assert part["functionResponse"]["parts"] == [image]
    first, second = written(MIDDLE, messages=messages)[0]["contents"][0]["parts"]
    assert (first["functionResponse"]["name"], second) == ("shot", image)


def test_media() -> None:
    """Inline as it is; an address only to models that fetch it; another provider's file to none."""
    assert written(NEW, Media("image", url="https://x/a.png?b"))[0]["contents"][0]["parts"] == [
        {"fileData": {"fileUri": "https://x/a.png?b", "mimeType": "image/png"}}
    ]
    with pytest.raises(CallerError, match="base64") as caught:
        written(OLD, Media("image", url="https://x/a.png"))
    assert caught.value.code == "caller_unsupported"
    with pytest.raises(CallerError, match="another provider"):
        written(NEW, Media("document", file="file-123"))
    assert written(OLD, Media("video", url="https://www.youtube.com/watch?v=1"))[1] == []
    assert written(NEW, Media("image", "aaaa", detail="high"))[1] == ["messages.content.detail"]


def test_system_and_empty_turns() -> None:
    """Leading ones are the instruction, later ones are said by the user; nothing empty is sent, but something always is."""
    body, _ = written(messages=[Message("system", [Text("a")]), Message("developer", [Text("b")]), Message("user", [Text("")])])
    assert body["contents"] == [{"role": "user", "parts": [{"text": "a"}, {"text": "b"}]}]
    body, _ = written(
        messages=[Message("user", [Text("q")]), Message("system", [Text("late")]), Message("assistant", [Text("")])]
    )
    assert body["contents"] == [{"role": "user", "parts": [{"text": "q"}, {"text": "late"}]}]


def test_broken_arguments_of_another_model_are_still_seen() -> None:
    """They must be an object here."""
    body, _ = written(messages=[Message("assistant", [ToolCall("c", "f", '{"a'), ToolCall("d", "f", "[1]")])])
    assert [part["functionCall"]["args"] for part in body["contents"][0]["parts"]] == [{"input": '{"a'}, {"input": [1]}]


def test_a_name_that_gemini_would_refuse_is_said_otherwise() -> None:
    """The same in tools, calls and results."""
    name = "mcp.tool/with:signs"
    messages = [Message("assistant", [ToolCall("c", name)]), Message("user", [ToolResult("c", [Text("x")])])]
    body, _ = written(messages=messages, tools=[Tool(name)])
    said = body["tools"][0]["functionDeclarations"][0]["name"]
    assert said == body["contents"][0]["parts"][0]["functionCall"]["name"]
    assert said == body["contents"][1]["parts"][0]["functionResponse"]["name"] != name
