"""The `Sink` that speaks HTTP/1.1 to the caller: our own bytes, straight to its transport.

aigw's answers bypass aiohttp's response writing (it costs as much as all the rest of a passthrough request), so what aiohttp
would see to is seen to here: chunks only where the caller speaks HTTP/1.1, no body for HEAD, 204 and 304, `connection: close`
when that is what follows, and `output_size`, so that an exception after our first byte does not make aiohttp write a second
answer into ours.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

from aiohttp import web

from aigw.exchange import Headers
from aigw.server.front import Front

_REASON = {status.value: status.phrase.encode() for status in HTTPStatus}
_REASON[499] = b"Client Closed Request"
_REASON[529] = b"Overloaded"


class AlreadySent(web.StreamResponse):
    """Tells aiohttp that the answer has gone out: its connection handling stays, its response writing does nothing. Two of
    them serve every request: whether the connection is kept open is all that aiohttp still asks."""

    def __init__(self, keep_alive: bool) -> None:
        super().__init__()
        self._keep_alive = keep_alive

    @property
    def prepared(self) -> bool:
        return True

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


class HttpSink:
    """One answer to one request."""

    __slots__ = (
        "_chunked",
        "_front",
        "_head",
        "_http11",
        "_left",
        "_writer",
        "body_allowed",
        "keep_alive",
        "request_id",
        "status",
    )

    def __init__(self, front: Front, request: web.BaseRequest, request_id: str) -> None:
        self._front = front
        self._writer = request._payload_writer  # noqa: SLF001 - its output_size is what stops a second answer
        message = request._message  # noqa: SLF001 - the parsed head, without the properties' detours
        self._http11 = message.version[1] >= 1
        self.keep_alive = not message.should_close
        self.body_allowed = message.method != "HEAD"
        self.request_id = request_id
        self.status = 0
        self._chunked = False
        self._left: int | None = None  # bytes of a promised length that are still to come
        self._head = b""

    @property
    def started(self) -> bool:
        return self.status != 0

    @property
    def paused(self) -> bool:
        return self._front.writing_paused

    def begin(self, status: int, headers: Headers, length: int | None = None) -> None:
        """The head waits for the first block, so that both go out in one write."""
        head = [b"HTTP/1.1 %d %b\r\nx-request-id: %b\r\n" % (status, _REASON.get(status, b"Answer"), self.request_id.encode())]
        for name, value in headers:
            head.append(b"%b: %b\r\n" % (name, value))
        if length is not None:
            head.append(b"content-length: %d\r\n" % length)
            self._left = length
        elif self._http11:
            head.append(b"transfer-encoding: chunked\r\n")
            self._chunked = True
        else:
            self.keep_alive = False  # HTTP/1.0: the end of the connection is the end of the answer
        head.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        self.status = status
        self._head = b"".join(head)
        self._writer.output_size += len(self._head)

    def write(self, block: bytes) -> None:
        if not block:
            return
        if self._chunked:
            block = b"%x\r\n%b\r\n" % (len(block), block)
        elif self._left is not None:
            self._left -= len(block)
            if self._left < 0:  # more than was promised: a second answer in the caller's eyes
                self.abort()
                return
        if self._head:
            block = self._head + block if self.body_allowed else self._head
            self._head = b""
        elif not self.body_allowed:
            return
        transport = self._front.transport
        if transport is not None:
            transport.write(block)

    def end(self) -> None:
        if self._left:  # less than was promised
            self.abort()
            return
        last = self._head
        self._head = b""
        if self._chunked and self.body_allowed:
            last += b"0\r\n\r\n"
        transport = self._front.transport
        if last and transport is not None:
            transport.write(last)

    def abort(self) -> None:
        self.keep_alive = False
        self._head = b""
        transport = self._front.transport
        if transport is not None:
            transport.abort()

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        self.begin(status, headers, len(body))
        if body and self.body_allowed:
            self.write(body)
        else:
            self._left = 0
            self.end()

    def on_resume(self, callback: Callable[[], None]) -> None:
        self._front.on_resume = callback
