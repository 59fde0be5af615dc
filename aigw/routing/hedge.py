"""Two attempts at one exchange: the one that first has a byte for the caller goes on, the other is given up.

Only where it can hurt nobody but the wallet: a conversation without tools, without state at the provider, and not long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aigw.exchange import Exchange, Headers, Sink
from aigw.protocols.operations import Operation
from aigw.routing.conditions import MOST_PER_BYTE, Estimate, has_tools

LONGEST = 8000
"""Tokens of a prompt; of a longer one the second reading costs more than the waiting."""

OPERATIONS = frozenset({"chat", "completions", "messages"})
"""Whose answers leave nothing behind at the provider. (A response is kept there.)"""

_STATE = (b'"store"', b'"previous_response_id"', b'"conversation"', b'"background"', b'"container"')


def may_hedge(exchange: Exchange, operation: Operation, estimate: Estimate) -> bool:
    """Whether the exchange may be asked twice at the same time."""
    body = exchange.body
    if exchange.run is not None:  # plugins hear one answer
        return False
    if operation.name not in OPERATIONS or any(word in body for word in _STATE) or has_tools(body):
        return False
    return len(body) * MOST_PER_BYTE <= LONGEST or estimate(operation.name, body) <= LONGEST


class Race:
    """Who goes on. `decided` is done as soon as somebody does."""

    __slots__ = ("decided", "winner")

    def __init__(self) -> None:
        self.winner: Gate | None = None
        self.decided: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def claim(self, gate: Gate) -> bool:
        """Whether *gate* is the one, from now on or already."""
        if self.winner is None:
            self.winner = gate
            if not self.decided.done():
                self.decided.set_result(None)
        return self.winner is gate


class Gate:
    """The `Sink` of one of them: opens for the first, and takes nothing from the other."""

    __slots__ = ("_race", "_sink")

    def __init__(self, sink: Sink, race: Race) -> None:
        self._sink, self._race = sink, race

    @property
    def started(self) -> bool:
        return self._race.winner is self and self._sink.started

    @property
    def status(self) -> int:
        return self._sink.status if self._race.winner is self else 0

    def begin(self, status: int, headers: Headers, length: int | None = None) -> None:
        if self._race.claim(self):
            self._sink.begin(status, headers, length)

    def write(self, block: bytes) -> bool:
        return self._race.winner is self and self._sink.write(block)

    def end(self) -> None:
        if self._race.winner is self:
            self._sink.end()

    def abort(self) -> None:
        if self._race.winner is self:
            self._sink.abort()

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        if self._race.claim(self):
            self._sink.answer(status, headers, body)

    def on_resume(self, callback: Callable[[], None]) -> None:
        if self._race.winner is self:
            self._sink.on_resume(callback)
