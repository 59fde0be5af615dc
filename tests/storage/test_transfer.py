"""From one database to another: the same on both sides, or nothing."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from aigw.consumer import Consumer
from aigw.errors import StoreError
from aigw.exchange import Record
from aigw.storage.base import Filling
from aigw.storage.sqlite import SqliteStore
from aigw.storage.transfer import move

NOON = 1_790_000_000 // 86400 * 86400 + 12 * 3600.0


def record(**fields: Any) -> Record:
    return Record(**({"id": secrets.token_hex(12), "at": NOON} | fields))


async def test_everything_arrives(tmp_path: Path) -> None:
    """Counted, summed, and told while it goes on."""
    source, target = SqliteStore(tmp_path / "a.db"), SqliteStore(tmp_path / "b.db")
    await source.put_consumer(Consumer(id="c", name="alice"))
    await source.append([record(input=2, charged=3, consumer_id="c", requested_model="a\0b") for _ in range(30)])
    told: list[tuple[str, int]] = []
    moved = await move(source, target, progress=lambda table, rows: told.append((table, rows)))
    assert moved["record_line"].rows == 30
    assert moved["spent"].sums == (90, 60)
    assert sum(rows for table, rows in told if table == "record_line") == 60
    assert sorted(one.id for one in await target.records()) == sorted(one.id for one in await source.records())
    assert await target.spent(["c"], 0) == {"c": (90, 60)}
    [row] = await target.usage("route", 0, NOON + 9999)
    assert (row.group, row.requests) == (("a\ufffdb",), 30)
    await source.close()
    await target.close()


class Forgetful(SqliteStore):
    """A disk that loses a row."""

    @asynccontextmanager
    async def filling(self, *, replace: bool = False) -> AsyncIterator[Filling]:
        async with super().filling(replace=replace) as filling:

            async def put(table: str, rows: list[tuple[Any, ...]]) -> None:
                await filling.put(table, rows[:-1] if table == "record_line" else rows)

            yield Filling(put, filling.rows)


async def test_a_copy_that_is_not_like_the_original_is_taken_back(tmp_path: Path) -> None:
    """And said to be none."""
    source, target = SqliteStore(tmp_path / "a.db"), Forgetful(tmp_path / "b.db")
    await source.append([record() for _ in range(3)])
    with pytest.raises(StoreError, match="3 rows of record_line became 2"):
        await move(source, target)
    assert await target.records() == []
    assert await target.append([record()]) == 1
    await source.close()
    await target.close()
