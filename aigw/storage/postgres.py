"""The store for many machines: PostgreSQL.

Any number of nodes write at once. Records come in by `unnest`, one statement for a batch; sums are added up by the database
(`ON CONFLICT DO UPDATE`), rows always in the same order, the ones that everybody touches last: nodes wait for each other for
the end of one transaction at most, and never in a circle. Edits are numbered one after the other (an advisory lock), so nobody
who follows them can miss one that was begun earlier and committed later.

Nothing is connected to until somebody asks, so a server starts with its database away. Everything lives in a schema of its own
("aigw", or `?schema=NAME` in the address); missing steps of it are made at the first connection, under an advisory lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

import asyncpg  # type: ignore[import-untyped]
import msgspec

from aigw.consumer import Consumer, ConsumerKey
from aigw.errors import ConfigError, StoreError
from aigw.exchange import Record
from aigw.storage.base import Change, Filling, Rows, UsageRow
from aigw.storage.migrations import POSTGRES_MIGRATIONS
from aigw.storage.postgres_batch import BATCH_TABLES, Batch, Names
from aigw.storage.questions import PAGE, answer, question
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
from aigw.storage.spent import EXACT_FOR, QUARTER
from aigw.storage.storable import read_line, storable, write_line

log = logging.getLogger("aigw.storage")

T = TypeVar("T")

CONNECTIONS = 4
"""Of one process at most, besides the one that listens: records, edits, questions and values may each be under way."""

CONNECT = 5.0
"""Seconds to wait for a connection."""

PATIENCE = 30.0
"""Seconds for one statement of ours. A long question may take longer; it has `LONG`."""

QUICK = 5.0
"""Seconds for what a request may be waiting for."""

LONG = 600.0

AGAIN = 0.5
"""Seconds in which nobody tries to connect again after a failure: all who ask hear of that one."""

LISTEN_AGAIN = 2.0
"""Seconds until a connection that listened is made anew."""

IDLE = 300.0
"""Seconds after which a connection that nobody uses is closed."""

CHANNEL = "aigw_change"

_EDITS, _HOUSEKEEPING, _MIGRATIONS = "edits", "housekeeping", "migrations"
"""Advisory locks, each of a schema."""

_RECORD = "SELECT line FROM record_line"
_NOW = "extract(epoch FROM clock_timestamp())::double precision"  # the database's: nodes' clocks differ
_SELECT_CONSUMER = f"SELECT {quoted(CONSUMER_FIELDS)} FROM consumer"  # noqa: S608 - our own names
_SELECT_KEY = f"SELECT {quoted(KEY_FIELDS)} FROM consumer_key"  # noqa: S608

_SETTINGS = {
    "application_name": "aigw",
    "idle_in_transaction_session_timeout": "60000",  # a node that died in the middle must not hold a sum for long
    "tcp_keepalives_idle": "15",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}

Connection = Any
"""asyncpg's: a connection of the pool behaves like one and is none."""


