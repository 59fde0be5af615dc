"""What a batch adds to each table, before any database sees it."""

from __future__ import annotations

import secrets
from typing import Any

import msgspec
import pytest

from aigw.exchange import Record
from aigw.storage import postgres_batch
from aigw.storage.postgres_batch import BATCH_TABLES, Batch, Names

NOON = 1_790_000_000 // 86400 * 86400 + 12 * 3600.0


def record(**fields: Any) -> Record:
    return Record(**({"id": secrets.token_hex(12), "at": NOON} | fields))


def batch(*records: Record, names: Names | None = None) -> dict[str, list[list[Any]]]:
    made = Batch(records, [b"{}"] * len(records), names or Names())  # of lines nothing is read here
    return dict(made.tables())


def test_rows_are_in_the_order_of_their_keys_and_everybodys_come_last() -> None:
    """Two nodes lock in the same order, the sums of all last of all."""
    tables = batch(*(record(model=name, consumer_id=name, input=1, outcome="provider_error") for name in "cab"))
    assert list(tables) == list(BATCH_TABLES)
    assert tables["spent"][0] == ["a", "b", "c"]
    assert tables["failure"][1] == sorted(tables["failure"][1])
    keys = list(zip(*tables["rollup"][:4], strict=True))
    assert keys[-1][0] == "all"
    assert keys[:-1] == sorted(keys[:-1])
    places = list(zip(*tables["combination"][:2], strict=True))
    assert places == sorted(places)


def test_names_that_postgresql_does_not_take_are_made_fit() -> None:
    """NUL, and half of a pair."""
    tables = batch(record(model="a\0b", requested_model="\ud83d"))
    assert "a\ufffdb" in tables["rollup"][2]
    assert "?" in tables["rollup"][2]
    assert "a\ufffdb" in tables["combination"][6]


def test_names_without_end_end_in_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """In each hour, across batches; who it was stays known."""
    monkeypatch.setattr(postgres_batch, "NAMES_PER_HOUR", 10)
    names = Names()
    seen: set[str] = set()
    for start in range(0, 60, 6):
        tables = batch(*(record(requested_model=f"m{n}", consumer="c") for n in range(start, start + 6)), names=names)
        seen |= set(tables["combination"][7])
        assert set(tables["combination"][2]) == {"c"}
    assert len(seen) == 11
    assert "(other)" in seen


def test_only_those_that_are_new() -> None:
    """Each once, however often it is in the batch."""
    one, two = record(input=1), record(input=2)
    made = Batch([one, two, two], [msgspec.json.encode(each) for each in (one, two, two)], Names())
    fresh = made.only({(two.at, two.id)})
    assert fresh.records == [two]
    sums = dict(fresh.tables())["rollup"]
    assert sums[4] == [1] * 5
    assert sums[6] == [2] * 5


@pytest.mark.parametrize("odd", [{"input": 1.5}, {"at": float("inf")}, {"model": None}, {"charged": "x"}])
def test_what_does_not_fit_is_refused(odd: dict[str, Any]) -> None:
    """Before a transaction begins."""
    with pytest.raises((ArithmeticError, TypeError, ValueError)):
        batch(record(**odd))
