"""HTTP/1.1 to providers: an asyncio protocol over httptools with a keep-alive pool, TLS, CONNECT proxies and timeouts.

Why not aiohttp's client: a request through it costs three times what this one does (design notes, "what the hot path can
cost"), and an answer must be pushed on from `data_received`, without a task, a future or a copy per chunk.

What httptools does that shapes the code: 100 and 103 fire `on_message_complete` too; an answer that ends with its connection
never fires it; bytes behind an answer's end begin a second message. This is also the one gate where foreign exceptions become
`UpstreamError`.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections import deque
from typing import cast
from urllib.parse import urlsplit

import httptools

from aigw.errors import UpstreamError
from aigw.exchange import Flow, Headers, Origin, Receiver, Upload, UpstreamRequest
from aigw.upstream.peers import Peers

TICK = 0.1
"""Seconds between two looks at the clocks of all open connections: timeouts are exact to this."""

DRAIN = 1.0
"""Seconds that a connection waits for the end of an answer's framing once the answer itself is whole: many servers send it a
moment later, and a connection that has seen it can be used again."""

KEEP_ALIVE = 50.0
"""Seconds an idle connection is kept. Common servers close theirs after 60 to 75 (nginx: 75, Node behind ALB: 60); closing
first avoids sending into a connection that is being closed."""

MAX_HEAD = 256 * 1024
"""Bytes of an answer's head; more is no honest provider."""

MAX_FRAMING = 256 * 1024
"""Bytes of chunk sizes, extensions and trailers that may come without any content among them; more is a flood."""

MANY = 16 * 1024
"""Bytes of one read that may hold thousands of chunks: above this their contents are handed on together."""

ERROR_TIME = 10.0
"""Seconds in which the body of an error must have come; then it is judged by what is there. Errors are short, and somebody
waits to be tried elsewhere."""

_STOPPING = "was cut off because the gateway stops"

_FIELD = re.compile(rb"\r\n([^:\r\n]+):[ \t]*([^\r\n]*)")  # behind the status line

_BIG_BODY = 64 * 1024  # above this a body is written apart from its head instead of being copied behind it


