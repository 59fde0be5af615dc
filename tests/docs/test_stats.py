"""docs/stats.md against the commands."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from aigw.cli import recent, stats, top
from aigw.storage.base import GROUPINGS
from tests.docs.pages import ROOT, prose, spans, tables
from tests.e2e.world import Gateway

PAGE = (ROOT / "docs/stats.md").read_text(encoding="utf-8")


def test_every_column() -> None:
    """The table of columns has those that are shown, in their order."""
    listed = [name for row in tables(PAGE)["The table"] for name in re.findall(r"`([^`]+)`", row[0])]
    assert listed == [*(column.name for column, _ in stats.COLUMNS), "trend"]


def test_every_grouping_and_order() -> None:
    """All that `--by` and `--sort` take."""
    assert (*stats.THINGS, *stats.TIMES) == GROUPINGS
    assert set(GROUPINGS) <= set(spans(PAGE))
    assert {order.value for order in stats.Sort} <= set(spans(PAGE))


def test_figures_of_top() -> None:
    """What it averages over and looks back on."""
    text = prose(PAGE)
    assert (top.PACE, top.WINDOW, top.INTERVAL, stats.PARTS, recent.HISTORY) == (10, 300, 2, 12, 120)
    for words in ("averages of ten seconds", "the last five minutes", "a twelfth of it"):
        assert words in " ".join(text.split())


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path).start()
    yield gateway
    gateway.close()


def test_the_control_socket(served: Gateway) -> None:
    """The commands of the page, against a real server."""
    paths = re.findall(r"curl --unix-socket \S+ (?:-X (\w+) )?http://aigw(/\w+)", PAGE)
    assert [path for _, path in paths] == ["/state", "/reload", "/drain"]
    for method, path in paths:
        command = ["curl", "-sS", "--unix-socket", str(served.data_dir / "control.sock"), "-X", method or "GET"]
        done = subprocess.run([*command, f"http://aigw{path}"], capture_output=True, text=True, timeout=10, check=True)
        assert isinstance(json.loads(done.stdout), dict)
    assert served.wait() == 0
