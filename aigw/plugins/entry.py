"""One plugin as a config wants it: its instance, when it is asked, what happens when it fails, and what it took so far."""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from time import monotonic, perf_counter
from types import coroutine
from typing import Any, Literal

from aigw.hooks import PHASES, Plugin
from aigw.plugins.scope import Scope

log = logging.getLogger("aigw.plugins")

BLOCKED = 0.1
"""Seconds at a stretch that a plugin may keep the event loop, and with it every other exchange, before it is named."""

SAID_EVERY = 10.0
"""Seconds between two lines in the log about the same trouble with the same plugin."""


class Counts:
    """What a plugin did since the server's start; it survives reloads. `seconds` is how long its code ran, waits not
    counted; `blocked` how often it held up everybody; `own` what it counts itself (`Host.count`)."""

    __slots__ = ("blocked", "calls", "errors", "own", "refused", "seconds", "worst")

    def __init__(self) -> None:
        self.calls = self.errors = self.refused = self.blocked = 0
        self.seconds = self.worst = 0.0
        self.own: dict[str, int] = {}


class Entry:
    """A plugin at work. `has` names the hooks it wrote."""

    __slots__ = (
        "_said",
        "busy_since",
        "counts",
        "fail",
        "has",
        "name",
        "order",
        "plugin",
        "scope",
        "source",
        "timeout",
        "uncovered",
    )

    def __init__(
        self,
        name: str,
        plugin: Plugin,
        *,
        scope: Scope,
        fail: Literal["open", "closed"],
        timeout: float,
        uncovered: Literal["refuse", "pass"],
        order: int,
        counts: Counts,
        source: str,
    ) -> None:
        """*timeout* in seconds, for each asynchronous hook; *source* says where its code is from ("built in", a package, a
        file); *order* is its place among all."""
        self.name, self.plugin, self.scope, self.fail, self.timeout = name, plugin, scope, fail, timeout
        self.uncovered, self.order, self.counts, self.source = uncovered, order, counts, source
        self.has = frozenset(hook for hook in HOOKS if getattr(type(plugin), hook) is not getattr(Plugin, hook))
        self.busy_since = 0.0  # monotonic; while its code runs
        self._said: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"Entry({self.name!r})"

    @property
    def reads_stream(self) -> bool:
        """Whether streams have to be read for it."""
        return bool(self.has & {"event", "events", "complete"}) or (self.plugin.buffers and "answer" in self.has)

    @property
    def reads_answer(self) -> bool:
        """Whether whole answers have to be: those without an `answer` hook get its events."""
        return bool(self.has & {"event", "events", "answer", "complete"})

    @property
    def strict(self) -> bool:
        """Whether what it cannot look into may not pass."""
        return self.fail == "closed" and self.uncovered == "refuse" and self.plugin.phase in ("mask", "guard")

    def sorts(self) -> tuple[int, int]:
        return PHASES.index(self.plugin.phase), self.order

    # its time

    def took(self, seconds: float) -> None:
        """One stretch of its code, during which nothing else ran."""
        counts = self.counts
        counts.seconds += seconds
        if seconds > counts.worst:
            counts.worst = seconds
        if seconds > BLOCKED:
            counts.blocked += 1
            if self.may_say("blocked"):
                log.warning(
                    "the plugin %r kept every other request waiting for %.2f s; what takes long belongs into a thread or a "
                    "process",
                    self.name,
                    seconds,
                )

    def may_say(self, what: str) -> bool:
        """Whether the log has not heard of this lately."""
        now = monotonic()
        if now - self._said.get(what, -SAID_EVERY) < SAID_EVERY:
            return False
        self._said[what] = now
        return True


HOOKS = ("received", "body", "request", "failed", "head", "event", "events", "answer", "complete", "recorded")


def started(entry: Entry, work: Coroutine[Any, Any, Any]) -> Any:
    """Runs *work* until it waits for something, and returns what. Raises StopIteration with its result when it ends first."""
    began = entry.busy_since = perf_counter()
    try:
        return work.send(None)
    finally:
        entry.busy_since = 0.0
        entry.took(perf_counter() - began)


@coroutine
def watched(entry: Entry, work: Coroutine[Any, Any, Any], waits_for: Any) -> Any:
    """Goes on with *work*, which waits for *waits_for*, and tells *entry* of each stretch between two waits: asynchronous code
    that forgets to wait is found so."""
    send, throw = work.send, work.throw
    while True:
        thrown: BaseException | None = None
        try:
            yield waits_for
        except BaseException as error:  # noqa: BLE001 - it is the plugin's to handle, a cancellation too
            thrown = error
        began = entry.busy_since = perf_counter()
        try:
            waits_for = send(None) if thrown is None else throw(thrown)
        except StopIteration as end:
            return end.value
        finally:
            entry.busy_since = 0.0
            entry.took(perf_counter() - began)
