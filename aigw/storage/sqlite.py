"""The store in one file: SQLite.

One connection writes, owned by one thread; a second one, in a thread of its own and opened when first needed, answers the
long questions (`usage`, `records`), so that nobody's statistics hold up a record or a revoked key. Several processes share
the file (a running server, the command line): WAL lets readers and the writer pass each other, and who finds the file
locked waits up to `BUSY_TIMEOUT`.

Commits are on the disk when they return (`synchronous = FULL`): a key that was shown to its owner, and a record whose
journal is about to be dropped, must survive a power cut. Measured, that is one fsync for a batch of records.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import operator
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from aigw.consumer import Consumer, ConsumerKey
from aigw.errors import StoreError
from aigw.exchange import Record
from aigw.storage.base import Change, Filling, Rows, UsageRow
from aigw.storage.migrations import LATEST, MIGRATIONS, Migration
from aigw.storage.questions import PAGE, answer, question
from aigw.storage.rollup import (
    DAY,
    DIMENSIONS,
    HOUR,
    OTHER,
    SUMS,
    CombinationKey,
    Counted,
    Rollup,
    RollupKey,
    by_hour,
    count_by_shape,
)
from aigw.storage.rows import (
    CONSUMER_FIELDS,
    KEPT_CHANGES,
    KEY_FIELDS,
    TABLES,
    consumer_from,
    consumer_row,
    everyone,
    key_from,
    quoted,
)
from aigw.storage.spent import EXACT_FOR, MERGED_AT_ONCE, QUARTER, charges
from aigw.storage.storable import read_line, storable, write_line

T = TypeVar("T")

BUSY_TIMEOUT = 5.0
"""Seconds to wait for another process that is writing."""

AGAIN = 2.0
"""Seconds after a file could not be opened in which nobody waits for it again."""

ROWS_PER_STATEMENT = (200, 20, 5, 1)
"""Rows in one INSERT, largest first. Each statement gives up the interpreter lock once, and getting it back from a busy event
loop takes up to 5 ms, so one row each would be 200 records a second on a bad day. Few sizes, so that the prepared statements
are found again."""

COMBINE_EVERY = 20_000
"""Records between two times that the sums of combinations are brought up to date. Those are many rows for few exchanges, and a
question can count some thousand records itself (about 3 us each)."""

COMBINATIONS_BEGUN = 5000
"""Combinations that a process begins in an hour before it counts new ones as models and routes "(other)"."""

KEPT_COMBINATIONS = 2000
"""Combinations that are remembered from one time to the next."""

KEPT_ROLLUPS = 5000
"""Roll-ups the writer remembers between batches, so that it need not read what it wrote a moment ago."""

ROLLUPS_PER_HOUR = 20_000
"""Roll-ups of one dimension that a process begins in an hour before it counts new names as "(other)": callers choose names."""

PAGE_SIZE = 8192
"""Bytes. Records are written once and in order, so larger pages mean fewer calls of the system: a tenth of an append."""

_HOUR = 3600


def _marks(count: int) -> str:
    return ", ".join("?" * count)


_ROLLUP_KEY = RollupKey._fields
_COMBINATION_KEY = CombinationKey._fields
_ROLLED = (*SUMS, "total_histogram", "first_histogram")

# Every name below comes from our own types, never from input.
_SELECT_RECORD = "SELECT line FROM record_line"
_SELECT_CONSUMER = f"SELECT {quoted(CONSUMER_FIELDS)} FROM consumer"  # noqa: S608
_SELECT_KEY = f"SELECT {quoted(KEY_FIELDS)} FROM consumer_key"  # noqa: S608
_SELECT_ROLLUP = f"SELECT {quoted(_ROLLED)} FROM rollup WHERE ({quoted(_ROLLUP_KEY)}) = ({_marks(len(_ROLLUP_KEY))})"  # noqa: S608
_SELECT_COMBINATION = (
    f"SELECT {quoted(_ROLLED)} FROM combination WHERE ({quoted(_COMBINATION_KEY)}) = ({_marks(len(_COMBINATION_KEY))})"  # noqa: S608
)
_at = operator.attrgetter("at")
_WELL = ("ok", "client_closed")
_id = operator.attrgetter("id")


class _SomeKnownError(Exception):
    """A batch holds records that are kept already; its transaction is taken back."""


class SqliteStore:
    """`Store` over one SQLite file. See `aigw.storage.base.Store` for what each method promises."""

    def __init__(self, path: Path) -> None:
        """Opens *path*, makes it (0600, its directory 0700) when it is missing and brings its schema up to date, after a
        backup beside it. Raises StoreError, but for what may pass (a lock, a full disk): then it is opened when it is needed,
        and a server can start."""
        self.path = path
        self._closed = False
        self._rollups: dict[RollupKey, Rollup] = {}
        self._rollups_begun: dict[tuple[str, int], int] = {}
        self._uncombined: dict[tuple[int, tuple[str, ...], str], Rollup] | None = None  # None: not known here
        self._uncombined_records = 0
        self._combinations: dict[CombinationKey, Rollup] = {}  # as they stand in the file
        self._combinations_begun: dict[int, int] = {}
        self._data_version = -1
        self._spent_merged, self._spent_holder = 0, ""  # the day on which that was done; how far it has come
        self._reader: sqlite3.Connection | None = None
        self._opened = False
        self._failed_at, self._failure = -math.inf, sqlite3.Error()
        with self._plain_errors():
            self._create()
            try:
                self._open()
            except sqlite3.Error as error:
                if not getattr(error, "sqlite_errorname", "").startswith(_PASSING):
                    raise
                self._failed_at, self._failure = time.monotonic(), error
        self._writer_thread = ThreadPoolExecutor(1, "aigw-store-writer")
        self._reader_thread = ThreadPoolExecutor(1, "aigw-store-reader")

    # --- consumers and keys -------------------------------------------------------------------------------------------

    async def consumers(self) -> tuple[list[Consumer], list[ConsumerKey], int]:
        def read() -> tuple[list[Consumer], list[ConsumerKey], int]:
            with self._transaction("BEGIN"):  # one moment for all three
                consumers = self._connection.execute(_SELECT_CONSUMER + " ORDER BY name")
                found = everyone(consumers, self._connection.execute(_SELECT_KEY + " ORDER BY created, id"))
                return *found, self._last_change()

        return await self._write(read)

    async def changes(self, since: int) -> list[Change]:
        def read() -> list[Change]:
            rows = self._connection.execute("SELECT seq, kind, id FROM change WHERE seq > ? ORDER BY seq", (since,))
            return [Change(*row) for row in rows]

        return await self._write(read)

    async def last_change(self) -> int:
        return await self._write(self._last_change)

    async def changed(self, timeout: float) -> None:  # noqa: ASYNC109 - nothing is cancelled: it is time to look
        await asyncio.sleep(timeout)  # a file tells nobody

    async def consumer(self, name_or_id: str) -> Consumer | None:
        def read() -> Consumer | None:
            query = _SELECT_CONSUMER + " WHERE id = ?1 OR name = ?1 ORDER BY id = ?1 DESC LIMIT 1"
            row = self._connection.execute(query, (name_or_id,)).fetchone()
            return consumer_from(row) if row else None

        return await self._write(read)

    async def keys_of(self, consumer_id: str) -> list[ConsumerKey]:
        def read() -> list[ConsumerKey]:
            rows = self._connection.execute(_SELECT_KEY + " WHERE consumer_id = ? ORDER BY created, id", (consumer_id,))
            return [key_from(row) for row in rows]

        return await self._write(read)

    async def key(self, key_id: str) -> ConsumerKey | None:
        def read() -> ConsumerKey | None:
            row = self._connection.execute(_SELECT_KEY + " WHERE id = ?", (key_id,)).fetchone()
            return key_from(row) if row else None

        return await self._write(read)

    async def put_consumer(self, consumer: Consumer) -> None:
        def write() -> None:
            with self._transaction():
                query = "SELECT 1 FROM consumer WHERE name = ? AND id <> ?"
                if self._connection.execute(query, (consumer.name, consumer.id)).fetchone():
                    raise StoreError(f"another consumer is already called {consumer.name!r}: choose another name")
                self._upsert("consumer", ("id",), CONSUMER_FIELDS, consumer_row(consumer))
                self._note_change("consumer", consumer.id)

        await self._write(write)

    async def put_key(self, key: ConsumerKey) -> None:
        def write() -> None:
            with self._transaction():
                query = "SELECT 1 FROM consumer_key WHERE digest = ? AND scheme = ? AND id <> ?"
                if self._connection.execute(query, (key.digest, key.scheme, key.id)).fetchone():
                    raise StoreError("this consumer key is already stored: revoke that one, or make a new key")
                self._upsert("consumer_key", ("id",), KEY_FIELDS, msgspec.structs.astuple(key))
                self._note_change("key", key.id)

        await self._write(write)

    async def revoke_key(self, key_id: str, at: float) -> bool:
        def write() -> bool:
            with self._transaction():
                query = "UPDATE consumer_key SET revoked = ? WHERE id = ? AND revoked IS NULL"
                was_live = self._connection.execute(query, (at, key_id)).rowcount == 1
                if was_live:
                    self._note_change("key", key_id)
                return was_live

        return await self._write(write)

    def _last_change(self) -> int:
        return int(self._connection.execute("SELECT coalesce(max(seq), 0) FROM change").fetchone()[0])

    def _note_change(self, kind: str, row_id: str) -> None:
        self._connection.execute("INSERT INTO change (kind, id) VALUES (?, ?)", (kind, row_id))

    # --- records ------------------------------------------------------------------------------------------------------

    async def append(self, records: Sequence[Record], lines: Sequence[bytes] | None = None) -> int:
        return await self._write(self._append, records, lines) if records else 0

    def _append(self, records: Sequence[Record], lines: Sequence[bytes] | None) -> int:
        try:
            return self._append_as_is(records, [write_line(record) for record in records] if lines is None else lines)
        except (
            ArithmeticError,
            TypeError,
            ValueError,
            sqlite3.IntegrityError,
            sqlite3.InterfaceError,
            sqlite3.ProgrammingError,
        ):
            fit = [storable(record) for record in records]  # one of them did not fit its columns
            return self._append_as_is(fit, [write_line(record) for record in fit])

    def _append_as_is(self, records: Sequence[Record], lines: Sequence[bytes]) -> int:
        try:
            with self._transaction():
                if self._insert_records(records, lines) != len(records):
                    raise _SomeKnownError
                self._note_failures(records)
                self._note_spent(records)
                self._roll_up(records)
                return len(records)
        except _SomeKnownError:
            with self._transaction():
                fresh = self._unknown(records, lines)
                self._insert_records([record for record, _ in fresh], [line for _, line in fresh])
                self._note_failures([record for record, _ in fresh])
                self._note_spent([record for record, _ in fresh])
                self._roll_up([record for record, _ in fresh])
                return len(fresh)

    def _insert_records(self, records: Sequence[Record], lines: Sequence[bytes]) -> int:
        columns = ("at", "id", "line")
        values: list[Any] = [None] * (len(records) * len(columns))
        values[0::3], values[1::3], values[2::3] = map(_at, records), map(_id, records), lines
        # DO NOTHING for a known id only: OR IGNORE would also swallow a row that breaks another rule.
        return self._insert("record_line", columns, values, "ON CONFLICT (at, id) DO NOTHING")

    def _note_failures(self, records: Sequence[Record]) -> None:
        values = [value for record in records if record.outcome not in _WELL for value in (record.at, record.id)]
        if values:
            self._insert("failure", ("at", "id"), values, "ON CONFLICT DO NOTHING")

    def _note_spent(self, records: Sequence[Record]) -> None:
        values = [value for key, sums in charges(records).items() for value in (*key, *sums)]
        if values:
            add = "ON CONFLICT (holder, quarter) DO UPDATE SET usd = usd + excluded.usd, tokens = tokens + excluded.tokens"
            self._insert("spent", ("holder", "quarter", "usd", "tokens"), values, add)

    def _unknown(self, records: Sequence[Record], lines: Sequence[bytes]) -> list[tuple[Record, bytes]]:
        """Those of *records* that are not kept yet, each once, with their lines."""
        by_id = {(record.at, record.id): (record, line) for record, line in zip(records, lines, strict=True)}
        for key in list(by_id):
            if self._connection.execute("SELECT 1 FROM record_line WHERE at = ? AND id = ?", key).fetchone():
                del by_id[key]
        return list(by_id.values())

    def _roll_up(self, records: Sequence[Record]) -> None:
        """Add *records* to their roll-ups: each touched row is written once, whole, in the transaction at hand."""
        version = self._connection.execute("PRAGMA data_version").fetchone()[0]
        if version != self._data_version or len(self._rollups) > KEPT_ROLLUPS:  # another process has written, or too many
            self._rollups.clear()
        if version != self._data_version:
            self._uncombined, self._data_version = None, version
            self._combinations = {}
        touched: dict[RollupKey, Rollup] = {}
        for hour, those in by_hour(records):
            for counted in count_by_shape(those):
                for dimension in DIMENSIONS:
                    key = RollupKey(dimension, hour, counted.name(dimension), counted.currency)
                    rollup = touched.get(key) or self._rollups.get(key)
                    if rollup is None:
                        key, rollup = self._load_rollup(key)
                    touched[key] = rollup
                    rollup.add(counted.rollup)
                self._note_combination(hour, counted)
        values = [value for key, rollup in touched.items() for value in (*key, *rollup.row())]
        self._upsert("rollup", _ROLLUP_KEY, (*_ROLLUP_KEY, *_ROLLED), values)
        self._uncombined_records += len(records)
        if self._uncombined is None or self._uncombined_records >= COMBINE_EVERY:
            self._combine()

    def _note_combination(self, hour: int, counted: Counted) -> None:
        """Remember what the next `_combine` writes, so that it need not read the records again."""
        if self._uncombined is not None:
            key = hour, counted.names, counted.currency
            rollup = self._uncombined.get(key)
            if rollup is None:
                self._uncombined[key] = counted.rollup
            else:
                rollup.add(counted.rollup)

    def _combine(self) -> None:
        """Bring the sums of combinations up to date, in the transaction at hand."""
        if self._uncombined is None:
            self._uncombined = {}
            query = "SELECT line FROM record_line WHERE rowid > coalesce((SELECT number FROM fact WHERE name = 'combined'), 0)"
            for hour, those in by_hour(_readable(line for (line,) in self._connection.execute(query))):
                for counted in count_by_shape(those):
                    self._note_combination(hour, counted)
        touched: dict[CombinationKey, Rollup] = {}
        for (hour, names, currency), counted_here in self._uncombined.items():
            for span, start in ((HOUR, hour), (DAY, hour // DAY * DAY)):
                key = CombinationKey._make((span, start, *names, currency))
                rollup = touched.get(key)
                if rollup is None:
                    key, rollup = self._load_combination(key, touched)
                    touched[key] = rollup
                rollup.add(counted_here)
        values = [value for key, rollup in touched.items() for value in (*key, *rollup.row())]
        self._upsert("combination", _COMBINATION_KEY, (*_COMBINATION_KEY, *_ROLLED), values)
        self._connection.execute(
            "INSERT INTO fact (name, number) SELECT 'combined', coalesce(max(rowid), 0) FROM record_line WHERE true "
            "ON CONFLICT (name) DO UPDATE SET number = excluded.number"
        )
        self._uncombined, self._uncombined_records = {}, 0
        self._combinations = touched if len(touched) <= KEPT_COMBINATIONS else {}

    def _load_combination(self, key: CombinationKey, touched: dict[CombinationKey, Rollup]) -> tuple[CombinationKey, Rollup]:
        if key in self._combinations:
            return key, self._combinations[key]
        row = self._connection.execute(_SELECT_COMBINATION, key).fetchone()
        if row is not None:
            return key, Rollup.from_row(row)
        begun = self._combinations_begun.get(key.start, 0)
        if begun >= COMBINATIONS_BEGUN and key.model != OTHER:
            other = key._replace(model=OTHER, route=OTHER)
            return (other, touched[other]) if other in touched else self._load_combination(other, touched)
        if len(self._combinations_begun) > 500:
            self._combinations_begun.clear()
        self._combinations_begun[key.start] = begun + 1
        return key, Rollup()

    def _load_rollup(self, key: RollupKey) -> tuple[RollupKey, Rollup]:
        row = self._connection.execute(_SELECT_ROLLUP, key).fetchone()
        if row is None:
            place = key.dimension, key.hour
            begun = self._rollups_begun.get(place, 0)
            if begun >= ROLLUPS_PER_HOUR and key.name != OTHER:
                other = key._replace(name=OTHER)
                return (other, self._rollups[other]) if other in self._rollups else self._load_rollup(other)
            if len(self._rollups_begun) > 500:
                self._rollups_begun.clear()
            self._rollups_begun[place] = begun + 1
        rollup = self._rollups[key] = Rollup() if row is None else Rollup.from_row(row)
        return key, rollup

    async def spent(self, holders: Iterable[str], since: float) -> dict[str, tuple[int, int]]:
        wanted, first = list(holders), max(0, math.ceil(since / QUARTER))

        def read() -> dict[str, tuple[int, int]]:
            found = {}
            query = "SELECT sum(usd), sum(tokens) FROM spent WHERE holder = ? AND quarter >= ?"
            for holder in wanted:
                usd, tokens = self._connection.execute(query, (holder, first)).fetchone()
                if usd is not None:
                    found[holder] = usd, tokens
            return found

        return await self._write(read)  # in the thread that writes: what was appended is in it

    async def records(
        self,
        *,
        limit: int = 100,
        since: float = 0.0,
        until: float = math.inf,
        ids: Iterable[str] = (),
        failed: bool = False,
        prefix: str = "",
    ) -> list[Record]:
        wanted = list(ids)

        def read(connection: sqlite3.Connection) -> list[Record]:
            if wanted:
                # A walk over the whole index (about 0.1 s per million records): ids are looked up by hand, now and then.
                marks = ", ".join("?" * len(wanted))
                named = f"SELECT rowid FROM record_line WHERE id IN ({marks})"  # noqa: S608 - question marks only
                query = f"{_SELECT_RECORD} WHERE rowid IN ({named}) ORDER BY at DESC"
                return [read_line(line) for (line,) in connection.execute(query, wanted)]
            if prefix:  # the same walk
                named = "SELECT rowid FROM record_line WHERE substr(id, 1, ?) = ? AND at BETWEEN ? AND ?"
                query = f"{_SELECT_RECORD} WHERE rowid IN ({named}) ORDER BY at DESC LIMIT ?"
                found = connection.execute(query, (len(prefix), prefix, since, until, limit))
                return [read_line(line) for (line,) in found]
            query = f"{_SELECT_RECORD} WHERE at BETWEEN ? AND ? ORDER BY at DESC LIMIT ?"
            if failed:
                query = (
                    "SELECT line FROM failure CROSS JOIN record_line USING (at, id) "  # CROSS: in this order
                    "WHERE failure.at BETWEEN ? AND ? ORDER BY failure.at DESC LIMIT ?"
                )
            return [read_line(line) for (line,) in connection.execute(query, (since, until, limit))]

        return await self._read(read)

    async def records_after(self, after: tuple[float, str], until: float, limit: int = 2000) -> list[Record]:
        def read(connection: sqlite3.Connection) -> list[Record]:
            query = f"{_SELECT_RECORD} WHERE (at, id) > (?, ?) AND at < ? ORDER BY at, id LIMIT ?"
            return [read_line(line) for (line,) in connection.execute(query, (*after, until, limit))]

        return await self._read(read)

    async def appended(self, after: int | None = None, limit: int = 1000) -> tuple[list[Record], int]:
        def read(connection: sqlite3.Connection) -> tuple[list[Record], int]:
            query = "SELECT rowid, line FROM record_line WHERE rowid > ? ORDER BY rowid DESC LIMIT ?"
            rows = connection.execute(query, (after or 0, limit)).fetchall()
            last = rows[0][0] if rows else after or 0
            if not rows and last:  # the newest ones are gone, and their places are taken again
                newest = connection.execute("SELECT coalesce(max(rowid), 0) FROM record_line").fetchone()[0]
                last = min(last, newest)
            return [read_line(line) for _, line in reversed(rows)], last

        return await self._read(read)

    # --- usage --------------------------------------------------------------------------------------------------------

    async def usage(
        self,
        by: str,
        since: float,
        until: float,
        tz: str = "UTC",
        *,
        only: Mapping[str, str] | None = None,
        parts: int = 0,
    ) -> list[UsageRow]:
        """See `Store.usage`. Whole hours come from sums, the parts of an hour at both ends from the records. Where those are no
        longer kept, the whole hour at the beginning is counted and the one at the end is not, so that windows laid end to end
        count everything once; an *until* that is not in the past takes in all there is.

        Days of zones that are not whole hours from UTC begin in the middle of a sum: their first and last hours are
        counted from records in the same way. Hours are UTC's, named by the local time at which they begin.
        """
        asked = question(by, since, until, tz, only, parts, time.time())

        def read(connection: sqlite3.Connection) -> list[UsageRow]:
            connection.execute("BEGIN")  # sums and records of one moment
            try:
                asking, rows = answer(asked, lagging=True), connection.cursor()
                select = next(asking)
                while True:
                    if select is not None:
                        rows.execute(*select)
                    select = asking.send(rows.fetchmany(PAGE))
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            finally:
                connection.execute("ROLLBACK")

        return await self._read(read)

    async def expire(self, records_before: float, rollups_before: float, limit: int = 5000) -> int:
        def write() -> int:
            with self._transaction():
                self._connection.execute(
                    "INSERT INTO fact (name, number) VALUES ('records_from', ?) "
                    "ON CONFLICT (name) DO UPDATE SET number = max(number, excluded.number)",
                    (records_before,),
                )
                gone = self._expire_records(records_before, limit)
                gone += self._expire_sums(int(rollups_before // _HOUR), limit - gone, whole=not gone)
                self._merge_spent()
                self._connection.execute(
                    "DELETE FROM change WHERE seq IN (SELECT seq FROM change "
                    "WHERE seq <= (SELECT max(seq) FROM change) - ? ORDER BY seq LIMIT ?)",
                    (KEPT_CHANGES, limit),
                )
                query = "DELETE FROM value WHERE key IN (SELECT key FROM value WHERE expires < ? LIMIT ?)"
                return gone + self._connection.execute(query, (time.time(), max(0, limit - gone))).rowcount

        return await self._write(write)

    def _merge_spent(self) -> None:
        """Put quarters that no window begins in any more together, a few holders at a time, once a day."""
        today = int(time.time() // 86400)
        if self._spent_merged == today:
            return
        query = "SELECT holder FROM spent WHERE holder > ? ORDER BY holder LIMIT 1"  # one step over all rows of a holder
        for _ in range(MERGED_AT_ONCE):
            row = self._connection.execute(query, (self._spent_holder,)).fetchone()
            if row is None:
                self._spent_merged, self._spent_holder = today, ""
                return
            self._spent_holder = row[0]
            old = (row[0], int((time.time() - EXACT_FOR) // QUARTER))
            where = "FROM spent WHERE holder = ? AND quarter BETWEEN 1 AND ?"
            self._connection.execute(
                f"INSERT INTO spent (holder, quarter, usd, tokens) SELECT holder, 0, sum(usd), sum(tokens) {where} "
                "GROUP BY holder ON CONFLICT (holder, quarter) "
                "DO UPDATE SET usd = usd + excluded.usd, tokens = tokens + excluded.tokens",
                old,
            )
            self._connection.execute(f"DELETE {where}", old)

    def _expire_records(self, before: float, limit: int) -> int:
        if self._connection.execute("SELECT 1 FROM record_line WHERE at < ? LIMIT 1", (before,)).fetchone() is None:
            return 0
        self._uncombined = None  # others may have written since
        self._combine()
        query = "DELETE FROM record_line WHERE rowid IN (SELECT rowid FROM record_line WHERE at < ? ORDER BY at LIMIT ?)"
        gone = self._connection.execute(query, (before, limit)).rowcount
        oldest = "coalesce((SELECT min(at) FROM record_line), ?)"
        self._connection.execute(f"DELETE FROM failure WHERE at < {oldest}", (before,))  # noqa: S608
        # All are combined now; where the newest have gone their places are taken again.
        newest = "(SELECT coalesce(max(rowid), 0) FROM record_line)"
        self._connection.execute(f"UPDATE fact SET number = {newest} WHERE name = 'combined'")  # noqa: S608
        return gone

    def _expire_sums(self, before: int, limit: int, *, whole: bool) -> int:
        """Delete hours and days, oldest first, as long as they fit into *limit* rows; with *whole* the first in any case."""
        gone = 0
        for table, start, series, latest in (
            ("rollup", "hour", [("dimension", name) for name in reversed(DIMENSIONS)], before),
            ("combination", "start", [("span", HOUR)], before),
            ("combination", "start", [("span", DAY)], before - DAY + 1),
        ):
            for column, value in series:
                while True:
                    oldest = f"SELECT min({start}) FROM {table} WHERE {column} = ?"  # noqa: S608 - our own names
                    first = self._connection.execute(oldest, (value,)).fetchone()[0]
                    if first is None or first >= latest:
                        break
                    there = f"FROM {table} WHERE {column} = ? AND {start} = ?"
                    count = self._connection.execute(f"SELECT count(*) {there}", (value, first)).fetchone()[0]
                    if gone + count > limit and (gone or not whole):
                        return gone
                    self._rollups.clear()
                    self._combinations = {}
                    gone += self._connection.execute(f"DELETE {there}", (value, first)).rowcount
        return gone

    # --- values and leases --------------------------------------------------------------------------------------------

    async def get(self, key: str) -> bytes | None:
        def read() -> bytes | None:
            query = "SELECT value FROM value WHERE key = ? AND (expires IS NULL OR expires > ?)"
            row = self._connection.execute(query, (key, time.time())).fetchone()
            return bytes(row[0]) if row else None

        return await self._write(read)

    async def put(self, key: str, value: bytes, ttl: float | None = None) -> None:
        def write() -> None:
            expires = None if ttl is None else time.time() + ttl
            with self._transaction():
                self._upsert("value", ("key",), ("key", "value", "expires"), (key, value, expires))

        await self._write(write)

    async def delete(self, key: str) -> None:
        def write() -> None:
            with self._transaction():
                self._connection.execute("DELETE FROM value WHERE key = ?", (key,))

        await self._write(write)

    async def swap(self, key: str, value: bytes, *, expected: bytes | None, change: str = "") -> bool:
        def write() -> bool:
            with self._transaction():
                query = "SELECT value FROM value WHERE key = ? AND (expires IS NULL OR expires > ?)"
                row = self._connection.execute(query, (key, time.time())).fetchone()
                if (bytes(row[0]) if row else None) != expected:
                    return False
                self._upsert("value", ("key",), ("key", "value", "expires"), (key, value, None))
                if change:
                    self._note_change(change, key)
                return True

        return await self._write(write)

    async def lease(self, name: str, holder: str, ttl: float) -> bool:
        def write() -> bool:
            now = time.time()
            query = (
                "INSERT INTO lease (name, holder, expires) VALUES (?1, ?2, ?3) "
                "ON CONFLICT (name) DO UPDATE SET holder = ?2, expires = ?3 WHERE holder = ?2 OR expires <= ?4"
            )
            with self._transaction():
                return self._connection.execute(query, (name, holder, now + ttl, now)).rowcount == 1

        return await self._write(write)

    # --- everything at once -------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Rows]:
        await self._write(self._bring_up_to_date)
        thread = ThreadPoolExecutor(1, "aigw-store-snapshot")  # a transaction of its own, for as long as it takes
        do = partial(asyncio.get_running_loop().run_in_executor, thread)
        try:
            with self._plain_errors():
                connection = await do(self._connect)
            try:
                await do(connection.execute, "BEGIN")
                await do(connection.execute, "SELECT number FROM fact")  # the moment

                async def rows(table: str) -> AsyncIterator[list[tuple[Any, ...]]]:
                    query = f"SELECT {quoted(TABLES[table])} FROM {table}"  # noqa: S608 - our own names
                    with self._plain_errors():
                        cursor = await do(connection.execute, query)
                        while page := await do(cursor.fetchmany, PAGE):
                            yield page

                yield rows
            finally:
                await do(connection.close)
        finally:
            thread.shutdown(wait=False)

    async def back_up(self, path: Path) -> None:
        """Write all of it into the new file *path* (0600), while others go on writing here. Raises StoreError, OSError."""
        await self._write(self._bring_up_to_date)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))  # VACUUM INTO fills an empty file

        def write() -> None:
            with contextlib.closing(self._connect()) as connection:
                connection.execute("VACUUM INTO ?", (str(path),))
            with contextlib.closing(sqlite3.connect(path)) as copy:
                if copy.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                    raise StoreError(f"what was written to {path} is damaged; is the disk in order?")

        with self._plain_errors():
            await asyncio.to_thread(write)
            await asyncio.to_thread(_on_the_disk, path)

    def _bring_up_to_date(self) -> None:
        with self._transaction():
            self._uncombined = None  # others may have written since
            self._combine()

    @asynccontextmanager
    async def filling(self, *, replace: bool = False) -> AsyncIterator[Filling]:
        def begin() -> None:
            self._connection.execute("BEGIN IMMEDIATE")
            for table in () if replace else ("consumer", "record_line", "rollup"):
                if self._connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone():  # noqa: S608 - our own names
                    raise StoreError(f"the database {self.path} is not empty: it has rows in its table {table}")
            for table in TABLES:
                self._connection.execute(f"DELETE FROM {table}")  # noqa: S608

        def end() -> None:
            number = "SELECT 'combined', coalesce(max(rowid), 0) FROM record_line"
            self._connection.execute(f"INSERT OR REPLACE INTO fact (name, number) {number}")
            self._note_change("restore", "")
            self._connection.execute("COMMIT")

        def take_back() -> None:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

        async def put(table: str, rows: list[tuple[Any, ...]]) -> None:
            columns = TABLES[table]
            statement = f"INSERT INTO {table} ({quoted(columns)}) VALUES ({_marks(len(columns))})"  # noqa: S608
            await self._write(self._connection.executemany, statement, rows)

        async def rows(table: str) -> AsyncIterator[list[tuple[Any, ...]]]:
            query = f"SELECT {quoted(TABLES[table])} FROM {table}"  # noqa: S608 - our own names
            cursor = await self._write(self._connection.execute, query)
            while page := await self._write(cursor.fetchmany, PAGE):
                yield page

        try:
            await self._write(begin)
            yield Filling(put, rows)
            await self._write(end)
        finally:
            await self._write(take_back)
            self._forget()

    def _forget(self) -> None:
        """What is remembered of sums may be not in the file."""
        self._rollups.clear()
        self._uncombined = None
        self._combinations = {}

    async def close(self) -> None:
        """Finish what was begun and let go of the file. Safe to repeat."""
        if self._closed:
            return
        self._closed = True

        def close_all() -> None:
            self._reader_thread.shutdown(wait=True)
            if self._reader is not None:
                self._reader.close()
            if self._opened:
                self._connection.close()  # the last one out writes the log back into the file and removes it

        try:
            with self._plain_errors():
                await asyncio.get_running_loop().run_in_executor(self._writer_thread, close_all)
        finally:
            self._writer_thread.shutdown(wait=False)

    # --- underneath ---------------------------------------------------------------------------------------------------

    async def _write(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do *work* in the thread that owns the connection; short reads go there too, so that they see every write."""
        if self._closed:
            raise StoreError("the store is closed")
        with self._plain_errors():
            do = work if self._opened else partial(self._open_first, work)
            return await asyncio.get_running_loop().run_in_executor(self._writer_thread, do, *arguments)

    def _open(self) -> None:
        self._connection = self._connect()
        try:
            self._migrate()
        except BaseException:
            self._connection.close()
            raise
        self._most_variables = self._connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
        self._opened = True

    def _open_first(self, work: Callable[..., T], *arguments: Any) -> T:
        if not self._opened:
            if time.monotonic() < self._failed_at + AGAIN:
                raise self._failure
            try:
                self._open()
            except sqlite3.Error as error:
                self._failed_at, self._failure = time.monotonic(), error
                raise
        return work(*arguments)

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do *work* beside the writer, on the connection that only reads."""
        if self._closed:
            raise StoreError("the store is closed")

        if not self._opened:
            await self._write(lambda: None)

        def run() -> T:
            if self._reader is None:
                self._reader = self._connect()
                self._reader.execute("PRAGMA query_only = ON")
            return work(self._reader)

        with self._plain_errors():
            return await asyncio.get_running_loop().run_in_executor(self._reader_thread, run)

    @contextmanager
    def _transaction(self, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
        self._connection.execute(begin)
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            self._forget()
            if self._connection.in_transaction:  # a full disk has rolled back by itself
                self._connection.execute("ROLLBACK")
            raise

    def _upsert(self, table: str, key: Sequence[str], columns: Sequence[str], values: Sequence[Any]) -> None:
        """Insert or overwrite, naming columns, so that those a newer version added keep what they hold."""
        changed = ", ".join(f'"{name}" = excluded."{name}"' for name in columns if name not in key)
        self._insert(table, columns, values, f"ON CONFLICT ({quoted(key)}) DO UPDATE SET {changed}")

    def _insert(self, table: str, columns: Sequence[str], values: Sequence[Any], on_conflict: str) -> int:
        """Insert rows, many at a time; *values* holds those of each row, one after the other. Returns how many rows changed."""
        marks = f"({', '.join('?' * len(columns))})"
        head = f"INSERT INTO {table} ({quoted(columns)}) VALUES "  # noqa: S608 - our own names
        changed = start = 0
        for rows in ROWS_PER_STATEMENT:
            size = rows * len(columns)
            if len(values) - start < size or (rows > 1 and size > self._most_variables):
                continue
            statement = head + ", ".join([marks] * rows) + " " + on_conflict
            while len(values) - start >= size:
                changed += self._connection.execute(statement, values[start : start + size]).rowcount
                start += size
        return changed

    def _create(self) -> None:
        """Make the directory and the file with their modes; SQLite gives its side files the file's own."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise StoreError(
                f"cannot open the database {self.path}: {error.strerror}. "
                "Give this user write access to its directory, or choose another with --data-dir"
            ) from None

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
        try:
            connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")  # of a new file; another keeps its own
            _use_write_ahead_log(connection)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA wal_autocheckpoint = 2000")  # pages: 16 MB
            connection.execute("PRAGMA journal_size_limit = 67108864")  # after a burst the log shrinks again
            connection.execute("PRAGMA cache_size = -8000")  # KiB
            connection.execute("PRAGMA secure_delete = OFF")  # some builds overwrite deleted rows: twice the cost of retention
        except BaseException:
            connection.close()
            raise
        return connection

    def _migrate(self) -> None:
        version = self._version()
        if version > LATEST:
            self._check_newer(version)
            return
        if version < LATEST:
            if version:
                self._back_up(version)
            with self._transaction():
                version = self._version()  # another process may have been first
                for migration in MIGRATIONS:
                    if migration.version > version:
                        self._apply(migration)

    def _apply(self, migration: Migration) -> None:
        migration.apply(self._connection)
        self._connection.execute(
            "INSERT INTO schema_version (version, readable_by, applied) VALUES (?, ?, ?)",
            (migration.version, migration.readable_by, time.time()),
        )
        self._connection.execute(f"PRAGMA user_version = {migration.version}")

    def _version(self) -> int:
        with contextlib.nullcontext() if self._connection.in_transaction else self._transaction("BEGIN"):  # one moment for both
            version = int(self._connection.execute("PRAGMA user_version").fetchone()[0])
            empty = self._connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None
        if version == 0 and not empty:
            raise StoreError(f"{self.path} is a SQLite database, but not one of aigw's: choose another file in [storage] url")
        return version

    def _check_newer(self, version: int) -> None:
        """A newer schema may be used when it says so; a rollback of the program then needs no rollback of the data."""
        query = "SELECT readable_by FROM schema_version WHERE version = ?"
        try:
            row = self._connection.execute(query, (version,)).fetchone()
        except sqlite3.OperationalError:
            row = None
        if row is None or row[0] > LATEST:
            raise StoreError(
                f"the database {self.path} was written by a newer aigw (schema {version}; this one knows {LATEST}). "
                "Update aigw, or put back the backup that the newer version made beside it before it changed the file"
            )

    def _back_up(self, version: int) -> None:
        backup = self.path.with_name(f"{self.path.name}.v{version}.backup")
        if backup.exists():
            backup = self.path.with_name(f"{self.path.name}.v{version}.{time.time_ns()}.backup")
        os.close(os.open(backup, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # VACUUM INTO fills an empty file
        try:
            self._connection.execute("VACUUM INTO ?", (str(backup),))
        except BaseException:
            backup.unlink(missing_ok=True)
            raise

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        """The one gate at which SQLite's errors become ours."""
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(self._plain_words(error)) from error
        except msgspec.DecodeError as error:  # a line that was whole when it was written
            raise StoreError(f"the database {self.path} {_WORDS['SQLITE_CORRUPT']} ({error})") from error

    def _plain_words(self, error: sqlite3.Error) -> str:
        name = getattr(error, "sqlite_errorname", "")
        for prefix, words in _WORDS.items():
            if name.startswith(prefix):
                return f"the database {self.path} {words} ({error})"
        return f"the database {self.path} failed: {error}"


_PASSING = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR")
"""What may be over by itself, or when somebody has made room."""

_WORDS = {
    "SQLITE_FULL": "cannot grow: the disk is full. Free some space; records wait in the journal until then",
    "SQLITE_READONLY": "cannot be written. Give this user write access to the file and its directory",
    "SQLITE_CANTOPEN": "cannot be opened. Give this user access to the file and its directory",
    "SQLITE_PERM": "cannot be opened. Give this user access to the file and its directory",
    "SQLITE_CORRUPT": "is damaged. Put back a backup, or move it away to begin with an empty one",
    "SQLITE_NOTADB": "is damaged, or no database at all. Put back a backup, or move it away to begin with an empty one",
    "SQLITE_BUSY": f"is locked by another process for more than {BUSY_TIMEOUT:.0f} s. Stop what holds it and try again",
    "SQLITE_LOCKED": "is locked. Try again",
    "SQLITE_IOERR": "cannot be read or written: the disk reports an error. Check the disk and the space on it",
}


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Once for each file; who opens a new one at the same moment is told at once that it is busy, whatever the timeout. A file
    system without shared memory keeps its own mode: still right."""
    deadline = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _on_the_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _readable(lines: Iterable[bytes]) -> list[Record]:
    """The records of *lines*, without what damage has made unreadable: it must not hold up those that come."""
    records = []
    for line in lines:
        with contextlib.suppress(msgspec.DecodeError):
            records.append(read_line(line))
    return records
