"""Which single-file plugins may run: those whose exact content the operator has trusted. Code that is loaded here stands next
to every key, so a file that was only dropped into a folder, or changed since, does not run.

`plugins.trusted` in the data directory holds a line for each: SHA-256 in hex, a space, and the file's name as it was then.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

FILE_NAME = "plugins.trusted"

LARGEST = 1024 * 1024
"""Bytes of a plugin's file; one is a few hundred lines."""


def read(data_dir: Path) -> dict[str, str]:
    """Digests that are trusted, and the file names they had. Raises OSError."""
    try:
        text = (data_dir / FILE_NAME).read_text("utf-8")
    except FileNotFoundError:
        return {}
    found = {}
    for line in text.splitlines():
        digest, _, name = line.partition(" ")
        if len(digest) == 64 and not digest.startswith("#"):
            found[digest] = name
    return found


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def add(data_dir: Path, content: bytes, name: str) -> str:
    """Trust *content* from now on; returns its digest. Raises OSError."""
    known = read(data_dir)
    found = digest(content)
    known[found] = name.replace("\n", " ").replace("\r", " ")
    _write(data_dir, known)
    return found


def remove(data_dir: Path, which: str) -> list[str]:
    """Trust what has this name, or a digest that begins so, no longer; returns the digests. Raises OSError."""
    known = read(data_dir)
    gone = [found for found, name in known.items() if name == which or (len(which) >= 8 and found.startswith(which))]
    if gone:
        _write(data_dir, {found: name for found, name in known.items() if found not in gone})
    return gone


def _write(data_dir: Path, known: dict[str, str]) -> None:
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = data_dir / FILE_NAME
    fresh = path.with_suffix(f".{os.getpid()}")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.writelines(f"{found} {name}\n" for found, name in known.items())
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
