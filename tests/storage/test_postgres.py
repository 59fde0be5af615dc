"""What is particular to PostgreSQL; what it shares with other stores is in tests/contracts/test_store.py."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from aigw.consumer import Consumer
from aigw.errors import ConfigError, StoreError
from aigw.exchange import Record
from aigw.storage import postgres as module
from aigw.storage.journal import Journal
from aigw.storage.migrations import POSTGRES_MIGRATIONS, PostgresMigration
from aigw.storage.postgres import PostgresStore, look
from tests.servers import PASSWORD, Postgres

NOON = 1_790_000_000 // 86400 * 86400 + 12 * 3600.0

Open = Callable[..., PostgresStore]


def record(at: float = NOON, **fields: Any) -> Record:
    return Record(id=secrets.token_hex(12), at=at, **fields)


@pytest.fixture
async def open_store() -> AsyncIterator[Open]:
    opened: list[PostgresStore] = []

    def open_one(url: str) -> PostgresStore:
        opened.append(PostgresStore(url))
        return opened[-1]

    yield open_one
    for store in opened:
        await store.close()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@h:port/d",
        "postgresql://h/d?schema=Public",
        "postgresql://h/d?schema=a;drop",
        "postgresql://h/d?connections=1",
        "postgresql://h/d?connections=many",
        "postgresql://h/d?nonsense",
    ],
)
def test_an_address_that_makes_no_sense(url: str) -> None:
    """Is the operator's mistake, told before anything is connected to."""
    with pytest.raises(ConfigError) as raised:
        PostgresStore(url)
    assert raised.value.key == "storage.url"


async def test_what_is_wrong_is_said_in_plain_words(postgres: str, open_store: Open) -> None:
    """Whose fault, what to do; never the password."""
    with contextlib.closing(__import__("socket").socket()) as silent:
        silent.bind(("127.0.0.1", 0))  # bound, and nobody listens
        port = silent.getsockname()[1]
        cases = {
            f"postgresql://u:{'x'}@127.0.0.1:{port}/d": r"cannot be reached: .*Is it running",
            postgres.replace("app:", "app:x"): "refuses the login. Check user and password",
            postgres.rpartition("/")[0] + "/nowhere": "has no such database",
        }
        for url, words in cases.items():
            store = open_store(url)
            for _ in range(2):
                with pytest.raises(StoreError, match=words) as raised:
                    await store.last_change()
                assert PASSWORD not in str(raised.value)
                assert "%2F" not in str(raised.value)


async def test_a_database_that_is_away_costs_little(open_store: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many who ask at once hear of one attempt."""
    attempts = 0
    connect = asyncpg.create_pool

    def counted(*arguments: Any, **settings: Any) -> Any:
        nonlocal attempts
        attempts += 1
        return connect(*arguments, **settings)

    monkeypatch.setattr(module, "AGAIN", 60)
    monkeypatch.setattr(asyncpg, "create_pool", counted)
    store = open_store("postgresql://u@127.0.0.1:1/d")
    results = await asyncio.gather(*(store.get("a") for _ in range(50)), return_exceptions=True)
    assert all(isinstance(result, StoreError) for result in results)
    assert attempts == 1


async def test_many_may_make_it_at_once(postgres: str, open_store: Open) -> None:
    """One makes the tables, the others wait for it."""
    stores = [open_store(postgres) for _ in range(8)]
    assert await asyncio.gather(*(store.last_change() for store in stores)) == [0] * 8


async def test_schemas_are_apart(postgres: str, open_store: Open) -> None:
    """Two installations in one database do not see each other, nor wake each other."""
    one, other = open_store(postgres), open_store(postgres + "?schema=second")
    await one.put_consumer(Consumer(id="c", name="alice"))
    assert await other.consumer("alice") is None
    assert await other.last_change() == 0


async def test_a_schema_of_others_and_of_others_builds(
    postgres: str, postgres_server: Postgres, open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables that are not ours are left alone; a step that differs, or a newer one, is refused, unless it may be read."""
    database = postgres.rpartition("/")[2]
    postgres_server.psql("CREATE SCHEMA theirs; GRANT ALL ON SCHEMA theirs TO app; CREATE TABLE theirs.x (a int)", database)
    with pytest.raises(StoreError, match="not aigw's"):
        await open_store(postgres + "?schema=theirs").last_change()
    assert await open_store(postgres).last_change() == 0
    step = POSTGRES_MIGRATIONS[-1].version + 1
    insert = f"INSERT INTO aigw.schema_version VALUES ({step}, {{}}, 0, 'x')"
    postgres_server.psql(insert.format(1), database)
    assert await open_store(postgres).last_change() == 0
    postgres_server.psql(f"UPDATE aigw.schema_version SET readable_by = {step} WHERE version = {step}", database)
    with pytest.raises(StoreError, match="newer aigw"):
        await open_store(postgres).last_change()
    postgres_server.psql(f"DELETE FROM aigw.schema_version WHERE version = {step}", database)
    more = (*POSTGRES_MIGRATIONS, PostgresMigration(step, 1, ("ALTER TABLE consumer ADD COLUMN colour text",)))
    monkeypatch.setattr(module, "POSTGRES_MIGRATIONS", more)
    store = open_store(postgres)
    await store.put_consumer(Consumer(id="c", name="alice"))
    assert await store.consumer("alice") is not None
    assert postgres_server.psql("SELECT max(version) FROM aigw.schema_version", database) == str(step)
    postgres_server.psql("UPDATE aigw.schema_version SET digest = 'other' WHERE version = 1", database)
    with pytest.raises(StoreError, match="another build"):
        await open_store(postgres).last_change()


async def test_looking_makes_nothing(postgres: str, postgres_server: Postgres, open_store: Open) -> None:
    """What a doctor sees before and after."""
    looked = await look(postgres)
    assert looked[1:] == (0, 0, 0)
    assert postgres_server.psql("SELECT count(*) FROM pg_namespace WHERE nspname = 'aigw'", postgres.rpartition("/")[2]) == "0"
    await open_store(postgres).put_consumer(Consumer(id="c", name="alice"))
    looked = await look(postgres)
    assert (looked.schema, looked.consumers) == (POSTGRES_MIGRATIONS[-1].version, 0)
    assert looked.size > 0


async def test_a_server_that_comes_back_is_used_again(tmp_path: Path) -> None:
    """Broken connections cost one error each at most; what was under way is taken back whole."""
    with Postgres() as server:
        store = PostgresStore(server.fresh())
        await store.append([record()])
        server.stop()
        with pytest.raises(StoreError):
            await store.append([record()])
        server.start()
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(StoreError):
                assert len(await store.records()) == 1
                break
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        assert await store.append([record()]) == 1
        await store.close()


async def test_an_edit_wakes_at_once(postgres: str, open_store: Open) -> None:
    """Long before the time that was given; also after the connection that listened was lost."""
    one, other = open_store(postgres), open_store(postgres)
    await one.last_change()
    await other.changed(0.5)  # has begun to listen, or will have soon
    for _ in range(2):
        woken = asyncio.create_task(other.changed(60))
        for number in range(200):  # an edit now and then: the first ones may come before anybody listens
            await one.put_consumer(Consumer(id="c", name=f"n{number}"))
            if woken.done():
                break
            await asyncio.sleep(0.05)
        await asyncio.wait_for(woken, 1)
        async with one._connection() as connection:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND query ILIKE 'LISTEN%'"
            )


