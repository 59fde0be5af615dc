"""What callers of the Messages API write, read: every word of it is kept, or named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from aigw.canonical import Cache, Foreign, Losses, Media, Request, Text, Thinking, ToolCall, ToolChoice, ToolResult
from aigw.errors import CallerError
from aigw.protocols.translation import translator
from aigw.protocols.translation.anthropic_messages import blocks, request
from aigw.protocols.translation.contract import Toward

WIRE = Path(__file__).parents[3] / "wire/translation/messages"
AGENT: dict[str, Any] = json.loads((WIRE / "agent.json").read_text())


def read(**asked: Any) -> Request:
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]} | asked
    return request.read(json.dumps(body).encode(), "m", stream=False)


def content(*parts: dict[str, Any], role: str = "user") -> list[Any]:
    return read(messages=[{"role": role, "content": list(parts)}]).messages[0].parts


def test_an_agents_request() -> None:
    """Every kind of member that a coding agent sends."""
    found = request.read(json.dumps(AGENT).encode(), "gpt-test", stream=True)
    system, user, assistant, results = found.messages
    assert system.parts == [Text("You are an agent.", Cache("1h"))]
    assert user.parts == [Text("List the files."), Media("image", "iVBORw0KGgo=", type="image/png")]
    assert assistant.parts == [
        Thinking("Use ls.", "c2lnbmVk", origin=blocks.DIALECT),
        Thinking(hidden="aGlkZGVu", origin=blocks.DIALECT),
        Text("I look."),
        ToolCall("toolu_1", "Bash", '{"command":"ls","n":1}'),
        ToolCall("toolu_2", "Read"),
    ]
    assert results.parts[:2] == [
        ToolResult("toolu_1", [Text("a.txt")]),
        ToolResult("toolu_2", [Text("no such file")], is_error=True),
    ]
    assert [tool.name for tool in found.tools] == ["Bash", "Read", "web_search"]
    assert found.tools[2].server
    assert (found.tool_choice, found.parallel) == (ToolChoice("auto"), False)
    assert found.reasoning is not None
    assert (found.reasoning.adaptive, found.reasoning.effort, found.reasoning.shown) == (True, "high", "summarized")
    assert (found.max_tokens, found.user, found.stop) == (32000, "user_1", ["END"])
    assert found.extras == {"system.x-anthropic-billing-header": True, "context_management": AGENT["context_management"]}


def test_toward_openai_chat() -> None:
    """The golden pair: what a chat provider is sent."""
    found = request.read(json.dumps(AGENT).encode(), "gpt-test", stream=True)
    sent = json.loads(translator("chat").render_request(found, Toward(model="gpt-test", kind="openai"), Losses()))
    golden = json.loads((WIRE / "agent.chat.json").read_text())
    assert {name: sent[name] for name in golden} == golden
    assert [tool["function"]["name"] for tool in sent["tools"]] == ["Bash", "Read"]


def test_and_back_again() -> None:
    """Read and written in the same shape, it means the same."""
    asked = {name: value for name, value in AGENT.items() if name not in ("temperature", "service_tier")}
    asked["system"] = asked["system"][1:]
    losses = Losses()
    found = request.read(json.dumps(asked).encode(), "claude-opus-4-8", stream=True)
    toward = Toward(model="claude-opus-4-8", stream=True)
    sent = json.loads(translator("messages").render_request(found, toward, losses))
    assert not losses
    del asked["tools"][0]["eager_input_streaming"]
    asked["messages"][2]["content"][1]["content"] = "no such file"
    assert sent == asked | {"model": "claude-opus-4-8"}


def test_unknown_client_tools_are_refused_not_dropped() -> None:
    """Whoever offers one waits for its calls."""
    with pytest.raises(CallerError) as refused:
        read(tools=[{"type": "computer_20991231", "name": "computer"}])
    assert (refused.value.code, refused.value.param) == ("caller_unsupported", "tools[0].type")


def test_unknown_blocks_are_refused_not_dropped() -> None:
    """They may be what the question is about."""
    with pytest.raises(CallerError) as refused:
        content({"type": "hologram"})
    assert (refused.value.code, refused.value.param) == ("caller_unsupported", "messages[0].content[0].type")


@pytest.mark.parametrize("kind", ["web_search_20260318", "web_fetch_20250910", "code_execution_20260120", "mcp_toolset"])
def test_a_server_tool_does_not_break_everything(kind: str) -> None:
    """It is known as what it is, for a writer to leave out and name."""
    (tool,) = read(tools=[{"type": kind, "name": "it"}]).tools
    assert (tool.server, tool.value["type"]) == (True, kind)


def test_server_tools_at_work_in_the_history() -> None:
    """Kept as they came."""
    used = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
    found = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
    assert content(used, found, role="assistant") == [
        Foreign(blocks.DIALECT, "server_tool_use", used),
        Foreign(blocks.DIALECT, "web_search_tool_result", found),
    ]


def test_documents() -> None:
    """Each of their sources."""

    def document(**source: Any) -> Any:
        return content({"type": "document", "title": "T", "source": source, "citations": {"enabled": True}})[0]

    pdf = document(type="base64", media_type="application/pdf", data="JVBERg==")
    assert pdf == Media("document", "JVBERg==", type="application/pdf", name="T", cites=True)
    assert document(type="url", url="https://x.example/a.pdf").url == "https://x.example/a.pdf"
    assert document(type="file", file_id="file_1").file == "file_1"
    assert document(type="text", media_type="text/plain", data="words").text == "words"
    assert document(type="content", content=[{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]).text == "a\nb"
    with pytest.raises(CallerError):
        document(type="pigeon")


def test_search_results_are_documents() -> None:
    """They are the caller's own."""
    block = {"type": "search_result", "source": "https://x.example", "title": "T", "content": [{"type": "text", "text": "w"}]}
    assert content(block) == [Media("document", text="w", type="text/plain", name="T", context="https://x.example")]


