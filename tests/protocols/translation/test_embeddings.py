"""Embeddings between OpenAI's shape and Gemini's two."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
from openai.types import CreateEmbeddingResponse

from aigw.canonical import Losses
from aigw.errors import CallerError
from aigw.protocols.translation import translator
from aigw.protocols.translation.contract import Reply, Toward

OPENAI, ONE, MANY = translator("embeddings"), translator("embed_gemini"), translator("embed_gemini_batch")
TOWARD = Toward(model="up")


def read(shape: Any, body: Any) -> Any:
    return shape.parse_request(json.dumps(body).encode(), "asked", stream=False)


def reply(request: Any) -> Reply:
    return Reply(request=request, id="req_1", model="", now=0.0)


def test_openais_callers_and_gemini() -> None:
    """Texts, size; what Gemini has no word for is named; base64 is made here."""
    body = {"model": "asked", "input": ["a", "b"], "dimensions": 2, "encoding_format": "base64", "user": "u"}
    request, losses = read(OPENAI, body), Losses(OPENAI.spelling)
    assert json.loads(MANY.render_request(request, TOWARD, losses)) == {
        "requests": [
            {"model": "models/up", "content": {"parts": [{"text": text}]}, "outputDimensionality": 2} for text in ("a", "b")
        ]
    }
    assert list(losses) == ["user"]
    answer, told = MANY.parse_answer(b'{"embeddings":[{"values":[0.5,-1]},{"values":[2,3]}]}')
    assert told.usage is None
    said = json.loads(OPENAI.render_answer(answer, reply(request)))
    assert [one["index"] for one in said["data"]] == [0, 1]
    assert struct.unpack("<2f", base64.b64decode(said["data"][0]["embedding"])) == (0.5, -1.0)
    assert said["model"] == "asked"


def test_geminis_callers_and_openai() -> None:
    """What the vectors are for cannot be said there."""
    request = read(ONE, {"content": {"parts": [{"text": "a"}, {"text": "b"}]}, "taskType": "RETRIEVAL_QUERY", "title": "t"})
    losses = Losses(ONE.spelling)
    said = json.loads(OPENAI.render_request(request, TOWARD, losses))
    assert said == {"model": "up", "input": ["a\nb"], "encoding_format": "float"}
    assert list(losses) == ["taskType", "title"]
    data = [{"index": 1, "embedding": [2]}, {"index": 0, "embedding": [1]}]
    usage = {"prompt_tokens": 7, "total_tokens": 7}
    answer, told = OPENAI.parse_answer(json.dumps({"data": data, "model": "up-1", "usage": usage}).encode())
    assert told.usage is not None
    assert (told.usage.input, told.model) == (7, "up-1")
    floats = read(OPENAI, {"input": ["a", "b"]})
    typed = CreateEmbeddingResponse.model_validate_json(OPENAI.render_answer(answer, reply(floats)))
    assert [one.embedding for one in typed.data] == [[1.0], [2.0]]
    assert json.loads(MANY.render_answer(answer, reply(request)))["embeddings"] == [{"values": [1]}, {"values": [2]}]
    assert json.loads(ONE.render_answer(answer, reply(request)))["embedding"] == {"values": [1]}


def test_token_ids_are_refused_with_the_remedy() -> None:
    """A LangChain default."""
    for tokens in ([1, 2], [[1], [2]]):
        with pytest.raises(CallerError, match="check_embedding_ctx_length=False") as caught:
            read(OPENAI, {"model": "m", "input": tokens})
        assert (caught.value.code, caught.value.param) == ("caller_unsupported", "input")


@pytest.mark.parametrize(
    ("shape", "body"),
    [
        (OPENAI, {"input": None}),
        (OPENAI, {"input": []}),
        (OPENAI, {"input": ["a", None]}),
        (OPENAI, {"input": "a", "encoding_format": "int8"}),
        (MANY, {"requests": []}),
        (MANY, {"requests": [{"content": {"parts": [{"inlineData": {}}]}}]}),
        (MANY, {"requests": [{"content": "a", "taskType": "A"}, {"content": "b", "taskType": "B"}]}),
        (ONE, {}),
    ],
)
def test_what_is_refused(shape: Any, body: Any) -> None:
    """By a complaint about the request."""
    with pytest.raises(CallerError) as caught:
        read(shape, body)
    assert caught.value.status == 400


@pytest.mark.parametrize("body", [b"x", b"[]", b"{}", b'{"data":7}', b'{"data":[{"embedding":["a"]}]}', b'{"embeddings":[{}]}'])
@pytest.mark.parametrize("shape", [OPENAI, MANY], ids=["openai", "gemini"])
def test_no_answer(shape: Any, body: bytes) -> None:
    """Neither vectors nor an excuse."""
    with pytest.raises(ValueError, match=r".") as caught:
        shape.parse_answer(body)
    assert isinstance(caught.value, ValueError)


def test_numbers_beyond_float32_are_its_largest() -> None:
    """A vector is never lost to one of them; one that comes packed is unpacked."""
    request = read(OPENAI, {"input": "a", "encoding_format": "base64"})
    answer, _ = OPENAI.parse_answer(b'{"data":[{"embedding":[1e300,-1e300]}]}')
    packed = json.loads(OPENAI.render_answer(answer, reply(request)))["data"][0]["embedding"]
    assert struct.unpack("<2f", base64.b64decode(packed)) == pytest.approx((3.4028234e38, -3.4028234e38))
    again, _ = OPENAI.parse_answer(json.dumps({"data": [{"embedding": packed}]}).encode())
    assert len(again.vectors[0]) == 2
