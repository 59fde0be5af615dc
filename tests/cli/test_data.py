"""`aigw data`: real files, a real PostgreSQL, a server that goes on meanwhile."""

from __future__ import annotations

import asyncio
import csv
import json
import secrets
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pexpect
import pytest

from aigw.exchange import Record
from aigw.storage.open import open_store
from tests.e2e.world import DEMO, HELLO, Gateway, eventually

if TYPE_CHECKING:
    from conftest import CommandLine

NOW = time.time()


def records(count: int, at: float = NOW - 3600, **fields: Any) -> list[Record]:
    return [
        Record(
            id=secrets.token_hex(12),
            at=at + number / 10,
            took=5000,
            input=3,
            output=2,
            cost=7,
            charged=7,
            consumer="alice",
            consumer_id="c1",
            group="team",
            model=f"m{number % 3}",
            **fields,
        )
        for number in range(count)
    ]


def fill(place: Path | str, *batches: list[Record]) -> None:
    """Append to the database in a folder, or at an address."""

    async def append() -> None:
        store = open_store("sqlite:", place) if isinstance(place, Path) else open_store(place, Path())
        for batch in batches:
            await store.append(batch)
        await store.close()

    asyncio.run(append())


def test_a_backup_brings_everything_back(aigw: CommandLine) -> None:
    """Keys, records and sums, into an empty place and in the place of something else, which is moved aside."""
    made = json.loads(aigw("keys", "create", "alice", "--json").stdout)
    fill(aigw.data_dir, records(50))
    done = aigw("data", "backup", "x.backup")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "Wrote x.backup: " in done.stderr
    backup = aigw.folder / "x.backup"
    assert backup.stat().st_mode & 0o777 == 0o600
    assert made["key"].encode() not in backup.read_bytes()
    assert [path.name for path in aigw.folder.iterdir() if "partial" in path.name] == []

    aigw("keys", "revoke", "alice", "--yes")
    aigw("keys", "create", "bob")
    fill(aigw.data_dir, records(5))
    refused = aigw("data", "restore", "x.backup")
    assert refused.returncode == 1
    assert "Here now: 2 consumers, 2 keys, 55 requests." in refused.stderr
    assert aigw("data", "restore", "x.backup", "--dry-run").returncode == 0
    assert "bob" in aigw("keys").stdout
    done = aigw("data", "restore", "x.backup", "--yes")
    assert done.returncode == 0, done.stderr
    assert "1 consumer, 1 key, 50 requests" in done.stderr
    keys = json.loads(aigw("keys", "--json").stdout)
    assert [(one["name"], one["state"]) for one in keys] == [("alice", "live")]
    assert json.loads(aigw("stats", "--json").stdout)["total"]["requests"] == 50
    assert len(list(aigw.data_dir.glob("aigw.db.before-*"))) == 1
    assert not list(aigw.data_dir.glob("restore-*"))


def test_a_file_is_not_written_over_and_a_wrong_one_not_restored(aigw: CommandLine) -> None:
    """Unless somebody says so; what is no backup is called by its name, and nothing is touched."""
    aigw("keys", "create", "alice")
    assert aigw("data", "backup", "x").returncode == 0
    again = aigw("data", "backup", "x")
    assert (again.returncode, "x is there already" in again.stderr) == (1, True)
    assert aigw("data", "backup", "x", "--yes").returncode == 0
    assert aigw("data", "backup", ".").returncode == 2
    for content in (b"", b"garbage" * 1000, b"SQLite format 3\0" + b"\xff" * 5000):
        (aigw.folder / "wrong").write_bytes(content)
        done = aigw("data", "restore", "wrong", "--yes")
        assert done.returncode == 1
        assert "wrong cannot be restored" in done.stderr
        assert "Traceback" not in done.stderr
    assert aigw("data", "restore", "nowhere").returncode == 2
    with sqlite3.connect(aigw.folder / "theirs") as connection:
        connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    assert "not one of aigw's" in aigw("data", "restore", "theirs", "--yes").stderr
    assert "alice" in aigw("keys").stdout


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path / "served", DEMO).start()
    yield gateway
    gateway.close()


def test_backup_while_serving(gateway: Gateway) -> None:
    """The server goes on; a restore wants it stopped; then every key of the backup works again."""
    gateway.key = gateway.create_key("alice")["key"]
    eventually(lambda: gateway.ask(HELLO).status == 200)
    assert gateway.aigw("data", "backup", "x").returncode == 0
    assert gateway.ask(HELLO).status == 200
    refused = gateway.aigw("data", "restore", "x", "--yes")
    assert (refused.returncode, "stop it first" in refused.stderr) == (1, True)
    assert gateway.aigw("keys", "revoke", "alice", "--yes").returncode == 0
    eventually(lambda: gateway.ask(HELLO).status == 401)
    gateway.stop()
    assert gateway.aigw("data", "restore", "x", "--yes").returncode == 0
    gateway.start()
    assert gateway.ask(HELLO).status == 200


