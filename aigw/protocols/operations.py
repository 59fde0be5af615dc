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
    callers can ask for it; the others are shapes that only providers speak. `object`: what it makes or asks for is kept by the
    provider that made it (`routing/stateful.py`); `{id}` in the path is where the object's id stands, and no model is named
    then. `below`: the operation whose URL is the beginning of this one's; who serves that is asked for this."""

    name: str
    path: str
    dialect: str
    streams: bool = False
    binary: bool = False
    safe: bool = True
    family: str = ""
    door: bool = True
    method: str = "POST"
    object: str = ""
    below: str = ""


def _response(name: str, path: str, method: str = "POST") -> Operation:
    return Operation(name, path, "openai_responses", streams=True, method=method, object="response", below="responses")


OPERATIONS: dict[str, Operation] = {
    operation.name: operation
    for operation in (
        Operation("chat", "/chat/completions", "openai_chat", streams=True, family="conversation"),
        Operation("completions", "/completions", "openai_chat", streams=True, family="conversation"),
        Operation("embeddings", "/embeddings", "openai_chat", family="embeddings"),
        Operation("responses", "/responses", "openai_responses", streams=True, family="conversation", object="response"),
        _response("response_get", "/responses/{id}", "GET"),
        _response("response_delete", "/responses/{id}", "DELETE"),
        _response("response_cancel", "/responses/{id}/cancel"),
        _response("response_input_items", "/responses/{id}/input_items", "GET"),
        _response("response_input_tokens", "/responses/input_tokens"),
        _response("response_compact", "/responses/compact"),
        Operation("images", "/images/generations", "openai_chat", streams=True, safe=False),
        Operation("speech", "/audio/speech", "openai_chat", streams=True, binary=True, safe=False),
        Operation("moderations", "/moderations", "openai_chat"),
        Operation("rerank", "/rerank", "openai_chat", family="rerank"),
        Operation("messages", "/messages", "anthropic_messages", streams=True, family="conversation"),
        Operation("count_tokens", "/messages/count_tokens", "anthropic_messages", family="count"),
        # Gemini's, whose paths name the model; the answer is a stream by another path, not by a field
        Operation("generate", "/models/{model}:generateContent", "gemini", streams=True, family="conversation"),
        Operation(
            "generate_array", "/models/{model}:streamGenerateContent", "gemini_array", streams=True, family="conversation"
        ),
        Operation("count_gemini", "/models/{model}:countTokens", "gemini", family="count"),
        Operation("embed_gemini", "/models/{model}:embedContent", "gemini", family="embeddings"),
        Operation("embed_gemini_batch", "/models/{model}:batchEmbedContents", "gemini", family="embeddings"),
    )
}
