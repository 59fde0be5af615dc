"""Expressions of a config that could hold up the server are refused."""

from __future__ import annotations

import pytest

from aigw.plugins.patterns import OVERLAP, PIECE, Pattern


@pytest.mark.parametrize(
    "said", [r"(a+)+b", r"(a*)*", r"(?:\w+\s?)+$", r"((ab)*c)*", r"(x{2,})+", r"(a|b+)+c", r"(?=(a+)+)b", r"(a{1,50}){1,50}"]
)
def test_repeats_inside_repeats(said: str) -> None:
    with pytest.raises(ValueError, match="may take forever"):
        Pattern(said)


@pytest.mark.parametrize(
    ("said", "why"), [("(", "is no regular"), ("a*", "empty"), ("", "empty"), ("(" * 5000, "is no regular")]
)
def test_what_is_no_expression(said: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Pattern(said)


@pytest.mark.parametrize(
    "said", [r"\bT-[0-9]+\b", r"(?:\d{3}-){2}\d{4}", r"(?i)secret\s+plan", r"[a-z]+@[a-z]+\.com", r"(ab)+"]
)
def test_what_is_fine(said: str) -> None:
    Pattern(said)


def test_long_texts() -> None:
    """In pieces: each match once, wherever it stands."""
    pattern = Pattern(r"T-[0-9]{4}")
    step = 777
    text = "".join("x" * (step - 6) + f"T-{number:04}" for number in range(100))
    places = list(pattern.places(text))
    assert [text[start:end] for start, end in places] == [f"T-{number:04}" for number in range(100)]
    assert len(text) > 10 * PIECE > OVERLAP
