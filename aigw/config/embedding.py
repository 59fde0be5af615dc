"""Which models make embeddings, and which of their names mean the same one."""

from __future__ import annotations

import re

KNOWN = (
    "text-embedding-3-small",
    "text-embedding-v4",
    "embed-v4.0",
    "gemini-embedding-001",
    "bge-m3",
    "voyage-4",
    "mistral-embed",
)
"""A name of each large family, to see what a pattern catches."""

_LOOKS_SO = re.compile(r"embed|(?:^|[/:_-])(?:bge|gte|e5|voyage|jina-clip|m3e)-", re.IGNORECASE)
_ADDRESS = re.compile(r".*/")


def is_one(model: str) -> bool:
    """Whether *model* is called like a model for embeddings."""
    return _LOOKS_SO.search(model) is not None


def same(model: str) -> str:
    """What is equal for two names of one model: hosts put an owner in front ("BAAI/bge-m3"), local servers a tag behind."""
    return _ADDRESS.sub("", model).lower().removesuffix(":latest")
