"""A provider of realtime sessions on loopback: a real websocket server whose sessions play scripts."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import WSMsgType, web

USAGE = {
    "total_tokens": 150,
    "input_tokens": 100,
    "output_tokens": 50,
    "input_token_details": {"text_tokens": 20, "audio_tokens": 80, "cached_tokens": 10},
    "output_token_details": {"text_tokens": 15, "audio_tokens": 35},
}

Socket = web.WebSocketResponse[bool]
Script = Callable[[Socket], Awaitable[None]]


def event(type_: str, **fields: Any) -> str:
    return json.dumps({"type": type_, "event_id": "event_1", **fields})


async def echo(socket: Socket) -> None:
    """Greets, repeats what comes, and answers `response.create` as OpenAI does, with its usage."""
    await socket.send_str(event("session.created", session={"model": "gpt-realtime-2.1-2026-10-01"}))
    async for message in socket:
        if message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)
        elif '"response.create"' in message.data[:200]:
            await socket.send_str(event("response.output_text.delta", delta="Hello"))
            await socket.send_str(event("response.done", response={"status": "completed", "usage": USAGE}))
        else:
            await socket.send_str(message.data)


class Far:
    """The running provider. `asked` are the handshakes it got, `ended` is when its sessions ended and with which code."""

    def __init__(self, script: Script, refuse: Callable[[web.Request], web.Response | None] | None) -> None:
        self._script, self._refuse = script, refuse
        self.port = 0
        self.asked: list[web.Request] = []
        self.ended: list[tuple[float, int | None]] = []
        self.open = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if not request.path.endswith("/realtime"):
            return web.Response(status=404)  # its list of models
        self.asked.append(request)
        if self._refuse is not None and (refusal := self._refuse(request)) is not None:
            return refusal
        socket = web.WebSocketResponse(max_msg_size=32 * 2**20, heartbeat=None, timeout=0.5)
        socket.headers["x-request-id"] = "req_far"
        await socket.prepare(request)
        self.open += 1
        try:
            await self._script(socket)
        except ConnectionError:
            pass
        finally:
            self.open -= 1
            self.ended.append((asyncio.get_running_loop().time(), socket.close_code))
        return socket


@asynccontextmanager
async def provider(
    script: Script = echo,
    *,
    refuse: Callable[[web.Request], web.Response | None] | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Far]:
    """A provider on a free port. *refuse* may answer a handshake with something else."""
    far = Far(script, refuse)
    application = web.Application()
    application.router.add_get("/{path:.*}", far.answer)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    far.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    try:
        yield far
    finally:
        await runner.cleanup()
