"""Where things live."""

from __future__ import annotations

from pathlib import Path

import pytest

from aigw.config import paths
from aigw.errors import ConfigError


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AIGW_CONFIG", "AIGW_DATA_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_the_flag_then_the_variable_then_the_platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each beats the next; nothing is created."""
    default_config, default_data = paths.config_path(), paths.data_dir()
    assert default_config == paths.default_config_path()
    assert default_config.name == "config.toml"
    assert all(path.is_relative_to(tmp_path) for path in (default_config, default_data))
    monkeypatch.setenv("AIGW_CONFIG", "/etc/aigw.toml")
    monkeypatch.setenv("AIGW_DATA_DIR", "~/data")
    assert (paths.config_path(), paths.data_dir()) == (Path("/etc/aigw.toml"), tmp_path / "data")
    assert (paths.config_path("~/c.toml"), paths.data_dir("d")) == (tmp_path / "c.toml", Path("d"))
    assert list(tmp_path.iterdir()) == []


def test_an_empty_variable_is_none_and_an_empty_flag_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--config "$UNSET"` must not silently mean the default file."""
    monkeypatch.setenv("AIGW_CONFIG", "")
    assert paths.config_path() == paths.default_config_path()
    with pytest.raises(ConfigError, match="--config is empty; expected a path"):
        paths.config_path("")
    with pytest.raises(ConfigError, match="--data-dir is empty"):
        paths.data_dir("")


def test_paths_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """A home that nobody has, a NUL: said, with the option or variable it came from."""
    with pytest.raises(ConfigError, match=r"--config: no home directory is known for '~nobody-at-all'"):
        paths.config_path("~nobody-at-all/c.toml")
    with pytest.raises(ConfigError, match="--data-dir holds a NUL"):
        paths.data_dir("a\0b")
