"""How well each deployment does: what is under way, how fast it begins to answer, and whether to pass it over for a while.

A circuit is closed while a deployment answers. It opens when, of the answers in a sliding window, too large a share failed
(`Settings.errors` of at least `samples`); when nothing has come back but three failures in a row; or when twenty came in a row,
whatever was before. While it is open other places are preferred. After a pause one real request may look whether it is back
(half-open): a good answer closes the circuit, a failure doubles the pause up to `longest_pause`. Whoever looks and hears
nothing for `LOOK` seconds is not waited for: the next one may look too, so that a place that swallowed a request is noticed
when it is back.

All times are monotonic seconds (perf_counter), handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import exp, inf
from random import uniform
from typing import Any

import msgspec

MOST = 4096
"""Deployments that are known; callers choose names ("provider/anything"), so there must be an end."""

IN_A_ROW = 3
"""Failures with no success in the window that open a circuit, however few: traffic may be slow."""

MANY_IN_A_ROW = 20
"""The same, however many good answers the window still holds: at a thousand requests a second the share of failures would take
seconds to tell what these tell at once. A place that fails every second time has so many in a row once in a million."""

LOOK = 2.0
"""Seconds that one request has, while a circuit is half-open, before another may look as well."""

DECAY = 10.0
"""Seconds in which the memory of a slow answer fades to a third (peak-EWMA, as in Finagle and linkerd)."""

SLICES = 10
"""Parts of the window that are forgotten one by one."""

LATEST = 128
"""First-byte times that are kept to learn what is unusual."""

LEARNED = 20
"""As many must be known before anything is called unusual."""


class Settings(msgspec.Struct, frozen=True):
    """`[circuit]` of the config."""

    errors: float = 0.5
    samples: int = 5
    window: float = 10.0
    slow: float = inf
    pause: float = 1.0
    longest_pause: float = 4.0


Tell = Callable[[str, float, int, str], None]
"""Hears of a circuit that opened or closed: whose, for how many seconds (0: closed), how many looks failed, the reason."""


class Health:
    """One deployment's. Not thread-safe: one event loop."""

    __slots__ = (
        "_at",
        "_bad",
        "_ewma",
        "_ewma_at",
        "_good",
        "_latest",
        "_looked",
        "_p95",
        "_slice",
        "id",
        "in_flight",
        "opened",
        "reason",
        "row",
        "settings",
        "tell",
        "until",
    )

    def __init__(self, id_: str, settings: Settings) -> None:
        self.id, self.settings = id_, settings
        self.tell: Tell | None = None
        self.in_flight = 0
        self.until = 0.0  # open until then, then half-open; 0: closed
        self.opened = 0  # looks in a row that failed
        self.row = 0  # failures since the last success
        self.reason = ""  # the latest failure's code
        self._good, self._bad = [0] * SLICES, [0] * SLICES
        self._slice, self._at = 0, -inf
        self._looked = -inf
        self._ewma, self._ewma_at = [0.0, 0.0], [0.0, 0.0]  # of whole answers, of streams
        self._latest: tuple[list[float], list[float]] = ([], [])
        self._p95: list[float | None] = [None, None]

    # what it is asked

    def allows(self, now: float) -> bool:
        """Whether it may be preferred: its circuit is closed, or it is time to look and nobody is looking."""
        return not self.until or (now >= self.until and now - self._looked >= LOOK)

    @property
    def closed(self) -> bool:
        return not self.until

    def latency(self, now: float, *, stream: bool) -> float:
        """Seconds to the first byte, lately; 0 when nothing is known."""
        known = self._ewma[stream]
        return known * exp((self._ewma_at[stream] - now) / DECAY) if known else 0.0

    def load(self, now: float, *, stream: bool) -> float:
        """Peak-EWMA's cost: how long one more request would wait."""
        return self.latency(now, stream=stream) * (self.in_flight + 1)

    def p95(self, *, stream: bool) -> float | None:
        """The 95th percentile of the latest first bytes; None while too few are known."""
        latest, known = self._latest[stream], self._p95[stream]
        if known is None and len(latest) >= LEARNED:
            known = self._p95[stream] = sorted(latest)[int(len(latest) * 0.95)]
        return known

    def counts(self, now: float) -> tuple[int, int]:
        """Good and failed answers in the window."""
        self._turn(now)
        return sum(self._good), sum(self._bad)

    def state(self, now: float) -> str:
        if not self.until:
            return "closed"
        return "half-open" if now >= self.until else "open"

    # what it is told

    def began(self, now: float) -> None:
        """A request goes there."""
        self.in_flight += 1
        if self.until and now >= self.until:
            self._looked = now

    def ended(self) -> None:
        """The attempt is over, however."""
        self.in_flight -= 1

    def succeeded(self, first_byte: float, now: float, *, stream: bool) -> None:
        """It answered; the first byte took *first_byte* seconds."""
        self._learn(first_byte, now, stream)
        if first_byte > self.settings.slow:
            self._failed("slow", now)
            return
        self.alive(now)

    def alive(self, now: float) -> None:
        """It answered, be it that the request is wrong."""
        self._turn(now)
        self._good[self._slice] += 1
        self.row = 0
        if self.until:
            self.until, self.opened, self._looked = 0.0, 0, -inf
            self._bad = [0] * SLICES  # from before: they would open it again at the first hiccup
            if self.tell is not None:
                self.tell(self.id, 0.0, 0, "")

    def failed(self, reason: str, took: float, now: float, *, stream: bool) -> None:
        """It failed, after *took* seconds."""
        if reason == "provider_timeout":
            self._learn(took, now, stream)
        self._failed(reason, now)

    def overtaken(self, took: float, now: float, *, stream: bool) -> None:
        """Somebody else was quicker: it would have taken at least *took* seconds. No failure, but slow."""
        self._learn(took, now, stream)

    def _failed(self, reason: str, now: float) -> None:
        self._turn(now)
        self._bad[self._slice] += 1
        self.row += 1
        self.reason = reason
        if self.until:
            if now >= self.until:  # whoever looked; those that were under way when it opened teach nothing new
                self._open(now)
        elif self._should_open():
            self._open(now)

    def _should_open(self) -> bool:
        good, bad = sum(self._good), sum(self._bad)
        if self.row >= (MANY_IN_A_ROW if good else IN_A_ROW):
            return True
        settings = self.settings
        return good + bad >= settings.samples and bad >= settings.errors * (good + bad)

    def _open(self, now: float) -> None:
        settings = self.settings
        pause = min(settings.pause * 2 ** min(self.opened, 16), settings.longest_pause)
        self.until = now + pause * uniform(0.8, 1.0)  # noqa: S311 - so that many servers do not look at once
        self.opened += 1
        self._looked = -inf
        if self.tell is not None:
            self.tell(self.id, self.until - now, self.opened, self.reason)

    def hear(self, seconds: float, opened: int, reason: str, now: float) -> None:
        """Somebody else who calls this deployment opened its circuit, or (0 seconds) closed it."""
        if seconds > 0:
            self.until, self.opened = max(self.until, now + seconds), max(self.opened, opened)
            self.reason = reason or self.reason
            self._looked = -inf
        elif self.until:
            self.until, self.opened, self.row, self._looked = 0.0, 0, 0, -inf
            self._bad = [0] * SLICES

    def _learn(self, first_byte: float, now: float, stream: bool) -> None:
        known = self.latency(now, stream=stream)
        if first_byte >= known:
            self._ewma[stream] = first_byte  # the peak counts at once
        else:
            weight = exp((self._ewma_at[stream] - now) / DECAY)
            self._ewma[stream] = self._ewma[stream] * weight + first_byte * (1 - weight)
        self._ewma_at[stream] = now
        latest = self._latest[stream]
        latest.append(first_byte)
        if len(latest) >= LATEST + 16:
            del latest[:16]
            self._p95[stream] = None
        elif not len(latest) % 8:
            self._p95[stream] = None

    def _turn(self, now: float) -> None:
        """Forget what is older than the window."""
        width = self.settings.window / SLICES
        gone = (now - self._at) / width
        if gone < 1:
            return
        for _ in range(int(min(gone, SLICES))):
            self._slice = (self._slice + 1) % SLICES
            self._good[self._slice] = self._bad[self._slice] = 0
        self._at = now if gone >= SLICES else self._at + int(gone) * width

    def view(self, now: float) -> dict[str, Any]:
        """For people and programs: no secret is in it."""
        good, bad = self.counts(now)
        return {
            "deployment": self.id,
            "circuit": self.state(now),
            "seconds": round(max(0.0, self.until - now), 1) if self.until else 0.0,
            "reason": self.reason if self.until or bad else "",
            "row": self.row,
            "in_flight": self.in_flight,
            "good": good,
            "failed": bad,
            "first_byte": round(self.latency(now, stream=False), 4) or None,
            "first_token": round(self.latency(now, stream=True), 4) or None,
        }

    def resume(self, seen: Mapping[str, Any], now: float) -> None:
        """Be as another one was when it gave its `view`: passed over or not, how fast and how busy."""
        self.in_flight, self.reason, self.row = seen["in_flight"], seen["reason"], seen["row"]
        self.until = 0.0 if seen["circuit"] == "closed" else now + seen["seconds"]
        self._ewma = [seen["first_byte"] or 0.0, seen["first_token"] or 0.0]
        self._ewma_at = [now, now]


class Board:
    """The health of all deployments, by their ids. Outlives a reload."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.known: dict[str, Health] = {}
        self.tell: Tell | None = None
        """Hears of each circuit that opens or closes here: others call the same deployments. Set before the first is known."""
        self.forgotten = 0  # times that healths were let go: whoever keeps some looks them up anew

    def reconfigure(self, settings: Settings) -> None:
        self.settings = settings
        for health in self.known.values():
            health.settings = settings

    def of(self, deployment: str) -> Health:
        health = self.known.get(deployment)
        if health is None:
            if len(self.known) >= MOST:
                self.forgotten += 1
                self.known = {name: one for name, one in self.known.items() if one.in_flight or one.until}
            health = self.known[deployment] = Health(deployment, self.settings)
            health.tell = self.tell
        return health

    def view(self, now: float) -> list[dict[str, Any]]:
        return [health.view(now) for health in self.known.values()]

    def resume(self, seen: Iterable[Mapping[str, Any]], now: float) -> None:
        """Be as another board was when it gave its `view`, as far as choices depend on it."""
        for one in seen:
            self.of(one["deployment"]).resume(one, now)
