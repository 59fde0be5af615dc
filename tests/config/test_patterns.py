"""Exact names, globs and regular expressions."""

from __future__ import annotations

import time
from fnmatch import fnmatchcase

import pytest
from hypothesis import given, strategies as st

from aigw.config import patterns


@pytest.mark.parametrize(
    ("name", "yes", "no"),
    [
        ("gpt-*", ["gpt-", "gpt-6", "gpt-6/x\ny"], ["gpt", "GPT-6", "xgpt-6"]),
        ("*-mini", ["-mini", "gpt-mini"], ["gpt-mini-2"]),
        ("a*b?c*", ["abxc", "axxbyczz"], ["abc", "axbc"]),
        ("claude[1m]*", ["claude[1m]", "claude[1m]-x"], ["claude1", "claudem"]),
        ("**", ["", "x"], []),
        ("a.c?", ["a.cd"], ["abcd"]),
        ("re:^gpt-[56]", ["gpt-5", "gpt-6-sol"], ["gpt-4", "x-gpt-5"]),
        ("re:mini", ["gpt-mini-2"], ["max"]),
    ],
)
def test_what_a_pattern_takes(name: str, yes: list[str], no: list[str]) -> None:
    """`*` is anything, `?` one character, the rest is literal; regular expressions are searched for."""
    assert patterns.is_pattern(name)
    expression = patterns.compiled(name)
    assert [word for word in yes + no if expression.search(word)] == yes


@given(st.text("ab*?", min_size=1, max_size=12), st.text("ab", max_size=14))
def test_globs_agree_with_the_standard_library(glob: str, word: str) -> None:
    """Where both read a glob the same way, they take the same names."""
    assert bool(patterns.compiled(glob).search(word)) == fnmatchcase(word, glob)


def test_exact_names() -> None:
    """Without *, ? and re: a name is just that."""
    assert not any(map(patterns.is_pattern, ["gpt-6", "claude[1m]", "a.b", "", "RE:x", "^x$"]))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("re:(", "not a regular expression: missing )"),
        ("re:", "empty"),
        ("re:a{99999999999}", "not a regular"),
        ("*" + "x" * 512, "512"),
    ],
)
def test_patterns_that_cannot_be_used(name: str, reason: str) -> None:
    """Refused in words for the operator."""
    with pytest.raises(ValueError, match=r".*") as caught:
        patterns.compiled(name)
    assert reason in str(caught.value)


def test_no_name_makes_a_glob_wander() -> None:
    """Many stars and a long name that almost fits: milliseconds."""
    start = time.perf_counter()
    assert not patterns.compiled("*a" * 30 + "*b").search("a" * 512)
    assert time.perf_counter() - start < 0.5


def test_most_specific_first() -> None:
    """More literal characters, fewer stars, more question marks; regular expressions, then globs without anything literal."""
    written = ["*", "??*", "re:a", "re:x", "g*t*p", "gpt*", "g?t-*", "gpt-6-*"]
    ordered = ["gpt-6-*", "g?t-*", "gpt*", "g*t*p", "re:a", "re:x", "??*", "*"]
    assert sorted(written, key=patterns.specificity) == ordered


def test_literal_heads() -> None:
    """What all names of a glob begin with."""
    assert [patterns.literal_head(name) for name in ("openai/*", "a?b*", "*", "re:^openai/")] == ["openai/", "a", "", ""]
