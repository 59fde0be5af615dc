"""How much of something happened in the last minute: a sliding window, exact to a second and never too generous."""

from __future__ import annotations

SPAN = 60
"""Seconds that are looked back. Providers count per minute, so operators do."""


class Window:
    """Counts against *limit* in any `SPAN` seconds. Times are monotonic seconds."""

    __slots__ = ("_counts", "_second", "limit", "total")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total = 0
        self._counts = [0] * (SPAN + 1)  # one more: the second that is only partly over counts whole
        self._second = 0

    def left(self, now: float) -> int:
        """What may still happen now; below 0 when more happened than was foreseen."""
        self._turn(int(now))
        return self.limit - self.total

    def fits(self, amount: int, now: float) -> bool:
        """Whether *amount* may happen now."""
        # what is over only makes it less: where there is room all the same, nobody need look at the clock
        return self.total + amount <= self.limit or self.left(now) >= amount

    def add(self, amount: int, now: float) -> None:
        """*amount* happened; a negative one takes back what was counted too much."""
        second = int(now)
        self._turn(second)
        amount = max(amount, -self.total)
        self._counts[second % (SPAN + 1)] += amount
        self.total += amount

    def wait(self, amount: int, now: float) -> float:
        """Seconds until *amount* fits; until the window is empty when it never does."""
        self._turn(int(now))
        over = min(self.total, self.total + amount - self.limit)
        if over <= 0:
            return 0.0
        second = self._second
        for age in range(SPAN, -1, -1):
            over -= self._counts[(second - age) % (SPAN + 1)]
            if over <= 0:
                return second - age + SPAN + 1 - now
        return SPAN + 1 - (now - second)

    def _turn(self, second: int) -> None:
        gone = second - self._second
        if gone <= 0:
            return
        if gone > SPAN:
            self._counts = [0] * (SPAN + 1)
            self.total = 0
        else:
            for step in range(1, gone + 1):
                at = (self._second + step) % (SPAN + 1)
                self.total -= self._counts[at]
                self._counts[at] = 0
        self._second = second
