"""Chat requests for providers: each field is said or told lost, and each host gets what it wants."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.chat import completion_create_params
from pydantic import TypeAdapter

from aigw.canonical import (
    Cache,
    Foreign,
    Format,
    Losses,
    Media,
    Message,
    Reasoning,
    Refusal,
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
from aigw.protocols.translation.openai_chat.request import DIALECT, read
from aigw.protocols.translation.openai_chat.upstream import FREE_TEXT, SAID, write

OPENAI = Toward(model="gpt-4o", kind="openai", quirks=frozenset({"max-completion-tokens"}))
OTHER = Toward(model="llama", kind="vllm")


def asked(*messages: Message, **fields: Any) -> Request:
    return Request(**({"dialect": "anthropic_messages", "model": "m", "messages": list(messages)} | fields))


def sent(request: Request, toward: Toward = OPENAI) -> tuple[dict[str, Any], list[str]]:
    losses = Losses()
    return json.loads(write(request, toward, losses)), list(losses)


def messages(*given: Message, toward: Toward = OPENAI) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = sent(asked(*given), toward)[0]["messages"]
    return found


FULL: dict[str, Any] = {
    "tools": [Tool("f", "d", {"type": "object"}, True)],
    "tool_choice": ToolChoice("required"),
    "parallel": False,
    "max_tokens": 5,
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 3,
    "stop": ["x"],
    "n": 2,
    "seed": 7,
    "presence_penalty": 0.1,
    "frequency_penalty": 0.2,
    "logprobs": True,
    "top_logprobs": 2,
    "logit_bias": {"1": 2},
    "reasoning": Reasoning(effort="low"),
    "format": Format({"type": "object"}, "n"),
    "verbosity": "low",
    "modalities": ["text", "audio"],
    "audio": {"voice": "a", "format": "wav"},
    "user": "u",
    "metadata": {"a": "b"},
    "service_tier": "flex",
    "store": True,
    "cache_key": "k",
}
WITHOUT_A_WORD = {"cache", "cache_key", "include_usage", "extras", "dialect", "model", "messages", "stream"}


def test_every_field_has_its_writer() -> None:
    assert set(SAID) == set(Request.__struct_fields__)
    assert set(FULL) | WITHOUT_A_WORD == set(Request.__struct_fields__)


@pytest.mark.parametrize("field", sorted(set(FULL) - {"tool_choice", "parallel", "cache_key"}))
@pytest.mark.parametrize(
    "toward",
    [
        OPENAI,
        Toward(model="gpt-6-sol", kind="openai"),
        OTHER,
        Toward(model="mistral-large", kind="mistral", quirks=frozenset({"strict-fields"})),
        Toward(model="deepseek-v4-pro", kind="deepseek", quirks=frozenset({"echo-reasoning"})),
        Toward(model="qwen3", kind="dashscope"),
        Toward(model="x/y", kind="openrouter"),
    ],
    ids=lambda toward: f"{toward.kind}-{toward.model}",
)
def test_every_field_is_said_or_told_lost(field: str, toward: Toward) -> None:
    plain, _ = sent(asked(), toward)
    body, losses = sent(asked(**{field: FULL[field]}), toward)
    assert (body != plain) or losses == [field], f"{field} was dropped in silence"
    if body == plain:
        assert losses == [field]


def test_openai_takes_all_of_it() -> None:
    body, losses = sent(asked(Message("user", [Text("hi")]), **{name: FULL[name] for name in FULL if name != "reasoning"}))
    assert losses == ["top_k"]
    TypeAdapter(completion_create_params.CompletionCreateParamsNonStreaming).validate_python(body)
    assert body["max_completion_tokens"] == 5
    assert body["parallel_tool_calls"] is False


def test_a_callers_request_keeps_its_meaning_both_ways() -> None:
    body = {
        "model": "gpt-4o",
        "messages": [
            {"role": "developer", "content": "d"},
            {
                "role": "user",
                "content": [{"type": "text", "text": "t"}, {"type": "image_url", "image_url": {"url": "https://x/y"}}],
            },
            {
                "role": "assistant",
                "content": "a",
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "c", "content": "r"},
            {
                "role": "user",
                "content": [{"type": "input_audio", "input_audio": {"data": "AA", "format": "mp3"}}],
                "name": "Ann",
            },
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True}},
        "max_completion_tokens": 5,
        "temperature": 0.25,
        "stop": ["x"],
        "seed": 1,
        "logit_bias": {"1": 2},
        "prediction": {"type": "content", "content": "p"},
    }
    request = read(json.dumps(body).encode(), "gpt-4o", stream=False)
    assert sent(request) == (body, [])


def test_models_that_reason_get_no_sampling() -> None:
    reasoner = Toward(model="gpt-6-sol", kind="openai")
    body, losses = sent(asked(temperature=0.5, top_p=1, stop=["x"], reasoning=Reasoning(on=True, budget=20_000)), reasoner)
    assert losses == ["temperature", "stop"], "a top_p of 1 is what they do anyway"
    assert body["reasoning_effort"] == "high"


def test_a_model_that_does_not_reason_is_not_told_to() -> None:
    """A coding agent asks for thoughts in every request; gpt-4o and a Llama would answer 400."""
    for toward in (OPENAI, OTHER):
        assert sent(asked(reasoning=Reasoning(on=True, budget=9000)), toward)[1] == ["reasoning"]
        assert sent(asked(reasoning=Reasoning(on=False)), toward) == sent(asked(), toward)


@pytest.mark.parametrize(
    ("kind", "model", "wanted"),
    [
        ("openrouter", "x/y", {"reasoning": {"max_tokens": 5000}}),
        ("deepseek", "deepseek-v4-pro", {"thinking": {"type": "enabled"}}),
        ("dashscope", "qwen3-max", {"enable_thinking": True, "thinking_budget": 5000}),
        ("groq", "openai/gpt-oss-120b", {"reasoning_effort": "medium"}),
    ],
)
def test_each_host_is_told_to_think_in_its_own_words(kind: str, model: str, wanted: dict[str, Any]) -> None:
    toward = Toward(model=model, kind=kind)
    body, losses = sent(asked(reasoning=Reasoning(on=True, budget=5000)), toward)
    assert {name: value for name, value in body.items() if name not in ("model", "messages")} == wanted
    assert losses == []


def test_usage_of_a_stream_is_asked_for_only_where_it_may_be() -> None:
    assert sent(asked(), Toward(model="m", stream=True))[0]["stream_options"] == {"include_usage": True}
    assert "stream_options" not in sent(asked(), Toward(model="m", stream=True, stream_usage=False))[0]


def test_developer_is_a_word_of_openais_alone() -> None:
    assert messages(Message("developer", [Text("d")]))[0]["role"] == "developer"
    assert messages(Message("developer", [Text("d")]), toward=OTHER)[0]["role"] == "system"


def test_results_come_first_and_their_pictures_after_all_of_them() -> None:
    """A tool's message holds only text; each must follow the calls at once."""
    found = messages(
        Message(
            "user",
            [
                ToolResult("a", [Text("1"), Media("image", "AAAA", type="image/png")]),
                ToolResult("b", [Text("broken")], is_error=True),
                Text("go on"),
            ],
        )
    )
    assert [message["role"] for message in found] == ["tool", "tool", "user"]
    assert found[0]["content"] == "1\n(The image follows in the next message.)"
    assert found[1]["content"] == "Error: broken"
    assert [part["type"] for part in found[2]["content"]] == ["text", "image_url", "text"]


