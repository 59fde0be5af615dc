"""Config and plugins are swapped again and again under streams and sessions: nothing is dropped, nothing is mixed."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from aigw.plugins import trust
from tests.e2e.test_realtime import connect, settings
from tests.e2e.world import Gateway
from tests.realtime import provider

PLUGIN = """
from aigw.canonical import TextDelta
from aigw.hooks import Plugin


class Marks(Plugin):
    name = "marks"
    reads = frozenset({{"stream"}})

    def event(self, view, event):
        if isinstance(event, TextDelta):
            event.text = "{mark}:" + event.text + " "
"""


class Counting:
    """A provider whose streams count until they are told to end."""

    def __init__(self, pace: float) -> None:
        self.pace, self.end, self.sent = pace, asyncio.Event(), 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        await reader.readexactly(length)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        number = 0
        while not self.end.is_set():
            said = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": str(number)}}]}
            writer.write(b"data: " + json.dumps(said).encode() + b"\n\n")
            await writer.drain()
            number += 1
            await asyncio.sleep(self.pace)
        last = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": "end"}, "finish_reason": "stop"}]}
        writer.write(b"data: " + json.dumps(last).encode() + b"\n\ndata: [DONE]\n\n")
        self.sent += number + 1
        await writer.drain()
        writer.close()


async def read(client: aiohttp.ClientSession, gateway: Gateway) -> list[str]:
    """The words of one stream, to its end."""
    ask = {"model": "p/m", "stream": True, "messages": [{"role": "user", "content": "count"}]}
    headers = {"authorization": f"Bearer {gateway.key}"}
    words: list[str] = []
    async with client.post(f"{gateway.url}/v1/chat/completions", json=ask, headers=headers) as answer:
        assert answer.status == 200
        body = (await answer.read()).decode()
    assert body.endswith("data: [DONE]\n\n")
    for block in body.split("\n\n"):
        if block.startswith("data: {"):
            for choice in json.loads(block[6:])["choices"]:
                words += (choice["delta"].get("content") or "").split()
    return words


def marks(words: list[str]) -> set[str]:
    """Whose words they are; that they are all there, in order."""
    found = [word.partition(":") for word in words]
    assert [what for _, _, what in found] == [*map(str, range(len(words) - 1)), "end"]
    return {mark for mark, _, _ in found}


def resident(pid: int) -> float:
    """MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1000


@pytest.mark.parametrize(("streams", "sessions", "reloads"), [(40, 5, 12), pytest.param(500, 50, 100, marks=pytest.mark.long)])
async def test_nothing_is_dropped(own: Callable[..., Gateway], streams: int, sessions: int, reloads: int) -> None:
    counting = Counting(pace=0.02 * max(1, streams / 50))
    server = await asyncio.start_server(counting.serve, "127.0.0.1", 0, backlog=1000)
    port = server.sockets[0].getsockname()[1]
    connector = aiohttp.TCPConnector(limit=0)
    async with provider() as far, aiohttp.ClientSession(connector=connector) as client, server:
        config = (
            settings(far)
            + f'[providers.p]\nkind = "generic"\nbase_url = "http://127.0.0.1:{port}/v1"\nkeys = ["k"]\n[plugins.marks]\n'
        )

        def put(gateway: Gateway, mark: str) -> None:
            path = gateway.folder / "plugins" / "marks.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(PLUGIN.format(mark=mark))
            trust.add(gateway.data_dir, PLUGIN.format(mark=mark).encode(), path.name)

        gateway = own(config)
        await asyncio.to_thread(put, gateway, "v0")
        gateway.key = (await asyncio.to_thread(gateway.create_key, "me"))["key"]
        await asyncio.to_thread(gateway.start)
        running_streams = [asyncio.create_task(read(client, gateway)) for _ in range(streams)]
        sockets = [await connect(client, gateway) for _ in range(sessions)]
        for socket in sockets:
            await socket.receive_str(timeout=10)
        await asyncio.sleep(1)
        later: list[asyncio.Task[list[str]]] = []

        async def reload(mark: str) -> None:
            begin = len(gateway.lines)
            await asyncio.to_thread(put, gateway, mark)
            gateway.signal(signal.SIGHUP)
            await asyncio.to_thread(gateway.said, "reloaded", begin)

        for number in range(1, reloads + 1):
            await reload(f"v{number}")
            later.append(asyncio.create_task(read(client, gateway)))
            await asyncio.sleep(0.05)
        for number, socket in enumerate(sockets):
            await socket.send_str(json.dumps({"still": number}))
            assert str(number) in await socket.receive_str(timeout=10)
        counting.end.set()
        found = await asyncio.gather(*running_streams)
        assert [marks(words) for words in found] == [{"v0"}] * streams
        news = [marks(words) for words in await asyncio.gather(*later)]
        assert news == [{f"v{number}"} for number in range(1, reloads + 1)]
        assert sum(map(len, found)) + sum(len(task.result()) for task in later) == counting.sent
        for socket in sockets:
            await socket.close()
        await asyncio.sleep(1)
        level = resident(gateway.process.pid)  # with each of its generations once in use
        for number in range(reloads):
            await reload(f"w{number}")
            assert marks(await read(client, gateway)) == {f"w{number}"}
        assert resident(gateway.process.pid) < level * 1.1 + 5
        assert await asyncio.to_thread(gateway.stop) == 0
