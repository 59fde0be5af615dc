"""aiohttp's connection handling, with its edges closed: what is malformed gets a JSON answer that repeats nothing of the
request, a caller who does not read is paused and in the end cut off, and a caller who writes far ahead is dropped.

A request for a model does not become an aiohttp request: `start` hands its parsed head and its body to `Exchanges` in the
connection's own task. That saves a task, a request and a response object; and a head that a connection repeats is not parsed
again (see `repeat.py`). Everything else goes aiohttp's own way. Tried on aiohttp 3.14.5, which this leans on (its version is
locked exactly).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from aiohttp import web
from aiohttp.http import RawRequestMessage, StreamWriter
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import ERROR, RequestHandler, RequestPayloadError, _ErrInfo
from aiohttp.web_server import Server

from aigw.server.repeat import Repeat, Whole, learn
from aigw.server.request_id import new_id

log = logging.getLogger("aigw.server")

PIPELINE = 8
"""Requests one connection may send ahead. A caller that is gone is not seen while reading is paused, which aiohttp does at
32; nobody who waits for answers sends more than one."""


Payload = StreamReader | Whole


Asks = TypeVar("Asks")


class Exchanges(Protocol[Asks]):
    """Who answers requests for a model."""

    def read(self, message: RawRequestMessage) -> Asks | None:
        """What *message*, a request's head, asks of a model; None when it is something else, which the application answers."""

    async def serve(self, front: Front, message: RawRequestMessage, payload: Payload, asks: Asks) -> bool:
        """Answer; whether the connection may stay open. Raises nothing but CancelledError, after it has cleaned up."""


