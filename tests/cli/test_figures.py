from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, strategies as st

from aigw.cli import figures


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (98_304, "98,304"),
        (99_999, "99,999"),
        (100_000, "100k"),
        (999_499, "999k"),
        (999_500, "1.00M"),
        (4_560_000, "4.56M"),
        (45_600_000, "45.6M"),
        (7_890_000_000, "7.89B"),
        (7_890_000_000_000, "7890B"),
    ],
)
def test_tokens(number: int, text: str) -> None:
    """Exact while a person can take it in, then three digits."""
    assert figures.tokens(number) == text


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (None, "-"),
        (0, "0.00 ms"),
        (850, "0.85 ms"),
        (9_996, "10.0 ms"),
        (120_000, "120 ms"),
        (999_499, "999 ms"),
        (999_500, "1.00 s"),
        (1_240_000, "1.24 s"),
        (59_900_000, "59.9 s"),
        (59_960_000, "1m 00s"),
        (123_000_000, "2m 03s"),
        (3_599_600_000, "60m 00s"),
    ],
)
def test_duration(microseconds: int | None, text: str) -> None:
    """A unit that fits; never 60 seconds within a minute."""
    assert figures.duration(microseconds) == text


@pytest.mark.parametrize(
    ("costs", "unpriced", "text"),
    [
        ({}, 0, "-"),
        ({}, 3, "?"),
        ({"USD": 0}, 0, "$0"),
        ({"USD": 1_234_567_890_000}, 0, "$1,234.57"),
        ({"USD": 12_300_000}, 0, "$0.0123"),
        ({"USD": 1_250}, 0, "$0.0000013"),
        ({"USD": 1}, 0, "$0.000000001"),
        ({"USD": 1_500_000_000}, 2, "$1.50?"),
        ({"CNY": 45_600_000, "USD": 1_230_000_000}, 0, "$1.23 + ¥0.0456"),
        ({"CNY": 45_600_000, "USD": 0}, 0, "¥0.0456"),
        ({"CNY": 0, "USD": 0}, 0, "$0"),
        ({"GBP": 2_000_000_000}, 0, "GBP 2.00"),
    ],
)
def test_money(costs: dict[str, int], unpriced: int, text: str) -> None:
    """Each currency by itself, nothing rounded to nothing, and what is unknown says so."""
    assert figures.money(costs, unpriced) == text


@given(st.integers(-(2**63), 2**63))
def test_exact(nano: int) -> None:
    """For programs not one nano is lost."""
    assert Decimal(figures.exact(nano)) == Decimal(nano) / 10**9
    assert "E" not in figures.exact(nano)


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [
        (0, 0, "-"),
        (0, 9, "0"),
        (1, 1_000_000, "<0.1 %"),
        (1, 250, "0.4 %"),
        (1, 8, "12 %"),
        (9, 9, "100 %"),
        (999, 10_000, "10 %"),
    ],
)
def test_shares(part: int, whole: int, shown: str) -> None:
    """What is not nothing never looks like it."""
    assert figures.share(part, whole) == shown


@pytest.mark.parametrize(
    ("number", "shown"),
    [(None, "-"), (0, "0"), (0.05, "0.05"), (12.34, "12.3"), (850.4, "850"), (1234.5, "1,234"), (5e5, "500k")],
)
def test_rates(number: float | None, shown: str) -> None:
    """Three digits; nothing measured is no 0."""
    assert figures.rate(number) == shown


def test_sparklines() -> None:
    """As tall as the largest; nothing is a gap, and what is not is seen."""
    assert figures.sparkline([0, 1, 50, 100]) == " ▁▅█"
    assert figures.sparkline([0, 1, 50, 100], ascii_only=True) == " _+#"
    assert figures.sparkline([0.001, 1e9]) == "▁█"
    assert figures.sparkline([5, 10], most=40) == "▂▃"
    assert figures.sparkline([0, 0]) == "  "
    assert figures.sparkline([]) == ""


def test_bars() -> None:
    """To an eighth of a character; something is never an empty bar."""
    assert figures.bar(10, 10, 4) == "████"
    assert figures.bar(5, 10, 3) == "█▌"
    assert figures.bar(1, 1000, 4) == "▏"
    assert figures.bar(0, 10, 4) == figures.bar(0, 0, 4) == ""
    assert (figures.bar(5, 10, 3, ascii_only=True), figures.bar(1, 1000, 4, ascii_only=True)) == ("##", "#")
