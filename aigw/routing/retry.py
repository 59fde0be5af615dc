"""May this exchange try again? What went wrong decides, and how much is tried again already."""

from __future__ import annotations

from random import uniform

import msgspec

from aigw.errors import UpstreamError

MAX_ATTEMPTS = 6
"""Attempts one exchange may make when nobody says otherwise: the first and five more."""

SECOND_TRY_PAUSE = 0.25
"""Seconds, on average, before the only deployment there is, is tried a second time: most connection errors and restarts are
over by then, and no person notices."""

WINDOW = 10
"""Seconds over which a budget is counted."""


class Rules(msgspec.Struct, frozen=True):
    """`[retry]` of the config. `time` None: as long as the caller's patience. `pause` None: `SECOND_TRY_PAUSE`."""

    attempts: int = MAX_ATTEMPTS
    time: float | None = None
    pause: float | None = None
    longest_pause: float = 8.0
    budget: float = 0.15
    budget_floor: int = 100


def pause(rules: Rules, number: int) -> float:
    """Seconds before the only place is tried again for the *number*th time (from 1): exponential, with full jitter, so that
    those who failed together do not come back together."""
    mean = (SECOND_TRY_PAUSE if rules.pause is None else rules.pause) * 2 ** min(number - 1, 16)
    return uniform(0, min(2 * mean, rules.longest_pause))  # noqa: S311


class Budget:
    """How many further tries the last ten seconds allow: a share of what was asked for, and never fewer than a floor.

    Whoever asks for something only counts up `asked`; the rest is reckoned when something has failed.
    """

    __slots__ = ("_at", "_marks", "_spent", "asked", "floor", "share")

    def __init__(self, share: float, floor: int) -> None:
        self.share, self.floor = share, floor
        self.asked = 0
        self._at = -1
        self._marks: list[tuple[int, int]] = []  # second, and what `asked` was when it began
        self._spent: dict[int, int] = {}  # second -> tries granted in it

    def take(self, now: float) -> bool:
        """Whether there is room for one more try; it is counted then. *now*: monotonic seconds."""
        second = int(now)
        if second != self._at:
            self._at = second
            self._marks.append((second, self.asked))
            while len(self._marks) > 1 and self._marks[1][0] <= second - WINDOW:
                del self._marks[0]
            self._spent = {at: count for at, count in self._spent.items() if at > second - WINDOW}
        spent = sum(self._spent.values())
        if spent >= self.floor:
            since, before = self._marks[0]
            lately = self.asked - before
            if second - since > WINDOW:
                lately = lately * WINDOW // (second - since)
            if spent >= self.share * lately:
                return False
        self._spent[second] = self._spent.get(second, 0) + 1
        return True

    def spent(self, now: float) -> int:
        """Tries granted in the last ten seconds."""
        return sum(count for at, count in self._spent.items() if at > int(now) - WINDOW)


def may_retry(error: UpstreamError, *, safe: bool, timeouts: int) -> bool:
    """Whether any other try is allowed after *error*. *safe*: the operation may reach a provider twice; *timeouts*: how many
    attempts of this exchange timed out after the body had gone out, this one included.

    Connection errors, 429, 503, 529 and other 5xx: yes. A timeout after the body went out, once, and both costs are recorded.
    What is not safe to repeat (images, audio) never, once a provider may have begun to work on it: an error of its own says
    that it did not, but a 504 comes from a proxy that gave up waiting, and a 200 that is no answer may have been billed.
    """
    if not error.may_retry:
        return False
    if not error.sent:
        return True  # nothing reached a provider
    told = error.upstream_status is not None
    if not safe:
        return told and error.code not in ("provider_timeout", "provider_bad_response")
    return told or error.code != "provider_timeout" or timeouts <= 1
