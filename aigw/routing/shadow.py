"""Shadows: copies of requests that go to another place after their answer was given; their answers are counted, and dropped.

A copy never delays anybody: it begins when its original has ended, and when too many are under way there is none. It has a
record of its own (the original's id and "-shadow"), which names no consumer: nobody is billed for it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from time import perf_counter, time

from aigw.deployment import Route
from aigw.exchange import Exchange, Headers, Sink
from aigw.routing.canary import SHADOW

MOST = 8
"""Copies under way at once: a trial must not take the connections of real requests."""

PATIENCE = 120.0
"""Seconds until the first byte of an answer that nobody waits for."""

Serve = Callable[[Exchange, Sink, Route], Awaitable[None]]
"""Serves a copy by its route, and records it; raises nothing but CancelledError."""


class Nowhere:
    """A sink for answers that nobody gets; always ready for more."""

    def __init__(self) -> None:
        self.status = 0

    @property
    def started(self) -> bool:
        return self.status != 0

    def begin(self, status: int, headers: Headers, length: int | None = None) -> None:
        self.status = status

    def write(self, block: bytes) -> bool:
        return False

    def end(self) -> None: ...

    def abort(self) -> None: ...

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        self.status = status

    def on_resume(self, callback: Callable[[], None]) -> None: ...


def copied(exchange: Exchange, route: Route) -> Exchange:
    """The same request once more, by *route*, as nobody's."""
    now = perf_counter()
    return Exchange(
        id=f"{exchange.id}-shadow",
        at=time(),
        operation=exchange.operation,
        dialect=exchange.dialect,
        stream=exchange.stream,
        requested_model=exchange.requested_model,
        canary=exchange.canary,
        arm=SHADOW,
        headers=exchange.headers,
        started=now,
        deadline=now + PATIENCE,
        body=exchange.body,
        model_at=exchange.model_at,
        max_tokens=exchange.max_tokens,
        wants_usage=exchange.wants_usage,
        chosen=route,
        canonical=exchange.canonical if exchange.edited else None,
        edited=exchange.edited,  # what a plugin kept from one provider is not for another either
    )


class Shadows:
    """The copies under way."""

    def __init__(self) -> None:
        self._tasks: dict[asyncio.Task[None], str] = {}  # each with its canary

    def under_way(self, canary_id: str) -> int:
        return Counter(self._tasks.values())[canary_id]

    def begin(self, copy: Exchange, serve: Serve) -> bool:
        """Send *copy* off; False when too many are under way."""
        route = copy.chosen
        if len(self._tasks) >= MOST or route is None:
            return False

        async def send() -> None:
            await serve(copy, Nowhere(), route)

        task = asyncio.get_running_loop().create_task(send(), name="shadow")
        self._tasks[task] = copy.canary
        task.add_done_callback(self._tasks.pop)
        return True

    async def close(self) -> None:
        """Cut what is under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
