"""Whole walks between Gemini's API and others: bytes equal where both sides speak it, translated where they do not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.walk import ANSWER, DONE, KEY, USAGE_EVENT, Walk, answers, chunk, event, streams

CONFIG = f"""
[consumers.ci]
key = "{KEY}"
[providers.gemini]
keys = ["AIzaSy-our-own-key"]
[providers.openai]
keys = ["sk-one"]
[routes.g]
targets = [{{provider = "gemini", model = "gemini-3.8-flash"}}]
[routes.o]
targets = [{{provider = "openai", model = "gpt-6"}}]
[routes.alias]
targets = [{{provider = "gemini", model = "gemini-3.8-flash"}}]
response_model = "requested"
"""

PARTS = [{"text": "hm", "thought": True}, {"text": "Ray"}]
GEMINI: dict[str, Any] = {
    "candidates": [{"content": {"parts": PARTS, "role": "model"}, "finishReason": "STOP", "index": 0}],
    "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 3, "thoughtsTokenCount": 2, "totalTokenCount": 10},
    "modelVersion": "gemini-3.8-flash-001",
    "responseId": "r1",
}
CALL = {
    **GEMINI,
    "candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "c2ln"}]}}],
}
# odd spelling and numbers, and members that nobody knows
ODD = b'{ "contents":[{"parts":[{"text":"hi"}]}] , "generationConfig":{"temperature":1.50,"topK":3e0},"someday":{"x":1E2}}'
ASK = {"model": "g", "messages": [{"role": "user", "content": "hi"}]}
TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}},
}


def sse(*said: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(one).encode() + b"\r\n\r\n" for one in said)


async def test_bytes_go_through_where_both_sides_speak_it() -> None:
    """Request and answer untouched, the key in Google's header, the model in the path, usage read."""
    answer = json.dumps(GEMINI, indent=3).encode()
    walk = Walk(CONFIG, answers(answer))
    near, record = await walk.ask(ODD, "generate", requested_model="g")
    (sent,) = walk.transport.requests
    assert (sent.body, near.body) == (ODD, answer)
    assert sent.target.path == "/v1beta/models/gemini-3.8-flash:generateContent"
    assert b"x-goog-api-key: AIzaSy-our-own-key" in sent.target.wire
    assert b"authorization" not in sent.target.wire
    assert (record.input, record.output, record.reasoning, record.answer_model) == (5, 5, 2, "gemini-3.8-flash-001")
    assert record.loss == ""


async def test_bytes_of_both_kinds_of_streams_go_through() -> None:
    """Events by `alt=sse`, else the array; the record knows both."""
    events = sse(CALL, GEMINI)
    walk = Walk(CONFIG, streams(events[:70], events[70:]))
    near, record = await walk.ask(ODD, "generate", requested_model="g", stream=True)
    assert near.body == events
    assert walk.transport.requests[0].target.path == "/v1beta/models/gemini-3.8-flash:streamGenerateContent?alt=sse"
    assert (record.output, record.finish_reason, record.stream) == (5, "STOP", True)
    array = b"[" + json.dumps(CALL).encode() + b"\n,\r\n" + json.dumps(GEMINI).encode() + b"\n]"
    walk = Walk(CONFIG, answers(array))
    near, record = await walk.ask(ODD, "generate_array", requested_model="g", stream=True)
    assert near.body == array
    assert walk.transport.requests[0].target.path == "/v1beta/models/gemini-3.8-flash:streamGenerateContent"
    assert (record.output, record.finish_reason) == (5, "STOP")


async def test_an_array_that_breaks_ends_as_one() -> None:
    """With the error for its last element."""
    array = b"[" + json.dumps(CALL).encode() + b',\r\n{"error":{"code":503,"message":"overloaded","status":"UNAVAILABLE"}}]'
    near, record = await Walk(CONFIG, answers(array)).ask(ODD, "generate_array", requested_model="g", stream=True)
    first, last = json.loads(near.body)
    assert (first, last["error"]["status"]) == (CALL, "UNAVAILABLE")
    assert record.outcome == "provider_error"


async def test_an_answer_may_name_the_requested_model() -> None:
    """In the member that Gemini has for it."""
    near, _ = await Walk(CONFIG, answers(GEMINI)).ask(ODD, "generate", requested_model="alias")
    assert json.loads(near.body) == {**GEMINI, "modelVersion": "alias"}


async def test_openais_callers_reach_googles_own_openai_layer_as_they_are() -> None:
    """Nothing is translated that need not be."""
    walk = Walk(CONFIG, answers(ANSWER))
    await walk.ask(ASK, "chat")
    assert walk.transport.requests[0].target.path == "/v1beta/openai/chat/completions"
    assert b"authorization: Bearer AIzaSy" in walk.transport.requests[0].target.wire


