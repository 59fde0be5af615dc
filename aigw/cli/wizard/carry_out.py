"""A plan carried out: files for the keys, the config, the consumer's key. What fails on the way takes all of it back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from aigw.cli import operator
from aigw.cli.wizard.plan import Key, Plan, Provider, write
from aigw.config import edit, load, secrets
from aigw.config.edit import ConfigFile
from aigw.errors import ConfigError

if TYPE_CHECKING:
    from aigw.cli.locations import Locations
    from aigw.config.schema import Config


class Done(NamedTuple):
    """What was made. `key` is the consumer's, shown once; "" when none was wanted."""

    config: Config
    files: tuple[str, ...]  # references of the keys that were kept
    key: str = ""
    key_id: str = ""


def carry_out(plan: Plan, file: ConfigFile, where: Locations) -> Done:
    """Do what *plan* says; *file* is the config as it was read when the plan was made. Ctrl-C has to wait for the moment it
    takes.

    Raises ConfigError, StoreError or OSError when it cannot be done: then everything is as it was.
    """
    folder = plan.path.absolute().parent
    before = plan.path.read_bytes() if file.exists else None
    made = _missing(folder / "keys")
    kept: list[str] = []

    def reference(provider: Provider, key: Key) -> str:
        if not key.reference:
            kept.append(secrets.keep(folder, provider.name, key.secret))
            return kept[-1]
        return key.reference

    with _undisturbed():
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write(plan, file, reference)
            file.save()
            config = load.parse(file.text(), str(plan.path))
            key, key_id = asyncio.run(_consumer_key(plan.consumer, where, config)) if plan.consumer else ("", "")
        except BaseException:
            _take_back(plan.path, before, folder, kept, made)
            raise
    return Done(config, tuple(kept), key, key_id)


async def _consumer_key(name: str, where: Locations, config: Config) -> tuple[str, str]:
    """A new key of the consumer *name*, who is made when there is none; and the key's id."""
    from aigw.access.consumer_keys import mint, new_id
    from aigw.consumer import Consumer

    async with where.store(config) as store:
        consumer = await store.consumer(name)
        if consumer is None or consumer.name != name:
            consumer = Consumer(id=new_id(), name=name)
            await store.put_consumer(consumer)
        key, stored = mint(consumer.id, now=time.time())
        await store.put_key(stored)
    return key, stored.id


def have_keys(where: Locations, config: Config) -> bool:
    """Whether a consumer has a key that was not revoked; the operator's own does not count. Makes no store where there is
    none."""
    if config.storage.url == "sqlite:" and not (where.data_path() / "aigw.db").exists():
        return False

    async def look() -> bool:
        async with where.store(config) as store:
            consumers, keys, _ = await store.consumers()
        others = {consumer.id for consumer in consumers if consumer.name != operator.NAME}
        return any(key.revoked is None and key.consumer_id in others for key in keys)

    return asyncio.run(look())


def _take_back(path: Path, before: bytes | None, folder: Path, kept: list[str], made: list[Path]) -> None:
    """Leave what was there before: the config's old content, no new key files, no new empty directories."""
    with contextlib.suppress(ConfigError, OSError):
        if before is None:
            path.unlink(missing_ok=True)
        elif path.read_bytes() != before:
            edit.replace(path, path.read_bytes(), before)
    for reference in kept:
        with contextlib.suppress(OSError):
            secrets.forget(folder, reference)
    for directory in made:
        with contextlib.suppress(OSError):
            directory.rmdir()  # not when somebody put something there


def _missing(directory: Path) -> list[Path]:
    """*directory* and those above it that do not exist yet, innermost first."""
    return [one for one in (directory, *directory.parents) if not one.exists()]


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C and a closed terminal wait until the end: half of it done would be worse than either."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    late = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, late)
        signal.signal(signal.SIGINT, before)


def unwritable(path: Path) -> str:
    """Why the config cannot be written at *path*, found before anybody answers questions; "" when nothing speaks against it."""
    place = next(one for one in (path.absolute().parent, *path.absolute().parent.parents) if one.exists())
    if path.is_dir():
        return f"{path} is a directory; expected a file"
    if not place.is_dir():
        return f"{place} is no directory"
    return "" if os.access(place, os.W_OK | os.X_OK) else f"{place} cannot be written to by this user"
