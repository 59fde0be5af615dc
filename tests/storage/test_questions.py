"""Sums of combinations in a real file: they lag behind the records, and no answer shows it."""

from __future__ import annotations

import secrets
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from aigw.exchange import Record
from aigw.storage import sqlite
from aigw.storage.sqlite import SqliteStore

MIDNIGHT = 1_790_000_000.0 // 86400 * 86400


def record(at: float, **fields: Any) -> Record:
    return Record(id=secrets.token_hex(12), at=at, consumer="c", key_id="k", **fields)


def combinations(path: Path) -> list[tuple[Any, ...]]:
    """What stands in the file: span, requests."""
    with sqlite3.connect(path) as connection:
        found = connection.execute("SELECT span, sum(requests) FROM combination GROUP BY 1 ORDER BY 1").fetchall()
    connection.close()
    return found


async def requests(store: SqliteStore, by: str = "consumer,key", since: float = 0.0, until: float = 2e9) -> int:
    return sum(row.requests for row in await store.usage(by, since, until))


@pytest.mark.parametrize("reopened", [False, True])
async def test_every_record_counts_once_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reopened: bool) -> None:
    """Before and after sums are brought up to date, with the same process or with another one each time."""
    monkeypatch.setattr(sqlite, "COMBINE_EVERY", 50)
    path = tmp_path / "x.db"
    store = SqliteStore(path)
    for batch in range(40):
        await store.append([record(MIDNIGHT + (batch * 9 + number) * 977, model="m") for number in range(9)])
        assert await requests(store) == (batch + 1) * 9
        assert await requests(store, "day,key") == (batch + 1) * 9
        if reopened and batch % 7 == 0:
            await store.close()
            store = SqliteStore(path)
    await store.close()
    (hour, by_hours), (day, by_days) = combinations(path)
    assert (hour, day) == (1, 24)
    assert by_hours == by_days
    assert 360 - 59 <= by_hours <= 360


async def test_a_batch_that_was_refused_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a transaction took back is not in the sums that the next one writes."""
    monkeypatch.setattr(sqlite, "COMBINE_EVERY", 10)
    store = SqliteStore(tmp_path / "x.db")
    kept = [record(MIDNIGHT + number) for number in range(4)]
    await store.append(kept)
    for _ in range(5):
        assert await store.append([*kept, record(MIDNIGHT + 5)]) == 1
        assert await store.append([record(MIDNIGHT + 6, input=2**70)]) == 1  # does not fit its column as it is
    assert await requests(store) == 14
    await store.close()


async def test_a_damaged_line_holds_up_nobody(tmp_path: Path) -> None:
    """One record that cannot be read any more: those behind it are kept and counted."""
    store = SqliteStore(tmp_path / "x.db")
    await store.append([record(MIDNIGHT + 7200)], [b"\x00" * 50])
    await store.append([record(MIDNIGHT)])
    await store.close()
    store = SqliteStore(tmp_path / "x.db")
    await store.append([record(MIDNIGHT + 1)])
    assert await requests(store, until=MIDNIGHT + 3600) == 2
    await store.close()


async def test_names_without_end_end_in_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller who asks for a new model each time fills no disk with combinations; who it was stays known."""
    monkeypatch.setattr(sqlite, "COMBINATIONS_BEGUN", 10)
    monkeypatch.setattr(sqlite, "COMBINE_EVERY", 1)
    store = SqliteStore(tmp_path / "x.db")
    for start in range(0, 100, 10):
        await store.append([record(MIDNIGHT + number, requested_model=f"m{number}") for number in range(start, start + 10)])
    rows = {row.group: row.requests for row in await store.usage("consumer,route", 0, MIDNIGHT + 3600)}
    assert rows["c", "(other)"] > 80
    assert sum(rows.values()) == 100
    assert await requests(store) == 100
    await store.close()


async def test_sums_outlive_their_records(tmp_path: Path) -> None:
    """Deleted records stay counted, by two things too; deleted sums do not; what comes afterwards is counted."""
    store = SqliteStore(tmp_path / "x.db")
    await store.append([record(MIDNIGHT + hour * 3600) for hour in range(48)])
    while await store.expire(MIDNIGHT + 40 * 3600, 0, limit=7):
        pass
    assert len(await store.records()) == 8
    assert await requests(store) == 48
    await store.append([record(MIDNIGHT + 47 * 3600 + 1)])
    assert await requests(store) == 49
    while await store.expire(MIDNIGHT + 40 * 3600, MIDNIGHT + 36 * 3600, limit=7):
        pass
    assert await requests(store) == 13
    assert await requests(store, "consumer") == 13
    await store.expire(MIDNIGHT + 99 * 3600, 0)
    assert await store.records() == []
    await store.append([record(MIDNIGHT + 50 * 3600)])  # takes the place of a deleted one
    assert await requests(store) == 14
    await store.close()


async def test_whole_days_come_from_days(tmp_path: Path) -> None:
    """The hours of a day are not read for a window that has all of it."""
    path = tmp_path / "x.db"
    store = SqliteStore(path)
    await store.append([record(MIDNIGHT + hour * 3600) for hour in range(72)])
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE combination SET requests = 100 WHERE span = 24")
    connection.close()
    assert await requests(store, since=MIDNIGHT, until=MIDNIGHT + 72 * 3600) == 300
    assert await requests(store, since=MIDNIGHT + 3600, until=MIDNIGHT + 71 * 3600) == 23 + 100 + 23
    assert await requests(store, "hour,key", MIDNIGHT, MIDNIGHT + 72 * 3600) == 72
    await store.close()
