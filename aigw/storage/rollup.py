"""Hourly sums of records: what `aigw stats` is read from, long after the records themselves are gone.

One roll-up stands for all exchanges of one hour (UTC) with one consumer, or one provider, and so on for each of `DIMENSIONS`:
each exchange counts once in every dimension. So a question reads only rows that answer it, a few for each hour, however many
combinations of consumers and models there were.

Combinations have sums of their own: one for all exchanges of one hour, and one of one day (UTC), that are alike in all of
`NAMES`. Questions about two things at once, or about some exchanges only, are answered from those: a month is some thirty
days of them and two days' hours at its ends.

The same code counts records when they are appended and when part of an hour has to be counted from records, so the two cannot
disagree.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from typing import Any, NamedTuple

from aigw.exchange import Record
from aigw.storage.base import UsageRow
from aigw.storage.histogram import Histogram, Total, bucket, merge, pack, percentile, unpack

LONGEST_NAME = 200
"""A requested name comes from the caller as it is; what is longer is cut, as no model is called so."""

OTHER = "(other)"
"""The name of exchanges in an hour that has more different ones than anybody could read."""

ALL = "all"
"""The dimension in which every exchange has the same name, an empty one: the hour's sums."""

DIMENSIONS = (ALL, "consumer", "provider", "model", "route")
"""What exchanges are counted by. A route is the name that was asked for where no route is written for it."""


NAMES = ("consumer", "group", "key", "provider", "model", "route", "operation", "error")
"""What a combination is made of. `key` is a consumer key's id, `error` our code; both may be empty."""

HOUR, DAY = 1, 24
"""The spans that combinations are summed over, in hours."""


class CombinationKey(NamedTuple):
    """What the exchanges of one combination have in common. `start` counts hours since the epoch; `span` is `HOUR` or `DAY`."""

    span: int
    start: int
    consumer: str
    group: str
    key: str
    provider: str
    model: str
    route: str
    operation: str
    error: str
    currency: str


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
    "stream_output",
    "stream_took",
)
"""The sums of a roll-up, in the order of its columns; the two histograms (`histogram.pack`) follow them.
`stream_output` are the tokens of streams, `stream_took` the microseconds from their first token to their end."""

SHOWN = (
    "requests",
    "errors",
    "input",
    "cached",
    "output",
    "cost",
    "abandoned_cost",
    "priced",
    "unpriced",
    "stream_output",
    "stream_took",
)
"""Those of them that `usage` answers with."""

FEW = 40
"""Records whose durations are remembered one by one: as many as a histogram has buckets."""

_HOUR = 3600
_at = operator.attrgetter("at")

_LARGEST = 2**53
"""Where a sum stops. In nano-dollars that is nine million an hour; a thousand of these still add up to 64 bits."""

_INTEGERS = {int}
_shape = operator.attrgetter(
    "consumer", "group", "key_id", "provider", "model", "route", "requested_model", "operation", "error", "currency"
)
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
    """The sums of one roll-up, in the order of `SUMS`, and histograms of the whole time and of the time to the first token.

    Few durations are cheaper to remember than to sort into buckets again for each roll-up they count in, so they are sorted
    in when somebody looks.
    """

    __slots__ = ("_first", "_late_first", "_late_total", "_total", "sums")

    def __init__(self, sums: Sequence[int] = (0,) * len(SUMS), total: Histogram | None = None, first: Histogram | None = None):
        self.sums = sums
        self._total: Histogram = {} if total is None else total
        self._first: Histogram = {} if first is None else first
        self._late_total: list[int] = []  # buckets
        self._late_first: list[int] = []

    @property
    def requests(self) -> int:
        return self.sums[0]

    @property
    def total(self) -> Histogram:
        return self.sorted_in()._total if self._late_total else self._total  # noqa: SLF001 - itself

    @property
    def first(self) -> Histogram:
        return self.sorted_in()._first if self._late_first else self._first  # noqa: SLF001 - itself

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
        if None in first:
            streamed = tuple(time is not None for time in first)
            output_, took_ = tuple(compress(output, streamed)), tuple(compress(took, streamed))
            first = tuple(compress(first, streamed))
        else:
            output_, took_ = output, took
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
            sum(output_),
            sum(took_) - sum(first),
        )
        if set(map(type, sums)) != _INTEGERS:
            raise TypeError("a record holds a count that is no integer")
        counted = cls(sums)
        counted._late_total, counted._late_first = list(map(bucket, took)), list(map(bucket, first))
        return counted.sorted_in() if requests > FEW else counted

    def sorted_in(self) -> Rollup:
        """Itself, with all durations in their buckets: for many, that is done once and not for each roll-up they count in."""
        if self._late_total:
            merge(self._total, Counter(self._late_total))
            self._late_total = []
        if self._late_first:
            merge(self._first, Counter(self._late_first))
            self._late_first = []
        return self

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> Rollup:
        """From the columns `SUMS` and the two histograms."""
        return cls(row[: len(SUMS)], unpack(row[-2]), unpack(row[-1]))

    def row(self) -> tuple[int | bytes, ...]:
        """The columns `SUMS` and the two histograms."""
        sums = self.sums
        if max(sums) > _LARGEST or min(sums) < -_LARGEST:
            sums = [max(-_LARGEST, min(_LARGEST, number)) for number in sums]
        return (*sums, pack(self.total), pack(self.first))

    def add(self, other: Rollup) -> None:
        """Count what *other* has counted."""
        self.sums = tuple(map(operator.add, self.sums, other.sums))
        if other._total:
            merge(self._total, other._total)
        if other._first:
            merge(self._first, other._first)
        self._late_total += other._late_total
        self._late_first += other._late_first


