"""The schema's history: append-only, one file per step, listed here by hand.

Step *n* brings a database from version n-1 to n. Prefer steps that only add (tables, columns with a default, indexes): then
the version before can still work on the file, and `readable_by` says so. In SQLite the version lives in `PRAGMA user_version`,
in PostgreSQL in the table `schema_version`, with a digest of what was carried out.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from typing import NamedTuple

from aigw.storage.migrations import m001_initial, p001_initial


class Migration(NamedTuple):
    """One step. `readable_by` is the oldest version of the schema whose code may still work on the result."""

    version: int
    readable_by: int
    apply: Callable[[sqlite3.Connection], None]


MIGRATIONS: tuple[Migration, ...] = (Migration(1, 1, m001_initial.apply),)

LATEST = MIGRATIONS[-1].version


class PostgresMigration(NamedTuple):
    """One step in PostgreSQL, carried out in one transaction with all the others that are missing."""

    version: int
    readable_by: int
    statements: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Tells whether a database went through this step as it is written here."""
        return hashlib.sha256("\0".join(self.statements).encode()).hexdigest()


POSTGRES_MIGRATIONS: tuple[PostgresMigration, ...] = (PostgresMigration(1, 1, p001_initial.STATEMENTS),)