def test_to_postgresql_and_back(aigw: CommandLine, postgres: str, postgres_server: Any) -> None:
    """Counted and summed on both sides; PostgreSQL is backed up into the same kind of file; keys and sums come back."""
    aigw("keys", "create", "alice")
    fill(aigw.data_dir, records(120), records(30, NOW - 40 * 86400))
    strange = Record(id="odd", at=NOW - 7200, requested_model="half\0name ☃", outcome="caller_error", attempts="[]")
    fill(aigw.data_dir, [strange])
    done = aigw("data", "copy", "sqlite:", "env:TO", "--json", TO=postgres)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["rows"]["records"] == 151
    assert facts["sums"] == {"requests": 151, "input_tokens": 450, "output_tokens": 300}
    assert facts["verified"] is True
    again = aigw("data", "copy", "sqlite:", "env:TO", TO=postgres)
    assert again.returncode == 1
    assert "not empty" in again.stderr
    assert aigw("data", "copy", "sqlite:", "env:TO", "--yes", TO=postgres).returncode == 0
    literal = aigw("data", "copy", "sqlite:", postgres, "--dry-run")
    assert "a password on the command line" in literal.stderr
    assert "would copy 1 consumer, 1 key, 151 requests" in literal.stderr

    config = f'[storage]\nurl = "file:{aigw.folder}/url"\n'
    (aigw.folder / "url").write_text(postgres)
    (aigw.folder / "url").chmod(0o600)
    before = aigw("stats", "--since", "90d", "--json", "--by", "model").stdout
    aigw.config.write_text(config)
    after = aigw("stats", "--since", "90d", "--json", "--by", "model").stdout
    counted = [
        [{name: value for name, value in row.items() if name != "trend"} for row in json.loads(text)["rows"]]
        for text in (before, after)
    ]
    assert counted[0] == counted[1]
    assert len(counted[0]) == 4
    listed = json.loads(aigw("data", "--json").stdout)
    assert listed["requests_counted"] == 151
    assert listed["consumer_keys"] == 1
    assert "secret" not in listed["place"]
    assert aigw("data", "backup", "pg.backup").returncode == 0
    aigw("keys", "create", "bob")
    fill(postgres, records(3))
    done = aigw("data", "restore", "pg.backup", "--yes")
    assert done.returncode == 0, done.stderr
    assert [one["name"] for one in json.loads(aigw("keys", "--json").stdout)] == ["alice"]
    assert json.loads(aigw("stats", "--since", "90d", "--json").stdout)["total"]["requests"] == 151
    aigw.config.write_text("")
    assert aigw("data", "restore", "pg.backup", "--yes").returncode == 0
    assert json.loads(aigw("stats", "--since", "90d", "--json").stdout)["total"]["requests"] == 151
    assert aigw("data", "copy", "sqlite:", "sqlite:aigw.db").returncode == 2


def test_prune(aigw: CommandLine) -> None:
    """Only what is older goes, sums stay, and nothing without a yes."""
    fill(aigw.data_dir, records(40), records(60, NOW - 40 * 86400))
    assert "delete records from" in aigw("data", "prune", "--before", "30d", "--dry-run").stderr
    refused = aigw("data", "prune", "--before", "30d")
    assert (refused.returncode, "--yes" in refused.stderr) == (1, True)
    done = aigw("data", "prune", "--before", "30d", "--yes")
    assert done.returncode == 0, done.stderr
    assert "Deleted 60 rows." in done.stderr
    assert json.loads(aigw("stats", "--since", "60d", "--json").stdout)["total"]["requests"] == 100
    assert "No record is older" in aigw("data", "prune", "--before", "30d").stderr
    for wrong in (("--before", "yesterday"), ("--before", "2999-01-01"), ("--before", "30d", "--sums", "5d")):
        assert aigw("data", "prune", *wrong).returncode == 2


def test_export(aigw: CommandLine) -> None:
    """Each record once, oldest first, as JSON lines and as CSV; a file is written for its owner alone."""
    kept = records(4321)
    formula = Record(id="f", at=NOW - 3700, end_user="=1+1", attempts='[{"provider":"p"}]')
    fill(aigw.data_dir, kept, [formula])
    done = aigw("data", "export")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["id"] for one in found] == ["f", *(record.id for record in kept)]
    assert found[0]["attempts"] == [{"provider": "p"}]
    assert found[0]["cost"] is None
    done = aigw("data", "export", "--out", "x.csv")
    assert (done.returncode, done.stdout) == (0, "")
    assert "Wrote 4,322 records to x.csv." in done.stderr
    with (aigw.folder / "x.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4322
    assert rows[0]["end_user"] == "'=1+1"
    assert [row["id"] for row in rows[1:]] == [record.id for record in kept]
    assert (aigw.folder / "x.csv").stat().st_mode & 0o777 == 0o600
    assert aigw("data", "export", "--out", "x.csv").returncode == 1
    assert aigw("data", "export", "--since", "1m").stdout == ""


def test_on_a_terminal(aigw: CommandLine) -> None:
    """It asks before it deletes, and 40 columns are enough."""
    fill(aigw.data_dir, records(60, NOW - 40 * 86400))
    terminal = aigw.terminal("data", "prune", "--before", "30d", columns=40)
    terminal.expect(r"\[y/N\]")
    terminal.sendline("y")
    terminal.expect("Deleted 60 rows")
    terminal.expect(pexpect.EOF)
    listed = aigw.terminal("data", columns=40)
    listed.expect("requests counted: +60")
    listed.expect(pexpect.EOF)
