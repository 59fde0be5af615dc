"""The real transport against a real server that does all a provider may do, and more."""

from __future__ import annotations

import asyncio
import base64
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from aigw.errors import UpstreamError
from aigw.exchange import Flow, Origin
from aigw.upstream import http
from aigw.upstream.http import HttpTransport
from tests.loopback import Answer, Peer, ask, ok, replies, serving


@pytest.fixture
async def transport() -> AsyncIterator[HttpTransport]:
    """Checked behind each test: no request, connection or task is left over."""
    transport = HttpTransport()
    yield transport
    await no_leaks(transport)


async def no_leaks(transport: HttpTransport) -> None:
    assert transport.active == 0
    for count, idle in transport.connections().values():
        assert count == idle
    await transport.close()
    await asyncio.sleep(0)
    assert transport.connections() == {}
    assert transport._active == set()
    assert not transport._queue
    assert not any(transport._idle.values())
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def get(transport: HttpTransport, origin: Origin, body: bytes = b"{}", **more: Any) -> Answer:
    answer = Answer()
    await transport.send(ask(origin, body, **more), answer)
    return answer


async def failure(transport: HttpTransport, origin: Origin, answer: Answer | None = None, **more: Any) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await transport.send(ask(origin, **more), answer or Answer())
    return caught.value


# --- answers ----------------------------------------------------------------------------------------------------------


async def test_the_request_arrives_as_it_was_given(transport: HttpTransport) -> None:
    """Line, host, headers and body; a GET without a body has no content-length."""
    seen = []

    async def script(peer: Peer) -> None:
        for _ in range(2):
            seen.append(await peer.request())
            await peer.send(ok(b"fine"))

    async with serving(script) as server:
        headers = {"authorization": "Bearer sk-1"}
        answer = await get(transport, server.origin, b'{"model": "m"}', path="/v1/x?y=1", headers=headers)
        assert (answer.statuses, answer.body) == ([200], b"fine")
        await get(transport, server.origin, b"", method="GET", path="/v1/models")
    assert seen[0].line == b"POST /v1/x?y=1 HTTP/1.1"
    assert seen[0].headers == {
        b"host": b"127.0.0.1:%d" % server.port,
        b"authorization": b"Bearer sk-1",
        b"content-length": b"14",
    }
    assert seen[0].body == b'{"model": "m"}'
    assert seen[1].line == b"GET /v1/models HTTP/1.1"
    assert b"content-length" not in seen[1].headers
    assert server.accepted == 1


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Name: V\r\n\r\n"


@pytest.mark.parametrize(
    ("wire", "body", "reusable"),
    [
        (ok(b"abc"), b"abc", True),
        (ok(b""), b"", True),
        (CHUNKED + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", b"abcde", True),
        (CHUNKED + b"3\r\nabc\r\n0\r\nx-name: trailer\r\n\r\n", b"abc", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\nabc", b"abc", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nabc", b"abc", False),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + ok(b"abc"), b"abc", True),
        (b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + ok(b"abc"), b"abc", True),
        (b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 2\r\n\r\nno", b"no", True),
    ],
    ids=["length", "empty", "chunked", "trailer", "204", "close", "http10", "100", "103", "429"],
)
async def test_shapes_of_answers(transport: HttpTransport, wire: bytes, body: bytes, reusable: bool) -> None:
    """Whatever says where the answer ends: the receiver gets one head and the whole body, and the connection is kept when it
    may be. The same byte by byte."""

    async def slowly(peer: Peer) -> None:
        await peer.request()
        for byte in wire:
            await peer.send(bytes([byte]))

    async with serving(replies(wire, ok(b"next")), slowly) as server:
        answer = await get(transport, server.origin)
        assert answer.body == body
        assert len(answer.statuses) == 1
        assert answer.statuses[0] in (200, 204, 429)
        assert all(name.islower() for name, _ in answer.headers)
        assert (b"link", b"</x>") not in answer.headers
        assert (b"x-name", b"trailer") not in answer.headers
        assert transport.connections() == ({f"http://127.0.0.1:{server.port}": (1, 1)} if reusable else {})
        if reusable:
            assert (await get(transport, server.origin)).body == b"next"
            assert server.accepted == 1
            await transport.close()
        assert (await get(transport, server.origin)).body == body


async def test_fields_of_a_head(transport: HttpTransport) -> None:
    """Names in lower case, in their order, twice where they stand twice; of a 1xx and of trailers there is nothing."""
    fields = b"X-A:b\r\nx-empty:\r\nx-space: \t b: c\r\nX-A: 2\r\nx-bytes: \xff\r\ntransfer-encoding: chunked\r\n"
    head = b"HTTP/1.1 200\r\n" + fields + b"\r\n"
    wire = b"HTTP/1.1 103 Early Hints\r\nx-a: early\r\n\r\n" + head + b"1\r\na\r\n0\r\nx-late: x\r\n\r\n"
    expected = [
        (b"x-a", b"b"),
        (b"x-empty", b""),
        (b"x-space", b"b: c"),
        (b"x-a", b"2"),
        (b"x-bytes", b"\xff"),
        (b"transfer-encoding", b"chunked"),
    ]

    async def script(peer: Peer) -> None:
        for cut in range(1, len(wire)):
            await peer.request()
            await peer.send(wire[:cut])
            await peer.send(wire[cut:])
        await peer.gone()

    async with serving(script) as server:
        for _ in range(1, len(wire)):
            answer = await get(transport, server.origin)
            assert answer.headers == expected
            assert answer.body == b"a"
        assert server.accepted == 1


@pytest.mark.parametrize("field", [b"x-a: b", b"transfer-encoding: identity"], ids=["nothing", "identity"])
async def test_an_answer_that_ends_with_its_connection(transport: HttpTransport, field: bytes) -> None:
    """Neither length nor chunks: the end of the connection is the end of the answer."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n" + field + b"\r\n\r\nab", 0.02)
        await peer.send(b"cd")

    async with serving(script) as server:
        assert (await get(transport, server.origin)).body == b"abcd"
        assert transport.connections() == {}


async def test_a_reset_is_not_the_end_of_an_answer(transport: HttpTransport) -> None:
    """A close-delimited answer that is reset is broken, not whole."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nab", 0.02)
        peer.reset()

    async with serving(script) as server:
        answer = Answer()
        error = await failure(transport, server.origin, answer)
        assert (error.code, answer.body) == ("provider_connection_lost", b"ab")


