"""Forbidden words are found as people write them, and only where they are words."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings, strategies as st

from aigw.plugins.wordlist import GAP, WordList


def found(text: str, *words: str) -> list[str]:
    return [text[start:end] for start, end in WordList(words).places(text)]


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        ("a red car", ["red"], ["red"]),
        ("a RED car", ["red"], ["RED"]),
        ("a red car", ["Red"], ["red"]),
        ("scared, hundred", ["red"], []),
        ("red's, re-red, (red)", ["red"], ["red", "red", "red"]),
        ("a red car", ["red", "red car"], ["red car"]),
        ("a red bus", ["red", "red car"], ["red"]),
        ("red - car, red\n car", ["red car"], ["red - car", "red\n car"]),
        ("redcar", ["red car"], []),
        ("red car", ["redcar"], []),
        ("red" + " " * GAP + "car", ["red car"], ["red" + " " * GAP + "car"]),
        ("red" + " " * (GAP + 1) + "car", ["red car"], []),
        ("ｒｅｄ ＣＡＲ", ["red car"], ["ｒｅｄ ＣＡＲ"]),
        ("r\u200be\u00add c\u200bar", ["red car"], ["r\u200be\u00add c\u200bar"]),
        ("le café, le cafe\u0301!", ["cafe"], ["café", "cafe\u0301"]),
        ("Straße", ["strasse"], ["Straße"]),
        ("我喜欢红色的车", ["红色"], ["红色"]),
        ("红 色", ["红色"], []),
        ("買red車", ["red"], ["red"]),
        ("赤い車です", ["赤い車"], ["赤い車"]),
        ("красная машина", ["Красная"], ["красная"]),
        ("مرحبا بالعالم", ["بالعالم"], ["بالعالم"]),
        ("नमस्ते दुनिया", ["नमस्ते"], ["नमस्ते"]),
        ("a 👍🏽 red 👍", ["red"], ["red"]),
        ("x2 and 2x", ["x2"], ["x2"]),
        ("", ["red"], []),
    ],
)
def test_what_is_found(text: str, words: list[str], expected: list[str]) -> None:
    assert found(text, *words) == expected


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("a re", 2),
        ("a red", 3),  # "redden" may come
        ("a red ", 4),  # "red car" may
        ("a red c", 5),
        ("a red b", 0),
        ("a blue", 0),
        ("a red c\u200b", 6),
        ("红", 1),
        ("x红", 1),
        ("红色", 2),
        ("", 0),
    ],
)
def test_what_is_held_back(text: str, held: int) -> None:
    assert WordList(["red car", "红色的", "红绿灯"]).held(text) == held


letters = st.text("abé中国 -\u200bＡ.", max_size=30)


@given(st.lists(st.text("ab中国 ", min_size=1, max_size=6).filter(str.strip), min_size=1, max_size=4), letters, letters)
@example(["a b"], "a-", "b")
@example(["b"], "a", "b")
@settings(max_examples=500)
def test_what_is_not_held_back_begins_nothing(words: list[str], before: str, after: str) -> None:
    """Whatever comes next: nothing that is found then began in what was let go."""
    known = WordList(words)
    cut = len(before) - known.held(before)
    assert not [
        (start, end) for start, end in known.places(before + after) if start < cut < end and end > len(before.rstrip("\u200b"))
    ]


@pytest.mark.parametrize("words", [["..."], ["x" * 201]])
def test_what_cannot_be_looked_for(words: list[str]) -> None:
    with pytest.raises(ValueError, match=r"nothing in|longer than"):
        WordList(words)


def test_a_large_list() -> None:
    """Its size does not matter to a text (the cost is measured by the benchmarks)."""
    known = WordList([*(f"word{number}" for number in range(100_000)), "", "   "])
    assert len(known) == 100_000
    assert known.finds("this is word77777, indeed")
    assert not known.finds("this is word777777, indeed")
