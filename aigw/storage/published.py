"""The config that nodes share: in the store, each version for good, the newest one served by all who follow it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from aigw.errors import StoreError
from aigw.storage.base import Store

log = logging.getLogger("aigw.storage")

EVERY = 1.0
"""Seconds between two looks at the store: one small read."""

NEWEST = "config"
"""Where the newest version stands; version N stands at config/N as well."""


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """One version. `by` is who applied it (user@machine), `at` when (epoch seconds)."""

    version: int
    at: float
    by: str
    text: str


_decode = msgspec.json.Decoder(Published).decode


async def newest(store: Store) -> Published | None:
    """What nodes serve; None when nothing was applied yet. Raises StoreError."""
    found = await store.get(NEWEST)
    return None if found is None else _read(found)


async def version(store: Store, number: int) -> Published | None:
    """An earlier one."""
    found = await store.get(f"{NEWEST}/{number}")
    return None if found is None else _read(found)


def _read(found: bytes) -> Published:
    try:
        return _decode(found)
    except msgspec.DecodeError as error:
        raise StoreError(f"the config in the store cannot be read ({error}); was it written by a newer aigw?") from None


async def publish(store: Store, text: str, *, by: str, at: float, after: Published | None) -> Published | None:
    """Make *text* the newest version, if *after* still is; None when somebody else was faster."""
    fresh = Published(version=1 if after is None else after.version + 1, at=at, by=by, text=text)
    encoded = msgspec.json.encode(fresh)
    expected = None if after is None else msgspec.json.encode(after)
    if not await store.swap(NEWEST, encoded, expected=expected, change="config"):
        return None
    await store.put(f"{NEWEST}/{fresh.version}", encoded)
    return fresh


async def follow(store: Store, keep: Callable[[str], bool], changed: Callable[[], None]) -> None:
    """Hand each newest version to *keep* (on a thread; it says whether that was new; then *changed* is called), until
    cancelled. A store that is away is asked again."""
    away = False
    while True:
        try:
            found = await newest(store)
            if found is not None and await asyncio.to_thread(keep, found.text):
                log.info("config version %d of the store, applied by %s", found.version, found.by)
                changed()
            away = False
        except (StoreError, OSError) as error:
            if not away:
                log.warning("the config in the store cannot be followed now: %s", error)
            away = True
        await asyncio.sleep(EVERY)
