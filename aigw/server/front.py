"""aiohttp's connection handling, with its edges closed: what is malformed gets a JSON answer that repeats nothing of the
request, every wait has an end, a caller who does not read is paused and in the end cut off, one who writes far ahead dropped.
docs/security.md lists the limits.

One timer for each connection sees to them: it looks, when it fires, at what the connection waits for, and sets itself again.
Nothing is started or cancelled for a request that comes in one piece.

A request for a model does not become an aiohttp request: `start` hands its parsed head and its body to `Exchanges` in the
connection's own task. That saves a task, a request and a response object; and a head that a connection repeats is not parsed
again (see `repeat.py`). Everything else goes aiohttp's own way. Tried on aiohttp 3.14.5, which this leans on (its version is
locked exactly).
"""

from __future__ import annotations

import asyncio
import logging
import re
import traceback
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar, cast

from aiohttp import web
from aiohttp.http import RawRequestMessage, StreamWriter
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler, RequestPayloadError, _ErrInfo
from aiohttp.web_server import Server

from aigw.config.schema import Server as Settings
from aigw.errors import CallerError, GatewayError, InternalError
from aigw.protocols import DIALECTS
from aigw.server import heads
from aigw.server.door import LINGER, LINGERING, Door, Turned
from aigw.server.refusal import dialect_of, refusal
from aigw.server.repeat import Repeat, Whole, learn
from aigw.server.request_id import new_id

log = logging.getLogger("aigw.server")

PIPELINE = 8
"""Requests one connection may send ahead. A caller that is gone is not seen while reading is paused, which aiohttp does at
32; nobody who waits for answers sends more than one."""

HEAD = 64 * 1024
"""Bytes of a head that comes in pieces. aiohttp's own limit is 128 lines of 8 KiB each, a megabyte for each connection."""

BEGINNING = 8 * 1024
"""Bytes of a head that are kept before there is a parser for it."""

_ODD = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]").search
"""What stands in no line of a head."""

