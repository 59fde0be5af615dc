"""The bytes of the benchmark: one question, one answer, one stream. The upstream sends them, the load clients check them.

Sizes are those of a short chat turn: a question of 300 bytes, an answer of 600, stream events of about 190.
"""

from __future__ import annotations

import functools
import json

MODEL = "gpt-bench"  # what callers ask for
CLAUDE = "claude-bench"  # and when they want the upstream that speaks Anthropic's dialect
UPSTREAM_MODEL = "gpt-bench-1"  # what a gateway that can route asks the upstream for
UPSTREAM_KEY = "sk-upstream-0123456789abcdef"
ANSWER_BYTES = 600
QUESTION_BYTES = 300


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def question(size: int = QUESTION_BYTES, *, stream: bool = False, chunks: int = 200, messages: int = 1) -> bytes:
    """A chat request of exactly *size* bytes. The upstream takes `max_tokens` as the number of content events of a stream.
    *messages* spreads the text over so many messages (an agent's long history, against one pasted file)."""
    body: dict[str, object] = {"model": MODEL, "messages": [], "max_tokens": chunks}
    if stream:
        body["stream"] = True
    parts: list[dict[str, str]] = [{"role": "user", "content": ""} for _ in range(messages)]
    body["messages"] = parts
    missing = size - len(_compact(body))
    if missing < 0:
        raise ValueError(f"a question with {messages} messages has at least {size - missing} bytes, not {size}")
    text = "All work and no play makes Jack a dull boy. "
    each, rest = divmod(missing, messages)
    for part in parts:
        part["content"] = (text * (each // len(text) + 1))[:each]
    parts[-1]["content"] += "." * rest
    return _compact(body)


def _answer() -> bytes:
    message: dict[str, object] = {"role": "assistant", "content": "", "refusal": None, "annotations": []}
    body = {
        "id": "chatcmpl-bench0123456789abcdef",
        "object": "chat.completion",
        "created": 1760000000,
        "model": UPSTREAM_MODEL,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": 42,
            "completion_tokens": 17,
            "total_tokens": 59,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        },
        "service_tier": "default",
        "system_fingerprint": "fp_bench",
    }
    message["content"] = "x" * (ANSWER_BYTES - len(_compact(body)))
    return _compact(body)


ANSWER = _answer()
assert len(ANSWER) == ANSWER_BYTES


@functools.cache
def content_event(number: int) -> bytes:
    """Content event *number* of a stream: numbered, so that a lost, doubled or swapped one is seen."""
    return (
        b'data: {"id":"chatcmpl-bench0123456789abcdef","object":"chat.completion.chunk","created":1760000000,'
        b'"model":"gpt-bench-1","choices":[{"index":0,"delta":{"content":" t%06d"},"logprobs":null,"finish_reason":null}]}\n\n'
    ) % number


FINISH_EVENT = (
    b'data: {"id":"chatcmpl-bench0123456789abcdef","object":"chat.completion.chunk","created":1760000000,'
    b'"model":"gpt-bench-1","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}\n\n'
)
USAGE_EVENT = (
    b'data: {"id":"chatcmpl-bench0123456789abcdef","object":"chat.completion.chunk","created":1760000000,'
    b'"model":"gpt-bench-1","choices":[],"usage":{"prompt_tokens":42,"completion_tokens":200,"total_tokens":242}}\n\n'
)
DONE_EVENT = b"data: [DONE]\n\n"


@functools.cache
def stream_body(chunks: int) -> bytes:
    """What a caller that did not ask for usage must receive, to the byte."""
    return b"".join(content_event(number) for number in range(chunks)) + FINISH_EVENT + DONE_EVENT


def _message() -> bytes:
    text = {"type": "text", "text": ""}
    body = {
        "id": "msg_bench0123456789abcdef",
        "type": "message",
        "role": "assistant",
        "model": UPSTREAM_MODEL,
        "content": [text],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 42, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0, "output_tokens": 17},
    }
    text["text"] = "x" * (ANSWER_BYTES - len(_compact(body)))
    return _compact(body)


MESSAGE = _message()
"""The answer in Anthropic's dialect."""
MESSAGE_START = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_bench0123456789abcdef","type":"message",'
    b'"role":"assistant","model":"gpt-bench-1","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":42,'
    b'"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":1}}}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n'
    b'event: ping\ndata: {"type": "ping"}\n\n'
)
MESSAGE_END = (
    b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},'
    b'"usage":{"output_tokens":200}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)


@functools.cache
def message_event(number: int) -> bytes:
    """As `content_event`, in Anthropic's dialect."""
    return (
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta",'
        b'"text":" t%06d"}}\n\n'
    ) % number
