"""Where a request goes that names nothing."""

from __future__ import annotations

import pytest

from aigw.config import schema
from aigw.errors import CallerError
from aigw.protocols.operations import OPERATIONS
from aigw.providers.base import Provider
from aigw.providers.compatible import build
from aigw.providers.placing import place

FILES = OPERATIONS["files"]
BASE = "http://127.0.0.1:1/v1"


def providers(*kinds: str) -> dict[str, Provider]:
    return {kind: build(kind, schema.Provider(kind=kind, base_url=BASE), schema.Upstream(), ["k" * 9]) for kind in kinds}


@pytest.mark.parametrize(
    ("kinds", "operation", "found"),
    [
        (("vllm", "openai"), "files", "openai"),  # the one that is known to
        (("vllm", "openai"), "file_list", "openai"),
        (("deepseek", "vllm"), "files", "vllm"),  # the only one that may
        (("openai", "groq"), "batches", "openai"),  # the first of two
        (("anthropic", "openai"), "files", "openai"),  # Anthropic's files are not of this shape
    ],
)
def test_unasked(kinds: tuple[str, ...], operation: str, found: str) -> None:
    assert place(providers(*kinds), OPERATIONS[operation], "").name == found


def test_asked() -> None:
    """By its name; one that does not serve it, or is not there, is not replaced by another."""
    known = providers("openai", "vllm", "deepseek")
    assert place(known, FILES, "vllm").name == "vllm"
    with pytest.raises(CallerError, match="does not serve"):
        place(known, FILES, "deepseek")
    with pytest.raises(CallerError, match="names no provider"):
        place(known, FILES, "nobody")


def test_nobody() -> None:
    with pytest.raises(CallerError, match="No provider"):
        place(providers("deepseek"), FILES, "")