FRAMING = 4 * 1024, 8
"""Bytes of a chunked body that may be framing: so many, and so many for each byte of content. One-byte chunks need five; more
is somebody who sends us chunk extensions to chew on."""

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

    __slots__ = (
        "_alone",
        "_asks",
        "_body",
        "_deaf",
        "_dialect",
        "_framed",
        "_head_due",
        "_head_size",
        "_idle_due",
        "_most",
        "_party",
        "_read",
        "_repeat",
        "_stall",
        "_timer",
        "address",
        "last",
        "on_resume",
        "settings",
    )

    def __init__(self, manager: FrontServer, **settings: Any) -> None:
        super().__init__(manager, **settings)
        self.address = ""  # the caller's
        self.on_resume: Callable[[], None] | None = None
        self.last = False  # the next answer is the connection's last
        self.settings = manager.settings
        self._most = manager.settings.keep_alive_requests
        self._party: str | None = None  # whom the door counts it for; None: it is not in
        self._alone = True  # so far each block that came was one whole request
        self._repeat: Repeat | None = None
        self._read: Any = None  # the message that was served last, and what it asks
        self._asks: Any = None
        self._stall: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._idle_due = 0.0  # when it has waited long enough for a request
        self._head_due = 0.0  # when a head that has begun must be whole; 0: none has begun
        self._head_size = 0  # bytes of it so far
        self._body: StreamReader | None = None  # what the last head announced
        self._framed = -1  # bytes of it on the wire, when it is chunked
        self._deaf = False  # nothing more is read
        self._dialect = "openai_chat"  # that of a request which could not be read

    def enter(self, transport: asyncio.Transport, address: str, party: str) -> None:
        """Begin, on a connection that the door has let in for *party*."""
        self.address, self._party = address, party
        super().connection_made(transport)
        self._idle_due = self._loop.time() + self.settings.head_timeout
        self._timer = self._loop.call_at(self._idle_due, self._look)

    @property
    def idle(self) -> bool:
        """Whether it waits for a request."""
        return self._waiter is not None and not self._waiter.done()

    @property
    def asked(self) -> bool:
        """Whether it ever sent one."""
        return self._request_count > 0

    def _look(self) -> None:
        """Whether the connection has waited long enough. Runs when the timer fires, at the earliest time that can be."""
        self._timer = None
        if self._force_close or self.transport is None:
            return
        now = self._loop.time()
        if not self.idle:  # at work; what that waits for has limits of its own
            if self._head_due and now >= self._head_due:
                self.last = True  # the next request came too slowly; this one's answer is not disturbed
            due = now + self.settings.keep_alive
        else:
            due = self._head_due or self._idle_due
            if now >= due:
                if self._head_due:
                    self.too_slow()
                else:
                    self.force_close()
                return
        self._timer = self._loop.call_at(due, self._look)

    def too_slow(self) -> None:
        """A head was begun, and did not come."""
        self._object(CallerError("caller_timeout", "The request's head did not come in time."))

    def _object(self, error: GatewayError) -> None:
        """Refuse what has not become a request: in its turn, and the last thing on this connection."""
        self._deaf = True
        self._messages.append((error, EMPTY_PAYLOAD))  # type: ignore[arg-type]
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def start(self) -> None:
        """Take the connection's requests one after the other until it closes. Runs as the connection's task, which is cancelled
        when the caller goes."""
        try:
            await self._serve()
        except Exception as error:  # noqa: BLE001 - the border: whatever went wrong, nobody is left waiting
            log.error("a connection failed: %s at %s; this is a bug of ours", type(error).__name__, where(error))
            if self.transport is not None:
                self.transport.abort()
            return
        if not self._force_close:
            self._task_handler = None
            if self.transport is not None:
                self.transport.close()
                self._see_off(self.transport)

    async def _serve(self) -> None:
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
            message: Any  # RawRequestMessage, _ErrInfo or GatewayError
            payload: Any  # Payload: aiohttp types its queue for its own
            message, payload = messages.popleft()
            if self._parser is not None and not isinstance(payload, Whole):
                self._parser.message_consumed()
            if self._buffer_paused and len(messages) <= self._msg_queue_resume_size:
                self._resume_reading_if_drained()
            if message is not self._read:
                refused = _objection(message)
                if refused is not None:
                    await self._refuse(refused, message)
                    break
                message = self._read = heads.in_origin_form(message)
                self._asks = exchanges.read(message)
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
            if not keep or self.last or self._close or self._force_close:
                break
            self._idle_due = self._loop.time() + self.settings.keep_alive

    async def _apart(self, message: RawRequestMessage, payload: Payload) -> bool:
        """A request that is for no model: aiohttp's way, through the application."""
        assert self._request_factory is not None
        assert self._request_handler is not None
        if isinstance(payload, Whole):  # nothing there reads a body
            payload = EMPTY_PAYLOAD
        if message.headers.get("Expect", "100-continue").lower() != "100-continue":
            await self._refuse(
                CallerError("caller_expectation_failed", "The only expectation that can be met is 100-continue."), message
            )
            return False
        if self.last:
            message = message._replace(should_close=True)
        task = asyncio.current_task()
        assert task is not None
        request = self._request_factory(message, payload, self, StreamWriter(self, self._loop), task)
        try:
            response, reset = await self._handle_request(request, None, self._request_handler)
        except ConnectionError:
            return False
        finally:
            request._task = None  # type: ignore[assignment]  # noqa: SLF001 - a cycle that would live until the next collection
        return bool(response.keep_alive) and not reset

    async def _refuse(self, error: GatewayError, message: RawRequestMessage | _ErrInfo | GatewayError) -> None:
        """Answer what is no request, and give the caller a moment to see it: closed at once, with bytes of it unread, the
        connection would be reset, and the answer lost."""
        manager, transport = self._manager, self.transport
        if transport is None or not isinstance(manager, FrontServer):
            return
        self._deaf = True
        body = True
        if isinstance(message, RawRequestMessage):
            anthropic = "anthropic-version" in message.headers or message.path.partition("?")[0].endswith("/messages")
            self._dialect = "anthropic_messages" if anthropic else "openai_chat"
            body = message.method != "HEAD"
        log.debug("refused a malformed request: %s", error.message)
        transport.write(refusal(error, self._dialect, body=body))
        door = manager.door
        if door.lingering >= LINGERING or not transport.can_write_eof():
            return
        door.lingering += 1
        try:
            transport.write_eof()
            self._resume_transport_reading()
            await asyncio.sleep(LINGER)
        finally:
            door.lingering -= 1

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
        self.last = True
        if self._waiter is not None and not self._waiter.done():
            self.force_close()

    def data_received(self, data: bytes) -> None:
        if self._repeat is None or self._close or self._force_close or (body := self._repeat.body_of(data)) is None:
            self._parse(data)
        else:
            count = self._request_count = self._request_count + 1
            if count >= self._most:
                self.last = True
            self._messages.append((self._repeat.message, Whole(body)))  # type: ignore[arg-type]
            waiter = self._waiter
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
        if len(self._messages) > PIPELINE:
            self._say("pipeline", f"a caller sent more than {PIPELINE} requests ahead of their answers: connection closed")
            self.force_close()

    def _parse(self, data: bytes) -> None:
        """aiohttp's way, through its parser. When *data* was one whole request, its head is remembered."""
        if self._deaf:
            return
        if self._upgraded:  # frames of a session: aiohttp's buffers are bounded, and its limits are the session's own
            super().data_received(data)
            return
        before, body = self._request_count, self._body
        for_body = body is not None and not body.is_eof()
        try:
            super().data_received(data)
        except Exception as error:  # noqa: BLE001 - aiohttp's parser; the event loop would log a traceback, with bytes in it
            log.error("a request could not be read: %s at %s", type(error).__name__, where(error))
            self._object(CallerError("caller_invalid_request", "This is no valid HTTP/1.1."))
            return
        if self._request_count != before:
            self._begun(data)
        elif for_body:
            self._weigh(len(data))
        elif data:
            self._head_goes_on(len(data))
        if self._alone:
            self._repeat = None
            if self._request_count == before + 1:
                message, payload = self._messages[-1]
                if isinstance(message, RawRequestMessage) and payload.is_eof() and message.path[:1] == "/":
                    self._repeat = learn(data, message)
            self._alone = self._repeat is not None

    def _begun(self, data: bytes) -> None:
        """Heads have come whole; the last one may have announced a body that is still on its way."""
        self._head_due, self._head_size, self._framed = 0.0, 0, -1
        message, self._body = self._messages[-1]
        if self._request_count >= self._most:
            self.last = True
        if isinstance(message, _ErrInfo):
            self._deaf = True
            self._dialect = dialect_of(data)
        elif message.chunked and not self._body.is_eof():
            self._framed = 0
            self._weigh(len(data) - (data.rfind(b"\r\n\r\n") + 4))

    def _head_goes_on(self, size: int) -> None:
        """Part of a head has come, and no end of it."""
        self._head_size += size
        if self._head_size > HEAD:
            self._object(CallerError("caller_invalid_request", "The request's head is too long.", status=431))
        elif not self._head_due:
            self._head_due = self._loop.time() + self.settings.head_timeout
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(self._head_due, self._look)

    def _weigh(self, size: int) -> None:
        """Part of a body has come. Nobody needs much framing for little content."""
        body = self._body
        if self._framed < 0 or body is None:
            return
        self._framed += size
        base, each = FRAMING
        if self._framed > base + (each + 1) * body.total_bytes and not body.is_eof():
            self._deaf = self.last = True
            body.set_exception(RequestPayloadError("more framing than content"))

    def _say(self, kind: str, what: str) -> None:
        """What callers can cause, and must not be able to fill the log with."""
        manager = self._manager
        if isinstance(manager, FrontServer):
            manager.door.say(kind, what, self._loop.time())

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stall is None:
            self._stall = self._loop.call_later(self.settings.stall_timeout, self._stalled)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        resume, self.on_resume = self.on_resume, None
        if resume is not None:
            resume()

    def connection_lost(self, exc: BaseException | None) -> None:
        for timer in (self._stall, self._timer):
            if timer is not None:
                timer.cancel()
        self._stall = self._timer = None
        self.on_resume = None
        manager = self._manager
        if self._party is not None and isinstance(manager, FrontServer):
            manager.door.leave(self._party)
            self._party = None
        super().connection_lost(exc)

    def _stalled(self) -> None:
        self._stall = None
        if self.transport is not None:
            self._say("stall", "a caller did not read its answer: connection closed")
            self.transport.abort()

    def force_close(self) -> None:
        transport = self.transport
        super().force_close()
        if transport is not None:
            self._see_off(transport)

    def _see_off(self, transport: asyncio.Transport) -> None:
        """A closed transport waits until its rest is read, for ever if need be."""
        if transport.get_write_buffer_size():
            self._loop.call_later(self.settings.stall_timeout, transport.abort)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """The application failed. aiohttp's own answer is text, and logs a traceback that may hold a key."""
        if exc is not None:
            log.error("the server failed on a request: %s at %s", type(exc).__name__, where(exc))
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was begun")
        error = InternalError("gateway_internal", "The gateway failed on this request; this is a bug of ours.")
        request_id = new_id()
        response = web.Response(
            status=error.status,
            body=DIALECTS["openai_chat"].render_error(error, request_id),
            headers={"x-request-id": request_id, "x-aigw-error": error.code},
            content_type="application/json",
        )
        response.force_close()
        return response


