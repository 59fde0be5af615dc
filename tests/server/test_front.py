"""Connections at their edges: what is malformed, what comes too early, who does not read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.data_port import BEARER, DEMO, HELLO, Running, request, serving
from tests.walk import EVENTS, NoFlow, Scripted, answers, streams

CHAT = "/v1/chat/completions"


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[Running]:
    async with serving(tmp_path) as running:
        yield running


MALFORMED = {
    "no HTTP": b"hello sk-secret\r\n\r\n",
    "a header without a colon": b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nsk-secret\r\n\r\n",
    "a control character": b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-secret\x00\r\n\r\n",
    "two lengths": b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}",
    "length and chunks": b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n"
    b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a negative length": b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
    "a length that is none": b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1_0\r\n\r\n0123456789",
    "a head without end": b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-a: " + b"a" * 100_000 + b"\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + b"\x00" * 200,
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
async def test_what_is_no_http(tmp_path: Path, data: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    """A 400 in JSON that repeats nothing (it may hold a key), and the connection ends; the log holds nothing either."""
    async with serving(tmp_path, DEMO + '[log]\nlevel = "debug"\n') as port:
        caller = await port.call()
        await caller.send(data)
        answer = await caller.answer()
        assert 400 <= answer.status < 500
        assert answer.json()["error"]["aigw_code"].startswith("caller_")
        assert b"secret" not in answer.body
        assert await caller.is_closed()
        said = capsys.readouterr().err
        assert "refused a malformed request" in said
        assert "secret" not in said
        assert (await port.ask("POST", CHAT, HELLO)).status == 200


async def test_a_body_of_broken_chunks(port: Running) -> None:
    """Refused in the caller's dialect, recorded, and the connection ends: nobody knows where the next request begins."""
    caller = await port.call()
    head = request("POST", CHAT, b"", BEARER | {"transfer-encoding": "chunked", "content-type": "application/json"})
    head = head.replace(b"content-length: 0\r\n", b"")
    await caller.send(head + b"zz\r\n{}")
    answer = await caller.answer()
    assert answer.status == 400
    assert await caller.is_closed()


async def test_requests_sent_ahead_are_answered_in_order(port: Running) -> None:
    """A few at once on one connection, each with its own answer."""
    caller = await port.call()
    words = [f"word{number}" for number in range(6)]
    bodies = [json.dumps({"model": "demo", "messages": [{"role": "user", "content": word}]}).encode() for word in words]
    await caller.send(b"".join(request("POST", CHAT, body) for body in bodies))
    for word in words:
        answer = await caller.answer()
        assert word in answer.json()["choices"][0]["message"]["content"]
    records = await port.records(6)
    assert len({record.id for record in records}) == 6


async def test_hot_path_and_application_share_a_connection(port: Running) -> None:
    """In any order, also sent ahead."""
    caller = await port.call()
    model, health, nothing = request("POST", CHAT, HELLO), request("GET", "/healthz"), request("GET", "/nothing")
    await caller.send(model + health + model + nothing + model)
    assert [(await caller.answer()).status for _ in range(5)] == [200, 200, 200, 404, 200]
    for method, path, status in (
        ("GET", "/healthz", 200),
        ("POST", CHAT, 200),
        ("GET", "/v1/models", 200),
        ("POST", CHAT, 200),
    ):
        assert (await caller.ask(method, path, HELLO if method == "POST" else None)).status == status


async def test_a_caller_who_writes_far_ahead_is_dropped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """While reading is paused nobody would see it go; no client that waits for answers does this. The server lives on."""
    async with serving(tmp_path) as port:
        caller = await port.call()
        await caller.send(request("POST", CHAT, HELLO) * 50)
        async with asyncio.timeout(5):
            try:
                while await caller.reader.read(65536):
                    pass
            except ConnectionError:
                pass
        await port.idle()
        assert capsys.readouterr().err.count("requests ahead of their answers: connection closed") == 1, "said once"
        assert (await port.ask("POST", CHAT, HELLO)).status == 200


