"""What happened in the last minutes, counted as the records come: the figures behind `aigw top`.

An exchange counts in the second in which it ended, with all its tokens: only then is it known what it was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from aigw.exchange import Record
from aigw.storage.histogram import percentile
from aigw.storage.rollup import SUMS, Rollup, count_by_shape

HISTORY = 120
"""Seconds that are told apart, for the sparklines."""

SLOT = 5
"""Seconds that are counted together for the tables."""

MOST_NAMES = 300
"""Names in one slot that are told apart; callers choose them."""

MOST_ERRORS = 50

OTHER = "(other)"

_OUTPUT, _ERRORS = SUMS.index("output"), SUMS.index("errors")
_STREAM_OUTPUT, _STREAM_TOOK = SUMS.index("stream_output"), SUMS.index("stream_took")


class Row(NamedTuple):
    """The figures of one name over the window. Times are microseconds; None: nothing was measured."""

    name: str
    requests: int = 0
    errors: int = 0
    output: int = 0
    speed: float | None = None  # tokens per second of streams that had begun
    first_p50: int | None = None
    first_p95: int | None = None
    total_p50: int | None = None
    total_p95: int | None = None


class _Slot:
    """A few seconds: everything, and by name."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.all = Rollup()
        self.names: dict[str, dict[str, Rollup]] = {"model": {}, "consumer": {}}
        self.costs: dict[str, int] = {}

    def add(self, records: Sequence[Record]) -> None:
        for counted in count_by_shape(records):
            self.all.add(counted.rollup)
            for kind, known in self.names.items():
                name = counted.name(kind)
                if name not in known and len(known) >= MOST_NAMES:
                    name = OTHER
                known.setdefault(name, Rollup()).add(counted.rollup)
        for record in records:
            if record.cost is not None or record.abandoned_cost:
                self.costs[record.currency] = self.costs.get(record.currency, 0) + (record.cost or 0) + record.abandoned_cost


class Recent:
    """The last `window` seconds."""

    def __init__(self, window: float) -> None:
        self.window = window
        self._slots: deque[_Slot] = deque()
        self._seconds: dict[int, list[int]] = {}  # requests, errors, output tokens
        self.errors: deque[Record] = deque(maxlen=MOST_ERRORS)  # newest first

    def add(self, records: Iterable[Record], now: float) -> None:
        """Count what has come since the last time."""
        by_slot: dict[int, list[Record]] = {}
        for record in records:
            ended = record.at + record.took / 1e6
            if record.error and record.outcome != "client_closed":
                self.errors.appendleft(record)
            if ended < now - self.window:
                continue
            ended = min(ended, now)  # clocks that were set back
            second = self._seconds.setdefault(int(ended), [0, 0, 0])
            second[0] += 1
            second[1] += record.outcome not in ("ok", "client_closed")
            second[2] += record.output
            by_slot.setdefault(int(ended) // SLOT, []).append(record)
        for number, those in sorted(by_slot.items()):
            self._slot(number).add(those)
        self.forget(now)

    def _slot(self, number: int) -> _Slot:
        for slot in reversed(self._slots):
            if slot.number == number:
                return slot
            if slot.number < number:
                break
        slot = _Slot(number)
        self._slots.append(slot)
        if len(self._slots) > 1 and self._slots[-2].number > number:
            self._slots = deque(sorted(self._slots, key=lambda one: one.number))
        return slot

    def forget(self, now: float) -> None:
        """Drop what is older than the window."""
        while self._slots and (self._slots[0].number + 1) * SLOT <= now - self.window:
            self._slots.popleft()
        for second in [second for second in self._seconds if second < now - HISTORY - 1]:
            del self._seconds[second]

    def history(self, now: float, seconds: int) -> list[tuple[int, int, int]]:
        """Requests, errors and output tokens of each of the last *seconds*, oldest first, without the one that has just ended:
        records take half a second to arrive."""
        last = int(now) - 1
        return [tuple(self._seconds.get(second, (0, 0, 0))) for second in range(last - seconds, last)]  # type: ignore[misc]

    def total(self) -> Row:
        """All of the window."""
        rollup = Rollup()
        for slot in self._slots:
            rollup.add(slot.all)
        return _row("", rollup)

    def costs(self) -> dict[str, int]:
        """Nano-units by currency, over the window."""
        costs: dict[str, int] = {}
        for slot in self._slots:
            for currency, nano in slot.costs.items():
                costs[currency] = costs.get(currency, 0) + nano
        return costs

    def rows(self, kind: str, limit: int) -> list[Row]:
        """The busiest of a kind ("model", "consumer")."""
        sums: dict[str, Rollup] = {}
        for slot in self._slots:
            for name, rollup in slot.names[kind].items():
                sums.setdefault(name, Rollup()).add(rollup)
        busiest = sorted(sums.items(), key=lambda item: (-item[1].requests, item[0]))[:limit]
        return [_row(name, rollup) for name, rollup in busiest]


def _row(name: str, rollup: Rollup) -> Row:
    sums = rollup.sums
    took = sums[_STREAM_TOOK]
    return Row(
        name,
        rollup.requests,
        sums[_ERRORS],
        sums[_OUTPUT],
        sums[_STREAM_OUTPUT] / took * 1e6 if took > 0 else None,
        percentile(rollup.first, 0.5),
        percentile(rollup.first, 0.95),
        percentile(rollup.total, 0.5),
        percentile(rollup.total, 0.95),
    )
