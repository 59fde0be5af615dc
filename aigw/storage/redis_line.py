"""One connection to a Redis (or Valkey) server that everybody here shares.

What is asked in one turn of the event loop leaves as one write, and answers come back in the order of the questions: so a
thousand requests at once need one connection, and each of them waits for one round trip. `redis-py` connects, authenticates and
reads; a line that breaks, or is silent for too long, fails everybody who waits and is not used again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from aigw.errors import StoreError

log = logging.getLogger("aigw.storage")

CONNECT = 2.0
"""Seconds for a connection, with its greeting."""


class Line:
    """Ask with `ask`. `closed` is set when it is of no more use; `why` says what happened."""

    def __init__(self, connection: AbstractConnection, patience: float) -> None:
        self.closed = asyncio.Event()
        self.why = ""
        self.trips = 0  # writes, each of which may hold many questions
        self._connection, self._patience = connection, patience
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self._parts: list[bytes] = []
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks = [
            self._loop.create_task(self._write(), name="redis writer"),
            self._loop.create_task(self._read(), name="redis reader"),
        ]

    @classmethod
    async def open(cls, url: str, name: str, patience: float) -> Line:
        """A line to *url*; *name* is how the server lists it, *patience* the seconds an answer may take. Raises StoreError."""
        try:
            pool = ConnectionPool.from_url(
                url, client_name=name, socket_connect_timeout=CONNECT, socket_timeout=None, retry=Retry(NoBackoff(), 0)
            )
            connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
        except (ValueError, RedisError) as error:
            raise StoreError(f"the address of Redis is not understood: {error}") from None
        try:
            async with asyncio.timeout(CONNECT):
                await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException as error:
            await connection.disconnect(nowait=True)
            if isinstance(error, (RedisError, OSError, TimeoutError)):
                raise StoreError(f"Redis cannot be reached: {_words(error)}") from None
            raise
        return cls(connection, patience)

    def ask(self, *parts: bytes) -> asyncio.Future[Any]:
        """Send a command; what comes back. Raises StoreError when the line broke before the answer came: nobody knows then
        whether it was done; RuntimeError when the server refuses it."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if self.closed.is_set():
            future.set_exception(StoreError(self.why))
            return future
        self._waiting.append((self._loop.time(), future))
        self._parts.append(b"*%d\r\n" % len(parts))
        for part in parts:
            self._parts.append(b"$%d\r\n%b\r\n" % (len(part), part))
        self._wake.set()
        if self._timer is None:
            self._timer = self._loop.call_later(self._patience, self._look)
        return future

    def _look(self) -> None:
        """Whether somebody has waited too long."""
        self._timer = None
        if not self._waiting:
            return
        left = self._waiting[0][0] + self._patience - self._loop.time()
        if left <= 0:
            self._end(f"it did not answer within {self._patience:g} s")
        else:
            self._timer = self._loop.call_later(left, self._look)

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            parts, self._parts = self._parts, []
            self.trips += 1
            try:
                await self._connection.send_packed_command([b"".join(parts)], check_health=False)
            except (RedisError, OSError) as error:
                self._end(_words(error))
                return

    async def _read(self) -> None:
        while True:
            answer: Any
            try:
                answer = await self._connection.read_response(disable_decoding=True)
            except ResponseError as error:
                answer = error
            except Exception as error:  # noqa: BLE001 - whatever it is, the line is of no more use
                self._end(_words(error))
                return
            _, future = self._waiting.popleft()
            if future.done():
                continue  # nobody waits for it any more
            if isinstance(answer, ResponseError):
                future.set_exception(RuntimeError(str(answer)))
            else:
                future.set_result(answer)

    def _end(self, why: str) -> None:
        if self.closed.is_set():
            return
        self.why = f"Redis is lost: {why}"
        self.closed.set()
        waiting, self._waiting = self._waiting, deque()
        for _, future in waiting:
            if not future.done():
                future.set_exception(StoreError(self.why))

    async def close(self) -> None:
        self._end("closed")
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._connection.disconnect(nowait=True)


def _words(error: BaseException) -> str:
    """What went wrong; redis-py's own words name host and port at most."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
