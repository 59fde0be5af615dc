"""The addresses that we connected to, so that a connection to somebody else can be told from ours: telemetry/self_watch.py."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

MOST = 4096
"""Addresses that are remembered; the ones that were connected to longest ago go first."""


class Peers:
    """What is iterated are addresses, the latest last."""

    def __init__(self) -> None:
        self._known: dict[str, None] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._known))

    def __contains__(self, address: object) -> bool:
        return address in self._known

    def __len__(self) -> int:
        return len(self._known)

    def note(self, transport: asyncio.BaseTransport | None) -> None:
        """Remember whom *transport* leads to."""
        peer = transport.get_extra_info("peername") if transport is not None else None
        if isinstance(peer, tuple) and peer:
            self._known.pop(peer[0], None)
            self._known[peer[0]] = None
            if len(self._known) > MOST:
                del self._known[next(iter(self._known))]