@pytest.mark.parametrize(
    "extra",
    [
        ok(b"NOT YOURS"),
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nNOT",
        b"HTTP/1.1 200",
        b"HT",
        b"garbage",
        CHUNKED + b"3\r\n",
        b"\x00\x00",
    ],
    ids=["answer", "half", "status", "letters", "garbage", "chunk", "zeros"],
)
@pytest.mark.parametrize("together", [True, False], ids=["together", "later"])
async def test_bytes_behind_an_answer(transport: HttpTransport, extra: bytes, together: bool) -> None:
    """The answer is whole, what follows it is nobody's, and the next request gets its own answer by another connection."""

    async def script(peer: Peer) -> None:
        await peer.request()
        if together:
            await peer.send(ok(b"first") + extra)
        else:
            await peer.send(ok(b"first"), 0.02)
            await peer.send(extra)
        await peer.gone()

    async with serving(script, replies(ok(b"second"))) as server:
        assert (await get(transport, server.origin)).body == b"first"
        await asyncio.sleep(0.05)
        assert transport.connections() == {}
        assert (await get(transport, server.origin)).body == b"second"
        assert server.accepted == 2


# --- the pool ---------------------------------------------------------------------------------------------------------


async def test_a_connection_is_used_again(transport: HttpTransport) -> None:
    """One caller at a time needs one connection."""
    async with serving(replies(*[ok(b"%d" % n) for n in range(20)])) as server:
        for n in range(20):
            assert (await get(transport, server.origin)).body == b"%d" % n
        assert server.accepted == 1


async def test_a_pooled_connection_that_the_provider_closed(transport: HttpTransport) -> None:
    """Seen before the next request: simply not used again."""

    async def once(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"one"), 0.02)

    async with serving(once, replies(ok(b"two"))) as server:
        assert (await get(transport, server.origin)).body == b"one"
        await asyncio.sleep(0.1)
        assert transport.connections() == {}
        assert (await get(transport, server.origin)).body == b"two"


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_pooled_connection_that_closes_as_we_send(transport: HttpTransport, how: str) -> None:
    """Closed before any byte of an answer: sent again on a fresh connection, the receiver sees one answer."""

    async def once(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"one"))
        await peer.request()  # read, and closed without a word
        peer.reset() if how == "reset" else peer.close()

    async with serving(once, replies(ok(b"two"))) as server:
        assert (await get(transport, server.origin)).body == b"one"
        answer = await get(transport, server.origin, b'{"again": 1}')
        assert (answer.statuses, answer.body) == ([200], b"two")
        assert server.accepted == 2


async def test_a_fresh_connection_that_closes_is_a_failure(transport: HttpTransport) -> None:
    """Only a connection from the pool is replaced, and only once."""

    async def once(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"one"))
        await peer.request()

    async def never(peer: Peer) -> None:
        await peer.request()

    async with serving(once, never) as server:
        await get(transport, server.origin)
        error = await failure(transport, server.origin)
        assert error.code == "provider_connection_lost"
        assert error.may_retry
        assert error.sent
        assert server.accepted == 2


