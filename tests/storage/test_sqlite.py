"""What is particular to SQLite; what it shares with other stores is in tests/contracts/test_store.py."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import random
import sqlite3
import tempfile
import threading
import time
import zoneinfo
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aigw.consumer import Consumer
from aigw.errors import StoreError
from aigw.exchange import Record
from aigw.storage import sqlite
from aigw.storage.migrations import LATEST, Migration
from aigw.storage.sqlite import SqliteStore

NOON = 1_790_000_000 // 86400 * 86400 + 12 * 3600.0


def record(number: int, at: float = NOON, **fields: Any) -> Record:
    return Record(id=f"{number:024x}", at=at, **fields)


@contextmanager
def unprivileged() -> Iterator[Path]:
    """A directory of our own, and for the superuser, whom no mode stops, another user's rights while in here."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        path.chmod(0o755)
        superuser = os.geteuid() == 0
        if superuser:
            os.seteuid(65534)
        try:
            yield path
        finally:
            if superuser:
                os.seteuid(0)
            path.chmod(0o755)


async def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    """Whatever the umask says: database, write-ahead log, shared memory, and a new directory."""
    old = os.umask(0)
    try:
        store = SqliteStore(tmp_path / "data" / "x.db")
        await store.put("a", b"b")
        modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "data").iterdir()}
    finally:
        os.umask(old)
    assert modes == {"x.db": 0o600, "x.db-wal": 0o600, "x.db-shm": 0o600}
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    await store.close()
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["x.db"]


def test_a_directory_that_cannot_be_written_is_explained() -> None:
    """What, where, and what to do."""
    with unprivileged() as directory:
        if os.geteuid() != 65534:
            directory.chmod(0o555)
        with pytest.raises(StoreError, match=r"Permission denied.*--data-dir"):
            SqliteStore(directory / "x.db")


async def test_a_file_that_cannot_be_written_is_explained() -> None:
    """Not only that it failed: that write access is missing."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.db"
        await SqliteStore(path).close()
        path.chmod(0o444)
        Path(directory).chmod(0o755)
        superuser = os.geteuid() == 0
        if superuser:
            os.seteuid(65534)
        try:
            with pytest.raises(StoreError, match=r"Permission denied.*write access"):
                SqliteStore(path)
        finally:
            if superuser:
                os.seteuid(0)


@pytest.mark.parametrize("content", [b"this is no database" * 1000, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_garbage_is_explained(tmp_path: Path, content: bytes) -> None:
    """And left as it is."""
    path = tmp_path / "x.db"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"damaged.*backup"):
        SqliteStore(path)
    assert path.read_bytes() == content


async def test_a_damaged_page_is_explained(tmp_path: Path) -> None:
    """A database that breaks in the middle says so when it is read, not with a riddle."""
    path = tmp_path / "x.db"
    store = SqliteStore(path)
    await store.append([record(number) for number in range(2000)])
    await store.close()
    with path.open("r+b") as file:
        file.seek(4096 * 20)
        file.write(b"\xee" * 4096 * 60)
    store = SqliteStore(path)
    with pytest.raises(StoreError, match="damaged"):
        await store.records(limit=5000)
    await store.close()


def test_a_strange_database_is_left_alone(tmp_path: Path) -> None:
    """Somebody else's tables are not ours to migrate."""
    path = tmp_path / "x.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    with pytest.raises(StoreError, match="not one of aigw's"):
        SqliteStore(path)


async def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    """With both versions and what to do; the file is not touched."""
    path = tmp_path / "x.db"
    await SqliteStore(path).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {LATEST + 1}")
    connection.close()
    with pytest.raises(StoreError, match=rf"newer aigw \(schema {LATEST + 1}; this one knows {LATEST}\). Update aigw"):
        SqliteStore(path)


