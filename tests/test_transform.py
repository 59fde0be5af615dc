"""Answers on their way into another shape, through the whole walk: what a relay promises holds here, too."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from anthropic.types import Message

from aigw.exchange import Receiver, UpstreamRequest
from aigw.protocols.translation.names import spoken
from tests.walk import (
    ANSWER,
    CONFIG,
    DONE,
    EVENTS,
    GOOD,
    JSON,
    KEY,
    USAGE_EVENT,
    Near,
    NoFlow,
    Walk,
    answers,
    attempts,
    chunk,
    event,
    lost,
    says,
    streams,
)

ASK = {"model": "chats", "max_tokens": 100, "messages": [{"role": "user", "content": "Why is the sky blue?"}]}
STREAMED = ASK | {"stream": True}
END = event({"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
MANY = f"""{CONFIG}
[providers.groq]
keys = ["gsk-one"]

[providers.mistral]
keys = ["mis-one"]

[routes.lossy]
targets = [{{provider = "openai", model = "gpt-6-sol"}}]

[routes.chats]
targets = [{{provider = "groq", model = "llama"}}]
fallback = [{{provider = "mistral", model = "small"}}]
retries = 1
"""


def walk(*plays: Any) -> Walk:
    return Walk(MANY, *plays)


def body_of(near: Near) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(near.body)
    return found


def events_of(near: Near) -> list[dict[str, Any]]:
    """The data of Anthropic's events."""
    return [json.loads(line[6:]) for line in near.body.decode().splitlines() if line.startswith("data: ")]


def text_of(near: Near) -> str:
    return "".join(event["delta"].get("text", "") for event in events_of(near) if event["type"] == "content_block_delta")


async def test_a_whole_answer() -> None:
    way = walk(GOOD)
    near, record = await way.ask(ASK, "messages")
    message = Message.model_validate_json(near.body)
    assert (message.content[0].type, message.stop_reason, message.usage.input_tokens) == ("text", "end_turn", 100)
    assert near.headers[b"content-type"] == b"application/json"
    assert (record.input, record.output, record.finish_reason) == (100, 10, "stop")
    assert record.answer_model == "gpt-fast-2026"
    sent = json.loads(bytes(way.transport.requests[0].body))
    assert b"/chat/completions" in way.transport.requests[0].target.wire
    assert (sent["model"], sent["messages"]) == ("llama", ASK["messages"])


async def test_a_stream() -> None:
    near, record = await walk(streams(chunk("Ray"), chunk("leigh."), END, USAGE_EVENT, DONE)).ask(STREAMED, "messages")
    assert near.headers[b"content-type"].startswith(b"text/event-stream")
    kinds = [event["type"] for event in events_of(near)]
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    assert text_of(near) == "Rayleigh."
    assert near.ended
    assert (record.input, record.output) == (100, 10)
    assert record.first_token is not None


async def test_a_stream_cut_at_every_byte_is_the_same() -> None:
    stream = b"".join([chunk("Räy"), chunk("leigh."), END, USAGE_EVENT, DONE])
    near, _ = await walk(streams(*[stream[at : at + 1] for at in range(len(stream))])).ask(STREAMED, "messages")
    assert text_of(near) == "Räyleigh."


