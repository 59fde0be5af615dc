from __future__ import annotations

from typing import Any

import pytest

from aigw.exchange import Record
from aigw.storage.histogram import bucket
from aigw.storage.rollup import DIMENSIONS, FEW, LONGEST_NAME, NAMES, SUMS, Group, Rollup, Trend, count_by_shape


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
        "stream_output": 4,
        "stream_took": 4900,
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
    assert [(one.names, one.currency, one.rollup.requests) for one in counted] == [
        (("c", "", "", "p", "u", "r", "", ""), "USD", 2),
        (("", "", "", "", "u" * LONGEST_NAME, "m" * LONGEST_NAME, "", ""), "CNY", 1),
    ]
    assert [counted[0].name(name) for name in DIMENSIONS] == ["", "c", "p", "u", "r"]


def test_all_names_tell_records_apart() -> None:
    """One shape for each combination of everything that stats can group by."""
    names = {"consumer": "c", "group": "g", "key_id": "k", "provider": "p", "model": "m", "route": "r", "operation": "o"}
    whole = names | {"error": "e"}
    records = [Record(id=name, at=0, **{**whole, name: "x"}) for name in whole] + [Record(id="all", at=0, **whole)]
    counted = list(count_by_shape(records))
    assert len(counted) == len(records) == len(NAMES) + 1
    for one, name in zip(counted, whole, strict=False):
        assert one.name(name.removesuffix("_id")) == "x"


@pytest.mark.parametrize("count", [FEW, FEW + 1])
def test_few_and_many_are_counted_alike(count: int) -> None:
    """Durations that were remembered and those that were sorted in make the same histograms, and adding changes no part."""
    records = [Record(id=str(number), at=0, took=number * 1000, first_token=number or None) for number in range(count)]
    part, whole = Rollup.of(records), Rollup()
    whole.add(part)
    whole.add(part)
    assert whole.total == {key: 2 * number for key, number in part.total.items()}
    assert whole.first == {key: 2 * number for key, number in part.first.items()}
    assert (sum(part.total.values()), sum(part.first.values())) == (count, count - 1)


def test_a_trend_spreads_what_has_no_moment() -> None:
    """A day over the parts it touches, a moment into its own; what lies outside is not shown."""
    trend = Trend(0, 100, 4)
    trend.add(10, 10, 1)
    trend.add(99.9, 99.9, 1)
    trend.add(0, 50, 8)
    trend.add(90, 190, 10)
    trend.add(-50, 50, 4)
    trend.add(100, 100, 5)
    trend.add(-1, -1, 5)
    assert trend.parts == pytest.approx([6, 5, 0, 2])
    assert Trend(0, 1, 0).parts == []


def test_a_group_has_costs_by_currency_and_percentiles() -> None:
    """Free is 0, unknown is no entry; what abandoned attempts cost counts."""
    group = Group(Trend(0, 10, 2))
    group.add("USD", rollup(took=1000, cost=0))
    group.add("CNY", rollup(took=1000, cost=5, abandoned_cost=1))
    group.add("EUR", rollup(took=1000, input=5))
    group.trend.add(9, 9, 3)
    line = group.line(("g",))
    assert line.trend == [0, 3]
    assert (line.group, line.requests, line.costs, line.unpriced) == (("g",), 3, {"USD": 0, "CNY": 6}, 1)
    assert line.total_p50 == line.total_p95
    assert line.first_token_p50 is None
