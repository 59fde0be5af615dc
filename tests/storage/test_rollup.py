from __future__ import annotations

from typing import Any

import pytest

from aigw.exchange import Record
from aigw.storage.histogram import bucket
from aigw.storage.rollup import DIMENSIONS, LONGEST_NAME, SUMS, Group, Rollup, count_by_shape


def rollup(**fields: Any) -> Rollup:
    return Rollup.of([Record(id="a", at=0, **fields)])


def test_a_rollup_survives_its_row() -> None:
    """What is counted, written to a row and read back is the same sums and histograms."""
    counted = Rollup.of(
        [
            Record(
                id="a", at=0, took=5000, first_token=100, input=3, cached=1, cache_write_5m=1, output=4, reasoning=2, cost=9
            ),
            Record(
                id="b", at=0, took=7000, outcome="provider_error", input=1, cache_write_1h=1, cache_saving=2, abandoned_cost=5
            ),
        ]
    )
    again = Rollup.from_row(counted.row())
    assert dict(zip(SUMS, again.sums, strict=True)) == {
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
    assert again.total == counted.total == {bucket(5000): 1, bucket(7000): 1}
    assert again.first == counted.first == {bucket(100): 1}


def test_counting_together_is_counting_one_by_one() -> None:
    """A batch gives the sums of its records, priced and free, streams and not."""
    records = [
        Record(id="a", at=0, took=5, first_token=2, cost=1, input=1),
        Record(id="b", at=0, took=5, cost=0, output=7),
        Record(id="c", at=0, took=900, outcome="client_closed", output=1),
        Record(id="d", at=0, took=901, outcome="policy_error"),
    ]
    one_by_one = Rollup()
    for record in records:
        one_by_one.add(Rollup.of([record]))
    together = Rollup.of(records)
    assert together.row() == one_by_one.row()
    sums = dict(zip(SUMS, together.sums, strict=True))
    assert (sums["errors"], sums["priced"], sums["unpriced"]) == (1, 2, 1)  # a refusal has no tokens, so it lacks no price


@pytest.mark.parametrize("odd", [{"input": None}, {"cost": float("nan")}, {"took": "5"}, {"cached": 1.5}])
def test_what_cannot_be_added_is_refused(odd: dict[str, Any]) -> None:
    """Before it spoils a sum."""
    with pytest.raises(TypeError):
        rollup(**odd)


def test_sums_beyond_64_bits_still_fit_their_column() -> None:
    """They stop far enough from its largest integer that many of them can be added."""
    counted = rollup(input=2**63 - 1)
    counted.add(counted)
    assert counted.row()[SUMS.index("input")] == 2**53


def test_a_record_counts_once_in_every_dimension() -> None:
    """Under the asked name where it has no route; names of a caller's making are cut to a sane length."""
    records = [
        Record(id="a", at=0, route="r", requested_model="m", consumer="c", provider="p", model="u"),
        Record(id="b", at=0, route="r", requested_model="m", consumer="c", provider="p", model="u"),
        Record(id="c", at=0, requested_model="m" * 9999, model="u" * 9999, currency="CNY"),
    ]
    counted = list(count_by_shape(records))
    assert [(names, currency, rollup.sums[0]) for names, currency, rollup in counted] == [
        ({"all": "", "consumer": "c", "provider": "p", "model": "u", "route": "r"}, "USD", 2),
        (
            {"all": "", "consumer": "", "provider": "", "model": "u" * LONGEST_NAME, "route": "m" * LONGEST_NAME},
            "CNY",
            1,
        ),
    ]
    assert tuple(counted[0][0]) == DIMENSIONS


def test_a_group_has_costs_by_currency_and_percentiles() -> None:
    """Free is 0, unknown is no entry; what abandoned attempts cost counts."""
    group = Group()
    group.add("USD", rollup(took=1000, cost=0))
    group.add("CNY", rollup(took=1000, cost=5, abandoned_cost=1))
    group.add("EUR", rollup(took=1000, input=5))
    line = group.line("g")
    assert (line.group, line.requests, line.costs, line.unpriced) == ("g", 3, {"USD": 0, "CNY": 6}, 1)
    assert line.total_p50 == line.total_p95
    assert line.first_token_p50 is None
