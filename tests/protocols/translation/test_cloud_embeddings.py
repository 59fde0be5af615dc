"""Embeddings by Bedrock and Vertex AI."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aigw.canonical import Losses
from aigw.errors import CallerError
from aigw.exchange import Usage
from aigw.protocols.translation import shape
from aigw.protocols.translation.contract import Toward
from aigw.protocols.translation.embeddings import EmbeddingRequest


def wrote(name: str, model: str, *texts: str, **fields: Any) -> tuple[dict[str, Any], list[str]]:
    losses = Losses()
    request = EmbeddingRequest(dialect="openai_chat", model="m", texts=list(texts), **fields)
    return json.loads(shape(name).render_request(request, Toward(model=model), losses)), list(losses)


def test_titan_takes_one_text() -> None:
    said = wrote("invoke_embeddings", "amazon.titan-embed-text-v2:0", "a", dimensions=256, user="u")
    assert said == ({"inputText": "a", "dimensions": 256}, ["user"])
    with pytest.raises(CallerError, match="one text at a time"):
        wrote("invoke_embeddings", "amazon.titan-embed-text-v2:0", "a", "b")
    answer, told = shape("invoke_embeddings").parse_answer(b'{"embedding":[1,0.5],"inputTextTokenCount":3}')
    assert answer.vectors == [[1.0, 0.5]]
    assert told.usage == Usage(input=3)


def test_cohere_takes_many() -> None:
    said = wrote("invoke_embeddings", "cohere.embed-multilingual-v3", "a", "b", task="RETRIEVAL_QUERY", dimensions=9)
    assert said == ({"texts": ["a", "b"], "input_type": "search_query"}, ["dimensions"])
    said = wrote("invoke_embeddings", "us.cohere.embed-v4:0", "a", dimensions=256)
    assert said[0]["output_dimension"] == 256
    for body in (b'{"embeddings":[[1],[2]]}', b'{"embeddings":{"float":[[1],[2]]}}'):
        assert shape("invoke_embeddings").parse_answer(body)[0].vectors == [[1.0], [2.0]]


def test_vertex_predicts() -> None:
    said = wrote("predict_embeddings", "text-embedding-005", "a", "b", task="CLUSTERING", titles=["t", ""], dimensions=9)
    instances = [{"content": "a", "task_type": "CLUSTERING", "title": "t"}, {"content": "b", "task_type": "CLUSTERING"}]
    assert said == ({"instances": instances, "parameters": {"outputDimensionality": 9}}, [])
    rows = [{"embeddings": {"values": [1, 2], "statistics": {"token_count": 4}}}] * 2
    answer, told = shape("predict_embeddings").parse_answer(json.dumps({"predictions": rows}).encode())
    assert answer.vectors == [[1.0, 2.0]] * 2
    assert told.usage == Usage(input=8)


@pytest.mark.parametrize("name", ["invoke_embeddings", "predict_embeddings"])
@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"embedding":["a"]}', b'{"predictions":[1]}'])
def test_what_is_no_answer(name: str, body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        shape(name).parse_answer(body)