class PostgresStore:
    """`Store` over a PostgreSQL database. See `aigw.storage.base.Store` for what each method promises."""

    def __init__(self, url: str) -> None:
        """*url* is postgresql://USER:PASSWORD@HOST:PORT/DATABASE, what libpq reads from the environment filled in; its
        parameters `schema` and `connections` are ours. Connects to nothing yet. Raises ConfigError."""
        self._url, self.schema, self._most = _parsed(url)
        self.place = _place(url)
        self._pool: Any = None
        self._opening = asyncio.Lock()
        self._failed_at, self._failure = -math.inf, ""
        self._closed = False
        self._names = Names()
        self._listener: asyncio.Task[None] | None = None
        self._heard = asyncio.Event()

    # --- consumers and keys -------------------------------------------------------------------------------------------

    async def consumers(self) -> tuple[list[Consumer], list[ConsumerKey], int]:
        async with self._reading() as connection:  # one moment for all three
            consumers = await connection.fetch(_SELECT_CONSUMER + " ORDER BY name", timeout=LONG)
            keys = await connection.fetch(_SELECT_KEY + " ORDER BY created, id", timeout=LONG)
            last = await connection.fetchval("SELECT coalesce(max(seq), 0) FROM change")
        return *await asyncio.to_thread(everyone, consumers, keys), last

    async def changes(self, since: int) -> list[Change]:
        async with self._connection() as connection:
            rows = await connection.fetch("SELECT seq, kind, id FROM change WHERE seq > $1 ORDER BY seq", since)
        return [Change(*row) for row in rows]

    async def last_change(self) -> int:
        async with self._connection() as connection:
            return int(await connection.fetchval("SELECT coalesce(max(seq), 0) FROM change", timeout=QUICK))

    async def changed(self, timeout: float) -> None:  # noqa: ASYNC109 - not to be cancelled: to look by itself
        if self._listener is None and not self._closed:
            self._listener = asyncio.get_running_loop().create_task(self._listen(), name="store listener")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._heard.wait()

    async def consumer(self, name_or_id: str) -> Consumer | None:
        async with self._connection() as connection:
            query = _SELECT_CONSUMER + " WHERE id = $1 OR name = $1 ORDER BY id = $1 DESC LIMIT 1"
            row = await connection.fetchrow(query, name_or_id)
        return consumer_from(row) if row else None

    async def keys_of(self, consumer_id: str) -> list[ConsumerKey]:
        async with self._connection() as connection:
            rows = await connection.fetch(_SELECT_KEY + " WHERE consumer_id = $1 ORDER BY created, id", consumer_id)
        return [key_from(row) for row in rows]

    async def key(self, key_id: str) -> ConsumerKey | None:
        async with self._connection() as connection:
            row = await connection.fetchrow(_SELECT_KEY + " WHERE id = $1", key_id)
        return key_from(row) if row else None

    async def put_consumer(self, consumer: Consumer) -> None:
        async with self._edit("consumer", consumer.id) as connection:
            query = "SELECT 1 FROM consumer WHERE name = $1 AND id <> $2"
            if await connection.fetchval(query, consumer.name, consumer.id):
                raise StoreError(f"another consumer is already called {consumer.name!r}: choose another name")
            await connection.execute(_upsert("consumer", ("id",), CONSUMER_FIELDS), *consumer_row(consumer))

    async def put_key(self, key: ConsumerKey) -> None:
        async with self._edit("key", key.id) as connection:
            query = "SELECT 1 FROM consumer_key WHERE digest = $1 AND scheme = $2 AND id <> $3"
            if await connection.fetchval(query, key.digest, key.scheme, key.id):
                raise StoreError("this consumer key is already stored: revoke that one, or make a new key")
            await connection.execute(_upsert("consumer_key", ("id",), KEY_FIELDS), *msgspec.structs.astuple(key))

    async def revoke_key(self, key_id: str, at: float) -> bool:
        async with self._writing() as connection:
            await self._lock(connection, _EDITS)
            query = "UPDATE consumer_key SET revoked = $1 WHERE id = $2 AND revoked IS NULL"
            was_live = bool(await connection.execute(query, at, key_id) == "UPDATE 1")
            if was_live:
                await self._note_change(connection, "key", key_id)
        return was_live

    @asynccontextmanager
    async def _edit(self, kind: str, row_id: str) -> AsyncIterator[Connection]:
        async with self._writing() as connection:
            await self._lock(connection, _EDITS)
            yield connection
            await self._note_change(connection, kind, row_id)

    async def _note_change(self, connection: Connection, kind: str, row_id: str) -> None:
        await connection.execute("INSERT INTO change (kind, id) VALUES ($1, $2)", kind, row_id)
        await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, self.schema)

    async def _lock(self, connection: Connection, name: str) -> None:
        """Until the end of the transaction: one after the other."""
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"aigw {self.schema} {name}")

    # --- records ------------------------------------------------------------------------------------------------------

    async def append(self, records: Sequence[Record], lines: Sequence[bytes] | None = None) -> int:
        if not records:
            return 0
        try:
            batch = await asyncio.to_thread(self._batch, records, lines)
            return await self._append(batch)
        except (ArithmeticError, TypeError, ValueError, asyncpg.DataError):  # one of them did not fit its columns
            fit = [storable(record) for record in records]
            return await self._append(await asyncio.to_thread(self._batch, fit, None))

    def _batch(self, records: Sequence[Record], lines: Sequence[bytes] | None) -> Batch:
        return Batch(records, [write_line(record) for record in records] if lines is None else lines, self._names)

    async def _append(self, batch: Batch) -> int:
        for again in (True, True, False):
            try:
                return await self._append_once(batch)
            except (asyncpg.DeadlockDetectedError, asyncpg.SerializationError) as error:
                if not again:
                    raise StoreError(self._plain_words(error)) from error
        raise AssertionError

    async def _append_once(self, batch: Batch) -> int:
        async with self._writing() as connection:
            query = (
                "INSERT INTO record_line (at, id, line, nth) SELECT a, i, l, n FROM "
                "unnest($1::double precision[], $2::text[], $3::bytea[]) WITH ORDINALITY AS t (a, i, l, n) "
                "ON CONFLICT (at, id) DO NOTHING"
            )
            records = batch.records
            values = [record.at for record in records], [record.id for record in records], batch.lines
            new = int((await connection.execute(query, *values)).rpartition(" ")[2])
            if new != len(records):
                kept = "SELECT at, id FROM record_line WHERE came = pg_current_xact_id()::text::bigint"
                fresh = {tuple(row) for row in await connection.fetch(kept)}
                batch = await asyncio.to_thread(batch.only, fresh)
            for table, columns in batch.tables():
                if columns[0]:
                    await connection.execute(BATCH_TABLES[table], *columns)
            return new

    async def spent(self, holders: Iterable[str], since: float) -> dict[str, tuple[int, int]]:
        async with self._connection() as connection:
            query = (
                "SELECT holder, sum(usd)::bigint, sum(tokens)::bigint FROM spent "
                "WHERE holder = ANY($1::text[]) AND quarter >= $2 GROUP BY holder"
            )
            rows = await connection.fetch(query, list(holders), max(0, math.ceil(since / QUARTER)), timeout=QUICK)
        return {holder: (usd, tokens) for holder, usd, tokens in rows}

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
        wanted, values = list(ids), list[Any]()
        if wanted:  # a walk over the whole index: ids are looked up by hand, now and then
            named = "SELECT at, id FROM record_line WHERE id = ANY($1)"
            query, values = f"{_RECORD} WHERE (at, id) IN ({named}) ORDER BY at DESC", [wanted]
        elif prefix:  # the same walk
            named = "SELECT at, id FROM record_line WHERE starts_with(id, $1) AND at BETWEEN $2 AND $3"
            query = f"{_RECORD} WHERE (at, id) IN ({named}) ORDER BY at DESC LIMIT $4"
            values = [prefix, since, until, limit]
        elif failed:
            query = (
                "SELECT line FROM (SELECT at, id FROM failure WHERE at BETWEEN $1 AND $2 ORDER BY at DESC LIMIT $3) failed "
                "JOIN record_line USING (at, id) ORDER BY at DESC"
            )
            values = [since, until, limit]
        else:
            query, values = f"{_RECORD} WHERE at BETWEEN $1 AND $2 ORDER BY at DESC LIMIT $3", [since, until, limit]
        async with self._connection() as connection:
            rows = await connection.fetch(query, *values, timeout=LONG)
        return await asyncio.to_thread(lambda: [read_line(line) for (line,) in rows])

    async def records_after(self, after: tuple[float, str], until: float, limit: int = 2000) -> list[Record]:
        async with self._connection() as connection:
            query = f"{_RECORD} WHERE (at, id) > ($1, $2) AND at < $3 ORDER BY at, id LIMIT $4"
            rows = await connection.fetch(query, *after, until, limit, timeout=LONG)
        return await asyncio.to_thread(lambda: [read_line(line) for (line,) in rows])

    async def appended(self, after: int | None = None, limit: int = 1000) -> tuple[list[Record], int]:
        # A place is a transaction. Of those that began after the oldest one that is still under way nothing is shown yet.
        over = "pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
        query = (
            f"SELECT came, line FROM record_line WHERE came > $1 AND came < {over} "  # noqa: S608 - our own names
            "ORDER BY came DESC, nth DESC LIMIT $2"
        )
        async with self._connection() as connection:
            rows = await connection.fetch(query, after or 0, limit)
        return [read_line(line) for _, line in reversed(rows)], rows[0][0] if rows else after or 0

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
        asking = answer(question(by, since, until, tz, only, parts, time.time()), lagging=False)
        async with self._reading() as connection:
            cursor: Any = None
            select = next(asking)
            while True:
                if select is not None:
                    cursor = await connection.cursor(_numbered(select.sql), *select.asked, timeout=LONG)
                rows = await cursor.fetch(PAGE, timeout=LONG)
                try:
                    select = await asyncio.to_thread(asking.send, rows) if len(rows) > 100 else asking.send(rows)
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]
                except RuntimeError as error:  # a StopIteration cannot cross from a thread
                    if isinstance(error.__cause__, StopIteration):
                        return error.__cause__.value  # type: ignore[no-any-return]
                    raise

    async def expire(self, records_before: float, rollups_before: float, limit: int = 5000) -> int:
        async with self._writing() as connection:
            query = "SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))"
            if not await connection.fetchval(query, f"aigw {self.schema} {_HOUSEKEEPING}"):
                return 0  # another node is at it
            await connection.execute(
                "INSERT INTO fact (name, number) VALUES ('records_from', $1) "
                "ON CONFLICT (name) DO UPDATE SET number = greatest(fact.number, excluded.number)",
                records_before,
            )
            query = (
                "DELETE FROM record_line WHERE ctid = ANY(ARRAY("
                "SELECT ctid FROM record_line WHERE at < $1 ORDER BY at LIMIT $2))"
            )
            gone = await _deleted(connection, query, records_before, limit)
            if gone:
                oldest = "coalesce((SELECT min(at) FROM record_line), $1)"
                await connection.execute(f"DELETE FROM failure WHERE at < {oldest}", records_before)  # noqa: S608
            hour = int(rollups_before // 3600)
            for table, start, latest in (
                ("rollup", "hour", ("true", hour)),
                ("combination", "start", ("span = 1", hour)),
                ("combination", "start", ("span = 24", hour - 23)),
            ):
                which, before = latest
                query = (
                    f"DELETE FROM {table} WHERE ctid = ANY(ARRAY("  # noqa: S608 - our own names
                    f"SELECT ctid FROM {table} WHERE {which} AND {start} < $1 LIMIT $2))"
                )
                gone += await _deleted(connection, query, before, max(0, limit - gone))
            await connection.execute(
                "WITH old AS (DELETE FROM spent WHERE ctid = ANY(ARRAY("
                "SELECT ctid FROM spent WHERE quarter BETWEEN 1 AND $1 LIMIT 5000)) RETURNING holder, usd, tokens) "
                "INSERT INTO spent (holder, quarter, usd, tokens) "
                "SELECT holder, 0, sum(usd), sum(tokens) FROM old GROUP BY holder ORDER BY holder "
                "ON CONFLICT (holder, quarter) "
                "DO UPDATE SET usd = spent.usd + excluded.usd, tokens = spent.tokens + excluded.tokens",
                int((time.time() - EXACT_FOR) // QUARTER),
            )
            await connection.execute(
                "DELETE FROM change WHERE seq = ANY(ARRAY(SELECT seq FROM change "
                "WHERE seq <= (SELECT max(seq) FROM change) - $1 ORDER BY seq LIMIT $2))",
                KEPT_CHANGES,
                limit,
            )
            query = f"DELETE FROM value WHERE key = ANY(ARRAY(SELECT key FROM value WHERE expires < {_NOW} LIMIT $1))"  # noqa: S608
            return gone + await _deleted(connection, query, max(0, limit - gone))

    # --- values and leases --------------------------------------------------------------------------------------------

    async def get(self, key: str) -> bytes | None:
        async with self._connection() as connection:
            query = f"SELECT value FROM value WHERE key = $1 AND (expires IS NULL OR expires > {_NOW})"  # noqa: S608
            value: bytes | None = await connection.fetchval(query, key, timeout=QUICK)
        return value

    async def put(self, key: str, value: bytes, ttl: float | None = None) -> None:
        query = (
            f"INSERT INTO value (key, value, expires) VALUES ($1, $2, {_NOW} + $3::double precision) "  # noqa: S608
            "ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires = excluded.expires"
        )
        async with self._connection() as connection:
            await connection.execute(query, key, value, ttl)

    async def delete(self, key: str) -> None:
        async with self._connection() as connection:
            await connection.execute("DELETE FROM value WHERE key = $1", key)

    async def swap(self, key: str, value: bytes, *, expected: bytes | None, change: str = "") -> bool:
        async with self._writing() as connection:
            await self._lock(connection, _EDITS)
            query = f"SELECT value FROM value WHERE key = $1 AND (expires IS NULL OR expires > {_NOW})"  # noqa: S608
            if await connection.fetchval(query, key) != expected:
                return False
            query = (
                "INSERT INTO value (key, value) VALUES ($1, $2) "
                "ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires = NULL"
            )
            await connection.execute(query, key, value)
            if change:
                await self._note_change(connection, change, key)
        return True

    async def lease(self, name: str, holder: str, ttl: float) -> bool:
        query = (
            f"INSERT INTO lease (name, holder, expires) VALUES ($1, $2, {_NOW} + $3::double precision) "  # noqa: S608
            "ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires = excluded.expires "
            f"WHERE lease.holder = $2 OR lease.expires <= {_NOW}"
        )
        async with self._connection() as connection:
            return bool(await connection.execute(query, name, holder, ttl) == "INSERT 0 1")

    # --- everything at once -------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Rows]:
        async with self._reading() as connection:
            await connection.execute("SELECT 1")  # the moment
            yield _rows(connection)

    @asynccontextmanager
    async def filling(self, *, replace: bool = False) -> AsyncIterator[Filling]:
        async with self._writing() as connection:
            await self._lock(connection, _EDITS)
            if replace:
                await connection.execute(f"TRUNCATE {', '.join(TABLES)}", timeout=LONG)
            else:
                for table in ("consumer", "record_line", "rollup"):
                    if await connection.fetchval(f"SELECT 1 FROM {table} LIMIT 1"):  # noqa: S608 - our own names
                        raise StoreError(f"{self.place} is not empty: it has rows in its table {table}")
                await connection.execute(f"TRUNCATE {', '.join(TABLES)}", timeout=LONG)

            async def put(table: str, rows: list[tuple[Any, ...]]) -> None:
                columns = list(TABLES[table])
                await connection.copy_records_to_table(
                    table, records=rows, columns=columns, schema_name=self.schema, timeout=LONG
                )

            yield Filling(put, _rows(connection))
            await self._note_change(connection, "restore", "")

    async def close(self) -> None:
        """Finish what was begun and let go of the connections. Safe to repeat."""
        if self._closed:
            return
        self._closed = True
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                async with asyncio.timeout(CONNECT):
                    await pool.close()
            except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                pool.terminate()

    # --- underneath ---------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        """A connection of the pool, for as long as it is needed; the one gate at which PostgreSQL's errors become ours."""
        if self._closed:
            raise StoreError("the store is closed")
        pool = self._pool or await self._open()
        connection = await self._acquired(pool)
        broken = True
        try:
            yield connection
            broken = False
        except (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, asyncpg.DataError):
            broken = False
            raise  # `append` knows what to do
        except StoreError:
            broken = False
            raise
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            broken = not isinstance(error, asyncpg.PostgresError)
            raise StoreError(self._plain_words(error)) from error
        finally:
            with contextlib.suppress(asyncpg.InterfaceError):  # it was lost, and the pool has it back already
                if broken:
                    connection.terminate()  # in the middle of something: nobody could use it after us
            with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
                await pool.release(connection, timeout=CONNECT)

    async def _acquired(self, pool: Any) -> Connection:
        self._not_again()
        try:
            return await pool.acquire(timeout=CONNECT + 1)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError, ValueError) as error:
            raise self._unreachable(error) from error

    def _not_again(self) -> None:
        if time.monotonic() < self._failed_at + AGAIN:
            raise StoreError(self._failure)

    def _unreachable(self, error: Exception) -> StoreError:
        self._failed_at, self._failure = time.monotonic(), self._plain_words(error)
        return StoreError(self._failure)

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[Connection]:
        async with self._connection() as connection, connection.transaction():
            yield connection

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[Connection]:
        """Everything as it is at one moment."""
        async with self._connection() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
            yield connection

    async def _open(self) -> Any:
        async with self._opening:
            if self._pool is not None:
                return self._pool
            self._not_again()
            pool = asyncpg.create_pool(
                self._url,
                min_size=0,
                max_size=self._most,
                timeout=CONNECT,
                command_timeout=PATIENCE,
                max_inactive_connection_lifetime=IDLE,
                server_settings=_SETTINGS | {"search_path": self.schema},
            )
            try:
                await pool
                async with pool.acquire(timeout=CONNECT + 1) as connection:
                    await self._migrate(connection)
            except StoreError:
                pool.terminate()
                raise
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError, ValueError) as error:
                pool.terminate()
                raise self._unreachable(error) from error
            except BaseException:
                pool.terminate()
                raise
            self._pool = pool
            return pool

    async def _migrate(self, connection: Connection) -> None:
        """Bring the schema up to date, one process after the other. Raises StoreError when it is none of ours, or newer."""
        if await self._checked(connection):
            return
        async with connection.transaction():
            await self._lock(connection, _MIGRATIONS)
            if await self._checked(connection):
                return  # another process was first
            if not await connection.fetchval("SELECT 1 FROM pg_namespace WHERE nspname = $1", self.schema):
                await connection.execute(f'CREATE SCHEMA "{self.schema}"')
            await connection.execute(
                "CREATE TABLE IF NOT EXISTS schema_version (version bigint PRIMARY KEY, readable_by bigint NOT NULL, "
                "applied double precision NOT NULL, digest text NOT NULL)"
            )
            there = await connection.fetchval("SELECT coalesce(max(version), 0) FROM schema_version")
            for migration in POSTGRES_MIGRATIONS:
                if migration.version > there:
                    for statement in migration.statements:
                        await connection.execute(statement, timeout=LONG)
                    query = f"INSERT INTO schema_version (version, readable_by, applied, digest) VALUES ($1, $2, {_NOW}, $3)"  # noqa: S608
                    await connection.execute(query, migration.version, migration.readable_by, migration.digest)

    async def _checked(self, connection: Connection) -> bool:
        """True when nothing is to be done: the schema is as this version knows it, or newer and still readable."""
        tables = {
            name for (name,) in await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1", self.schema)
        }
        if "schema_version" not in tables:
            if tables:
                raise StoreError(
                    f"the schema {self.schema!r} of {self.place} holds tables that are not aigw's: choose another one "
                    "(?schema=NAME behind the address in [storage] url)"
                )
            return False
        rows = await connection.fetch("SELECT version, readable_by, digest FROM schema_version ORDER BY version")
        known, latest = {one.version: one for one in POSTGRES_MIGRATIONS}, POSTGRES_MIGRATIONS[-1].version
        for version, readable_by, digest in rows:
            if version in known and known[version].digest != digest:
                raise StoreError(
                    f"the schema of {self.place} was made by another build of aigw (step {version} differs). Copy it with the "
                    "aigw that made it ('aigw data copy'), or begin with another schema (?schema=NAME)"
                )
            if version > latest and readable_by > latest:
                raise StoreError(
                    f"{self.place} was written by a newer aigw (schema {version}; this one knows {latest}). Update aigw"
                )
        return bool(rows) and rows[-1][0] >= latest

    # --- listening ----------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        """Wake those who wait for edits, until cancelled. Whatever goes wrong, they look by themselves as well."""
        while True:
            connection: Any = None
            gone = asyncio.Event()
            try:
                connection = await asyncpg.connect(
                    self._url, timeout=CONNECT, server_settings=_SETTINGS | {"search_path": self.schema}
                )
                connection.add_termination_listener(lambda _, gone=gone: gone.set())
                await connection.add_listener(CHANNEL, self._notified)
                self._wake()  # what came before we listened
                await gone.wait()
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError, ValueError) as error:
                log.debug("not listening to %s: %s", self.place, type(error).__name__)
            finally:
                if connection is not None and not connection.is_closed():
                    connection.terminate()
            await asyncio.sleep(LISTEN_AGAIN)

    def _notified(self, connection: object, process: int, channel: str, payload: object) -> None:
        if payload == self.schema:
            self._wake()

    def _wake(self) -> None:
        heard, self._heard = self._heard, asyncio.Event()
        heard.set()

    # --- words --------------------------------------------------------------------------------------------------------

    def _plain_words(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"{self.place} does not answer in time. Is it overloaded, or a firewall in between?"
        state = getattr(error, "sqlstate", None) or ""
        for prefix, words in _WORDS.items():
            if state.startswith(prefix):
                return f"{self.place} {words} ({_first_line(error)})"
        if isinstance(error, OSError) and not state:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else _first_line(error)
            return f"{self.place} cannot be reached: {reason}. Is it running, and is the address right?"
        return f"{self.place} failed: {_first_line(error)}"


class Looked(NamedTuple):
    """What is found without changing anything: PostgreSQL's version, the schema's (0: not made yet), bytes of it, consumers of
    the store with a key that works."""

    server: str
    schema: int
    size: int
    consumers: int


async def look(url: str) -> Looked:
    """Look at the database *url*: nothing is made or migrated. Raises ConfigError, StoreError."""
    store = PostgresStore(url)
    try:
        connection = await asyncpg.connect(
            store._url,  # noqa: SLF001 - its own module
            timeout=CONNECT,
            command_timeout=PATIENCE,
            server_settings=_SETTINGS | {"search_path": store.schema},
        )
        try:
            server = await connection.fetchval("SHOW server_version")
            if not await store._checked(connection):  # noqa: SLF001
                return Looked(server, 0, 0, 0)
            version = await connection.fetchval("SELECT max(version) FROM schema_version")
            size = await connection.fetchval(
                "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c "
                "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relkind = 'r'",
                store.schema,
            )
            consumers = await connection.fetchval(
                "SELECT count(DISTINCT c.id) FROM consumer c JOIN consumer_key k ON k.consumer_id = c.id "
                "WHERE c.disabled = 0 AND c.name <> 'operator' AND k.revoked IS NULL "
                "AND (k.expires IS NULL OR k.expires > extract(epoch FROM now()))"
            )
            return Looked(server, version, size, consumers)
        finally:
            connection.terminate()
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError, ValueError) as error:
        raise StoreError(store._plain_words(error)) from error  # noqa: SLF001


