"""How `usage` is answered: which rows hold what happened in a window, as questions in SQL, and how they add up.

No I/O here: `answer` yields a `Select`, is sent the first rows of its result, yields MORE for the next ones until it is sent
none, and returns the lines. So one code asks SQLite and PostgreSQL, and neither has all records of an hour in memory.

Whole days and hours come from sums, the parts of an hour at both ends from the records. Where those are no longer kept, the
whole hour at the beginning is counted and the one at the end is not, so that windows laid end to end count everything once.

Where combinations (see `rollup.py`) lag behind, records that came after the fact `combined` are in none, and are counted here.
"""

from __future__ import annotations

import math
import zoneinfo
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, NamedTuple

from aigw.exchange import Record
from aigw.storage.base import GROUPINGS, UsageRow
from aigw.storage.rollup import ALL, DAY, DIMENSIONS, HOUR, SHOWN, Group, Trend, count_by_shape
from aigw.storage.storable import read_line

TIMES = ("day", "hour")

_HOUR = 3600

# Every name below comes from our own types, never from input.
_SUMS = ", ".join(f'CAST(sum("{name}") AS bigint)' for name in SHOWN)
_RECORDS = "SELECT line FROM record_line"


PAGE = 5000
"""Rows that are sent at a time."""

MORE = None
"""The next rows of the last `Select`, please."""


class Select(NamedTuple):
    """A question in SQL, with a "?" for each of `asked`."""

    sql: str
    asked: Sequence[Any] = ()


Asking = Generator[Select | None, Sequence[Sequence[Any]], Any]


class Question(NamedTuple):
    """What is asked: `by` some of `NAMES` and of `TIMES`, from `since` to `until` (inf: all there is), `only` those so named.
    `trend` is the window that trends show."""

    by: tuple[str, ...]
    since: float
    until: float
    zone: tzinfo
    only: Mapping[str, str]
    parts: int
    trend: tuple[float, float]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name in self.by if name not in TIMES)

    @property
    def time(self) -> str:
        """ "day", "hour", or nothing."""
        return next((name for name in self.by if name in TIMES), "")

    @property
    def dimension(self) -> str:
        """The dimension whose roll-ups can answer; nothing when only combinations can."""
        if self.only or len(self.names) > 1:
            return ""
        name = self.names[0] if self.names else ALL
        return name if name in DIMENSIONS else ""


def question(by: str, since: float, until: float, tz: str, only: Mapping[str, str] | None, parts: int, now: float) -> Question:
    """What `Store.usage` was asked. An *until* that is not in the past takes in all there is. Raises ValueError."""
    asked = tuple(filter(None, by.split(",")))
    for name in (*asked, *(only or {})):
        if name not in GROUPINGS or (only and name in only and name in TIMES):
            raise ValueError(f"usage is grouped by {', '.join(GROUPINGS)} or nothing, not by {name!r}")
    if len(set(asked)) < len(asked) or set(TIMES) <= set(asked):
        raise ValueError(f"usage is not grouped by {by!r}: each name once, and day or hour")
    try:
        zone: tzinfo = UTC if tz == "UTC" else zoneinfo.ZoneInfo(tz)  # UTC also where no time zone data is installed
    except (zoneinfo.ZoneInfoNotFoundError, OSError, ValueError):
        raise ValueError(f"unknown time zone {tz!r}: use a name like Europe/Berlin, Asia/Shanghai or UTC") from None
    trend = since, min(until, max(now, since))
    return Question(asked, since, math.inf if until >= now else until, zone, only or {}, parts, trend)


class _Span(NamedTuple):
    """A stretch of time to add up, and what its rows are called where days are asked for."""

    label: str
    start: float
    end: float


def answer(question: Question, *, lagging: bool) -> Generator[Select | None, Sequence[Sequence[Any]], list[UsageRow]]:
    """The lines that `Store.usage` promises; the caller holds a transaction. *lagging*: combinations do."""
    tally = _Tally(question)
    kept_from = yield Select("SELECT number FROM fact WHERE name = ?", ("records_from",))
    if kept_from:
        tally.kept_from = float(kept_from[0][0])
    [(first,)] = yield Select("SELECT min(hour) FROM rollup WHERE dimension = ?", (ALL,))
    [(last,)] = yield Select("SELECT max(hour) FROM rollup WHERE dimension = ?", (ALL,))
    if first is not None:
        since, until = max(question.since, first * _HOUR), min(question.until, (last + 1) * _HOUR)
        for span in _spans(question, since, until):
            yield from tally.add(span)
        if lagging and not question.dimension:
            yield from tally.add_uncombined()
    return tally.lines()


def _spans(question: Question, since: float, until: float) -> Iterator[_Span]:
    """Each local day, or all of it at once."""
    if question.time != "day":
        if since < until:
            yield _Span("", since, until)
        return
    day = datetime.fromtimestamp(since, question.zone).date()
    while since < until:
        following = day + timedelta(days=1)
        midnight = datetime(following.year, following.month, following.day, tzinfo=question.zone).astimezone(UTC).timestamp()
        yield _Span(day.isoformat(), since, min(midnight, until))
        since, day = midnight, following