def test_thoughts_go_only_where_they_are_wanted() -> None:
    turn = Message("assistant", [Thinking("hm", "c2ln", origin="anthropic_messages"), Text("a")])
    assert messages(turn) == [{"role": "assistant", "content": "a"}]
    deepseek = Toward(model="deepseek-v4-pro", kind="deepseek", quirks=frozenset({"echo-reasoning"}))
    assert messages(turn, toward=deepseek)[0]["reasoning_content"] == "hm"
    assert messages(Message("assistant", [Text("a")]), toward=deepseek)[0]["reasoning_content"] == " ", "it must not be missing"
    off = asked(turn, reasoning=Reasoning(on=False))
    assert "reasoning_content" not in sent(off, deepseek)[0]["messages"][0]


def test_a_calls_signature_goes_back_to_google() -> None:
    """BerriAI/litellm 16893: lost, and the next turn is a 400."""
    call = ToolCall("a", "f", "{}", signature="c2ln", origin="gemini")
    google = Toward(model="gemini-3-pro", kind="gemini", quirks=frozenset({"echo-thought-signature"}))
    sent_back = messages(Message("assistant", [call]), toward=google)[0]["tool_calls"][0]
    assert sent_back["extra_content"] == {"google": {"thought_signature": "c2ln"}}
    assert "extra_content" not in messages(Message("assistant", [call]))[0]["tool_calls"][0]


