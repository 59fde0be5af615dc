"""Embeddings in OpenAI's shape and in Gemini's two, each read and written by way of a request and an answer of our own.

Vectors stay numbers: whoever asked for base64 gets it made here (little-endian float32, as OpenAI does), and a provider is
always asked for numbers.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn

import msgspec

from aigw.canonical import Losses
from aigw.exchange import Usage
from aigw.protocols.dialect import Told
from aigw.protocols.gemini import Gemini
from aigw.protocols.openai_chat import OpenAIChat
from aigw.protocols.translation.contract import Reply, StreamParser, StreamRenderer, Toward
from aigw.protocols.translation.reading import Members, decode_object, invalid, unsupported

_decode = msgspec.json.decode
_encode = msgspec.json.encode


class EmbeddingRequest(msgspec.Struct, kw_only=True, gc=False):
    """Texts to be embedded. `task` is Gemini's word for what the vectors are for ("RETRIEVAL_QUERY"), "" when not said;
    `titles` belong to the texts one by one, where there are any; `as_base64`: the caller wants packed vectors."""

    dialect: str
    model: str
    texts: list[str]
    dimensions: int | None = None
    task: str = ""
    titles: list[str] = []
    user: str = ""
    as_base64: bool = False
    extras: dict[str, Any] = {}


class EmbeddingAnswer(msgspec.Struct, kw_only=True, gc=False):
    """One vector for each text, in their order."""

    model: str = ""
    vectors: list[list[float]]
    usage: Usage | None = None


class _Whole:
    """What embeddings never are: a stream."""

    content_type = b"application/json"
    streams = False
    spelling: ClassVar[Mapping[str, str]] = {}

    def parser(self) -> StreamParser:
        _no_stream()

    def renderer(self, reply: Reply) -> StreamRenderer:
        _no_stream()


def _no_stream() -> NoReturn:
    raise NotImplementedError("embeddings are never a stream")


class OpenAIEmbeddings(_Whole):
    """`/v1/embeddings`. Implements `Translator`."""

    name = "embeddings"
    dialect = "openai_chat"

    def parse_request(self, body: bytes, model: str, *, stream: bool) -> EmbeddingRequest:
        asked = Members(decode_object(body))
        for name in ("model", "stream"):
            asked.take(name)
        given = asked.take("input")
        texts = [given] if isinstance(given, str) else given
        if not isinstance(texts, list):
            raise invalid("input", "a string or a list of strings", given)
        if any(isinstance(one, int | list) for one in texts):
            raise unsupported(
                "input",
                "This model takes text, not token ids. Send strings; in LangChain's OpenAIEmbeddings, set "
                "check_embedding_ctx_length=False.",
            )
        if not texts or not all(isinstance(one, str) for one in texts):
            raise invalid("input", "a string or a list of strings", given)
        packing = asked.text("encoding_format")
        if packing not in ("", "float", "base64"):
            raise unsupported("encoding_format", "`encoding_format` must be 'float' or 'base64'.")
        request = EmbeddingRequest(dialect=self.dialect, model=model, texts=texts, as_base64=packing == "base64")
        request.dimensions, request.user = asked.whole("dimensions"), asked.text("user")
        request.extras = asked.left()
        return request

    def render_request(self, request: Any, toward: Toward, losses: Losses) -> bytes:
        _lose(request, losses, "task", "titles")
        said: dict[str, Any] = {"model": toward.model, "input": request.texts, "encoding_format": "float"}
        if request.dimensions is not None:
            said["dimensions"] = request.dimensions
        if request.user:
            said["user"] = request.user
        return _encode(said)

    def parse_answer(self, body: bytes) -> tuple[EmbeddingAnswer, Told]:
        told = OpenAIChat().read_answer(body)
        data = _decode(body).get("data")
        if not isinstance(data, list):
            raise ValueError("an answer without data")  # noqa: TRY004 - it is no such answer
        rows = [one for one in data if isinstance(one, dict)]
        rows.sort(key=lambda row: row["index"] if isinstance(row.get("index"), int) else 0)
        vectors = [_vector(row.get("embedding")) for row in rows]
        return EmbeddingAnswer(model=told.model, vectors=vectors, usage=told.usage), told

    def render_answer(self, answer: Any, reply: Reply) -> bytes:
        pack = _packed if reply.request.as_base64 else _same
        data = [{"object": "embedding", "index": at, "embedding": pack(one)} for at, one in enumerate(answer.vectors)]
        tokens = answer.usage.input if answer.usage is not None else sum(len(text) for text in reply.request.texts) // 4
        return _encode(
            {
                "object": "list",
                "data": data,
                "model": reply.model or answer.model or reply.request.model,
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            }
        )


class GeminiEmbeddings(_Whole):
    """`:batchEmbedContents`, which takes one text as well as many. Implements `Translator`."""

    name = "embed_gemini_batch"
    dialect = "gemini"
    spelling: ClassVar[Mapping[str, str]] = {"task": "taskType", "titles": "title", "dimensions": "outputDimensionality"}

    def parse_request(self, body: bytes, model: str, *, stream: bool) -> EmbeddingRequest:
        asked = Members(decode_object(body))
        asked.take("model")
        requests = asked.listed("requests")
        if not requests:
            raise invalid("requests", "a list with a request or more", requests)
        return _together([Members(one, f"requests[{at}]") for at, one in enumerate(requests)], model)

    def render_request(self, request: Any, toward: Toward, losses: Losses) -> bytes:
        _lose(request, losses, "user")
        return _encode({"requests": [_one(request, at, toward.model) for at in range(len(request.texts))]})

    def parse_answer(self, body: bytes) -> tuple[EmbeddingAnswer, Told]:
        told = Gemini().read_answer(body)
        value = _decode(body)
        one, many = value.get("embedding"), value.get("embeddings")
        rows = many if isinstance(many, list) else [one] if isinstance(one, dict) else None
        if rows is None:
            raise ValueError("an answer without embeddings")
        vectors = [_vector(row.get("values") if isinstance(row, dict) else None) for row in rows]
        return EmbeddingAnswer(model=told.model, vectors=vectors, usage=told.usage), told

    def render_answer(self, answer: Any, reply: Reply) -> bytes:
        said: dict[str, Any] = {"embeddings": [{"values": vector} for vector in answer.vectors]}
        return _encode(_with_usage(said, answer))


class GeminiEmbedding(GeminiEmbeddings):
    """`:embedContent`, for one text. Implements `Translator`."""

    name = "embed_gemini"

    def parse_request(self, body: bytes, model: str, *, stream: bool) -> EmbeddingRequest:
        return _together([Members(decode_object(body))], model)

    def render_request(self, request: Any, toward: Toward, losses: Losses) -> bytes:
        _lose(request, losses, "user")
        if len(request.texts) != 1:
            raise unsupported("input", "This provider embeds one text at a time. Send one.")
        return _encode(_one(request, 0, toward.model))

    def render_answer(self, answer: Any, reply: Reply) -> bytes:
        return _encode(_with_usage({"embedding": {"values": answer.vectors[0] if answer.vectors else []}}, answer))


def _with_usage(said: dict[str, Any], answer: EmbeddingAnswer) -> dict[str, Any]:
    if answer.usage is not None:
        said["usageMetadata"] = {"promptTokenCount": answer.usage.input, "totalTokenCount": answer.usage.input}
    return said


def _together(requests: list[Members], model: str) -> EmbeddingRequest:
    """Gemini's requests as one: they must want the same, but for text and title."""
    found = EmbeddingRequest(dialect="gemini", model=model, texts=[])
    wanted: tuple[int | None, str] | None = None
    for said in requests:
        said.take("model")
        content = said.take("content")
        found.texts.append(content if isinstance(content, str) else _text(Members(content, said.at("content"))))
        sizes = [said.whole(name) for name in ("outputDimensionality", "output_dimensionality")]
        tasks = [said.text(name) for name in ("taskType", "task_type")]
        here = next((size for size in sizes if size is not None), None), tasks[0] or tasks[1]
        if wanted is not None and here != wanted:
            raise unsupported(said.path, "All requests must have the same taskType and outputDimensionality. Send them apart.")
        wanted = here
        found.titles.append(said.text("title"))
        found.extras.update(said.left())
    if wanted is not None:
        found.dimensions, found.task = wanted
    found.task = "" if found.task == "TASK_TYPE_UNSPECIFIED" else found.task
    found.titles = found.titles if any(found.titles) else []
    return found


