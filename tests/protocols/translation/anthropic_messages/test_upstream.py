"""Messages requests for providers: what each Claude takes, in the order that is wanted; what cannot be said is named."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from anthropic.types import message_create_params
from pydantic import TypeAdapter

from aigw.canonical import (
    Cache,
    Foreign,
    Format,
    Losses,
    Media,
    Message,
    Part,
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
from aigw.protocols.translation.anthropic_messages import blocks, upstream
from aigw.protocols.translation.contract import Toward

OLD, NEW, NEWEST = "claude-sonnet-4-5", "claude-opus-4-8", "claude-opus-5-5"
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
TOOL = Tool("f", "does", {"type": "object", "properties": {}})
VALID = TypeAdapter(message_create_params.MessageCreateParamsNonStreaming)


def asked(*messages: Message, **fields: Any) -> Request:
    said = list(messages) or [Message("user", [Text("Hi")])]
    return Request(**{"dialect": "openai_chat", "model": "m", "messages": said} | fields)


def user(*parts: Part) -> Message:
    return Message("user", list(parts))


def said(*parts: Part) -> Message:
    return Message("assistant", list(parts))


def write(request: Request, model: str = OLD, **toward: Any) -> tuple[dict[str, Any], list[str]]:
    losses = Losses()
    sent: dict[str, Any] = json.loads(upstream.write(request, Toward(model=model, **toward), losses))
    VALID.validate_python(sent)
    return sent, list(losses)


def test_every_field_is_said_or_told() -> None:
    """Of all that a request can hold: none is dropped in silence."""
    full: dict[str, Any] = {
        "seed": 1,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.5,
        "logprobs": True,
        "top_logprobs": 2,
        "logit_bias": {"1": 2},
        "verbosity": "low",
        "metadata": {"a": "b"},
    }
    known = {"modalities": ["text"], "audio": {"voice": "x"}, "store": True, "extras": {"weird": 1}}
    assert set(full) == set(Request.__struct_fields__) - upstream.SAID
    _, losses = write(asked(**full, **known))
    assert set(losses) == {*full, "audio", "store", "weird"}


def test_the_plainest() -> None:
    """A limit is always needed: the longest answer of the model."""
    sent, losses = write(asked(Message("system", [Text("Be brief.")]), user(Text("Hi"))))
    messages = [{"role": "user", "content": "Hi"}]
    assert sent == {"model": OLD, "max_tokens": 64000, "system": "Be brief.", "messages": messages}
    assert losses == []


def test_all_leading_words_of_the_system_are_joined() -> None:
    """Developers' too, with their marks."""
    first, second = Message("system", [Text("a", Cache("1h"))]), Message("developer", [Text("b")])
    sent, _ = write(asked(first, second, user(Text("Hi"))))
    mark = {"type": "ephemeral", "ttl": "1h"}
    assert sent["system"] == [{"type": "text", "text": "a", "cache_control": mark}, {"type": "text", "text": "b"}]


def test_later_words_of_the_system() -> None:
    """In their place where the model knows such turns, else a user's."""
    turns = asked(user(Text("a")), Message("system", [Text("b")]), said(Text("c")), user(Text("d")))
    assert [turn["role"] for turn in write(turns, NEW)[0]["messages"]] == ["user", "system", "assistant", "user"]
    sent, _ = write(turns, OLD)
    assert [turn["role"] for turn in sent["messages"]] == ["user", "assistant", "user"]
    assert [block["text"] for block in sent["messages"][0]["content"]] == ["a", "b"]


def test_turns_of_one_role_become_one_and_results_come_first() -> None:
    """Empty texts are refused there, so they are left out."""
    sent, losses = write(
        asked(
            user(Text("a")),
            user(Text(""), Text(" \n")),
            said(Text("", None), ToolCall("t1", "f", '{"x":1}'), ToolCall("t2", "f", "")),
            user(Text("and"), ToolResult("t1", [Text("r")])),
            user(ToolResult("t2", [], is_error=True)),
            tools=[TOOL],
        )
    )
    assert sent["messages"] == [
        {"role": "user", "content": "a"},
        {
            "role": "assistant",
            "content": [
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"x": 1}},
                {"type": "tool_use", "id": "t2", "name": "f", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "r"},
                {"type": "tool_result", "tool_use_id": "t2", "is_error": True},
                {"type": "text", "text": "and"},
            ],
        },
    ]
    assert losses == []


