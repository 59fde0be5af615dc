"""The provider that every contestant talks to: answers like OpenAI (at `/v1/messages` like Anthropic), from memory, cheaply
enough never to be the bottleneck.

    python -m bench.upstream PORT [INTERVAL]

INTERVAL is the pause between two events of a stream, in seconds (0.02). `max_tokens` of the request is the number of
content events; `stream_options.include_usage` is honoured; a body of any size is swallowed without being kept.
Any other path answers, so that no contestant needs a special one; `GET` lists one model.
"""

from __future__ import annotations

import asyncio
import functools
import re
import sys
from typing import cast

import uvloop

from bench import wire

_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_bench\r\ncontent-length: %d\r\n\r\n%b" % (
    len(wire.ANSWER),
    wire.ANSWER,
)
_MESSAGE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nrequest-id: req_bench\r\ncontent-length: %d\r\n\r\n%b" % (
    len(wire.MESSAGE),
    wire.MESSAGE,
)
_MODELS = b'{"object":"list","data":[{"id":"gpt-bench-1","object":"model","created":1760000000,"owned_by":"bench"}]}'
_MODEL_LIST = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(_MODELS), _MODELS)
_REFUSED = b"HTTP/1.1 411 Length Required\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STREAM = re.compile(rb'"stream": *true')
_CHUNKS = re.compile(rb'"max_(?:completion_)?tokens": *(\d+)')
_USAGE = re.compile(rb'"include_usage": *true')
_EDGE = 4096  # of a large body only both ends are looked at


def _frame(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@functools.cache
def _frames(chunks: int, usage: bool, messages: bool) -> list[bytes]:
    """The writes of one stream: its head travels with the first event, its end with the last."""
    if messages:
        frames = [_frame(wire.message_event(number)) for number in range(chunks)]
        frames[0] = _STREAM_HEAD + _frame(wire.MESSAGE_START) + frames[0]
        return [*frames, _frame(wire.MESSAGE_END) + b"0\r\n\r\n"]
    events = [wire.content_event(number) for number in range(chunks)] + [wire.FINISH_EVENT]
    if usage:
        events.append(wire.USAGE_EVENT)
    events.append(wire.DONE_EVENT)
    frames = [_frame(event) for event in events]
    frames[0] = _STREAM_HEAD + frames[0]
    # finish, usage and [DONE] leave in one segment, as they do at real providers
    return [*frames[:chunks], b"".join(frames[chunks:]) + b"0\r\n\r\n"]


class Caller(asyncio.Protocol):
    """One connection: reads requests, writes answers and streams."""

    def __init__(self, loop: asyncio.AbstractEventLoop, interval: float) -> None:
        self.loop, self.interval = loop, interval
        self.transport: asyncio.Transport
        self.buffer = b""
        self.messages = False  # asked at Anthropic's path
        self.edge = b""  # the first bytes of a body that is being swallowed
        self.missing = 0  # bytes of that body still to come
        self.frames: list[bytes] = []
        self.sent = 0
        self.next_at = 0.0
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop derives its own from none of asyncio's

    def connection_lost(self, exc: BaseException | None) -> None:
        if self.timer:
            self.timer.cancel()

    def data_received(self, data: bytes) -> None:
        if self.missing:
            if len(data) < self.missing:
                self.missing -= len(data)
                return
            body = self.edge + data[: self.missing][-_EDGE:]
            data, self.missing = data[self.missing :], 0
            self.answer(body)
        if self.buffer:
            data = self.buffer + data
        while data:
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                break
            if data.startswith(b"GET"):
                self.transport.write(_MODEL_LIST)
                data = data[end:]
                continue
            found = _LENGTH.search(data, 0, end)
            if found is None:
                self.transport.write(_REFUSED)
                self.transport.close()
                return
            self.messages = data.startswith(b"POST /v1/messages")
            length = int(found[1])
            if len(data) - end < length:
                if length > 2 * _EDGE:
                    self.edge, self.missing, data = data[end : end + _EDGE], length - (len(data) - end), b""
                break
            self.answer(data[end : end + length])
            data = data[end + length :]
        self.buffer = data

    def answer(self, body: bytes) -> None:
        if b'"stream"' not in body or not _STREAM.search(body):
            self.transport.write(_MESSAGE if self.messages else _ANSWER)
            return
        chunks = _CHUNKS.search(body)
        self.frames = _frames(int(chunks[1]) if chunks else 200, _USAGE.search(body) is not None, self.messages)
        self.sent, self.next_at = 0, self.loop.time()
        self.send_event()

    def send_event(self) -> None:
        """Events keep the schedule of their stream: one that is late does not delay those behind it."""
        self.transport.write(self.frames[self.sent])
        self.sent += 1
        self.next_at += self.interval
        self.timer = self.loop.call_at(self.next_at, self.send_event) if self.sent < len(self.frames) else None


async def serve(port: int, interval: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Caller(loop, interval), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.02))
