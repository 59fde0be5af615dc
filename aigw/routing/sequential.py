"""Comparing two arms while they run: tests that may be looked at after every request, for as long as one likes.

An ordinary test that is repeated until it says "different" will say so in the end, whatever is true. These are *e-processes*:
under the null hypothesis their expected value never exceeds 1, so by Ville's inequality they ever reach 1/alpha with a
probability of at most alpha, however often one looks (Grünwald, de Heide & Koolen, "Safe Testing", 2024; Johari et al.,
"Always Valid Inference", 2022, whose mSPRT is one of them).

- `RateTest`: does the new arm fail more often? Requests are taken in slices of a few of each arm. Given how many of each arm a
  slice has, and how many of all failed, the number that failed in the new arm is hypergeometric if both fail alike, whatever
  that rate is; so the ratio to Fisher's noncentral hypergeometric with odds r is an exact e-value of the slice. (Turner, Ly &
  Grünwald, "Generic E-variables for exact sequential k-sample tests", 2024, in the conditional form of Ter Schure et al., "The
  Safe Logrank Test", 2021.) Nothing has to be known of the shares, and an outage that hits both arms is no evidence, since only
  what happened in the same slice is compared.
- `ShiftTest`: is the new arm's value (a time, a cost) beyond a limit more than half of the time, where the limit follows the
  old arm's median? Distribution-free: a coin that should not fall so more often than fairly.
- `upper` and `lower`: a confidence sequence for a rate, from the beta-binomial mixture of Robbins (1970).

The alternatives of a test are a grid with equal weights: an average of e-processes is one. So is an average over times at which
they begin: each step of a canary begins one of its own, so that what the old arm suffered long ago hides nothing.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque

SLICE = 5
"""Requests of each arm in a slice. Fewer would compare nearer in time; of one and one, half of what happens is no evidence."""

ODDS = (1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)
"""Alternatives of a RateTest: how many times the old arm's odds of failing are the new one's."""

CHANCES = (0.6, 0.7, 0.8, 0.9)
"""Alternatives of a ShiftTest: how often the new arm is beyond the limit."""

RECENT = 201
"""Values of the old arm that its median is taken of."""

ENOUGH = 20
"""Values of the old arm before the new one's are compared with it."""

Logs = dict[int, list[float]]
"""Log e-values by the step in which each process began, one for each alternative. Those of several processes add up."""


class RateTest:
    """Evidence that the new arm fails more often than the old one."""

    __slots__ = ("_new", "_new_failed", "_old", "_old_failed", "logs")

    def __init__(self) -> None:
        self.logs: Logs = {}
        self._new = self._old = self._new_failed = self._old_failed = 0

    def begin(self, step: int) -> None:
        self.logs.setdefault(step, [0.0] * len(ODDS))

    def add(self, *, new: bool, failed: bool, requests: int = 1) -> None:
        """*requests* of one arm that all ended alike."""
        if new:
            self._new += requests
            self._new_failed += requests if failed else 0
        else:
            self._old += requests
            self._old_failed += requests if failed else 0
        if self._new >= SLICE and self._old >= SLICE:
            if self._new_failed or self._old_failed:
                self._weigh()
            self._new = self._old = self._new_failed = self._old_failed = 0

    def _weigh(self) -> None:
        new, old, failed = self._new, self._old, self._new_failed + self._old_failed
        first, last = max(0, failed - old), min(new, failed)
        chances = [0.0]  # logs, all off by the same amount: each from the one before
        for place in range(first, last):
            chances.append(
                chances[-1] + math.log((new - place) * (failed - place) / ((place + 1) * (old - failed + place + 1)))
            )
        most = max(chances)
        equal = math.log(math.fsum(math.exp(chance - most) for chance in chances))
        for at, odds in enumerate(ODDS):
            base = math.log(odds)
            tilted = [chance + place * base for place, chance in enumerate(chances)]
            top = max(tilted)
            tilt = math.log(math.fsum(math.exp(chance - top) for chance in tilted)) + top - most
            gained = (self._new_failed - first) * base + equal - tilt
            for logs in self.logs.values():
                logs[at] += gained


class ShiftTest:
    """Evidence that the new arm's median is beyond *limit* times the old one's: above it, or below it when *limit* is less
    than 1."""

    __slots__ = ("_limit", "_recent", "_sorted", "logs")

    def __init__(self, limit: float) -> None:
        self.logs: Logs = {}
        self._limit = limit
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []

    def begin(self, step: int) -> None:
        self.logs.setdefault(step, [0.0] * len(CHANCES))

    def add(self, *, new: bool, value: float) -> None:
        if not new:
            self._remember(value)
        elif len(self._sorted) >= ENOUGH:
            limit = self._limit * self._sorted[len(self._sorted) // 2]
            beyond = value > limit if self._limit >= 1 else value < limit
            for at, chance in enumerate(CHANCES):
                gained = math.log(2 * (chance if beyond else 1 - chance))
                for logs in self.logs.values():
                    logs[at] += gained

    def _remember(self, value: float) -> None:
        if len(self._recent) >= RECENT:
            del self._sorted[bisect_left(self._sorted, self._recent.popleft())]
        self._recent.append(value)
        insort(self._sorted, value)


def merge(into: Logs, other: Logs) -> None:
    """Add another process's evidence: it saw other requests, so e-values multiply."""
    for step, logs in other.items():
        mine = into.get(step)
        into[step] = list(logs) if mine is None else [a + b for a, b in zip(mine, logs, strict=True)]


def strength(logs: Logs, steps: int) -> float:
    """The log of the averaged e-value, of *steps* that there may be in all; those that have not begun count 1."""
    if not logs:
        return 0.0
    found = [log - math.log(len(one)) for one in logs.values() for log in one]
    found += [0.0] * max(0, steps - len(logs))
    most = max(found)
    return most + math.log(math.fsum(math.exp(log - most) for log in found)) - math.log(max(steps, len(logs)))


def upper(requests: int, failed: int, alpha: float) -> float:
    """No rate above this one, at a confidence of 1 - *alpha* that holds at all times together."""
    return 1.0 - lower(requests, requests - failed, alpha)


def lower(requests: int, failed: int, alpha: float) -> float:
    """No rate below this one, at a confidence of 1 - *alpha* that holds at all times together."""
    if not requests or not failed:
        return 0.0
    left = requests - failed
    whole = _log_beta(failed + 0.5, left + 0.5) - _log_beta(0.5, 0.5) + math.log(alpha)
    low, high = 0.0, failed / requests
    for _ in range(50):
        rate = (low + high) / 2
        likely = (failed * math.log(rate) if rate else -math.inf) + (left * math.log1p(-rate) if left else 0.0)
        low, high = (rate, high) if likely < whole else (low, rate)
    return low


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
