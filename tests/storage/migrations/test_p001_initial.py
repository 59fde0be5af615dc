"""The first schema in PostgreSQL: its function adds packed histograms as ours does."""

from __future__ import annotations

import random

import asyncpg

from aigw.exchange import Record
from aigw.storage.histogram import Histogram, merge, pack, unpack
from aigw.storage.migrations.m001_initial import RECORD_FIELDS
from aigw.storage.migrations.p001_initial import SUMS
from aigw.storage.postgres import PostgresStore
from aigw.storage.rollup import SUMS as KNOWN_SUMS


async def test_histograms_are_added_as_we_add_them(postgres: str) -> None:
    """Overlapping, apart, empty, of one bucket, of counts of one to five bytes: 300 random pairs, byte for byte."""
    store = PostgresStore(postgres)
    await store.last_change()
    chance = random.Random(4)

    def some() -> Histogram:
        largest = chance.choice([1, 3, 200, 255, 256, 70_000, 2**33])
        low = chance.choice([0, 5, 100, 255, 256, 400])
        return {low + chance.randrange(60): chance.randint(1, largest) for _ in range(chance.choice([0, 1, 2, 30]))}

    pairs = [(some(), some()) for _ in range(300)]
    async with store._connection() as connection:
        for one, other in pairs:
            packed = await connection.fetchval("SELECT histogram_sum($1, $2)", pack(one), pack(other))
            expected = dict(one)
            merge(expected, other)
            assert unpack(packed) == expected
            assert packed == pack(expected)
    await store.close()


async def test_the_view_shows_a_record_field_by_field(postgres: str) -> None:
    """For whoever asks with SQL of his own."""
    assert list(SUMS) == list(KNOWN_SUMS)
    store = PostgresStore(postgres)
    await store.append([Record(id="a", at=1.5, model="m", input=7, stream=True, cost=None)])
    await store.close()
    connection = await asyncpg.connect(postgres)
    row = await connection.fetchrow("SELECT * FROM aigw.record")
    await connection.close()
    assert list(row.keys()) == list(RECORD_FIELDS)
    assert (row["id"], row["at"], row["model"], row["input"], row["stream"], row["cost"]) == ("a", 1.5, "m", "7", "true", None)
