"""What every transport must do. A new one joins by a line in `OPEN`. Both speak to the demo provider: the one in this process,
the other over a real socket."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest

from aigw.errors import UpstreamError
from aigw.exchange import Flow, Headers, Origin, Target, UpstreamRequest
from aigw.upstream.http import HttpTransport
from aigw.upstream.mock import DemoTransport
from aigw.upstream.transport import Transport
from tests.loopback import Answer, Peer, ask, serving

DEMO = Origin("demo", "demo", 0)
STREAM = {"model": "demo", "messages": [{"role": "user", "content": "word " * 50}], "stream": True}


class Opened(NamedTuple):
    transport: Transport
    origin: Origin


@asynccontextmanager
async def open_demo() -> AsyncIterator[Opened]:
    transport = DemoTransport(pause=0.001)
    yield Opened(transport, DEMO)
    await transport.close()


class Onward:
    """A receiver that sends on what it is given, in chunks."""

    def __init__(self, peer: Peer) -> None:
        self.writer = peer.writer

    def head(self, status: int, headers: Headers, flow: Flow) -> None:
        self.flow = flow
        lines = b"".join(b"%b: %b\r\n" % pair for pair in headers if pair[0] != b"content-length")
        self.writer.write(b"HTTP/1.1 %d Said\r\n%btransfer-encoding: chunked\r\n\r\n" % (status, lines))

    def feed(self, block: bytes) -> None:
        if self.writer.is_closing():
            self.flow.stop()
            return
        self.writer.write(b"%x\r\n%b\r\n" % (len(block), block))


async def demo_by_socket(peer: Peer) -> None:
    while True:
        request = await peer.request()
        method, path, _ = request.line.decode().split(" ")
        onward = Onward(peer)
        await DemoTransport(pause=0.001).send(UpstreamRequest(Target(method, DEMO, path, {}), request.body), onward)
        await peer.send(b"0\r\n\r\n")


@asynccontextmanager
async def open_http() -> AsyncIterator[Opened]:
    async with serving(demo_by_socket) as server:
        transport = HttpTransport()
        yield Opened(transport, server.origin)
        assert transport.active == 0
        await transport.close()
        await transport.close()  # twice is once
        assert transport.connections() == {}


OPEN = {"demo": open_demo, "http": open_http}


@pytest.fixture(params=OPEN)
async def opened(request: pytest.FixtureRequest) -> AsyncIterator[Opened]:
    """Checked behind each test: no task is left over."""
    async with OPEN[request.param]() as opened:
        yield opened
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_an_answer(opened: Opened) -> None:
    """One head, names in lower case; then its body; `send` returns when all of it was fed."""
    answer = Answer()
    await opened.transport.send(ask(opened.origin, b"", method="GET", path="/v1/models"), answer)
    assert answer.statuses == [200]
    assert dict(answer.headers)[b"content-type"] == b"application/json"
    assert all(name == name.lower() for name, _ in answer.headers)
    assert json.loads(answer.body)["data"][0]["id"] == "demo"


@pytest.mark.parametrize(("path", "body", "status"), [("/v1/nothing", b"{}", 404), ("/v1/chat/completions", b"no JSON", 400)])
async def test_an_error_answer_is_an_answer(opened: Opened, path: str, body: bytes, status: int) -> None:
    """Nothing is raised: what a status means is not for the transport to judge."""
    answer = Answer()
    await opened.transport.send(ask(opened.origin, body, path=path), answer)
    assert answer.statuses == [status]
    assert "error" in json.loads(answer.body)


async def test_a_stream_comes_as_it_is_made(opened: Opened) -> None:
    """In many blocks, over some time, whole at the end."""
    at: list[float] = []
    answer = Answer(on_feed=lambda *_: at.append(time.perf_counter()))
    await opened.transport.send(ask(opened.origin, json.dumps(STREAM).encode()), answer)
    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert len(answer.blocks) > 10
    assert at[-1] - at[0] > 0.01


async def test_a_large_answer(opened: Opened) -> None:
    """Megabytes arrive whole."""
    body = json.dumps({"model": "demo", "input": "word " * 200, "voice": "x", "response_format": "wav"}).encode()
    answer = Answer()
    await opened.transport.send(ask(opened.origin, body, path="/v1/audio/speech"), answer)
    size = int.from_bytes(answer.body[4:8], "little") + 8
    assert size > 2_000_000
    assert len(answer.body) == size


async def test_many_at_once(opened: Opened) -> None:
    """Answers never mix."""

    async def one(n: int) -> str:
        answer = Answer()
        asked = {"model": "demo", "messages": [{"role": "user", "content": f"I am number {n}"}]}
        await opened.transport.send(ask(opened.origin, json.dumps(asked).encode()), answer)
        content: str = json.loads(answer.body)["choices"][0]["message"]["content"]
        return content

    for n, content in enumerate(await asyncio.gather(*(one(n) for n in range(50)))):
        assert content.endswith(f"I am number {n}")


async def test_pause_and_resume(opened: Opened) -> None:
    """Nothing is fed while paused, nothing is lost."""

    def pause(answer: Answer, _: bytes) -> None:
        if len(answer.blocks) == 3:
            assert answer.flow is not None
            answer.flow.pause()
            answer.flow.pause()  # twice is once

    answer = Answer(on_feed=pause)
    call = asyncio.create_task(opened.transport.send(ask(opened.origin, json.dumps(STREAM).encode()), answer))
    await answer.arrived.wait()
    await asyncio.sleep(0.15)
    assert len(answer.blocks) == 3
    assert not call.done()
    assert answer.flow is not None
    answer.flow.resume()
    answer.flow.resume()
    await call
    assert answer.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("where", ["head", "feed"])
async def test_stop(opened: Opened, where: str) -> None:
    """Nothing more is fed and `send` returns."""

    def stop(answer: Answer, _: bytes) -> None:
        assert answer.flow is not None
        answer.flow.stop()

    answer = Answer(on_head=lambda flow: flow.stop()) if where == "head" else Answer(on_feed=stop)
    async with asyncio.timeout(2):
        await opened.transport.send(ask(opened.origin, json.dumps(STREAM).encode()), answer)
    assert len(answer.blocks) == (0 if where == "head" else 1)


async def test_nobody_reads(opened: Opened) -> None:
    """A receiver that stays paused does not hold a call for ever."""

    def pause(answer: Answer, _: bytes) -> None:
        assert answer.flow is not None
        answer.flow.pause()

    with pytest.raises(UpstreamError) as caught:
        await opened.transport.send(ask(opened.origin, json.dumps(STREAM).encode(), timeout=0.2), Answer(on_feed=pause))
    assert caught.value.code == "provider_timeout"


@pytest.mark.parametrize("paused", [True, False])
async def test_cancelling(opened: Opened, paused: bool) -> None:
    """At once; nothing is fed any more."""

    def pause(answer: Answer, _: bytes) -> None:
        if paused:
            assert answer.flow is not None
            answer.flow.pause()

    answer = Answer(on_feed=pause)
    call = asyncio.create_task(opened.transport.send(ask(opened.origin, json.dumps(STREAM).encode()), answer))
    await answer.arrived.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    fed = len(answer.blocks)
    await asyncio.sleep(0.05)
    assert len(answer.blocks) == fed
