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

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Histogram).decode
_LARGEST = 2**63 - 1  # of an integer column


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
    """Roll-ups that `usage` shows as one line."""

    __slots__ = ("first", "row", "total")

    def __init__(self, name: str) -> None:
        self.row = UsageRow(group=name, costs={})
        self.total: Histogram = {}
        self.first: Histogram = {}

    def add(self, currency: str, rollup: Rollup) -> None:
        """Take in one roll-up. What abandoned attempts cost was paid as well, so it is part of the costs."""
        row = self.row
        row.requests += rollup.requests
        row.errors += rollup.errors
        row.input += rollup.input
        row.cached += rollup.cached
        row.output += rollup.output
        row.unpriced += rollup.unpriced
        if rollup.priced or rollup.abandoned_cost:
            row.costs[currency] = row.costs.get(currency, 0) + rollup.cost + rollup.abandoned_cost
        merge(self.total, rollup.total)
        merge(self.first, rollup.first)

    def line(self) -> UsageRow:
        """The finished line, percentiles and all."""
        row = self.row
        row.total_p50, row.total_p95 = percentile(self.total, 0.5), percentile(self.total, 0.95)
        row.first_token_p50, row.first_token_p95 = percentile(self.first, 0.5), percentile(self.first, 0.95)
        return row
