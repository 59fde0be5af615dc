"""Which names are models for embeddings, and which of them mean the same one."""

from __future__ import annotations

import pytest

from aigw.config.embedding import KNOWN, is_one, same


@pytest.mark.parametrize("name", [*KNOWN, "BAAI/bge-large-zh", "intfloat/e5-mistral", "nomic-embed-text", "gte-qwen2"])
def test_embeddings(name: str) -> None:
    """By the words vendors use."""
    assert is_one(name)


@pytest.mark.parametrize("name", ["gpt-5", "qwen-max", "voyager", "claude-e5", "bgemini"])
def test_others(name: str) -> None:
    """Chat models are none."""
    assert not is_one(name)


def test_one_model_of_many_names() -> None:
    """An owner in front, a tag behind, another case."""
    assert same("BAAI/bge-m3") == same("bge-m3:latest") == same("Bge-M3") != same("bge-large")
