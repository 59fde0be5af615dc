"""A head that is known again: never taken for it what aiohttp's own parser reads differently."""

from __future__ import annotations

import asyncio
import functools

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser, RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError

from aigw.server.repeat import learn
from tests.fuzz.inputs import bent, corpus, dice, fuzzed

WORDS = [
    b"POST /v1/chat/completions HTTP/1.1\r\n",
    b"Content-Length: 4\r\n",
    b"content-length: 0\r\n",
    b"Content-Length: 04\r\n",
]
WORDS += [
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Encoding: gzip\r\n",
    b"Connection: close\r\n",
    b"Expect: 100-continue\r\n",
]
WORDS += [
    b"\r\n\r\n",
    b"\r\n",
    b"%d",
    b"%",
    b"X: content-length: 9\r\n",
    b"Upgrade: websocket\r\nConnection: upgrade\r\n",
    b"HTTP/1.0",
]
WORDS += [
    b"GET",
    b":",
    b" ",
    b"\t",
    b"{}",
    b"0",
    b"1",
    b"9",
    b"abcd",
    b"\x00",
    b"\xff",
    b"host: gateway\r\n",
    b"\n",
    b"content-length:4",
]


@functools.cache
def loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def read(block: bytes) -> tuple[RawRequestMessage, bytes] | None:
    """The one whole request that *block* is to aiohttp; None when it is anything else."""
    parser = HttpRequestParser(BaseProtocol(loop()), loop(), 65536, max_line_size=8190, max_headers=128, max_field_size=8190)
    try:
        messages, upgraded, tail = parser.feed_data(block)
    except (HttpProcessingError, ValueError):
        return None
    if len(messages) != 1 or upgraded or tail:
        return None
    message, payload = messages[0]
    if not payload.is_eof() or payload.exception() is not None:
        return None
    return message, b"".join(getattr(payload, "_buffer", ()))


@fuzzed("repeat", WORDS, 600)
def test_repeat(data: bytes) -> None:
    """Whatever was learnt from one block, a body is taken from another only when aiohttp finds that very body behind that very
    head."""
    first = read(data)
    if first is None:
        return
    repeat = learn(data, first[0])
    if repeat is None:
        return
    assert repeat.body_of(data) == first[1]
    chance = dice(data)
    head, _, body = data.partition(b"\r\n\r\n")
    others = [bent(chance, [data, *corpus("repeat")], WORDS) for _ in range(4)]
    others += [
        data.replace(b": %d" % len(body), b": %d" % (len(body) + 1)) + b"x",
        head + b"\r\n\r\n" + body + b"x",
        data + data,
    ]
    for other in others:
        taken = repeat.body_of(other)
        if taken is None:
            continue
        second = read(other)
        assert second is not None, other
        assert second[1] == taken
        for part in ("method", "path", "version", "should_close", "upgrade", "chunked", "compression"):
            assert getattr(second[0], part) == getattr(first[0], part)
        assert without_length(second[0]) == without_length(repeat.message)


def without_length(message: RawRequestMessage) -> list[tuple[bytes, bytes]]:
    return [pair for pair in message.raw_headers if pair[0].lower() != b"content-length"]
