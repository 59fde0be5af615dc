"""Model lists: every provider's shape is read, garbage is refused, nothing grows without a bound."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, strategies

from aigw.providers import model_list


@pytest.mark.parametrize(
    "answer",
    [
        {"object": "list", "data": [{"id": "a", "object": "model"}, {"id": "b/c"}]},
        {"data": [{"type": "model", "id": "a"}, {"type": "model", "id": "b/c"}], "has_more": False, "first_id": "a"},
        {"models": [{"name": "models/a", "displayName": "A"}, {"name": "models/b/c"}], "nextPageToken": "x"},
        {"models": [{"name": "a", "model": "a", "size": 1}, {"name": "b/c"}]},
        [{"id": "a"}, {"id": "b/c"}],
        {"data": [{"id": "a"}, {"id": 7}, None, {"id": "a"}, {"id": ""}, {"id": "x\n"}, {"id": "y" * 257}, {"id": "b/c"}]},
    ],
    ids=["openai", "anthropic", "google", "ollama", "bare", "mixed"],
)
def test_shapes(answer: object) -> None:
    """The same two names in every shape."""
    assert model_list.read(json.dumps(answer).encode()) == ["a", "b/c"]


def test_no_models_is_an_answer() -> None:
    """A fresh local server has none."""
    assert model_list.read(b'{"object":"list","data":[]}') == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"null",
        b"7",
        b'"x"',
        b"{}",
        b'{"data":{}}',
        b'{"data":[1,2]}',
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"error":"no"}',
    ],
)
def test_garbage(body: bytes) -> None:
    """What is no list says so."""
    with pytest.raises(ValueError, match="not"):
        model_list.read(body)


def test_bounds() -> None:
    """A list without end is cut, a body without end is not decoded."""
    many = json.dumps({"data": [{"id": f"m{n}"} for n in range(model_list.MOST + 500)]}).encode()
    assert len(model_list.read(many)) == model_list.MOST
    with pytest.raises(ValueError, match="large"):
        model_list.read(b" " * (model_list.LARGEST + 1))


@given(
    strategies.binary()
    | strategies.recursive(
        strategies.none() | strategies.text(),
        lambda inner: (
            strategies.lists(inner) | strategies.dictionaries(strategies.sampled_from(["data", "models", "id", "name"]), inner)
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_anything(body: bytes) -> None:
    """Names or ValueError, nothing else."""
    try:
        names = model_list.read(body)
    except ValueError:
        return
    assert all(isinstance(name, str) and name.isprintable() for name in names)
