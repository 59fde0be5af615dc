"""Nothing is lost: real files, a real store, real processes that are killed."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aigw.errors import StoreError
from aigw.exchange import Record
from aigw.storage import journal as journal_module, sqlite
from aigw.storage.base import Store
from aigw.storage.journal import DAMAGED, REFUSED, SUFFIX, Journal
from aigw.storage.open import open_store

NOON = 1_790_000_000 // 86400 * 86400 + 12 * 3600.0

CHILD = """
import asyncio, os, pathlib, secrets, sys, time
from aigw.exchange import Record
from aigw.storage.journal import Journal
from aigw.storage.open import open_store

async def main():
    directory = pathlib.Path(sys.argv[1])
    store = open_store("sqlite:", directory)
    journal = Journal(directory / "journal", store, segment_bytes=int(sys.argv[2]), queued=int(sys.argv[3]))
    journal.start()
    while True:
        for _ in range(10):
            record = Record(id=secrets.token_hex(12), at=time.time(), took=5000, input=3, model="m", cost=2)
            journal.write(record)
            os.write(1, record.id.encode() + b"\\n")
        await asyncio.sleep(0.002)

asyncio.run(main())
"""


def record(number: int, **fields: Any) -> Record:
    return Record(id=f"{number:024x}", at=NOON + number / 1000, **fields)


def segments(directory: Path) -> list[Path]:
    return sorted((directory / "journal").glob("*" + SUFFIX))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = open_store("sqlite:", tmp_path)
    yield store
    await store.close()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "journal"


async def stored(store: Store) -> list[str]:
    return sorted(kept.id for kept in await store.records(limit=1_000_000))


async def until(condition: Any, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


@contextmanager
def locked_out(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The store is out of reach: another process has its file locked."""
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT", 0.02)
    other = sqlite3.connect(directory / "aigw.db", isolation_level=None, timeout=10)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file of this process may grow beyond *size* bytes: the kernel cuts the write there and refuses the next."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_records_arrive_and_the_journal_is_empty(tmp_path: Path, directory: Path, store: Store) -> None:
    """In the store within moments; when all is stored a restart has nothing to read, and a clean end leaves no file."""
    journal = Journal(directory, store, interval=0.02)
    journal.start()
    for number in range(500):
        journal.write(record(number))
    assert journal.pending == 500
    await until(lambda: journal.committed == 500)
    await until(lambda: [path.stat().st_size for path in segments(tmp_path)] == [0])
    assert (journal.written, journal.pending, journal.failed, journal.lost) == (500, 0, 0, 0)
    journal.write(record(500))
    await journal.close()
    assert await stored(store) == [record(number).id for number in range(501)]
    assert list(directory.iterdir()) == []


async def test_a_record_is_on_the_disk_when_write_returns(tmp_path: Path, directory: Path, store: Store) -> None:
    """Whole, in one line, readable by whoever comes next, for the owner's eyes only."""
    journal = Journal(directory, store)
    kept = record(1, consumer='Zoë \n" x', cost=None, first_token=3)
    journal.write(kept)
    [path] = segments(tmp_path)
    content = path.read_bytes()
    assert content.endswith(b"\n")
    assert content.count(b"\n") == 1
    assert msgspec.json.decode(content, type=Record) == kept
    assert path.stat().st_mode & 0o777 == 0o600
    assert directory.stat().st_mode & 0o777 == 0o700
    await journal.close()


async def test_several_at_once(tmp_path: Path, directory: Path, store: Store) -> None:
    """Each is a line and a record of its own; one that is odd spoils no other."""
    journal = Journal(directory, store, interval=0.02)
    journal.write(record(1), record(2, consumer="\ud800"), record(3))
    journal.write()
    assert (journal.written, journal.pending) == (3, 3)
    [path] = segments(tmp_path)
    assert path.read_bytes().count(b"\n") == 3
    journal.start()
    await until(lambda: journal.committed == 3)
    await journal.close()
    assert await stored(store) == [record(number).id for number in (1, 2, 3)]


