"""A stream that begins and then only drips: held back for its first seconds, so that it can still be replaced.

Off unless a route asks for it: what is held is late for the caller. Never for what may not be asked twice (`hedge.may_hedge`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aigw.exchange import Headers, Sink


class Held:
    """A `Sink` that keeps what it is given until it is opened. `begun` is done with the first byte."""

    __slots__ = ("_blocks", "_head", "_open", "_sink", "begun")

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._head: tuple[int, Headers, int | None] | None = None
        self._blocks: list[bytes] = []
        self._open = False
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def open(self) -> None:
        """Everything goes on to the caller, from here on at once."""
        if self._open:
            return
        self._open = True
        if self._head is not None:
            self._sink.begin(*self._head)
            for block in self._blocks:
                self._sink.write(block)
            self._blocks.clear()

    @property
    def started(self) -> bool:
        return self._sink.started

    @property
    def status(self) -> int:
        return self._sink.status

    def begin(self, status: int, headers: Headers, length: int | None = None) -> None:
        if self._open:
            self._sink.begin(status, headers, length)
            return
        self._head = status, headers, length
        if not self.begun.done():
            self.begun.set_result(None)

    def write(self, block: bytes) -> bool:
        if self._open:
            return self._sink.write(block)
        self._blocks.append(bytes(block))
        return False

    def end(self) -> None:
        self.open()
        self._sink.end()

    def abort(self) -> None:
        if self._open:
            self._sink.abort()

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        self._sink.answer(status, headers, body)

    def on_resume(self, callback: Callable[[], None]) -> None:
        if self._open:
            self._sink.on_resume(callback)