_WORDS = {
    "28": "refuses the login. Check user and password in [storage] url",
    "3D000": "has no such database. Create it: createdb NAME",
    "3F000": "has no such schema",
    "42501": "does not let this user do that. Give it the right to create a schema: GRANT CREATE ON DATABASE ... TO ...",
    "42P01": "has lost its tables. Was it replaced? Start aigw again to make them, or restore a backup",
    "53100": "cannot grow: its disk is full. Free some space; records wait in the journal until then",
    "53200": "is out of memory",
    "53300": "has no connection left. Raise max_connections, or lower ?connections= in [storage] url",
    "57P03": "is not ready yet",
    "57P": "was stopped",
    "25006": "is read-only: a standby? The address must lead to the primary",
    "08": "lost the connection",
}


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:300]


def _parsed(url: str) -> tuple[str, str, int]:
    """The address for asyncpg, our schema, connections at most. Raises ConfigError."""
    try:
        parts = urlsplit(url)
        _ = parts.port
        pairs = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    except ValueError:
        raise ConfigError(
            "is no address of a PostgreSQL database; expected postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with special "
            "characters of the password as %XX",
            key="storage.url",
        ) from None
    schema = pairs.pop("schema", "aigw")
    if not schema.replace("_", "a").isalnum() or not schema.isascii() or schema != schema.lower() or len(schema) > 40:
        raise ConfigError("schema is to be a name of small letters, digits and _", key="storage.url")
    connections = pairs.pop("connections", str(CONNECTIONS))
    if not connections.isdecimal() or not 2 <= int(connections) <= 100:
        raise ConfigError("connections is to be a number from 2 to 100", key="storage.url")
    return parts._replace(query=urlencode(pairs)).geturl(), schema, int(connections)