@pytest.mark.parametrize("begun", [b"H", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_a_pooled_connection_that_dies_in_its_answer(transport: HttpTransport, begun: bytes) -> None:
    """One byte of an answer came: the provider has our request, it is not sent a second time."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"one"))
        await peer.request()
        await peer.send(begun, 0.02)

    async with serving(script, replies(ok(b"two"))) as server:
        await get(transport, server.origin)
        assert (await failure(transport, server.origin)).code == "provider_connection_lost"
        assert server.accepted == 1


async def test_a_request_that_must_go_out_once(transport: HttpTransport) -> None:
    """Over a connection of its own, where a break means that it may have been done; its connection is kept for others."""

    async def once(peer: Peer) -> None:
        await peer.request()

    async with serving(replies(ok(b"one"), ok(b"two")), replies(ok(b"drawn"), ok(b"three")), once) as server:
        assert (await get(transport, server.origin)).body == b"one"
        request = ask(server.origin)
        request.once = True
        answer = Answer()
        await transport.send(request, answer)
        assert answer.body == b"drawn"
        assert server.accepted == 2
        with pytest.raises(UpstreamError) as caught:
            await transport.send(request, Answer())
        assert (caught.value.code, caught.value.sent) == ("provider_connection_lost", True)
        assert server.accepted == 3
        assert (await get(transport, server.origin)).body == b"three"
        assert server.accepted == 3


async def test_an_answer_before_the_body_was_read(transport: HttpTransport) -> None:
    """A refusal before our 20 MB arrived is delivered, and the connection, with the rest of the body in it, is not used
    again."""

    async def hasty(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig")
        await asyncio.sleep(0.3)

    async with serving(hasty, replies(ok(b"two"))) as server:
        answer = await get(transport, server.origin, bytes(20_000_000))
        assert (answer.statuses, answer.body) == ([413], b"big")
        assert transport.connections() == {}
        assert (await get(transport, server.origin)).body == b"two"


async def test_a_large_body(transport: HttpTransport) -> None:
    """20 MB arrive whole, and the event loop is never held up."""
    body = bytes(range(256)) * 80_000
    seen = []

    async def script(peer: Peer) -> None:
        seen.append((await peer.request()).body)
        await peer.send(ok(b"got it"))

    async with serving(script) as server:
        assert (await get(transport, server.origin, body)).body == b"got it"
    assert seen[0] == body


async def test_idle_connections_are_closed_in_time(transport: HttpTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the provider does it."""
    monkeypatch.setattr(http, "KEEP_ALIVE", 0.1)
    closed = []

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"one"))
        await peer.gone()
        closed.append(True)

    async with serving(script) as server:
        await get(transport, server.origin)
        for _ in range(30):
            await asyncio.sleep(0.1)
            if closed:
                break
        assert closed
        assert transport.connections() == {}


async def test_connections_are_counted_by_place(transport: HttpTransport) -> None:
    """Two ways to one address are one line; the numbers add up."""
    async with serving(replies(ok(b"one"))) as server:
        await get(transport, server.origin)
        await get(transport, Origin("http", "127.0.0.1", server.port, ca_file="other"))
        assert transport.connections() == {f"http://127.0.0.1:{server.port}": (2, 2)}


async def echo(peer: Peer) -> None:
    """Answers each request with its own body, in pieces."""
    while True:
        body = (await peer.request()).body
        await peer.send(CHUNKED)
        for at in range(0, len(body), 7):
            piece = body[at : at + 7]
            await peer.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        await peer.send(b"0\r\n\r\n")


async def test_many_at_once_never_mix() -> None:
    """300 requests over 20 connections: each gets its own answer."""
    transport = HttpTransport(20)
    async with serving(echo) as server:
        bodies = [b'{"n": %d, "pad": "%b"}' % (n, b"x" * (n % 50)) for n in range(300)]
        answers = await asyncio.gather(*(get(transport, server.origin, body) for body in bodies))
        assert [answer.body for answer in answers] == bodies
        assert server.accepted <= 20
    await no_leaks(transport)


async def test_a_crowd_with_cancellations() -> None:
    """400 requests over 5 connections; some callers hang up at any moment, some connections die: the others get their own
    answers, and in the end no place is lost."""
    transport = HttpTransport(5)
    chance = random.Random(7)

    async def moody(peer: Peer) -> None:
        while True:
            body = (await peer.request()).body
            await asyncio.sleep(chance.choice((0, 0, 0.001)))
            if chance.random() < 0.1:
                peer.reset()
                return
            await peer.send(ok(body))

    async def one(n: int) -> str:
        try:
            answer = await get(transport, server.origin, b"%d" % n)
        except UpstreamError as error:
            return error.code
        assert answer.body == b"%d" % n
        return "answered"

    async with serving(moody) as server, asyncio.timeout(20):
        tasks = [asyncio.create_task(one(n)) for n in range(400)]
        while not all(task.done() for task in tasks):
            await asyncio.sleep(chance.choice((0, 0.001)))
            chance.choice(tasks).cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert {outcome for outcome in outcomes if isinstance(outcome, str)} <= {"answered", "provider_connection_lost"}
        assert outcomes.count("answered") > 20
        assert all(isinstance(outcome, (str, asyncio.CancelledError)) for outcome in outcomes)
        answers = await asyncio.gather(*(one(n) for n in range(5)))  # all five places are still there
        assert len(answers) == 5
    await no_leaks(transport)


async def test_waiting_for_a_connection_is_fair() -> None:
    """Who waits longest is served next; a newcomer does not overtake, not even one that comes in the very moment in which a
    connection is free."""
    transport = HttpTransport(1)
    order: list[str] = []
    moment = asyncio.Event()
    async with serving(replies(*[ok(b"x")] * 10)) as server:

        async def one(name: str, answer: Answer) -> None:
            await transport.send(ask(server.origin), answer)
            order.append(name)

        async def newcomer() -> None:
            await moment.wait()
            await one("newcomer", Answer())

        async with asyncio.TaskGroup() as group:
            group.create_task(newcomer())
            group.create_task(one("first", Answer(on_feed=lambda *_: moment.set())))
            for n in range(4):
                await asyncio.sleep(0)
                group.create_task(one(f"waits {n}", Answer()))
        assert order == ["first", "waits 0", "waits 1", "waits 2", "waits 3", "newcomer"]
        assert server.accepted == 1
    await no_leaks(transport)


