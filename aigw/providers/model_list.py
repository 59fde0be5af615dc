"""Reads the answer to "which models do you have", in all the shapes that providers give it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

MOST = 10_000
"""Names read from one list (the longest known, OpenRouter's, has about a thousand)."""

LARGEST = 32 * 1024 * 1024
"""Bytes of a list that are decoded."""


def read(body: bytes) -> list[str]:
    """The names in a list of models: OpenAI's and Anthropic's `data[].id`, a bare list (Together, GitHub), Google's, Cohere's
    and Ollama's `models[].name`; each once, in order. Entries that are no names are left out; raises ValueError for what is
    no list at all."""
    if len(body) > LARGEST:
        raise ValueError("too large")
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        raise ValueError("not JSON") from None
    if isinstance(value, dict):
        value = next((value[name] for name in ("data", "models") if isinstance(value.get(name), list)), None)
    names = dict.fromkeys(_names(value)) if isinstance(value, list) else None
    if names is None or (value and not names):
        raise ValueError("not a list of models")
    return list(names)


def _names(items: list[Any]) -> Iterator[str]:
    for item in items[:MOST]:
        name = item
        if isinstance(item, dict):
            name = next((item[field] for field in ("id", "name", "model") if isinstance(item.get(field), str)), None)
        if isinstance(name, str) and 0 < len(name) <= 256 and name.isprintable():
            yield name.removeprefix("models/")  # Google's
