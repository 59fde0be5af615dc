"""Embeddings as the clouds want them: Bedrock's InvokeModel, whose body is the vendor's (Titan, Cohere), and Vertex AI's
`predict`. Written for providers and read from them; no caller speaks these."""

from __future__ import annotations

from typing import Any, NoReturn

import msgspec

from aigw.canonical import Losses
from aigw.exchange import Usage
from aigw.protocols.dialect import Told, decode_leniently
from aigw.protocols.translation.contract import StreamParser, Toward
from aigw.protocols.translation.embeddings import EmbeddingAnswer
from aigw.protocols.translation.reading import unsupported

_encode = msgspec.json.encode
_INPUT_TYPES = {
    "RETRIEVAL_QUERY": "search_query",
    "QUESTION_ANSWERING": "search_query",
    "CLASSIFICATION": "classification",
    "CLUSTERING": "clustering",
}
_COHERE_MOST = 96  # texts in one request


def _no_stream() -> NoReturn:
    raise NotImplementedError("embeddings are never a stream")


class InvokeEmbeddings:
    """Titan takes one text, Cohere many. Implements `Shape`."""

    name = "invoke_embeddings"
    dialect = "bedrock_invoke"
    content_type = b"application/json"
    streams = False

    def render_request(self, request: Any, toward: Toward, losses: Losses) -> bytes:
        for field in ("titles", "user", *request.extras):
            if field in request.extras or getattr(request, field):
                losses.add(field)
        if "cohere." in toward.model:
            return self._cohere(request, toward, losses)
        if len(request.texts) != 1:
            raise unsupported("input", "This model embeds one text at a time. Send one, or use a model of Cohere's.")
        if request.task:
            losses.add("task")
        said: dict[str, Any] = {"inputText": request.texts[0]}
        if request.dimensions is not None:
            said["dimensions"] = request.dimensions
        return _encode(said)

    @staticmethod
    def _cohere(request: Any, toward: Toward, losses: Losses) -> bytes:
        if len(request.texts) > _COHERE_MOST:
            raise unsupported("input", f"This model embeds {_COHERE_MOST} texts at a time. Send fewer.")
        said: dict[str, Any] = {"texts": request.texts, "input_type": _INPUT_TYPES.get(request.task, "search_document")}
        if "embed-v" in toward.model:  # v4 and later: one of several kinds of numbers, in the size that is asked for
            said["embedding_types"] = ["float"]
            if request.dimensions is not None:
                said["output_dimension"] = request.dimensions
        elif request.dimensions is not None:
            losses.add("dimensions")
        return _encode(said)

    def parse_answer(self, body: bytes) -> tuple[EmbeddingAnswer, Told]:
        value = decode_leniently(body)
        one, many = value.get("embedding"), value.get("embeddings")
        if isinstance(many, dict):
            many = many.get("float")
        rows = [one] if isinstance(one, list) else many
        if not isinstance(rows, list):
            raise ValueError("an answer without embeddings")  # noqa: TRY004 - of the provider's, not ours
        counted = value.get("inputTextTokenCount")
        usage = Usage(input=counted) if isinstance(counted, int) and counted >= 0 else None
        return EmbeddingAnswer(vectors=[_numbers(row) for row in rows], usage=usage), Told(usage)

    def parser(self) -> StreamParser:
        _no_stream()


class PredictEmbeddings:
    """Vertex AI's models of text. Implements `Shape`."""

    name = "predict_embeddings"
    dialect = "vertex_predict"
    content_type = b"application/json"
    streams = False

    def render_request(self, request: Any, toward: Toward, losses: Losses) -> bytes:
        for field in ("user", *request.extras):
            if field in request.extras or getattr(request, field):
                losses.add(field)
        instances = []
        for at, text in enumerate(request.texts):
            instance = {"content": text}
            if request.task:
                instance["task_type"] = request.task
            if at < len(request.titles) and request.titles[at]:
                instance["title"] = request.titles[at]
            instances.append(instance)
        said: dict[str, Any] = {"instances": instances}
        if request.dimensions is not None:
            said["parameters"] = {"outputDimensionality": request.dimensions}
        return _encode(said)

    def parse_answer(self, body: bytes) -> tuple[EmbeddingAnswer, Told]:
        rows = decode_leniently(body).get("predictions")
        if not isinstance(rows, list):
            raise ValueError("an answer without predictions")  # noqa: TRY004 - of the provider's, not ours
        vectors, tokens = [], 0
        for row in rows:
            found = row.get("embeddings") if isinstance(row, dict) else None
            if not isinstance(found, dict):
                raise ValueError("a prediction without embeddings")  # noqa: TRY004 - of the provider's, not ours
            vectors.append(_numbers(found.get("values")))
            counted = found.get("statistics")
            count = counted.get("token_count") if isinstance(counted, dict) else None
            tokens += int(count) if isinstance(count, int | float) and count >= 0 else 0
        usage = Usage(input=tokens) if tokens else None
        return EmbeddingAnswer(vectors=vectors, usage=usage), Told(usage)

    def parser(self) -> StreamParser:
        _no_stream()


def _numbers(row: Any) -> list[float]:
    if not isinstance(row, list) or not all(isinstance(one, int | float) for one in row):
        raise ValueError("a vector that is none")
    return [float(one) for one in row]
