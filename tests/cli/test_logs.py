"""`aigw logs`: what is shown of the records, in a pipe, on a terminal, and as they come."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pexpect
import pytest

from aigw.cli.logs import Wanted, newest, ranges
from aigw.exchange import Attempt, Record
from aigw.storage.open import open_store
from tests.cli.conftest import CommandLine

NOW = time.time()
HOSTILE = "gpt\x1b[2J\u202eevil"


def record(name: str, ago: float, **fields: Any) -> Record:
    return Record(id=f"req_{name}", at=NOW - ago, status=fields.pop("status", 200), **fields)


SECOND = [Attempt(provider="openai", key="openai#2", error="provider_timeout"), Attempt(provider="demo", key="demo")]

RECORDS = [
    record("old", 3 * 86400, requested_model="gpt-5"),
    record("quick", 300, took=1000, consumer="alice", requested_model="gpt-5", provider="openai", model="gpt-5", cost=5),
    record("slow", 200, took=12_000_000, consumer="bob", key_id="k1", requested_model="fast", provider="demo", model="demo",
           attempts=msgspec.json.encode(SECOND).decode()),
    record("limited", 100, status=429, outcome="policy_error", error="policy_rate_limited", consumer="alice"),
    record("broken", 50, status=502, outcome="provider_error", error="provider_error", requested_model=HOSTILE),
    record("gone", 20, status=499, outcome="client_closed", error="caller_closed"),
]  # fmt: skip


def keep(data_dir: Path, *records: Record) -> None:
    async def put() -> None:
        data_dir.mkdir(exist_ok=True)
        store = open_store("sqlite:", data_dir)
        later = time.time() - NOW  # the other tests take their time
        await store.append([msgspec.structs.replace(record, at=record.at + later) for record in records])
        await store.close()

    asyncio.run(put())


def ids(aigw: CommandLine, *flags: str) -> list[str]:
    done = aigw("logs", *flags, "--json")
    assert done.returncode == 0, done.stderr
    return [one["id"].removeprefix("req_") for one in json.loads(done.stdout)]


def test_filters(aigw: CommandLine) -> None:
    """Each alone, and together; the newest last; old ones when they are asked for."""
    assert ids(aigw) == []
    assert not aigw.data_dir.exists(), "to look makes no store"
    keep(aigw.data_dir, *RECORDS)
    assert ids(aigw) == ["quick", "slow", "limited", "broken", "gone"]
    assert ids(aigw, "--since", "7d", "-n", "9") == ["old", "quick", "slow", "limited", "broken", "gone"]
    assert ids(aigw, "-n", "2") == ["broken", "gone"]
    assert ids(aigw, "--errors") == ["limited", "broken"]
    assert ids(aigw, "--status", "429,5xx") == ["limited", "broken"]
    assert ids(aigw, "--status", "400-499", "--consumer", "alice") == ["limited"]
    assert ids(aigw, "--slow", "10s") == ["slow"]
    assert ids(aigw, "--key", "k1") == ids(aigw, "--key", "openai#2") == ["slow"]
    assert ids(aigw, "--model", "gpt-5") == ["quick"]
    assert ids(aigw, "--model", "f*") == ["slow"]
    assert ids(aigw, "--provider", "openai") == ["quick", "slow"], "where it was asked in vain, too"
    assert ids(aigw, "--until", "90s", "--since", "150s") == ["limited"]


def test_wrong_usage(aigw: CommandLine) -> None:
    """Said in a line, with what was expected."""
    for flags in (["--status", "9xx"], ["--slow", "soon"], ["-f", "--until", "1h"], ["-f", "--csv"], ["--json", "--csv"]):
        done = aigw("logs", *flags)
        assert done.returncode == 2, flags
        assert "Traceback" not in done.stderr
    with pytest.raises(ValueError, match="429, 5xx"):
        ranges("4x")
    assert ranges("5xx, 404,410-411") == (range(500, 600), range(404, 405), range(410, 412))


def test_a_pipe_and_spreadsheets(aigw: CommandLine) -> None:
    """Every column; what callers wrote has no power over a terminal."""
    keep(aigw.data_dir, *RECORDS)
    text = aigw("logs").stdout
    assert "openai/gpt-5" in text
    assert "fast -> demo/demo" in text
    assert "req_slow" in text
    assert "12.0 s" in text
    rows = aigw("logs", "--csv").stdout.splitlines()
    assert rows[0].startswith("at,id,status")
    assert len(rows) == 6
    for flags in ([], ["--csv"], ["--json"]):
        shown = aigw("logs", *flags).stdout
        assert "\x1b" not in shown
        assert "\u202e" not in shown
    assert "No such request" in aigw("logs", "--consumer", "nobody").stderr


def test_a_narrow_terminal(aigw: CommandLine) -> None:
    """Whole lines, with fewer columns: none is wider than the terminal."""
    keep(aigw.data_dir, *RECORDS)
    for columns in (80, 40):
        terminal = aigw.terminal("logs", columns=columns, LANG="C")
        terminal.expect(pexpect.EOF)
        lines = [line for line in terminal.before.splitlines() if line]
        assert len(lines) == 6
        assert all(len(line) <= columns for line in lines), lines
        assert ("req_limited" in terminal.before) is (columns == 80), "to be explained it needs its id"


def test_following(aigw: CommandLine) -> None:
    """What was there, then what comes and is wanted, until Ctrl-C, which is a good end."""
    keep(aigw.data_dir, *RECORDS)
    terminal = aigw.terminal("logs", "-f", "--errors")
    terminal.expect("req_broken")
    keep(
        aigw.data_dir, record("fine", 0), record("fresh", 0, status=503, outcome="provider_error", error="provider_overloaded")
    )
    terminal.expect("req_fresh.*provider_ov")
    assert "req_fine" not in terminal.before
    terminal.sendintr()
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    lines = aigw.terminal("logs", "-f", "--json", "-n", "1")
    lines.expect(r'(\{"id": "req_f.*?\})\r\n')
    assert json.loads(lines.match[1])["attempts"] == []


async def test_many_at_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read in pieces, each is found once; those of one moment as well."""
    monkeypatch.setattr("aigw.cli.logs.BATCH", 7)
    store = open_store("sqlite:", tmp_path)
    await store.append([record(f"{number}", 100 - number // 5, status=200 + number % 2) for number in range(60)])
    found = await newest(store, Wanted(), NOW - 1000, 100)
    assert len({one.id for one in found}) == len(found) == 60
    odd = await newest(store, Wanted(statuses=(range(201, 202),)), NOW - 1000, 100)
    assert len(odd) == 30
    assert [one.at for one in found] == sorted(one.at for one in found)
    await store.close()