class Counted(NamedTuple):
    """Records that are alike in all that roll-ups and combinations tell apart. `names` are in the order of `NAMES`."""

    names: tuple[str, ...]
    currency: str
    rollup: Rollup

    def name(self, dimension: str) -> str:
        """Their name in a dimension, or of any of `NAMES`."""
        return "" if dimension == ALL else self.names[_PLACE[dimension]]


_PLACE = {name: place for place, name in enumerate(NAMES)}


def count_by_shape(records: Iterable[Record]) -> Iterator[Counted]:
    """Counts *records* by all in which roll-ups may differ. Most batches have few such shapes, so the work for each dimension
    is done a few times and not for every record."""
    shapes: defaultdict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in records:
        shapes[_shape(record)].append(record)
    for (consumer, group, key, provider, model, route, asked, operation, error, currency), alike in shapes.items():
        called = (route or asked)[:LONGEST_NAME]
        names = consumer, group, key, provider, model[:LONGEST_NAME], called, operation, error
        yield Counted(names, currency, Rollup.of(alike))


def by_hour(records: Sequence[Record]) -> Iterable[tuple[int, Sequence[Record]]]:
    """*records* by the hour in which they began. Raises ValueError when one began at no time."""
    if not records:
        return []
    times = list(map(_at, records))
    if not math.isfinite(sum(times)):
        raise ValueError("a record holds a time that is no number")
    first, last = int(min(times) // _HOUR), int(max(times) // _HOUR)
    if first == last:  # nearly always
        return [(first, records)]
    return [
        (hour, list(those))
        for hour, those in itertools.groupby(sorted(records, key=_at), key=lambda record: int(record.at // _HOUR))
    ]


class Trend:
    """Exchanges over time: how many fell into each of some equal parts of a window."""

    __slots__ = ("_part", "_since", "parts")

    def __init__(self, since: float, until: float, parts: int) -> None:
        """From *since* to *until*, in seconds since the epoch."""
        self._since = since
        self._part = max(until - since, 1e-6) / max(parts, 1)
        self.parts = [0.0] * parts

    def add(self, start: float, end: float, requests: int) -> None:
        """So many from *start* to *end*: spread evenly over the parts they touch, as nothing more is known."""
        most = len(self.parts)
        first = (start - self._since) / self._part
        last = (end - self._since) / self._part
        if int(first) == int(last) or last <= first:
            if 0 <= first < most:
                self.parts[int(first)] += requests
            return
        whole = last - first
        for part in range(max(0, int(first)), min(most, int(last) + 1)):
            self.parts[part] += requests * (min(last, part + 1) - max(first, part)) / whole


class Group:
    """What `usage` shows as one line: roll-ups added up."""

    __slots__ = ("first", "row", "total", "trend")

    def __init__(self, trend: Trend) -> None:
        self.row = UsageRow(group=(), costs={})
        self.total = Total()
        self.first = Total()
        self.trend = trend

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
        stream_output: int,
        stream_took: int,
    ) -> None:
        """The sums named in `SHOWN`, in its order. What abandoned attempts cost was paid too, so it is part of the costs."""
        row = self.row
        row.requests += requests
        row.errors += errors
        row.input += input
        row.cached += cached
        row.output += output
        row.unpriced += unpriced
        row.stream_output += stream_output
        row.stream_took += stream_took
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

    def line(self, names: tuple[str, ...]) -> UsageRow:
        """The finished line, percentiles and all."""
        row, total, first = self.row, self.total.histogram(), self.first.histogram()
        row.group = names
        row.trend = list(map(round, self.trend.parts))
        row.total_p50, row.total_p95 = percentile(total, 0.5), percentile(total, 0.95)
        row.first_token_p50, row.first_token_p95 = percentile(first, 0.5), percentile(first, 0.95)
        return row
