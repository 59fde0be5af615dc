"""Whoever tries keys is slowed down: refused credentials are counted by address, and beyond so many a minute the answer is a
short 429 that is a second late, leaves no record and says nothing of the key.

A valid key is never throttled, wherever it comes from: behind one address there may be an office, or a proxy with all callers
behind it, and one of them with an old key must not lock out the others. So a credential is looked up first (one SHA-256 and one
dictionary lookup, about a microsecond; the rest of a refusal costs fifty times as much), and only failures come here.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

from aigw.errors import PolicyError

_log = logging.getLogger("aigw.access")

MINUTE = 60.0

ADDRESSES = 10_000
"""Addresses that are remembered (about 2 MB); of more, those are forgotten that failed longest ago."""

PAUSE = 1.0
"""Seconds that a throttled answer is late: a connection that waits tries nothing, and costs us nothing meanwhile."""

WAITING = 1000
"""Throttled answers that are late at a time; more are sent at once, so that waiting cannot be made to cost us memory."""

LINES = 10
"""Lines a minute that the log says about it, whatever the number of addresses."""


class ThrottledError(PolicyError):
    """A refusal that is not worth a record: there were too many like it."""

    def __init__(self, wait: float) -> None:
        seconds = math.ceil(wait)
        super().__init__(
            "policy_rate_limited",
            f"too many requests with a wrong API key, or none, came from your address; try again in {seconds} s, or send a "
            "valid key: that is served at once",
            retry_after=wait,
        )


class Throttle:
    """Failures by address, in one number each: the time at which the address would be free of them, each taking up its share
    of a minute. `failures` and `throttled` only grow; they count what came here, and of that what was throttled.

    `limit` is the number a minute, 0 for none; `names` says whether the log may name addresses.
    """

    def __init__(self, limit: int = 0, *, names: bool = False, clock: Callable[[], float] = monotonic) -> None:
        self.limit, self.names = limit, names
        self.failures = self.throttled = 0
        self._clock = clock
        self._free: OrderedDict[bytes, float] = OrderedDict()  # the one that failed last at the end
        self._waiting = 0
        self._said: dict[bytes, float] = {}  # of whom the log has spoken lately, and when

    def __len__(self) -> int:
        """How many addresses are remembered."""
        return len(self._free)

    def failed(self, address: str) -> float:
        """Count a refused credential from *address*. Seconds after which one more will be listened to; 0: this one is."""
        self.failures += 1
        if self.limit <= 0:
            return 0.0
        now = self._clock()
        place = _place(address)
        share = MINUTE / self.limit
        free = max(self._free.get(place, now), now)
        if free + share > now + MINUTE + share / 2:  # its minute is full; half a share is what rounding may take
            self.throttled += 1
            self._free.move_to_end(place)
            return free + share - now - MINUTE
        self._free[place] = free + share
        self._free.move_to_end(place)
        if len(self._free) > ADDRESSES:
            self._free.popitem(last=False)
        if free + 2 * share > now + MINUTE + share / 2:
            self._say(place, address, now)
        return 0.0

    async def pause(self) -> None:
        """What a throttled caller waits before it is told."""
        if self._waiting >= WAITING:
            return
        self._waiting += 1
        try:
            await asyncio.sleep(PAUSE)
        finally:
            self._waiting -= 1

    def _say(self, place: bytes, address: str, now: float) -> None:
        self._said = {one: at for one, at in self._said.items() if at > now - MINUTE}
        if place in self._said or len(self._said) >= LINES:
            return
        self._said[place] = now
        whose = address if self.names and address else "one address"
        _log.warning("%d wrong keys within a minute from %s: answered 429 from now on, valid keys excepted", self.limit, whose)


def _place(address: str) -> bytes:
    """What counts as one address: of IPv6 its network of 64 bits, which one caller has all of."""
    if ":" not in address:
        return address.encode()
    try:
        raw = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
    except OSError:
        return address.encode("utf-8", "replace")[:64]
    if raw[:12] == b"\0" * 10 + b"\xff\xff":  # an IPv4 address on a socket that speaks both
        return socket.inet_ntop(socket.AF_INET, raw[12:]).encode()
    return raw if raw == b"\0" * 15 + b"\x01" else raw[:8]
