"""Where things live: the config file and the data directory."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from aigw.errors import ConfigError


def default_config_path() -> Path:
    """The config file when nobody names one; it need not exist."""
    return platformdirs.user_config_path("aigw", appauthor=False) / "config.toml"


def config_path(flag: str | None = None) -> Path:
    """The config file: `--config` (*flag*), else `$AIGW_CONFIG`, else the platform's user config directory.

    Raises ConfigError for an empty flag or a `~user` that nobody is. Whether the file exists is `load`'s question.
    """
    return _chosen(flag, "--config", "AIGW_CONFIG") or default_config_path()


def data_dir(flag: str | None = None) -> Path:
    """Where database, journal and control socket live: `--data-dir` (*flag*), else `$AIGW_DATA_DIR`, else the platform's
    user data directory. Nothing is created here. Raises ConfigError as `config_path` does."""
    return _chosen(flag, "--data-dir", "AIGW_DATA_DIR") or platformdirs.user_data_path("aigw", appauthor=False)


def _chosen(flag: str | None, option: str, variable: str) -> Path | None:
    if flag is not None and not flag:
        # most often an unset variable in a script: using the default place instead would hide that
        raise ConfigError(f"{option} is empty; expected a path")
    source, text = (option, flag) if flag else (f"${variable}", os.environ.get(variable, ""))
    if not text:  # an empty variable counts as none, as everywhere in Unix
        return None
    if "\0" in text:
        raise ConfigError(f"{source} holds a NUL character; expected a path")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ConfigError(f"{source}: no home directory is known for {text.split('/', 1)[0]!r}") from None