class Front(RequestHandler):
    """One connection of a caller."""

    __slots__ = ("_alone", "_asks", "_last", "_read", "_repeat", "_stall", "address", "on_resume")

    def __init__(self, manager: FrontServer, **settings: Any) -> None:
        super().__init__(manager, **settings)
        self.address = ""  # the caller's
        self.on_resume: Callable[[], None] | None = None
        self._last = False
        self._alone = True  # so far each block that came was one whole request
        self._repeat: Repeat | None = None
        self._read: Any = None  # the message that was served last, and what it asks
        self._asks: Any = None
        self._stall: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if isinstance(peer, tuple) else ""

    async def start(self) -> None:
        """Take the connection's requests one after the other until it closes. Runs as the connection's task, which is cancelled
        when the caller goes."""
        manager = self._manager
        assert isinstance(manager, FrontServer)
        exchanges = manager.exchanges
        messages = self._messages
        while not self._force_close:
            if not messages:
                self._waiter = self._loop.create_future()
                try:
                    await self._waiter
                finally:
                    self._waiter = None
            message: Any  # RawRequestMessage or _ErrInfo
            payload: Any  # Payload: aiohttp types its queue for its own
            message, payload = messages.popleft()
            if self._parser is not None and not isinstance(payload, Whole):
                self._parser.message_consumed()
            if self._buffer_paused and len(messages) <= self._msg_queue_resume_size:
                self._resume_reading_if_drained()
            if message is not self._read:
                self._read = message
                self._asks = None if isinstance(message, _ErrInfo) else exchanges.read(message)
            asks = self._asks
            if asks is None:
                keep = await self._apart(message, payload)
            else:
                self._request_in_progress = True
                try:
                    keep = await exchanges.serve(self, message, payload, asks)
                finally:
                    self._request_in_progress = False
            if not isinstance(payload, Whole) and not payload.is_eof():
                await self._linger(payload)
            if not keep or self._last or self._close or self._force_close:
                break
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
            if self._keepalive_handle is None:
                self._keepalive_handle = self._loop.call_at(self._next_keepalive_close_time, self._process_keepalive)
        if not self._force_close:
            self._task_handler = None
            if self.transport is not None:
                self.transport.close()

    async def _apart(self, message: RawRequestMessage | _ErrInfo, payload: StreamReader) -> bool:
        """A request that is for no model: aiohttp's way, through the application."""
        assert self._request_factory is not None
        assert self._request_handler is not None
        handler = self._request_handler
        if isinstance(message, _ErrInfo):
            handler, message = self._make_error_handler(message), ERROR
        task = asyncio.current_task()
        assert task is not None
        request = self._request_factory(message, payload, self, StreamWriter(self, self._loop), task)
        try:
            response, reset = await self._handle_request(request, None, handler)
        except ConnectionError:
            return False
        finally:
            request._task = None  # type: ignore[assignment]  # noqa: SLF001 - a cycle that would live until the next collection
        return bool(response.keep_alive) and not reset

    async def _linger(self, payload: StreamReader) -> None:
        """Read, for a moment, what the caller still sends of a refused body: else it sees a reset instead of the refusal."""
        try:
            async with asyncio.timeout(self._lingering_time):
                while not payload.is_eof() and not self._force_close:
                    await payload.readany()
        except (TimeoutError, RequestPayloadError):
            pass
        if not payload.is_eof():
            self._close = True

    def finish(self) -> None:
        """Take nothing new: a connection that waits for a request is closed now, one that serves after its answer. (aiohttp's
        `close` drops what is still to come of an upload, and leaves an idle connection open.)"""
        self._last = True
        if self._waiter is not None and not self._waiter.done():
            self.force_close()

    def data_received(self, data: bytes) -> None:
        if self._repeat is None or self._close or self._force_close or (body := self._repeat.body_of(data)) is None:
            self._parse(data)
        else:
            self._request_count += 1
            self._messages.append((self._repeat.message, Whole(body)))  # type: ignore[arg-type]
            waiter = self._waiter
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
        if len(self._messages) > PIPELINE:
            log.warning("a caller sent more than %d requests ahead of their answers: connection closed", PIPELINE)
            self.force_close()

    def _parse(self, data: bytes) -> None:
        """aiohttp's way, through its parser. When *data* was one whole request, its head is remembered."""
        before = self._request_count
        super().data_received(data)
        if self._alone:
            self._repeat = None
            if self._request_count == before + 1:
                message, payload = self._messages[-1]
                if not isinstance(message, _ErrInfo) and payload.is_eof():
                    self._repeat = learn(data, message)
            self._alone = self._repeat is not None

    def pause_writing(self) -> None:
        super().pause_writing()
        manager = self._manager
        if isinstance(manager, FrontServer):
            self._stall = self._loop.call_later(manager.stall_timeout, self._stalled)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        resume, self.on_resume = self.on_resume, None
        if resume is not None:
            resume()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        self.on_resume = None
        super().connection_lost(exc)

    def _stalled(self) -> None:
        self._stall = None
        if self.transport is not None:
            log.warning("a caller did not read its answer: connection closed")
            self.transport.abort()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """aiohttp's own answer repeats the offending line, which may hold a key, and logs it."""
        log.debug("refused a malformed request: %s", type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was begun")
        if type(exc).__name__ == "ContentEncodingError":
            status = 400
        ours = status >= 500
        if ours and exc is not None:
            log.error("the server failed on a request: %s", type(exc).__name__)
        code = "gateway_internal" if ours else "caller_invalid_request"
        request_id = new_id()
        error = {
            "message": "The gateway failed on this request; this is a bug of ours." if ours else "This is no valid HTTP/1.1.",
            "type": "server_error" if ours else "invalid_request_error",
            "param": None,
            "code": None,
            "aigw_code": code,
            "request_id": request_id,
        }
        ours_too = {"x-request-id": request_id, "x-aigw-error": code, "server": "aigw"}
        response = web.json_response({"error": error}, status=status, headers=ours_too)
        response.force_close()
        return response


class FrontServer(Server):
    """Makes a `Front` for each connection. (`Server.__call__` drops all its settings when one of them is wrong.)"""

    stall_timeout = 60.0
    exchanges: Exchanges[Any]

    def __call__(self) -> RequestHandler:
        return Front(self, loop=self._loop, **self._kwargs)
