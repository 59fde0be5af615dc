from __future__ import annotations

from aigw.exchange import Record
from aigw.storage.rollup import LONGEST_NAME, SUMS, Group, Rollup, key_of


def test_a_rollup_survives_its_row() -> None:
    """What is written to a row and read back is the same sums and histograms."""
    rollup = Rollup()
    rollup.add(
        Record(id="a", at=0, took=5000, first_token=100, input=3, cached=1, cache_write_5m=1, output=4, reasoning=2, cost=9)
    )
    rollup.add(
        Record(id="b", at=0, took=7000, outcome="provider_error", input=1, cache_write_1h=1, cache_saving=2, abandoned_cost=5)
    )
    again = Rollup.from_row(rollup.row())
    sums = {name: getattr(again, name) for name in SUMS}
    assert sums == {
        "requests": 2,
        "errors": 1,
        "input": 4,
        "cached": 1,
        "cache_write_5m": 1,
        "cache_write_1h": 1,
        "output": 4,
        "reasoning": 2,
        "cost": 9,
        "cache_saving": 2,
        "abandoned_cost": 5,
        "priced": 1,
        "unpriced": 1,
        "took": 12000,
    }
    assert (again.total, again.first) == (rollup.total, rollup.first)
    assert sum(again.total.values()) == 2
    assert sum(again.first.values()) == 1


def test_sums_beyond_64_bits_still_fit_their_column() -> None:
    """They stop far enough from its largest integer that many of them can be added."""
    rollup = Rollup()
    for _ in range(2):
        rollup.add(Record(id="a", at=0, input=2**63 - 1))
    assert rollup.row()[SUMS.index("input")] == 2**53


def test_a_record_is_counted_in_its_utc_hour_and_under_the_asked_name() -> None:
    """The route when there is one, else what the caller wrote, cut to a sane length."""
    assert key_of(Record(id="a", at=7199.9, route="r", requested_model="m"))[:5] == (1, "", "", "", "r")
    assert key_of(Record(id="a", at=7200, requested_model="m" * 9999)).route == "m" * LONGEST_NAME


def test_a_group_has_costs_by_currency_and_percentiles() -> None:
    """Free is 0, unknown is no entry; what abandoned attempts cost counts."""
    group, free, dear, unknown = Group(), Rollup(), Rollup(), Rollup()
    free.add(Record(id="a", at=0, took=1000, cost=0))
    dear.add(Record(id="b", at=0, took=1000, cost=5, abandoned_cost=1))
    unknown.add(Record(id="c", at=0, took=1000, input=5))
    for currency, rollup in (("USD", free), ("CNY", dear), ("EUR", unknown)):
        group.add(currency, rollup)
    line = group.line("g")
    assert (line.group, line.requests, line.costs, line.unpriced) == ("g", 3, {"USD": 0, "CNY": 6}, 1)
    assert line.total_p50 == line.total_p95
    assert line.first_token_p50 is None
