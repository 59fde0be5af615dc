"""How many connections callers may have: in all, and from one address. Counted where they are accepted, before anything is
read; who does not fit gets an answer that says so.

When all places are taken, the longest idle connection makes room: whoever only holds one open loses it first.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections import deque
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Protocol, cast

from aigw.config.schema import Server as Settings
from aigw.errors import GatewayError, InternalError, PolicyError
from aigw.server.refusal import refusal

log = logging.getLogger("aigw.server")

SAID_EVERY = 10.0
"""Seconds between two log lines of one kind: callers must not be able to fill a disk with them."""

LOOK_EVERY = 0.1
"""Seconds between two searches for idle connections that find few; one takes about a millisecond for ten thousand of them."""

LINGER = 1.0
"""Seconds that what a refused caller still sends is read and thrown away, so that it sees the refusal and not a reset."""

LINGERING = 128
"""How many may linger; more are closed at once."""


class Idler(Protocol):
    """A connection that may be asked to make room."""

    @property
    def idle(self) -> bool:
        """Whether it waits for a request."""

    @property
    def asked(self) -> bool:
        """Whether it ever sent one."""

    def force_close(self) -> None: ...


class Door:
    """Counts who is in. `refused` counts those who were not let in."""

    def __init__(self, settings: Settings, connections: Callable[[], Iterable[Idler]]) -> None:
        """*connections* are those that are open, oldest first."""
        self.settings = settings
        self.most = settings.max_connections
        self.lingering = 0
        self.refused = 0
        self.open = 0
        self._connections = connections
        self._by_party: dict[str, int] = {}
        self._spare: deque[Idler] = deque()
        self._looked = float("-inf")  # when, without finding much
        self._said: dict[str, tuple[float, int]] = {}

    def enter(self, address: str, now: float) -> str:
        """Let a caller from *address* in: whom it is counted for, which `leave` wants to know. Raises GatewayError."""
        if self.open >= self.most and not self._make_room(now):
            self.refused += 1
            self.say("full", f"all {self.most} connections are in use: a new one was refused ([server] max_connections)", now)
            message = "All connections of this gateway are in use. Try again in a moment."
            raise InternalError("gateway_overloaded", message, retry_after=1)
        most = self.settings.max_connections_per_address
        party = party_of(address, self.settings.trusted) if most else ""
        if party:
            count = self._by_party.get(party, 0)
            if count >= most:
                self.refused += 1
                what = f"{party} has {most} connections: a new one was refused ([server] max_connections_per_address)"
                self.say("address", what, now)
                message = "There are too many connections from your address. Close some, or use them for several requests."
                raise PolicyError("policy_concurrency_limited", message, retry_after=1)
            self._by_party[party] = count + 1
        self.open += 1
        return party

    def leave(self, party: str) -> None:
        """A connection counted for *party* has gone."""
        self.open -= 1
        count = self._by_party.get(party)
        if count is not None:
            if count > 1:
                self._by_party[party] = count - 1
            else:
                del self._by_party[party]

    def _make_room(self, now: float) -> bool:
        """Close one idle connection, if there is one: first those that never asked for anything."""
        if not self._spare and now - self._looked >= LOOK_EVERY:
            idle = [connection for connection in self._connections() if connection.idle]
            self._spare.extend([one for one in idle if not one.asked] or idle)
            if len(self._spare) < self.most // 16:
                self._looked = now
        while self._spare:
            connection = self._spare.popleft()
            if connection.idle:
                connection.force_close()
                return True
        return False

    def say(self, kind: str, what: str, now: float) -> None:
        """A warning, not more than one of its *kind* in SAID_EVERY seconds; the next one says how many were left out."""
        last, silent = self._said.get(kind, (float("-inf"), 0))
        if now - last < SAID_EVERY:
            self._said[kind] = last, silent + 1
            return
        self._said[kind] = now, 0
        log.warning("%s%s", what, f" (and {silent} times since it was last said)" if silent else "")


@lru_cache(1024)
def party_of(address: str, trusted: tuple[str, ...]) -> str:
    """Whom a connection from *address* is counted for: the address, of IPv6 its /64 (which one machine has for itself); "" for
    this machine and whoever is *trusted*, who are not counted."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:  # a unix socket
        return ""
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if ip.is_loopback or any(ip in ipaddress.ip_network(network) for network in trusted):
        return ""
    if ip.version == 6:
        return str(ipaddress.ip_network((int(ip) >> 64 << 64, 64)))
    return str(ip)


class Turned(asyncio.Protocol):
    """A connection that was not let in: gets its answer, and a second to read it."""

    def __init__(self, door: Door, error: GatewayError) -> None:
        self._door, self._error = door, error
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop derives its own from none of asyncio's
        transport.write(refusal(self._error))
        if self._door.lingering >= LINGERING or not transport.can_write_eof():
            transport.close()
            return
        self._door.lingering += 1
        transport.write_eof()
        self._transport = transport
        self._timer = asyncio.get_running_loop().call_later(LINGER, transport.abort)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._door.lingering -= 1
