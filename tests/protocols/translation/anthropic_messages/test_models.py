"""What is known of which Claude, by any provider's way of writing its name."""

from __future__ import annotations

import pytest

from aigw.protocols.translation.anthropic_messages.models import UNKNOWN, traits


@pytest.mark.parametrize(
    ("model", "output"),
    [
        ("claude-3-haiku-20240307", 4096),
        ("claude-3-5-sonnet-20241022", 8192),
        ("claude-3-7-sonnet-latest", 64_000),
        ("claude-opus-4-20250514", 32_000),
        ("claude-opus-4@20250514", 32_000),
        ("anthropic.claude-opus-4-6-v1", 128_000),
        ("anthropic/claude-sonnet-4.5", 64_000),
        ("glm-4.6", 4096),
    ],
)
def test_the_longest_answer(model: str, output: int) -> None:
    """A date is no version."""
    assert traits(model).output == output


def test_what_was_taken_away() -> None:
    """Sampling and budgets with Opus 4.7 and all of 5; beginnings of answers with 4.6; forced tools with 5.5."""
    assert [traits(f"claude-{name}").samples for name in ("opus-4-6", "opus-4-7", "sonnet-4-6", "sonnet-5", "haiku-5-5")] == [
        True, False, True, False, False,
    ]  # fmt: skip
    assert [traits(f"claude-{name}").prefills for name in ("opus-4-5", "opus-4-6")] == [True, False]
    assert [traits(f"claude-{name}").forces for name in ("opus-5", "opus-5-5", "fable-5", "fable-5-1")] == [
        True, False, True, False,
    ]  # fmt: skip


def test_what_came() -> None:
    """Adaptive thinking with 4.6, formats with 4.5 (and Opus 4.1), the system's interruptions with Opus 4.8."""
    assert [traits(f"claude-{name}").adapts for name in ("haiku-4-5", "opus-4-6")] == [False, True]
    assert [traits(f"claude-{name}").formats for name in ("sonnet-4", "opus-4-1", "haiku-4-5")] == [False, True, True]
    assert [traits(f"claude-{name}").interrupts for name in ("opus-4-7", "opus-4-8", "sonnet-5", "opus-5")] == [
        False, True, False, True,
    ]  # fmt: skip


def test_others_models() -> None:
    """Nothing is assumed."""
    assert traits("kimi-k3") is UNKNOWN
    assert traits("claude-mythos-preview").thinks
