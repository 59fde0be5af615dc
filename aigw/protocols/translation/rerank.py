"""Ranking documents by a query: the shape that Cohere, Jina, SiliconFlow, vLLM and DashScope share, and Voyage's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, NoReturn

import msgspec

from aigw.canonical import Losses
from aigw.exchange import Usage
from aigw.protocols.dialect import Told, decode_leniently
from aigw.protocols.translation.contract import Reply, Toward
from aigw.protocols.translation.reading import Members, decode_object, invalid, unsupported

_encode = msgspec.json.encode


class RerankRequest(msgspec.Struct, kw_only=True, gc=False):
    """`top` None: all of them. `shown`: the answer repeats the documents."""

    model: str
    query: str
    documents: list[str]
    top: int | None = None
    shown: bool = False
    extras: dict[str, Any] = {}


class Rank(NamedTuple):
    """`at` counts the request's documents from 0; a higher `score` fits better."""

    at: int
    score: float


class RerankAnswer(msgspec.Struct, kw_only=True, gc=False):
    id: str = ""
    model: str = ""
    ranks: list[Rank]
    usage: Usage | None = None


class Rerank:
    """`/v1/rerank`. Implements `Translator`."""

    name = "rerank"
    dialect = "openai_chat"
    content_type = b"application/json"
    streams = False
    spelling: ClassVar[Mapping[str, str]] = {"top": "top_n", "shown": "return_documents"}

    def parse_request(self, body: bytes, model: str, *, stream: bool) -> RerankRequest:
        asked = Members(decode_object(body))
        for name in ("model", "stream"):
            asked.take(name)
        documents = asked.listed("documents")
        if not documents:
            raise invalid("documents", "a list with a document or more", documents)
        texts = [_document(one, f"documents[{at}]") for at, one in enumerate(documents)]
        request = RerankRequest(model=model, query=asked.needed("query"), documents=texts)
        top = asked.whole("top_n")
        request.top = top if top is not None else asked.whole("top_k")
        request.shown = bool(asked.flag("return_documents"))
        request.extras = asked.left()
        return request

    def render_request(self, request: RerankRequest, toward: Toward, losses: Losses) -> bytes:
        body: dict[str, Any] = {"model": toward.model, "query": request.query, "documents": request.documents}
        if request.top is not None:
            body["top_n"] = request.top
        for name in request.extras:
            losses.add(name)
        return _encode(body)

    def parse_answer(self, body: bytes) -> tuple[RerankAnswer, Told]:
        return _answer(body, "results")

    def render_answer(self, answer: RerankAnswer, reply: Reply) -> bytes:
        asked: RerankRequest = reply.request
        results: list[dict[str, Any]] = []
        for rank in answer.ranks:
            said: dict[str, Any] = {"index": rank.at, "relevance_score": rank.score}
            if asked.shown and 0 <= rank.at < len(asked.documents):
                said["document"] = {"text": asked.documents[rank.at]}
            results.append(said)
        body: dict[str, Any] = {"id": answer.id or reply.id, "model": reply.model or answer.model or asked.model}
        body["results"] = results
        if answer.usage is not None:
            body["usage"] = {"total_tokens": answer.usage.input}
        return _encode(body)

    def parser(self) -> NoReturn:
        raise NotImplementedError("ranks are never a stream")

    def renderer(self, reply: Reply) -> NoReturn:
        raise NotImplementedError("ranks are never a stream")


class VoyageRerank:
    """Voyage's: `top_k` asks, and `data` answers. Implements `Shape`."""

    name = "voyage_rerank"
    dialect = "voyage"
    content_type = b"application/json"
    streams = False

    def render_request(self, request: RerankRequest, toward: Toward, losses: Losses) -> bytes:
        extras = dict(request.extras)
        body: dict[str, Any] = {"model": toward.model, "query": request.query, "documents": request.documents}
        if request.top is not None:
            body["top_k"] = request.top
        truncation = extras.pop("truncation", None)
        if truncation is not None:
            body["truncation"] = truncation
        for name in extras:
            losses.add(name)
        return _encode(body)

    def parse_answer(self, body: bytes) -> tuple[RerankAnswer, Told]:
        return _answer(body, "data")

    def parser(self) -> NoReturn:
        raise NotImplementedError("ranks are never a stream")


def _document(value: Any, path: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and isinstance(value.get("text"), str):
        return str(value["text"])
    if isinstance(value, dict):
        raise unsupported(path, "This model ranks texts. Send the document as a string, or as an object with `text`.")
    raise invalid(path, "a string or an object with `text`", value)


def _answer(body: bytes, name: str) -> tuple[RerankAnswer, Told]:
    said = decode_leniently(body)
    rows = said.get(name)
    if not isinstance(rows, list):
        raise ValueError("an answer without ranks")  # noqa: TRY004 - it is no such answer
    ranks = []
    for row in rows:
        index, score = (row.get("index"), row.get("relevance_score")) if isinstance(row, dict) else (None, None)
        if not isinstance(index, int) or isinstance(score, bool) or not isinstance(score, int | float):
            raise ValueError("a rank without its index or score")  # noqa: TRY004 - it is no such answer
        ranks.append(Rank(index, float(score)))
    usage = said.get("usage")
    total = usage.get("total_tokens") if isinstance(usage, dict) else None
    spent = Usage(input=total) if isinstance(total, int) and not isinstance(total, bool) and total >= 0 else None
    model = said.get("model") if isinstance(said.get("model"), str) else ""
    found = RerankAnswer(id=str(said.get("id") or ""), model=str(model), ranks=ranks, usage=spent)
    return found, Told(spent, str(model))
