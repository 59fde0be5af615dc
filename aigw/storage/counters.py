"""Counters in the memory of this process: rate windows and gauges.

**Windows slide.** A fixed window lets a caller spend its limit in the last second of one and again in the first of the next.
Here the window before still counts, by the share of it that lies within the last `window` seconds, taken as evenly spread:
right after the border it counts in full, and it fades until the next. So a burst is never larger than the limit, and a
steady caller may use its limit exactly. The worst pattern (a burst at the end of one window, then a steady flow all through
the next) gets twice the limit within one window's length, but never faster than the limit's own rate after the burst. The
cost is two integers a key.

**Windows longer than an hour are fixed**, aligned to the epoch (a day begins at midnight UTC): they are budgets, and a budget
starts again when its period does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aigw.storage.base import Claim, Permit

LONGEST_SLIDING = 3600
"""Seconds; longer windows are fixed."""

GAUGE_RETRY = 1.0
"""Seconds after which a full gauge may be asked again: when another request ends, nobody knows."""


class _Window:
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


class MemoryCounters:
    """`Counters` for a gateway of one process. What it counts is gone with the process."""

    def __init__(self) -> None:
        self._windows: dict[tuple[str, int], _Window] = {}
        self._gauges: dict[str, int] = {}

    async def hold(self, claims: Sequence[Claim], now: float) -> Permit:
        """Never waits: nothing else runs between the check and the count, which is what makes it atomic."""
        held: list[_Window | None] = []
        refused: tuple[Claim, float] | None = None
        for claim in claims:
            length = claim.window
            if not length:
                if self._gauges.get(claim.key, 0) + claim.amount > claim.limit:
                    refused = claim, GAUGE_RETRY
                    break
                self._gauges[claim.key] = self._gauges.get(claim.key, 0) + claim.amount
                held.append(None)
                continue
            index = int(now // length)
            window = self._windows.get((claim.key, length))
            if window is None:
                window = self._windows[claim.key, length] = _Window(index)
            elif window.index != index and window.index != index + 1:  # a clock set back a little keeps the newer window
                window.move_to(index)
            counted = window.used
            if window.before and length <= LONGEST_SLIDING:
                # What is just at the edge is out (a steady caller's oldest request), rounding errors included.
                counted += int(window.before * min(1.0, ((window.index + 1) * length - now) / length) - 1e-5)
            if counted + claim.amount > claim.limit:
                refused = claim, _wait(window, claim, now)
                break
            window.used += claim.amount
            held.append(window)
        if refused is None:
            return Permit(tuple(claims), None, 0.0, (now, held))
        for claim, window in zip(claims, held, strict=False):  # as far as we came
            if window is None:
                self._lower(claim)
            else:
                window.used -= claim.amount
        return Permit((), refused[0], refused[1])

    def settle(self, permit: Permit, used: Mapping[str, int]) -> None:
        if permit.token is None:
            return
        now, held = permit.token
        permit.token = None
        for claim, window in zip(permit.claims, held, strict=True):
            if window is None:
                self._lower(claim)
            elif claim.key in used:
                window.correct(int(now // claim.window), used[claim.key] - claim.amount)

    def release(self, permit: Permit) -> None:
        self.settle(permit, {claim.key: 0 for claim in permit.claims})

    async def sweep(self, now: float) -> None:
        """Windows that can no longer count (theirs and the next are over) go."""
        self._windows = {key: window for key, window in self._windows.items() if window.index >= int(now // key[1]) - 1}

    async def close(self) -> None:
        """Nothing to let go of."""

    def _lower(self, claim: Claim) -> None:
        left = self._gauges.get(claim.key, 0) - claim.amount
        if left > 0:
            self._gauges[claim.key] = left
        else:
            self._gauges.pop(claim.key, None)


def _wait(window: _Window, claim: Claim, now: float) -> float:
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
