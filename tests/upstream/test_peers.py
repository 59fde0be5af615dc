"""Whom we connected to: remembered by address, bounded; both transports tell."""

from __future__ import annotations

import asyncio
from typing import Any

from aigw.upstream import peers
from aigw.upstream.peers import Peers


class Transport(asyncio.Transport):
    def __init__(self, peer: Any) -> None:
        super().__init__({"peername": peer})


def test_whom(monkeypatch: Any) -> None:
    """The latest last; the one of longest ago is forgotten first; what has no address is nobody."""
    monkeypatch.setattr(peers, "MOST", 3)
    known = Peers()
    for peer in (("10.0.0.1", 443), ("::1", 443, 0, 0), ("10.0.0.2", 443), ("10.0.0.1", 80)):
        known.note(Transport(peer))
    assert list(known) == ["::1", "10.0.0.2", "10.0.0.1"]
    known.note(Transport(("10.0.0.3", 1)))
    assert list(known) == ["10.0.0.2", "10.0.0.1", "10.0.0.3"]
    assert ("::1" in known, "10.0.0.1" in known, len(known)) == (False, True, 3)
    for nobody in (None, "", "/a/socket"):
        known.note(Transport(nobody))
    known.note(None)
    assert len(known) == 3
