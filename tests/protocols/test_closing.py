"""Streams that we cut end as their dialect's own do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aigw.exchange import Usage
from aigw.protocols import DIALECTS
from aigw.protocols.closing import closing

USAGE = Usage(input=100, output=20)
SAID = {"code": "policy_budget_exhausted", "message": "No more."}

BEGINNINGS = {
    "openai_chat": b'data: {"id":"c1","object":"chat.completion.chunk","created":7,"model":"m","choices":[{"index":0,'
    b'"delta":{"role":"assistant","content":"Ray"},"finish_reason":null}]}\n\n',
    "anthropic_messages": b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","model":"m",'
    b'"usage":{"input_tokens":100,"output_tokens":1}}}\n\n',
    "openai_responses": b'event: response.created\ndata: {"type":"response.created","response":{"id":"resp_1","model":"m",'
    b'"status":"in_progress","output":[]}}\n\n',
    "gemini": b'data: {"candidates":[{"content":{"parts":[{"text":"Ray"}]}}],"modelVersion":"m","responseId":"r1"}\r\n\r\n',
}


def end_of(dialect: str, sample: bytes = b"", block: int = 0) -> bytes:
    return closing(dialect, sample, USAGE, SAID["code"], SAID["message"], block=block)


def objects(events: bytes) -> list[dict[str, Any]]:
    lines = [line.removeprefix(b"data: ") for line in events.split(b"\n") if line.startswith(b"data: {")]
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("dialect", BEGINNINGS)
def test_our_own_tap_reads_it_as_an_end(dialect: str) -> None:
    """With its reason and usage, as it would read a provider's."""
    tap = DIALECTS[dialect].tap(hide_usage=False)
    tap.look(BEGINNINGS[dialect])
    tap.look(end_of(dialect, BEGINNINGS[dialect]))
    assert tap.told.finish_reason in ("length", "max_tokens", "max_output_tokens", "MAX_TOKENS")
    assert tap.told.usage is not None
    assert tap.told.usage.output == 20
    assert tap.failed == b""


@pytest.mark.parametrize("dialect", [*BEGINNINGS, "gemini_array"])
@pytest.mark.parametrize("sample", [b"", b"data: {cut", b"data: 5\n\n"])
def test_whatever_began(dialect: str, sample: bytes) -> None:
    """A beginning that tells nothing gives an end without its ids; our code stands in it."""
    assert b"policy_budget_exhausted" in end_of(dialect, sample)


def test_ids_are_those_of_the_stream() -> None:
    chat = objects(end_of("openai_chat", BEGINNINGS["openai_chat"]))[0]
    assert (chat["id"], chat["object"], chat["created"], chat["model"]) == ("c1", "chat.completion.chunk", 7, "m")
    assert chat["aigw_error"] == SAID
    assert end_of("openai_chat").endswith(b"data: [DONE]\n\n")
    response = objects(end_of("openai_responses", BEGINNINGS["openai_responses"]))[0]["response"]
    assert (response["id"], response["status"], response["usage"]["total_tokens"]) == ("resp_1", "incomplete", 120)
    gemini = objects(end_of("gemini", BEGINNINGS["gemini"]))[0]
    assert (gemini["responseId"], gemini["candidates"][0]["finishReason"]) == ("r1", "MAX_TOKENS")
    text = end_of("openai_chat", b'data: {"id":"c","object":"text_completion","choices":[{"text":"a"}]}\n\n')
    assert objects(text)[0]["choices"][0]["text"] == ""


def test_an_open_block_is_closed_first() -> None:
    """Anthropic's streams: block, message, in this order; none is open between blocks."""
    kinds = [one["type"] for one in objects(end_of("anthropic_messages", block=3))]
    assert kinds == ["content_block_stop", "message_delta", "message_stop"]
    assert objects(end_of("anthropic_messages", block=3))[0]["index"] == 3
    assert [one["type"] for one in objects(end_of("anthropic_messages", block=-1))] == ["message_delta", "message_stop"]


def test_an_array_stays_an_array() -> None:
    """Gemini's other kind of stream."""
    whole = b'[{"candidates":[]}' + end_of("gemini_array")
    assert json.loads(whole)[1]["candidates"][0]["finishReason"] == "MAX_TOKENS"