class Connection(asyncio.Protocol):
    """One connection to one origin, one request at a time. Is the `Flow` of the receiver it feeds."""

    __slots__ = (
        "_aged",
        "_at",
        "_barren",
        "_done",
        "_early",
        "_full",
        "_head_seen",
        "_headers",
        "_ignore",
        "_keep",
        "_loop",
        "_over",
        "_parser",
        "_pool",
        "_quiet",
        "_raw",
        "_receiver",
        "_request",
        "_reused",
        "_room",
        "_uploading",
        "_waiter",
        "closed",
        "idle_since",
        "origin",
        "paused",
        "transport",
    )

    def __init__(self, pool: HttpTransport, origin: Origin, loop: asyncio.AbstractEventLoop) -> None:
        self._pool, self.origin, self._loop = pool, origin, loop
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.closed = False
        self.idle_since = 0.0
        self.paused = False
        self._parser = httptools.HttpResponseParser(self)
        self._receiver: Receiver | None = None
        self._headers: Headers = []
        self._waiter: asyncio.Future[None] | None = None
        self._request: UpstreamRequest | None = None
        self._reused = False
        self._full = False  # the provider reads more slowly than we write
        self._room: asyncio.Future[None] | None = None  # who waits until it has read
        self._uploading = False  # part of the request is still to be sent
        self._reset()

    def _reset(self) -> None:
        self._raw = b""  # of the answer, until its head is whole
        self._early = self._at = self._barren = 0
        self._over = ""  # how the answer ended: "done" with its framing, "stopped" or "complete" by its receiver, "broken"
        self._head_seen = self._done = self._ignore = self._keep = False
        self._quiet = self._aged = 0
        self._uploading = False

    # the request

    def begin(self, request: UpstreamRequest, receiver: Receiver) -> asyncio.Future[None]:
        """Write *request*; the future ends with its answer."""
        self._reset()
        self._receiver, self._request = receiver, request
        self._waiter = waiter = self._loop.create_future()
        body = request.body
        wire = request.target.wire
        if request.source is not None:
            self._uploading = True
            length = request.source.sent_length
            framing = b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length
            self.transport.write(b"%b%b%b\r\n\r\n" % (wire, request.extra, framing))
            return waiter
        if body or request.target.method != "GET":
            head = b"%b%bcontent-length: %d\r\n\r\n" % (wire, request.extra, len(body))
        else:
            head = b"%b%b\r\n" % (wire, request.extra)
        if len(body) > _BIG_BODY:
            self.transport.write(head)
            self.transport.write(body)
        else:
            self.transport.write(head + body)
        return waiter

    async def upload(self, source: Upload) -> None:
        """Send the body, as fast as it comes and as the provider reads it. When its sender fails, so does the request: a body
        that is not whole must not look as if it were."""
        chunked = source.sent_length is None
        left = source.sent_length or 0
        try:
            while block := await source.read():
                left -= len(block)
                if not chunked and left < 0:
                    raise _bad_response("was to be sent more than was promised")
                if self.closed:
                    return
                self._quiet = 0
                self.transport.write(b"%x\r\n%b\r\n" % (len(block), block) if chunked else block)
                if self._full:
                    self._room = self._loop.create_future()
                    await self._room
            if chunked:
                self.transport.write(b"0\r\n\r\n")
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody is left waiting
            self._crash(error)
            return
        self._quiet = self._aged = 0  # it can begin to answer only now
        self._uploading = False

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    @property
    def untouched(self) -> bool:
        """A pooled connection that died before any byte of an answer: the provider had closed it; nothing was refused."""
        return self._reused and self._early == 0

    @property
    def usable(self) -> bool:
        return not self.closed and not self.transport.is_closing()

    # the answer, from asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        if self._receiver is None:  # nobody asked: whatever this is, the connection cannot be trusted any more
            self.discard()
            return
        if not self._head_seen:
            if self._early > MAX_HEAD:  # the parser keeps an unfinished header line, however long
                self._fail("provider_bad_response", "sent a head that is too large")
                return
            self._early += len(data)
            self._raw = self._raw + data if self._raw else data
        receiver = self._receiver
        together: _Together | None = None
        if len(data) > MANY and self._head_seen:
            self._receiver = together = _Together()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            self._crash(error.__context__ or error)
            return
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._keep = False  # nonsense behind a whole answer harms only the connection
            if not self._done and self._over != "stopped":
                self._over = "broken"
        if together is not None:
            self._receiver = receiver
            if together.blocks:
                try:
                    receiver.feed(b"".join(together.blocks))
                except Exception as error:  # noqa: BLE001 - a receiver's bug ends its exchange, not the connection's owner
                    self._crash(error)
                    return
        if self._over:
            self._settle()
        elif self._quiet and self._head_seen:  # framing is no progress: the idle clock goes on, and there is an end to it
            self._barren += len(data)
            if self._barren > MAX_FRAMING:
                self._fail("provider_bad_response", "sent chunk framing without content")

    def _settle(self) -> None:
        if self._done:
            self._finish(reusable=self._keep and self._over != "stopped")
        elif self._over == "complete":
            self._let_go()
        elif self._over == "stopped":
            self._finish(reusable=False)
        else:
            self._fail("provider_bad_response", "did not answer in HTTP/1.1")

    def connection_lost(self, exc: Exception | None) -> None:
        self.resume_writing()
        if not self.closed:
            self.closed = True
            self._pool.forget(self)
        if self._receiver is None:
            return
        if exc is None and self._head_seen and self._ends_with_connection():
            self._finish(reusable=False)
        elif self._head_seen:
            self._fail("provider_connection_lost", "closed the connection in the middle of its answer")
        else:
            self._fail("provider_connection_lost", "closed the connection without an answer")

    # the answer, from the parser

    def on_message_begin(self) -> None:
        if self._done:  # bytes behind the answer's end: whose they are nobody knows
            self._keep = False

    def on_headers_complete(self) -> None:
        """The parser has checked the head; its fields are read here, at once: a call for each of twenty costs more."""
        if self._done:  # bytes behind the answer's end
            return
        raw = self._raw
        end = raw.find(b"\r\n\r\n", self._at)
        if end < 0:
            raise _bad_response("did not answer in HTTP/1.1")
        if end - self._at > MAX_HEAD:
            raise _bad_response("sent a head that is too large")
        if not raw.startswith(b"HTTP/1.", self._at):  # the parser takes RTSP and other versions too, and leading empty lines
            raise _bad_response("did not answer in HTTP/1.1")
        status = self._parser.get_status_code()
        if status < 100:  # the parser takes any three digits
            raise _bad_response("did not answer in HTTP/1.1")
        if status == 101:
            raise _bad_response("switched protocols where none was asked for")
        if 100 <= status < 200:  # 100 Continue, 103 Early Hints
            interim = raw[self._at : end].lower()
            if b"\r\ncontent-length:" in interim or b"\r\ntransfer-encoding:" in interim:  # the parser would read a body
                raise _bad_response("sent an interim answer with a body")
            self._ignore = True
            self._at = end + 4
            return
        self._ignore = False
        self._head_seen = True
        self._quiet = 0
        headers = [(name.lower(), value) for name, value in _FIELD.findall(raw, self._at, end)]
        self._raw = b""
        self._headers = headers
        assert self._receiver is not None
        if status >= 300 and self._request is not None:
            self._request.timeout = min(self._request.timeout, self._aged * TICK + ERROR_TIME)
        self._receiver.head(status, headers, self)

    def _ends_with_connection(self) -> bool:
        known = dict(self._headers)
        framed = b"content-length" in known or b"chunked" in known.get(b"transfer-encoding", b"").lower()
        return not framed and self._parser.get_status_code() not in (204, 304)

    def on_body(self, body: bytes) -> None:
        if not self._over and self._receiver is not None:
            self._quiet = 0
            self._receiver.feed(body)

    def on_message_complete(self) -> None:
        if self._ignore:
            self._ignore = False
        elif not self._done:
            self._done = True
            self._over = self._over or "done"
            self._keep = self._parser.should_keep_alive()  # only now: the parser forgets with the next message

    # endings

    def _let_go(self) -> None:
        """The answer is whole: `send` returns. What is left of its framing is read without it."""
        self._receiver = _NOBODY
        self._over = ""
        self._head_seen = False  # from here on every byte counts, as in a head: a flood has an end
        self._aged = 0
        waiter, self._waiter = self._waiter, None
        if self.paused:
            self.resume()
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _finish(self, *, reusable: bool) -> None:
        waiter, self._waiter = self._waiter, None
        drained = self._receiver is _NOBODY
        self._receiver = None
        if self.paused:
            self.resume()
        wanted = waiter is not None and not waiter.done()  # else its caller is gone, and `send` is about to close us
        if (
            reusable
            and (wanted or drained)
            and not self.closed
            and not self._uploading
            and self.transport.get_write_buffer_size() == 0
        ):
            self._pool.release(self)
        else:
            self.discard()
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _fail(self, code: str, message: str, *, retry: bool = True) -> None:
        sent = self._head_seen or self.transport.get_write_buffer_size() == 0
        self._crash(UpstreamError(code, message, fault="deployment" if retry else "", may_retry=retry, sent=sent))

    def _crash(self, error: BaseException) -> None:
        waiter, self._waiter = self._waiter, None
        self._receiver = None
        self.discard()
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    def discard(self) -> None:
        """Close now, without waiting for what is unsent."""
        self._receiver = None
        if not self.closed:
            self.closed = True
            self._pool.forget(self)
            self.transport.abort()

    def cut(self) -> None:
        """The transport closes: end what is under way."""
        self._fail("provider_connection_lost", _STOPPING, retry=False)

    def tick(self) -> None:
        """Called every TICK while a request is under way."""
        if self._uploading:  # whoever sends it has limits of his own; the provider must take it
            self._quiet = self._quiet + 1 if self._full else 0
            if self._request is not None and self._quiet * TICK > self._request.idle_timeout:
                self._fail("provider_timeout", "did not take the request's body in time")
            return
        self._aged += 1
        if not self._quiet:
            self._barren = 0  # content came since the last tick
        if not self.paused:
            self._quiet += 1
        request = self._request
        if request is None:
            return
        if self._receiver is _NOBODY:
            if self._aged * TICK > DRAIN:
                self.discard()
            return
        aged = self._aged * TICK
        if aged > request.timeout:
            if self._head_seen and self._parser.get_status_code() >= 300:
                self._finish(reusable=False)
            else:
                self._fail("provider_timeout", "did not finish its answer in time")
        elif aged > request.patience and self._receiver is not None and not self._receiver.started:
            self._fail("provider_timeout", "did not begin to answer in time")
        elif self._head_seen:
            if self._quiet * TICK > request.idle_timeout:
                self._fail("provider_timeout", "fell silent in the middle of its answer")
        elif aged > request.first_byte_timeout:
            self._fail("provider_timeout", "did not begin to answer in time")

    # Flow

    def pause(self) -> None:
        if not self.paused and not self.closed and self._receiver is not None:
            self.paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        if self.paused:
            self.paused = False
            self._quiet = 0
            if not self.closed:
                self.transport.resume_reading()

    def stop(self) -> None:
        if self._receiver is not None:
            self._over = "stopped"

    def complete(self) -> None:
        if self._receiver is not None and not self._over:
            self._over = "complete"