def _place(url: str) -> str:
    """*url* as it may be shown: without user, password and parameters."""
    parts = urlsplit(url)
    return f"the database postgresql://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _rows(connection: Connection) -> Rows:
    async def rows(table: str) -> AsyncIterator[list[tuple[Any, ...]]]:
        query = f"SELECT {quoted(TABLES[table])} FROM {table}"  # noqa: S608 - our own names
        cursor = await connection.cursor(query, timeout=LONG)
        while page := await cursor.fetch(PAGE, timeout=LONG):
            yield [tuple(row) for row in page]

    return rows


def _numbered(sql: str) -> str:
    """Question marks as PostgreSQL counts them."""
    first, *others = sql.split("?")
    return first + "".join(f"${number}{part}" for number, part in enumerate(others, 1))


def _upsert(table: str, key: Sequence[str], columns: Sequence[str]) -> str:
    changed = ", ".join(f'"{name}" = excluded."{name}"' for name in columns if name not in key)
    marks = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
    return f"INSERT INTO {table} ({quoted(columns)}) VALUES ({marks}) ON CONFLICT ({quoted(key)}) DO UPDATE SET {changed}"  # noqa: S608


async def _deleted(connection: Connection, query: str, *values: Any) -> int:
    return int((await connection.execute(query, *values)).rpartition(" ")[2])
