"""What a consumer may do, said on the command line: kept, shown, changed; and what cannot be meant."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cli.conftest import CommandLine

CONFIG = "[providers.demo]\n[groups.build]\n[model_groups]\nfast = ['demo*']\n"


def terms(aigw: CommandLine, name: str = "bot") -> dict[str, Any]:
    done = aigw("keys", "show", name, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["terms"]
    assert isinstance(found, dict)
    return found


@pytest.fixture
def bot(aigw: CommandLine) -> CommandLine:
    aigw.config.write_text(CONFIG)
    done = aigw(
        "keys", "create", "bot", "--group", "build", "--models", "gpt-*, @fast", "--deny", "gpt-4*", "--providers", "demo",
        "--residency", "eu,local", "--endpoints", "chat,embeddings", "--max-price", "10", "--allow-ip", "10.1.2.3/8",
        "--allow-ip", "2001:db8::/32", "--rpm", "60", "--tpm", "1000", "--concurrency", "5", "--max-output", "800",
        "--budget", "5usd/day", "--budget", "50 usd/month", "--tokens", "1M/month", "--tz", "Asia/Shanghai", "--hard",
        "--unpriced", "allow", "--on-budget", "0.8=cheap", "--priority", "batch",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return aigw


def test_all_of_it_is_kept(bot: CommandLine) -> None:
    """And shown again as it was meant, to programs and to people."""
    assert terms(bot) == {
        "models": ["gpt-*", "@fast"],
        "deny": ["gpt-4*"],
        "providers": ["demo"],
        "residency": ["eu", "local"],
        "endpoints": ["chat", "embeddings"],
        "max_price": 10.0,
        "allow_ip": ["10.0.0.0/8", "2001:db8::/32"],
        "rpm": 60,
        "tpm": 1000,
        "concurrency": 5,
        "max_output": 800,
        "budgets": ["5 usd/day", "50 usd/month", "1000000 tokens/month"],
        "tz": "Asia/Shanghai",
        "hard": True,
        "unpriced": "allow",
        "on_budget": {"at": 0.8, "use": "cheap"},
        "priority": "batch",
    }
    shown = bot("keys", "show", "bot").stdout
    assert "budgets:     5 usd/day, 50 usd/month, 1000000 tokens/month (Asia/Shanghai)" in shown
    assert "on budget:   cheap from 80% on" in shown


def test_what_is_not_given_stays(bot: CommandLine) -> None:
    """'none' takes a list away, money and tokens are replaced each by itself; a dry run and a second time change nothing."""
    before = terms(bot)
    dry = bot("keys", "set", "bot", "--deny", "none", "--dry-run")
    assert "would change bot: deny" in dry.stderr
    assert terms(bot) == before
    done = bot("keys", "set", "bot", "--deny", "none", "--allow-ip", "none", "--budget", "7usd/week", "--rpm", "0", "--no-hard")
    assert done.returncode == 0, done.stderr
    changed = {"rpm": 0, "hard": False, "budgets": ["7 usd/week", "1000000 tokens/month"]}
    assert terms(bot) == {name: value for name, value in before.items() if name not in ("deny", "allow_ip")} | changed
    assert bot("keys", "set", "bot", "--tokens", "none", "--on-budget", "none").returncode == 0
    assert terms(bot)["budgets"] == ["7 usd/week"]
    assert "on_budget" not in terms(bot)
    assert "is so already" in bot("keys", "set", "bot", "--rpm", "0").stderr


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("--budget", "5eur/day", "in usd or in tokens"),
        ("--budget", "0usd/day", "more than 0"),
        ("--budget", "-5usd/day", "no budget"),
        ("--budget", "5usd/year", "expected one of hour, day, week, month, total"),
        ("--tokens", "5usd/day", "expected tokens here"),
        ("--tokens", "9e99/day", "no budget"),
        ("--rpm", "-1", "not in the range"),
        ("--max-price", "nan", "0 or more"),
        ("--allow-ip", "10.0.0.0/33", "no address or network"),
        ("--tz", "Mars/Olympus", "time zone"),
        ("--models", "@fst", "did you mean fast?"),
        ("--models", "x" * 1000, "no name of a model"),
        ("--endpoints", "chta", "did you mean chat?"),
        ("--unpriced", "maybe", "expected refuse or allow"),
        ("--priority", "urgent", "expected interactive or batch"),
        ("--on-budget", "80=cheap", "expected a share and a route"),
        ("--on-budget", "0.8", "expected a share and a route"),
        ("--metadata", "no-equals-sign", "expected KEY=VALUE"),
    ],
)
def test_what_cannot_be_meant(aigw: CommandLine, option: str, value: str, why: str) -> None:
    """Usage, in one line, and nobody was made."""
    aigw.config.write_text(CONFIG)
    done = aigw("keys", "create", "bot", option, value)
    assert done.returncode == 2
    assert why in " ".join(done.stderr.split())
    assert len(done.stderr) < 600
    assert "Traceback" not in done.stderr
    assert aigw("keys", "list", "--json").stdout.strip() == "[]"


def test_two_budgets_for_one_window(aigw: CommandLine) -> None:
    """Only one of them can be meant."""
    done = aigw("keys", "create", "bot", "--budget", "5usd/day", "--budget", "6usd/day")
    assert done.returncode == 2
    assert "two for a day" in done.stderr


def test_a_group_that_limits_nothing(aigw: CommandLine) -> None:
    """A name that no [groups] has, where there are some, is probably a slip: said, and done."""
    aigw.config.write_text(CONFIG)
    done = aigw("keys", "create", "bot", "--group", "bulid")
    assert done.returncode == 0
    assert "there is no [groups.bulid]" in done.stderr