class _Tally:
    """The groups of one question as they grow."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._time, self._dimension = question.time, question.dimension
        self._groups: dict[tuple[Any, tuple[str, ...]], Group] = {}  # by day or hour (or "", 0), and names
        self.kept_from = -math.inf  # records from before may be gone
        self._combined: list[tuple[_Span, float, float]] = []  # what was counted from combinations
        if not question.by:
            self._group("", 0, ())
        self._filter = "".join(f' AND "{name}" = ?' for name in question.only)
        self._asked = tuple(question.only.values())

    def _group(self, label: str, hour: int, names: Sequence[str]) -> Group:
        key = (hour if self._time == "hour" else label), tuple(names)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(Trend(*self._question.trend, self._question.parts))
        return group

    def add(self, span: _Span) -> Asking:
        """All that happened in *span*, but for what is in no combination yet."""
        first, last = (
            math.ceil(span.start / _HOUR),
            math.floor(span.end / _HOUR),
        )  # whole hours from first to last, without last
        pieces: list[tuple[float, float]] = []
        if first > last:  # all within one hour
            pieces.append((span.start, span.end))
        else:
            pieces += [(span.start, first * _HOUR)] if span.start < first * _HOUR else []
            pieces += [(last * _HOUR, span.end)] if last * _HOUR < span.end else []
        for begin, finish in list(pieces):
            hour = math.floor(begin / _HOUR)
            if hour * _HOUR < self.kept_from:  # its records may be gone
                pieces.remove((begin, finish))
                if finish == (hour + 1) * _HOUR:
                    first = hour
        for begin, finish in pieces:
            rows = yield Select(f"{_RECORDS} WHERE at >= ? AND at < ?", (begin, finish))
            while rows:
                self._add_records(span, (line for (line,) in rows))
                rows = yield MORE
        if first >= last:
            return
        if self._dimension:
            yield from self._add_sums(
                span, "rollup", "dimension = ? AND hour >= ? AND hour < ?", (self._dimension, first, last)
            )
            return
        self._combined.append((span, first * _HOUR, last * _HOUR))
        day, after = -(-first // DAY) * DAY, last // DAY * DAY
        if self._time == "hour" or day >= after:
            yield from self._add_combinations(span, HOUR, first, last)
        else:
            yield from self._add_combinations(span, HOUR, first, day)
            yield from self._add_combinations(span, DAY, day, after)
            yield from self._add_combinations(span, HOUR, after, last)

    def _add_combinations(self, span: _Span, length: int, first: int, last: int) -> Asking:
        if first < last:
            where = "span = ? AND start >= ? AND start < ?" + self._filter
            yield from self._add_sums(span, "combination", where, (length, first, last, *self._asked), length)

    def _add_sums(self, span: _Span, table: str, where: str, asked: Sequence[object], length: int = HOUR) -> Asking:
        """Rows of *table*: their sums in one question, as adding them up here would take longer; their histograms and their
        place in time row by row."""
        start = "hour" if table == "rollup" else "start"
        if table == "combination":
            names = [f'"{name}"' for name in self._question.names]
        else:
            names = ["name"] if self._question.names else []
        hour = start if self._time == "hour" else "0"
        columns = ", ".join([hour, *names])
        numbered = ", ".join(str(place) for place in range(1, len(names) + 3))
        wide = len(names) + 1
        query = f"SELECT {columns}, currency, {_SUMS} FROM {table} WHERE {where} GROUP BY {numbered}"  # noqa: S608
        rows = yield Select(query, asked)
        while rows:
            for row in rows:
                self._group(span.label, row[0], row[1:wide]).add_sums(*row[wide:])
            rows = yield MORE
        query = f"SELECT {columns}, {start}, requests, total_histogram, first_histogram FROM {table} WHERE {where}"  # noqa: S608
        groups, by_hour = self._groups, self._time == "hour"
        trends = bool(self._question.parts)
        rows = yield Select(query, asked)
        while rows:
            for row in rows:
                begin, requests, total, first = row[wide:]
                group = groups[(row[0] if by_hour else span.label), tuple(row[1:wide])]  # the sums have made it
                group.add_histograms(total, first)
                if trends:
                    group.trend.add(begin * _HOUR, (begin + length) * _HOUR, requests)
            rows = yield MORE

    def _add_records(self, span: _Span, lines: Iterable[bytes]) -> None:
        """Records as they are kept. Those of one hour (where hours are asked for) and part of the trend are counted at once."""
        question = self._question
        by_hour, parts = self._time == "hour", question.parts
        begin, end = question.trend
        width = (end - begin) / parts if parts else math.inf
        slots: dict[tuple[int, int], list[Record]] = {}
        for line in lines:
            record = read_line(line)
            slot = int(record.at // _HOUR) if by_hour else 0, int((record.at - begin) // width)
            slots.setdefault(slot, []).append(record)
        for (hour, _), records in slots.items():
            at = records[0].at
            for counted in count_by_shape(records):
                if all(counted.name(name) == value for name, value in question.only.items()):
                    group = self._group(span.label, hour, [counted.name(name) for name in question.names])
                    group.add(counted.currency, counted.rollup)
                    group.trend.add(at, at, counted.rollup.requests)

    def add_uncombined(self) -> Asking:
        """Records of the hours that were counted from combinations, which are in none yet."""
        if not self._combined:
            return
        fact = yield Select("SELECT number FROM fact WHERE name = ?", ("combined",))
        late = yield Select("SELECT at, line FROM record_line WHERE rowid > ?", (int(fact[0][0]) if fact else 0,))
        while late:
            for span, begin, finish in self._combined:
                self._add_records(span, (line for at, line in late if begin <= at < finish))
            late = yield MORE

    def lines(self) -> list[UsageRow]:
        """Finished and in order."""
        question = self._question
        place = question.by.index(self._time) if self._time else 0
        found = []
        for (time, names), group in sorted(
            self._groups.items(), key=lambda item: (item[0][0], -item[1].row.requests, item[0][1])
        ):
            shown = list(names)
            if self._time:
                shown.insert(place, time if isinstance(time, str) else _local_hour(time, question.zone))
            found.append(group.line(tuple(shown)))
        return found


def _local_hour(hour: int, zone: tzinfo) -> str:
    return datetime.fromtimestamp(hour * _HOUR, zone).isoformat(timespec="minutes")
