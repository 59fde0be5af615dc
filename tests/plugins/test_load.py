"""Whose code a table means, and whether it may run."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aigw.errors import ConfigError
from aigw.hooks import Plugin
from aigw.plugins import load, trust
from aigw.plugins.entry import Counts
from tests.plugged import Alone

GOOD = """
from aigw.hooks import Plugin


class Good(Plugin):
    name = "good"
"""


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    words: list[str] = []
    limit: int = 3

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise ValueError("limit: expected 0 or more")


class Configured(Plugin):
    name, Config = "configured", Settings


@pytest.fixture
def places(tmp_path: Path) -> load.Places:
    (tmp_path / "plugins").mkdir()
    return load.Places(tmp_path / "plugins", tmp_path / "data")


def put(places: load.Places, text: str, name: str = "mine.py", *, trusted: bool = True) -> Path:
    path = places.folder / name
    path.write_text(text)
    if trusted:
        trust.add(places.data_dir, text.encode(), name)
    return path


def made(places: load.Places, table: dict[str, Any], name: str = "mine") -> Any:
    return load.entry(name, table, 0, places, Alone, dict[str, Counts]())


# --- a file ---


def test_a_trusted_file(places: load.Places) -> None:
    """By the table's name, by kind, by file."""
    path = put(places, GOOD)
    for name, table in (("mine", {}), ("other", {"kind": "mine"}), ("x", {"file": "mine.py"}), ("y", {"file": str(path)})):
        found = made(places, table, name)
        assert (found.name, type(found.plugin).__name__) == (name, "Good")


def test_a_file_that_changed(places: load.Places) -> None:
    """Trust is for a content: what was edited since does not run, and what was once trusted may come back."""
    path = put(places, GOOD)
    path.write_text(GOOD + "# more\n")
    with pytest.raises(ConfigError, match="has changed since it was trusted; read it, then run: aigw plugins trust"):
        made(places, {})
    path.write_text(GOOD)
    assert made(places, {}).name == "mine"


def test_a_file_that_nobody_trusts_never_runs(places: load.Places) -> None:
    put(places, f"{GOOD}\nimport sys\nsys.ran_unasked = True\n", trusted=False)
    with pytest.raises(ConfigError, match="is not trusted"):
        made(places, {})
    assert not hasattr(sys, "ran_unasked")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x =", "line 1: invalid syntax"),
        ("import nothing_of_this_name", "ModuleNotFoundError"),
        ("raise SystemExit(3)", "SystemExit"),
        ("x = 3", "has no class made from aigw.hooks.Plugin"),
        (f"{GOOD}\nclass Two(Plugin):\n    name = 'two'\n", "has several classes"),
        (f"{GOOD}    phase = 'never'\n", "its phase is 'never'; expected one of access, prompt"),
        (f"{GOOD}    reads = frozenset({{'minds'}})\n", "it reads minds"),
        (f"{GOOD}    Config = dict\n", "is no msgspec.Struct"),
        (f"{GOOD}    def event(self, view, event): ...\n", "has the hook 'event', and does not say that it reads \"stream\""),
        (
            f"{GOOD}    reads = frozenset({{'stream'}})\n    def event(self, v, e): 0\n    async def events(self, v, e): 0\n",
            "both hooks event and events",
        ),
    ],
)
def test_code_that_will_not_do(places: load.Places, text: str, said: str) -> None:
    put(places, text)
    with pytest.raises(ConfigError) as caught:
        made(places, {})
    assert said in str(caught.value)
    assert caught.value.key.startswith("plugins.mine")


def test_a_file_that_is_none(places: load.Places) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        made(places, {"file": "none.py"})
    (places.folder / "big.py").write_bytes(b"#" * (trust.LARGEST + 1))
    with pytest.raises(ConfigError, match="is larger than"):
        made(places, {"file": "big.py"})
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        made(places, {"file": "."})


def test_the_same_content_is_the_same_class(places: load.Places) -> None:
    """So that a reload which changed something else goes on with what it has; a new content is new code beside the old."""
    put(places, GOOD)
    first, again = made(places, {}), made(places, {})
    assert type(first.plugin) is type(again.plugin)
    put(places, GOOD + "\n")
    assert type(made(places, {}).plugin) is not type(first.plugin)


# --- a package ---


class Point:
    """An entry point of an installed package."""

    dist = None

    def __init__(self, name: str, found: Any) -> None:
        self.name, self.value, self._found = name, "theirs:Plugin", found

    def load(self) -> Any:
        if isinstance(self._found, Exception):
            raise self._found
        return self._found


def test_a_package(places: load.Places, monkeypatch: pytest.MonkeyPatch) -> None:
    points = [Point("theirs", Configured), Point("broken", ImportError("no libfoo")), Point("none", 3)]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points if group == "aigw.plugins" else [])
    assert type(made(places, {"limit": 5}, "theirs").plugin) is Configured
    with pytest.raises(ConfigError, match="the package theirs:Plugin does not load: ImportError: no libfoo"):
        made(places, {}, "broken")
    with pytest.raises(ConfigError, match="offers no class"):
        made(places, {}, "none")


# --- its config ---


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"limt": 3}, 'plugins.p.limt: unknown key; did you mean "limit"?'),
        ({"limit": "3"}, "plugins.p.limit: expected `int`, got `str`"),
        ({"words": ["a", 3]}, "plugins.p.words[1]: expected `str`, got `int`"),
        ({"limit": -1}, "limit: expected 0 or more"),
        ({"zzz": 1}, "plugins.p.zzz: unknown key; expected one of"),
    ],
)
def test_settings_that_are_wrong(table: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load.configured("p", Configured, table)
    assert said in str(caught.value)


def test_settings_that_are_right() -> None:
    assert load.configured("p", Configured, {"words": ["a"]}) == Settings(["a"])
    common, own = load.split("p", {"words": [], "routes": ["x"], "fail": "closed"})
    assert (own, common.routes, common.fail) == ({"words": []}, ("x",), "closed")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"timeout": -1}, "plugins.p.timeout: expected a number of seconds above 0"),
        ({"tags": ["team"]}, 'plugins.p.tags[0]: expected "name=value"'),
        ({"fail": "maybe"}, "plugins.p.fail: invalid enum value 'maybe'"),
        ({"routes": "fast"}, "plugins.p.routes: expected `array`, got `str`"),
    ],
)
def test_what_every_table_may_say(table: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load.split("p", table)
    assert str(caught.value) == said


def test_one_that_cannot_be_made(places: load.Places) -> None:
    text = GOOD + "\n    def __init__(self, config, host):\n        raise OSError('no list')\n"
    put(places, text)
    with pytest.raises(ConfigError, match="could not be made: OSError: no list"):
        made(places, {})


def test_before_a_route_is_known(places: load.Places) -> None:
    with pytest.raises(ConfigError, match="before a route is known"):
        made(places, {"routes": ["fast"], "set": {"n": 1}}, "transform")
