"""The plugins of one config, in their order: made, started, handed over by a reload, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Mapping, Sequence
from time import perf_counter

from aigw.errors import ConfigError
from aigw.exchange import Exchange
from aigw.plugins.entry import Counts, Entry
from aigw.plugins.run import Run

log = logging.getLogger("aigw.plugins")

STARTUP = 30.0
"""Seconds that a plugin has to get ready, and to end."""

STUCK = 1.0
"""Seconds after which a plugin that does not give the event loop back is named while it still has it."""


class Manager:
    """Of one config. `counts` are those of the process: a reload takes them over."""

    def __init__(self, entries: Sequence[Entry], counts: dict[str, Counts]) -> None:
        self.entries = tuple(sorted(entries, key=Entry.sorts))
        self.counts = counts
        self.receives = any("received" in entry.has for entry in self.entries)
        self.reads_body = any("body" in entry.has for entry in self.entries)
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._started: list[Entry] = []

    def __bool__(self) -> bool:
        return bool(self.entries)

    def run(self, exchange: Exchange) -> Run:
        self._under_way += 1
        self._idle.clear()
        return Run(self, exchange, self.entries)

    def ended(self) -> None:
        """An exchange that this manager began has its record."""
        self._under_way -= 1
        if not self._under_way:
            self._idle.set()

    # their life

    def inherit(self, previous: Manager) -> None:
        """From those that a reload puts these in the place of, by the names of their tables."""
        known: Mapping[str, Entry] = {entry.name: entry for entry in previous.entries}
        for entry in self.entries:
            before = known.get(entry.name)
            if before is None:
                continue
            try:
                entry.plugin.inherit(before.plugin)
            except Exception as error:  # noqa: BLE001 - it begins anew then
                log.error("the plugin %r took nothing over from before: %s", entry.name, type(error).__name__)

    async def startup(self) -> None:
        """Have all get ready. Raises ConfigError for the first that cannot; those before it are ended again."""
        for entry in self.entries:
            try:
                async with asyncio.timeout(STARTUP):
                    await entry.plugin.startup()
            except ConfigError:
                await self.shutdown()
                raise
            except TimeoutError:
                await self.shutdown()
                raise ConfigError(f"was not ready within {STARTUP:g} s", key=f"plugins.{entry.name}") from None
            except Exception as error:  # noqa: BLE001 - somebody else's code
                await self.shutdown()
                said = f"{type(error).__name__}: {error}"
                raise ConfigError(f"could not start: {said[:300]}", key=f"plugins.{entry.name}") from None
            self._started.append(entry)

    async def shutdown(self, patience: float | None = None) -> None:
        """Once the last exchange that they saw has ended, or after *patience* seconds. Never raises."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), patience)
        while self._started:
            entry = self._started.pop()
            try:
                async with asyncio.timeout(STARTUP):
                    await entry.plugin.shutdown()
            except Exception as error:  # noqa: BLE001 - the others end all the same
                log.error("the plugin %r did not end well: %s", entry.name, type(error).__name__)

    def stuck(self) -> tuple[str, float] | None:
        """The plugin that has had the event loop for too long, and for how many seconds. May be asked from another thread."""
        now = perf_counter()
        for entry in self.entries:
            since = entry.busy_since
            if since and now - since > STUCK:
                return entry.name, now - since
        return None


class Watchdog:
    """A thread that names a plugin which keeps the event loop: nobody else could while it does."""

    def __init__(self) -> None:
        self._manager: Manager | None = None
        self._thread: threading.Thread | None = None
        self._over = threading.Event()

    def watch(self, manager: Manager) -> None:
        self._manager = manager
        if manager and self._thread is None:
            self._thread = threading.Thread(target=self._look, name="plugin watchdog", daemon=True)
            self._thread.start()

    def close(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(timeout=2 * STUCK)

    def _look(self) -> None:
        said: tuple[str, float] | None = None
        while not self._over.wait(STUCK / 2):
            found = None if self._manager is None else self._manager.stuck()
            if found is not None and (said is None or said[0] != found[0] or found[1] > 2 * said[1]):
                log.error(
                    "the plugin %r has kept every request waiting for %.0f s and does not give the event loop back; "
                    "take it out of the config and restart",
                    *found,
                )
                said = found
            elif found is None:
                said = None
