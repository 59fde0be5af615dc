"""Who waits for one of a consumer's places to become free: interactive requests before those of a batch, each in its order.

A place is freed in this process (then the next one is woken) or in another one that shares the counters (then nobody tells
us, so each waiter looks again now and then).
"""

from __future__ import annotations

import asyncio
from collections import deque

LOOK = 0.25
"""Seconds after which a waiter looks again by itself."""


class Turns:
    """The waiters of this process, by the gauge they wait for."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[deque[asyncio.Future[None]], deque[asyncio.Future[None]]]] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __len__(self) -> int:
        return sum(len(one) + len(other) for one, other in self._waiting.values())

    def taken(self, key: str, *, batch: bool) -> bool:
        """Whether somebody waits for *key* whose turn comes before a newcomer's."""
        queues = self._waiting.get(key)
        return queues is not None and bool(queues[0] or (batch and queues[1]))

    async def wait(self, key: str, seconds: float, *, batch: bool) -> None:
        """Until it may be our turn, at most *seconds*."""
        queues = self._waiting.setdefault(key, (deque(), deque()))
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queues[batch].append(turn)
        try:
            await asyncio.wait({turn}, timeout=min(seconds, LOOK))
        finally:
            woken = turn.done()
            if not woken:
                queues[batch].remove(turn)
                turn.cancel()
            if not queues[0] and not queues[1] and self._waiting.get(key) is queues:
                del self._waiting[key]

    def free(self, key: str) -> None:
        """A place is free: wake who is next."""
        queues = self._waiting.get(key)
        if queues is None:
            return
        for queue in queues:
            while queue:
                turn = queue.popleft()
                if not turn.done():
                    turn.set_result(None)
                    return
