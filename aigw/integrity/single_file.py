"""The single file: `[launcher][zlib payload][trailer]`, as packaging/README.md says. Read here to check it, never to run it."""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

from aigw.integrity import manifest

MAGIC = b"AIGWSFX2"
TRAILER = struct.Struct("<8sQQ32s")
"""Magic, length of the payload, length of what is in it, SHA-256 of the payload."""
ENTRY = struct.Struct("<IIQ")
"""Length of the name, mode, size."""


class SingleFile(NamedTuple):
    """What a single file says of itself, once its payload was compared with its trailer: SHA-256 of the whole file, of the
    launcher in front and of the payload (hexadecimal), and the manifest of the tree inside."""

    sha256: str
    launcher: str
    payload: str
    manifest: bytes

    @property
    def folder(self) -> str:
        """The name of the folder that it unpacks into."""
        return self.payload[:32]


def read(path: Path) -> SingleFile:
    """Look into *path*. Raises ValueError when it is not a whole single file, OSError when it cannot be read."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size < TRAILER.size:
            raise ValueError("it is no single file of aigw")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content, memoryview(content) as view:
            return _read(view)


def _read(view: memoryview) -> SingleFile:
    magic, length, _, expected = TRAILER.unpack(view[-TRAILER.size :])
    start = len(view) - TRAILER.size - length
    if magic != MAGIC or start <= 0:
        raise ValueError("it is no single file of aigw, or its end is missing")
    digest = hashlib.sha256(view[:start])  # one pass over the front serves both hashes
    launcher = digest.hexdigest()
    digest.update(view[start:])
    payload = hashlib.sha256(view[start : start + length])
    if payload.digest() != expected:
        raise ValueError("what is packed in it is not what its trailer says: it was damaged or changed")
    return SingleFile(digest.hexdigest(), launcher, payload.hexdigest(), _first(view[start : start + length]))


def _first(payload: memoryview) -> bytes:
    """The content of the first entry, which is the manifest."""
    stream = zlib.decompressobj()
    try:
        head = stream.decompress(payload[: 1 << 20], ENTRY.size + len(manifest.NAME))
        name_length, _, size = ENTRY.unpack(head[: ENTRY.size])
        if name_length != len(manifest.NAME) or head[ENTRY.size :] != manifest.NAME.encode() or size > manifest.LARGEST:
            raise ValueError
        found = b""
        rest = stream.unconsumed_tail
        at = 1 << 20
        while len(found) < size:
            if not rest:
                rest, at = bytes(payload[at : at + (1 << 20)]), at + (1 << 20)
                if not rest:
                    raise ValueError
            found += stream.decompress(rest, size - len(found))
            rest = stream.unconsumed_tail
    except (ValueError, zlib.error, struct.error):
        raise ValueError("its first entry is no manifest: it was built by something else") from None
    return found