def _add_things(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE record_line ADD COLUMN mood TEXT NOT NULL DEFAULT 'fine'")
    connection.execute("ALTER TABLE rollup ADD COLUMN moods INTEGER NOT NULL DEFAULT 0")
    connection.execute("ALTER TABLE consumer ADD COLUMN colour TEXT")
    connection.execute("CREATE TABLE other (a)")


@pytest.mark.parametrize("readable", [True, False])
async def test_upgrade_and_rollback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readable: bool) -> None:
    """An upgrade backs up first and keeps everything; the old program works on the result when the step only added things,
    leaves what it does not know alone, and refuses it otherwise."""
    path = tmp_path / "x.db"
    store = SqliteStore(path)
    await store.put_consumer(Consumer(id="c1", name="ci"))
    await store.append([record(1)])
    await store.close()

    newer = Migration(LATEST + 1, LATEST if readable else LATEST + 1, _add_things)
    with monkeypatch.context() as future:
        future.setattr(sqlite, "MIGRATIONS", (*sqlite.MIGRATIONS, newer))
        future.setattr(sqlite, "LATEST", LATEST + 1)
        store = SqliteStore(path)
        assert await store.consumer("ci") == Consumer(id="c1", name="ci")
        await store.close()
    backup = tmp_path / f"x.db.v{LATEST}.backup"
    assert backup.stat().st_mode & 0o777 == 0o600

    if not readable:
        with pytest.raises(StoreError, match="newer"):
            SqliteStore(path)
        backup.replace(path)
    connection = sqlite3.connect(path)
    if readable:
        connection.execute("UPDATE rollup SET moods = 7")
        connection.execute("UPDATE consumer SET colour = 'blue'")
        connection.commit()
    store = SqliteStore(path)
    await store.append([record(2)])
    await store.put_consumer(Consumer(id="c1", name="renamed"))
    [row] = await store.usage("", 0, NOON + 3600)
    assert row.requests == 2
    assert len(await store.records()) == 2
    await store.close()
    if readable:
        assert connection.execute("SELECT DISTINCT moods FROM rollup").fetchall() == [(7,)]
        assert connection.execute("SELECT colour FROM consumer").fetchall() == [("blue",)]
    connection.close()


async def test_a_failed_upgrade_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a migration is taken back; the old program goes on."""
    path = tmp_path / "x.db"
    await SqliteStore(path).close()

    def breaks(connection: sqlite3.Connection) -> None:
        _add_things(connection)
        connection.execute("CREATE TABLE record_line (again)")

    with monkeypatch.context() as future:
        future.setattr(sqlite, "MIGRATIONS", (*sqlite.MIGRATIONS, Migration(LATEST + 1, LATEST, breaks)))
        future.setattr(sqlite, "LATEST", LATEST + 1)
        with pytest.raises(StoreError, match="already exists"):
            SqliteStore(path)
    store = SqliteStore(path)
    assert await store.append([record(1)]) == 1
    assert store._connection.execute("SELECT name FROM sqlite_master WHERE name = 'other'").fetchall() == []
    await store.close()


def test_many_processes_may_make_it_at_once(tmp_path: Path) -> None:
    """The first migrates, the others wait and find it done, however they meet."""
    stores: list[SqliteStore] = []
    failures: list[StoreError] = []

    def open_one(path: Path) -> None:
        try:
            stores.append(SqliteStore(path))
        except StoreError as error:
            failures.append(error)

    for number in range(30):  # some meetings are rare
        threads = [threading.Thread(target=open_one, args=(tmp_path / f"{number}.db",)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
    for store in stores:
        asyncio.run(store.close())


async def test_a_lock_is_waited_for_and_then_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process that writes for too long is named as the cause; reading goes on meanwhile; later all is well."""
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT", 0.05)
    store = SqliteStore(tmp_path / "x.db")
    await store.append([record(1)])
    other = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked by another process"):
        await store.append([record(2)])
    assert await store.last_change() == 0
    assert len(await store.records()) == 1
    other.execute("ROLLBACK")
    other.close()
    assert await store.append([record(2)]) == 1
    await store.close()


