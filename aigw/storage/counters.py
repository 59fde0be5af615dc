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
    """Uses of one counter: in window number `index`, and in the one before; each is `length` seconds long."""

    __slots__ = ("before", "index", "length", "used")

    def __init__(self, index: int, length: int = 60) -> None:
        self.index, self.used, self.before, self.length = index, 0, 0, length

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


MINUTE = 60

REQUESTS, PLACE, TOKEN_WINDOW, TOKENS, MONEY = range(5)
"""What a slot counts: requests a minute, requests at once, tokens a minute, tokens of a period, nano-USD of a period."""

Slot = tuple[int, str, int]
"""What it counts, its key, its limit: a claim without its amount, made once for all requests of a consumer."""

Taken = tuple[list[Window | _Period | None], list[int]]
"""What was held, and how much of each limit is left."""


class MemoryCounters:
    """`Counters` for a gateway of one process. What it counts is gone with the process. `at_once`: nobody need wait for it."""

    at_once = True

    def __init__(self) -> None:
        self._windows: dict[str | tuple[str, int], Window] = {}  # by key, and length where that is no minute
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
                name = claim.key if length == MINUTE else (claim.key, length)
                window = self._windows.get(name)
                if window is None:
                    window = self._windows[name] = Window(index, length)
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

    def take_slots(self, slots: Sequence[Slot], tokens: int, nano: int, now: float) -> Taken | None:
        """As `take`, of the claims that *slots* stand for, one request's with so many tokens and so much money: no claim is
        made for it, which is half of what holding costs. None, and nothing is held, where `take` would not grant all."""
        held: list[Window | _Period | None] = []
        left: list[int] = []
        index = int(now // MINUTE)
        windows, periods = self._windows, self._periods
        for kind, key, limit in slots:
            if kind >= TOKENS:
                amount = tokens if kind == TOKENS else nano
                if not amount:
                    continue
                period = periods.get(key)
                if period is None:
                    break
                used = period.used + amount
                if used > limit:
                    break
                period.used = used
                held.append(period)
                left.append(limit - used)
                continue
            if kind == PLACE:
                used = self._gauges.get(key, 0) + 1
                if used > limit:
                    break
                self._gauges[key] = used
                held.append(None)
                left.append(limit - used)
                continue
            amount = 1 if kind == REQUESTS else tokens
            if not amount:
                continue
            window = windows.get(key)
            if window is None:
                window = windows[key] = Window(index)
            elif window.index != index and window.index != index + 1:
                window.move_to(index)
            used = window.used + amount
            free = limit - used
            if window.before:
                share = window.index + 1 - now / MINUTE
                free -= int(window.before * (share if share < 1.0 else 1.0) - 1e-5)  # noqa: FURB136 - a call less
            if free < 0:
                break
            window.used = used
            held.append(window)
            left.append(free)
        else:
            return held, left
        self._undo_slots(slots, held, tokens, nano)
        return None

    def _undo_slots(self, slots: Sequence[Slot], held: Sequence[Window | _Period | None], tokens: int, nano: int) -> None:
        taken = iter(held)
        for kind, key, _ in slots:
            amount = 1 if kind <= PLACE else nano if kind == MONEY else tokens
            if not amount:
                continue
            try:
                one = next(taken)
            except StopIteration:
                return
            if one is None:
                self._lower(key, 1)
            else:
                one.used -= amount

    def settle_slots(
        self,
        slots: Sequence[Slot],
        held: Sequence[Window | _Period | None],
        size: tuple[int, int],
        used: tuple[int, int],
        now: float,
    ) -> None:
        """What `take_slots` held at *now* for *size* (tokens, nano) was really *used*."""
        tokens, nano = size
        more, more_nano = used[0] - tokens, used[1] - nano
        at = 0
        for kind, key, _ in slots:
            if kind == TOKENS:
                if tokens:
                    held[at].used += more  # type: ignore[union-attr] # a period
                    at += 1
            elif kind == MONEY:
                if nano:
                    held[at].used += more_nano  # type: ignore[union-attr] # the same
                    at += 1
            elif kind == PLACE:
                self._lower(key, 1)
                at += 1
            elif kind == REQUESTS:
                at += 1
            elif tokens:
                window = held[at]
                at += 1
                if window.index * MINUTE <= now:  # type: ignore[union-attr] # it is still the same window
                    window.used = max(0, window.used + more)  # type: ignore[union-attr]
                else:
                    window.correct(int(now // MINUTE), more)  # type: ignore[union-attr]

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
                self._lower(claim.key, claim.amount)
            else:
                taken.used -= claim.amount

    def _free(self, claim: Claim, now: float) -> int:
        """How much of *claim*'s limit nobody holds."""
        if claim.ends:
            return claim.limit - self._periods[claim.key].used
        if not claim.window:
            return claim.limit - self._gauges.get(claim.key, 0)
        window = self._windows.get(claim.key if claim.window == MINUTE else (claim.key, claim.window))
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
                self._lower(claim.key, claim.amount)
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
        self._windows = {key: window for key, window in self._windows.items() if window.index >= int(now // window.length) - 1}
        self._periods = {key: period for key, period in self._periods.items() if period.ends > now}

    async def close(self) -> None:
        """Nothing to let go of."""

    def _lower(self, key: str, amount: int) -> None:
        left = self._gauges.get(key, 0) - amount
        if left > 0:
            self._gauges[key] = left
        else:
            self._gauges.pop(key, None)


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
