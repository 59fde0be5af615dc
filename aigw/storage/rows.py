"""How our nouns stand in a database's rows, and what there is to move from one database to another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from sys import intern
from typing import Any

import msgspec

from aigw.consumer import Consumer, ConsumerKey, Terms
from aigw.storage.rollup import SUMS, CombinationKey, RollupKey

CONSUMER_FIELDS = tuple(field.name for field in msgspec.structs.fields(Consumer))
KEY_FIELDS = tuple(field.name for field in msgspec.structs.fields(ConsumerKey))

_ROLLED = (*SUMS, "total_histogram", "first_histogram")

TABLES: dict[str, tuple[str, ...]] = {
    "consumer": CONSUMER_FIELDS,
    "consumer_key": KEY_FIELDS,
    "value": ("key", "value", "expires"),
    "fact": ("name", "number"),
    "spent": ("holder", "quarter", "usd", "tokens"),
    "rollup": (*RollupKey._fields, *_ROLLED),
    "combination": (*CombinationKey._fields, *_ROLLED),
    "failure": ("at", "id"),
    "record_line": ("at", "id", "line"),
}
"""What is moved, with its columns. Numbers of edits and leases belong to the database they are in."""


KEPT_CHANGES = 10_000
"""Edits whose rows are kept, so that they do not grow for ever. Who has missed more reads everything anew: more than 200 are
read that way in any case."""


def quoted(names: Iterable[str]) -> str:
    """Columns in SQL. For names of our own only."""
    return ", ".join(f'"{name}"' for name in names)


@lru_cache(4096)
def _terms(text: str) -> Terms:
    """Terms are never changed in place, and thousands of consumers have the same: they are kept once."""
    return msgspec.json.decode(text, type=Terms)


def consumer_from(row: Sequence[Any]) -> Consumer:
    """The consumer of a row with the columns `CONSUMER_FIELDS`."""
    values = dict(zip(CONSUMER_FIELDS, row, strict=True))
    values["terms"] = _terms(values["terms"])
    values["group"], values["tags"] = intern(values["group"]), intern(values["tags"])  # thousands have the same
    return Consumer(**values | {name: bool(values[name]) for name in ("lead", "disabled")})


def consumer_row(consumer: Consumer) -> tuple[Any, ...]:
    """The values of `CONSUMER_FIELDS`; truths are 0 and 1."""
    row = dict(zip(CONSUMER_FIELDS, msgspec.structs.astuple(consumer), strict=True))
    row |= {name: int(row[name]) for name in ("lead", "disabled")}
    return tuple((row | {"terms": msgspec.json.encode(consumer.terms).decode()}).values())


def everyone(consumers: Iterable[Sequence[Any]], keys: Iterable[Sequence[Any]]) -> tuple[list[Consumer], list[ConsumerKey]]:
    """All rows of both tables; of a consumer's id, which stands in both, there is one copy."""
    found = [consumer_from(row) for row in consumers]
    ids = {consumer.id: consumer.id for consumer in found}
    return found, [key_from(row, ids) for row in keys]


def key_from(row: Sequence[Any], ids: Mapping[str, str] = {}) -> ConsumerKey:
    """The key of a row with the columns `KEY_FIELDS`."""
    values = dict(zip(KEY_FIELDS, row, strict=True))
    owner = values["consumer_id"]
    return ConsumerKey(**values | {"scheme": intern(values["scheme"]), "consumer_id": ids.get(owner, owner)})
