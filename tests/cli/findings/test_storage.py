"""What the doctor says about what is kept. Every state is a real one."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aigw.access.consumer_keys import mint
from aigw.cli.findings.finding import Finding
from aigw.cli.findings.storage import look
from aigw.config.schema import Auth, Config, Storage
from aigw.consumer import Consumer
from aigw.storage.open import open_store

GOOD = ["data_ok", "database_ok", "consumers_ok"]


def codes(folder: Path, config: Config | None = None, state: dict[str, Any] | None = None) -> list[str]:
    return [finding.code for finding in look(config or Config(), folder, state)]


def found(folder: Path, code: str) -> Finding:
    return next(finding for finding in look(Config(), folder, None) if finding.code == code)


def store(folder: Path, *names: str, revoked: bool = False) -> Path:
    """A store with a consumer key for each of *names*."""

    async def make() -> None:
        opened = open_store("sqlite:", folder)
        for name in names:
            await opened.put_consumer(Consumer(id=f"c-{name}", name=name))
            _, key = mint(f"c-{name}", now=time.time())
            await opened.put_key(key)
            if revoked:
                await opened.revoke_key(key.id, time.time())
        await opened.close()

    asyncio.run(make())
    return folder / "aigw.db"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "it's data"
    made.mkdir(mode=0o700)
    return made


def test_all_is_well(folder: Path) -> None:
    """Good news only, and nothing is changed by looking."""
    file = store(folder, "alice")
    before = file.read_bytes()
    assert codes(folder) == GOOD
    assert file.read_bytes() == before
    assert list(folder.iterdir()) == [file]


def test_nothing_yet(tmp_path: Path) -> None:
    """A folder that will be made, a database that will be made, and nobody who may call."""
    assert codes(tmp_path / "new/data") == ["data_ok", "database_none", "consumers_none"]
    assert list(tmp_path.iterdir()) == []


def test_who_may_call(folder: Path) -> None:
    """Revoked keys and the operator's own do not count; without auth nobody needs one."""
    store(folder, "operator")
    assert codes(folder)[-1] == "consumers_none"
    store(folder, "bob", revoked=True)
    assert codes(folder)[-1] == "consumers_none"
    assert codes(folder, Config(auth=Auth(required=False)))[-1] == "consumers_ok"
    store(folder, "carol")
    assert codes(folder)[-1] == "consumers_ok"


def test_a_newer_database(folder: Path) -> None:
    """One that this version cannot work on; and one that says that it can."""
    with sqlite3.connect(store(folder, "alice")) as connection:
        connection.execute("INSERT INTO schema_version VALUES (99, 99, 0)")
        connection.execute("PRAGMA user_version = 99")
    assert codes(folder) == ["data_ok", "database_newer"]
    with sqlite3.connect(folder / "aigw.db") as connection:
        connection.execute("UPDATE schema_version SET readable_by = 1 WHERE version = 99")
    assert codes(folder) == GOOD
    connection.close()


def test_the_database_of_another_program(folder: Path) -> None:
    """It is said, before anything is written into it."""
    connection = sqlite3.connect(folder / "aigw.db")
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    (folder / "aigw.db").chmod(0o600)
    assert codes(folder) == ["data_ok", "database_foreign"]


def test_a_damaged_database(folder: Path) -> None:
    """No database at all, and one with a hole; the command that moves it away works as it is."""
    file = store(folder, *(f"name{number}" for number in range(200)))
    content = bytearray(file.read_bytes())
    content[8192 * 3 : 8192 * 6] = os.urandom(8192 * 3)
    file.write_bytes(content)
    assert codes(folder) == ["data_ok", "database_damaged"]
    file.write_bytes(b"this is a text, and no database at all; " * 100)
    assert codes(folder) == ["data_ok", "database_damaged"]
    assert os.system(found(folder, "database_damaged").next) == 0
    assert codes(folder) == ["data_ok", "database_none", "consumers_none"]