async def test_a_place_comes_free_by_a_failure() -> None:
    """A connection that dies makes room for who waits."""
    transport = HttpTransport(1)

    async def dies(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(0.05)
        peer.reset()

    async with serving(dies, echo) as server:
        first = asyncio.create_task(failure(transport, server.origin))
        await asyncio.sleep(0.02)
        assert (await get(transport, server.origin, b"{1}")).body == b"{1}"
        assert (await first).code == "provider_connection_lost"
    await no_leaks(transport)


async def test_waiting_ends_with_the_connect_timeout() -> None:
    """Nobody waits for ever, and those who gave up are not served instead of those who wait."""
    transport = HttpTransport(1)
    release = asyncio.Event()

    async def holds(peer: Peer) -> None:
        await peer.request()
        await release.wait()
        await peer.send(ok(b"first"))
        await peer.request()
        await peer.send(ok(b"second"))

    async with serving(holds) as server:
        first = asyncio.create_task(get(transport, server.origin))
        await asyncio.sleep(0.02)
        error = await failure(transport, server.origin, connect_timeout=0.05)
        assert (error.code, error.sent) == ("provider_timeout", False)
        gives_up = asyncio.create_task(get(transport, server.origin))
        waits = asyncio.create_task(get(transport, server.origin))
        await asyncio.sleep(0.02)
        gives_up.cancel()
        release.set()
        assert (await first).body == b"first"
        assert (await waits).body == b"second"
        with pytest.raises(asyncio.CancelledError):
            await gives_up
    await no_leaks(transport)


async def test_a_waiter_cancelled_in_the_moment_of_its_turn() -> None:
    """What it was given goes to the next one, or back to the pool."""
    transport = HttpTransport(1)
    async with serving(echo) as server:
        loop = asyncio.get_running_loop()
        given: list[asyncio.Task[Answer]] = []

        class Cancels(Answer):
            def feed(self, block: bytes) -> None:
                super().feed(block)
                loop.call_soon(given[0].cancel)  # right behind the hand-over, before the waiter can run

        first = asyncio.create_task(transport.send(ask(server.origin, b"{}"), Cancels()))
        await asyncio.sleep(0)
        given.append(asyncio.create_task(get(transport, server.origin)))
        await asyncio.sleep(0)
        last = asyncio.create_task(get(transport, server.origin, b"{2}"))
        await first
        assert (await last).body == b"{2}"
        with pytest.raises(asyncio.CancelledError):
            await given[0]
    await no_leaks(transport)


async def test_stale_connections_do_not_block_a_fresh_one() -> None:
    """All places are taken by idle connections and one of them proves dead: another of them makes room."""
    transport = HttpTransport(2)

    async def dies_later(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(0.05)
        await peer.send(ok(b"one"))
        await peer.request()

    async with serving(dies_later, dies_later, replies(ok(b"two"))) as server:
        await asyncio.gather(get(transport, server.origin), get(transport, server.origin))
        assert transport.connections() == {f"http://127.0.0.1:{server.port}": (2, 2)}
        assert (await get(transport, server.origin, connect_timeout=1.0)).body == b"two"
    await no_leaks(transport)


async def test_a_connection_given_back_has_its_clocks() -> None:
    """The next one to use it, before the last one has even noticed its end, still has its timeouts."""
    transport = HttpTransport()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"one"))
        await peer.request()
        await peer.gone()

    async with serving(script) as server:
        second: list[asyncio.Task[UpstreamError]] = []
        start = asyncio.Event()

        async def follow() -> UpstreamError:
            await start.wait()
            return await failure(transport, server.origin, first_byte_timeout=0.2)

        second.append(asyncio.create_task(follow()))
        await asyncio.sleep(0)
        # Its feed wakes the second before the transport wakes the first.
        await transport.send(ask(server.origin), Answer(on_feed=lambda *_: start.set()))
        async with asyncio.timeout(2):
            assert (await second[0]).code == "provider_timeout"
        assert server.accepted == 1
    await no_leaks(transport)


async def test_cancelled_after_its_end_harms_nobody() -> None:
    """The answer is whole and its connection serves the next; a cancellation that comes now must not close it."""
    transport = HttpTransport()
    async with serving(replies(ok(b"one"), ok(b"two"))) as server:
        tasks: list[asyncio.Task[Any]] = []
        moment = asyncio.Event()

        async def follow() -> Answer:
            await moment.wait()
            tasks[0].cancel()  # it has its answer, and has not run since
            return await get(transport, server.origin)

        second = asyncio.create_task(follow())
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(transport.send(ask(server.origin), Answer(on_feed=lambda *_: moment.set()))))
        async with asyncio.timeout(2):
            assert (await second).body == b"two"
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        assert server.accepted == 1
    await no_leaks(transport)


