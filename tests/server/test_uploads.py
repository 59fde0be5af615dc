"""Bodies that are passed on while they arrive, from a real connection to a real provider's socket."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests import loopback
from tests.data_port import BEARER, KEY, serving
from tests.loopback import Peer

CONFIG = """
[server]
port = 0
body_timeout = 1
max_upload = 4000000
[admin]
port = 0
[providers.far]
kind = "openai"
base_url = "http://127.0.0.1:{port}/v1"
keys = ["far.key.0123456789"]
list_models = false
[consumers.ci]
key = "{key}"
"""
FORM = {"content-type": "multipart/form-data; boundary=B"} | BEARER


async def takes_all(peer: Peer) -> None:
    while True:
        request = await peer.head()
        if b"content-length" in request.headers:
            size = len(await peer.reader.readexactly(int(request.headers[b"content-length"])))
        else:
            size = 0
            while more := int((await peer.reader.readuntil(b"\r\n"))[:-2], 16):
                size += len(await peer.reader.readexactly(more + 2)) - 2
            await peer.reader.readexactly(2)
        await peer.send(loopback.ok(b'{"id": "file-1", "bytes": %d}' % size, b"content-type: application/json"))


def head(*fields: str) -> bytes:
    lines = [*(f"{name}: {value}" for name, value in FORM.items()), *fields]
    return ("POST /v1/files HTTP/1.1\r\nhost: x\r\n" + "\r\n".join(lines) + "\r\n\r\n").encode()


async def ask(port: int, *blocks: bytes, pause: float = 0.0) -> bytes:
    """What is answered; the connection closes, or stays silent for a moment, after it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    seen = b""
    try:
        for block in blocks:
            writer.write(block)
            await writer.drain()
            await asyncio.sleep(pause)
    except ConnectionError:
        pass
    try:
        async with asyncio.timeout(5):
            while b"}" not in seen:
                block = await reader.read(65536)
                if not block:
                    break
                seen += block
    finally:
        writer.close()
    return seen


@pytest.mark.parametrize("size", [0, 10, 600_000, 3_000_000])
@pytest.mark.parametrize("chunked", [False, True])
async def test_every_size(tmp_path: Path, size: int, chunked: bool) -> None:
    """With a length and in chunks: all of it arrives, counted by the far side."""
    async with loopback.serving(takes_all) as far, serving(tmp_path, CONFIG.format(port=far.port, key=KEY)) as running:
        body = bytes(size)
        if chunked:
            blocks = [body[at : at + 50_000] for at in range(0, size, 50_000)]
            wire = [b"%x\r\n%b\r\n" % (len(block), block) for block in blocks]
            answer = await ask(running.server.port, head("transfer-encoding: chunked"), *wire, b"0\r\n\r\n")
        else:
            answer = await ask(running.server.port, head(f"content-length: {size}"), body)
        assert answer.startswith(b"HTTP/1.1 200"), answer
        assert b'"bytes": %d}' % size in answer


async def test_what_is_refused(tmp_path: Path) -> None:
    """Too long by its head or in the end, compressed, with odd expectations, or not coming on."""
    async with loopback.serving(takes_all) as far, serving(tmp_path, CONFIG.format(port=far.port, key=KEY)) as running:
        port = running.server.port
        assert b" 413 " in await ask(port, head("content-length: 5000000"))
        chunk = b"%x\r\n%b\r\n" % (1_000_000, bytes(1_000_000))
        assert b" 413 " in await ask(port, head("transfer-encoding: chunked"), *[chunk] * 6)
        assert b" 415 " in await ask(port, head("content-length: 3", "content-encoding: gzip"), b"abc")
        assert b" 417 " in await ask(port, head("content-length: 3", "expect: nonsense"), b"abc")
        assert b" 408 " in await ask(port, head("content-length: 2000000"), bytes(1_000_000), pause=1.5)
        assert b"100 Continue" in await ask(port, head("content-length: 3", "expect: 100-continue"), b"abc", pause=0.2)
        assert b" 401 " in await ask(port, head("content-length: 3").replace(KEY.encode(), b"wrong"), b"abc")
