"""Through the whole pipeline: callers of Messages in front of a chat provider, and chat callers in front of Anthropic."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic.types import Message
from openai.types.chat import ChatCompletion

from tests.protocols.translation.anthropic_messages.test_parser import FULL
from tests.walk import ASK, CONFIG, DONE, GOOD, USAGE_EVENT, Walk, answers, chunk, event, lost, streams

ROUTES = '\n[routes.claude]\ntargets = [{provider = "anthropic", model = "claude-sonnet-4-5"}]\n'
TOOL = {"name": "f", "input_schema": {"type": "object", "properties": {"x": {"type": "integer"}}}}
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def piece(**delta: Any) -> bytes:
    return event({"id": "c", "model": "gpt-fast-2026", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})


def call(**function: str) -> bytes:
    return piece(tool_calls=[{"index": 0, "id": "call_1", "type": "function", "function": function}])


async def test_a_plain_answer_from_a_chat_provider() -> None:
    """Anthropic's SDK takes it; the caller is told what was left out, and so is the record."""
    walk = Walk(CONFIG, GOOD)
    near, record = await walk.ask(ASK | {"max_tokens": 9, "top_k": 5, "container": "c"}, "messages")
    message = Message.model_validate_json(near.body)
    assert (message.stop_reason, message.usage.input_tokens, message.usage.output_tokens) == ("end_turn", 100, 10)
    assert near.headers[b"x-aigw-loss"].decode() == record.loss
    assert "container" in record.loss
    assert (record.outcome, record.input, record.output) == ("ok", 100, 10)


async def test_a_tool_call_streams_from_a_chat_provider() -> None:
    """Text, then the call, then the end with the usage."""
    calls = [call(name="f", arguments=""), piece(tool_calls=[{"index": 0, "function": {"arguments": '{"x":1}'}}])]
    end = event({"id": "c", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    walk = Walk(CONFIG, streams(chunk("I call."), *calls, end, USAGE_EVENT, DONE))
    near, record = await walk.ask(ASK | {"max_tokens": 9, "stream": True, "tools": [TOOL]}, "messages")
    told = [json.loads(line.removeprefix("data: ")) for line in near.body.decode().split("\n") if line.startswith("data: ")]
    starts = [one["content_block"]["type"] for one in told if one["type"] == "content_block_start"]
    assert starts == ["text", "tool_use"]
    assert told[-2]["delta"]["stop_reason"] == "tool_use"
    assert told[-2]["usage"]["input_tokens"] == 100
    assert (near.headers[b"content-type"], near.ended) == (b"text/event-stream", True)
    assert (record.input, record.output, record.estimated) == (100, 10, False)


async def test_a_stream_that_breaks_ends_in_anthropics_words() -> None:
    """An error event; no end that would look like one."""
    walk = Walk(CONFIG, streams(chunk("Ray"), then=lost()))
    near, record = await walk.ask(ASK | {"max_tokens": 9, "stream": True}, "messages")
    assert near.body.count(b"event: error") == 1
    assert b"message_stop" not in near.body
    assert record.error == "provider_connection_lost"


async def test_anthropic_in_front_of_chat_callers() -> None:
    """The other way, with thoughts and a call; usage as OpenAI counts it."""
    said = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
            {"type": "text", "text": "Ray."},
            {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"x": 2}},
        ],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 5, "cache_read_input_tokens": 7, "output_tokens": 3},
    }
    walk = Walk(CONFIG + ROUTES, answers(said))
    near, record = await walk.ask(ASK | {"model": "claude", "reasoning_effort": "low", "tools": [FUNCTION]})
    found = ChatCompletion.model_validate_json(near.body)
    assert found.choices[0].finish_reason == "tool_calls"
    assert found.usage is not None
    assert (found.usage.prompt_tokens, record.input, record.cached) == (12, 12, 7)
    message = json.loads(near.body)["choices"][0]["message"]
    assert message["reasoning_content"] == "hm"

    # and its next turn brings the signed thought back, as it was
    turns = [*ASK["messages"], message, {"role": "tool", "tool_call_id": "toolu_1", "content": "r"}]  # type: ignore[misc]
    await walk.ask(ASK | {"model": "claude", "reasoning_effort": "low", "tools": [FUNCTION], "messages": turns})
    sent = json.loads(walk.transport.requests[1].body)
    assert sent["messages"][1]["content"][0] == said["content"][0]  # type: ignore[index]
    assert sent["thinking"]["type"] == "enabled"


@pytest.mark.parametrize("usage", [True, False])
async def test_anthropics_stream_for_chat_callers(usage: bool) -> None:
    """With its usage where it was asked for."""
    walk = Walk(CONFIG + ROUTES, streams(FULL[:100], FULL[100:]))
    options = {"stream_options": {"include_usage": True}} if usage else {}
    near, record = await walk.ask(ASK | {"model": "claude", "stream": True, "tools": [FUNCTION]} | options)
    chunks = [json.loads(line[6:]) for line in near.body.decode().split("\n") if line.startswith("data: {")]
    deltas = [choice["delta"] for one in chunks for choice in one["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == "Schön 雨"
    assert "".join(c["function"].get("arguments", "") for d in deltas for c in d.get("tool_calls", [])) == '{"x":1}{}'
    assert any("usage" in one and one["usage"] for one in chunks) is usage
    assert (record.input, record.output, record.finish_reason) == (12, 9, "tool_use")