async def test_an_answer_nobody_waits_for() -> None:
    """Cancelled just before its answer comes in whole: the connection is closed, not given to the next with a stranger's hand
    on it."""
    transport = HttpTransport()
    async with serving(replies(ok(b"one")), replies(ok(b"two"))) as server:
        tasks: list[asyncio.Task[Any]] = []

        def cancel(*_: object) -> None:
            tasks[0].cancel()

        tasks.append(asyncio.create_task(transport.send(ask(server.origin), Answer(on_feed=cancel))))
        await asyncio.wait(tasks)
        assert tasks[0].cancelled()
        assert transport.connections() == {}
        assert (await get(transport, server.origin)).body == b"two"
    await no_leaks(transport)


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize(
    ("begun", "heads"),
    [
        (b"", 0),
        (b"HTTP/1.1 200 OK\r\ncontent-", 0),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n", 1),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", 1),
        (CHUNKED + b"3\r\nabc\r\n", 1),
        (CHUNKED + b"ff\r\nabc", 1),
    ],
    ids=["nothing", "half head", "head", "half body", "chunk", "half chunk"],
)
async def test_half_answers(transport: HttpTransport, begun: bytes, heads: int, how: str) -> None:
    """The connection ends before the answer does: lost, and the request had gone out."""

    async def script(peer: Peer) -> None:
        await peer.request()
        if begun:
            await peer.send(begun, 0.02)
        peer.reset() if how == "reset" else peer.close()

    async with serving(script) as server:
        answer = Answer()
        error = await failure(transport, server.origin, answer)
        assert (error.code, error.fault, error.may_retry) == ("provider_connection_lost", "deployment", True)
        assert error.sent
        assert len(answer.statuses) == heads
        assert answer.body == (b"abc" if b"abc" in begun else b"")
        assert server.accepted == 1


@pytest.mark.parametrize(
    "wire",
    [
        b"garbage\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        CHUNKED + b"zz\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    ],
)
async def test_garbage(transport: HttpTransport, wire: bytes) -> None:
    """What is no HTTP/1.1 is no answer; another target may be tried."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(wire)
        await peer.gone()

    async with serving(script) as server:
        error = await failure(transport, server.origin)
        assert (error.code, error.fault, error.may_retry) == ("provider_bad_response", "deployment", True)
        assert error.message.startswith(("did", "switched"))


async def test_garbage_behind_content(transport: HttpTransport) -> None:
    """What came before the garbage is delivered, though both came in one piece."""
    async with serving(replies(CHUNKED + b"3\r\nabc\r\nzz\r\n")) as server:
        answer = Answer()
        assert (await failure(transport, server.origin, answer)).code == "provider_bad_response"
        assert answer.body == b"abc"


@pytest.mark.parametrize("line", [b"x-n: " + b"v" * 1000 + b"\r\n", b"v" * 1000], ids=["many", "one"])
@pytest.mark.parametrize("ends", [True, False], ids=["ends", "never ends"])
async def test_a_head_that_is_too_large(transport: HttpTransport, line: bytes, ends: bool) -> None:
    """300 KB of head are refused as they come, not kept."""
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nx-first: ")
        for _ in range(330 if ends else 20_000):
            await peer.send(line)
            sent += len(line)
        await peer.send(b"\r\n\r\n")

    async with serving(script) as server:
        answer = Answer()
        error = await failure(transport, server.origin, answer)
        assert error.code == "provider_bad_response"
        assert answer.statuses == []
    assert sent < 10_000_000


async def test_a_large_head_that_is_fine(transport: HttpTransport) -> None:
    """200 KB, with a body behind it in the same breath."""
    async with serving(replies(ok(b"z" * 300_000, b"x-long: " + b"v" * 200_000))) as server:
        answer = await get(transport, server.origin)
        assert answer.body == b"z" * 300_000
        assert dict(answer.headers)[b"x-long"] == b"v" * 200_000


async def test_nobody_listens(transport: HttpTransport) -> None:
    """Unreachable, and nothing was sent; the detail names the address, the message does not."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening
        port = taken.getsockname()[1]
        error = await failure(transport, Origin("http", "127.0.0.1", port))
    assert (error.code, error.fault, error.may_retry, error.sent) == ("provider_unreachable", "deployment", True, False)
    assert str(port) in error.detail
    assert str(port) not in error.message


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 64 + ".example"])
async def test_a_name_that_does_not_resolve(transport: HttpTransport, host: str) -> None:
    """Also one that can be no name at all."""
    error = await failure(transport, Origin("http", host, 80))
    assert (error.code, error.sent) == ("provider_unreachable", False)
    assert "resolved" in error.message


async def test_a_receivers_bug_ends_its_own_exchange(transport: HttpTransport) -> None:
    """It comes out of `send` as it is, and the connection is closed."""

    def bug(*_: object) -> None:
        raise KeyError("a bug")

    async with serving(replies(ok(b"one"))) as server:
        for answer in (Answer(on_head=bug), Answer(on_feed=bug)):
            with pytest.raises(KeyError, match="a bug"):
                await transport.send(ask(server.origin), answer)
            assert transport.connections() == {}


# --- time -------------------------------------------------------------------------------------------------------------


async def test_connecting_takes_too_long(transport: HttpTransport) -> None:
    """A full backlog drops our SYN: given up in time, nothing was sent."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        fill = [socket.socket() for _ in range(4)]
        try:
            for one in fill:
                one.setblocking(False)
                one.connect_ex(deaf.getsockname())
            began = time.perf_counter()
            error = await failure(transport, Origin("http", "127.0.0.1", deaf.getsockname()[1]), connect_timeout=0.2)
            assert 0.15 < time.perf_counter() - began < 1.0
        finally:
            for one in fill:
                one.close()
    assert (error.code, error.sent, error.fault) == ("provider_timeout", False, "deployment")
    assert "connected" in error.message


async def test_a_tls_handshake_that_never_ends(transport: HttpTransport) -> None:
    """Belongs to connecting."""

    async def silent(peer: Peer) -> None:
        await peer.gone()

    async with serving(silent) as server:
        error = await failure(transport, Origin("https", "127.0.0.1", server.port), connect_timeout=0.2)
        assert (error.code, error.sent) == ("provider_timeout", False)


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_the_first_byte_takes_too_long(transport: HttpTransport, begun: bytes) -> None:
    """No head in time; half a head and a 100 are none."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(begun)
        await peer.gone()

    async with serving(script) as server:
        answer = Answer()
        began = time.perf_counter()
        error = await failure(transport, server.origin, answer, first_byte_timeout=0.2)
        assert 0.15 < time.perf_counter() - began < 1.0
        assert (error.code, error.sent, answer.statuses) == ("provider_timeout", True, [])
        assert "begin" in error.message
        assert transport.connections() == {}


