"""One exchange with one plugin, without anything that would be kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aigw.cli.plugin_trial import OPERATIONS, asking, trial
from aigw.errors import ConfigError

PLUGIN = """
from aigw.canonical import Text
from aigw.hooks import Plugin


class One(Plugin):
    name = "one"
    reads = frozenset({"request"})

    async def request(self, view):
        self.host.log.warning("seen")
        view.request.messages[-1].parts = [Text("changed")]
        return view.request
"""


@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_is_asked(operation: str) -> None:
    assert "Hi" in json.dumps(json.loads(asking(operation, "Hi")))


def test_a_walk(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(PLUGIN)
    found = trial("one", {"file": str(tmp_path / "one.py")}, "chat", asking("chat", "Hi"), stream=False, config_folder=tmp_path)
    assert json.loads(found.sent)["messages"][0]["content"] == "changed"
    assert "changed" in found.got
    assert (found.status, found.error, found.calls, found.errors, found.log) == (200, "", 1, 0, ["seen"])
    assert found.micros > 0
    assert list(tmp_path.iterdir()) == [tmp_path / "one.py"]


def test_one_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        trial("one", {}, "chat", asking("chat", "Hi"), stream=False, config_folder=tmp_path)
