"""What a head may say, read by aiohttp's own parser."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser, RawRequestMessage

from aigw.server import heads


def read(text: str) -> RawRequestMessage:
    loop = asyncio.new_event_loop()
    try:
        parser = HttpRequestParser(BaseProtocol(loop), loop, 65536)
        messages, _, _ = parser.feed_data(text.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        return messages[0][0]
    finally:
        loop.close()


@pytest.mark.parametrize(
    "text",
    [
        "GET / HTTP/1.1\nhost: x",
        "GET / HTTP/1.0",
        "GET / HTTP/1.1\nhost:",
        "GET / HTTP/1.1\nhost: [::1]:8080",
        "GET / HTTP/1.1\nhost: a_b.example:80",
        "OPTIONS * HTTP/1.1\nhost: x",
        "GET http://X:80/a HTTP/1.1\nhost: x:80",
        "POST / HTTP/1.1\nhost: x\nexpect: 100-Continue\ncontent-length: 0",
        "POST / HTTP/1.0\nexpect: miracles\ncontent-length: 0",
        "GET / HTTP/1.1\nhost: x\nconnection: upgrade\nupgrade: h2c",
        "GET / HTTP/1.1\nhost: x\nupgrade: websocket",
    ],
)
def test_welcome(text: str) -> None:
    """Ordinary heads, and odd ones that RFC 9110 and 9112 want served."""
    assert heads.objection(read(text)) is None


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("GET / HTTP/2.0\nhost: x", 505),
        ("TRACE / HTTP/1.1\nhost: x", 405),
        ("CONNECT x:1 HTTP/1.1\nhost: x:1", 405),
        ("GET / HTTP/1.1\nhost: x/y", 400),
        ("GET / HTTP/1.1\nhost: user@x", 400),
        ("GET http://y/ HTTP/1.1\nhost: x", 421),
        ("GET https://x/ HTTP/1.1\nhost: x", 421),
        ("GET http://x@y/ HTTP/1.1\nhost: x", 421),
        ("POST / HTTP/1.0\ntransfer-encoding: chunked", 400),
        ("GET / HTTP/1.1\nhost: x\nconnection: upgrade\nupgrade: websocket", 400),
    ],
)
def test_refused(text: str, status: int) -> None:
    """Another protocol, another server, two readings: said without a word of the request."""
    error = heads.objection(read(text))
    assert error is not None
    assert error.status == status
    assert "y" not in error.message.split()


@pytest.mark.parametrize(
    ("target", "path"),
    [("http://x/a/b?c=d", "/a/b?c=d"), ("http://x", "/"), ("http://x?c", "/?c"), ("/a", "/a"), ("http://x//a", "//a")],
)
def test_in_origin_form(target: str, path: str) -> None:
    """The path of a whole URL is what is served; a path stays the very message it was."""
    message = read(f"GET {target} HTTP/1.1\nhost: x")
    served = heads.in_origin_form(message)
    assert served.path == path
    assert (served is message) == target.startswith("/")
    assert not served.url.absolute
