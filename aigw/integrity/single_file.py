"""The single file: `[launcher][zlib payload][trailer]`, as packaging/README.md says. Read here to check it, never to run it."""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from io import RawIOBase
from pathlib import Path
from typing import NamedTuple

from aigw.integrity import manifest

MAGIC = b"AIGWSFX2"
TRAILER = struct.Struct("<8sQQ32s")
"""Magic, length of the payload, length of what is in it, SHA-256 of the payload."""
BLOCK = 1 << 20

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
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        trailer = os.pread(file.fileno(), TRAILER.size, max(0, size - TRAILER.size))
        magic, length, _, expected = TRAILER.unpack(trailer) if len(trailer) == TRAILER.size else (b"", 0, 0, b"")
        start = size - TRAILER.size - length
        if magic != MAGIC or start <= 0:
            raise ValueError("it is no single file of aigw, or its end is missing")
        whole, payload, opener = hashlib.sha256(), hashlib.sha256(), _Opener()
        for block in _blocks(file, start):
            whole.update(block)
        launcher = whole.hexdigest()
        for block in _blocks(file, length):
            whole.update(block)
            payload.update(block)
            opener.feed(block)
        whole.update(trailer)
    if payload.digest() != expected:
        raise ValueError("what is packed in it is not what its trailer says: it was damaged or changed")
    return SingleFile(whole.hexdigest(), launcher, payload.hexdigest(), opener.manifest())


def _blocks(file: RawIOBase, size: int) -> Iterator[bytes]:
    while size > 0:
        block = file.read(min(BLOCK, size))
        if not block:
            raise ValueError("it ends too early")
        size -= len(block)
        yield block


class _Opener:
    """Unpacks the first entry, and no more."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj()
        self._found = b""
        self._wanted = ENTRY.size + len(manifest.NAME)
        self._wrong = False

    def feed(self, block: bytes) -> None:
        while block and not self._wrong and len(self._found) < self._wanted:
            try:
                self._found += self._stream.decompress(block, self._wanted - len(self._found))
            except zlib.error:
                self._wrong = True
            block = self._stream.unconsumed_tail
            if self._wanted == len(self._found) == ENTRY.size + len(manifest.NAME):
                self._head()

    def _head(self) -> None:
        length, _, size = ENTRY.unpack(self._found[: ENTRY.size])
        self._wrong = length != len(manifest.NAME) or self._found[ENTRY.size :] != manifest.NAME.encode()
        self._wrong |= size > manifest.LARGEST
        self._wanted += size

    def manifest(self) -> bytes:
        """What it found. Raises ValueError when that is no manifest."""
        if self._wrong or len(self._found) < self._wanted:
            raise ValueError("its first entry is no manifest: it was built by something else")
        return self._found[ENTRY.size + len(manifest.NAME) :]
