"""Records as lines of text that people read, and as plain values for programs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from aigw.cli import figures, output
from aigw.cli.output import Column
from aigw.cli.screen import crop
from aigw.exchange import Attempt, Record

TOO_OLD = 43200.0
"""Seconds after which the time of day alone does not say when."""

LEAST = {"time": 8, "model": 16, "in": 6, "out": 6, "cost": 7, "took": 7, "first": 7}
"""Columns that a cell takes at least, so that lines which come later stand below those that came before."""

MOST = 44
"""Columns after which a name pushes the others aside."""

COLUMNS = (
    Column("time"),
    Column("status", right=True),
    Column("model"),
    Column("took", right=True, rank=2),
    Column("first", right=True, rank=5),
    Column("in", right=True, rank=3),
    Column("out", right=True, rank=3),
    Column("cost", right=True, rank=4),
    Column("tries", right=True, rank=6),
    Column("consumer", rank=7),
    Column("id", rank=1),
    Column("error"),
)

CUT = 18
"""Columns that the last cell, what went wrong, needs at least: it alone may be cut where a terminal is narrow."""

CSV = (
    "at",
    "id",
    "status",
    "outcome",
    "error",
    "operation",
    "consumer",
    "key_id",
    "requested_model",
    "provider",
    "model",
    "input",
    "cached",
    "output",
    "cost",
    "currency",
    "took",
    "first_token",
    "tries",
)
"""Times are seconds, costs decimal numbers."""


def attempts(record: Record) -> list[Attempt]:
    """The chain of a record; [] when it cannot be read."""
    try:
        return msgspec.json.decode(record.attempts, type=list[Attempt])
    except msgspec.DecodeError:
        return []


def facts(record: Record) -> dict[str, Any]:
    """A record for programs: its own fields; costs are decimal strings, attempts a list."""
    found = {name: getattr(record, name) for name in record.__struct_fields__}
    found["cost"] = None if record.cost is None else figures.exact(record.cost)
    found["cache_saving"], found["abandoned_cost"] = figures.exact(record.cache_saving), figures.exact(record.abandoned_cost)
    found["attempts"] = msgspec.to_builtins(attempts(record))
    return found


def csv_row(record: Record) -> list[Any]:
    """The cells of `CSV`."""
    found = facts(record) | {
        "took": record.took / 1e6,
        "first_token": None if record.first_token is None else record.first_token / 1e6,
        "tries": len(attempts(record)),
    }
    return [found[name] for name in CSV]


def place(record: Record) -> str:
    """Which model was asked for, and where it went: "fast -> openai/gpt-5"."""
    if not record.provider:
        return record.requested_model or "-"
    went = f"{record.provider}/{record.model}"
    return went if record.requested_model in ("", record.model, went) else f"{record.requested_model} -> {went}"


def cells(record: Record, now: float) -> list[str]:
    """The cells of `COLUMNS`."""
    moment = datetime.fromtimestamp(record.at).astimezone()
    error = f"{record.error} (shadow)" if record.arm == "shadow" and record.error else record.error
    return [
        moment.strftime("%H:%M:%S" if 0 <= now - record.at < TOO_OLD else "%Y-%m-%d %H:%M:%S"),
        str(record.status or "-"),
        place(record),
        figures.duration(record.took),
        figures.duration(record.first_token),
        figures.tokens(record.input) if record.input else "-",
        figures.tokens(record.output) if record.output else "-",
        "?" if record.cost is None and record.input else figures.money({record.currency: record.cost or 0}),
        str(len(attempts(record))),
        record.consumer or "-",
        record.id,
        error or ("shadow" if record.arm == "shadow" else "-"),
    ]


class Lines:
    """Prints records one below the other. On a terminal as many columns as fit; in a pipe all of them."""

    def __init__(self) -> None:
        self._widths: list[int] = []
        self._shown: list[int] = []

    def add(self, records: Sequence[Record], now: float) -> None:
        """Print *records*, after a head when they are the first."""
        rows = [[output.safe(cell) for cell in cells(record, now)] for record in records]
        if not rows:
            return
        if not self._shown:
            self._begin(rows)
            self._print([column.name for column in COLUMNS])
        for row in rows:
            self._print(row)
        sys.stdout.flush()

    def _begin(self, rows: Sequence[Sequence[str]]) -> None:
        self._widths = [
            max(
                LEAST.get(column.name, 0),
                output.width(column.name),
                *(min(output.width(row[at]), MOST) for row in rows),
            )
            for at, column in enumerate(COLUMNS)
        ]
        self._shown = list(range(len(COLUMNS)))
        if not output.drawn(sys.stdout):
            return
        room = shutil.get_terminal_size().columns + max(0, self._widths[-1] - CUT)
        for at in sorted(self._shown, key=lambda at: -COLUMNS[at].rank):
            if not COLUMNS[at].rank or sum(self._widths[one] + 2 for one in self._shown) - 2 <= room:
                break
            self._shown.remove(at)

    def _print(self, row: Sequence[str]) -> None:
        parts = []
        for at in self._shown:
            gap = " " * (self._widths[at] - output.width(row[at]))
            parts.append(gap + row[at] if COLUMNS[at].right else row[at] + gap)
        line = "  ".join(parts).rstrip()
        output.data(crop(line, shutil.get_terminal_size().columns) if output.drawn(sys.stdout) else line)