async def test_silence_in_the_middle_of_an_answer(transport: HttpTransport) -> None:
    """Each block starts the idle clock again; silence ends the call."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED, 0.15)
        for _ in range(3):
            await peer.send(b"1\r\na\r\n", 0.15)
        await peer.gone()

    async with serving(script) as server:
        answer = Answer()
        began = time.perf_counter()
        error = await failure(transport, server.origin, answer, idle_timeout=0.3)
        assert 0.7 < time.perf_counter() - began < 2.0
        assert error.code == "provider_timeout"
        assert "silent" in error.message
        assert answer.body == b"aaa"


async def test_an_answer_without_end(transport: HttpTransport) -> None:
    """The whole call has its limit, however busy it is."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        while True:
            await peer.send(b"1\r\na\r\n", 0.02)

    async with serving(script) as server:
        began = time.perf_counter()
        error = await failure(transport, server.origin, timeout=0.3)
        assert 0.25 < time.perf_counter() - began < 1.5
        assert error.code == "provider_timeout"
        assert "finish" in error.message


async def test_a_paused_flow_is_not_silence(transport: HttpTransport) -> None:
    """We are the ones who do not read: the idle clock stands still, and starts anew when we read on."""
    body = b"x" * 2_000_000

    def pause(answer: Answer, _: bytes) -> None:
        if len(answer.blocks) == 1:
            assert answer.flow is not None
            answer.flow.pause()

    async with serving(replies(ok(body))) as server:
        answer = Answer(on_feed=pause)
        call = asyncio.create_task(transport.send(ask(server.origin, idle_timeout=0.2), answer))
        await answer.arrived.wait()
        await asyncio.sleep(0.6)
        assert not call.done()
        assert len(answer.blocks) == 1
        assert answer.flow is not None
        answer.flow.resume()
        await call
        assert answer.body == body


# --- endings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before the head", "in the body", "while paused"])
async def test_cancelling_closes_the_connection(transport: HttpTransport, when: str) -> None:
    """Within 100 ms the provider sees that nobody wants its answer any more."""
    begun, gone = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        if when != "before the head":
            await peer.send(CHUNKED + b"1\r\na\r\n")
        begun.set()
        await peer.gone()
        gone.set()

    def pause(answer: Answer, _: bytes) -> None:
        if when == "while paused":
            assert answer.flow is not None
            answer.flow.pause()

    async with serving(script) as server:
        answer = Answer(on_feed=pause)
        call = asyncio.create_task(transport.send(ask(server.origin), answer))
        await begun.wait()
        if when != "before the head":
            await answer.arrived.wait()
        call.cancel()
        async with asyncio.timeout(0.1):
            await gone.wait()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert transport.connections() == {}


async def test_cancelling_while_connecting(transport: HttpTransport) -> None:
    """Nothing stays behind."""

    async def silent(peer: Peer) -> None:
        await peer.gone()

    async with serving(silent) as server:
        call = asyncio.create_task(get(transport, Origin("https", "127.0.0.1", server.port)))
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert transport.connections() == {}


async def test_closing_ends_what_is_under_way(transport: HttpTransport) -> None:
    """Nobody is left waiting for an answer that cannot come: not who was served, not who stood in line."""
    transport = HttpTransport(1)

    async def silent(peer: Peer) -> None:
        await peer.gone()

    async with serving(silent) as server:
        calls = [asyncio.create_task(failure(transport, server.origin)) for _ in range(3)]
        await asyncio.sleep(0.05)
        await transport.close()
        async with asyncio.timeout(1):
            errors = await asyncio.gather(*calls)
        assert [error.may_retry for error in errors] == [False] * 3
        assert server.accepted == 1
    await no_leaks(transport)


@pytest.mark.parametrize("where", ["head", "feed"])
async def test_stop(transport: HttpTransport, where: str) -> None:
    """The receiver has seen enough: `send` returns, the connection is closed, nothing more is fed."""
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"1\r\na\r\n", 0.02)
        await peer.send(b"1\r\nb\r\n0\r\n\r\n")
        await peer.gone()
        gone.set()

    def stop(answer: Answer, _: bytes) -> None:
        assert answer.flow is not None
        answer.flow.stop()

    async with serving(script) as server:
        answer = Answer(on_head=lambda flow: flow.stop()) if where == "head" else Answer(on_feed=stop)
        await transport.send(ask(server.origin), answer)
        assert answer.body == (b"" if where == "head" else b"a")
        assert transport.connections() == {}
        async with asyncio.timeout(0.1):
            await gone.wait()