def test_one_plain_string_does_not_disable_all_marks() -> None:
    """The others keep theirs; of more than four the last ones count."""
    marked = [user(Text(f"{number}", Cache())) for number in range(6)]
    sent, _ = write(asked(user(Text("plain")), *marked))
    assert [("cache_control" in block) for block in sent["messages"][0]["content"]] == [False] * 3 + [True] * 4


def test_arguments_that_are_no_object() -> None:
    """A model once wrote nonsense: the conversation goes on."""
    calls = [ToolCall(f"t{at}", "f", text) for at, text in enumerate(("{broken", "[1]", '"x"', "\ud83d"))]
    sent, _ = write(asked(user(Text("a")), said(*calls), user(Text("b")), tools=[TOOL]))
    inputs = [block["input"] for block in sent["messages"][1]["content"]]
    assert inputs == [{"arguments": "{broken"}, {"arguments": [1]}, {"arguments": "x"}, {"arguments": "?"}]


def test_ids_and_names_that_are_refused_there() -> None:
    """Become others, the same in each place and each turn."""
    tool = Tool("files.read now", "", None)
    turns = [user(Text("a")), said(ToolCall("call/1:2", tool.name)), user(ToolResult("call/1:2", [Text("r")]))]
    sent, _ = write(asked(*turns, tools=[tool], tool_choice=ToolChoice("tool", (tool.name,))))
    call, result = sent["messages"][1]["content"][0], sent["messages"][2]["content"][0]
    assert call["id"] == result["tool_use_id"]
    assert call["name"] == sent["tools"][0]["name"] == sent["tool_choice"]["name"]
    assert call["name"].replace("_", "").isalnum()
    assert write(asked(*turns, tools=[tool]))[0]["messages"] == sent["messages"]


