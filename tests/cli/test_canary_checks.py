"""Figures of canaries as people write them."""

from __future__ import annotations

import pytest
import typer

from aigw.cli import canary_checks as checks


def test_percentages() -> None:
    """With or without the sign, growing, above 0, at most 100."""
    assert checks.percents("1,5%, 25,99.5,100") == (1.0, 5.0, 25.0, 99.5, 100.0)
    assert checks.percent("0.1%", "--shadow") == 0.1
    for wrong in ("", "0", "1,1", "5,1", "50,101", "-1", "x", "1,,2", "nan", "inf"):
        with pytest.raises(typer.BadParameter):
            checks.percents(wrong)


def test_amounts() -> None:
    """A currency in front or behind; dollars when it is not said. Nothing, and what nobody has, is no amount."""
    assert checks.amount("1usd") == checks.amount("$1") == checks.amount("1") == (1_000_000_000, "USD")
    assert checks.amount("0.000000001 CNY") == (1, "CNY")
    assert checks.amount("€2.50") == (2_500_000_000, "EUR")
    for wrong in ("", "0", "0usd", "-1usd", "1gbp", "$1usd", "1e9", "much", "9999999999usd"):
        with pytest.raises(typer.BadParameter):
            checks.amount(wrong)


def test_stickiness() -> None:
    """A header's name is one that HTTP allows."""
    assert [checks.stickiness(text) for text in ("consumer", "conversation", "header:x-User_1")]
    for wrong in ("", "header:", "header:a b", "header:a:b", "Consumer", "header:" + "x" * 65):
        with pytest.raises(typer.BadParameter):
            checks.stickiness(wrong)


def test_reasons() -> None:
    """Errors and empty answers always roll back."""
    assert checks.reasons("errors") == ("errors", "empty")
    assert checks.reasons("cost, latency") == ("errors", "empty", "latency", "cost")
    with pytest.raises(typer.BadParameter, match="did you mean latency"):
        checks.reasons("latencies")
