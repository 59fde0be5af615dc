"""`aigw keys usage`: what was used of what was given."""

from __future__ import annotations

import csv
import io
import json
import time
from pathlib import Path

from aigw.exchange import Record
from aigw.storage.sqlite import SqliteStore
from tests.cli.conftest import CommandLine

CONFIG = """
[groups.search]
budgets = ["100 usd/month"]

[consumers.ci]
key = "the-key-of-ci-0123456789"
group = "search"
"""


async def spend(data_dir: Path, consumer_id: str, name: str, usd: float, tokens: int, group: str = "") -> None:
    store = SqliteStore(data_dir / "aigw.db")
    await store.append(
        [
            Record(
                f"{name}-{usd}",
                time.time(),
                consumer=name,
                consumer_id=consumer_id,
                group=group,
                input=tokens,
                cost=round(usd * 1e9),
                charged=round(usd * 1e9),
            )
        ]
    )
    await store.close()


async def test_what_is_left(aigw: CommandLine) -> None:
    """Of one's own budgets and of the group's, which all of it share; `total` never begins anew."""
    aigw.config.write_text(CONFIG)
    made = json.loads(
        aigw("keys", "create", "alice", "--group", "search", "--budget", "5usd/total", "--tokens", "1M/day", "--json").stdout
    )
    aigw("keys", "create", "bob")
    await spend(aigw.data_dir, made["id"], "alice", 1.25, 1000, "search")
    await spend(aigw.data_dir, "config:ci", "ci", 2.0, 500, "search")
    facts = {one["name"]: one for one in json.loads(aigw("keys", "usage", "--json").stdout)}
    assert list(facts) == ["alice", "bob", "ci"]
    alice = facts["alice"]
    assert (alice["requests"], alice["input_tokens"], alice["costs"]) == (1, 1000, {"USD": 1.25})
    left = {(one["whose"], one["unit"], one["window"]): (one["used"], one["left"]) for one in alice["budgets"]}
    assert left == {
        ("own", "usd", "total"): (1.25, 3.75),
        ("own", "tokens", "day"): (1000, 999_000),
        ("g:search", "usd", "month"): (3.25, 96.75),
    }
    assert [one["renews"] is None for one in alice["budgets"]] == [True, False, False]
    assert facts["bob"]["budgets"] == []
    assert facts["ci"]["budgets"][0]["used"] == 3.25

    shown = aigw("keys", "usage", "alice").stdout
    assert "$1.25 (25%)" in shown
    assert "never" in shown
    assert "(search)" in shown
    rows = list(csv.DictReader(io.StringIO(aigw("keys", "usage", "--csv").stdout)))
    assert [(row["name"], row["window"]) for row in rows] == [
        ("alice", "total"),
        ("alice", "day"),
        ("alice", "month"),
        ("bob", ""),
        ("ci", "month"),
    ]


def test_nobody(aigw: CommandLine) -> None:
    assert "aigw keys create NAME" in aigw("keys", "usage").stderr
    strange = aigw("keys", "usage", "nobody")
    assert (strange.returncode, "there is no consumer" in strange.stderr) == (1, True)
    assert aigw("keys", "usage", "--since", "soon").returncode == 2
