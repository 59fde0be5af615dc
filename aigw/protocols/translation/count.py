"""How many tokens a prompt has, in the words of who asks: for providers that have no endpoint for it, and are not asked."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

WRITERS: dict[str, Callable[[int], dict[str, object]]] = {
    "count_tokens": lambda tokens: {"input_tokens": tokens},
    "count_gemini": lambda tokens: {"totalTokens": tokens},
    "response_input_tokens": lambda tokens: {"object": "response.input_tokens", "input_tokens": tokens},
}
"""By the operations of the family "count"."""


def write(operation: str, tokens: int) -> bytes:
    """The answer to *operation*. Raises KeyError for one that counts nothing."""
    return msgspec.json.encode(WRITERS[operation](tokens))