def test_a_locked_database(folder: Path) -> None:
    """Somebody writes, and does not end."""
    connection = sqlite3.connect(store(folder, "alice"), isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        assert codes(folder) == [*GOOD, "database_locked"]
    finally:
        connection.close()
    assert codes(folder) == GOOD


def test_modes(folder: Path) -> None:
    """Others may look in: each place with its chmod, which helps."""
    store(folder, "alice").chmod(0o644)
    folder.chmod(0o755)
    open_ones = [finding for finding in look(Config(), folder, None) if finding.code == "data_open"]
    assert len(open_ones) == 2
    for finding in open_ones:
        assert os.system(finding.next) == 0
    assert codes(folder) == GOOD


def test_a_folder_that_is_a_file(folder: Path) -> None:
    """It cannot be used, and why is said."""
    (folder / "file").touch()
    assert codes(folder / "file")[0] == "data_unwritable"
    assert codes(folder / "file/data")[0] == "data_unwritable"


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 KB."""
    place = tmp_path / "tiny"
    place.mkdir()
    mounted = os.geteuid() == 0 and (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=200k,mode=0700", "tmpfs", place], capture_output=True, check=False
        ).returncode
        == 0
    )
    if not mounted:
        pytest.skip("only root can mount a file system")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk(tiny: Path) -> None:
    """Nearly full and full to the last byte; the room is named."""
    assert "disk_full" in codes(tiny)
    (tiny / "ballast").write_bytes(bytes(190 * 1024))
    first = next(iter(look(Config(), tiny, None)))
    assert (first.code, "No space left" in first.what.english) == ("disk_full", True)


def test_a_disk_that_cannot_be_written(tiny: Path) -> None:
    """Mounted for reading only."""
    subprocess.run(["mount", "-o", "remount,ro", tiny], check=True)
    try:
        assert codes(tiny)[0] == "data_unwritable"
        assert codes(tiny / "data")[0] == "data_unwritable"
    finally:
        subprocess.run(["mount", "-o", "remount,rw", tiny], check=True)


def test_a_journal_that_waits(folder: Path) -> None:
    """What a dead server left, counted; a living one may have some under way; lost records and damaged lines are said."""
    store(folder, "alice")
    (folder / "journal").mkdir()
    (folder / "journal/00000000000000000001-7-ab.journal").write_bytes(b"[]\n" * 3)
    waiting = next(finding for finding in look(Config(), folder, None) if finding.code == "journal_waiting")
    assert waiting.what.english.startswith("3 records wait")
    assert waiting.next == "aigw serve"
    counters = {"records_pending": 3, "records_lost": 0}
    assert codes(folder, state={"counters": counters}) == GOOD
    counters = {"records_pending": 20_000, "records_lost": 2}
    assert codes(folder, state={"counters": counters}) == [*GOOD, "records_lost", "journal_waiting"]
    (folder / "journal/00000000000000000001-7-ab.journal").unlink()
    (folder / "journal/damaged.lines").touch()
    assert codes(folder) == [*GOOD, "journal_damaged"]


def test_a_database_elsewhere(folder: Path, tmp_path: Path) -> None:
    """The one that [storage] url names is looked at."""
    config = Config(storage=Storage(url=f"sqlite:{tmp_path}/else where.db"))
    (tmp_path / "else where.db").write_bytes(b"no database, but long enough to be read as one" * 50)
    assert codes(folder, config) == ["data_ok", "database_damaged"]


def test_postgresql_is_looked_at(tmp_path: Path, postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is made there; a refused login and a server that is away are said with a command that helps, and no password."""
    tmp_path.chmod(0o700)
    monkeypatch.setenv("DATABASE", postgres)
    config = Config(storage=Storage(url="env:DATABASE"))
    assert "database_none" in [finding.code for finding in look(config, tmp_path, None)]

    async def use() -> None:
        store = open_store(postgres, tmp_path)
        await store.last_change()
        await store.close()

    asyncio.run(use())
    assert "database_ok" in [finding.code for finding in look(config, tmp_path, None)]
    for wrong in (postgres.replace("app:", "app:x"), "postgresql://u:secret@127.0.0.1:1/d"):
        monkeypatch.setenv("DATABASE", wrong)
        [one] = [finding for finding in look(config, tmp_path, None) if finding.code == "database_unreachable"]
        assert one.next.startswith("pg_isready -h 127.0.0.1 -p ")
        assert "secret" not in repr(one)
    monkeypatch.setenv("DATABASE", "postgresql://h:port/d")
    assert "database_unreachable" in [finding.code for finding in look(config, tmp_path, None)]


def test_what_the_running_server_says_of_its_database(tmp_path: Path) -> None:
    """Away, and a full journal, each with its numbers."""
    tmp_path.chmod(0o700)
    store = {"away": "it is gone", "since": 1.0, "journal_bytes": 5 << 20, "journal_limit": 6 << 20, "journal_full": True}
    said = {finding.code: finding for finding in look(Config(), tmp_path, {"counters": {}, "store": store})}
    assert "it is gone" in said["database_away"].what.english
    assert "5 of 6 MB" in said["journal_full"].what.english
    assert not {"database_away", "journal_full"} & {finding.code for finding in look(Config(), tmp_path, {"counters": {}})}
