"""The line between a supervisor and one of its workers: JSON, a message a line, over a pair of sockets.

A message has a name (`what`). One with a number is a question; its answer carries that number. When one side is gone, the
other one's `run` ends: neither outlives the other unnoticed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

log = logging.getLogger("aigw.server")

LONGEST = 64 * 1024 * 1024
"""Bytes of a message: a config is 4 MB at most, metrics of 2,000 models about 5."""

Message = dict[str, Any]
Hear = Callable[[Message], Awaitable[Message | None]]
"""Takes a message, and gives the answer to a question."""


class GoneError(Exception):
    """The other side has ended, or did not answer in time."""


class Channel:
    """One end. `open`, then `run` until the other side is gone, then `close`."""

    def __init__(self, hear: Hear) -> None:
        self._hear = hear
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._asked = 0
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._busy: set[asyncio.Task[None]] = set()

    async def open(self, end: socket.socket) -> None:
        self._reader, self._writer = await asyncio.open_unix_connection(sock=end, limit=LONGEST)

    def begin(self, first: Any) -> None:
        """Send *first*, which is no message yet, to one who reads a line before it opens its end."""
        assert self._writer is not None
        self._writer.write(msgspec.json.encode(first) + b"\n")

    async def run(self) -> None:
        """Hear what the other side says, until it is gone."""
        assert self._reader is not None
        with contextlib.suppress(ConnectionError, ValueError, asyncio.IncompleteReadError):
            while line := await self._reader.readline():
                message: Message = msgspec.json.decode(line)
                answered = self._waiting.pop(message.get("answer", 0), None)
                if answered is not None:
                    if not answered.done():
                        answered.set_result(message)
                elif "what" in message:
                    task = asyncio.get_running_loop().create_task(self._take(message), name=f"channel: {message['what']}")
                    self._busy.add(task)
                    task.add_done_callback(self._busy.discard)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(GoneError())
        self._waiting.clear()

    async def _take(self, message: Message) -> None:
        try:
            answer = await self._hear(message) or {}
        except Exception as error:
            log.exception("a message of another process (%s) could not be dealt with", message["what"])
            answer = {"error": type(error).__name__}
        if "number" in message:
            self._write({**answer, "answer": message["number"]})

    def tell(self, what: str, **more: Any) -> None:
        """Say something that needs no answer; nothing happens when nobody is there any more."""
        self._write({"what": what, **more})

    async def ask(self, what: str, within: float, **more: Any) -> Message:
        """The answer to a question. Raises GoneError when there is none *within* so many seconds, or ever."""
        self._asked += 1
        number = self._asked
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._write({"what": what, "number": number, **more})
        try:
            async with asyncio.timeout(within):
                answer: Message = await waiting
        except TimeoutError:
            raise GoneError from None
        finally:
            self._waiting.pop(number, None)
        if "error" in answer:
            raise GoneError
        return answer

    def _write(self, message: Message) -> None:
        writer = self._writer
        if writer is None or writer.is_closing():
            for waiting in (self._waiting.get(message.get("number", 0)),):
                if waiting is not None and not waiting.done():
                    waiting.set_exception(GoneError())
            return
        writer.write(msgspec.json.encode(message) + b"\n")

    async def close(self) -> None:
        for task in list(self._busy):
            task.cancel()
        await asyncio.gather(*self._busy, return_exceptions=True)
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
            with contextlib.suppress(ConnectionError, OSError):
                await writer.wait_closed()