@pytest.mark.parametrize(
    ("choice", "parallel", "wanted"),
    [
        (None, None, None),
        (ToolChoice("auto"), None, {"type": "auto"}),
        (ToolChoice("required"), None, {"type": "any"}),
        (ToolChoice("none"), False, {"type": "none"}),
        (ToolChoice("tool", ("f",)), False, {"type": "tool", "name": "f", "disable_parallel_tool_use": True}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        (ToolChoice("allowed", ("f",), must=True), None, {"type": "any"}),
    ],
)
def test_tool_choice_matches_the_tools(choice: ToolChoice | None, parallel: bool | None, wanted: Any) -> None:
    """Of tools that may be called the others are not offered."""
    sent, losses = write(asked(tools=[TOOL, Tool("g")], tool_choice=choice, parallel=parallel))
    assert (sent.get("tool_choice"), losses) == (wanted, [])
    assert len(sent["tools"]) == (1 if choice is not None and choice.mode == "allowed" else 2)


def test_a_forced_tool_where_none_can_be_forced() -> None:
    """It is offered, and the loss told."""
    sent, losses = write(asked(tools=[TOOL], tool_choice=ToolChoice("required")), NEWEST)
    assert (sent["tool_choice"], losses) == ({"type": "auto"}, ["tool_choice"])


def test_tools_of_all_kinds() -> None:
    """Schemas as they are; free text as one string; a provider's own tools only there."""
    loose = {"properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {}}}
    own = Tool("web_search", server=True, dialect=blocks.DIALECT, value={"type": "web_search_20250305", "name": "web_search"})
    other = Tool("file_search", server=True, dialect="openai_responses", value={"type": "file_search"})
    given = [Tool("a", "", loose, True), Tool("b"), Tool("c", custom=True), own, other]
    sent, losses = write(asked(tools=given))
    assert sent["tools"] == [
        {"name": "a", "input_schema": {**loose, "type": "object"}, "strict": True},
        {"name": "b", "input_schema": {"type": "object", "properties": {}}},
        {
            "name": "c",
            "input_schema": {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]},
        },
        own.value,
    ]
    assert losses == ["tools.file_search"]


def test_a_history_of_calls_without_tools() -> None:
    """Is refused there, so they are named; none may be called."""
    turns = [user(Text("a")), said(ToolCall("t", "f")), user(ToolResult("t", [Text("r")]))]
    sent, _ = write(asked(*turns))
    assert sent["tools"] == [{"name": "f", "input_schema": {"type": "object"}}]
    assert sent["tool_choice"] == {"type": "none"}


def test_thoughts_go_back_only_to_who_signed_them() -> None:
    """Others' would be refused; so would unsigned ones."""
    own, hidden = Thinking("a", "c2ln", origin=blocks.DIALECT), Thinking(hidden="aGlk", origin=blocks.DIALECT)
    foreign, unsigned = Thinking("b", "x", origin="gemini"), Thinking("c", origin="openai_chat")
    sent, losses = write(asked(user(Text("q")), said(own, hidden, foreign, unsigned, Text("z")), user(Text("q"))))
    assert sent["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "a", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "aGlk"},
        {"type": "text", "text": "z"},
    ]
    assert losses == []


def test_thinking_by_generation() -> None:
    """A budget for the older ones, an effort for the newer ones; shown to those who wait for it."""
    high = Reasoning(effort="high")
    assert write(asked(reasoning=high))[0]["thinking"] == {"type": "enabled", "budget_tokens": 4096}
    sent, _ = write(asked(reasoning=high), NEW)
    assert sent["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert sent["output_config"] == {"effort": "high"}
    sent, _ = write(asked(reasoning=Reasoning(on=True, budget=20_000)), NEW)
    assert sent["output_config"] == {"effort": "high"}
    assert write(asked(reasoning=high), "claude-3-5-haiku-latest")[1] == ["reasoning"]
    assert write(asked(reasoning=Reasoning(effort="minimal"), max_tokens=1024))[1] == ["reasoning"]
    assert write(asked(reasoning=Reasoning(effort="max"), max_tokens=2000))[0]["thinking"]["budget_tokens"] == 1999


def test_thinking_that_shall_not_be() -> None:
    """Said where it can be."""
    off = Reasoning(effort="none")
    assert "thinking" not in write(asked(reasoning=off))[0]
    assert write(asked(reasoning=off), NEW)[0]["thinking"] == {"type": "disabled"}
    assert write(asked(reasoning=off), NEWEST)[1] == ["reasoning"]


def test_thinking_blocks_lost_on_the_way_do_not_wedge_the_tool_loop() -> None:
    """Such a turn would be refused with thinking; it goes on without."""
    loop = [user(Text("a")), said(ToolCall("t", "f")), user(ToolResult("t", [Text("r")]))]
    sent, losses = write(asked(*loop, tools=[TOOL], reasoning=Reasoning(effort="low")))
    assert ("thinking" in sent, losses) == (False, ["reasoning"])
    loop[1].parts.insert(0, Thinking("a", "c2ln", origin=blocks.DIALECT))
    assert "thinking" in write(asked(*loop, tools=[TOOL], reasoning=Reasoning(effort="low")))[0]


def test_thinking_and_a_forced_tool() -> None:
    """Both at once are refused: the tool is the firmer wish."""
    sent, losses = write(asked(tools=[TOOL], tool_choice=ToolChoice("required"), reasoning=Reasoning(effort="low")))
    assert ("thinking" in sent, sent["tool_choice"], losses) == (False, {"type": "any"}, ["reasoning"])


def test_sampling() -> None:
    """Within what the model takes."""
    sent, losses = write(asked(temperature=1.5, top_k=3, stop=["a", " "]), "claude-3-5-sonnet-latest")
    assert (sent["temperature"], sent["top_k"], sent["stop_sequences"], losses) == (1, 3, ["a"], ["temperature", "stop"])
    sent, losses = write(asked(temperature=0.5, top_p=0.5))
    assert (sent["temperature"], "top_p" in sent, losses) == (0.5, False, ["top_p"])
    for model, version in ((NEW, ""), (OLD, upstream.NEWER)):
        sent, losses = write(asked(temperature=0.5, top_p=0.5, top_k=1), model, dialect_version=version)
        assert losses == ["temperature", "top_p", "top_k"]
        assert not {"temperature", "top_p", "top_k"} & set(sent)
        assert write(asked(temperature=1.0, top_p=1.0), model)[1] == []


def test_a_format_is_said_where_it_can_be() -> None:
    """In the request, by a forced tool, or in words: as much as the model and the rest of the request allow."""
    form = Format(SCHEMA, "answer")
    assert write(asked(format=form))[0]["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}}
    old = "claude-3-5-sonnet-latest"
    sent, losses = write(asked(format=form), old)
    assert (sent["tools"][0]["name"], sent["tool_choice"]["name"]) == (blocks.JSON_TOOL, blocks.JSON_TOOL)
    assert losses == []
    assert write(asked(format=form, tools=[TOOL]), old)[0]["tool_choice"] == {"type": "any"}
    sent, losses = write(asked(format=form, reasoning=Reasoning(effort="low")), "claude-3-7-sonnet-latest")
    assert ("tools" in sent, losses) == (False, ["format"])
    assert json.dumps(SCHEMA, separators=(",", ":")) in sent["system"]
    sent, losses = write(asked(format=Format()), NEW)
    assert "JSON" in sent["system"]
    assert losses == ["format"]


def test_media() -> None:
    """Images and documents by their bytes or their address; of a text its words."""
    png = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
    text = base64.b64encode(b"words").decode()
    sent, losses = write(
        asked(
            user(
                Media("image", png),
                Media("image", url="https://x.example/a.png", detail="low"),
                Media("document", "JVBERg==", type="application/pdf", name="T", cites=True, cache=Cache()),
                Media("document", text, type="text/markdown"),
            )
        )
    )
    image, linked, pdf, plain = sent["messages"][0]["content"]
    assert image["source"] == {"type": "base64", "media_type": "image/png", "data": png}
    assert linked["source"] == {"type": "url", "url": "https://x.example/a.png"}
    assert (pdf["title"], pdf["citations"], pdf["cache_control"]) == ("T", {"enabled": True}, {"type": "ephemeral"})
    assert plain["source"] == {"type": "text", "media_type": "text/plain", "data": "words"}
    assert losses == ["messages.content.detail"]


@pytest.mark.parametrize(
    "request_",
    [
        asked(user(Media("audio", "x"))),
        asked(user(Media("image", file="file-1"))),
        asked(user(Media("document", "x", type="application/msword"))),
        asked(Message("system", [Media("image", "x")]), user(Text("a"))),
        asked(n=2),
        asked(modalities=["text", "audio"]),
    ],
)
def test_what_must_not_be_left_out_is_refused(request_: Request) -> None:
    """With what to do instead."""
    with pytest.raises(CallerError) as refused:
        write(request_)
    assert refused.value.code == "caller_unsupported"


def test_an_answer_that_was_begun() -> None:
    """Goes on where the model takes that (never with white space at its end), and is refused where it does not."""
    begun = asked(user(Text("a")), said(Text("The answer is ")))
    assert write(begun)[0]["messages"][-1] == {"role": "assistant", "content": "The answer is"}
    with pytest.raises(CallerError, match="End `messages`"):
        write(begun, NEW)


def test_a_conversation_that_the_assistant_opens() -> None:
    """Is refused there: a user's turn that says nothing stands before it."""
    assert write(asked(said(Text("Hello!")), user(Text("Hi"))))[0]["messages"][0]["role"] == "user"
    with pytest.raises(CallerError, match="says nothing"):
        write(asked(user(Text(" "))))


def test_users() -> None:
    """Whose name is an address is not told: it would be refused."""
    assert write(asked(user="u1"))[0]["metadata"] == {"user_id": "u1"}
    assert write(asked(user="a@b.example"))[1] == ["user"]


def test_tiers() -> None:
    """Only one has a word."""
    assert write(asked(service_tier="default"))[0]["service_tier"] == "standard_only"
    assert write(asked(service_tier="flex"))[1] == ["service_tier"]


def test_other_providers_doings() -> None:
    """Are named; our own go back as they came."""
    own = Foreign(blocks.DIALECT, "server_tool_use", {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}})
    other = Foreign("gemini", "executableCode", {})
    sent, losses = write(asked(user(Text("a")), said(own, other, Refusal("no")), user(Text("b"))))
    assert sent["messages"][1]["content"] == [own.value, {"type": "text", "text": "no"}]
    assert losses == ["messages.content.executableCode"]