def test_openrouters_details_go_back_as_they_came() -> None:
    router = Toward(model="x/y", kind="openrouter")
    detail = {"type": "reasoning.text", "text": "hm", "signature": "S", "format": "f", "index": 0}
    body = {"model": "m", "messages": [{"role": "assistant", "content": "a", "reasoning": "hm", "reasoning_details": [detail]}]}
    request = read(json.dumps(body).encode(), "m", stream=False)
    assert sent(request, router)[0]["messages"][0]["reasoning_details"] == [detail]


def test_names_and_ids_fit_the_host_and_stay_the_same() -> None:
    call = ToolCall("toolu_" + "x" * 60, "a.b/c", "")
    turns = (Message("assistant", [call]), Message("user", [ToolResult(call.id, [Text("r")])]))
    for toward in (OPENAI, Toward(model="m", kind="mistral", quirks=frozenset({"strict-fields"}))):
        said, result = messages(*turns, toward=toward)
        (sent_call,) = said["tool_calls"]
        assert sent_call["id"] == result["tool_call_id"]
        assert len(sent_call["id"]) <= (9 if toward.kind == "mistral" else 40)
        assert sent_call["function"]["name"].startswith("a_b_c_")
        assert sent_call["function"]["arguments"] == "{}", "agentgateway 3002: empty arguments are an object"


def test_a_tool_choice_matches_the_tool_that_was_renamed() -> None:
    """maximhq/bifrost 3596."""
    body, _ = sent(asked(tools=[Tool("a.b")], tool_choice=ToolChoice("tool", ("a.b",))))
    assert body["tool_choice"]["function"]["name"] == body["tools"][0]["function"]["name"]


def test_a_schema_is_carried_as_it_is() -> None:
    """envoyproxy/ai-gateway 2472."""
    schema = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/a"}},
        "$defs": {"a": {"const": 1.0}},
        "additionalProperties": False,
    }
    assert sent(asked(tools=[Tool("f", schema=schema)]))[0]["tools"][0]["function"]["parameters"] == schema


def test_tools_of_free_text() -> None:
    tool = Tool("g", custom=True)
    assert sent(asked(tools=[tool]))[0]["tools"] == [{"type": "custom", "custom": {"name": "g"}}]
    assert sent(asked(tools=[tool]), OTHER)[0]["tools"][0]["function"]["parameters"] == FREE_TEXT


def test_a_providers_own_tool_is_a_loss_elsewhere() -> None:
    """agentgateway 2804: one server tool made everything fail."""
    search = Tool("web_search", server=True, dialect="anthropic_messages", value={})
    body, losses = sent(asked(tools=[search], tool_choice=ToolChoice("auto")))
    assert losses == ["tools.web_search"]
    assert "tools" not in body
    assert "tool_choice" not in body


