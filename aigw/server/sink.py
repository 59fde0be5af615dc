"""The `Sink` that speaks HTTP/1.1 to the caller: our own bytes, straight to its transport.

aigw's answers bypass aiohttp's response writing (it costs as much as all the rest of a passthrough request), so what aiohttp
would see to is seen to here: chunks only where the caller speaks HTTP/1.1, and `connection: close` when that is what follows.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from http import HTTPStatus

from aiohttp.http import RawRequestMessage

from aigw.exchange import Headers
from aigw.server.front import Front

_AT_ONCE = struct.pack("ii", 1, 0)  # linger on, for no time: what is unsent is thrown away and the caller gets a reset

_PHRASES = {status.value: status.phrase for status in HTTPStatus} | {529: "Overloaded"}
_STATUS_LINES = {status: f"HTTP/1.1 {status} {phrase}\r\n".encode() for status, phrase in _PHRASES.items()}


class HttpSink:
    """One answer to one request."""

    __slots__ = ("_chunked", "_front", "_head", "_http11", "_left", "keep_alive", "request_id", "status")

    def __init__(self, front: Front, message: RawRequestMessage, request_id: str) -> None:
        self._front = front
        self._http11 = message.version[1] >= 1
        self.keep_alive = not (message.should_close or front.last)
        self.request_id = request_id
        self.status = 0
        self._chunked = False
        self._left: int | None = None  # bytes of a promised length that are still to come
        self._head = b""

    @property
    def started(self) -> bool:
        return self.status != 0

    def begin(self, status: int, headers: Headers, length: int | None = None) -> None:
        """The head waits for the first block, so that both go out in one write."""
        self.status = status
        if length is not None:
            framing = b"content-length: %d\r\n" % length
            self._left = length
        elif self._http11:
            framing = b"transfer-encoding: chunked\r\n"
            self._chunked = True
        else:
            framing = b""
            self.keep_alive = False  # HTTP/1.0: the end of the connection is the end of the answer
        self._head = self._rendered(status, headers, framing)

    def _rendered(self, status: int, headers: Headers, framing: bytes) -> bytes:
        lines = b"".join([b"%b: %b\r\n" % pair for pair in headers])
        return b"%bx-request-id: %b\r\n%b%b%b" % (
            _STATUS_LINES.get(status) or b"HTTP/1.1 %d Answer\r\n" % status,
            self.request_id.encode(),
            lines,
            framing,
            b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n",
        )

    def write(self, block: bytes) -> bool:
        front = self._front
        transport = front.transport
        if not block or transport is None:
            return False
        if self._chunked:
            block = b"%x\r\n%b\r\n" % (len(block), block)
        elif self._left is not None:
            self._left -= len(block)
            if self._left < 0:  # more than was promised: a second answer in the caller's eyes
                self.abort()
                return False
        if self._head:
            block = self._head + block
            self._head = b""
        transport.write(block)
        return front._paused  # noqa: SLF001 - asked for every chunk; its own property is one call more

    def end(self) -> None:
        if self._left:  # less than was promised
            self.abort()
            return
        last = self._head + b"0\r\n\r\n" if self._chunked else self._head
        self._head = b""
        transport = self._front.transport
        if last and transport is not None:
            transport.write(last)

    def abort(self) -> None:
        """Reset the connection: a plain close would look like the end of an answer that has no length."""
        self.keep_alive = False
        self._head = b""
        transport = self._front.transport
        if transport is not None:
            raw = transport.get_extra_info("socket")
            if raw is not None and raw.family != socket.AF_UNIX:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            transport.abort()

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        self.status = status
        transport = self._front.transport
        if transport is not None:
            transport.write(self._rendered(status, headers, b"content-length: %d\r\n" % len(body)) + body)

    def on_resume(self, callback: Callable[[], None]) -> None:
        self._front.on_resume = callback
