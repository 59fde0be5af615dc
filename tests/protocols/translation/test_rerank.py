"""Ranks: the shared shape in front, Voyage's behind it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aigw.canonical import Losses
from aigw.errors import CallerError
from aigw.protocols.translation import translator
from aigw.protocols.translation.contract import Reply, Toward
from aigw.protocols.translation.rerank import Rerank, VoyageRerank

FRONT = translator("rerank")


def asked(body: dict[str, Any]) -> Any:
    return FRONT.parse_request(json.dumps({"model": "m", "query": "q", **body}).encode(), "m", stream=False)


def test_voyage_is_asked_in_its_own_words() -> None:
    """top_n is top_k; documents that are objects give their text; what it does not know is a loss."""
    losses = Losses(Rerank.spelling)
    request = asked({"documents": ["one", {"text": "two"}], "top_n": 1, "truncation": True, "max_chunks_per_doc": 3})
    said = json.loads(VoyageRerank().render_request(request, Toward(model="rerank-3"), losses))
    assert said == {"model": "rerank-3", "query": "q", "documents": ["one", "two"], "top_k": 1, "truncation": True}
    assert list(losses) == ["max_chunks_per_doc"]


def test_its_answer_in_the_callers_shape() -> None:
    """data becomes results, the documents are repeated for who wants them."""
    request = asked({"documents": ["one", "two"], "return_documents": True})
    body = b'{"data":[{"index":1,"relevance_score":0.9}],"model":"rerank-3","usage":{"total_tokens":4}}'
    answer, told = VoyageRerank().parse_answer(body)
    reply = Reply(request=request, id="req_1", model="", now=0.0)
    assert json.loads(FRONT.render_answer(answer, reply)) == {
        "id": "req_1",
        "model": "rerank-3",
        "results": [{"index": 1, "relevance_score": 0.9, "document": {"text": "two"}}],
        "usage": {"total_tokens": 4},
    }
    assert told.usage is not None
    assert told.usage.input == 4


def test_there_and_back() -> None:
    """The shared shape keeps its meaning."""
    request = asked({"documents": ["one"], "top_n": 1})
    said = json.loads(Rerank().render_request(request, Toward(model="m"), Losses()))
    assert said == {"model": "m", "query": "q", "documents": ["one"], "top_n": 1}
    assert Rerank().parse_answer(b'{"results":[{"index":0,"relevance_score":1}]}')[0].ranks == [(0, 1.0)]


@pytest.mark.parametrize("documents", [[], None, [1], [{"image": "x"}], "one"])
def test_wrong_documents(documents: Any) -> None:
    """Refused with their place."""
    with pytest.raises(CallerError) as caught:
        asked({"documents": documents})
    assert (caught.value.param or "").startswith("documents")


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"data":[1]}', b'{"data":[{"index":0}]}'])
def test_no_answer(body: bytes) -> None:
    """What is none is said to be none."""
    with pytest.raises(ValueError):
        VoyageRerank().parse_answer(body)
