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
    then; `{item}` is something inside it. `below`: the operation whose URL is the beginning of this one's; who serves that is
    asked for this. `form`: the body may be a form with files, and is passed on while it arrives (`exchange.Upload`).
    `placed`: it names neither a model nor an object, so what it refers to, a header or the config's order says where it goes.
    `makes`: its answer may tell of further objects (a batch of its files). `mixed`: the answer may be JSON or anything else."""

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
    polls: bool = False
    form: bool = False
    placed: bool = False
    makes: bool = False
    mixed: bool = False


def _response(name: str, path: str, method: str = "POST") -> Operation:
    return Operation(name, path, "openai_responses", streams=True, method=method, object="response", below="responses")


def _kept(
    kind: str, name: str, path: str, *, dialect: str = "openai_chat", form: bool = False, model: bool = False
) -> list[Operation]:
    """What each collection of kept objects has: make one, list them, look at one."""
    return [
        Operation(name, path, dialect, safe=False, object=kind, form=form, placed=not model),
        Operation(f"{kind}_list", path, "openai_chat", method="GET", object=kind, below=name, placed=True),
        Operation(f"{kind}_get", path + "/{id}", dialect, method="GET", object=kind, below=name, makes=True),
    ]


def _of(
    kind: str,
    below: str,
    word: str,
    path: str,
    method: str = "POST",
    *,
    safe: bool = False,
    binary: bool = False,
    form: bool = False,
    makes: bool = False,
) -> Operation:
    """One more thing to be done with such an object. Looking and deleting hurts nobody twice."""
    return Operation(
        f"{kind}_{word}",
        path,
        "openai_chat",
        method=method,
        object=kind,
        below=below,
        safe=safe or method != "POST",
        binary=binary,
        form=form,
        makes=makes,
    )


_STORE = "/vector_stores/{id}"

_OBJECTS = (
    *_kept("file", "files", "/files", form=True),
    _of("file", "files", "delete", "/files/{id}", "DELETE"),
    _of("file", "files", "content", "/files/{id}/content", "GET", binary=True),
    *_kept("upload", "uploads", "/uploads")[:1],
    _of("upload", "uploads", "parts", "/uploads/{id}/parts", form=True),
    _of("upload", "uploads", "complete", "/uploads/{id}/complete", makes=True),
    _of("upload", "uploads", "cancel", "/uploads/{id}/cancel"),
    *_kept("batch", "batches", "/batches", dialect="openai_responses"),
    _of("batch", "batches", "cancel", "/batches/{id}/cancel", makes=True),
    *_kept("job", "fine_tuning", "/fine_tuning/jobs"),
    _of("job", "fine_tuning", "cancel", "/fine_tuning/jobs/{id}/cancel"),
    _of("job", "fine_tuning", "pause", "/fine_tuning/jobs/{id}/pause"),
    _of("job", "fine_tuning", "resume", "/fine_tuning/jobs/{id}/resume"),
    _of("job", "fine_tuning", "events", "/fine_tuning/jobs/{id}/events", "GET"),
    _of("job", "fine_tuning", "checkpoints", "/fine_tuning/jobs/{id}/checkpoints", "GET"),
    *_kept("vector_store", "vector_stores", "/vector_stores"),
    _of("vector_store", "vector_stores", "change", _STORE),
    _of("vector_store", "vector_stores", "delete", _STORE, "DELETE"),
    _of("vector_store", "vector_stores", "search", _STORE + "/search", safe=True),
    _of("vector_store", "vector_stores", "add_file", _STORE + "/files"),
    _of("vector_store", "vector_stores", "files", _STORE + "/files", "GET"),
    _of("vector_store", "vector_stores", "file", _STORE + "/files/{item}", "GET"),
    _of("vector_store", "vector_stores", "file_change", _STORE + "/files/{item}"),
    _of("vector_store", "vector_stores", "file_delete", _STORE + "/files/{item}", "DELETE"),
    _of("vector_store", "vector_stores", "file_content", _STORE + "/files/{item}/content", "GET"),
    _of("vector_store", "vector_stores", "add_batch", _STORE + "/file_batches"),
    _of("vector_store", "vector_stores", "batch", _STORE + "/file_batches/{item}", "GET"),
    _of("vector_store", "vector_stores", "batch_cancel", _STORE + "/file_batches/{item}/cancel"),
    _of("vector_store", "vector_stores", "batch_files", _STORE + "/file_batches/{item}/files", "GET"),
    *_kept("video", "videos", "/videos", form=True, model=True),
    _of("video", "videos", "delete", "/videos/{id}", "DELETE"),
    _of("video", "videos", "content", "/videos/{id}/content", "GET", binary=True),
    _of("video", "videos", "remix", "/videos/{id}/remix", makes=True),
)


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
        Operation("image_edits", "/images/edits", "openai_chat", streams=True, safe=False, form=True),
        Operation("image_variations", "/images/variations", "openai_chat", safe=False, form=True),
        Operation("transcriptions", "/audio/transcriptions", "openai_chat", streams=True, safe=False, form=True, mixed=True),
        Operation("translations", "/audio/translations", "openai_chat", safe=False, form=True, mixed=True),
        Operation("speech", "/audio/speech", "openai_chat", streams=True, binary=True, safe=False),
        Operation("moderations", "/moderations", "openai_chat"),
        Operation("rerank", "/rerank", "openai_chat", family="rerank"),
        Operation("messages", "/messages", "anthropic_messages", streams=True, family="conversation"),
        Operation("count_tokens", "/messages/count_tokens", "anthropic_messages", family="count"),
        # Bedrock's and Vertex AI's, which callers do not speak
        Operation("converse", "/model/{model}/converse", "bedrock_converse", streams=True, family="conversation", door=False),
        Operation("invoke_embeddings", "/model/{model}/invoke", "bedrock_invoke", family="embeddings", door=False),
        Operation("predict_embeddings", "/models/{model}:predict", "vertex_predict", family="embeddings", door=False),
        # Gemini's, whose paths name the model; the answer is a stream by another path, not by a field
        Operation("generate", "/models/{model}:generateContent", "gemini", streams=True, family="conversation"),
        Operation(
            "generate_array", "/models/{model}:streamGenerateContent", "gemini_array", streams=True, family="conversation"
        ),
        Operation("count_gemini", "/models/{model}:countTokens", "gemini", family="count"),
        Operation("embed_gemini", "/models/{model}:embedContent", "gemini", family="embeddings"),
        Operation("embed_gemini_batch", "/models/{model}:batchEmbedContents", "gemini", family="embeddings"),
        *_OBJECTS,
        # Shapes that only providers speak. Their paths are in the catalog, with the rows that have them (`urls`).
        Operation("ollama_chat", "/api/chat", "ollama", streams=True, family="conversation", door=False),
        Operation("ollama_embed", "/api/embed", "ollama", family="embeddings", door=False),
        Operation("cohere_chat", "/v2/chat", "cohere", streams=True, family="conversation", door=False),
        Operation("cohere_embed", "/v2/embed", "cohere", family="embeddings", door=False),
        Operation("voyage_rerank", "/rerank", "voyage", family="rerank", door=False),
        Operation("dify", "/chat-messages", "dify", streams=True, family="conversation", door=False),
        Operation("coze", "/v3/chat", "coze", streams=True, family="conversation", door=False),
        Operation("replicate", "/models/{model/}/predictions", "replicate", family="conversation", door=False, polls=True),
        Operation("triton", "/v2/models/{model}/generate", "triton", streams=True, family="conversation", door=False),
        Operation("deepl", "/v2/translate", "deepl", family="conversation", door=False),
    )
}

RAW = Operation("raw", "/{provider}/...", "raw", streams=True, safe=False, form=True, mixed=True)
"""Whatever a provider has besides: its own path, method and body, with our key. No entry of `OPERATIONS`: no provider serves it
as one of these, and any may be asked."""
