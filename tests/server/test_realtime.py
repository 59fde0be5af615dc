"""Realtime sessions through a whole server in this process: real websockets on both sides."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import WSMsgType, web
from msgspec.structs import replace

from aigw.consumer import Budget, Caller, Terms
from aigw.exchange import Attempt
from tests.data_port import KEY, Running, request, serving
from tests.realtime import USAGE, Far, Script, Socket, echo, event, provider

CONFIG = """
[server]
port = 0
{server}
[admin]
port = 0
{more}
[consumers.ci]
key = "{key}"
{consumer}
[providers.openai]
base_url = "http://127.0.0.1:{port}/v1"
keys = {keys}
"""

WS = {
    "upgrade": "websocket",
    "connection": "Upgrade",
    "sec-websocket-version": "13",
    "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


def config(far: Far, *, server: str = "", more: str = "", consumer: str = "", keys: str = '["sk-far-1"]') -> str:
    return CONFIG.format(port=far.port, server=server, more=more, consumer=consumer, keys=keys, key=KEY)


@asynccontextmanager
async def through(folder: Path, script: Script = echo, **settings: str) -> AsyncIterator[tuple[Running, Far]]:
    async with provider(script) as far, serving(folder, config(far, **settings)) as running:
        yield running, far


def address(running: Running, query: str = "model=gpt-realtime-2.1", path: str = "/v1/realtime") -> str:
    return f"http://127.0.0.1:{running.server.port}{path}?{query}"


@asynccontextmanager
async def session(running: Running, url: str = "", **options: Any) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A caller's session; with the gateway's key, unless *options* say otherwise."""
    options.setdefault("headers", {"authorization": f"Bearer {KEY}"})
    async with (
        aiohttp.ClientSession() as client,
        client.ws_connect(url or address(running), max_msg_size=32 * 2**20, **options) as socket,
    ):
        yield socket


async def until(condition: Any, within: float = 3.0) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.005)


async def test_frames_both_ways_and_one_record(tmp_path: Path) -> None:
    """Text, binary and large frames arrive as they were sent; usage of all answers is in the one record."""
    async with through(tmp_path) as (running, far):
        async with session(running) as caller:
            assert json.loads(await caller.receive_str(timeout=5))["type"] == "session.created"
            odd = '{"type": "conversation.item.create",  "n": 1.50, "x": "气象"}'
            await caller.send_str(odd)
            assert await caller.receive_str(timeout=5) == odd
            await caller.send_bytes(bytes(range(256)) * 100)
            assert await caller.receive_bytes(timeout=5) == bytes(range(256)) * 100
            large = json.dumps({"type": "input_audio_buffer.append", "audio": "A" * 8 * 2**20})
            await caller.send_str(large)
            assert await caller.receive_str(timeout=10) == large
            for _ in range(2):
                await caller.send_str(event("response.create"))
                assert "delta" in await caller.receive_str(timeout=5)
                assert "response.done" in await caller.receive_str(timeout=5)
            await caller.close(code=1000)
        (record,) = await running.records(1)
    assert (record.outcome, record.status, record.operation, record.finish_reason) == ("ok", 101, "realtime", "1000")
    assert (record.provider, record.model, record.answer_model) == ("openai", "gpt-realtime-2.1", "gpt-realtime-2.1-2026-10-01")
    assert (record.input, record.output, record.cached) == (200, 100, 20)
    assert (record.audio_input, record.audio_output, record.estimated) == (160, 70, False)
    assert record.consumer == "ci"
    assert record.bytes_in > 8 * 2**20
    assert record.bytes_out > 8 * 2**20
    assert record.upstream_id == "req_far"
    (asked,) = far.asked
    assert asked.path_qs == "/v1/realtime?model=gpt-realtime-2.1"
    assert asked.headers["authorization"] == "Bearer sk-far-1"
    assert KEY not in str(asked.headers)
    assert far.ended[0][1] == 1000


