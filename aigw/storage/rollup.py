"""Hourly sums of records: what `aigw stats` is read from, long after the records themselves are gone.

One roll-up stands for all exchanges of one hour (UTC) that agree in `DIMENSIONS`. The same code adds a record when it is
appended and when part of an hour has to be counted from records, so the two cannot disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from aigw.exchange import Record
from aigw.storage.base import UsageRow
from aigw.storage.histogram import Histogram, bucket, merge, percentile

LONGEST_NAME = 200
"""A requested name comes from the caller as it is; what is longer is cut, as no model is called so."""

OTHER = "(other)"
"""The route and model of exchanges in an hour that has more different ones than anybody could read."""


class RollupKey(NamedTuple):
    """What the exchanges of one roll-up have in common. `hour` counts hours since the epoch."""

    hour: int
    consumer: str
    key_id: str
    group: str
    route: str
    provider: str
    model: str
    operation: str
    currency: str


DIMENSIONS = RollupKey._fields

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
"""The sums of a roll-up, in the order of its columns; the two histograms (JSON, bucket to count) follow them."""

SHOWN = ("requests", "errors", "input", "cached", "output", "cost", "abandoned_cost", "priced", "unpriced")
"""Those of them that `usage` answers with."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Histogram).decode
_LARGEST = 2**53
"""Where a sum stops. In nano-dollars that is nine million an hour; a thousand of these still add up to 64 bits."""


def key_of(record: Record) -> RollupKey:
    """Where *record* is counted."""
    return RollupKey(
        int(record.at // 3600),
        record.consumer,
        record.key_id,
        record.group,
        (record.route or record.requested_model)[:LONGEST_NAME],
        record.provider,
        record.model[:LONGEST_NAME],
        record.operation,
        record.currency,
    )


class Rollup:
    """The sums of one roll-up. `total` and `first` are histograms of the whole time and of the time to the first token."""

    __slots__ = (*SUMS, "first", "total")

    def __init__(self) -> None:
        self.requests = self.errors = 0
        self.input = self.cached = self.cache_write_5m = self.cache_write_1h = self.output = self.reasoning = 0
        self.cost = self.cache_saving = self.abandoned_cost = self.priced = self.unpriced = 0
        self.took = 0  # microseconds
        self.total: Histogram = {}
        self.first: Histogram = {}

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> Rollup:
        """From the columns `SUMS` and the two histograms."""
        rollup = cls()
        for name, value in zip(SUMS, row, strict=False):
            setattr(rollup, name, value)
        rollup.total, rollup.first = _decode(row[-2]), _decode(row[-1])
        return rollup

    def row(self) -> tuple[int | str, ...]:
        """The columns `SUMS` and the two histograms."""
        sums = [max(-_LARGEST, min(_LARGEST, getattr(self, name))) for name in SUMS]
        return (*sums, _encode(self.total).decode(), _encode(self.first).decode())

    def add(self, record: Record) -> None:
        """Count one exchange."""
        self.requests += 1
        if record.outcome not in {"ok", "client_closed"}:
            self.errors += 1
        self.input += record.input
        self.cached += record.cached
        self.output += record.output
        if record.cache_write_5m:
            self.cache_write_5m += record.cache_write_5m
        if record.cache_write_1h:
            self.cache_write_1h += record.cache_write_1h
        if record.reasoning:
            self.reasoning += record.reasoning
        cost = record.cost
        if cost is not None:
            self.priced += 1
            self.cost += cost
        elif record.input or record.output:
            self.unpriced += 1
        if record.cache_saving:
            self.cache_saving += record.cache_saving
        if record.abandoned_cost:
            self.abandoned_cost += record.abandoned_cost
        took = record.took
        self.took += took
        slot = bucket(took)
        self.total[slot] = self.total.get(slot, 0) + 1
        first = record.first_token
        if first is not None:
            slot = bucket(first)
            self.first[slot] = self.first.get(slot, 0) + 1


class Group:
    """What `usage` shows as one line: roll-ups added up."""

    __slots__ = ("first", "row", "total")

    def __init__(self) -> None:
        self.row = UsageRow(group="", costs={})
        self.total: Histogram = {}
        self.first: Histogram = {}

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

    def add_histograms(self, total: str, first: str) -> None:
        """As they stand in their columns."""
        merge(self.total, _decode(total))
        merge(self.first, _decode(first))

    def add(self, currency: str, rollup: Rollup) -> None:
        """All of one roll-up."""
        self.add_sums(currency, *(getattr(rollup, name) for name in SHOWN))
        merge(self.total, rollup.total)
        merge(self.first, rollup.first)

    def line(self, name: str) -> UsageRow:
        """The finished line, percentiles and all."""
        row = self.row
        row.group = name
        row.total_p50, row.total_p95 = percentile(self.total, 0.5), percentile(self.total, 0.95)
        row.first_token_p50, row.first_token_p95 = percentile(self.first, 0.5), percentile(self.first, 0.95)
        return row