async def test_a_caller_who_does_not_read_is_cut_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After [server] stall_timeout; its exchange is recorded, the provider let go, and memory does not grow meanwhile."""
    block = b"data: " + json.dumps({"choices": [{"delta": {"content": "x" * 60_000}}]}).encode() + b"\n\n"
    fed = 0
    flows: list[Holding] = []

    class Holding(NoFlow):
        def __init__(self) -> None:
            super().__init__()
            self.open = asyncio.Event()
            self.open.set()

        def pause(self) -> None:
            self.open.clear()

        def resume(self) -> None:
            self.open.set()

    async def endless(request: object, receiver: object) -> None:
        nonlocal fed
        flow = Holding()
        flows.append(flow)
        receiver.head(200, [EVENTS], flow)  # type: ignore[attr-defined]
        while True:
            await flow.open.wait()
            receiver.feed(block)  # type: ignore[attr-defined]
            fed += len(block)
            await asyncio.sleep(0)

    async with serving(tmp_path, DEMO.replace("[server]", "[server]\nstall_timeout = 0.3")) as port:
        transport = port.server.gateway.pipeline.attempter.transport = Scripted(endless)
        caller = await port.call(limit=1024)
        await caller.send(request("POST", CHAT, HELLO.replace(b'"demo"', b'"demo","stream":true')))
        (record,) = await port.records(1)
        assert record.outcome == "client_closed"
        assert record.status == 200
        assert transport.cancelled == 1
        assert fed < 12_000_000, "system buffers and a little of ours"
        assert "a caller did not read its answer: connection closed" in capsys.readouterr().err


async def test_a_slow_caller_gets_everything(tmp_path: Path) -> None:
    """Slower than the provider, faster than the stall: held back, not cut off, byte for byte."""
    blocks = [
        b"data: " + json.dumps({"choices": [{"delta": {"content": f"{n:06}" * 10_000}}]}).encode() + b"\n\n" for n in range(60)
    ]
    async with serving(tmp_path) as port:
        port.server.gateway.pipeline.attempter.transport = Scripted(streams(*blocks, b"data: [DONE]\n\n"))
        caller = await port.call(limit=4096)
        await caller.send(request("POST", CHAT, HELLO.replace(b'"demo"', b'"demo","stream":true')))
        await asyncio.sleep(0.1)
        answer = await caller.answer()
        assert answer.whole
        assert answer.body == b"".join(blocks) + b"data: [DONE]\n\n"


async def test_a_caller_that_hangs_up_frees_the_provider(port: Running) -> None:
    """Within a tenth of a second, whether it closes or resets, before or after the first byte; recorded as its doing."""

    async def hangs(request: object, receiver: object) -> None:
        await asyncio.sleep(30)

    async def begins(request: object, receiver: object) -> None:
        receiver.head(200, [EVENTS], NoFlow())  # type: ignore[attr-defined]
        receiver.feed(b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n')  # type: ignore[attr-defined]
        await asyncio.sleep(30)

    count = 0
    for play in (hangs, begins):
        for leave in ("close", "reset"):
            transport = port.server.gateway.pipeline.attempter.transport = Scripted(play)
            caller = await port.call()
            await caller.send(request("POST", CHAT, HELLO.replace(b'"demo"', b'"demo","stream":true')))
            async with asyncio.timeout(2):
                while not transport.running:
                    await asyncio.sleep(0.001)
                if play is begins:
                    await caller.reader.readuntil(b"\r\n\r\n")
            getattr(caller, leave)()
            async with asyncio.timeout(0.1):
                while transport.running:
                    await asyncio.sleep(0.002)
            assert transport.cancelled == 1
            count += 1
    records = await port.records(count)
    assert {(record.outcome, record.error) for record in records} == {("client_closed", "caller_closed")}
    assert sorted(record.status for record in records) == [200, 200, 499, 499]


async def test_idle_connections_are_kept(port: Running) -> None:
    """Between two requests, and while a request's head trickles in."""
    caller = await port.call()
    assert (await caller.ask("POST", CHAT, HELLO)).status == 200
    await asyncio.sleep(0.2)
    data = request("POST", CHAT, HELLO)
    for piece in (data[:1], data[1:20], data[20:60], data[60:-5], data[-5:-1], data[-1:]):
        await caller.send(piece)
        await asyncio.sleep(0.02)
    assert (await caller.answer()).status == 200


async def test_a_bug_leaves_nobody_waiting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is raised where nothing should be: the connection ends, the log says where, without what."""

    async def broken(*_: object) -> bool:
        raise RuntimeError("sk-secret")

    async with serving(tmp_path) as port:
        exchanges = port.server._front.exchanges  # type: ignore[union-attr]
        exchanges.serve = broken
        caller = await port.call()
        await caller.send(request("POST", CHAT, HELLO))
        assert await caller.is_closed()
        del exchanges.serve
        assert (await port.ask("POST", CHAT, HELLO)).status == 200
    said = capsys.readouterr().err
    assert "a connection failed: RuntimeError at test_front.py" in said
    assert "secret" not in said


async def test_what_is_malformed_is_answered_in_its_dialect(port: Running) -> None:
    """As far as it can be told."""
    caller = await port.call()
    await caller.send(b"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: a\x00b\r\n\r\n")
    answer = await caller.answer()
    assert (answer.status, answer.json()["type"]) == (400, "error")
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["x-aigw-error"] == "caller_invalid_request"


async def test_a_closed_connection_does_not_wait_for_its_reader(tmp_path: Path) -> None:
    """Its last answer unread, it is cut off after the stall timeout; else it would be held for ever."""
    big = {"choices": [{"message": {"content": "x" * 20_000_000}}]}
    async with serving(tmp_path, DEMO.replace("[server]", "[server]\nstall_timeout = 0.3")) as port:
        port.server.gateway.pipeline.attempter.transport = Scripted(answers(big))
        caller = await port.call(limit=1024)
        await caller.send(request("POST", CHAT, HELLO, BEARER | {"connection": "close"}))
        door = port.server._front.door  # type: ignore[union-attr]
        async with asyncio.timeout(5):
            while not door.open:
                await asyncio.sleep(0.01)
            while door.open:
                await asyncio.sleep(0.01)


async def test_the_timer_holds_on_repeated_heads(tmp_path: Path) -> None:
    """A connection that repeats its head skips the parser, not the limits: half a head after many whole ones is refused."""
    config = DEMO.replace("[server]", "[server]\nhead_timeout = 0.3\nkeep_alive = 5")
    async with serving(tmp_path, config) as port:
        caller = await port.call()
        for _ in range(5):
            assert (await caller.ask("POST", CHAT, HELLO)).status == 200
        await asyncio.sleep(0.5)
        assert (await caller.ask("POST", CHAT, HELLO)).status == 200, "idle is not slow"
        await caller.send(request("POST", CHAT, HELLO)[:60])
        async with asyncio.timeout(1):
            answer = await caller.answer()
        assert (answer.status, answer.json()["error"]["aigw_code"]) == (408, "caller_timeout")
        assert await caller.is_closed()


async def test_limits_follow_a_reload(port: Running) -> None:
    """For connections from then on."""
    port.config.write_text(port.config.read_text().replace("[server]", "[server]\nhead_timeout = 0.2"))
    assert await port.server.reload()
    caller = await port.call()
    assert await caller.is_closed(1)
