"""One file out of a launcher and a tree, or a .tar.gz of a tree; the same tree gives the same bytes.

    python join.py LAUNCHER TREE FILE        launcher + zlib(entries) + trailer, as packaging/launcher.c reads it
    python join.py --tar TREE FILE NAME      a .tar.gz whose files are below NAME/

Only regular files; the manifest first, then names sorted; modes 0755 or 0644; no dates, no owners.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import sys
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MAGIC = b"AIGWSFX2"
TRAILER = struct.Struct("<8sQQ32s")
"""Magic, length of the payload, length of what is in it, SHA-256 of the payload."""
ENTRY = struct.Struct("<IIQ")
"""Length of the name, mode, size."""


class Entry(NamedTuple):
    """A file of the tree: its path in it, its mode, where it is."""

    name: str
    mode: int
    path: Path


def entries(tree: Path) -> Iterator[Entry]:
    """The files of *tree*: its manifest, which `aigw verify` reads without unpacking the rest, then by name. Raises SystemExit
    for what is no regular file: a link could lead out of the tree."""
    found = []
    for path in tree.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise SystemExit(f"error: {path} is no regular file")
        if path.is_file():
            found.append((path.relative_to(tree).as_posix(), path))
    for name, path in sorted(found, key=lambda one: (one[0] != "manifest.json", one[0])):
        yield Entry(name, 0o755 if path.stat().st_mode & 0o100 else 0o644, path)


def payload(tree: Path) -> tuple[bytes, int]:
    """The compressed entries of *tree*, and their length before."""
    press = zlib.compressobj(9)
    parts, length = [], 0
    for entry in entries(tree):
        content = entry.path.read_bytes()
        name = entry.name.encode()
        part = ENTRY.pack(len(name), entry.mode, len(content)) + name + content
        length += len(part)
        parts.append(press.compress(part))
    return b"".join([*parts, press.flush()]), length


def join(launcher: Path, tree: Path, file: Path) -> None:
    """Write the single file."""
    packed, length = payload(tree)
    trailer = TRAILER.pack(MAGIC, len(packed), length, hashlib.sha256(packed).digest())
    file.write_bytes(launcher.read_bytes() + packed + trailer)
    os.chmod(file, 0o755)  # noqa: PTH101 - as the rest of this file


def tar(tree: Path, file: Path, name: str) -> None:
    """Write the tree as .tar.gz."""
    with (
        file.open("wb") as out,
        gzip.GzipFile("", "wb", 9, out, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for entry in entries(tree):
            head = tarfile.TarInfo(f"{name}/{entry.name}")
            head.size, head.mode = entry.path.stat().st_size, entry.mode
            with entry.path.open("rb") as content:
                archive.addfile(head, content)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--tar", tree, file, name]:
            tar(Path(tree), Path(file), name)
        case [launcher, tree, file]:
            join(Path(launcher), Path(tree), Path(file))
        case _:
            raise SystemExit(__doc__)