@pytest.mark.parametrize("path", ["/v1/realtime", "/realtime", "/openai/v1/realtime"])
async def test_every_place_for_a_key(tmp_path: Path, path: str, caplog: pytest.LogCaptureFixture) -> None:
    """A header, the query, or a browser's sub-protocol, which is answered with `realtime` and never repeated or logged."""
    caplog.set_level(logging.DEBUG)
    async with through(tmp_path) as (running, far):
        url = address(running, path=path)
        ways: list[dict[str, Any]] = [
            {"headers": {"x-api-key": KEY}},
            {"headers": {"api-key": KEY}},
            {"headers": {}, "url": f"{url}&key={KEY}"},
            {
                "headers": {},
                "protocols": [
                    "realtime",
                    f"openai-insecure-api-key.{KEY}",
                    "openai-organization.org-1",
                    "openai-beta.realtime-v1",
                ],
            },
        ]
        for way in ways:
            async with session(running, way.pop("url", url), **way) as caller:
                await caller.receive_str(timeout=5)
                assert caller.protocol == ("realtime" if "protocols" in way else None)
        assert far.asked[-1].headers["openai-beta"] == "realtime=v1"
        assert all(KEY not in str(asked.headers) + asked.path_qs and "org-1" not in str(asked.headers) for asked in far.asked)
        assert {record.consumer for record in await running.records(4)} == {"ci"}
    assert KEY not in caplog.text


async def refused(running: Running, path: str, headers: dict[str, str] | None = None) -> tuple[int, Any, dict[str, str]]:
    caller = await running.call()
    lines = WS | {"authorization": f"Bearer {KEY}"} | (headers or {})
    await caller.send(request("GET", path, None, {name: value for name, value in lines.items() if value}))
    answer = await caller.answer("GET")
    return answer.status, answer.json(), answer.headers


async def test_refusals_are_http_errors(tmp_path: Path) -> None:
    """What cannot become a session is told so before it is one, in OpenAI's shape, and recorded."""
    async with through(tmp_path) as (running, far):
        status, body, headers = await refused(running, "/v1/realtime?model=gpt-realtime-2.1", {"authorization": "Bearer wrong"})
        assert (status, body["error"]["code"]) == (401, "invalid_api_key")
        assert headers["x-aigw-error"] == "policy_key_invalid"
        status, body, _ = await refused(running, "/v1/realtime?model=nobody-has-this")
        assert (status, body["error"]["code"]) == (404, "model_not_found")
        status, body, _ = await refused(running, "/v1/realtime")
        assert status == 400
        assert "?model=NAME" in body["error"]["message"]
        status, body, headers = await refused(running, "/v1/realtime?model=gpt-realtime-2.1", {"upgrade": "", "connection": ""})
        assert (status, headers["upgrade"]) == (426, "websocket")
        status, body, _ = await refused(running, "/v1/realtime?model=gpt-realtime-2.1", {"sec-websocket-key": "short"})
        assert status == 400
        only_key = {"authorization": "", "sec-websocket-protocol": f"openai-insecure-api-key.{KEY}"}
        status, body, _ = await refused(running, "/v1/realtime?model=gpt-realtime-2.1", only_key)
        assert status == 400
        assert KEY not in str(body)
        status, body, _ = await refused(running, "/v1/models")
        assert status == 400  # an upgrade elsewhere
        assert not far.asked
        assert len(await running.records(6)) == 6


def once(status: int, body: dict[str, Any]) -> Any:
    """Refuses the first handshake."""
    seen: list[int] = []

    def refuse(asked: web.Request) -> web.Response | None:
        seen.append(1)
        return web.json_response(body, status=status) if len(seen) == 1 else None

    return refuse


