"""Where a running server answers its operator's commands, and how to name that place in the few bytes a socket address has."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FILE_NAME = "control.sock"

LONGEST = 100
"""Bytes of a path that every system takes as a socket's address (sun_path: 108 on Linux, 104 on macOS, a NUL included)."""


def socket_path(data_dir: Path) -> Path:
    """The control socket of the server that serves *data_dir*."""
    return data_dir / FILE_NAME


@contextmanager
def address_of(path: Path) -> Iterator[str]:
    """An address to bind or connect a socket at *path*, good inside the block: the path itself, or for a long one a short
    way there, through a link in a private directory."""
    if len(os.fsencode(path)) <= LONGEST:
        yield str(path)
        return
    with tempfile.TemporaryDirectory(prefix="aigw-") as folder:
        link = Path(folder) / "d"
        link.symlink_to(path.parent.absolute(), target_is_directory=True)
        yield str(link / path.name)
