"""Realtime sessions through a real `aigw serve`: they outlive a reload, end well at a stop, and are in the statistics."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from aiohttp import WSMsgType

from tests.e2e.node import emulator
from tests.e2e.world import Gateway, eventually
from tests.realtime import Far, event, provider

Own = Callable[..., Gateway]


def settings(far: Far) -> str:
    return f'[providers.openai]\nbase_url = "http://127.0.0.1:{far.port}/v1"\nkeys = ["sk-far"]\n'


async def running(own: Own, config: str, **more: Any) -> Gateway:
    """Started in a thread: the provider lives in this one."""
    gateway = own(config, **more)

    def start() -> None:
        gateway.key = gateway.create_key("me")["key"]
        gateway.start()

    await asyncio.to_thread(start)
    return gateway


def connect(client: aiohttp.ClientSession, gateway: Gateway, model: str = "gpt-realtime-2.1") -> Any:
    return client.ws_connect(
        f"{gateway.url}/v1/realtime?model={model}",
        headers={"authorization": f"Bearer {gateway.key}"},
        max_msg_size=32 * 2**20,
    )


async def test_a_session_outlives_a_reload(own: Own) -> None:
    """`kill -HUP` with another config: the session goes on where it was, the next one goes by the new config."""
    async with provider() as far, provider() as other, aiohttp.ClientSession() as client:
        gateway = await running(own, settings(far))
        async with connect(client, gateway) as caller:
            await caller.receive_str(timeout=5)
            begin = len(gateway.lines)
            gateway.config.write_text(gateway.config.read_text().replace(str(far.port), str(other.port)))
            gateway.signal(signal.SIGHUP)
            await asyncio.to_thread(gateway.said, "config .* reloaded", begin)
            await caller.send_str('{"still": "there"}')
            assert "still" in await caller.receive_str(timeout=5)
            await caller.send_str(event("response.create"))
            await caller.receive_str(timeout=5)
            await caller.receive_str(timeout=5)
            async with connect(client, gateway) as second:
                await second.receive_str(timeout=5)
            assert (len(far.asked), len(other.asked)) == (1, 1)
        records = await asyncio.to_thread(_recorded, gateway, 2)
        assert sorted((record.input, record.outcome) for record in records) == [(0, "ok"), (100, "ok")]
        stats = await asyncio.to_thread(gateway.stats)
        (row,) = stats["rows"]
        assert row["model"] == "gpt-realtime-2.1"
        assert (row["requests"], row["input_tokens"], row["cached_tokens"], row["output_tokens"]) == (2, 100, 10, 50)
        assert await asyncio.to_thread(gateway.stop) == 0


def _recorded(gateway: Gateway, count: int) -> Any:
    return eventually(lambda: found if len(found := gateway.records()) == count else None)


async def test_a_stop_says_goodbye(own: Own) -> None:
    """SIGTERM: a session has `drain_timeout` to end; then it is ended with 1001, and recorded."""
    async with provider() as far, aiohttp.ClientSession() as client:
        gateway = await running(own, settings(far), server="drain_timeout = 0.5")
        async with connect(client, gateway) as caller:
            await caller.receive_str(timeout=5)
            gateway.signal(signal.SIGTERM)
            message = await caller.receive(timeout=10)
            assert message.type is WSMsgType.CLOSE
            assert caller.close_code == 1001
        assert await asyncio.to_thread(gateway.wait) == 0
        (record,) = gateway.records() or gateway.journalled()
        assert (record.error, record.finish_reason) == ("gateway_draining", "1001")
        assert far.ended[0][1] == 1001


async def test_many_sessions_in_little_memory(own: Own) -> None:
    """50 at once, a megabyte each way in each: all arrive, and the server has not grown by more than what they hold."""
    async with provider() as far, aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
        gateway = await running(own, settings(far))

        async def talk() -> int:
            got = 0
            async with connect(client, gateway) as caller:
                await caller.receive_str(timeout=20)
                frame = json.dumps({"type": "input_audio_buffer.append", "audio": "A" * 32_000})

                async def say() -> None:
                    for _ in range(32):
                        await caller.send_str(frame)

                saying = asyncio.create_task(say())
                for _ in range(32):
                    got += len(await caller.receive_str(timeout=20))
                await saying
            return got

        await talk()
        before = _memory(gateway.process.pid)
        sizes = await asyncio.gather(*(talk() for _ in range(50)))
        peak = _memory(gateway.process.pid, "VmHWM")
        assert min(sizes) > 2**20 - 30_000
        assert peak - before < 60_000, f"{before} -> {peak} KiB"
        records = await asyncio.to_thread(_recorded, gateway, 51)
        assert {record.outcome for record in records} == {"ok"}
        assert await asyncio.to_thread(gateway.stop) == 0


def _memory(pid: int, name: str = "VmRSS") -> int:
    """KiB."""
    if not os.path.exists(f"/proc/{pid}/status"):  # noqa: PTH110
        pytest.skip("needs /proc")
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


async def test_the_sdk(own: Own) -> None:
    """openai's own realtime client, when its websocket library is there."""
    pytest.importorskip("websockets")
    async with provider() as far:
        gateway = await running(own, settings(far))
        async with openai.AsyncOpenAI(api_key=gateway.key, base_url=f"{gateway.url}/v1") as plain:
            base = gateway.url.replace("http", "ws")
            client = plain.with_options(websocket_base_url=f"{base}/v1")
            async with client.realtime.connect(model="gpt-realtime-2.1") as connection:
                await connection.response.create()
                seen = [(await connection.recv()).type for _ in range(3)]
        assert seen == ["session.created", "response.output_text.delta", "response.done"]
        assert await asyncio.to_thread(gateway.stop) == 0


@pytest.mark.long
async def test_an_emulator_that_others_wrote(own: Own, tmp_path: Path) -> None:
    """aimock's realtime: a text answer through us, its usage in the record."""
    fixtures = [{"match": {"userMessage": "hello"}, "response": {"content": "Hello there."}}]
    with emulator(tmp_path, fixtures) as far:
        config = f'[providers.openai]\nbase_url = "http://127.0.0.1:{far.port}/v1"\nkeys = ["sk-far"]\n'
        gateway = await running(own, config)
        async with aiohttp.ClientSession() as client, connect(client, gateway, "gpt-realtime") as caller:
            assert json.loads(await caller.receive_str(timeout=10))["type"] == "session.created"
            item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}
            await caller.send_str(json.dumps({"type": "conversation.item.create", "item": item}))
            await caller.send_str(json.dumps({"type": "response.create", "response": {"output_modalities": ["text"]}}))
            said = ""
            async with asyncio.timeout(10):
                while (event_ := json.loads(await caller.receive_str()))["type"] != "response.done":
                    said += event_["delta"] if event_["type"] == "response.output_text.delta" else ""
            assert said == "Hello there."
        (record,) = await asyncio.to_thread(_recorded, gateway, 1)
        usage = event_["response"].get("usage") or {}
        assert record.input == usage.get("input_tokens", 0)
        assert (record.outcome, record.provider) == ("ok", "openai")
        assert await asyncio.to_thread(gateway.stop) == 0