async def test_another_key(tmp_path: Path) -> None:
    """A provider that refuses one key gets another, before the caller hears anything."""
    refuse = once(401, {"error": {"message": "Incorrect API key provided: sk-far-1", "code": "invalid_api_key"}})
    async with provider(refuse=refuse) as far, serving(tmp_path, config(far, keys='["sk-far-1", "sk-far-2"]')) as running:
        async with session(running) as caller:
            await caller.receive_str(timeout=5)
        (record,) = await running.records(1)
    assert record.outcome == "ok"
    chain = msgspec.json.decode(record.attempts, type=list[Attempt])
    assert [(one.status, one.error) for one in chain] == [(401, "provider_credentials_invalid"), (101, "")]
    assert {asked.headers["authorization"] for asked in far.asked} == {"Bearer sk-far-1", "Bearer sk-far-2"}


async def test_the_provider_refuses(tmp_path: Path) -> None:
    """A refused handshake is an HTTP error of ours, without the provider's secrets; a redirection is not followed."""
    answers = [
        web.json_response({"error": {"message": "bad key sk-far-1", "code": "invalid_api_key"}}, status=401),
        web.Response(status=302, headers={"location": "http://127.0.0.1:9/"}),
        web.Response(status=200, text="<html>"),
    ]
    async with provider(refuse=lambda _: answers.pop(0)) as far:
        for code in ("provider_credentials_invalid", "provider_bad_response", "provider_bad_response"):
            folder = tmp_path / str(len(answers))  # a key that was called invalid rests, over a restart, too
            folder.mkdir()
            async with serving(folder, config(far)) as running:
                status, body, headers = await refused(running, "/v1/realtime?model=gpt-realtime-2.1")
                assert (status, headers["x-aigw-error"]) == (502, code)
                assert "sk-far-1" not in str(body)


async def test_unreachable(tmp_path: Path, unused_tcp_port: int) -> None:
    """Nobody there: a 502, before any upgrade."""
    far = Far(echo, None)
    far.port = unused_tcp_port
    async with serving(tmp_path, config(far)) as running:
        status, _, headers = await refused(running, "/v1/realtime?model=gpt-realtime-2.1")
        assert (status, headers["x-aigw-error"]) == (502, "provider_unreachable")


@pytest.mark.parametrize(
    ("code", "ours", "outcome"),
    [(1000, 1000, "ok"), (1001, 1001, "ok"), (1008, 1008, "ok"), (1011, 1011, "provider_error"), (4001, 4001, "ok")],
)
async def test_the_provider_closes(tmp_path: Path, code: int, ours: int, outcome: str) -> None:
    """Its code is the caller's, its reason too, cleaned of its key."""

    async def script(socket: Socket) -> None:
        await socket.close(code=code, message=b"because of sk-far-1")

    async with through(tmp_path, script) as (running, _):
        async with session(running, autoclose=False) as caller:
            message = await caller.receive(timeout=5)
            assert (message.type, message.data) == (WSMsgType.CLOSE, ours)
            assert "because of" in message.extra
            assert "sk-far-1" not in message.extra
        (record,) = await running.records(1)
    assert (record.finish_reason, record.outcome) == (str(ours), outcome)


async def test_the_provider_vanishes(tmp_path: Path) -> None:
    """Without a close frame the caller gets 1011."""

    async def script(socket: Socket) -> None:
        await socket.receive()
        socket._req.transport.abort()

    async with through(tmp_path, script) as (running, _):
        async with session(running) as caller:
            await caller.send_str("{}")
            assert (await caller.receive(timeout=5)).type is WSMsgType.CLOSE
            assert caller.close_code == 1011
        (record,) = await running.records(1)
    assert record.error == "provider_connection_lost"


async def test_the_caller_vanishes(tmp_path: Path) -> None:
    """The provider's side is closed within 100 ms, and what was used is recorded."""
    async with through(tmp_path) as (running, far):
        async with session(running) as caller:
            await caller.receive_str(timeout=5)
            await caller.send_str(event("response.create"))
            await caller.receive_str(timeout=5)
            await caller.receive_str(timeout=5)
            gone = asyncio.get_running_loop().time()
            caller._response.connection.transport.abort()
            await until(lambda: far.ended)
            assert far.ended[0][0] - gone < 0.1
        (record,) = await running.records(1)
    assert (record.outcome, record.finish_reason, record.input) == ("client_closed", "1006", USAGE["input_tokens"])


