"""The list of every file of a release's tree, and what in a folder differs from it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

NAME = "manifest.json"

LARGEST = 4 * 1024 * 1024
"""Bytes of a manifest; one of 4,000 files has 500 KB."""

_READERS = 4
_HEX = re.compile(r"[0-9a-f]{64}")


class Entry(NamedTuple):
    """One file: SHA-256 in hexadecimal, permission bits, and the wheel it is from (`python`, `aigw`, a wheel's file name)."""

    sha256: str
    mode: int
    origin: str


class Manifest(NamedTuple):
    """`files` are by their path in the tree; `lock` is the SHA-256 of the lock file that the build used."""

    version: str
    os: str
    arch: str
    python: str
    lock: str
    files: dict[str, Entry]


class Flaw(NamedTuple):
    """One thing that is not as it should be: a path, what is wrong with it, and what to do where that is not obvious."""

    path: str
    what: str
    next: str = ""


def read(content: bytes) -> Manifest:
    """A manifest from its JSON. Raises ValueError for anything else, and for one with a path that leads out of the tree."""
    if len(content) > LARGEST:
        raise ValueError("it is too large to be a manifest")
    try:
        said = json.loads(content)
        if said["format"] != 1:
            raise ValueError(f"its format is {said['format']!r}, this aigw knows 1")
        files = {str(path): Entry(str(row[0]), int(row[1]), str(row[2])) for path, row in said["files"].items()}
        version, system, arch, python, lock = (str(said[key]) for key in ("version", "os", "arch", "python", "lock"))
        found = Manifest(version, system, arch, python, lock, files)
    except (KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise ValueError(f"it is no manifest ({type(error).__name__})") from None
    for path, entry in files.items():
        if not path or path.startswith("/") or ".." in path.split("/") or not _HEX.fullmatch(entry.sha256):
            raise ValueError("it names a file outside of the tree, or no hash")
    return found


def flaws(root: Path, manifest: Manifest, trusted: frozenset[int]) -> list[Flaw]:
    """What in the folder *root* is not as *manifest* says: changed, missing and added files, links, and what others than the
    users *trusted* (numbers) own or may change. The manifest itself is not looked at. Raises OSError when *root* cannot be
    read at all."""
    found: list[Flaw] = []
    present: list[str] = []
    for path, status in _walk(root):
        name = path[len(str(root)) + 1 :] if path != str(root) else ""
        problem = access(status, trusted)
        if problem:
            found.append(Flaw(name or str(root), *problem))
        if stat.S_ISDIR(status.st_mode):
            continue
        if not stat.S_ISREG(status.st_mode):
            found.append(Flaw(name, "is a link or no file, which a release does not have"))
        elif name in manifest.files:
            present.append(name)
            mode = stat.S_IMODE(status.st_mode)
            if mode & 0o6000:
                found.append(Flaw(name, f"has the set-user-id or set-group-id bit ({mode:04o})"))
            elif bool(mode & 0o111) != bool(manifest.files[name].mode & 0o111):
                found.append(Flaw(name, f"has the mode {mode:04o} in place of {manifest.files[name].mode:04o}"))
        elif name != NAME:
            found.append(Flaw(name, "was added"))
    found += [Flaw(name, "is missing") for name in manifest.files.keys() - set(present)]
    digests = hashes(f"{root}/{name}" for name in present)
    for name, digest in zip(present, digests, strict=True):
        if digest != manifest.files[name].sha256:
            found.append(Flaw(name, "was changed" if digest else "cannot be read"))
    return sorted(found)


def hashes(paths: Iterable[str]) -> list[str]:
    """SHA-256 of each file; "" for one that cannot be read. Several at a time: hashing waits for no other thread."""
    with ThreadPoolExecutor(min(_READERS, os.cpu_count() or 1)) as pool:
        return list(pool.map(_digest, paths, chunksize=1))


def access(status: os.stat_result, trusted: frozenset[int]) -> tuple[str, str] | None:
    """What is wrong with who owns a file or may write to it, and what mends it; None when nothing is."""
    if status.st_uid not in trusted:
        return f"belongs to user {status.st_uid}, who could change it", "install again, as yourself"
    if status.st_mode & 0o022 and not stat.S_ISLNK(status.st_mode):
        return f"may be changed by others (mode {stat.S_IMODE(status.st_mode):04o})", "chmod go-w"
    return None


def _digest(path: str) -> str:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a Path of each of 3,000 costs more than the hash
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return ""


def _walk(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Every folder and file from *root* on, not through links."""
    yield str(root), os.lstat(root)
    waiting = [str(root)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                yield entry.path, status
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(entry.path)
