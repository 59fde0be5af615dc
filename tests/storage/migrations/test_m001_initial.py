from __future__ import annotations

import sqlite3

import msgspec
import pytest

from aigw.consumer import Consumer, ConsumerKey
from aigw.exchange import Record
from aigw.storage.migrations import LATEST, MIGRATIONS
from aigw.storage.migrations.m001_initial import apply
from aigw.storage.rollup import SUMS, RollupKey


def columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]


def test_the_schema_holds_every_field_in_order() -> None:
    """One column for each field of a consumer, a key and (in the view) a record: a new field without its migration fails
    here."""
    connection = sqlite3.connect(":memory:")
    for migration in MIGRATIONS:
        migration.apply(connection)
    for table, noun in (("record", Record), ("consumer", Consumer), ("consumer_key", ConsumerKey)):
        assert columns(connection, table) == [field.name for field in msgspec.structs.fields(noun)]
    assert columns(connection, "rollup") == [*RollupKey._fields, *SUMS, "total_histogram", "first_histogram"]
    connection.close()


def test_versions_count_from_one() -> None:
    """Append-only: no gap, no step twice, and nothing is readable by a version that comes later."""
    assert [migration.version for migration in MIGRATIONS] == list(range(1, LATEST + 1))
    assert all(1 <= migration.readable_by <= migration.version for migration in MIGRATIONS)


def test_it_is_applied_once() -> None:
    """A second time is an error, not a loss."""
    connection = sqlite3.connect(":memory:")
    apply(connection)
    with pytest.raises(sqlite3.OperationalError, match="already exists"):
        apply(connection)
    connection.close()
