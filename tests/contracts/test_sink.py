"""What every sink must do: the order of calls, and what the caller sees of them. Each script below plays the walk's part on a
real server; the caller is on a real socket. A new sink joins by a line in `PORTS`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from aigw.exchange import Exchange, Headers, Sink
from tests.data_port import BEARER, Answer, Caller, Running, serving

TEXT: Headers = [(b"content-type", b"text/plain"), (b"x-aigw-provider", b"p")]

Script = Callable[[Sink], Awaitable[None]]


class Scripted:
    """Stands where the pipeline stands: plays *script* on the sink of each exchange, and keeps them."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.sinks: list[Sink] = []

    async def serve(self, exchange: Exchange, sink: Sink, receive: Callable[[], Awaitable[bytes]] | None = None) -> None:
        if receive is not None:
            await receive()
        self.sinks.append(sink)
        await self._script(sink)


PORTS: dict[str, Callable[[Path], AbstractAsyncContextManager[Running]]] = {"http": serving}


@pytest.fixture(params=PORTS)
async def port(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Running]:
    async with PORTS[request.param](tmp_path) as running:
        yield running


def play(port: Running, script: Script) -> Scripted:
    scripted = Scripted(script)
    port.server.gateway.pipeline = scripted  # type: ignore[assignment] # all that a server asks of it
    return scripted


async def ask(port: Running, script: Script, version: str = "1.1", **headers: str) -> tuple[Answer, Caller]:
    play(port, script)
    caller = await port.call()
    return await caller.ask("POST", "/v1/chat/completions", b"{}", BEARER | headers, version=version), caller


async def whole(sink: Sink) -> None:
    assert (sink.started, sink.status) == (False, 0)
    sink.answer(201, TEXT, b"hello")
    assert (sink.started, sink.status) == (True, 201)


async def in_pieces(sink: Sink) -> None:
    sink.begin(200, TEXT)
    assert (sink.started, sink.status) == (True, 200)
    for block in (b"a", b"", b"b" * 70_000, b"c"):
        sink.write(block)
        await asyncio.sleep(0)
    sink.end()


async def with_length(sink: Sink) -> None:
    sink.begin(200, TEXT, 7)
    sink.write(b"abc")
    await asyncio.sleep(0.01)
    sink.write(b"defg")
    sink.end()


async def empty(sink: Sink) -> None:
    sink.begin(200, TEXT)
    sink.end()


async def empty_answer(sink: Sink) -> None:
    sink.answer(200, TEXT, b"")


GOOD = {whole: b"hello", in_pieces: b"a" + b"b" * 70_000 + b"c", with_length: b"abcdefg", empty: b"", empty_answer: b""}


@pytest.mark.parametrize("script", GOOD, ids=lambda script: script.__name__)
@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_a_whole_answer(port: Running, script: Script, version: str) -> None:
    """The caller sees status, headers, our request id once, and every byte, and knows that it is whole."""
    answer, caller = await ask(port, script, version)
    assert (answer.status, answer.body, answer.whole) == (201 if script is whole else 200, GOOD[script], True)
    assert (answer.headers["content-type"], answer.headers["x-aigw-provider"]) == ("text/plain", "p")
    assert answer.headers["x-request-id"].startswith("req_")
    assert "server" not in answer.headers
    if version == "1.0":
        assert "transfer-encoding" not in answer.headers
        assert await caller.is_closed()


@pytest.mark.parametrize("script", GOOD, ids=lambda script: script.__name__)
async def test_the_connection_serves_again(port: Running, script: Script) -> None:
    """After each kind of answer the next one on the same connection is its own."""
    scripted = play(port, script)
    caller = await port.call()
    answers = [await caller.ask("POST", "/v1/chat/completions", b"{}") for _ in range(3)]
    assert [answer.body for answer in answers] == [GOOD[script]] * 3
    assert len({answer.headers["x-request-id"] for answer in answers}) == 3
    assert len(set(map(id, scripted.sinks))) == 3


@pytest.mark.parametrize("script", GOOD, ids=lambda script: script.__name__)
async def test_a_caller_who_wants_it_closed(port: Running, script: Script) -> None:
    """`connection: close` is said and done."""
    answer, caller = await ask(port, script, connection="close")
    assert (answer.body, answer.whole) == (GOOD[script], True)
    assert answer.headers["connection"] == "close"
    assert await caller.is_closed()


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("script", [with_length, whole], ids=lambda script: script.__name__)
async def test_an_old_caller_may_keep_its_connection(port: Running, script: Script, version: str) -> None:
    """HTTP/1.0 with keep-alive works where a length tells the end."""
    play(port, script)
    caller = await port.call()
    for _ in range(2):
        answer = await caller.ask("POST", "/v1/chat/completions", b"{}", BEARER | {"connection": "keep-alive"}, version=version)
        assert (answer.body, answer.whole) == (GOOD[script], True)


