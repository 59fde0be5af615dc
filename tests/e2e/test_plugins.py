"""Plugins in a real server: swapped under running streams, and never half."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import pytest

from aigw.plugins import trust
from tests.e2e.far_side import FarSide, provider
from tests.e2e.world import HELLO, Answer, Gateway, eventually
from tests.loopback import Peer, Request

PLUGIN = """
from aigw.canonical import TextDelta
from aigw.hooks import Plugin


class Marks(Plugin):
    name = "marks"
    reads = frozenset({{"stream"}})

    async def startup(self):
        {startup}

    def event(self, view, event):
        if isinstance(event, TextDelta):
            event.text = event.text.replace("x", "{mark}")
"""

CONFIG = "[auth]\nrequired = false\n[plugins.marks]\n"


def put(gateway: Gateway, mark: str, startup: str = "pass") -> None:
    """A version of the plugin, trusted."""
    path = gateway.folder / "plugins" / "marks.py"
    path.parent.mkdir(exist_ok=True)
    content = PLUGIN.format(mark=mark, startup=startup)
    path.write_text(content)
    trust.add(gateway.data_dir, content.encode(), path.name)


class Streams:
    """A provider whose stream goes on until it is told to end."""

    def __init__(self) -> None:
        self.end = threading.Event()

    async def play(self, peer: Peer, request: Request, number: int) -> None:
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        chunk = b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
        await peer.send(chunk, 0.02)
        while number == 0 and not self.end.is_set():
            await peer.send(chunk, 0.02)
        await peer.send(b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n')
        peer.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_code_is_swapped_and_streams_end_as_they_began(own: Callable[..., Gateway], far_side: FarSide, workers: int) -> None:
    """A stream that runs while the plugin's code changes ten times is marked by the first version alone; each new request by
    the newest; a version that cannot start leaves the one before it serving, and the log says why."""
    streams = Streams()
    far_side.scripts["p"] = streams.play
    config = provider("p", far_side.url("p")) + CONFIG
    gateway = own(config, server=f"workers = {workers}\n")
    put(gateway, "A")
    gateway.start()
    ask = HELLO | {"model": "p/m", "stream": True}
    found: list[Answer] = []
    caller = threading.Thread(target=lambda: found.append(gateway.ask(ask, key="")))
    caller.start()
    eventually(lambda: far_side.seen["p"])
    for mark in "BCDEFGHIJK":
        put(gateway, mark)
        begin = len(gateway.lines)
        gateway.signal(signal.SIGHUP)
        gateway.said("reloaded", begin)
        assert mark.encode() in gateway.ask(ask, key="").body
    put(gateway, "Z", startup='raise OSError("no such list")')
    begin = len(gateway.lines)
    gateway.signal(signal.SIGHUP)
    gateway.said(r"plugins.marks: could not start: OSError: no such list", begin)
    assert b"K" in gateway.ask(ask, key="").body
    (gateway.folder / "plugins" / "marks.py").write_text("changed behind our back")
    begin = len(gateway.lines)
    gateway.signal(signal.SIGHUP)
    gateway.said("has changed since it was trusted", begin)
    assert b"K" in gateway.ask(ask, key="").body
    streams.end.set()
    caller.join(20)
    (first,) = found
    assert first.status == 200
    assert not first.cut
    assert b'"A"' in first.body
    assert first.body.endswith(b"data: [DONE]\n\n")
    assert not any(f'"{mark}"'.encode() in first.body for mark in "BCDEFGHIJKZ")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_cache_outlives_the_server(own: Callable[..., Gateway], far_side: FarSide, workers: int) -> None:
    """Asked once, in one API; answered in another, by another process."""
    config = provider("p", far_side.url("p")) + '[auth]\nrequired = false\n[plugins.cache]\nkept = "store"\n'
    gateway = own(config, server=f"workers = {workers}\n")
    gateway.start()
    ask = HELLO | {"model": "p/m", "temperature": 0, "max_tokens": 9}
    first = gateway.ask(ask, key="")
    assert first.headers["x-aigw-cache"] == "miss"
    before = len(far_side.seen["p"])
    gateway.stop()
    gateway.start()
    for path in ("/v1/chat/completions", "/v1/messages"):
        again = gateway.ask(ask, path=path, key="")
        assert (again.status, again.headers["x-aigw-cache"]) == (200, "hit")
    assert len(far_side.seen["p"]) == before
