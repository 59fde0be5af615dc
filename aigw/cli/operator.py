"""The operator's own credential: a consumer key with which commands of this machine call the gateway.

It belongs to the consumer "operator" and lies in `operator.key` in the data directory, for its owner alone (0600). Who can read
that directory can make keys anyway, so it opens nothing that was closed. It is made at first use, and made anew when it was
revoked, lost, read by others, or belongs to another database.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from aigw.errors import StoreError

if TYPE_CHECKING:
    from aigw.cli.locations import Locations
    from aigw.config.schema import Config
    from aigw.storage.base import Store

NAME = "operator"
"""The consumer's name, reserved: what it spends is what the commands of this machine spent."""

FILE_NAME = "operator.key"

_MAX_BYTES = 1024  # a key has 59


class Credential(NamedTuple):
    """The operator's key. `fresh`: made just now, so a running server learns of it within a second."""

    key: str
    fresh: bool


def operator_key(where: Locations, config: Config) -> str:
    """The key itself; made when there is no good one. Raises ConfigError, StoreError."""
    return credential(where, config).key


def credential(where: Locations, config: Config) -> Credential:
    """The key, and whether it is so new that a running server may not know it yet. Raises ConfigError, StoreError."""
    import asyncio

    return asyncio.run(_credential(where, config))


async def _credential(where: Locations, config: Config) -> Credential:
    from aigw.access.consumer_keys import id_in

    path = where.data_path() / FILE_NAME
    async with where.store(config) as store:  # makes the directory
        try:
            kept, exposed = _read(path)
            good = bool(kept) and await _good(store, kept)
            if good and not exposed:
                return Credential(kept, fresh=False)
            if exposed:
                path.unlink(missing_ok=True)  # a new file: who has the old one open must not read on
            with _locked(path) as file:
                if (made := _content(file)) and await _good(store, made):
                    return Credential(made, fresh=True)  # by another process, a moment ago
                fresh = await _made(store, file)
            if good:
                await store.revoke_key(id_in(kept), time.time())
            return Credential(fresh, fresh=True)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise StoreError(f"the operator's key {path} cannot be kept: {reason}") from None


async def _good(store: Store, key: str) -> bool:
    """Whether *key* is a live one of the operator in this store."""
    from aigw.access.consumer_keys import digest, id_in

    stored = await store.key(id_in(key))
    if stored is None or stored.digest != digest(key) or stored.revoked is not None:
        return False
    if stored.expires is not None and stored.expires <= time.time():
        return False
    consumer = await store.consumer(stored.consumer_id)
    return consumer is not None and consumer.name == NAME


async def _made(store: Store, file: int) -> str:
    """A new key, in the file before it is in the store: a crash between the two leaves no live key that nobody has."""
    from aigw.access.consumer_keys import mint, new_id
    from aigw.consumer import Consumer

    consumer = await store.consumer(NAME)
    if consumer is None or consumer.name != NAME:
        consumer = Consumer(id=new_id(), name=NAME)
        try:
            await store.put_consumer(consumer)
        except StoreError:  # with a store that machines share, another one may have been faster
            found = await store.consumer(NAME)
            if found is None:
                raise
            consumer = found
    key, stored = mint(consumer.id, now=time.time())
    os.ftruncate(file, 0)
    os.pwrite(file, f"{key}\n".encode(), 0)
    os.fsync(file)
    await store.put_key(stored)
    return key


def _read(path: Path) -> tuple[str, bool]:
    """What the file holds ("" when there is none), and whether others may read or change it."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return "", False
    try:
        status = os.fstat(file)
        return _content(file), bool(stat.S_IMODE(status.st_mode) & 0o077) or status.st_uid != os.geteuid()
    finally:
        os.close(file)


def _content(file: int) -> str:
    return os.pread(file, _MAX_BYTES, 0).decode("ascii", "replace").strip()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    """The file, made when it is missing, and nobody else's until the end."""
    import fcntl

    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(file)  # ends the lock