async def test_the_head_goes_out_with_the_first_block(port: Running) -> None:
    """`begin` alone promises nothing yet; a block is sent at once, not held for the next."""
    step = asyncio.Event()

    async def stepwise(sink: Sink) -> None:
        sink.begin(200, TEXT)
        sink.write(b"first")
        await step.wait()
        sink.end()

    play(port, stepwise)
    caller = await port.call()
    await caller.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
    async with asyncio.timeout(2):
        head = await caller.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert await caller.reader.readexactly(10) == b"5\r\nfirst\r\n"
        step.set()
        assert await caller.reader.readexactly(5) == b"0\r\n\r\n"


async def too_short(sink: Sink) -> None:
    sink.begin(200, TEXT, 10)
    sink.write(b"abc")
    sink.end()


async def too_long(sink: Sink) -> None:
    sink.begin(200, TEXT, 4)
    sink.write(b"abc")
    await asyncio.sleep(0.02)
    sink.write(b"defHTTP/1.1 200 OK\r\n\r\n")
    sink.write(b"more")
    sink.end()


async def cut(sink: Sink) -> None:
    sink.begin(200, TEXT)
    sink.write(b"abc")
    await asyncio.sleep(0.02)
    sink.abort()
    sink.write(b"never")
    sink.end()


async def cut_before_a_block(sink: Sink) -> None:
    sink.begin(200, TEXT)
    sink.abort()
    sink.write(b"never")
    sink.end()


async def cut_with_a_length(sink: Sink) -> None:
    sink.begin(200, TEXT, 10)
    sink.write(b"abc")
    await asyncio.sleep(0.02)
    sink.abort()


@pytest.mark.parametrize(
    "script", [too_short, too_long, cut, cut_before_a_block, cut_with_a_length], ids=lambda script: script.__name__
)
@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_an_answer_that_is_not_whole_is_seen_not_to_be(port: Running, script: Script, version: str) -> None:
    """Cut, or another length than was promised: nothing that a caller could take for a whole answer, and no byte too much."""
    play(port, script)
    caller = await port.call()
    try:
        answer = await caller.ask("POST", "/v1/chat/completions", b"{}", version=version)
    except ConnectionError:
        pass  # cut before the head: plain enough
    else:
        assert not answer.whole
        assert answer.body in (b"", b"abc")
    assert await caller.is_closed()


async def test_an_answer_that_never_began_is_cut(port: Running) -> None:
    """A walk that ends without a word leaves no caller waiting."""

    async def silent(sink: Sink) -> None:
        return

    play(port, silent)
    caller = await port.call()
    with pytest.raises(ConnectionError):
        await caller.ask("POST", "/v1/chat/completions", b"{}")


BIG = b"x" * 1_000_000


async def test_a_slow_caller_is_told_of_once(port: Running) -> None:
    """`write` says so while the caller does not read; `on_resume` is called once, when it has caught up; nothing is lost."""
    resumed: list[float] = []
    paused = asyncio.Event()

    async def much(sink: Sink) -> None:
        sink.begin(200, TEXT)
        while not sink.write(BIG):
            await asyncio.sleep(0)
        again = asyncio.Event()
        sink.on_resume(lambda: (resumed.append(1.0), again.set()))  # type: ignore[func-returns-value]
        paused.set()
        await again.wait()
        assert not sink.write(b"x")
        sink.write(b"x" * (len(BIG) - 1))
        await asyncio.sleep(0.05)
        sink.end()

    play(port, much)
    caller = await port.call(limit=65536)
    await caller.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
    async with asyncio.timeout(5):
        await paused.wait()
        await asyncio.sleep(0.05)
        assert resumed == [], "nobody has read anything"
        answer = await caller.answer()
    assert answer.whole
    assert len(answer.body) % len(BIG) == 0
    assert set(answer.body) == {ord("x")}
    assert resumed == [1.0]


async def test_a_caller_that_is_gone_hurts_nobody(port: Running) -> None:
    """Every call does nothing then; the walk is cancelled instead."""
    begun, ended = asyncio.Event(), asyncio.Event()

    async def stubborn(sink: Sink) -> None:
        sink.begin(200, TEXT)
        sink.write(b"abc")
        begun.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            sink.write(b"to nobody")
            sink.on_resume(lambda: None)
            sink.end()
            sink.abort()
            ended.set()
            raise

    play(port, stubborn)
    caller = await port.call()
    await caller.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
    async with asyncio.timeout(5):
        await begun.wait()
        caller.reset()
        await ended.wait()
        await port.idle()


async def test_a_status_nobody_knows(port: Running) -> None:
    """529 is Anthropic's; what is not in the book still goes through."""
    for status in (200, 429, 499, 529, 599):

        async def odd(sink: Sink, status: int = status) -> None:
            sink.answer(status, TEXT, b"{}")

        answer, _ = await ask(port, odd)
        assert (answer.status, answer.body) == (status, b"{}")