async def test_many_are_stored_ahead_of_time(directory: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has become too much to wait in memory does not wait for the next visit."""
    monkeypatch.setattr("aigw.storage.journal.EARLY", 50)
    journal = Journal(directory, store, interval=30)
    journal.start()
    await asyncio.sleep(0.05)  # the first visit is over
    journal.write(*map(record, range(49)))
    await asyncio.sleep(0.2)
    assert journal.committed == 0
    journal.write(record(49))
    await until(lambda: journal.committed == 50)
    await journal.close()


async def test_segments_turn_over_and_go(tmp_path: Path, directory: Path, store: Store) -> None:
    """A full segment is closed, and dropped when what is in it is stored."""
    journal = Journal(directory, store, segment_bytes=10_000, interval=0.02)
    for number in range(1000):
        journal.write(record(number))
    assert len(segments(tmp_path)) > 10
    assert all(path.stat().st_size < 11_000 for path in segments(tmp_path))
    journal.start()
    await until(lambda: len(segments(tmp_path)) == 1)
    assert journal.committed == 1000
    await journal.close()
    assert len(await stored(store)) == 1000


@pytest.mark.parametrize(("segment_bytes", "queued"), [(4_000_000, 50_000), (5_000, 50_000), (5_000, 20)])
async def test_kill_loses_nothing(tmp_path: Path, segment_bytes: int, queued: int) -> None:
    """Killed again and again while it writes: every record that was acknowledged is stored exactly once, and the sums are
    those of the records."""
    acknowledged: list[str] = []
    chance = random.Random(segment_bytes + queued)
    for _ in range(3):
        acknowledged += _run_and_kill(tmp_path, segment_bytes, queued, chance.uniform(0.2, 0.5))
    assert len(acknowledged) > 300
    store = open_store("sqlite:", tmp_path)
    journal = Journal(tmp_path / "journal", store)
    await journal.recover()
    ids = await stored(store)
    assert len(ids) == len(set(ids))
    assert set(acknowledged) <= set(ids)
    assert len(ids) <= len(acknowledged) + 3  # at most the one each child was about to acknowledge
    [row] = await store.usage("", 0, time.time() + 1)
    assert (row.requests, row.input, row.costs) == (len(ids), 3 * len(ids), {"USD": 2 * len(ids)})
    assert await journal.recover() == 0
    assert journal.damaged == 0
    await journal.close()
    assert list((tmp_path / "journal").iterdir()) == []
    await store.close()


def _run_and_kill(directory: Path, segment_bytes: int, queued: int, seconds: float) -> list[str]:
    command = [sys.executable, "-c", CHILD, str(directory), str(segment_bytes), str(queued)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        first = child.stdout.readline()
        killer = asyncio.get_running_loop().run_in_executor(None, _kill_after, child, seconds)
        lines = [first, *child.stdout]
        del killer
    return [line.decode().strip() for line in lines if line.endswith(b"\n")]


def _kill_after(child: subprocess.Popen[bytes], seconds: float) -> None:
    time.sleep(seconds)
    child.send_signal(signal.SIGKILL)


async def test_a_living_process_keeps_its_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it lives nobody else replays them, not even with the store locked and full segments lying about; once it is
    killed they are anybody's."""
    store = open_store("sqlite:", tmp_path)
    command = [sys.executable, "-c", CHILD, str(tmp_path), "5000", "50000"]
    with locked_out(tmp_path, monkeypatch), subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(300)]
        theirs = set(segments(tmp_path))
        assert len(theirs) > 5
        journal = Journal(tmp_path / "journal", store)
        assert await journal.recover() == 0
        assert journal.replayed == 0
        assert theirs <= set(segments(tmp_path))
        child.kill()
        lines += child.stdout.readlines()
    acknowledged = {line.decode().strip() for line in lines if line.endswith(b"\n")}
    assert await journal.recover() >= len(acknowledged)
    assert acknowledged <= set(await stored(store))
    await journal.close()
    await store.close()


async def test_what_was_stored_already_is_not_counted_again(tmp_path: Path, directory: Path, store: Store) -> None:
    """A process that died between the commit and the end of its segment: replay finds every record known."""
    records = [record(number, input=1) for number in range(3000)]
    await store.append(records[:2500])
    directory.mkdir()
    (directory / f"1{SUFFIX}").write_bytes(b"".join(msgspec.json.encode(kept) + b"\n" for kept in records))
    journal = Journal(directory, store)
    assert await journal.recover() == 500
    assert (journal.replayed, journal.recovered) == (3000, 500)
    [row] = await store.usage("", 0, NOON + 3600)
    assert (row.requests, row.input) == (3000, 3000)
    await journal.close()


@pytest.mark.parametrize("tail", [b"", b'["torn', b'["torn"', b"\x00" * 3000, b"\xff"])
async def test_a_torn_last_line_is_no_damage(directory: Path, store: Store, tail: bytes) -> None:
    """Nobody was told that it is kept; the lines before it are."""
    directory.mkdir()
    (directory / f"1{SUFFIX}").write_bytes(msgspec.json.encode(record(1)) + b"\n" + tail)
    journal = Journal(directory, store)
    assert await journal.recover() == 1
    assert journal.damaged == 0
    await journal.close()
    assert list(directory.iterdir()) == []


