"""What a provider, or the network on the way, may do to a good answer: delay it, stall it at byte N, reset or close it there,
split, corrupt or throttle it, never end it. Each fault makes a far side's script from the answer's bytes."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple

from tests.loopback import Peer, Request

Script = Callable[[Peer, Request, int], Awaitable[None]]

MOST = 512 * 1024 * 1024
"""Bytes after which what is endless gives up: no test may pass because the far side never stopped."""


async def _hold(peer: Peer) -> None:
    """Until the gateway goes."""
    await peer.gone()
    raise ConnectionResetError


def plays(*blocks: bytes, pause: float = 0.0) -> Script:
    """Blocks one after the other, and then the next request."""

    async def script(peer: Peer, request: Request, number: int) -> None:
        for block in blocks:
            await peer.send(block, pause)

    return script


def delay(wire: bytes, seconds: float) -> Script:
    async def script(peer: Peer, request: Request, number: int) -> None:
        await asyncio.sleep(seconds)
        await peer.send(wire)

    return script


def stall_at(wire: bytes, at: int) -> Script:
    """The first *at* bytes, then silence for as long as the gateway stays."""

    async def script(peer: Peer, request: Request, number: int) -> None:
        if at:
            await peer.send(wire[:at])
        await _hold(peer)

    return script


def close_at(wire: bytes, at: int) -> Script:
    async def script(peer: Peer, request: Request, number: int) -> None:
        await peer.send(wire[:at])
        peer.close()
        raise ConnectionResetError

    return script


def reset_at(wire: bytes, at: int) -> Script:
    async def script(peer: Peer, request: Request, number: int) -> None:
        if at:
            await peer.send(wire[:at], 0.05)  # time for it to be read: a reset throws away what is on its way
        peer.reset()
        raise ConnectionResetError

    return script


def split(wire: bytes) -> Script:
    """Each byte in a segment of its own."""
    return plays(*(bytes([byte]) for byte in wire))


def drip(wire: bytes, pause: float) -> Script:
    """One byte at a time."""
    return plays(*(bytes([byte]) for byte in wire), pause=pause)


def throttled(wire: bytes, rate: int) -> Script:
    """*rate* bytes a second, in twenty portions a second."""
    step = max(rate // 20, 1)
    return plays(*(wire[at : at + step] for at in range(0, len(wire), step)), pause=0.05)


def corrupt(wire: bytes, at: int, byte: int = 0xFF) -> Script:
    """One byte is another."""
    return then_holds(wire[:at] + bytes([byte]) + wire[at + 1 :])


def garbage(size: int, seed: int = 1) -> Script:
    return then_holds(random.Random(seed).randbytes(size))


def then_holds(wire: bytes) -> Script:
    """All of it, and the connection stays open."""
    return stall_at(wire, len(wire))


def endless(begin: bytes, block: bytes, pause: float = 0.0) -> Script:
    """*block* again and again until the gateway goes; an AssertionError when it never does."""

    async def script(peer: Peer, request: Request, number: int) -> None:
        await peer.send(begin)
        sent = 0
        while sent < MOST:
            await peer.send(block, pause)
            sent += len(block)
            if peer.reader.at_eof():
                raise ConnectionResetError
        raise AssertionError(f"the gateway took {sent} bytes and still wanted more")

    return script


def only_marked(fault: Script, good: Script, mark: bytes = b'"user": "fault"') -> Script:
    """*fault* for requests that ask for it, *good* for the others: so that one provider shows what a fault leaves behind."""

    async def script(peer: Peer, request: Request, number: int) -> None:
        await (fault if mark in request.body else good)(peer, request, number)

    return script


# --- good answers ------------------------------------------------------------------------------------------------------------


class Good(NamedTuple):
    """A good answer and where things stand in it. `begun` is behind its first content, `inside` in the middle of an event or of
    the object."""

    head: bytes
    body: bytes
    begun: int
    inside: int
    streaming: bool
    anthropic: bool

    @property
    def wire(self) -> bytes:
        return self.head + self.body

    @property
    def body_at(self) -> int:
        return len(self.head)

    def with_head(self, *fields: bytes, line: bytes = b"HTTP/1.1 200 OK") -> bytes:
        """The same with more fields in its head."""
        _, _, rest = self.head.partition(b"\r\n")
        return line + b"\r\n" + b"".join(field + b"\r\n" for field in fields) + rest + self.body


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
JSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
END = b"0\r\n\r\n"


def _encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def whole(value: bytes | dict[str, Any], anthropic: bool) -> Good:
    body = value if isinstance(value, bytes) else _encoded(value)
    head = JSON_HEAD % len(body)
    middle = len(head) + len(body) // 2
    return Good(head, body, middle, middle, False, anthropic)


def streamed(events: Iterable[bytes], anthropic: bool) -> Good:
    """A stream of at least three events."""
    chunks = [chunk(event) for event in events]
    begun = len(STREAM_HEAD) + sum(map(len, chunks[:3]))
    return Good(STREAM_HEAD, b"".join(chunks) + END, begun, begun + 12, True, anthropic)


def event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: ".encode() + _encoded({"type": kind} | fields) + b"\n\n"


def delta(text: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return b"data: " + _encoded({"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}) + b"\n\n"


COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "fine"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
}

MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "fine"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 7, "output_tokens": 3},
}

USAGE = b'data: {"id":"c","model":"m","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}\n\n'
DONE = b"data: [DONE]\n\n"
CHAT_EVENTS = (delta("one "), delta("two "), delta("three"), delta("four", "stop"), USAGE, DONE)
MESSAGE_EVENTS = (
    event(
        "message_start",
        message=MESSAGE | {"content": [], "stop_reason": None, "usage": {"input_tokens": 7, "output_tokens": 1}},
    ),
    event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    event("content_block_delta", index=0, delta={"type": "text_delta", "text": "one "}),
    event("content_block_delta", index=0, delta={"type": "text_delta", "text": "two"}),
    event("content_block_stop", index=0),
    event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 3}),
    event("message_stop"),
)

GOOD = {
    "chat": whole(COMPLETION, anthropic=False),
    "chat-stream": streamed(CHAT_EVENTS, anthropic=False),
    "messages": whole(MESSAGE, anthropic=True),
    "messages-stream": streamed(MESSAGE_EVENTS, anthropic=True),
}
"""A good answer of each dialect, whole and streamed."""