@pytest.mark.parametrize("operation", ["messages", "responses"])
async def test_other_callers_reach_geminis_own_api(operation: str) -> None:
    """Its own shape says most: thoughts, signatures."""
    bodies: dict[str, dict[str, Any]] = {
        "messages": {"max_tokens": 99, "messages": ASK["messages"]},
        "responses": {"input": "hi"},
    }
    body = bodies[operation]
    walk = Walk(CONFIG, answers(GEMINI))
    near, record = await walk.ask({"model": "g", **body}, operation)
    assert near.status == 200, near.body
    assert walk.transport.requests[0].target.path == "/v1beta/models/gemini-3.8-flash:generateContent"
    assert json.loads(walk.transport.requests[0].body)["contents"] == [{"role": "user", "parts": [{"text": "hi"}]}]
    assert b"Ray" in near.body
    assert b"hm" in near.body
    assert (record.input, record.output, record.reasoning) == (5, 5, 2)


async def test_a_streamed_tool_and_its_signature_come_back_on_the_next_turn() -> None:
    """Claude's callers keep Gemini's signature for it, without knowing."""
    tools = [{"name": "f", "input_schema": TOOL["function"]["parameters"]}]  # type: ignore[index]
    first = {"model": "g", "max_tokens": 99, "tools": tools, "messages": ASK["messages"]}
    end = {**GEMINI, "candidates": [{"content": {"parts": [{"text": ""}]}, "finishReason": "STOP"}]}
    walk = Walk(CONFIG, streams(sse(CALL, end)))
    near, record = await walk.ask({**first, "stream": True}, "messages")
    assert b'"stop_reason":"tool_use"' in near.body
    assert record.finish_reason
    near, _ = await Walk(CONFIG, answers(json.dumps(CALL).encode())).ask(first, "messages")
    content = json.loads(near.body)["content"]
    call = next(block for block in content if block["type"] == "tool_use")
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": "done"}
    turns = [*ASK["messages"], {"role": "assistant", "content": content}, {"role": "user", "content": [result]}]
    walk = Walk(CONFIG, answers(GEMINI))
    await walk.ask({**first, "messages": turns}, "messages")
    model, user = json.loads(walk.transport.requests[0].body)["contents"][1:]
    assert model["parts"][-1]["thoughtSignature"] == "c2ln"
    assert user["parts"][0]["functionResponse"]["name"] == "f"


async def test_geminis_callers_reach_a_provider_of_openais_dialect() -> None:
    """Plain, and with a tool in a stream; what it cannot say is named."""
    walk = Walk(CONFIG, answers(ANSWER))
    near, record = await walk.ask({"contents": "hi", "generationConfig": {"topK": 4}}, "generate", requested_model="o")
    assert json.loads(near.body)["candidates"][0]["content"]["parts"] == [{"text": "Rayleigh."}]
    assert near.headers[b"x-aigw-loss"] == b"generationConfig.topK"
    assert (record.input, record.output) == (100, 10)

    def call(**piece: Any) -> bytes:
        delta = {"tool_calls": [{"index": 0, **piece}]}
        return event({"id": "c", "model": "gpt-6", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})

    last = event({"id": "c", "model": "gpt-6", "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    pieces = [call(id="c1", type="function", function={"name": "f", "arguments": ""}), call(function={"arguments": '{"a"'})]
    play = streams(chunk("Ray"), *pieces, call(function={"arguments": ":1}"}), last, USAGE_EVENT, DONE)
    near, record = await Walk(CONFIG, play).ask({"contents": "hi"}, "generate", requested_model="o", stream=True)
    said = [json.loads(line[6:]) for line in near.body.decode().split("\r\n\r\n") if line]
    parts = [part for one in said for part in one["candidates"][0]["content"]["parts"]]
    assert parts == [{"text": "Ray"}, {"functionCall": {"name": "f", "args": {"a": 1}, "id": "c1"}}, {"text": ""}]
    assert near.headers[b"content-type"].startswith(b"text/event-stream")
    assert (record.finish_reason, record.output, record.stream) == ("tool_calls", 10, True)


async def test_a_provider_that_fails_after_content_ends_a_translated_stream_with_geminis_error() -> None:
    """In events, and in the array."""
    broken = streams(chunk("Ray"), event({"error": {"message": "the engine fell over", "type": "server_error"}}))
    near, _ = await Walk(CONFIG, broken).ask({"contents": "hi"}, "generate", requested_model="o", stream=True)
    assert json.loads(near.body.split(b"data: ")[-1])["error"]["status"] == "UNAVAILABLE"
    near, _ = await Walk(CONFIG, broken).ask({"contents": "hi"}, "generate_array", requested_model="o", stream=True)
    assert "error" in json.loads(near.body)[-1]


async def test_a_list_of_bodies_names_the_new_model() -> None:
    """A batch of embeddings repeats the model inside."""
    body = {"requests": [{"model": "models/g", "content": {"parts": [{"text": "a"}]}}]}
    walk = Walk(CONFIG, answers({"embeddings": [{"values": [1.0]}]}))
    await walk.ask(body, "embed_gemini_batch", requested_model="g")
    assert json.loads(walk.transport.requests[0].body)["requests"][0]["model"] == "models/gemini-3.8-flash"
