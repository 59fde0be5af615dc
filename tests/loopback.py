"""The far side of a connection, for tests: a server on loopback whose connections play scripts, and a receiver that keeps
what it is given. Real sockets, no mock: what a provider may do to us is done to us."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from aigw.exchange import Flow, Headers, Origin, Target, UpstreamRequest


class Request(NamedTuple):
    """What arrived at the far side."""

    line: bytes
    headers: dict[bytes, bytes]
    body: bytes


class Peer:
    """One accepted connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def head(self) -> Request:
        """A request's head, its body unread. Raises IncompleteReadError when the client has gone."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        line, *fields = head[:-4].split(b"\r\n")
        headers = {name.lower(): value for name, value in (field.split(b": ", 1) for field in fields)}
        return Request(line, headers, b"")

    async def request(self) -> Request:
        request = await self.head()
        return request._replace(body=await self.reader.readexactly(int(request.headers.get(b"content-length", 0))))

    async def send(self, data: bytes, pause: float = 0.0) -> None:
        self.writer.write(data)
        await self.writer.drain()
        await asyncio.sleep(pause)

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """RST, not FIN."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def gone(self) -> None:
        """Returns when the client has closed."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            pass


Script = Callable[[Peer], Awaitable[None]]


def replies(*answers: bytes) -> Script:
    """Answers its requests one after the other, then waits until the client goes."""

    async def play(peer: Peer) -> None:
        for answer in answers:
            await peer.request()
            await peer.send(answer)
        await peer.gone()

    return play


def ok(body: bytes, *fields: bytes) -> bytes:
    """A plain answer."""
    lines = b"".join(field + b"\r\n" for field in fields)
    return b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\n\r\n%b" % (lines, len(body), body)


class Server:
    """Accepts connections: the first plays the first script, and so on; the last script is played by all the rest."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = scripts
        self._tasks: set[asyncio.Task[None]] = set()
        self.accepted = 0
        self.port = 0
        self.failures: list[BaseException] = []

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        script = self._scripts[min(self.accepted, len(self._scripts) - 1)]
        self.accepted += 1
        task = asyncio.get_running_loop().create_task(self._play(script, Peer(reader, writer)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _play(self, script: Script, peer: Peer) -> None:
        try:
            await script(peer)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass  # the client went away: its right
        except Exception as error:  # noqa: BLE001 - shown at the end
            self.failures.append(error)
        finally:
            peer.writer.close()

    @property
    def origin(self) -> Origin:
        return Origin("http", "127.0.0.1", self.port)


@asynccontextmanager
async def serving(*scripts: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """A server on a free port of loopback. A script's failed assertion is raised at the end."""
    server = Server(*scripts)
    listener = await asyncio.start_server(server._accept, "127.0.0.1", 0, ssl=tls, limit=2**20)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        await listener.wait_closed()
        for task in list(server._tasks):
            task.cancel()
        await asyncio.gather(*server._tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # closed transports say goodbye
    if server.failures:
        raise server.failures[0]


class Answer:
    """A receiver that keeps what it is given. `on_head` and `on_feed` may speak to the flow."""

    started = False

    def __init__(
        self, on_head: Callable[[Flow], None] | None = None, on_feed: Callable[[Answer, bytes], None] | None = None
    ) -> None:
        self.statuses: list[int] = []
        self.headers: Headers = []
        self.blocks: list[bytes] = []
        self.flow: Flow | None = None
        self.arrived = asyncio.Event()  # a block has
        self._on_head, self._on_feed = on_head, on_feed

    def head(self, status: int, headers: Headers, flow: Flow) -> None:
        assert not self.blocks
        self.statuses.append(status)
        self.headers, self.flow = headers, flow
        if self._on_head is not None:
            self._on_head(flow)

    def feed(self, block: bytes) -> None:
        assert self.statuses
        assert block
        self.blocks.append(block)
        self.arrived.set()
        if self._on_feed is not None:
            self._on_feed(self, block)

    @property
    def body(self) -> bytes:
        return b"".join(self.blocks)


def ask(
    origin: Origin,
    body: bytes = b"{}",
    *,
    method: str = "POST",
    path: str = "/v1/chat/completions",
    headers: dict[str, str] | None = None,
    **timeouts: float,
) -> UpstreamRequest:
    """A request to *origin*, with patience for a test's time."""
    patience = {"connect_timeout": 5.0, "first_byte_timeout": 5.0, "idle_timeout": 5.0, "timeout": 10.0} | timeouts
    return UpstreamRequest(Target(method, origin, path, headers or {}), body, **patience)
