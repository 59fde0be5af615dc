"""Dify's four kinds of applications."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, strategies as st

from aigw.canonical import Event, Finished, Losses, Message, Request, Spent, SpentSoFar, Started, Text, TextDelta
from aigw.protocols.translation.contract import Toward
from aigw.protocols.translation.dify import Dify, written


def sent(kind: str, *, stream: bool = False, settings: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    talk = [Message("user", [Text("a")]), Message("assistant", [Text("b")]), Message("user", [Text("c")])]
    request = Request(dialect="openai_chat", model="m", messages=talk, **fields)
    toward = Toward(model="m", stream=stream, settings={"bot_type": kind, **(settings or {})})
    found: dict[str, Any] = json.loads(Dify().render_request(request, toward, Losses()))
    return found


def test_what_each_kind_is_sent() -> None:
    """A chat gets a query, the others an input; agents always stream; there is always a user."""
    talk = "USER:\na\n\nASSISTANT:\nb\n\nUSER:\nc"
    assert sent("Chat") == {"inputs": {}, "response_mode": "blocking", "user": "aigw", "query": talk}
    assert sent("agent")["response_mode"] == "streaming"
    assert sent("Completion", user="u") == {"inputs": {"query": talk}, "response_mode": "blocking", "user": "u"}
    assert sent("Workflow", stream=True, settings={"input_variable": "text"}, extras={"inputs": {"tone": "dry"}}) == {
        "inputs": {"tone": "dry", "text": talk},
        "response_mode": "streaming",
        "user": "aigw",
    }


def test_a_conversation_goes_on_by_the_last_answers_id() -> None:
    """Dify has the history then: only the last question is sent."""
    answer, _ = Dify().parse_answer(b'{"answer":"hi","conversation_id":"k1","message_id":"m1"}')
    assert answer.id == "k1:m1"
    body = sent("Chat", extras={"conversation_id": answer.id})
    assert (body["query"], body["conversation_id"]) == ("c", "k1")


def test_the_output_of_a_workflow() -> None:
    """The operator's variable, a usual name, the only one, or all of them."""
    assert written({"x": "1", "y": "2"}, "y") == "2"
    assert written({"x": "1", "text": "2"}, "") == "2"
    assert written({"x": {"a": 1}}, "") == '{"a":1}'
    assert written({"x": "1", "y": "2"}, "") == '{"x":"1","y":"2"}'
    shape = Dify().settled({"bot_type": "Workflow", "output_variable": "y"})
    answer, _ = shape.parse_answer(b'{"workflow_run_id":"w","data":{"status":"succeeded","outputs":{"x":"1","y":"2"}}}')
    assert answer.choices[0].parts == [Text("2")]
    with pytest.raises(ValueError):
        shape.parse_answer(b'{"workflow_run_id":"w","data":{"status":"failed","error":"x"}}')


CHATFLOW = b"".join(
    b"data: " + json.dumps(event).encode() + b"\n\n"
    for event in (
        {"event": "workflow_started", "conversation_id": "k1", "message_id": "m1"},
        {"event": "message", "answer": "Grüße", "conversation_id": "k1", "message_id": "m1"},
        {"event": "workflow_finished", "data": {"status": "succeeded", "outputs": {"answer": "Grüße"}}},
        {"event": "message_end", "metadata": {"usage": {"prompt_tokens": 3, "completion_tokens": 2}}},
    )
)


def read(*blocks: bytes, kind: str = "Chat") -> list[Event]:
    parser = Dify().settled({"bot_type": kind}).parser()
    return [event for block in blocks for event in parser.feed(block)] + parser.end()


@given(st.lists(st.integers(0, len(CHATFLOW)), max_size=6))
def test_a_chats_stream_cut_anywhere(cuts: list[int]) -> None:
    """A chat flow's workflow ends before its message does, and says nothing twice."""
    places = [0, *sorted(cuts), len(CHATFLOW)]
    assert read(*(CHATFLOW[start:end] for start, end in pairwise(places))) == [
        Started("k1:m1"),
        TextDelta("Grüße"),
        SpentSoFar(Spent(input=3, output=2)),
        Finished("stop"),
    ]


def test_a_workflow_that_does_not_stream_its_text() -> None:
    """Its output comes with its end; a failed one is an error."""
    ended = b'data: {"event":"workflow_finished","data":{"status":"succeeded","outputs":{"text":"hi"},"total_tokens":7}}\n\n'
    assert read(ended, kind="Workflow")[1:] == [TextDelta("hi"), SpentSoFar(Spent(input=7)), Finished("stop")]
    parser = Dify().settled({"bot_type": "Workflow"}).parser()
    parser.feed(b'data: {"event":"workflow_finished","data":{"status":"failed","error":"node 3"}}\n\n')
    assert b"node 3" in parser.failed
    parser = Dify().parser()
    parser.feed(b'data: {"event":"error","status":400,"code":"invalid_param","message":"no"}\n\n')
    assert b"invalid_param" in parser.failed
