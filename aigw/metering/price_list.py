"""The price data that travels in the wheel: one table for each vendor, and which model of a table a name means.

`data/prices.jsonl` is made by `packaging/build_prices.py`, which documents its format. Only the tables asked for are
decoded (the whole file holds 51).
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import msgspec

SOURCES = ("genai-prices", "fallback")
"""In the order they are asked."""

FORMAT = 1

FILE_NAME = "prices.jsonl"
"""In the data directory: a price file that is newer than this version of aigw."""

_log = logging.getLogger("aigw.metering")

PATH = Path(__file__).with_name("data") / "prices.jsonl"


class Header(msgspec.Struct):
    """The file's first line. `editions` is the version of each source; `sha256` is that of all lines after this one."""

    format: int
    editions: dict[str, str]
    tables: int
    models: int
    sha256: str
    date: str = ""  # when it was made: 2026-11-24


def header(line: bytes) -> Header:
    """A price file's first line. Raises msgspec.MsgspecError."""
    return msgspec.json.decode(line, type=Header)


def checked(content: bytes) -> Header:
    """The header of a price file's *content*. Raises ValueError for what is no whole price file of a format known here."""
    line, _, rest = content.partition(b"\n")
    try:
        found = header(line)
    except msgspec.MsgspecError:
        raise ValueError("this is no price file: its first line is no header") from None
    if found.format != FORMAT:
        raise ValueError(f"its format is {found.format}; this version of aigw reads {FORMAT}")
    if hashlib.sha256(rest).hexdigest() != found.sha256:
        raise ValueError("it is damaged: its content does not have the SHA-256 that its header says")
    decoder = msgspec.json.Decoder(Table)
    try:
        tables = [decoder.decode(row) for row in rest.splitlines() if row]
    except msgspec.MsgspecError as error:
        raise ValueError(f"it cannot be read: {error}") from None
    if {table.source for table in tables} - set(SOURCES) or not set(SOURCES) >= set(found.editions):
        raise ValueError("it names sources that this version of aigw does not know")
    return found


def newest(data_dir: Path) -> Path:
    """The price file to use: the one that `aigw prices update` put into *data_dir*, unless it is damaged or this version of
    aigw came with a newer one."""
    path = data_dir / FILE_NAME
    try:
        content = path.read_bytes()
    except OSError:
        return PATH
    try:
        date_ = checked(content).date
    except ValueError as error:
        _log.warning("%s is not used: %s", path, error)
        return PATH
    with PATH.open("rb") as file:
        own = header(file.readline()).date
    return path if date_ >= own else PATH


class Model(msgspec.Struct, array_like=True, frozen=True):
    """One model's row; the builder explains `match`, `prices` (when, figures) and `variants` (tier, when, figures)."""

    id: str
    match: Any
    prices: list[tuple[dict[str, Any] | None, dict[str, Any]]]
    variants: list[tuple[str, dict[str, Any] | None, dict[str, Any]]] = []


class Table(msgspec.Struct):
    """One vendor's models, the first match wins. `borrows` are tables of the same source to ask for what is not here."""

    source: str
    id: str
    models: list[Model]
    borrows: list[str] = []
    edition: str = ""


class PriceList:
    """The tables that a set of vendors needs, read once from the file."""

    def __init__(self, ids: Iterable[str], path: Path = PATH) -> None:
        """Tables named in *ids* that the data does not have are left out. An id ending in "*" takes all that begin so."""
        self._tables: dict[tuple[str, str], Table] = {}
        blob = path.read_bytes()
        self.header = msgspec.json.decode(blob[: blob.index(b"\n")], type=Header)
        decoder = msgspec.json.Decoder(Table)
        wanted = list(ids)
        for id_ in wanted:
            for source in SOURCES:
                prefix = f'\n{{"source":"{source}","id":"{id_.removesuffix("*")}'.encode() + (
                    b"" if id_.endswith("*") else b'"'
                )
                start = blob.find(prefix)
                while start >= 0:
                    end = blob.find(b"\n", start + 1)
                    table = decoder.decode(memoryview(blob)[start + 1 : end if end > 0 else None])
                    table.edition = self.header.editions[source]
                    if (source, table.id) not in self._tables:
                        self._tables[source, table.id] = table
                        wanted.extend(table.borrows)
                    start = blob.find(prefix, end)

    def find(self, source: str, id_: str, name: str) -> tuple[Table, Model, bool] | None:
        """The row that *name* (any case) means in a vendor's table of this source; whether it was borrowed from another."""
        table = self._tables.get((source, id_))
        if table is None:
            return None
        name = name.lower()
        found = self._search(table, name)
        if found is None and (dashed := dash_date(name)) != name:
            found = self._search(table, dashed)
        return found

    def _search(self, table: Table, name: str) -> tuple[Table, Model, bool] | None:
        for model in table.models:
            if matches(model.match, name):
                return table, model, False
        for id_ in table.borrows:
            lender = self._tables.get((table.source, id_))
            for model in lender.models if lender else ():
                if matches(model.match, name):
                    return lender or table, model, True
        return None


def matches(clause: Any, name: str) -> bool:
    """Whether a match clause of the data accepts *name*, which must be lower-case. Regexes come from the data alone."""
    if isinstance(clause, list):
        accepted = (matches(part, name) for part in clause[1:])
        return any(accepted) if clause[0] == "|" else all(accepted)
    sign, text = clause[0], clause[1:]
    if sign == "=":
        return bool(name == text)
    if sign == "^":
        return name.startswith(text)
    if sign == "$":
        return name.endswith(text)
    if sign == "*":
        return text in name
    return re.search(text, name) is not None


COMPACT_DATE = re.compile(r"-(20\d{2})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")


def dash_date(name: str) -> str:
    """`gpt-5.2-20251211`, as some aggregators write it, in the form the data knows: `gpt-5.2-2025-12-11`."""

    def dashed(match: re.Match[str]) -> str:
        try:
            return f"-{date(*map(int, match.groups())).isoformat()}"
        except ValueError:  # 31 February
            return match[0]

    return COMPACT_DATE.sub(dashed, name)
