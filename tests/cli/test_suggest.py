"""What was probably meant."""

from __future__ import annotations

import pytest

from aigw.cli.suggest import nearest, unknown

PROVIDERS = ["openai", "openrouter", "anthropic", "deepseek", "dashscope", "dashscope-intl", "Zhipu"]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("opnai", ["openai"]),
        ("OpenAI", ["openai"]),
        ("zhipu", ["Zhipu"]),
        ("dashscop", ["dashscope", "dashscope-intl"]),
        ("dee", ["deepseek"]),
        ("ant", ["anthropic"]),
        ("xyzzy", []),
        ("", []),
        ("o", []),
    ],
)
def test_nearest(typed: str, expected: list[str]) -> None:
    """The nearest first, whatever the case; an abbreviation finds what it begins; nonsense finds nothing."""
    assert nearest(typed, PROVIDERS)[: len(expected) or 3] == expected


def test_never_more_than_three() -> None:
    """A long list is not repeated in a message."""
    assert len(nearest("model-1", [f"model-{number}" for number in range(100)])) == 3


def test_the_message() -> None:
    """Names the thing, and what may have been meant; nothing in it moves a cursor."""
    assert unknown("provider", "opnai", ["openai"]) == "no provider 'opnai': did you mean openai?"
    assert unknown("route", "fas", ["fast", "fat"]) == "no route 'fas': did you mean fast or fat?"
    assert unknown("model", "abc", ["abd", "abe", "abf"]) == "no model 'abc': did you mean abf, abe or abd?"
    assert unknown("provider", "xyzzy", PROVIDERS) == "no provider 'xyzzy'"
    assert "\x1b" not in unknown("provider", "\x1b[31mopenai", ["openai\x1b[0m"])
    assert len(unknown("provider", "x" * 10_000, PROVIDERS)) < 200