async def test_bad_frames(tmp_path: Path) -> None:
    """Garbage, text that is no UTF-8 and an event too large end the session with the code that says so."""

    async def spoil(running: Running, data: bytes) -> bytes:
        caller = await running.call()
        lines = WS | {"authorization": f"Bearer {KEY}"}
        await caller.send(request("GET", "/v1/realtime?model=gpt-realtime-2.1", None, lines))
        assert (await caller.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        await caller.send(data)
        rest = await asyncio.wait_for(caller.reader.read(), 5)
        return rest[rest.rindex(b"\x88") + 2 :][:2]

    async with through(tmp_path, server="realtime_message = 65536") as (running, far):
        mask = b"\0\0\0\0"
        assert int.from_bytes(await spoil(running, b"\x81\x82" + mask + b"\xff\xfe")) == 1007
        assert int.from_bytes(await spoil(running, b"\xf3\x82" + mask + b"ab")) == 1002
        assert int.from_bytes(await spoil(running, b"\x81\xff" + (2**20).to_bytes(8) + mask)) == 1009
        records = await running.records(3)
        assert {record.outcome for record in records} == {"caller_error"}
        await until(lambda: not far.open)


async def test_pings_are_answered(tmp_path: Path) -> None:
    """On each side by us: neither sees the other's."""
    ponged: list[bytes] = []

    async def script(socket: Socket) -> None:
        socket._autoping = False
        await socket.ping(b"from the provider")
        message = await socket.receive()
        ponged.append(message.data)
        await socket.send_str("ponged")
        await socket.receive()

    async with through(tmp_path, script) as (running, _), session(running, autoping=False) as caller:
        await caller.ping(b"from the caller")
        kinds = {}
        for _ in range(2):
            message = await caller.receive(timeout=5)
            kinds[message.type] = message.data
        assert kinds == {WSMsgType.PONG: b"from the caller", WSMsgType.TEXT: "ponged"}
        assert ponged == [b"from the provider"]


async def test_a_caller_in_a_hurry(tmp_path: Path) -> None:
    """Who says goodbye and does not wait for an answer has ended its session well."""
    async with through(tmp_path) as (running, _):
        async with session(running) as caller:
            await caller.receive_str(timeout=5)
            await caller.send_frame((4321).to_bytes(2), WSMsgType.CLOSE)
            caller._response.close()
        (record,) = await running.records(1)
    assert (record.outcome, record.finish_reason) == ("ok", "4321")


async def test_a_key_that_is_taken_away(tmp_path: Path) -> None:
    """Its sessions end with 1008 within about a second."""
    async with through(tmp_path) as (running, far), session(running) as caller:
        await caller.receive_str(timeout=5)
        running.server.services.directory.reconfigure(required=True, configured=())
        began = asyncio.get_running_loop().time()
        message = await caller.receive(timeout=5)
        assert message.type is WSMsgType.CLOSE
        assert caller.close_code == 1008
        assert asyncio.get_running_loop().time() - began < 1.0
        (record,) = await running.records(1)
        assert record.error == "policy_key_revoked"
        await until(lambda: not far.open)


async def test_idle(tmp_path: Path) -> None:
    """A session in which nothing happens ends; pings are nothing."""
    async with through(tmp_path, server="realtime_idle = 0.3") as (running, _), session(running) as caller:
        await caller.receive_str(timeout=5)
        assert (await caller.receive(timeout=5)).type is WSMsgType.CLOSE
        assert caller.close_code == 1001
        assert (await running.records(1))[0].error == "caller_timeout"


async def test_limits_hold(tmp_path: Path) -> None:
    """A session takes one of the places that a consumer has at once, and gives it back."""
    async with through(tmp_path, consumer="concurrency = 1") as (running, _):
        async with session(running) as caller:
            await caller.receive_str(timeout=5)
            status, _, headers = await refused(running, "/v1/realtime?model=gpt-realtime-2.1")
            assert (status, headers["x-aigw-error"]) == (429, "policy_concurrency_limited")
        await running.idle()
        async with session(running) as caller:
            await caller.receive_str(timeout=5)


async def test_a_budget_ends_a_session(tmp_path: Path) -> None:
    """It holds what it says and hears next; when the budget has no more it ends, and was charged what it used."""

    async def talks(socket: Any) -> None:
        usage = {"total_tokens": 5000, "input_tokens": 3000, "output_tokens": 2000}
        async for _ in socket:
            await socket.send_str(event("response.done", response={"status": "completed", "usage": usage}))

    terms = Terms(budgets=(Budget(20_000, "tokens", "total"),), concurrency=1)
    async with through(tmp_path, script=talks) as (running, _):
        _limit(running, terms)
        async with session(running) as caller:
            for _ in range(3):
                await caller.send_str(event("response.create"))
                message = await caller.receive(timeout=5)
            while message.type is WSMsgType.TEXT:
                message = await caller.receive(timeout=5)
            assert message.type is WSMsgType.CLOSE
            assert caller.close_code == 1008
            assert "budget" in str(message.extra)
        (record,) = await running.records(1)
        assert record.error == "policy_budget_exhausted"
        assert record.input + record.output == 15_000
        await running.idle()
        counters = running.server.gateway.services.counters
        assert await counters.read(["tokens:config:ci:total"]) == [15_000]
        status, _, headers = await refused(running, "/v1/realtime?model=gpt-realtime-2.1")
        assert (status, headers["x-aigw-error"]) == (429, "policy_budget_exhausted")


def _limit(running: Running, terms: Terms) -> None:
    """Give the config's consumer *terms*."""
    directory = running.server.gateway.directory
    callers = [Caller(replace(one.consumer, terms=terms), one.key) for one in directory._configured.values()]
    directory.reconfigure(required=True, configured=callers)


async def test_a_reload_ends_no_session(tmp_path: Path) -> None:
    """It goes on in the gateway it began in, which ends after it."""
    async with through(tmp_path) as (running, _):
        async with session(running) as caller:
            await caller.receive_str(timeout=5)
            old = running.server.gateway
            assert await running.server.reload()
            assert running.server.gateway is not old
            await caller.send_str('{"after": "the reload"}')
            assert "the reload" in await caller.receive_str(timeout=5)
            assert running.server._retired
        await until(lambda: not running.server._retired)


async def test_a_slow_caller_slows_the_provider(tmp_path: Path) -> None:
    """What neither side has read stays with its sender: 50 sessions, 40 MB that nobody reads, and memory that stays small."""
    sent = [0]

    async def flood(socket: Socket) -> None:
        frame = b"\0" * 50_000
        for _ in range(400):
            await socket.send_bytes(frame)
            sent[0] += len(frame)

    async with through(tmp_path, flood) as (running, _):
        tracemalloc.start()
        callers = []
        for _ in range(10):
            caller = await running.call(limit=2**14)
            lines = WS | {"authorization": f"Bearer {KEY}"}
            await caller.send(request("GET", "/v1/realtime?model=gpt-realtime-2.1", None, lines))
            callers.append(caller)
        before = -1
        async with asyncio.timeout(20):
            while sent[0] != before or not before:
                before = sent[0]
                await asyncio.sleep(0.5)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert sent[0] < 150 * 2**20  # else nothing was held back: kernels keep some MB for each connection
        assert peak < 30 * 2**20
        assert len(running.server._sessions) == 10


def test_the_paths_are_websockets_only() -> None:
    """The list of paths is the routes' and the head's: one list."""
    from aigw.server import heads

    assert all(re.fullmatch(r"(/[a-z0-9]+)*/realtime", path) for path in heads.SESSIONS)