async def test_a_tool_is_called_by_the_name_its_caller_gave_it() -> None:
    name = "files.read/all"
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": spoken(name), "arguments": '{"a":1}'}}
    ask = STREAMED | {"tools": [{"name": name, "input_schema": {"type": "object"}}]}
    calls = event({"id": "c", "choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}]})
    way = walk(streams(calls, END, USAGE_EVENT, DONE))
    near, _ = await way.ask(ask, "messages")
    started = [event["content_block"] for event in events_of(near) if event["type"] == "content_block_start"]
    assert [(block["type"], block["name"], block["id"]) for block in started] == [("tool_use", name, "call_1")]
    pieces = [event["delta"].get("partial_json", "") for event in events_of(near) if event["type"] == "content_block_delta"]
    assert "".join(pieces) == '{"a":1}'
    ends = [event["delta"]["stop_reason"] for event in events_of(near) if event["type"] == "message_delta"]
    assert ends == ["tool_use"]
    assert json.loads(bytes(way.transport.requests[0].body))["tools"][0]["function"]["name"] == spoken(name)


async def test_a_stream_for_who_wants_a_whole_answer() -> None:
    near, record = await walk(streams(chunk("Ray"), chunk("leigh."), END, USAGE_EVENT, DONE)).ask(ASK, "messages")
    message = Message.model_validate_json(near.body)
    assert [block.text for block in message.content if block.type == "text"] == ["Rayleigh."]
    assert record.output == 10


async def test_a_whole_answer_for_who_wants_a_stream() -> None:
    near, record = await walk(GOOD).ask(STREAMED, "messages")
    assert near.headers[b"content-type"].startswith(b"text/event-stream")
    assert text_of(near) == "Rayleigh."
    assert events_of(near)[-1]["type"] == "message_stop"
    assert record.output == 10


async def test_an_error_before_any_content_fails_over() -> None:
    error = event({"error": {"message": "overloaded", "type": "server_error"}})
    role = chunk("", choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}}])
    near, record = await walk(streams(role, error), streams(chunk("a"), END, DONE)).ask(STREAMED, "messages")
    assert near.status == 200
    assert text_of(near) == "a"
    assert [attempt["error"] is None or attempt["error"] == "" for attempt in attempts(record)][-1]
    assert len(attempts(record)) == 2


async def test_an_error_after_content_is_an_event_of_the_callers_dialect() -> None:
    error = event({"error": {"message": "overloaded", "type": "server_error"}})
    near, record = await walk(streams(chunk("a"), error, chunk("b"))).ask(STREAMED, "messages")
    last = events_of(near)[-1]
    assert last["type"] == "error"
    assert text_of(near) == "a"
    assert record.error
    assert len(attempts(record)) == 1, "what the caller has seen is not retried"


@pytest.mark.parametrize("then", [None, lost()])
async def test_a_stream_that_breaks_off_says_so(then: Exception | None) -> None:
    near, record = await walk(streams(chunk("a"), then=then)).ask(STREAMED, "messages")
    assert [event["type"] for event in events_of(near)][-1] == "error"
    assert b"message_stop" not in near.body
    assert record.error


async def test_a_stream_without_its_last_word_is_whole_when_it_said_why_it_ended() -> None:
    """agentgateway 2843: no [DONE]."""
    near, record = await walk(streams(chunk("a"), END)).ask(STREAMED, "messages")
    assert events_of(near)[-1]["type"] == "message_stop"
    assert not record.error


@pytest.mark.parametrize("body", [b"<html>", b"{}", b"[1]", b'{"choices":"none"}'])
async def test_what_is_no_answer_is_tried_elsewhere(body: bytes) -> None:
    near, record = await walk(answers(body), GOOD).ask(ASK, "messages")
    assert near.status == 200
    assert attempts(record)[0]["error"] == "provider_bad_response"


async def test_a_providers_error_comes_in_the_callers_words() -> None:
    near, _ = await walk(says(400, "too hot", type="invalid_request_error", code="bad_temperature")).ask(ASK, "messages")
    assert near.status == 400
    error = body_of(near)
    assert error["type"] == "error"
    assert error["error"]["type"] == "invalid_request_error"
    assert "too hot" in error["error"]["message"]


async def test_losses_are_told_in_the_header_and_the_record() -> None:
    near, record = await walk(GOOD).ask(ASK | {"model": "lossy", "temperature": 0.5, "top_k": 3}, "messages")
    assert near.status == 200
    assert near.headers[b"x-aigw-loss"] == b"temperature,top_k"
    assert record.loss == "temperature,top_k"
    near, record = await walk(GOOD).ask(ASK, "messages")
    assert b"x-aigw-loss" not in near.headers
    assert record.loss == ""


