"""Prometheus metrics. Plain integers are counted in the walk; prometheus-client shapes them when somebody asks (its own
counters cost 3 to 6 microseconds a request)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from aigw.exchange import Record

if TYPE_CHECKING:
    from prometheus_client import Metric

BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Seconds: upper bounds of the latency histograms. Models answer in tenths of seconds to minutes."""

MOST_LABELS = 2000
"""Label sets that are kept apart; callers choose model names, and a metric must not grow with their imagination."""

_MICRO = tuple(bound * 1e6 for bound in BOUNDS)


class Reading(NamedTuple):
    """A value of the moment: `name` without the prefix `aigw_`, what it means, and whether it only ever grows. Several of one
    name, one behind the other, differ in their `labels`."""

    name: str
    meaning: str
    value: float
    grows: bool = False
    labels: Mapping[str, str] = {}


Readings = Callable[[], Iterable[Reading]]


class _Row:
    """What is counted for one (operation, provider, model, outcome)."""

    __slots__ = ("buckets", "first_buckets", "first_sum", "input", "output", "requests", "sum")

    def __init__(self) -> None:
        self.requests = self.input = self.output = self.sum = self.first_sum = 0
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.first_buckets = [0] * (len(BOUNDS) + 1)


class Metrics:
    """A listener that counts, and a collector that tells."""

    def __init__(self, readings: Readings) -> None:
        """*readings* tells what others count, when it is asked."""
        self._rows: dict[tuple[str, str, str, str], _Row] = {}
        self._errors: dict[str, int] = {}
        self._costs: dict[tuple[str, str], int] = {}
        self._unpriced = self.requests = 0
        self._readings = readings

    def recorded(self, record: Record) -> None:
        key = (record.operation, record.provider, record.model, record.outcome)
        row = self._rows.get(key)
        if row is None:
            if len(self._rows) >= MOST_LABELS:
                key = (record.operation, record.provider, "(other)", record.outcome)
            row = self._rows.setdefault(key, _Row())
        row.requests += 1
        self.requests += 1
        row.input += record.input
        row.output += record.output
        row.sum += record.took
        row.buckets[bisect_left(_MICRO, record.took)] += 1
        if record.first_token is not None:
            row.first_sum += record.first_token
            row.first_buckets[bisect_left(_MICRO, record.first_token)] += 1
        if record.error:
            self._errors[record.error] = self._errors.get(record.error, 0) + 1
        if record.cost is not None:
            money = (record.provider, record.currency)
            self._costs[money] = self._costs.get(money, 0) + record.cost
        elif record.input or record.output:
            self._unpriced += 1

    def render(self) -> tuple[bytes, str]:
        """The exposition text and its content type."""
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry), "text/plain; version=0.0.4; charset=utf-8"

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        labels = ("operation", "provider", "model", "outcome")
        requests = CounterMetricFamily("aigw_requests", "Exchanges that ended, whatever their outcome.", labels=labels)
        tokens = CounterMetricFamily("aigw_tokens", "Tokens used: direction is input or output.", labels=(*labels, "direction"))
        took = HistogramMetricFamily("aigw_request_seconds", "Seconds from a request to its answer's last byte.", labels=labels)
        first = HistogramMetricFamily(
            "aigw_first_token_seconds", "Seconds from a request to the first content of its stream.", labels=labels
        )
        for key, row in list(self._rows.items()):
            requests.add_metric(key, row.requests)
            tokens.add_metric((*key, "input"), row.input)
            tokens.add_metric((*key, "output"), row.output)
            took.add_metric(key, _cumulative(row.buckets), row.sum / 1e6)
            if any(row.first_buckets):
                first.add_metric(key, _cumulative(row.first_buckets), row.first_sum / 1e6)
        yield from (requests, tokens, took, first)
        errors = CounterMetricFamily("aigw_errors", "Exchanges that ended with an error, by its code.", labels=("code",))
        for code, number in list(self._errors.items()):
            errors.add_metric((code,), number)
        yield errors
        cost = CounterMetricFamily(
            "aigw_cost", "What the exchanges cost, in units of the currency.", labels=("provider", "currency")
        )
        for (provider, currency), nano in list(self._costs.items()):
            cost.add_metric((provider, currency), nano / 1e9)
        yield cost
        unpriced = CounterMetricFamily("aigw_unpriced_requests", "Exchanges that used tokens of no known price.")
        unpriced.add_metric((), self._unpriced)
        yield unpriced
        for name, readings in groupby(self._readings(), attrgetter("name")):
            same = list(readings)
            family = CounterMetricFamily if same[0].grows else GaugeMetricFamily
            metric = family(f"aigw_{name}", same[0].meaning, labels=tuple(same[0].labels))
            for reading in same:
                metric.add_metric(tuple(reading.labels.values()), reading.value)
            yield metric


def _cumulative(buckets: list[int]) -> list[tuple[str, float]]:
    total = 0
    found = []
    for bound, number in zip((*map(str, BOUNDS), "+Inf"), buckets, strict=True):
        total += number
        found.append((bound, float(total)))
    return found
