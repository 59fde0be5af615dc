"""A record as a line, and as plain values."""

from __future__ import annotations

import json

import msgspec
import pytest

from aigw.cli.log_lines import COLUMNS, CSV, Lines, attempts, cells, csv_row, facts, place
from aigw.exchange import Attempt, Record

CHAIN = [Attempt(provider="a", model="m", key="a#1", status=429, error="provider_rate_limited"), Attempt(provider="b")]
ONE = Record(
    id="req_1",
    at=1_790_000_000.0,
    took=1_240_000,
    first_token=120_000,
    status=200,
    requested_model="fast",
    provider="b",
    model="m",
    input=1234,
    output=56,
    cost=2_500_000,
    attempts=msgspec.json.encode(CHAIN).decode(),
)


def test_cells() -> None:
    """One for each column; the day is said when it is not today's."""
    found = dict(zip([column.name for column in COLUMNS], cells(ONE, ONE.at + 5), strict=True))
    assert found["model"] == "fast -> b/m"
    assert (found["took"], found["first"], found["in"], found["out"]) == ("1.24 s", "120 ms", "1,234", "56")
    assert (found["cost"], found["tries"], found["id"]) == ("$0.0025", "2", "req_1")
    assert len(found["time"]) == 8
    assert len(cells(ONE, ONE.at + 1e6)[0]) == 19


def test_places() -> None:
    """The requested name only where it says more."""
    assert place(Record(id="1", at=0)) == "-"
    assert place(Record(id="1", at=0, requested_model="x")) == "x"
    assert place(Record(id="1", at=0, requested_model="m", provider="p", model="m")) == "p/m"
    assert place(Record(id="1", at=0, requested_model="p/m", provider="p", model="m")) == "p/m"


def test_unknown_prices_are_not_nothing() -> None:
    """A question mark, as in the statistics."""
    unknown = msgspec.structs.replace(ONE, cost=None)
    assert "?" in cells(unknown, ONE.at)
    assert facts(unknown)["cost"] is None


def test_facts_are_exact() -> None:
    """Costs are decimals without loss, the chain is a list; a damaged chain is none."""
    found = facts(ONE)
    assert found["cost"] == "0.0025"
    assert found["attempts"][0]["key"] == "a#1"
    json.dumps(found)
    assert attempts(msgspec.structs.replace(ONE, attempts="{")) == []
    assert len(csv_row(ONE)) == len(CSV)


def test_lines_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    """A head once; later lines stand below earlier ones, and what is hostile is harmless."""
    lines = Lines()
    lines.add([], ONE.at)
    lines.add([ONE], ONE.at)
    lines.add([msgspec.structs.replace(ONE, id="req_2", requested_model="x\x1b[2J")], ONE.at)
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split()[0] == "time"
    assert first.index("req_1") == head.index("id")
    assert "\\x1b[2J" in second
