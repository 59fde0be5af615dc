"""Budgets as people write them, and terms as the walk knows them."""

from __future__ import annotations

import pytest

from aigw.config import schema
from aigw.config.terms import budget, budgets, network, terms, written
from aigw.consumer import NANO, Budget, OnBudget


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5usd/day", Budget(5 * NANO, "usd", "day")),
        ("$0.50/hour", Budget(NANO // 2, "usd", "hour")),
        (" 1_000 USD / total ", Budget(1000 * NANO, "usd", "total")),
        ("1M tokens/month", Budget(10**6, "tokens", "month")),
        ("2.5k tokens/week", Budget(2500, "tokens", "week")),
        ("1b token/total", Budget(10**9, "tokens", "total")),
        ("0.000000001usd/day", Budget(1, "usd", "day")),
    ],
)
def test_a_budget(text: str, expected: Budget) -> None:
    """As it is meant; and written again it reads the same."""
    assert budget(text) == expected
    assert budget(written(expected)) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("5/day", "of what"),
        ("5usd", "no budget"),
        ("5usd/fortnight", "expected one of hour, day, week, month, total"),
        ("5eur/day", "in usd or in tokens"),
        ("-5usd/day", "no budget"),
        ("0usd/day", "more than 0"),
        ("0.0000000001usd/day", "finer than can be counted"),
        ("9e99usd/day", "no budget"),
        ("9999999999999999999usd/day", "too much"),
        ("$5tokens/day", "in usd or in tokens"),
        ("1.5 tokens/day", "finer"),
        ("x" * 10_000, "no budget"),
    ],
)
def test_no_budget(text: str, why: str) -> None:
    """Each says what was expected, and none repeats megabytes."""
    with pytest.raises(ValueError, match=why) as caught:
        budget(text)
    assert len(str(caught.value)) < 200


def test_the_unit_that_is_meant() -> None:
    """`--tokens 1M/month` names none; another one is refused."""
    assert budget("1M/month", "tokens") == Budget(10**6, "tokens", "month")
    with pytest.raises(ValueError, match="expected tokens here"):
        budget("5usd/day", "tokens")


def test_two_for_one_window() -> None:
    """Only one of them can be meant."""
    assert len(budgets(["5usd/day", "50usd/month", "1M tokens/day"])) == 3
    with pytest.raises(ValueError, match="two budgets of usd a day"):
        budgets(["5usd/day", "6usd/day"])


def test_networks() -> None:
    """In one form; what is none is refused."""
    assert network("10.1.2.3/8") == "10.0.0.0/8"
    assert network(" 2001:db8::1 ") == "2001:db8::1/128"
    with pytest.raises(ValueError, match="no address"):
        network("10.0.0.0/99")


def test_terms_of_a_table() -> None:
    """Every field arrives; `[limits]` has no permissions."""
    table = schema.Group(
        models=("gpt-*", "@fast"),
        deny=("gpt-4*",),
        providers=("openai",),
        residency=("eu",),
        endpoints=("chat",),
        max_price=10.0,
        allow_ip=("10.1.2.3/8",),
        rpm=1,
        tpm=2,
        concurrency=3,
        max_output=4,
        budgets=("5usd/day",),
        tz="Asia/Shanghai",
        hard=True,
        unpriced="allow",
        on_budget=schema.OnBudget(at=0.9, use="cheap"),
        priority="batch",
    )
    found = terms(table)
    assert {name: getattr(found, name) for name in found.__struct_fields__} == {
        "models": ("gpt-*", "@fast"),
        "deny": ("gpt-4*",),
        "providers": ("openai",),
        "residency": ("eu",),
        "endpoints": ("chat",),
        "max_price": 10.0,
        "allow_ip": ("10.0.0.0/8",),
        "rpm": 1,
        "tpm": 2,
        "concurrency": 3,
        "max_output": 4,
        "budgets": (Budget(5 * NANO, "usd", "day"),),
        "tz": "Asia/Shanghai",
        "hard": True,
        "unpriced": "allow",
        "on_budget": OnBudget(0.9, "cheap"),
        "priority": "batch",
    }
    assert terms(schema.Defaults(rpm=9)).models == ()
