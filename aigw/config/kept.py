"""The configs that served, each under the hash that records name it by, in the data directory.

A text is kept as it was written, with its comments. One that holds secrets (and not references to them) is not: a key that was
taken out of a config must not live on beside the database.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from aigw.errors import ConfigError

FOLDER = "configs"

MOST = 200
"""Configs; the ones that served longest ago go first."""


class Kept(NamedTuple):
    """`at`: when it last began to serve, in seconds since the epoch."""

    hash: str
    at: float
    path: Path

    def text(self) -> str:
        """Raises ConfigError."""
        try:
            return self.path.read_bytes().decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot be read: {error}", file=str(self.path)) from None


def keep(data_dir: Path, digest: str, text: str) -> None:
    """Note that the config *text* serves from now on. Raises OSError."""
    folder = data_dir / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    place = folder / f"{digest}.toml"
    half = folder / f".{digest}.{os.getpid()}"
    descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text.encode("utf-8", "surrogateescape"))
    half.replace(place)
    for old in history(data_dir)[MOST:]:
        old.path.unlink(missing_ok=True)


def history(data_dir: Path) -> list[Kept]:
    """All that are kept, the newest first."""
    found = []
    try:
        with os.scandir(data_dir / FOLDER) as entries:
            for entry in entries:
                digest, dot, kind = entry.name.partition(".")
                if digest and dot and kind == "toml":
                    found.append(Kept(digest, entry.stat().st_mtime, Path(entry.path)))
    except OSError:
        return []
    return sorted(found, key=lambda one: (-one.at, one.hash))


def find(data_dir: Path, beginning: str) -> Kept:
    """The config whose hash begins so. Raises ConfigError when there is none, or more than one."""
    found = [one for one in history(data_dir) if beginning and one.hash.startswith(beginning.lower())]
    if len(found) != 1:
        what = "several configs are kept" if found else "no config is kept"
        raise ConfigError(f"{what} whose hash begins with {beginning!r}; aigw config history lists them")
    return found[0]
