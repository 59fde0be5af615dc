"""Long rests of provider keys outlive the process: kept in the store, under a hash of the key, never under the key."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Mapping
from typing import Protocol

import msgspec

from aigw.deployment import ProviderKey
from aigw.routing.key_pool import KeyPool

log = logging.getLogger("aigw.routing")

WITHIN = 2.0
"""Seconds that a start waits for what was remembered: a key tried once too often is better than no service."""


class Values(Protocol):
    """The part of a Store that is needed here."""

    async def get(self, key: str) -> bytes | None: ...

    async def put(self, key: str, value: bytes, ttl: float | None = None) -> None: ...

    async def delete(self, key: str) -> None: ...


class Kept(msgspec.Struct):
    """One rest as it is stored. `until` is seconds since the epoch; the rest as in `KeyState`."""

    until: float
    reason: str
    row: int = 1
    alone: bool = False


class Rests:
    """Brings the pools' long rests to the store and back."""

    def __init__(self, store: Values, pools: Mapping[str, KeyPool]) -> None:
        self._store, self._pools = store, pools
        self._changed = asyncio.Event()
        self._stored: set[str] = set()
        for pool in pools.values():
            pool.on_lasting = self._changed.set

    async def restore(self) -> None:
        """What was known before a restart. A store that does not answer is no reason not to serve."""
        try:
            async with asyncio.timeout(WITHIN):
                for provider, pool in self._pools.items():
                    for key in pool.keys:
                        if key.secret:
                            await self._restore(provider, pool, key)
        except Exception as error:  # noqa: BLE001 - see above
            log.warning("which provider keys rested could not be read: %s", type(error).__name__)

    async def _restore(self, provider: str, pool: KeyPool, key: ProviderKey) -> None:
        name = _name(provider, key)
        stored = await self._store.get(name)
        if stored is None:
            return
        self._stored.add(name)
        try:
            kept = msgspec.json.decode(stored, type=Kept)
        except msgspec.DecodeError:
            return  # of another version
        left = kept.until - time.time()
        pool.restore(key, left, kept.reason, kept.row, alone=kept.alone, now=time.perf_counter())
        if left > 0:
            log.info("provider key %s rests for %.0f s more (%s), as before the restart", key.label, left, kept.reason)

    async def follow(self) -> None:
        """Store what changes, until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._store_all()
            except Exception as error:  # noqa: BLE001 - tried again with the next change
                log.warning("which provider keys rest could not be stored: %s", type(error).__name__)

    async def _store_all(self) -> None:
        now, at = time.perf_counter(), time.time()
        standing: set[str] = set()
        for provider, pool in self._pools.items():
            for one in pool.lasting(now):
                name = _name(provider, one.key)
                kept = Kept(at + one.seconds, one.reason, one.row, one.alone)
                await self._store.put(name, msgspec.json.encode(kept), one.seconds)
                standing.add(name)
        for name in self._stored - standing:
            await self._store.delete(name)
        self._stored = standing


def _name(provider: str, key: ProviderKey) -> str:
    return "key-rest/" + hashlib.sha256(f"{provider}\0{key.secret}".encode()).hexdigest()
