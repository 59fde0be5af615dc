"""What callers can ask for by passthrough: each operation, the path it has behind `/v1`, and the dialect it is written in."""

from __future__ import annotations

from typing import NamedTuple


class Operation(NamedTuple):
    """`path` is behind the version prefix on both sides of us. `streams`: `stream: true` gives server-sent events.
    `binary`: the answer is no JSON (speech), so it is relayed as it comes. `safe`: sending it twice hurts nobody but the
    wallet (images and speech are never sent again after the body went out)."""

    name: str
    path: str
    dialect: str
    streams: bool = False
    binary: bool = False
    safe: bool = True


OPERATIONS: dict[str, Operation] = {
    operation.name: operation
    for operation in (
        Operation("chat", "/chat/completions", "openai_chat", streams=True),
        Operation("completions", "/completions", "openai_chat", streams=True),
        Operation("embeddings", "/embeddings", "openai_chat"),
        Operation("responses", "/responses", "openai_responses", streams=True),
        Operation("images", "/images/generations", "openai_chat", streams=True, safe=False),
        Operation("speech", "/audio/speech", "openai_chat", streams=True, binary=True, safe=False),
        Operation("moderations", "/moderations", "openai_chat"),
        Operation("rerank", "/rerank", "openai_chat"),
        Operation("messages", "/messages", "anthropic_messages", streams=True),
        Operation("count_tokens", "/messages/count_tokens", "anthropic_messages"),
    )
}
