"""Which calls are tried of a provider, and how what comes of them reads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aigw.config import schema
from aigw.deployment import ProviderKey
from aigw.exchange import UpstreamRequest
from aigw.providers import compatible
from aigw.providers.call_check import attempt, calls, embedder
from aigw.providers.compatible import CompatibleProvider
from aigw.providers.key_check import Answered, Verdict

KEY = ProviderKey("k", "sk-0123456789")


def built(kind: str, **settings: str) -> CompatibleProvider:
    return compatible.build(kind, schema.Provider(keys=(KEY.secret,), settings=settings), schema.Upstream(), [KEY.secret])


def tried(kind: str, at: int, status: int, body: Any, kind_of: bytes = b"application/json") -> tuple[UpstreamRequest, Verdict]:
    provider = built(kind)
    call = list(calls(provider, "m", "embed-1"))[at]
    check = attempt(provider, KEY, call)
    request = next(check)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(StopIteration) as ended:
        check.send(Answered(status, [(b"content-type", kind_of)], data))
    return request, ended.value.value


def test_what_is_tried() -> None:
    """Whole and streamed, vectors where a model for them is known; what does not stream is not asked to."""
    assert [call.name for call in calls(built("openai"), "m", "embed-1")] == ["chat", "stream", "embeddings"]
    assert [call.name for call in calls(built("anthropic"), "m")] == ["chat", "stream"]
    assert [call.name for call in calls(built("deepl"), "DE")] == ["chat"]
    assert [call.name for call in calls(built("voyage"), "m", "rerank-3")] == ["embeddings", "rerank"]
    assert list(calls(built("openai"), "")) == []
    assert embedder(("m", "text-embedding-3")) == "text-embedding-3"
    assert embedder(("m",)) == ""


def test_a_shape_of_its_own() -> None:
    """The provider is asked as callers' requests would be."""
    request, verdict = tried("deepl", 0, 200, {"translations": [{"text": "hallo"}]})
    assert json.loads(request.body)["text"] == ["Answer with one word: hello"]
    assert verdict == Verdict("good", "m, without usage")


@pytest.mark.parametrize(
    ("at", "status", "body", "kind", "words"),
    [
        (0, 401, {"error": {"message": "Incorrect API key", "code": "invalid_api_key"}}, "wrong_key", "401"),
        (0, 402, {"error": {"message": "Insufficient Balance"}}, "no_credit", "402"),
        (0, 404, b"nothing here", "wrong_url", "has nothing at /v1/chat/completions"),
        (0, 200, {"hello": "world"}, "wrong_url", "no answer of its API"),
        (1, 200, {"choices": []}, "unknown", "not with a stream"),
        (2, 429, {"error": {"message": "slow down"}}, "limited", "429"),
    ],
)
def test_what_goes_wrong(at: int, status: int, body: Any, kind: str, words: str) -> None:
    """A wrong key, no credit and a wrong URL are told apart."""
    _, verdict = tried("openai", at, status, body)
    assert verdict.kind == kind
    assert words in verdict.detail


def test_a_stream_that_says_nothing() -> None:
    """Is none."""
    _, verdict = tried("openai", 1, 200, b"data: [DONE]\n\n", b"text/event-stream")
    assert verdict == Verdict("wrong_url", "sent a stream that says nothing")
