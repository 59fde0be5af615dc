"""A provider that misbehaves as it is told: raw sockets, one script for each name in the first step of the path.

The server runs in a thread of its own, so that plain tests can ask the gateway while it plays. `http://127.0.0.1:PORT/NAME/v1`
is the base URL whose requests play the script NAME; each request plays it once, with its number (0, 1, ...) on that name.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Self

from tests.loopback import Peer, Request

Script = Callable[[Peer, Request, int], Awaitable[None]]


class Seen(NamedTuple):
    """A request that arrived: when (monotonic), and on which connection."""

    request: Request
    at: float
    connection: int

    @property
    def json(self) -> Any:
        return json.loads(self.request.body)

    @property
    def key(self) -> str:
        fields = self.request.headers
        return (fields.get(b"authorization", b"").removeprefix(b"Bearer ") or fields.get(b"x-api-key", b"")).decode()


class FarSide:
    """Use it as a context manager. `scripts` may change while it runs."""

    def __init__(self) -> None:
        self.scripts: dict[str, Script] = {}
        self.seen: dict[str, list[Seen]] = defaultdict(list)
        self.closed: dict[str, list[float]] = defaultdict(list)
        """When the gateway closed a connection whose last request was for that name."""
        self.failures: list[BaseException] = []
        self.port = 0
        self._connections = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(5)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(10)
        self._loop.close()
        if self.failures:
            raise self.failures[0]

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{name}/v1"

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        tasks: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._connections += 1
            task = self._loop.create_task(self._play(Peer(reader, writer), self._connections))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=2**20, backlog=512)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._ended.wait()
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.02)

    async def _play(self, peer: Peer, connection: int) -> None:
        name = ""
        try:
            while True:
                request = await peer.request()
                name = request.line.split(b"/", 2)[1].split(b" ")[0].decode()
                self.seen[name].append(Seen(request, time.monotonic(), connection))
                await self.scripts[name](peer, request, len(self.seen[name]) - 1)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.closed[name].append(time.monotonic())
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - shown at the end
            self.failures.append(error)
        finally:
            peer.writer.close()


# --- answers ---------------------------------------------------------------------------------------------------------------


def answer(status: int, body: bytes | dict[str, Any], *fields: str, kind: str = "application/json") -> bytes:
    """A whole answer with a length."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = "".join(f"{field}\r\n" for field in (f"content-type: {kind}", *fields))
    return f"HTTP/1.1 {status} X\r\n{lines}content-length: {len(data)}\r\n\r\n".encode() + data


def plays(*answers: bytes) -> Script:
    """The first request gets the first answer, and so on; the last one is repeated."""

    async def script(peer: Peer, request: Request, number: int) -> None:
        await peer.send(answers[min(number, len(answers) - 1)])

    return script


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"

END = b"0\r\n\r\n"


def completion(text: str = "fine", model: str = "m", usage: dict[str, Any] | None = None) -> dict[str, Any]:
    """A chat completion as OpenAI answers it."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": usage or {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }


def delta(text: str, **more: Any) -> bytes:
    """One event of a chat stream."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return (
        b"data: "
        + json.dumps({"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice]} | more).encode()
        + b"\n\n"
    )


def stream(*events: bytes) -> bytes:
    """A whole event stream."""
    return STREAM_HEAD + b"".join(chunk(event) for event in events) + END


USAGE = b'data: {"id":"c","model":"m","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}\n\n'

DONE = b"data: [DONE]\n\n"


# --- configs ---------------------------------------------------------------------------------------------------------------

OPENAI, ANTHROPIC = "openai-compatible", "anthropic"


def provider(name: str, url: str, settings: str = "", keys: int = 1, kind: str = OPENAI) -> str:
    """The config's table of a provider at *url*, with *keys* keys of its own ("far.NAME.NUMBER...")."""
    secrets = json.dumps([f"far.{name}.{number}.0123456789abcdef" for number in range(1, keys + 1)])
    lines = [f'[providers."{name}"]', f'kind = "{kind}"', f'base_url = "{url}"', f"keys = {secrets}", "list_models = false"]
    return "\n".join([*lines, settings, ""])


def route(name: str, *, target: str = "", fallback: str = "", more: str = "") -> str:
    """The config's table that makes *name* a model of *target* (else of the provider of that name), asked for as "m"."""
    lines = [f'[routes."{name}"]', f'targets = [{{provider = "{target or name}", model = "m"}}]']
    lines += [f'fallback = [{{provider = "{fallback}"}}]'] * bool(fallback)
    return "\n".join([*lines, more, ""])
