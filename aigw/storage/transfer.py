"""From one database to another: everything, at one moment of the source, counted and compared on both sides before it holds."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from aigw.errors import StoreError
from aigw.storage.base import Store
from aigw.storage.rows import TABLES

Row = tuple[Any, ...]

_encode = msgspec.msgpack.Encoder().encode

_OWN_FACTS = ("combined",)
"""Facts about a file that mean nothing elsewhere."""


class Moved(NamedTuple):
    """Of a table: how many rows there are, what they add up to (see `ADDED`), and a sum of all their checksums."""

    rows: int = 0
    sums: tuple[int, ...] = ()
    check: int = 0


ADDED = {"spent": ("usd", "tokens"), "rollup": ("requests", "input", "output"), "record_line": ()}
"""Columns whose sums are worth saying."""


async def move(
    source: Store, target: Store, *, replace: bool = False, progress: Callable[[str, int], None] | None = None
) -> dict[str, Moved]:
    """Copy everything from *source* to *target*, which has to be empty unless it is to be replaced. Returns what was counted,
    by table: the same on both sides. *progress* hears of each table and how many rows more were copied or compared. Raises
    StoreError, and then nothing has changed."""
    found: dict[str, Moved] = {}
    async with source.snapshot() as rows, target.filling(replace=replace) as filling:
        for table in TABLES:
            moved = Moved()
            async for page in rows(table):
                fit = _fit(table, page)
                await filling.put(table, fit)
                moved = _counted(table, moved, fit)
                if progress is not None:
                    progress(table, len(page))
            found[table] = moved
        for table in TABLES:
            there = Moved()
            async for page in filling.rows(table):
                there = _counted(table, there, _fit(table, page))
                if progress is not None:
                    progress(table, len(page))
            if there != found[table]:
                raise StoreError(
                    f"the copy is not like the original: {found[table].rows} rows of {table} became {there.rows}, or other "
                    "ones. Nothing was changed; is the disk in order?"
                )
    return found


def _fit(table: str, page: list[Row]) -> list[Row]:
    """Without what means nothing elsewhere, and with names that every database takes (PostgreSQL knows no NUL)."""
    if table == "fact":
        page = [row for row in page if row[0] not in _OWN_FACTS]
    if table in ("rollup", "combination", "spent"):
        page = [
            tuple(value.replace("\0", "\ufffd") if type(value) is str and "\0" in value else value for value in row)
            for row in page
        ]
    return page


def _counted(table: str, before: Moved, page: list[Row]) -> Moved:
    check = before.check + sum(zlib.crc32(_encode(row)) for row in page)
    places = [TABLES[table].index(name) for name in ADDED.get(table, ())]
    sums = before.sums or (0,) * len(places)
    added = tuple(total + sum(row[place] for row in page) for total, place in zip(sums, places, strict=True))
    return Moved(before.rows + len(page), added, check)
