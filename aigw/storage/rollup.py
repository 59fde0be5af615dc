"""Hourly sums of records: what `aigw stats` is read from, long after the records themselves are gone.

One roll-up stands for all exchanges of one hour (UTC) with one consumer, or one provider, and so on for each of `DIMENSIONS`:
each exchange counts once in every dimension. So a question reads only rows that answer it, a few for each hour, however many
combinations of consumers and models there were (those are the records' business). The same code counts records when they are
appended and when part of an hour has to be counted from records, so the two cannot disagree.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from aigw.exchange import Record
from aigw.storage.base import UsageRow
from aigw.storage.histogram import Histogram, Total, count, merge, pack, percentile, unpack

LONGEST_NAME = 200
"""A requested name comes from the caller as it is; what is longer is cut, as no model is called so."""

OTHER = "(other)"
"""The name of exchanges in an hour that has more different ones than anybody could read."""

ALL = "all"
"""The dimension in which every exchange has the same name, an empty one: the hour's sums."""

DIMENSIONS = (ALL, "consumer", "provider", "model", "route")
"""What exchanges are counted by. A route is the name that was asked for where no route is written for it."""


class RollupKey(NamedTuple):
    """What the exchanges of one roll-up have in common. `hour` counts hours since the epoch."""

    dimension: str
    hour: int
    name: str
    currency: str


SUMS = (
    "requests",
    "errors",
    "input",
    "cached",
    "cache_write_5m",
    "cache_write_1h",
    "output",
    "reasoning",
    "cost",
    "cache_saving",
    "abandoned_cost",
    "priced",
    "unpriced",
    "took",
)
"""The sums of a roll-up, in the order of its columns; the two histograms (`histogram.pack`) follow them."""

SHOWN = ("requests", "errors", "input", "cached", "output", "cost", "abandoned_cost", "priced", "unpriced")
"""Those of them that `usage` answers with."""

_LARGEST = 2**53
"""Where a sum stops. In nano-dollars that is nine million an hour; a thousand of these still add up to 64 bits."""

_shape = operator.attrgetter("consumer", "provider", "model", "route", "requested_model", "currency")
_counted = operator.attrgetter(
    "outcome",
    "input",
    "cached",
    "cache_write_5m",
    "cache_write_1h",
    "output",
    "reasoning",
    "cost",
    "cache_saving",
    "abandoned_cost",
    "took",
    "first_token",
)
_shown = operator.itemgetter(*(SUMS.index(name) for name in SHOWN))


class Rollup:
    """The sums of one roll-up, in the order of `SUMS`. `total` and `first` are histograms of the whole time and of the time to
    the first token."""

    __slots__ = ("first", "sums", "total")

    def __init__(self, sums: Sequence[int] = (0,) * len(SUMS), total: Histogram | None = None, first: Histogram | None = None):
        self.sums = sums
        self.total: Histogram = {} if total is None else total
        self.first: Histogram = {} if first is None else first

    @classmethod
    def of(cls, records: Sequence[Record]) -> Rollup:
        """Counts *records*, at least one: a column at a time, a third of what a record at a time takes. Raises TypeError when
        one of them holds what cannot be added."""
        outcome, input_, cached, write_5m, write_1h, output, reasoning, cost, saving, abandoned, took, first = zip(
            *map(_counted, records), strict=True
        )
        requests = len(records)
        unknown, unpriced = cost.count(None), 0
        if unknown:
            unpriced = sum(1 for price, *tokens in zip(cost, input_, output, strict=True) if price is None and any(tokens))
            cost = tuple(price for price in cost if price is not None)
        sums = (
            requests,
            requests - outcome.count("ok") - outcome.count("client_closed"),
            sum(input_),
            sum(cached),
            sum(write_5m),
            sum(write_1h),
            sum(output),
            sum(reasoning),
            sum(cost),
            sum(saving),
            sum(abandoned),
            requests - unknown,
            unpriced,
            sum(took),
        )
        if not all(type(number) is int for number in sums):
            raise TypeError("a record holds a count that is no integer")
        return cls(sums, count(took), count(time for time in first if time is not None) if None in first else count(first))

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> Rollup:
        """From the columns `SUMS` and the two histograms."""
        return cls(row[: len(SUMS)], unpack(row[-2]), unpack(row[-1]))

    def row(self) -> tuple[int | bytes, ...]:
        """The columns `SUMS` and the two histograms."""
        return (*(max(-_LARGEST, min(_LARGEST, number)) for number in self.sums), pack(self.total), pack(self.first))

    def add(self, other: Rollup) -> None:
        """Count what *other* has counted."""
        self.sums = tuple(map(operator.add, self.sums, other.sums))
        merge(self.total, other.total)
        merge(self.first, other.first)


def count_by_shape(records: Iterable[Record]) -> Iterator[tuple[dict[str, str], str, Rollup]]:
    """Counts *records* by all in which roll-ups may differ: the name in each dimension, the currency, the sums. Most batches
    have few such shapes, so the work for each dimension is done a few times and not for every record."""
    shapes: defaultdict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in records:
        shapes[_shape(record)].append(record)
    for (consumer, provider, model, route, requested_model, currency), alike in shapes.items():
        names = {
            ALL: "",
            "consumer": consumer,
            "provider": provider,
            "model": model[:LONGEST_NAME],
            "route": (route or requested_model)[:LONGEST_NAME],
        }
        yield names, currency, Rollup.of(alike)


class Group:
    """What `usage` shows as one line: roll-ups added up."""

    __slots__ = ("first", "row", "total")

    def __init__(self) -> None:
        self.row = UsageRow(group="", costs={})
        self.total = Total()
        self.first = Total()

    def add_sums(
        self,
        currency: str,
        requests: int,
        errors: int,
        input: int,  # noqa: A002 - the field's word
        cached: int,
        output: int,
        cost: int,
        abandoned_cost: int,
        priced: int,
        unpriced: int,
    ) -> None:
        """The sums named in `SHOWN`, in its order. What abandoned attempts cost was paid too, so it is part of the costs."""
        row = self.row
        row.requests += requests
        row.errors += errors
        row.input += input
        row.cached += cached
        row.output += output
        row.unpriced += unpriced
        if priced or abandoned_cost:
            row.costs[currency] = row.costs.get(currency, 0) + cost + abandoned_cost

    def add_histograms(self, total: bytes, first: bytes) -> None:
        """As they stand in their columns."""
        self.total.add(total)
        self.first.add(first)

    def add(self, currency: str, rollup: Rollup) -> None:
        """All of one roll-up."""
        self.add_sums(currency, *_shown(rollup.sums))
        self.add_histograms(pack(rollup.total), pack(rollup.first))

    def line(self, name: str) -> UsageRow:
        """The finished line, percentiles and all."""
        row, total, first = self.row, self.total.histogram(), self.first.histogram()
        row.group = name
        row.total_p50, row.total_p95 = percentile(total, 0.5), percentile(total, 0.95)
        row.first_token_p50, row.first_token_p95 = percentile(first, 0.5), percentile(first, 0.95)
        return row