def test_allowed_tools_elsewhere_are_the_only_ones_offered() -> None:
    request = asked(tools=[Tool("f"), Tool("g")], tool_choice=ToolChoice("allowed", ("f",), True))
    body, losses = sent(request, OTHER)
    assert [tool["function"]["name"] for tool in body["tools"]] == ["f"]
    assert body["tool_choice"] == "required"
    assert losses == []


@pytest.mark.parametrize(
    "media",
    [
        Media("document", url="https://x/y.pdf"),
        Media("audio", url="https://x"),
        Media("image", file="file_1"),
        Media("document", file="f"),
    ],
)
def test_what_cannot_be_shown_is_refused_with_its_remedy(media: Media) -> None:
    with pytest.raises(CallerError, match="base64") as refused:
        messages(Message("user", [media]))
    assert refused.value.code == "caller_unsupported"


def test_documents() -> None:
    (found,) = messages(
        Message("user", [Media("document", text="body", name="T"), Media("document", "AA", type="application/pdf")])
    )
    assert found["content"] == [
        {"type": "text", "text": "<document>\nT\nbody\n</document>"},
        {"type": "file", "file": {"filename": "document.pdf", "file_data": "data:application/pdf;base64,AA"}},
    ]


def test_something_foreign_is_a_loss_and_its_words_stay() -> None:
    foreign = Foreign("anthropic_messages", "search_result", {"content": [{"type": "text", "text": "found"}]})
    body, losses = sent(asked(Message("user", [foreign])))
    assert losses == ["messages.content.search_result"]
    assert body["messages"][0]["content"] == "found"


def test_marks_go_to_routers_alone() -> None:
    """One plain string must not disable the others (maximhq/bifrost 7336)."""
    turns = (
        Message("system", [Text("s", Cache("1h"))]),
        Message("user", [Text("plain")]),
        Message("user", [Text("u", Cache())]),
    )
    router = Toward(model="x/y", kind="openrouter")
    found = messages(*turns, toward=router)
    assert found[0]["content"][0]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert found[2]["content"][0]["cache_control"] == {"type": "ephemeral"}
    assert sent(asked(*turns)) == sent(asked(*(Message(turn.role, [Text(turn.parts[0].text)]) for turn in turns)))  # type: ignore[union-attr]


def test_hosts_without_schemas_are_told_it_in_words() -> None:
    body, losses = sent(
        asked(Message("user", [Text("u")]), format=Format({"type": "object"})), Toward(model="m", kind="deepseek")
    )
    assert body["response_format"] == {"type": "json_object"}
    assert '{"type":"object"}' in body["messages"][0]["content"]
    assert losses == ["format"]


def test_a_long_user_is_told_apart_by_its_hash() -> None:
    """Claude Code's user ids are longer than OpenAI takes."""
    users = [sent(asked(user=f"{number}{'x' * 150}"))[0]["user"] for number in range(2)]
    assert len({*users}) == 2
    assert all(len(user) == 64 for user in users)


def test_what_had_no_word_goes_on_to_hosts_of_the_callers_shape() -> None:
    extras = {"min_p": 0.1, "messages.prefix": True}
    body, losses = sent(asked(dialect=DIALECT, extras=extras), OTHER)
    assert body["min_p"] == 0.1
    assert losses == ["messages.prefix"]
    assert sent(asked(extras=extras), OTHER)[1] == ["min_p", "messages.prefix"]
    strict = Toward(model="m", kind="mistral", quirks=frozenset({"strict-fields"}))
    assert sent(asked(dialect=DIALECT, extras={"min_p": 0.1}), strict)[1] == ["min_p"]


def test_refusals_and_empty_turns() -> None:
    assert messages(Message("assistant", [Refusal("no")])) == [{"role": "assistant", "content": None, "refusal": "no"}]
    assert messages(Message("assistant", [Refusal("no")]), toward=OTHER) == [{"role": "assistant", "content": "no"}]
    assert messages(Message("assistant", [])) == [{"role": "assistant", "content": ""}]
    assert messages(Message("system", [])) == []
