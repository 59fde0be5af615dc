"""The schema's history: append-only, one file per step, listed here by hand.

Step *n* brings a database from version n-1 to n. Prefer steps that only add (tables, columns with a default, indexes): then
the version before can still work on the file, and `readable_by` says so. The version lives in `PRAGMA user_version`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import NamedTuple

from aigw.storage.migrations import m001_initial


class Migration(NamedTuple):
    """One step. `readable_by` is the oldest version of the schema whose code may still work on the result."""

    version: int
    readable_by: int
    apply: Callable[[sqlite3.Connection], None]


MIGRATIONS: tuple[Migration, ...] = (Migration(1, 1, m001_initial.apply),)

LATEST = MIGRATIONS[-1].version
