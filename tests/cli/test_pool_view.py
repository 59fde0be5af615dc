"""`aigw providers --keys`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.world import Gateway

CONFIG = """
[providers.far]
kind = "openai-compatible"
base_url = "http://127.0.0.1:9/v1"
list_models = false
keys = ["sk-plain-secret-0001", {key = "sk-table-secret-0002", label = "team-b", weight = 2, rpm = 5, account = "org"}]
"""


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    return Gateway(tmp_path, CONFIG)


def test_without_a_server(gateway: Gateway) -> None:
    """What the config says, and that more shows while one runs. Never a key."""
    done = gateway.aigw("providers", "--keys")
    assert done.returncode == 0
    assert "far#1" in done.stdout
    assert "far team-b" in done.stdout
    assert "No server runs here" in done.stderr
    rows = json.loads(gateway.aigw("providers", "--keys", "--json").stdout)
    assert [(row["key"], row["state"], row["weight"], row["account"]) for row in rows] == [
        ("far#1", "", 1, ""),
        ("team-b", "", 2, "org"),
    ]
    assert gateway.aigw("providers", "--keys", "--csv").stdout.startswith("provider,key,reference")
    assert "secret" not in done.stdout + done.stderr + json.dumps(rows)


def test_with_a_server(gateway: Gateway) -> None:
    """As it is now: what it does, and what is left of its own limits."""
    gateway.start()
    try:
        done = gateway.aigw("providers", "--keys")
        assert "ready" in done.stdout
        assert "5 rpm" in done.stdout
    finally:
        gateway.stop()


def test_what_excludes_each_other(gateway: Gateway) -> None:
    """Said, with exit 2."""
    assert gateway.aigw("providers", "--keys", "--all").returncode == 2


def test_keys_that_are_tables_are_edited_as_such(gateway: Gateway) -> None:
    """Rotating keeps what else is said of a key; labels name it; adding takes them."""
    done = gateway.aigw("providers", "keys", "rotate", "far", "team-b", "--key", "env:NEW", "--no-check")
    assert done.returncode == 0, done.stderr
    assert '{key = "env:NEW", label = "team-b", weight = 2, rpm = 5, account = "org"}' in gateway.config.read_text()
    done = gateway.aigw(
        "providers", "keys", "add", "far", "env:THIRD", "--label", "c", "--tpm", "1000", "--model", "gpt-*", "--no-check"
    )
    assert done.returncode == 0, done.stderr
    assert '{key = "env:THIRD", label = "c", tpm = 1000, models = ["gpt-*"]}' in gateway.config.read_text()
    assert gateway.aigw("providers", "keys", "add", "far", "env:FOURTH", "--label", "c", "--no-check").returncode == 2
    done = gateway.aigw("providers", "keys", "remove", "far", "c", "--yes")
    assert done.returncode == 0, done.stderr
    assert "THIRD" not in gateway.config.read_text()
    shown = (
        gateway.aigw("config", "show") if "show" in gateway.aigw("config", "--help").stdout else gateway.aigw("config", "check")
    )
    assert "plain-secret" not in shown.stdout + shown.stderr
