"""A whole server in this process on free ports of loopback, and callers who speak HTTP to it byte by byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from aigw.config.load import load_with_notes
from aigw.exchange import Record
from aigw.server.lifecycle import Server

KEY = "the-key-of-ci"

DEMO = f"""
[server]
port = 0
[admin]
port = 0
[providers.demo]
[consumers.ci]
key = "{KEY}"
"""

BEARER = {"authorization": f"Bearer {KEY}"}
HELLO = json.dumps({"model": "demo", "messages": [{"role": "user", "content": "hello"}]}).encode()


class Answer(NamedTuple):
    """What a caller got. `whole`: it ended as its head promised; `closed`: the server closed the connection with it."""

    version: str
    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool

    def json(self) -> Any:
        return json.loads(self.body)


class Caller:
    """One connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] = BEARER,
        *,
        version: str = "1.1",
    ) -> Answer:
        await self.send(request(method, path, body, headers, version=version))
        return await self.answer(method)

    async def answer(self, method: str = "POST") -> Answer:
        """Read one answer. Raises ConnectionError when there is none at all."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            raise ConnectionError(f"closed after {error.partial!r}") from None
        line, *fields = head[:-4].decode("latin-1").split("\r\n")
        pairs = [(name.lower(), value) for name, value in (field.split(": ", 1) for field in fields)]
        headers = dict(pairs)
        assert len(headers) == len(pairs), f"a header twice: {pairs}"
        version, status = line.split(" ", 2)[:2]
        if status == "100":
            return Answer(version, 100, headers, b"", True)
        body, whole = (b"", True) if method == "HEAD" else await self._body(headers)
        return Answer(version, int(status), headers, body, whole)

    async def _body(self, headers: Mapping[str, str]) -> tuple[bytes, bool]:
        body = b""
        try:
            if headers.get("transfer-encoding") == "chunked":
                assert "content-length" not in headers
                while True:
                    size = int(await self.reader.readuntil(b"\r\n"), 16)
                    block = await self.reader.readexactly(size + 2)
                    assert block.endswith(b"\r\n")
                    body += block[:-2]
                    if not size:
                        return body, True
            if "content-length" in headers:
                return await self.reader.readexactly(int(headers["content-length"])), True
            assert headers.get("connection") == "close", "without a length only the connection's end can end a body"
            while block := await self.reader.read(65536):
                body += block
        except asyncio.IncompleteReadError as error:
            return body + error.partial, False
        except ConnectionError:
            return body, False
        return body, True

    async def is_closed(self, within: float = 2.0) -> bool:
        """Whether the server closes (or cuts) the connection, with nothing more to say."""
        try:
            async with asyncio.timeout(within):
                return await self.reader.read(1) == b""
        except TimeoutError:
            return False
        except ConnectionError:
            return True

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        self.writer.transport.abort()


def request(
    method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = BEARER, *, version: str = "1.1"
) -> bytes:
    """The bytes of a request."""
    lines = [f"{method} {path} HTTP/{version}", "host: gateway"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body is not None:
        lines += ["content-type: application/json"] if "content-type" not in headers else []
        lines += [f"content-length: {len(body)}"] if "content-length" not in headers else []
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + (body or b"")


class Running:
    """A server under test. `said` are its lines for the terminal."""

    def __init__(self, server: Server, config: Path, said: list[str], task: asyncio.Task[None]) -> None:
        self.server, self.config, self.said, self.task = server, config, said, task
        self._callers: list[Caller] = []

    async def call(self, port: int | None = None, host: str = "127.0.0.1", *, limit: int = 2**24) -> Caller:
        """A new connection, by default to the data port. It reads ahead up to twice *limit* bytes."""
        caller = Caller(*await asyncio.open_connection(host, self.server.port if port is None else port, limit=limit))
        self._callers.append(caller)
        return caller

    async def ask(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = BEARER) -> Answer:
        """One request on a connection of its own."""
        caller = await self.call()
        try:
            return await caller.ask(method, path, body, headers)
        finally:
            caller.close()

    async def operator(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """One GET on the admin port."""
        lines = {"host": "127.0.0.1"} | dict(headers or {})
        caller = await self.call(self.server.admin_port)
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
        await caller.send(f"GET {path} HTTP/1.1\r\n{text}\r\n".encode())
        try:
            return await caller.answer()
        finally:
            caller.close()

    async def records(self, count: int) -> list[Record]:
        """The newest records, once there are *count* in the store; oldest first."""
        async with asyncio.timeout(5):
            while len(found := await self.server.services.store.records(limit=count + 10)) < count:
                await asyncio.sleep(0.02)
        assert len(found) == count, [record.error for record in found]
        return found[::-1]

    async def idle(self) -> None:
        """Wait until no exchange is under way."""
        async with asyncio.timeout(5):
            while self.server.services.active:
                await asyncio.sleep(0.005)

    def hang_up(self) -> None:
        for caller in self._callers:
            caller.close()


@asynccontextmanager
async def serving(folder: Path, config: str = DEMO, flags: Mapping[str, str | int] | None = None) -> AsyncIterator[Running]:
    """A server for the TOML *config*, running until the block ends; what it raises is raised here."""
    path = folder / "config.toml"
    path.write_text(config)
    path.chmod(0o600)
    said: list[str] = []
    server = Server(load_with_notes(path), folder / "data", said.append, flags)
    task = asyncio.get_running_loop().create_task(server.run())
    while not said and not task.done():
        await asyncio.sleep(0.002)
    running = Running(server, path, said, task)
    try:
        if task.done():
            await task
        yield running
    finally:
        running.hang_up()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0.01)  # closed transports say goodbye
    if not task.cancelled() and task.exception() is not None:
        raise task.exception() or AssertionError