def test_tool_results_with_images() -> None:
    """In their order."""
    image = {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}}
    (result,) = content({"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "see"}, image]})
    assert result.parts == [Text("see"), Media("image", url="https://x.example/a.png")]


def test_a_signature_that_belongs_to_a_call_finds_it_again() -> None:
    """Gemini signs calls, and wants the signature back with the call: it travels in a block before it."""
    proof = blocks.signed_call("Z2VtaW5p", "gemini")
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    assert content(proof, call, role="assistant") == [ToolCall("t", "f", signature="Z2VtaW5p", origin="gemini")]


def test_a_signature_that_belongs_to_a_text_finds_it_again() -> None:
    """Likewise, behind it."""
    proof = blocks.signed_text("Z2VtaW5p", "gemini")
    (text,) = content({"type": "text", "text": "a"}, proof, role="assistant")
    assert (text.signature, text.origin) == ("Z2VtaW5p", "gemini")


def test_thinking_of_both_kinds() -> None:
    """A budget, and a switch."""
    found = read(thinking={"type": "enabled", "budget_tokens": 2048}).reasoning
    assert found is not None
    assert (found.on, found.budget, found.adaptive) == (True, 2048, False)
    found = read(thinking={"type": "disabled"}).reasoning
    assert found is not None
    assert found.on is False
    assert read(thinking={"type": "between_tools"}).extras == {"thinking.type": "between_tools"}


@pytest.mark.parametrize("name", ["output_config", "output_format"])
def test_formats(name: str) -> None:
    """Where it stands now, and where it stood. Strict only if OpenAI's strict mode would take it."""
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}

    def of(schema: dict[str, Any]) -> Any:
        wanted = {"type": "json_schema", "schema": schema}
        return read(**{name: {"format": wanted} if name == "output_config" else wanted}).format

    assert (of(schema).schema, of(schema).strict) == (schema, True)
    assert of(schema | {"required": []}).strict is None


def test_defaults_are_no_loss() -> None:
    """Nulls, and what is so anyway."""
    found = read(service_tier="auto", speed="standard", container=None, mcp_servers=[], tools=None, stop_sequences=None)
    assert found.extras == {}
    assert found.service_tier == ""


def test_what_has_no_word_is_named() -> None:
    """By its path."""
    tool = {"name": "f", "input_schema": {"type": "object"}, "input_examples": [{"a": 1}], "defer_loading": True}
    found = read(container="c", metadata={"user_id": "u", "team": "x"}, output_config={"task_budget": 7}, tools=[tool])
    assert set(found.extras) == {
        "container",
        "metadata.team",
        "output_config.task_budget",
        "tools.input_examples",
        "tools.defer_loading",
    }


def test_mid_conversation_system_words() -> None:
    """Stay where they stand."""
    turns = [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]
    assert [message.role for message in read(messages=turns).messages] == ["user", "system"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{", None),
        (b"[]", None),
        (b'{"messages":' + b"[" * 10_000, None),
        (b"{}", "messages"),
        (b'{"messages":[1]}', "messages[0]"),
        (b'{"messages":[{"role":"tool","content":"x"}]}', "messages[0].role"),
        (b'{"messages":[{"role":"user"}]}', "messages[0].content"),
        (b'{"messages":[{"role":"user","content":[{}]}]}', "messages[0].content[0].type"),
        (b'{"messages":[{"role":"user","content":[{"type":"tool_use","id":"a","name":"b","input":"c"}]}]}',
         "messages[0].content[0].input"),
        (b'{"messages":[],"max_tokens":"many"}', "max_tokens"),
        (b'{"messages":[],"temperature":1e999}', None),
        (b'{"messages":[],"tool_choice":{"type":"maybe"}}', "tool_choice.type"),
        (b'{"messages":[],"thinking":{"type":"maybe"}}', "thinking.type"),
    ],
)  # fmt: skip
def test_nonsense_is_refused_by_name(body: bytes, param: str | None) -> None:
    """Never an exception of another kind."""
    with pytest.raises(CallerError) as refused:
        request.read(body, "m", stream=False)
    assert refused.value.status == 400
    assert refused.value.param == param or param is None


def test_half_a_surrogate_pair_is_read() -> None:
    """JavaScript cuts strings so."""
    found = request.read(b'{"messages":[{"role":"user","content":"a\\ud83d"}]}', "m", stream=False)
    assert found.messages[0].parts == [Text("a?")]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*sorted(AGENT), "type", "text"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(st.data())
def test_anything_is_read_or_refused(data: st.DataObject) -> None:
    """Whatever stands where: a CallerError at worst."""
    asked = json.loads(json.dumps(AGENT))
    place: Any = asked
    while True:
        key = data.draw(st.sampled_from(sorted(place)) if isinstance(place, dict) else st.integers(0, len(place) - 1))
        if not (isinstance(place[key], dict | list) and place[key]) or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(anything)
    try:
        request.read(msgspec.json.encode(asked), "m", stream=False)
    except CallerError:
        pass
