"""What a batch of records adds to each table of PostgreSQL, as columns: made in a thread, before any transaction begins.

Rows of each table are in the order of their keys, so that two nodes lock what both touch in the same order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from aigw.exchange import Record
from aigw.storage.rollup import (
    ALL,
    DAY,
    DIMENSIONS,
    HOUR,
    OTHER,
    SUMS,
    CombinationKey,
    Rollup,
    RollupKey,
    by_hour,
    count_by_shape,
)
from aigw.storage.rows import quoted
from aigw.storage.spent import charges

NAMES_PER_HOUR = 5000
"""Combinations of an hour, and names of one dimension in it, that a process begins before it counts new models and routes as
"(other)": callers choose names."""

_WELL = ("ok", "client_closed")
_ROLLED = (*SUMS, "total_histogram", "first_histogram")
_TYPES = {"total_histogram": "bytea", "first_histogram": "bytea"} | dict.fromkeys((*SUMS, "hour", "span", "start"), "bigint")


def _adding(table: str, key: Sequence[str], sums: Sequence[str], types: dict[str, str]) -> str:
    """The statement that adds columns of values to what stands there."""
    columns = (*key, *sums)
    values = ", ".join(f"${number}::{types.get(name, 'text')}[]" for number, name in enumerate(columns, 1))
    added = ", ".join(
        f'"{name}" = histogram_sum({table}."{name}", excluded."{name}")'
        if name.endswith("_histogram")
        else f'"{name}" = {table}."{name}" + excluded."{name}"'
        for name in sums
    )
    return (
        f"INSERT INTO {table} ({quoted(columns)}) SELECT * FROM unnest({values}) "  # noqa: S608 - our own names
        f"ON CONFLICT ({quoted(key)}) DO UPDATE SET {added}"
    )


BATCH_TABLES = {
    "failure": (
        "INSERT INTO failure (at, id) SELECT * FROM unnest($1::double precision[], $2::text[]) ON CONFLICT (at, id) DO NOTHING"
    ),
    "spent": _adding("spent", ("holder", "quarter"), ("usd", "tokens"), dict.fromkeys(("quarter", "usd", "tokens"), "bigint")),
    "combination": _adding("combination", CombinationKey._fields, _ROLLED, _TYPES),
    "rollup": _adding("rollup", RollupKey._fields, _ROLLED, _TYPES),
}
"""The statement for each table, in the order in which they are carried out: what every node touches comes last."""


class Names:
    """How many combinations and names were begun in each hour here."""

    def __init__(self) -> None:
        self._seen: dict[tuple[Any, ...], set[tuple[str, ...]]] = {}

    def full(self, place: tuple[Any, ...], names: tuple[str, ...]) -> bool:
        """Whether *names* come too late in that hour to be told apart."""
        if len(self._seen) > 500:
            self._seen.clear()
        seen = self._seen.setdefault(place, set())
        if names in seen:
            return False
        if len(seen) >= NAMES_PER_HOUR:
            return True
        seen.add(names)
        return False


class Batch:
    """Records, their lines, and what they add up to. Raises ArithmeticError, TypeError or ValueError for what has to be made
    storable first."""

    def __init__(self, records: Sequence[Record], lines: Sequence[bytes], names: Names) -> None:
        self.records, self.lines, self._known = records, lines, names
        self._rollups: dict[RollupKey, Rollup] = {}
        self._combinations: dict[CombinationKey, Rollup] = {}
        self._spent = {(_plain(holder), quarter): sums for (holder, quarter), sums in charges(records).items()}
        for hour, those in by_hour(records):
            for counted in count_by_shape(those):
                currency = _plain(counted.currency)
                names_ = tuple(map(_plain, counted.names))
                for dimension in DIMENSIONS:
                    name = _plain(counted.name(dimension))
                    if dimension != ALL and names.full((dimension, hour), (name,)):
                        name = OTHER
                    self._add(self._rollups, RollupKey(dimension, hour, name, currency), counted.rollup)
                for span, start in ((HOUR, hour), (DAY, hour // DAY * DAY)):
                    key = CombinationKey._make((span, start, *names_, currency))
                    if names.full((span, start), names_):
                        key = key._replace(model=OTHER, route=OTHER)
                    self._add(self._combinations, key, counted.rollup)

    @staticmethod
    def _add(into: dict[Any, Rollup], key: Any, counted: Rollup) -> None:
        rollup = into.get(key)
        if rollup is None:
            rollup = into[key] = Rollup()
        rollup.add(counted)

    def only(self, keys: Collection[tuple[Any, ...]]) -> Batch:
        """Those of its records whose time and id are in *keys*, each once."""
        fresh = {
            (record.at, record.id): (record, line)
            for record, line in zip(self.records, self.lines, strict=True)
            if (record.at, record.id) in keys
        }
        return Batch([record for record, _ in fresh.values()], [line for _, line in fresh.values()], self._known)

    def tables(self) -> Iterator[tuple[str, list[list[Any]]]]:
        """What is added to each of `BATCH_TABLES`, as columns."""
        failed = sorted((record.at, record.id) for record in self.records if record.outcome not in _WELL)
        yield "failure", _columns(failed, 2)
        yield "spent", _columns([(*key, *sums) for key, sums in sorted(self._spent.items())], 4)
        rows = [(*key, *rollup.row()) for key, rollup in sorted(self._combinations.items())]
        yield "combination", _columns(rows, len(CombinationKey._fields) + len(_ROLLED))
        # The sums of all are the last ones that are locked, because every node's batch touches them.
        by_key = sorted(self._rollups.items(), key=lambda item: (item[0].dimension == ALL, item[0]))
        yield "rollup", _columns([(*key, *rollup.row()) for key, rollup in by_key], len(RollupKey._fields) + len(_ROLLED))


def _columns(rows: Sequence[tuple[Any, ...]], count: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(count)]


def _plain(text: str) -> str:
    """A name as PostgreSQL takes it: no NUL, no half of a pair. Raises TypeError for what is no text."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")