def _text(content: Members) -> str:
    parts = content.take("parts")
    texts = []
    for at, part in enumerate(parts if isinstance(parts, list) else [parts]):
        members = Members(part, content.at(f"parts[{at}]"))
        if members.rest.get("text") is None:
            raise unsupported(content.at(f"parts[{at}]"), "Only text can be embedded by this model. Send text.")
        texts.append(members.text("text"))
    return "\n".join(texts)


def _one(request: EmbeddingRequest, at: int, model: str) -> dict[str, Any]:
    said: dict[str, Any] = {"model": f"models/{model}", "content": {"parts": [{"text": request.texts[at]}]}}
    if request.task:
        said["taskType"] = request.task
    if request.titles and request.titles[at]:
        said["title"] = request.titles[at]
    if request.dimensions is not None:
        said["outputDimensionality"] = request.dimensions
    return said


def _lose(request: EmbeddingRequest, losses: Losses, *fields: str) -> None:
    for field in fields:
        if getattr(request, field):
            losses.add(field)
    for name in request.extras:
        losses.add(name)


def _vector(value: Any) -> list[float]:
    """Numbers, also of a host that packs them although it was asked not to. Raises ValueError when it is no vector."""
    if isinstance(value, str):
        packed = base64.b64decode(value, validate=True)
        return list(struct.unpack(f"<{len(packed) // 4}f", packed[: len(packed) // 4 * 4]))
    if not isinstance(value, list) or not all(isinstance(one, int | float) for one in value):
        raise ValueError("no vector")
    return value


def _packed(vector: list[float]) -> str:
    try:
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    except OverflowError:  # beyond what float32 holds: its largest
        most = 3.4028234e38
        return _packed([max(-most, min(most, one)) for one in vector])


def _same(vector: list[float]) -> list[float]:
    return vector
