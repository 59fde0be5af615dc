"""Counters in the memory of this process: rate windows, gauges and the periods of budgets.

**Windows slide.** A fixed window lets a caller spend its limit in the last second of one and again in the first of the next.
Here the window before still counts, by the share of it that lies within the last `window` seconds, taken as evenly spread:
right after the border it counts in full, and it fades until the next. So a burst is never larger than the limit, and a
steady caller may use its limit exactly. The worst pattern (a burst at the end of one window, then a steady flow all through
the next) gets twice the limit within one window's length, but never faster than the limit's own rate after the burst. The
cost is two integers a key.

**Windows longer than an hour are fixed**, aligned to the epoch (a day begins at midnight UTC).

**Periods** are the windows of budgets: their keys name the day or the month, so a new one is another key. What one had used
before this process counted comes from the ledger (`prime`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aigw.storage.base import Claim, Permit

LONGEST_SLIDING = 3600
"""Seconds; longer windows are fixed."""

GAUGE_RETRY = 1.0
"""Seconds after which a full gauge may be asked again: when another request ends, nobody knows."""


class Window:
    """Uses of one counter: in window number `index`, and in the one before."""

    __slots__ = ("before", "index", "used")

    def __init__(self, index: int) -> None:
        self.index, self.used, self.before = index, 0, 0

    def move_to(self, index: int) -> None:
        """Time went on (or jumped: then nothing known still counts)."""
        self.before = self.used if index == self.index + 1 else 0
        self.used = 0
        self.index = index

    def correct(self, index: int, amount: int) -> None:
        """*amount* more (or less) was used in window *index* than was counted then. What is past is past."""
        if index == self.index:
            self.used = max(0, self.used + amount)
        elif index == self.index - 1:
            self.before = max(0, self.before + amount)


class _Period:
    """One window of a budget: what was used in it, holds included, and when it ends."""

    __slots__ = ("ends", "used")

    def __init__(self, used: int, ends: float) -> None:
        self.used, self.ends = used, ends


class MemoryCounters:
    """`Counters` for a gateway of one process. What it counts is gone with the process."""

    def __init__(self) -> None:
        self._windows: dict[tuple[str, int], Window] = {}
        self._gauges: dict[str, int] = {}
        self._periods: dict[str, _Period] = {}

    async def hold(self, claims: Sequence[Claim], now: float) -> Permit:
        return self.take(claims, now)

    def take(self, claims: Sequence[Claim], now: float) -> Permit:
        """`hold`, at once: nothing else runs between the check and the count, which is what makes it atomic."""
        held: list[Window | _Period | None] = []
        left: list[int] = []
        index = known = 0
        periods = self._periods
        for claim in claims:
            amount = claim.amount
            if claim.ends:
                period = periods.get(claim.key)
                if period is None:
                    self._undo(claims, held)
                    return Permit(unknown=[one.key for one in claims if one.ends and one.key not in periods])
                used = period.used + amount
                free = claim.limit - used
                if free < 0:
                    return self._refused(claims, held, claim, claim.ends - now, now)
                period.used = used
                held.append(period)
                left.append(free)
                continue
            length = claim.window
            if not length:
                used = self._gauges.get(claim.key, 0) + amount
                free = claim.limit - used
                if free < 0:
                    return self._refused(claims, held, claim, GAUGE_RETRY, now)
                self._gauges[claim.key] = used
                held.append(None)
            else:
                if length != known:
                    index, known = int(now // length), length
                window = self._windows.get((claim.key, length))
                if window is None:
                    window = self._windows[claim.key, length] = Window(index)
                elif window.index != index and window.index != index + 1:  # a clock set back a little keeps the newer window
                    window.move_to(index)
                used = window.used
                if window.before and length <= LONGEST_SLIDING:  # as `counted`, without the call
                    used += int(window.before * min(1.0, ((window.index + 1) * length - now) / length) - 1e-5)
                free = claim.limit - amount - used
                if free < 0:
                    return self._refused(claims, held, claim, wait_for(window, claim, now), now)
                window.used += amount
                held.append(window)
            left.append(free)
        return Permit(tuple(claims), None, 0.0, (now, held), left)

    def _refused(
        self, claims: Sequence[Claim], held: Sequence[Window | _Period | None], refused: Claim, wait: float, now: float
    ) -> Permit:
        self._undo(claims, held)
        unknown = [one.key for one in claims if one.ends and one.key not in self._periods]
        if unknown:
            return Permit(unknown=unknown)
        return Permit((), refused, wait, None, [max(0, self._free(claim, now)) for claim in claims])

    def _undo(self, claims: Sequence[Claim], held: Sequence[Window | _Period | None]) -> None:
        """Give back what a hold took until it failed."""
        for claim, taken in zip(claims, held, strict=False):  # as far as we came
            if taken is None:
                self._lower(claim)
            else:
                taken.used -= claim.amount

    def _free(self, claim: Claim, now: float) -> int:
        """How much of *claim*'s limit nobody holds."""
        if claim.ends:
            return claim.limit - self._periods[claim.key].used
        if not claim.window:
            return claim.limit - self._gauges.get(claim.key, 0)
        window = self._windows.get((claim.key, claim.window))
        if window is None or window.index < int(now // claim.window) - 1:
            return claim.limit
        if window.index == int(now // claim.window) - 1:
            window.move_to(window.index + 1)
        return claim.limit - counted(window, claim.window, now)

    def settle(self, permit: Permit, used: Mapping[str, int]) -> None:
        if permit.token is None:
            return
        now, held = permit.token
        permit.token = None
        for claim, taken in zip(permit.claims, held, strict=True):
            if taken is None:
                self._lower(claim)
                continue
            took = used.get(claim.key)
            if took is None:
                continue
            if claim.ends:
                taken.used += took - claim.amount
            elif taken.index * claim.window <= now:  # it is still the same window
                taken.used = max(0, taken.used + took - claim.amount)
            else:
                taken.correct(int(now // claim.window), took - claim.amount)

    def release(self, permit: Permit) -> None:
        self.settle(permit, {claim.key: 0 for claim in permit.claims})

    async def prime(self, used: Mapping[str, tuple[int, float]]) -> None:
        for key, (amount, ends) in used.items():
            if key not in self._periods:
                self._periods[key] = _Period(amount, ends)

    async def read(self, keys: Sequence[str]) -> list[int | None]:
        found = [self._periods.get(key) for key in keys]
        return [None if period is None else period.used for period in found]

    def add(self, used: Mapping[str, int]) -> None:
        for key, amount in used.items():
            period = self._periods.get(key)
            if period is not None:
                period.used += amount

    async def sweep(self, now: float) -> None:
        """Windows that can no longer count (theirs and the next are over) go, and periods that have ended."""
        self._windows = {key: window for key, window in self._windows.items() if window.index >= int(now // key[1]) - 1}
        self._periods = {key: period for key, period in self._periods.items() if period.ends > now}

    async def close(self) -> None:
        """Nothing to let go of."""

    def _lower(self, claim: Claim) -> None:
        left = self._gauges.get(claim.key, 0) - claim.amount
        if left > 0:
            self._gauges[claim.key] = left
        else:
            self._gauges.pop(claim.key, None)


def counted(window: Window, length: int, now: float) -> int:
    """What of a window's uses, and of those in the one before, counts now."""
    if not window.before or length > LONGEST_SLIDING:
        return window.used
    # What is just at the edge is out (a steady caller's oldest request), rounding errors included.
    return window.used + int(window.before * min(1.0, ((window.index + 1) * length - now) / length) - 1e-5)


def wait_for(window: Window, claim: Claim, now: float) -> float:
    """Seconds until *claim* would fit if nobody else came."""
    length, room = claim.window, claim.limit - claim.amount
    end = (window.index + 1) * length
    if room < 0 or length > LONGEST_SLIDING:  # never, or when the window ends
        return end - now
    if window.used <= room:  # the window before has to fade
        share = (room - window.used + 1) / window.before
    else:  # this one has to become the window before, and fade
        share, end = (room + 1) / window.used, end + length
    return max(0.0, end - share * length - now) + 0.001  # the moment itself is still too early
