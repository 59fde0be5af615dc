"""The end of a stream that we cut short: the events with which a dialect's own streams end when an answer has reached its
maximum, with the usage, and our code beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from aigw.exchange import Usage
from aigw.protocols import framing

_encode = msgspec.json.encode


def closing(dialect: str, sample: bytes, usage: Usage, code: str, message: str, *, block: int = 0) -> bytes:
    """The last events of a stream of *dialect*. *sample* is how it began: its ids are taken from there. *block* is the index
    of the content block that is open (Anthropic's streams; -1: none is)."""
    said = {"code": code, "message": message}
    if dialect == "anthropic_messages":
        return _messages(usage, said, block)
    if dialect == "openai_responses":
        return _responses(sample, usage, said)
    if dialect in ("gemini", "gemini_array"):
        return _gemini(dialect, sample, usage, said)
    return _chat(sample, usage, said)


def _chat(sample: bytes, usage: Usage, said: dict[str, str]) -> bytes:
    first = next(_objects(sample), {})
    event: dict[str, Any] = {name: first[name] for name in ("id", "object", "created", "model") if name in first}
    choice: dict[str, Any] = {"index": 0, "finish_reason": "length"}
    if first.get("object") == "text_completion":
        choice["text"] = ""
    else:
        choice["delta"] = {}
    counts = {"prompt_tokens": usage.input, "completion_tokens": usage.output, "total_tokens": usage.input + usage.output}
    event |= {"choices": [choice], "usage": counts, "aigw_error": said}
    return b"data: " + _encode(event) + b"\n\ndata: [DONE]\n\n"


def _messages(usage: Usage, said: dict[str, str], block: int) -> bytes:
    events: list[dict[str, Any]] = [{"type": "content_block_stop", "index": block}] if block >= 0 else []
    delta = {"stop_reason": "max_tokens", "stop_sequence": None}
    events.append({"type": "message_delta", "delta": delta, "usage": {"output_tokens": usage.output}, "aigw_error": said})
    events.append({"type": "message_stop"})
    return b"".join(b"event: " + str(one["type"]).encode() + b"\ndata: " + _encode(one) + b"\n\n" for one in events)


def _responses(sample: bytes, usage: Usage, said: dict[str, str]) -> bytes:
    begun = next((one["response"] for one in _objects(sample) if isinstance(one.get("response"), dict)), {"object": "response"})
    counts = {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cached},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }
    response = begun | {
        "status": "incomplete",
        "incomplete_details": {"reason": "max_output_tokens"},
        "usage": counts,
        "aigw_error": said,
    }
    event = {"type": "response.incomplete", "response": response}
    return b"event: response.incomplete\ndata: " + _encode(event) + b"\n\n"


def _gemini(dialect: str, sample: bytes, usage: Usage, said: dict[str, str]) -> bytes:
    first = next(_objects(sample), {})
    event: dict[str, Any] = {
        "candidates": [{"content": {"parts": [{"text": ""}], "role": "model"}, "finishReason": "MAX_TOKENS", "index": 0}],
        "usageMetadata": {
            "promptTokenCount": usage.input,
            "candidatesTokenCount": usage.output,
            "totalTokenCount": usage.input + usage.output,
        },
        "aigwError": said,
    }
    event |= {name: first[name] for name in ("modelVersion", "responseId") if name in first}
    if dialect == "gemini_array":
        return b",\r\n" + _encode(event) + b"\n]"
    return b"data: " + _encode(event) + b"\n\n"


def _objects(sample: bytes) -> Iterator[dict[str, Any]]:
    """The events of a stream's beginning, as far as they are whole."""
    for event in framing.split(sample):
        data = framing.data(event)
        if data[:1] != b"{":
            continue
        try:
            found = msgspec.json.decode(data)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            yield found