async def test_nodes_that_write_the_same_at_once(postgres: str, open_store: Open) -> None:
    """Four nodes, the same hours, consumers and models, some records twice: all counted once, nobody deadlocked."""
    stores = [open_store(postgres) for _ in range(4)]
    batches = [
        [record(NOON + n, model=f"m{n % 5}", consumer_id=f"c{n % 7}", charged=1, took=n) for n in range(150)] for _ in range(24)
    ]
    works = [
        stores[(number + again) % 4].append(batch)
        for number, batch in enumerate(batches)
        for again in range(1 + (number % 3 == 0))
    ]
    new = await asyncio.gather(*works)
    total = 24 * 150
    assert sum(new) == total
    for by in ("", "model", "consumer,model", "day,route"):
        assert sum(row.requests for row in await stores[0].usage(by, 0, NOON + 9999)) == total
    assert sum(usd for usd, _ in (await stores[1].spent([f"c{n}" for n in range(7)], 0)).values()) == total


async def test_who_follows_the_records_misses_none(postgres: str, open_store: Open) -> None:
    """However many write at once, and however long one of them takes."""
    stores, follower = [open_store(postgres) for _ in range(3)], open_store(postgres)
    _, place = await follower.appended()
    seen: list[str] = []

    async def write(store: PostgresStore) -> list[str]:
        ids = []
        for number in range(20):
            batch = [record(NOON + number) for _ in range(random_size(number))]
            await store.append(batch)
            ids += [kept.id for kept in batch]
        return ids

    writing = asyncio.gather(*map(write, stores))
    deadline = time.monotonic() + 30
    while not writing.done() or len(seen) < sum(map(len, writing.result())):
        assert time.monotonic() < deadline
        found, place = await follower.appended(place, limit=100_000)
        seen += [kept.id for kept in found]
    assert sorted(seen) == sorted(one for ids in await writing for one in ids)


def random_size(number: int) -> int:
    return (number * 37) % 90 + 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MB for PostgreSQL's tables; only root can make one."""
    folder = Path(f"/tmp/aigw-small-{secrets.token_hex(4)}")
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40m,mode=0777", "none", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        folder.rmdir()
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=False)
    folder.rmdir()


async def test_a_full_disk(tmp_path: Path, small_disk: Path) -> None:
    """Records wait in the journal, and each is there once when there is room again."""
    with Postgres() as server:
        url = server.fresh()
        database = url.rpartition("/")[2]
        store = PostgresStore(url)
        await store.last_change()
        (small_disk / "tables").mkdir()
        subprocess.run(["chown", "postgres", small_disk / "tables"], check=True)
        server.psql(f"CREATE TABLESPACE small LOCATION '{small_disk}/tables'")
        server.psql("ALTER TABLE aigw.record_line SET TABLESPACE small", database)
        filler = small_disk / "filler"
        filler.write_bytes(bytes(36 * 1024 * 1024))
        journal = Journal(tmp_path / "journal", store, interval=0.02)
        journal.start()
        count = 0
        while not journal._down:
            for _ in range(500):
                journal.write(record(NOON + count / 1000, attempts="x" * 500, input=1))
                count += 1
            await asyncio.sleep(0.05)
            assert count < 100_000
        with pytest.raises(StoreError, match="disk is full"):
            await store.append([record(attempts="x" * 1_000_000)])
        filler.unlink()
        deadline = time.monotonic() + 60
        while journal.pending:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        await journal.close()
        [row] = await store.usage("", 0, NOON + 9999)
        await store.close()
        assert server.psql("SELECT count(*), count(DISTINCT id) FROM aigw.record_line", database) == f"{count}|{count}"
        assert (row.requests, row.input) == (count, count)
        assert journal.lost == 0
        server.stop()