async def test_a_flow_that_is_over_is_let_go(transport: HttpTransport) -> None:
    """What its last receiver says to it later does not touch the connection's next request."""
    kept: list[Flow] = []
    body = b"y" * 500_000

    def meddle(*_: object) -> None:
        kept[0].pause()
        kept[0].stop()

    async with serving(replies(ok(b"one"), ok(body))) as server:
        await transport.send(ask(server.origin), Answer(on_head=kept.append))
        meddle()
        async with asyncio.timeout(2):
            assert (await get(transport, server.origin)).body == body
        assert server.accepted == 1


async def test_a_whole_answer_is_not_kept_waiting_for_its_framing(transport: HttpTransport) -> None:
    """The receiver says that this was all: `send` returns at once; the end of the chunks comes later, and the connection is
    used again."""
    end = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"3\r\nabc\r\n")
        await end.wait()
        await peer.send(b"0\r\n\r\n")
        await peer.request()
        await peer.send(ok(b"next"))
        await peer.gone()

    def all_there(answer: Answer, _: bytes) -> None:
        assert answer.flow is not None
        answer.flow.complete()

    async with serving(script) as server:
        answer = Answer(on_feed=all_there)
        async with asyncio.timeout(1):
            await transport.send(ask(server.origin), answer)
        assert answer.body == b"abc"
        end.set()
        async with asyncio.timeout(1):
            while transport.connections()[f"http://127.0.0.1:{server.port}"] != (1, 1):
                await asyncio.sleep(0.01)
        assert (await get(transport, server.origin)).body == b"next"
        assert answer.body == b"abc"
        assert server.accepted == 1


async def test_framing_that_never_ends(transport: HttpTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that never ends its chunks holds nothing but its own connection, and that not for long."""
    monkeypatch.setattr(http, "DRAIN", 0.2)
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"3\r\nabc\r\n")
        await peer.gone()
        gone.set()

    def all_there(answer: Answer, _: bytes) -> None:
        assert answer.flow is not None
        answer.flow.complete()

    async with serving(script) as server:
        await transport.send(ask(server.origin), Answer(on_feed=all_there))
        async with asyncio.timeout(2):
            await gone.wait()
        assert transport.connections() == {}


async def test_an_error_that_drips(transport: HttpTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its body has its own, shorter time; then `send` returns with what is there, and the connection is not used again."""
    monkeypatch.setattr(http, "ERROR_TIME", 0.3)

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 503 No\r\ncontent-length: 99\r\n\r\n")
        while not peer.reader.at_eof():
            await peer.send(b"x", 0.05)

    async with serving(script) as server:
        began = time.monotonic()
        answer = await get(transport, server.origin)
        assert 0.2 < time.monotonic() - began < 1
        assert answer.statuses == [503]
        assert set(answer.body) == set(b"x")
        assert transport.connections() == {}


@pytest.mark.parametrize("started", [False, True])
async def test_an_answer_that_begins_and_drips(transport: HttpTransport, started: bool) -> None:
    """The caller's patience ends the call as long as the caller has seen nothing of it."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 16\r\n\r\n")
        for _ in range(16):
            await peer.send(b"x", 0.05)

    async with serving(script) as server:
        answer = Answer()
        answer.started = started
        if started:
            await transport.send(ask(server.origin, patience=0.3), answer)
            assert answer.body == b"x" * 16
        else:
            error = await failure(transport, server.origin, answer, patience=0.3)
            assert (error.code, error.may_retry) == ("provider_timeout", True)


async def test_a_refusal_in_the_last_moment_spends_the_patience(transport: HttpTransport) -> None:
    """A kept connection that closes late is replaced, but the time is gone: the caller does not wait twice."""

    async def late(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"one"))
        await peer.request()
        await asyncio.sleep(0.5)

    async def never(peer: Peer) -> None:
        await peer.request()
        await peer.gone()

    async with serving(late, never) as server:
        await get(transport, server.origin)
        began = time.monotonic()
        assert (await failure(transport, server.origin, patience=0.9)).code == "provider_timeout"
        assert time.monotonic() - began < 1.5


# --- TLS and proxies --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def server_context(authority: trustme.CA, name: str, until: datetime | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name, not_after=until).configure_cert(context)
    return context


async def test_tls(transport: HttpTransport, authority: trustme.CA, ca_file: str) -> None:
    """A certificate of the authority in `ca_file`, for this very host: trusted, and the connection is kept."""
    async with serving(replies(ok(b"one"), ok(b"x" * 3_000_000)), tls=server_context(authority, "127.0.0.1")) as server:
        origin = Origin("https", "127.0.0.1", server.port, ca_file=ca_file)
        assert (await get(transport, origin)).body == b"one"
        assert (await get(transport, origin)).body == b"x" * 3_000_000
        assert server.accepted == 1


@pytest.mark.parametrize("wrong", ["host", "authority", "date"])
async def test_a_certificate_we_cannot_trust(transport: HttpTransport, authority: trustme.CA, ca_file: str, wrong: str) -> None:
    """Another host's, an unknown authority's, an expired one: nothing is sent, trying again is no use, the detail names
    the way out."""
    name = "example.org" if wrong == "host" else "127.0.0.1"
    until = datetime.now(UTC) - timedelta(days=1) if wrong == "date" else None
    async with serving(replies(ok(b"one")), tls=server_context(authority, name, until)) as server:
        origin = Origin("https", "127.0.0.1", server.port, ca_file="" if wrong == "authority" else ca_file)
        error = await failure(transport, origin)
        assert (error.code, error.may_retry, error.sent) == ("provider_unreachable", False, False)
        assert "certificate" in error.message
        assert "ca_file" in error.detail
        assert transport.connections() == {}


async def test_tls_to_a_server_that_speaks_none(transport: HttpTransport) -> None:
    """Said as such."""

    async def script(peer: Peer) -> None:
        await peer.reader.read(10)
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with serving(script) as server:
        error = await failure(transport, Origin("https", "127.0.0.1", server.port))
        assert (error.code, error.sent) == ("provider_unreachable", False)
        assert "TLS" in error.message


async def test_a_ca_file_that_cannot_be_used(transport: HttpTransport, tmp_path: Path) -> None:
    """Missing, or holding no certificate: the detail names the file."""
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    for path in (str(tmp_path / "missing.pem"), str(empty)):
        error = await failure(transport, Origin("https", "127.0.0.1", 1, ca_file=path))
        assert error.code == "provider_unreachable"
        assert path in error.detail
        assert transport.connections() == {}


class Tunnel:
    """A little CONNECT proxy."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, dict[bytes, bytes]]] = []

    async def __call__(self, peer: Peer) -> None:
        request = await peer.head()
        self.asked.append((request.line, request.headers))
        host, port = request.line.split(b" ")[1].rsplit(b":", 1)
        reader, writer = await asyncio.open_connection(host.decode(), int(port))
        await peer.send(b"HTTP/1.1 200 Connection established\r\nvia: me\r\n\r\n")

        async def pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            try:
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            except ConnectionError:
                pass
            finally:
                sink.close()

        try:
            await asyncio.gather(pipe(peer.reader, writer), pipe(reader, peer.writer))
        finally:
            writer.close()


async def test_through_a_connect_proxy(transport: HttpTransport, authority: trustme.CA, ca_file: str) -> None:
    """TLS end to end; the proxy learns host, port and its own credentials, nothing else; the tunnel is used again."""
    tunnel = Tunnel()
    context = server_context(authority, "127.0.0.1")
    async with serving(replies(ok(b"one"), ok(b"two")), tls=context) as server, serving(tunnel) as proxy:
        way = f"http://user:p%40ss@127.0.0.1:{proxy.port}"
        origin = Origin("https", "127.0.0.1", server.port, way, ca_file)
        assert (await get(transport, origin, headers={"authorization": "Bearer sk-1"})).body == b"one"
        assert (await get(transport, origin)).body == b"two"
        assert (server.accepted, proxy.accepted) == (1, 1)
        await transport.close()
    line, headers = tunnel.asked[0]
    where = b"127.0.0.1:%d" % server.port
    assert line == b"CONNECT " + where + b" HTTP/1.1"
    assert headers == {b"host": where, b"proxy-authorization": b"Basic " + base64.b64encode(b"user:p@ss")}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "407"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "502"),
        (b"", "closed"),
        (b"garbage\r\n\r\n", "nonsense"),
        (b"HTTP/1.1 200 OK\r\n\r\n", ""),  # and then closes, in the middle of the handshake
        (b"x" * 300_000, "too large"),
    ],
    ids=["407", "502", "closes", "garbage", "closes later", "too large"],
)
async def test_a_proxy_that_does_not_let_us_through(transport: HttpTransport, said: bytes, words: str) -> None:
    """Unreachable by that proxy, which is named; its password is not."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(said)

    async with serving(script) as proxy:
        error = await failure(transport, Origin("https", "provider.example", 443, f"http://u:secret@127.0.0.1:{proxy.port}"))
        assert (error.code, error.sent) == ("provider_unreachable", False)
        assert words in error.detail
        assert "127.0.0.1" in error.detail
        assert "secret" not in error.detail + error.message + repr(error)


async def test_a_proxy_that_is_not_there(transport: HttpTransport) -> None:
    """The detail says that it was the proxy."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        for scheme in ("http", "https"):
            way = f"http://127.0.0.1:{taken.getsockname()[1]}"
            error = await failure(transport, Origin(scheme, "provider.example", 80, way))
            assert error.code == "provider_unreachable"
            assert "proxy" in error.detail


