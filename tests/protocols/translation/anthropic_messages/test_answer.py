"""Whole Messages answers: read from providers, and written so that Anthropic's own types take them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic.types import Message

from aigw.canonical import (
    Answer,
    Choice,
    Citation,
    Foreign,
    Media,
    Part,
    Refusal,
    Request,
    Spent,
    Text,
    Thinking,
    ToolCall,
)
from aigw.errors import CallerError
from aigw.protocols.translation.anthropic_messages import answer, blocks
from aigw.protocols.translation.contract import Reply

REPLY = Reply(request=Request(dialect=blocks.DIALECT, model="asked", messages=[]), id="req_7", model="", now=1.0)


def body(*content: dict[str, Any], stop: str = "end_turn", **more: Any) -> bytes:
    usage = {"input_tokens": 5, "cache_read_input_tokens": 7, "output_tokens": 3, "service_tier": "standard"}
    said = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "content": list(content)}
    return json.dumps(said | {"stop_reason": stop, "stop_sequence": None, "usage": usage} | more).encode()


def written(*parts: Part, **choice: Any) -> dict[str, Any]:
    said = Answer(id="x", model="m", choices=[Choice(list(parts), **choice)], spent=Spent(12, 7, output=3))
    found: dict[str, Any] = json.loads(answer.write(said, REPLY))
    Message.model_validate(found)
    return found


def test_an_answer_of_all_kinds() -> None:
    """Parts, end and usage; the record hears the provider's own words."""
    cited = {"type": "web_search_result_location", "url": "https://x.example", "title": "T", "cited_text": "w"}
    search = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    content = [
        {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "aGlk"},
        search,
        {"type": "text", "text": "a", "citations": [cited]},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"x": 1}},
    ]
    found, told = answer.read(body(*content, stop="tool_use"))
    (choice,) = found.choices
    assert choice.parts == [
        Thinking("hm", "c2ln", origin=blocks.DIALECT),
        Thinking(hidden="aGlk", origin=blocks.DIALECT),
        Foreign(blocks.DIALECT, "server_tool_use", search),
        Text("a", citations=[Citation("https://x.example", "T", "w")]),
        ToolCall("toolu_1", "f", '{"x":1}'),
    ]
    assert choice.finish == "tool_calls"
    assert (found.id, found.model, found.service_tier) == ("msg_1", "claude-x", "default")
    assert found.spent == Spent(12, 7, output=3)
    assert (told.finish_reason, told.usage.input if told.usage else 0) == ("tool_use", 12)


def test_a_call_without_arguments() -> None:
    """Is one with an empty object."""
    found, _ = answer.read(body({"type": "tool_use", "id": "t", "name": "f"}, stop="tool_use"))
    assert found.choices[0].parts == [ToolCall("t", "f", "{}")]


def test_the_tool_that_brings_json_is_the_text() -> None:
    """And the answer just ends."""
    found, _ = answer.read(body({"type": "tool_use", "id": "t", "name": blocks.JSON_TOOL, "input": {"a": 1}}, stop="tool_use"))
    assert (found.choices[0].parts, found.choices[0].finish) == ([Text('{"a":1}')], "stop")


def test_a_refusal() -> None:
    """With the provider's words for it."""
    found, _ = answer.read(body(stop="refusal", stop_details={"type": "refusal", "explanation": "cyber"}))
    assert (found.choices[0].parts, found.choices[0].finish) == ([Refusal("cyber")], "content_filter")


def test_a_stop_sequence() -> None:
    """Is named."""
    found, _ = answer.read(body({"type": "text", "text": "a"}, stop="stop_sequence", stop_sequence="END"))
    assert (found.choices[0].finish, found.choices[0].stop) == ("stop", "END")


@pytest.mark.parametrize("data", [b"<html>", b"[]", b'{"type":"message"}', b'{"content":"x"}', b""])
def test_what_is_no_answer(data: bytes) -> None:
    """Is said to be none."""
    with pytest.raises(ValueError):
        answer.read(data)


def test_an_answer_with_odd_members_is_read() -> None:
    """Half a surrogate pair, and blocks that are none."""
    data = b'{"content":[1,{"type":"text","text":"a\\ud83d"},{"x":1}],"stop_reason":"end_turn"}'
    assert answer.read(data)[0].choices[0].parts == [Text("a?")]


def test_written_for_callers() -> None:
    """Everything that has a word."""
    found = written(
        Thinking("hm", origin="openai_chat"),
        Text("a", citations=[Citation("https://x.example", "T")]),
        ToolCall("call_1", "f", '{"x":1}'),
        ToolCall("", "g", ""),
    )
    thought, text, first, second = found["content"]
    assert thought == {"type": "thinking", "thinking": "hm", "signature": ""}
    assert text["citations"][0]["url"] == "https://x.example"
    assert first == {"type": "tool_use", "id": "call_1", "name": "f", "input": {"x": 1}}
    assert (second["id"], second["input"]) == ("toolu_7_3", {})
    assert found["stop_reason"] == "tool_use"
    assert found["usage"]["input_tokens"] == 5
    assert found["model"] == "m"


def test_an_answer_that_says_nothing() -> None:
    """Is one all the same, with an id and a name."""
    found = json.loads(answer.write(Answer(choices=[]), REPLY))
    Message.model_validate(found)
    assert (found["id"], found["model"], found["content"], found["stop_reason"]) == ("msg_7", "asked", [], "end_turn")


def test_a_refusal_is_text() -> None:
    """With an end that says what it is."""
    found = written(Refusal("no"))
    assert (found["content"], found["stop_reason"]) == ([{"type": "text", "text": "no"}], "refusal")


def test_thought_signature_of_a_call_survives() -> None:
    """In a block before it, for its maker alone."""
    proof, call = written(ToolCall("c", "f", "{}", signature="Z2Vt", origin="gemini"))["content"]
    assert proof == blocks.signed_call("Z2Vt", "gemini")
    assert call["type"] == "tool_use"


def test_an_image_is_refused() -> None:
    """There is no block for one in an answer; nothing is dropped in silence."""
    with pytest.raises(CallerError, match="image"):
        written(Media("image", "x"))


def test_read_and_written_it_is_the_same() -> None:
    """Of an answer with every kind of block."""
    content = [
        {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
        {"type": "text", "text": "a"},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"x": 1}},
    ]
    given = json.loads(body(*content, stop="tool_use"))
    found = json.loads(answer.write(answer.read(json.dumps(given).encode())[0], REPLY))
    given["usage"]["cache_creation_input_tokens"] = 0
    assert found == given
