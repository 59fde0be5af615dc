"""Who may call, beside the store: a file from which a server that starts while its database is away still knows its consumers.

It holds what the database holds of them - names, terms, digests of keys, never a key - is for its owner alone (0600), and
belongs to one database: one of another address is not used. It can be older than the database: a key that was revoked since
the file was written opens until the database answers.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec

from aigw.consumer import Consumer, ConsumerKey

FILE_NAME = "consumers.cache"

VERSION = 1


class Kept(msgspec.Struct, array_like=True):
    """What the file holds."""

    version: int
    store: str
    consumers: list[Consumer]
    keys: list[ConsumerKey]


def identity(url: str) -> str:
    """Which database *url* is, without telling."""
    return hashlib.sha256(url.encode()).hexdigest()


def save(path: Path, url: str, consumers: list[Consumer], keys: list[ConsumerKey]) -> None:
    """Replace the file in one step. Raises OSError."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")  # other workers write one, too
    content = msgspec.msgpack.encode(Kept(VERSION, identity(url), consumers, keys))
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def load(path: Path, url: str) -> tuple[list[Consumer], list[ConsumerKey]] | None:
    """What was saved for the database *url*; None when there is nothing of use."""
    try:
        kept = msgspec.msgpack.decode(path.read_bytes(), type=Kept)
    except (OSError, msgspec.MsgspecError):
        return None
    if kept.version != VERSION or kept.store != identity(url):
        return None
    return kept.consumers, kept.keys