async def test_a_full_disk_is_explained_and_survived(tmp_path: Path) -> None:
    """A batch that does not fit leaves no trace, in the rows or in the sums; when there is room again it goes in."""
    store = SqliteStore(tmp_path / "x.db")
    await store.append([record(0, input=1)])
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages + 20}")
    batch = [record(number, input=1, tags="x" * 500) for number in range(1, 500)]
    for _ in range(3):
        with pytest.raises(StoreError, match=r"the disk is full. Free some space"):
            await store.append(batch)
    store._connection.execute("PRAGMA max_page_count = 1000000")
    assert await store.append(batch) == 499
    [row] = await store.usage("", 0, NOON + 3600)
    assert (row.requests, row.input) == (500, 500)
    await store.close()


async def test_a_long_question_holds_up_no_record(tmp_path: Path) -> None:
    """Reading has a thread and a connection of its own: an append passes a question that is still being answered."""
    store = SqliteStore(tmp_path / "x.db")
    await store.append([record(0)])
    running, go_on = threading.Event(), threading.Event()

    def slow(connection: sqlite3.Connection) -> int:
        connection.execute("BEGIN")
        before = connection.execute("SELECT count(*) FROM record").fetchone()[0]
        running.set()
        assert go_on.wait(10)
        connection.execute("ROLLBACK")
        return int(before)

    question = asyncio.ensure_future(store._read(slow))
    await asyncio.to_thread(running.wait, 10)
    assert await store.append([record(1)]) == 1
    assert not question.done()
    go_on.set()
    assert await question == 1
    await store.close()