async def test_a_last_line_that_only_lacks_its_end_is_kept(directory: Path, store: Store) -> None:
    """All of the record is there."""
    directory.mkdir()
    (directory / f"1{SUFFIX}").write_bytes(msgspec.json.encode(record(1)) + b"\n" + msgspec.json.encode(record(2)))
    journal = Journal(directory, store)
    assert await journal.recover() == 2
    await journal.close()


async def test_garbage_between_records_is_set_aside(directory: Path, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """It is counted, said and kept; the records around it are stored."""
    garbage = [b"nonsense", b'{"id": 1}', b"\x00" * 50, b'["id", "no time"]', b"[]"]
    lines = [line for number in range(5) for line in (msgspec.json.encode(record(number)), garbage[number])]
    directory.mkdir()
    (directory / f"1{SUFFIX}").write_bytes(b"\n".join(lines) + b"\n")
    journal = Journal(directory, store)
    assert await journal.recover() == 5
    assert journal.damaged == 5
    assert (directory / DAMAGED).read_bytes().splitlines() == garbage
    assert (directory / DAMAGED).stat().st_mode & 0o777 == 0o600
    assert "5 damaged lines" in caplog.text
    await journal.close()


async def test_a_line_longer_than_a_reading_is_read(directory: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks end anywhere in a line; no line is cut by that."""
    monkeypatch.setattr(journal_module, "READ_BYTES", 100)
    directory.mkdir()
    records = [record(number, tags="x" * number * 7) for number in range(60)]
    (directory / f"1{SUFFIX}").write_bytes(b"".join(msgspec.json.encode(kept) + b"\n" for kept in records))
    journal = Journal(directory, store)
    assert await journal.recover() == 60
    assert journal.damaged == 0
    await journal.close()


async def test_journals_of_other_versions_are_read(directory: Path, store: Store) -> None:
    """One with fewer fields, and one with a field that we do not know yet."""
    now = msgspec.to_builtins(record(1))
    directory.mkdir()
    (directory / f"1{SUFFIX}").write_bytes(b'["old",' + str(NOON).encode() + b"]\n")
    (directory / f"2{SUFFIX}").write_bytes(msgspec.json.encode([*now, "from the future"]) + b"\n")
    journal = Journal(directory, store)
    assert await journal.recover() == 2
    assert await store.records(ids=["old"]) == [Record(id="old", at=NOON)]
    assert await store.records(ids=[record(1).id]) == [record(1)]
    await journal.close()


async def test_the_store_goes_and_comes_back(
    tmp_path: Path, directory: Path, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Writing goes on; one line says that it is away, one that it is back; all arrives once."""
    caplog.set_level(logging.WARNING, "aigw.storage")
    journal = Journal(directory, store, interval=0.01)
    await store.close()
    again = open_store("sqlite:", tmp_path)
    with locked_out(tmp_path, monkeypatch):
        impatient = open_store("sqlite:", tmp_path)
        journal._store = impatient
        journal.start()
        for number in range(300):
            journal.write(record(number, input=1))
            await asyncio.sleep(0.001)
        assert journal.pending == 300
    await until(lambda: journal.pending == 0)
    await until(lambda: "takes records again" in caplog.text)
    assert caplog.text.count("the store takes no records") == 1
    assert "locked by another process" in caplog.text
    await journal.close()
    [row] = await again.usage("", 0, NOON + 3600)
    assert (row.requests, row.input) == (300, 300)
    assert journal.committed == 300
    await impatient.close()
    await again.close()


async def test_memory_is_bounded_while_the_store_is_away(
    tmp_path: Path, directory: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the limit only the disk has the records; they are read back, new ones come in between, and all arrive once."""
    monkeypatch.setattr(journal_module, "LONGEST_PAUSE", 0.1)
    with locked_out(tmp_path, monkeypatch):
        impatient = open_store("sqlite:", tmp_path)
        journal = Journal(directory, impatient, queued=100, segment_bytes=20_000, interval=0.01)
        journal.start()
        for number in range(2000):
            journal.write(record(number, input=1))
            if number % 100 == 0:
                await asyncio.sleep(0.005)
        assert len(journal._queue) == 100
        assert journal.pending == 2000
    for number in range(2000, 2500):
        journal.write(record(number, input=1))
        await asyncio.sleep(0.001)
    await until(lambda: journal.pending == 0)
    assert (journal.written, journal.committed, journal.lost) == (2500, 2500, 0)
    await until(lambda: [path.stat().st_size for path in segments(tmp_path)] == [0])
    await journal.close()
    [row] = await store.usage("", 0, NOON + 3600)
    assert (row.requests, row.input) == (2500, 2500)
    assert list(directory.iterdir()) == []
    await impatient.close()


@pytest.mark.parametrize("queued", [50_000, 50])
async def test_what_is_left_at_the_end_waits_for_the_next_start(
    tmp_path: Path, directory: Path, store: Store, monkeypatch: pytest.MonkeyPatch, queued: int
) -> None:
    """Closing with the store away takes no longer than allowed and leaves every record on the disk."""
    with locked_out(tmp_path, monkeypatch):
        impatient = open_store("sqlite:", tmp_path)
        journal = Journal(directory, impatient, queued=queued, interval=0.01)
        journal.start()
        for number in range(200):
            journal.write(record(number))
        await asyncio.sleep(0.1)
        begin = time.monotonic()
        await journal.close(timeout=0.5)
        assert time.monotonic() - begin < 2
    following = Journal(directory, store, interval=0.01)
    following.start()
    await until(lambda: following.recovered == 200)
    await following.close()
    assert len(await stored(store)) == 200
    assert list(directory.iterdir()) == []
    await impatient.close()


async def test_a_full_disk_loses_nothing(
    tmp_path: Path, directory: Path, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """Writes that fail, or stop in the middle of a line, are counted, and their records are stored from memory; the line
    after is whole."""
    journal = Journal(directory, store, interval=0.01)
    line = len(msgspec.json.encode(record(0))) + 1
    with full_disk(line * 10 + line // 2):
        for number in range(30):
            journal.write(record(number))
    [path] = segments(tmp_path)
    assert path.stat().st_size == journal._segment.size
    assert journal.failed == 20
    assert journal.lost == 0
    assert caplog.text.count("cannot be written") == 1
    journal.write(record(30))
    assert "can be written again" in caplog.text
    assert [msgspec.json.decode(each, type=Record).id for each in path.read_bytes().splitlines()] == [
        record(number).id for number in (*range(10), 30)
    ]
    journal.start()
    await until(lambda: journal.pending == 0)
    await journal.close()
    assert await stored(store) == [record(number).id for number in range(31)]


async def test_half_a_line_that_cannot_be_taken_back_spoils_no_other(
    tmp_path: Path, directory: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next record begins on a line of its own."""
    journal = Journal(directory, store)
    journal.write(record(0))
    size = journal._segment.size
    with full_disk(size + 20), monkeypatch.context() as broken:
        broken.setattr(os, "ftruncate", _refuses)
        journal.write(record(1))
    journal.write(record(2))
    [path] = segments(tmp_path)
    first, _, last = path.read_bytes().splitlines()
    assert [msgspec.json.decode(each, type=Record) for each in (first, last)] == [record(0), record(2)]
    await journal.close()
    assert len(await stored(store)) == 3


def _refuses(*_: Any) -> None:
    raise OSError(5, "Input/output error")


async def test_no_disk_no_store_no_memory(
    tmp_path: Path, directory: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only then is a record lost, and it is counted; nothing is raised into the walk."""
    journal = Journal(directory, store, queued=10, disk_limit=0)
    for number in range(50):
        journal.write(record(number))
    assert (journal.written, journal.failed, journal.lost, journal.pending) == (50, 50, 30, 20)
    await journal.close()
    assert len(await stored(store)) == 20


async def test_the_disk_has_a_limit(tmp_path: Path, directory: Path, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """The journal stops growing there, loudly, and goes on when there is room again."""
    journal = Journal(directory, store, segment_bytes=2000, disk_limit=10_000, interval=0.01)
    for number in range(200):
        journal.write(record(number))
    assert sum(path.stat().st_size for path in segments(tmp_path)) <= 10_000
    assert journal.failed > 100
    assert "its limit of 10000 bytes" in caplog.text
    journal.start()
    await until(lambda: journal.pending == 0)
    failed = journal.failed
    journal.write(record(200))
    assert journal.failed == failed
    await journal.close()
    assert len(await stored(store)) == 201


async def test_a_shorter_record_does_not_open_it_again(directory: Path, store: Store) -> None:
    """What was full stays so until there is room for many: else it would open and close with the length of what comes."""
    journal = Journal(directory, store, disk_limit=10_000, refuse=True)
    number = 0
    while not journal.refusing:
        journal.write(record(number, attempts="x" * 900))
        number += 1
    for _ in range(20):
        journal.write(record(number := number + 1))
        assert journal.refusing
    await journal.close()


async def test_a_full_journal_may_refuse(tmp_path: Path, directory: Path, store: Store) -> None:
    """It says so before anything begins; refusals wait for no room; what was under way does, and it is open again by itself."""
    journal = Journal(directory, store, segment_bytes=2000, disk_limit=10_000, interval=0.01, refuse=True)
    number = 0
    while not journal.refusing:
        journal.write(record(number))
        number += 1
    assert journal.full
    assert 9_000 < journal.size <= 10_000
    journal.write(record(number))  # it had begun before
    refusals = [record(1000 + one, error=REFUSED, outcome="gateway_error") for one in range(50)]
    journal.write(*refusals, record(number + 1))
    assert (journal.unrecorded, journal.lost, journal.pending) == (50, 0, number + 2)
    journal.start()
    await until(lambda: not journal.refusing)
    await until(lambda: journal.pending == 0)
    await journal.close()
    assert await stored(store) == [record(one).id for one in range(number + 2)]


async def test_the_limit_is_of_all_processes_together(tmp_path: Path, directory: Path, store: Store) -> None:
    """What others have left in the directory, or write there, takes room as well."""
    first = Journal(directory, store, disk_limit=5000)
    for number in range(10):
        first.write(record(number))
    second = Journal(directory, store, disk_limit=5000)
    assert second.size == first.size > 1000
    for number in range(10, 60):
        second.write(record(number))
    assert sum(path.stat().st_size for path in segments(tmp_path)) <= 5000
    assert second.failed > 0
    await first.close()
    await second.close()
    assert len(await stored(store)) == 60


class Picky:
    """A store with a bug: it takes no batch with a certain record in it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def append(self, records: Sequence[Record], lines: Sequence[bytes]) -> int:
        if any(kept.model == "poison" for kept in records):
            raise ZeroDivisionError
        return await self._store.append(records, lines)


async def test_a_record_no_store_takes_is_set_aside(directory: Path, store: Store) -> None:
    """A bug over one record holds up none of the others, and the record is kept for somebody to look at."""
    picky: Any = Picky(store)
    journal = Journal(directory, picky, interval=0.01)
    for number in range(20):
        journal.write(record(number, model="poison" if number == 7 else "m"))
    journal.start()
    await until(lambda: journal.pending == 0)
    await journal.close()
    assert len(await stored(store)) == 19
    assert journal.damaged == 1
    [line] = (directory / DAMAGED).read_bytes().splitlines()
    assert msgspec.json.decode(line, type=Record) == record(7, model="poison")


async def test_odd_records_are_journalled_too(directory: Path, store: Store) -> None:
    """Half a surrogate pair, a number beyond 64 bits: made fit, never raised."""
    journal = Journal(directory, store)
    journal.write(record(1, consumer="\ud83d"))
    journal.write(record(2, input=2**80))
    await journal.close()
    assert [kept.consumer for kept in await store.records(ids=[record(1).id])] == ["?"]
    assert await stored(store) == [record(1).id, record(2).id]


async def test_a_segment_is_never_written_after_somebody_removed_it(directory: Path, store: Store) -> None:
    """A recovering process may catch a new file in the moment before it is locked: then another is made."""
    real, taken = fcntl.flock, []

    def thief(descriptor: int, operation: int) -> None:
        if len(taken) < 2:
            [path] = directory.glob("*" + SUFFIX)
            taken.append(path)
            path.unlink()
        real(descriptor, operation)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fcntl, "flock", thief)
        journal = Journal(directory, store)
    journal.write(record(1))
    [path] = directory.glob("*" + SUFFIX)
    assert path not in taken
    assert path.stat().st_size > 0
    await journal.close()


def test_a_directory_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    """Before anything is served."""
    (tmp_path / "file").touch()
    nobody: Any = None
    with pytest.raises(StoreError, match=r"cannot write the journal in .*file/journal.*--data-dir"):
        Journal(tmp_path / "file" / "journal", nobody)


async def test_what_waits_is_on_the_platter_within_a_second(
    tmp_path: Path, directory: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each second, and only when something waits, the segments that have grown are synced."""
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        with contextlib.suppress(OSError):
            synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with locked_out(tmp_path, monkeypatch):
        impatient = open_store("sqlite:", tmp_path)
        journal = Journal(directory, impatient, interval=0.01)
        journal.start()
        journal.write(record(1))
        await until(lambda: synced, 3)
        assert synced == [str(path) for path in segments(tmp_path)]
        assert journal._segment.synced == journal._segment.size
    await until(lambda: journal.pending == 0)
    await journal.close()
    await impatient.close()
