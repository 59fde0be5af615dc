"""From a config to its plugins, with all that is wrong said at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from aigw.config.load import ConfigErrors, load_text
from aigw.plugins import build, trust
from aigw.plugins.entry import Counts
from tests.plugins.test_host import World

PLUGIN = """
from aigw.hooks import Plugin


class One(Plugin):
    name = "one"
    phase = "{}"
"""


def file(folder: Path, name: str, phase: str = "prompt") -> None:
    (folder / "plugins").mkdir(exist_ok=True)
    content = PLUGIN.format(phase).encode()
    (folder / "plugins" / name).write_bytes(content)
    trust.add(folder / "data", content, name)


def test_from_tables_to_plugins(tmp_path: Path) -> None:
    """In the order they speak; those that are off are not there; counts go on from before."""
    for name, phase in (("last.py", "record"), ("first.py", "access"), ("off.py", "mask")):
        file(tmp_path, name, phase)
    text = "[plugins.last]\n[plugins.off]\nenabled = false\n[plugins.again]\nkind = 'first'\n[plugins.first]\norder = -1\n"
    counts = {"last": Counts()}
    made = build.manager(load_text(text, tmp_path / "config.toml"), World(tmp_path).ways, counts)
    assert [entry.name for entry in made.entries] == ["first", "again", "last"]
    assert made.entries[-1].counts is counts["last"]
    assert made.entries[0].source.startswith(f"file {tmp_path}/plugins/first.py (")


def test_all_that_is_wrong_is_said(tmp_path: Path) -> None:
    """With the line; nothing is loaded that nobody trusts, even where all else is right."""
    file(tmp_path, "good.py")
    (tmp_path / "plugins" / "evil.py").write_text("raise SystemExit('never runs')")
    text = """
[plugins]
odd = 3

[plugins.evil]

[plugins.good]
tiemout = 3

[plugins.goood]

[plugins.fine]
kind = "good"
timeout = 0
"""
    with pytest.raises(ConfigErrors) as caught:
        build.manager(load_text(text, tmp_path / "config.toml"), World(tmp_path).ways, {})
    said = str(caught.value).replace(f"{tmp_path}/", "").splitlines()
    assert said[0] == "config.toml:3: plugins.odd: expected a table"
    assert said[1].startswith(
        "config.toml:5: plugins.evil.file: plugins/evil.py is not trusted; read it, then run: aigw plugins"
    )
    assert said[2] == 'config.toml:8: plugins.good.tiemout: unknown key; did you mean "timeout"?'
    assert said[3].startswith("config.toml:10: plugins.goood: no plugin is called 'goood'")
    assert said[4] == "config.toml:14: plugins.fine.timeout: expected a number of seconds above 0"


def test_developers_need_not_trust_themselves(tmp_path: Path) -> None:
    file(tmp_path, "one.py")
    trust.remove(tmp_path / "data", "one.py")
    text = "[plugins]\nwatch = true\n[plugins.one]\n"
    assert build.manager(load_text(text, tmp_path / "config.toml"), World(tmp_path).ways, {}).entries[0].name == "one"