class _Nobody:
    """The receiver of what nobody waits for any more."""

    started = True

    def head(self, status: int, headers: Headers, flow: Flow) -> None: ...

    def feed(self, block: bytes) -> None: ...


_NOBODY = _Nobody()


class _Together:
    """Stands in for the receiver while one large read is parsed: a provider may write chunks of one byte."""

    started = False

    def __init__(self) -> None:
        self.blocks: list[bytes] = []
        self.feed = self.blocks.append

    def head(self, status: int, headers: Headers, flow: Flow) -> None: ...


class _Tunnel(asyncio.Protocol):
    """Asks a proxy for a way through, and says when there is one."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.ready: asyncio.Future[None] = loop.create_future()
        self._seen = b""

    def data_received(self, data: bytes) -> None:
        self._seen += data
        if self.ready.done():
            return
        if b"\r\n\r\n" in self._seen:
            status = self._seen.split(b"\r\n", 1)[0].split(b" ")
            if len(status) > 1 and status[1] == b"200":
                self.ready.set_result(None)
            else:
                said = status[1].decode("ascii", "replace")[:8] if len(status) > 1 else "nonsense"
                self.ready.set_exception(ConnectionError(f"the proxy answered {said}"))
        elif len(self._seen) > MAX_HEAD:
            self.ready.set_exception(ConnectionError("the proxy's answer is too large"))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_exception(ConnectionError("the proxy closed the connection"))


class HttpTransport:
    """The `Transport` for http:// and https:// origins. One for the whole server: pools outlive a reload."""

    def __init__(self, max_connections: int = 1000) -> None:
        """*max_connections* is to one origin; further requests wait their turn, first come, first served."""
        self.max_connections = max_connections
        self._idle: dict[Origin, list[Connection]] = {}
        self._open: dict[Origin, int] = {}
        self._queue: dict[Origin, deque[asyncio.Future[Connection | None]]] = {}
        self._active: set[Connection] = set()
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._ticker: asyncio.TimerHandle | None = None
        self.peers = Peers()

    async def send(self, request: UpstreamRequest, receiver: Receiver) -> None:
        origin = request.target.origin
        connection = None if request.once or request.source is not None else self._pooled(origin)
        while True:
            if connection is None:
                connection = await self._connect_for(request)
            self._active.add(connection)  # until `release` or `forget`: when we run again, another may have it
            waiter = connection.begin(request, receiver)
            upload = None
            if request.source is not None:
                upload = asyncio.get_running_loop().create_task(connection.upload(request.source), name="upload")
            if self._ticker is None:
                self._ticker = asyncio.get_running_loop().call_later(TICK, self._tick)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.cancelled():
                    connection.discard()
                else:  # the answer had ended just before: the connection is no longer ours
                    waiter.exception()
                raise
            except UpstreamError as error:
                if error.code == "provider_connection_lost" and connection.untouched and error.may_retry and not request.once:
                    _spend(request, connection._aged * TICK)  # noqa: SLF001 - the time is gone all the same
                    connection = None  # the provider had closed it while it was idle: no attempt was made
                    continue
                raise
            finally:
                if upload is not None:
                    upload.cancel()
                    await asyncio.gather(upload, return_exceptions=True)
            return

    async def close(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
        for queue in self._queue.values():
            for turn in queue:
                if not turn.done():
                    error = UpstreamError("provider_connection_lost", _STOPPING, sent=False)
                    turn.set_exception(error)
        self._queue.clear()
        for connections in list(self._idle.values()):
            for connection in list(connections):
                connection.discard()
        for connection in list(self._active):
            connection.cut()

    @property
    def active(self) -> int:
        """Requests under way."""
        return len(self._active)

    def connections(self) -> dict[str, tuple[int, int]]:
        """Per address, whatever the way to it: connections open, and of these idle."""
        counts: dict[str, tuple[int, int]] = {}
        for origin, count in self._open.items():
            where = f"{origin.scheme}://{origin.host}:{origin.port}"
            opened, idle = counts.get(where, (0, 0))
            counts[where] = (opened + count, idle + len(self._idle.get(origin, ())))
        return counts

    # the pool

    def _pooled(self, origin: Origin) -> Connection | None:
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()  # the one used last: the others grow old and are dropped
            if connection.usable:
                connection._reused = True  # noqa: SLF001 - the pool's own mark on its connection
                return connection
        return None

    def release(self, connection: Connection) -> None:
        """Take *connection* back after its whole answer was read."""
        self._active.discard(connection)
        origin = connection.origin
        if self._queue and self._hand_over(origin, connection):
            return
        connection.idle_since = connection._loop.time()  # noqa: SLF001
        idle = self._idle.get(origin)
        if idle is None:
            idle = self._idle[origin] = []
        idle.append(connection)
        if self._ticker is None:
            self._ticker = asyncio.get_running_loop().call_later(TICK, self._tick)

    def forget(self, connection: Connection) -> None:
        """*connection* is closed."""
        self._active.discard(connection)
        idle = self._idle.get(connection.origin)
        if idle and connection in idle:
            idle.remove(connection)
        self._free_place(connection.origin)

    def _free_place(self, origin: Origin) -> None:
        if self._queue and self._hand_over(origin, None):
            return
        left = self._open.get(origin, 0) - 1
        if left > 0:
            self._open[origin] = left
        else:
            self._open.pop(origin, None)
            if not self._idle.get(origin):
                self._idle.pop(origin, None)

    def _hand_over(self, origin: Origin, connection: Connection | None) -> bool:
        """Give *connection*, or the place of one (None), to who waits longest; False when nobody does. It never lies about in
        between, where a newcomer could take it."""
        queue = self._queue.get(origin)
        while queue:
            turn = queue.popleft()
            if not queue:
                del self._queue[origin]
            if not turn.done():
                if connection is not None:
                    connection._reused = True  # noqa: SLF001
                turn.set_result(connection)
                return True
        return False

    async def _turn(self, origin: Origin) -> Connection | None:
        """Wait for a place among the origin's connections (None: there is one now), or for one that is free again."""
        if self._open.get(origin, 0) >= self.max_connections:
            idle = self._idle.get(origin)
            if not idle:
                turn: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
                self._queue.setdefault(origin, deque()).append(turn)
                try:
                    return await turn
                except asyncio.CancelledError:
                    self._leave(origin, turn)
                    raise
            idle[0].discard()  # someone wants a fresh one, and this one has been idle longest
        self._open[origin] = self._open.get(origin, 0) + 1
        return None

    def _leave(self, origin: Origin, turn: asyncio.Future[Connection | None]) -> None:
        """Who waited has given up; what it may have been given just now goes to the next."""
        queue = self._queue.get(origin)
        if queue is not None and turn in queue:
            queue.remove(turn)
            if not queue:
                del self._queue[origin]
        if turn.cancelled() or turn.exception() is not None:
            return
        connection = turn.result()
        if connection is None:
            self._free_place(origin)
        elif connection.usable:
            self.release(connection)

    def _tick(self) -> None:
        self._ticker = None
        for connection in list(self._active):
            if connection._receiver is not None:  # noqa: SLF001
                connection.tick()
        now = asyncio.get_running_loop().time()
        for idle in list(self._idle.values()):
            for connection in [one for one in idle if now - one.idle_since > KEEP_ALIVE]:
                connection.discard()
        if self._active or any(self._idle.values()):
            self._ticker = asyncio.get_running_loop().call_later(TICK if self._active else 1.0, self._tick)

    # connecting

    async def _connect_for(self, request: UpstreamRequest) -> Connection:
        """A connection for *request*; the time it takes is taken off the caller's patience."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        connection = await self._connect(request.target.origin, min(request.connect_timeout, request.patience))
        _spend(request, loop.time() - began)
        return connection

    async def _connect(self, origin: Origin, within: float) -> Connection:
        loop = asyncio.get_running_loop()
        where = f"{origin.host}:{origin.port}"
        try:
            async with asyncio.timeout(within):
                while (freed := await self._turn(origin)) is not None:
                    if freed.usable:  # else it was closed between its last answer and now
                        return freed
                connection = Connection(self, origin, loop)
                try:
                    await self._open_connection(connection, origin, loop)
                except BaseException:
                    if not connection.closed:
                        connection.closed = True
                        self.forget(connection)
                    raise
                self.peers.note(connection.transport)
                return connection
        except TimeoutError:
            raise unreachable("could not be connected to in time", f"{where}: {within:g} s", "provider_timeout") from None
        except ssl.SSLCertVerificationError as error:
            why = error.verify_message or "unknown reason"
            raise unreachable("has no certificate we can trust", f"{where}: {why}; see `ca_file`", retry=False) from None
        except ssl.SSLError as error:
            raise unreachable("could not agree on TLS", f"{where}: {error.reason or 'handshake failed'}") from None
        except (socket.gaierror, UnicodeError) as error:  # UnicodeError: it can be no host name at all
            why = (isinstance(error, socket.gaierror) and error.strerror) or "not a host name"
            raise unreachable("has a host name that could not be resolved", f"{origin.host}: {why}") from None
        except OSError as error:
            why = error.strerror or str(error) or "connection failed"
            via = f" by proxy {urlsplit(origin.proxy).hostname}" if origin.proxy else ""
            raise unreachable("could not be reached", f"{where}{via}: {why}") from None

    async def _open_connection(self, connection: Connection, origin: Origin, loop: asyncio.AbstractEventLoop) -> None:
        context = self._context(origin.ca_file) if origin.scheme == "https" else None
        if not origin.proxy:
            name = origin.host if context is not None else None
            await loop.create_connection(lambda: connection, origin.host, origin.port, ssl=context, server_hostname=name)
            return
        proxy = urlsplit(origin.proxy)
        host, port = proxy.hostname or "", proxy.port or 80
        if context is None:  # plain HTTP goes to the proxy with the whole URL in its request line (see Target)
            await loop.create_connection(lambda: connection, host, port)
            return
        transport, tunnel = await loop.create_connection(lambda: _Tunnel(loop), host, port)
        try:
            authority = f"[{origin.host}]:{origin.port}" if ":" in origin.host else f"{origin.host}:{origin.port}"
            ask = f"CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n{origin.proxy_authorization()}\r\n"
            transport.write(ask.encode("ascii", "replace"))
            await tunnel.ready
            secure = await loop.start_tls(transport, connection, context, server_hostname=origin.host)
            if secure is None:
                raise ConnectionError("the proxy closed the connection")
            connection.connection_made(secure)
        except BaseException:
            transport.abort()
            raise

    def _context(self, ca_file: str) -> ssl.SSLContext:
        context = self._contexts.get(ca_file)
        if context is None:
            context = tls_context(ca_file)
            self._contexts[ca_file] = context
        return context


def tls_context(ca_file: str) -> ssl.SSLContext:
    """What a provider's certificate is checked with: the system's authorities, and those in *ca_file*. Raises UpstreamError
    when that cannot be read."""
    context = ssl.create_default_context()
    if ca_file:
        try:
            context.load_verify_locations(cafile=ca_file)
        except OSError as error:  # ssl.SSLError is one
            why = error.strerror or "holds no certificate"
            raise unreachable(
                "could not be called: the gateway's `ca_file` for it cannot be used", f"{ca_file}: {why}", retry=False
            ) from None
    context.set_alpn_protocols(["http/1.1"])
    return context


def _spend(request: UpstreamRequest, seconds: float) -> None:
    """The caller has waited *seconds*, and nothing was begun."""
    request.patience = max(request.patience - seconds, TICK)


def _bad_response(message: str) -> UpstreamError:
    return UpstreamError("provider_bad_response", message, fault="deployment", may_retry=True)


def unreachable(message: str, detail: str, code: str = "provider_unreachable", *, retry: bool = True) -> UpstreamError:
    """Nothing was sent. *message* is for callers, *detail* for the operator."""
    return UpstreamError(code, message, detail=detail, fault="deployment", may_retry=retry, sent=False)
