"""Dollars for any cost."""

from __future__ import annotations

from aigw.config import schema
from aigw.metering.currencies import Currencies


def test_dollars_are_dollars() -> None:
    """To the last billionth, however many."""
    assert Currencies().usd(10**18 + 1, "USD") == 10**18 + 1


def test_the_operators_rate_holds() -> None:
    """Rounded half up; without one, ours; of a currency nobody knows as if it were dollars."""
    own = Currencies(schema.Currencies(CNY=0.5))
    assert [own.usd(nano, "CNY") for nano in (0, 1, 2, 3)] == [0, 1, 1, 2]
    assert own.usd(1000, "EUR") == 1100
    assert Currencies().usd(100, "CNY") == 14
    assert own.usd(5, "XXX") == 5
