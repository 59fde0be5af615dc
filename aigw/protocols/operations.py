"""What callers can ask for and providers serve: each operation, the path it has behind `/v1`, and the dialect it is written in.

Operations of one `family` ask for the same thing in different shapes: a provider that serves one of them can answer the others
by translation (`protocols/translation/`).
"""

from __future__ import annotations

from typing import NamedTuple


class Operation(NamedTuple):
    """`path` is behind the version prefix on both sides of us; `{model}` in it is where the model's name stands. `streams`:
    `stream: true` gives server-sent events. `binary`: the answer is no JSON (speech), so it is relayed as it comes. `safe`:
    sending it twice hurts nobody but the wallet (images and speech are never sent again after the body went out). `door`:
    callers can ask for it; the others are shapes that only providers speak."""

    name: str
    path: str
    dialect: str
    streams: bool = False
    binary: bool = False
    safe: bool = True
    family: str = ""
    door: bool = True


OPERATIONS: dict[str, Operation] = {
    operation.name: operation
    for operation in (
        Operation("chat", "/chat/completions", "openai_chat", streams=True, family="conversation"),
        Operation("completions", "/completions", "openai_chat", streams=True, family="conversation"),
        Operation("embeddings", "/embeddings", "openai_chat", family="embeddings"),
        Operation("responses", "/responses", "openai_responses", streams=True, family="conversation"),
        Operation("images", "/images/generations", "openai_chat", streams=True, safe=False),
        Operation("speech", "/audio/speech", "openai_chat", streams=True, binary=True, safe=False),
        Operation("moderations", "/moderations", "openai_chat"),
        Operation("rerank", "/rerank", "openai_chat", family="rerank"),
        Operation("messages", "/messages", "anthropic_messages", streams=True, family="conversation"),
        Operation("count_tokens", "/messages/count_tokens", "anthropic_messages", family="count"),
    )
}
