"""An answer no longer than it may be: what stands in the body afterwards."""

from __future__ import annotations

import json

import pytest

from aigw.protocols.output_limit import limited


@pytest.mark.parametrize(
    ("operation", "body", "expected"),
    [
        ("chat", {"model": "m"}, {"max_tokens": 100}),
        ("chat", {"max_tokens": 50}, {"max_tokens": 50}),
        ("chat", {"max_tokens": 5000}, {"max_tokens": 100}),
        ("chat", {"max_tokens": 1e18}, {"max_tokens": 100}),
        ("chat", {"max_tokens": -1}, {"max_tokens": 100}),
        ("chat", {"max_tokens": None}, {"max_tokens": 100}),
        ("chat", {"max_tokens": "many"}, {"max_tokens": 100}),
        ("chat", {"max_tokens": True}, {"max_tokens": 100}),
        ("chat", {"max_completion_tokens": 5000, "max_tokens": 6000}, {"max_completion_tokens": 100, "max_tokens": 100}),
        ("completions", {}, {"max_tokens": 100}),
        ("messages", {"max_tokens": 101}, {"max_tokens": 100}),
        ("responses", {"input": "x"}, {"max_output_tokens": 100}),
        ("generate", {"contents": []}, {"generationConfig": {"maxOutputTokens": 100}}),
        (
            "generate",
            {"generationConfig": {"temperature": 0, "maxOutputTokens": 200}},
            {"generationConfig": {"temperature": 0, "maxOutputTokens": 100}},
        ),
        ("generate", {"generation_config": {"max_output_tokens": 20}}, {"generation_config": {"max_output_tokens": 20}}),
        ("embeddings", {"input": "x"}, {}),
    ],
)
def test_what_stands_there(operation: str, body: dict[str, object], expected: dict[str, object]) -> None:
    """Lowered, added or left; everything else as it was."""
    found = json.loads(limited(operation, json.dumps(body).encode(), 100))
    assert found == body | expected


def test_as_reasoning_models_want_it() -> None:
    """A chat that names none, at a provider that refuses the older word."""
    assert json.loads(limited("chat", b'{"model":"o9"}', 100, newer=True)) == {"model": "o9", "max_completion_tokens": 100}
    assert json.loads(limited("completions", b"{}", 100, newer=True)) == {"max_tokens": 100}


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"[" * 5000])
def test_what_is_no_request_stays(body: bytes) -> None:
    """Whoever reads it says what is wrong with it."""
    found = limited("chat", body, 100)
    assert found == body


def test_a_limit_that_stands_twice() -> None:
    """Nobody knows which one a provider takes."""
    with pytest.raises(ValueError, match="twice"):
        limited("chat", b'{"max_tokens":1,"max_tokens":2000}', 100)