@pytest.mark.parametrize("how", ["header", "server"])
async def test_who_allows_no_loss_is_refused_with_its_names(how: str) -> None:
    way = walk(GOOD)
    if how == "server":
        way.pipeline.failover.attempter.lossless = True  # type: ignore[attr-defined]
    headers = {"x-aigw-lossy": "deny"} if how == "header" else {}
    near, _ = await way.ask(ASK | {"model": "lossy", "top_k": 3}, "messages", headers=headers)
    assert near.status == 400
    assert "top_k" in body_of(near)["error"]["message"]
    assert way.transport.requests == []


@pytest.mark.parametrize("stream", [False, True])
async def test_our_key_is_never_repeated_to_the_caller(stream: bool) -> None:
    echo = "your key is gsk-one-0123456789"
    config = MANY.replace('"gsk-one"', '"gsk-one-0123456789"')
    whole = json.loads(json.dumps(ANSWER).replace("Rayleigh.", echo))
    play = streams(chunk(echo), END, USAGE_EVENT, DONE) if stream else answers(whole)
    near, _ = await Walk(config, play).ask(ASK | {"stream": stream}, "messages")
    assert near.status == 200
    assert b"your key is" in near.body
    assert b"gsk-one-0123456789" not in near.body


async def test_a_slow_caller_pauses_the_provider() -> None:
    class Flow(NoFlow):
        paused = 0
        resumed = 0

        def pause(self) -> None:
            self.paused += 1

        def resume(self) -> None:
            self.resumed += 1

    flow, near = Flow(), Near()

    async def play(request: UpstreamRequest, receiver: Receiver) -> None:
        receiver.head(200, [EVENTS], flow)
        receiver.feed(chunk("a"))
        assert flow.paused == 1, "as soon as the caller is behind"
        assert near.resume is not None
        near.resume()
        assert flow.resumed == 1
        receiver.feed(END + DONE)
        await asyncio.sleep(0)

    near.write = lambda block: Near.write(near, block) or True  # type: ignore[method-assign]
    way = walk(play)

    async def receive() -> bytes:
        return json.dumps(STREAMED).encode()

    await way.pipeline.serve(way.exchange("messages", KEY), near, receive)
    assert near.ended


async def test_the_last_event_waits_for_the_record() -> None:
    way = walk(streams(chunk("a"), END, USAGE_EVENT, DONE))
    near, _ = await way.ask(STREAMED, "messages")
    assert way.journal.seen == [False], "many callers hang up when they have read it"
    assert near.ended


async def test_an_answer_beyond_all_bounds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aigw.transform.LARGEST", 100)
    near, record = await walk(GOOD).ask(ASK, "messages")
    assert near.status == 502, "nor is it from the next one"
    assert attempts(record)[0]["error"] == "provider_bad_response"


async def test_the_same_dialect_on_both_sides_stays_as_it_is() -> None:
    odd = b'{"model": "chats", "messages":[],"unknown":1.50,  "x":{"y":[ ]}}'
    way = walk(answers(b'{"choices":[], "odd" : 1.0e0}', 200, JSON))
    near, _ = await way.ask(odd)
    assert bytes(way.transport.requests[0].body) == odd.replace(b'"chats"', b'"llama"')
    assert near.body == b'{"choices":[], "odd" : 1.0e0}'


async def test_a_text_completion_from_a_provider_that_only_chats() -> None:
    way = walk(GOOD, streams(chunk("a"), END, USAGE_EVENT, DONE))
    near, record = await way.ask({"model": "mistral/small", "prompt": "Why?"}, "completions")
    assert body_of(near)["choices"][0]["text"] == "Rayleigh."
    assert b"/chat/completions" in way.transport.requests[0].target.wire
    assert record.output == 10
    near, _ = await way.ask({"model": "mistral/small", "prompt": "Why?", "stream": True}, "completions")
    assert near.body.endswith(b"data: [DONE]\n\n")
    assert b'"text":"a"' in near.body