async def test_a_proxy_that_says_nothing(transport: HttpTransport) -> None:
    """Belongs to connecting."""

    async def silent(peer: Peer) -> None:
        await peer.gone()

    async with serving(silent) as proxy:
        way = f"http://127.0.0.1:{proxy.port}"
        error = await failure(transport, Origin("https", "provider.example", 443, way), connect_timeout=0.2)
        assert error.code == "provider_timeout"


async def test_plain_http_through_a_proxy(transport: HttpTransport) -> None:
    """The whole URL goes into the request line, the proxy's credentials beside it."""
    seen = []

    async def script(peer: Peer) -> None:
        for _ in range(2):
            seen.append(await peer.request())
            await peer.send(ok(b"one"))

    async with serving(script) as proxy:
        origin = Origin("http", "provider.example", 8000, f"http://user:secret@127.0.0.1:{proxy.port}")
        assert (await get(transport, origin, b"{1}")).body == b"one"
        assert (await get(transport, origin, b"", method="GET")).body == b"one"
        assert proxy.accepted == 1
        await transport.close()
    assert seen[0].line == b"POST http://provider.example:8000/v1/chat/completions HTTP/1.1"
    assert seen[0].body == b"{1}"
    for request in seen:
        assert request.headers[b"host"] == b"provider.example:8000"
        assert request.headers[b"proxy-authorization"] == b"Basic " + base64.b64encode(b"user:secret")
