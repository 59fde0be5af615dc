"""`aigw groups`: the config's own tables, by commands."""

from __future__ import annotations

import json
import tomllib
from typing import Any

from tests.cli.conftest import CommandLine


def written(aigw: CommandLine) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads(aigw.config.read_text()).get("groups", {})
    return found


def test_its_life(aigw: CommandLine) -> None:
    """Made, changed, shown with its consumers, removed; comments of the file stay."""
    aigw.config.write_text("# ours\n[limits]\nrpm = 600 # a lot\n")
    assert "aigw groups add NAME" in aigw("groups").stderr
    made = aigw("groups", "add", "search", "--models", "gpt-*,claude-*", "--budget", "50usd/month", "--max-price", "10")
    assert made.returncode == 0, made.stderr
    assert written(aigw) == {"search": {"models": ["gpt-*", "claude-*"], "budgets": ["50 usd/month"], "max_price": 10.0}}
    assert aigw.config.read_text().startswith("# ours\n[limits]\nrpm = 600 # a lot\n")
    again = aigw("groups", "add", "search")
    assert (again.returncode, "is there already" in again.stderr) == (1, True)

    changed = aigw(
        "groups", "set", "search", "--models", "none", "--tokens", "1M/day", "--rpm", "60", "--on-budget", "0.8=cheap"
    )
    assert changed.returncode == 0, changed.stderr
    assert written(aigw)["search"] == {
        "budgets": ["50 usd/month", "1000000 tokens/day"],
        "max_price": 10.0,
        "rpm": 60,
        "on_budget": {"at": 0.8, "use": "cheap"},
    }
    assert "is so already" in aigw("groups", "set", "search", "--rpm", "60").stderr

    aigw("keys", "create", "alice", "--group", "search")
    (fact,) = json.loads(aigw("groups", "--json").stdout)
    assert (fact["name"], fact["consumers"], fact["terms"]["rpm"]) == ("search", ["alice"], 60)
    shown = aigw("groups", "show", "search").stdout
    assert "alice" in shown
    assert "50 usd/month" in shown
    assert aigw("groups", "--csv").stdout.startswith("name,consumers,terms\nsearch,1,")

    tried = aigw("groups", "remove", "search", "--dry-run")
    assert "-[groups.search]" in tried.stdout
    removed = aigw("groups", "remove", "search", "--yes")
    assert removed.returncode == 0
    assert "1 consumers are in it" in removed.stderr
    assert written(aigw) == {}
    assert "nothing holds for them: search" in aigw("groups").stderr


def test_what_is_wrong(aigw: CommandLine) -> None:
    aigw("groups", "add", "search")
    typo = aigw("groups", "show", "serach")
    assert (typo.returncode, "did you mean search?" in typo.stderr) == (1, True)
    for words, said in (
        (("add", "a\nb"), "is no name"),
        (("set", "search", "--budget", "5yen/day"), "budgets are in usd or in tokens"),
        (("set", "search", "--allow-ip", "10.0.0.0/99"), "is no address or network"),
        (("set", "search", "--rpm", "-1"), "-1"),
        (("set", "search", "--models", "@nosuch"), "nosuch"),
    ):
        done = aigw("groups", *words)
        assert done.returncode == 2, words
        assert said in done.stderr, (words, done.stderr)
    assert written(aigw) == {"search": {}}