def _objection(message: RawRequestMessage | _ErrInfo | GatewayError) -> GatewayError | None:
    """Why what stands in the queue is not answered as a request; None when it is."""
    if isinstance(message, GatewayError):
        return message
    if isinstance(message, _ErrInfo):
        kind = type(message.exc).__name__
        if kind == "LineTooLong":
            return CallerError("caller_invalid_request", "The request's address or a header is too long.", status=431)
        if "Too many" in str(message.exc):
            return CallerError("caller_invalid_request", "The request has too many headers.", status=431)
        return CallerError("caller_invalid_request", "This is no valid HTTP/1.1.")
    return heads.objection(message)


def where(error: BaseException) -> str:
    """The place in our own code: a traceback's other contents may hold a key."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else "?"


class Hall(asyncio.Protocol):
    """A connection that has not sent a whole head yet. Whoever holds one open, or drips, costs little: a parser, a task and the
    rest of a `Front` are made when there is something to read."""

    __slots__ = ("_address", "_due", "_heard", "_manager", "_party", "_timer", "_transport")

    asked = False  # it never sent a request; see `door.Idler`

    def __init__(self, manager: FrontServer) -> None:
        self._manager = manager
        self._address = ""
        self._party = ""
        self._heard = b""  # the beginning of a head
        self._due = 0.0
        self._transport: asyncio.Transport | None = None  # None: somebody else's by now
        self._timer: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """Whether it waits for a request."""
        return self._transport is not None and not self._heard

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop derives its own from none of asyncio's
        manager = self._manager
        peer = transport.get_extra_info("peername")
        self._address = peer[0] if isinstance(peer, tuple) else ""
        loop = asyncio.get_running_loop()
        now = loop.time()
        try:
            self._party = manager.door.enter(self._address, now)
        except GatewayError as error:
            turned = Turned(manager.door, error)
            transport.set_protocol(turned)
            turned.connection_made(transport)
            return
        self._transport = transport
        manager.waiting[self] = None
        self._due = now + manager.settings.head_timeout
        self._timer = loop.call_at(self._due, self._look)

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        if self._heard:
            data = self._heard + data
        # What can be no head is refused at once; what may still become one is not worth a parser.
        if b"\r\n\r\n" not in data and len(data) <= BEGINNING and data[:1].isalpha() and not _ODD(data.replace(b"\r\n", b"")):
            if not self._heard:
                self._due = asyncio.get_running_loop().time() + self._manager.settings.head_timeout
            self._heard = data
            return
        self._hand_over().data_received(data)

    def _hand_over(self) -> Front:
        transport = self._transport
        assert transport is not None
        self._forget()
        front = self._manager.front()
        transport.set_protocol(front)
        front.enter(transport, self._address, self._party)
        return front

    def _look(self) -> None:
        """Whether it has waited long enough for a head. Who has begun one hears so."""
        self._timer = None
        if self._transport is None:
            return
        loop = asyncio.get_running_loop()
        if loop.time() < self._due:
            self._timer = loop.call_at(self._due, self._look)
        elif self._heard:
            self._hand_over().too_slow()
        else:
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._transport is not None:
            self._manager.door.leave(self._party)
            self._forget()

    def force_close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _forget(self) -> None:
        self._manager.waiting.pop(self, None)
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class FrontServer(Server):
    """Makes a `Front` for each connection. (`Server.__call__` drops all its settings when one of them is wrong.)"""

    settings: Settings
    exchanges: Exchanges[Any]
    door: Door

    def __call__(self) -> RequestHandler:
        return Hall(self)  # type: ignore[return-value]  # asyncio wants a protocol, and that it is

    def front(self) -> Front:
        """A connection that has something to say."""
        return Front(self, loop=self._loop, **self._kwargs)

    def harden(self, settings: Settings, exchanges: Exchanges[Any]) -> None:
        """Set before the first connection is accepted."""
        self.settings, self.exchanges = settings, exchanges
        self.waiting: dict[Hall, None] = {}
        self.door = Door(settings, self._idlers)

    def _idlers(self) -> Iterator[Hall | Front]:
        yield from self.waiting
        yield from (one for one in self.connections if isinstance(one, Front))

    def finish(self) -> None:
        """Take nothing new on any connection (see `Front.finish`)."""
        for hall in list(self.waiting):
            hall.force_close()
        for connection in self.connections:
            assert isinstance(connection, Front)
            connection.finish()

    def force_close(self) -> None:
        """Cut every connection."""
        for hall in list(self.waiting):
            hall.force_close()
        for connection in self.connections:
            connection.force_close()

    def adopt(self, settings: Settings, most: int) -> None:
        """Limits that hold for connections from now on. *most* connections in all."""
        self.settings = self.door.settings = settings
        self.door.most = most
