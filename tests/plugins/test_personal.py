"""What is personal, and what only looks like it."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from aigw.plugins.personal import KINDS, finders, places

ALL = finders(frozenset(KINDS))


def found(text: str) -> list[tuple[str, str]]:
    return [(text[one.start : one.end], one.kind) for one in places(text, ALL)]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("ann@example.org", "EMAIL"),
        ("first.last+tag@mail.example.co.uk", "EMAIL"),
        ("13812345678", "PHONE"),
        ("+86 138-1234-5678", "PHONE"),
        ("+49 30 901820", "PHONE"),
        ("+1 (415) 555-2671", "PHONE"),
        ("11010519491231002X", "ID"),
        ("110105194912310021", ""),
        ("4111 1111 1111 1111", "CARD"),
        ("4111111111111112", ""),
        ("6222021234567890128", "CARD"),
        ("6222021234567890129", ""),
        ("0000000000000000", ""),
        ("DE89 3704 0044 0532 0130 00", "IBAN"),
        ("DE89370400440532013001", ""),
        ("192.168.1.254", "IP"),
        ("999.1.1.1", ""),
        ("1.2.3.4.5", ""),
        ("sk-proj-abcdefghijklmnopqrstuvwx", "KEY"),
        ("AKIAIOSFODNN7EXAMPLE", "KEY"),
        ("ghp_0123456789abcdefghijklmnopqrstuvwxyzAB", "KEY"),
        ("2026-11-24 12:30", ""),
        ("order 12345678", ""),
        ("3.14159265358979", ""),
        ("task-1", ""),
        ("a@b", ""),
    ],
)
def test_shapes(text: str, kind: str) -> None:
    """Alone, in a sentence of another script, and not as a part of a longer word."""
    expected = [(text, kind)] if kind else []
    assert found(text) == expected
    assert found(f"请联系{text}。") == expected
    assert kind in ("", "EMAIL") or found(f"xx{text}") != [(f"xx{text}", kind)]


def test_numbers_beside_each_other() -> None:
    """Each is found, whatever number stands before or behind it."""
    assert found("5 13812345678 7") == [("13812345678", "PHONE")]
    assert found("13812345678 13912345678") == [("13812345678", "PHONE"), ("13912345678", "PHONE")]
    assert found("12 4111 1111 1111 1111, 34") == [("4111 1111 1111 1111", "CARD")]
    assert found(" ".join(["13812345678"] * 20)) == [("13812345678", "PHONE")] * 20
    assert found("\u1a90 13812345678") == [("13812345678", "PHONE")], "a digit of another script is none of it"


def test_several() -> None:
    text = "ann@example.org, 13812345678 and bob@example.org 😀"
    assert found(text) == [("ann@example.org", "EMAIL"), ("13812345678", "PHONE"), ("bob@example.org", "EMAIL")]


@given(st.text(max_size=300))
def test_any_text(text: str) -> None:
    """In order, apart from each other, within the text."""
    last = 0
    for one in places(text, ALL):
        assert last <= one.start < one.end <= len(text)
        last = one.end


@pytest.mark.parametrize(
    "text", ["1" * 20_000, "a@" * 10_000, "1 " * 10_000, "A1" * 10_000, "+(1" * 7_000, "sk-" * 7_000, "1." * 10_000]
)
def test_odd_texts_take_no_time(text: str) -> None:
    """No pattern goes back and forth over what it has read: a hundred such texts are read in a moment."""
    for _ in range(3):
        places(text, ALL)