async def test_names_without_end_end_in_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller who asks for a new model each time fills no disk with roll-ups; the sums stay whole."""
    monkeypatch.setattr(sqlite, "ROLLUPS_PER_HOUR", 10)
    store = SqliteStore(tmp_path / "x.db")
    for start in range(0, 100, 7):
        await store.append(
            [record(number, requested_model=f"m{number}", consumer="c") for number in range(start, min(100, start + 7))]
        )
    rows = {row.group[0]: row.requests for row in await store.usage("route", 0, NOON + 3600)}
    assert rows == {"(other)": 90, **{f"m{number}": 1 for number in range(10)}}
    assert {row.group: row.requests for row in await store.usage("consumer", 0, NOON + 3600)} == {("c",): 100}
    await store.close()


async def test_a_record_for_each_statement_shape(tmp_path: Path) -> None:
    """Batches of all sizes around those of one statement arrive whole."""
    store = SqliteStore(tmp_path / "x.db")
    number = 0
    for size in (1, 2, 4, 5, 6, 19, 20, 21, 39, 40, 41, 199, 200, 201, 220, 221, 241, 421):
        assert await store.append([record(number + offset) for offset in range(size)]) == size
        number += size
    assert len({kept.id for kept in await store.records(limit=10_000)}) == number
    await store.close()


async def test_people_see_fields(tmp_path: Path) -> None:
    """The view `record` shows each field as the record has it, of lines of other versions too."""
    kept = record(
        1, took=5, first_token=3, stream=True, consumer="Zo\u00eb \" 'x'", input=2**40, cost=None, attempts='[{"a":1}]'
    )
    line = msgspec.json.encode([*msgspec.to_builtins(kept), "from the future"])
    store = SqliteStore(tmp_path / "x.db")
    await store.append([kept], [line])
    await store.append([Record(id="old", at=NOON - 1)], [b'["old",' + str(NOON - 1).encode() + b"]"])
    with contextlib.closing(sqlite3.connect(tmp_path / "x.db")) as connection:
        rows = connection.execute("SELECT * FROM record ORDER BY at").fetchall()
        assert connection.execute("SELECT line FROM record_line WHERE id = ?", (kept.id,)).fetchone() == (line,)
    assert rows[0][:3] == ("old", NOON - 1, None)
    assert rows[1] == msgspec.structs.astuple(kept)
    assert await store.records() == [kept, Record(id="old", at=NOON - 1)]
    await store.close()


async def test_a_line_that_is_none_is_explained(tmp_path: Path) -> None:
    """Bytes that changed on the disk are damage, said in the same words as any other."""
    store = SqliteStore(tmp_path / "x.db")
    await store.append([record(1)], [b"\x00" * 50])
    with pytest.raises(StoreError, match="damaged"):
        await store.records()
    await store.close()


def _million(count: int) -> Iterator[list[Record]]:
    """Thirty days of a busy office: 20 consumers, 6 models of 3 providers, latencies as they are."""
    chance = random.Random(1)
    consumers = [f"team-{number}" for number in range(20)]
    models = [(f"model-{number}", f"provider-{number % 3}") for number in range(6)]
    start = NOON - 30 * 86400
    batch: list[Record] = []
    for number in range(count):
        model, provider = chance.choice(models)
        batch.append(
            record(
                number,
                start + number * 30 * 86400 / count,
                took=int(chance.lognormvariate(14.5, 0.8)),
                first_token=int(chance.lognormvariate(13, 0.5)),
                consumer=chance.choice(consumers),
                route=model,
                provider=provider,
                model=model,
                input=chance.randint(10, 5000),
                output=chance.randint(1, 800),
                cost=chance.randint(1, 10**7),
            )
        )
        if len(batch) == 2000:
            yield batch
            batch = []
    if batch:
        yield batch


@pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=pytest.mark.long)])
async def test_statistics_over_many_records_are_quick(tmp_path: Path, count: int) -> None:
    """Every grouping of a month's million records in less than a second, with the right sum."""
    store = SqliteStore(tmp_path / "x.db")
    tokens = 0
    for batch in _million(count):
        tokens += sum(kept.input for kept in batch)
        await store.append(batch)
    slowest = 0.0
    pairs = ("consumer,model", "model,route", "day,consumer", "hour,provider", "error,key")
    for by in ("model", "consumer", "provider", "route", "day", "hour", "operation", "", *pairs):
        begin = time.process_time()  # a busy machine is no slow store
        rows = await store.usage(by, NOON - 40 * 86400 + 1234, NOON + 1, "Asia/Kolkata", parts=12)
        slowest = max(slowest, time.process_time() - begin)
        assert sum(row.requests for row in rows) == count
        assert sum(row.input for row in rows) == tokens
    print(f"{count} records: the slowest grouping took {slowest:.3f} s of CPU")
    assert slowest < 1.0
    await store.close()


async def test_utc_needs_no_time_zone_data(tmp_path: Path) -> None:
    """Small containers have none: figures in UTC work there, and other zones are refused in plain words."""
    store = SqliteStore(tmp_path / "x.db")
    await store.append([record(1)])
    zoneinfo.reset_tzpath(())
    zoneinfo.ZoneInfo.clear_cache()
    try:
        assert [row.requests for row in await store.usage("day", 0.0, NOON + 3600)] == [1]
        if importlib.util.find_spec("tzdata") is None:
            with pytest.raises(ValueError, match="unknown time zone 'Europe/Berlin'"):
                await store.usage("day", 0.0, NOON + 3600, "Europe/Berlin")
    finally:
        zoneinfo.reset_tzpath()
        await store.close()


async def test_a_file_that_is_locked_at_first_is_opened_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server can start with it; whoever asks meanwhile hears why, and nothing has to be started again."""
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT", 0.05)
    monkeypatch.setattr(sqlite, "AGAIN", 0.0)
    path = tmp_path / "x.db"
    await SqliteStore(path).close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        store = SqliteStore(path)
        for ask in (store.last_change, store.records):
            with pytest.raises(StoreError, match="locked by another process"):
                await ask()
    assert await store.append([record(1)]) == 1
    assert len(await store.records()) == 1
    await store.close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        await SqliteStore(path).close()
