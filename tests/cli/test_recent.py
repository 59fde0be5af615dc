from __future__ import annotations

from typing import Any

import pytest

from aigw.cli.recent import HISTORY, MOST_ERRORS, MOST_NAMES, OTHER, SLOT, Recent
from aigw.exchange import Record

NOW = 1_790_000_000.0


def ended(seconds_ago: float, **fields: Any) -> Record:
    """A record that ended so long ago, after two seconds."""
    return Record(id="r", at=NOW - seconds_ago - 2, took=2_000_000, **fields)


def test_an_exchange_counts_when_it_ends() -> None:
    """In its second, with all its tokens; the newest second is not shown yet, nor is what is older than the history."""
    recent = Recent(300)
    recent.add(
        [ended(3.5, output=7), ended(3.2, output=1, outcome="provider_error", error="provider_timeout"), ended(0), ended(119)],
        NOW,
    )
    history = recent.history(NOW, 5)
    assert history == [(0, 0, 0), (0, 0, 0), (2, 1, 8), (0, 0, 0), (0, 0, 0)]
    assert sum(second[0] for second in recent.history(NOW, HISTORY)) == 3


def test_rows_are_the_busiest_names() -> None:
    """Over all of the window and no longer; speed and percentiles are those of streams."""
    recent = Recent(60)
    stream = {"model": "a", "consumer": "x", "first_token": 1_000_000, "stream": True, "output": 50}
    recent.add([ended(5, **stream), ended(50, **stream), ended(20, model="b", consumer="x"), ended(100, model="a")], NOW)
    a, b = recent.rows("model", 9)
    assert (a.name, a.requests, a.output, a.speed) == ("a", 2, 100, 50.0)
    assert a.first_p50 == pytest.approx(1_000_000, rel=0.05)
    assert (b.name, b.requests, b.speed, b.first_p95) == ("b", 1, None, None)
    assert [(row.name, row.requests) for row in recent.rows("consumer", 1)] == [("x", 3)]
    assert recent.total().requests == 3
    recent.add([], NOW + 30)
    assert recent.total().requests == 2
    recent.add([], NOW + 600)
    assert recent.total() == Recent(60).total()
    assert recent.history(NOW + 600, HISTORY) == [(0, 0, 0)] * HISTORY


def test_records_come_in_any_order() -> None:
    """A record that was late, and one from a clock that is ahead."""
    recent = Recent(60)
    recent.add([ended(1)], NOW)
    recent.add([ended(30), ended(-500)], NOW)
    recent.add([ended(31), ended(58)], NOW)
    assert recent.total().requests == 5
    recent.add([], NOW + 40 + SLOT)
    assert recent.total().requests == 2


def test_costs_by_currency() -> None:
    """What abandoned attempts cost is paid, too; unknown is nothing."""
    recent = Recent(60)
    recent.add([ended(1, cost=5), ended(2, cost=None), ended(3, cost=2, currency="CNY", abandoned_cost=1)], NOW)
    assert recent.costs() == {"USD": 5, "CNY": 3}


def test_errors_are_kept_for_long() -> None:
    """The newest, also when they are older than the window; a caller that left is none."""
    recent = Recent(60)
    recent.add([ended(999, error="provider_timeout", outcome="provider_error")], NOW)
    recent.add([ended(1, error="caller_closed", outcome="client_closed")], NOW)
    recent.add([ended(1, error=f"e{number}", outcome="caller_error") for number in range(MOST_ERRORS - 1)], NOW)
    assert [record.error for record in recent.errors] == [
        *(f"e{n}" for n in range(MOST_ERRORS - 2, -1, -1)),
        "provider_timeout",
    ]


def test_names_without_end() -> None:
    """A caller that asks for a new model each time fills no memory."""
    recent = Recent(60)
    recent.add([ended(10, model=f"m{number}") for number in range(MOST_NAMES + 50)], NOW)
    rows = {row.name: row.requests for row in recent.rows("model", 10_000)}
    assert len(rows) == MOST_NAMES + 1
    assert rows[OTHER] == 50
