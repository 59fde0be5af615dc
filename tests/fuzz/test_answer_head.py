"""A provider's answer as bytes: any bytes, in any pieces, end in an answer or an UpstreamError, the same for every cut; and
what we take for a whole answer is what h11 reads."""

from __future__ import annotations

import asyncio
import functools
from typing import NamedTuple, cast

import h11

from aigw.errors import UpstreamError
from aigw.exchange import Flow, Headers, Origin, Target, UpstreamRequest
from aigw.upstream.http import Connection, HttpTransport
from tests.fuzz.inputs import cut, dice, fuzzed

WORDS = [
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n",
]
WORDS += [
    b"HTTP/1.1 204 No\r\n",
    b"HTTP/1.1 304 No\r\n",
    b"HTTP/1.1 101 S\r\n",
    b"content-length: 2\r\n",
    b"content-length: 0\r\n",
]
WORDS += [
    b"Content-Length: 2\r\nContent-Length: 3\r\n",
    b"transfer-encoding: chunked\r\n",
    b"transfer-encoding: gzip\r\n",
    b"\r\n\r\n",
]
WORDS += [
    b"\r\n",
    b"\n",
    b"\r",
    b"2\r\n{}\r\n",
    b"0\r\n\r\n",
    b"0\r\nx-trailer: 1\r\n\r\n",
    b"ffffffffffffffff\r\n",
    b"2;ext=1\r\n",
]
WORDS += [
    b"connection: close\r\n",
    b"connection: keep-alive\r\n",
    b" folded\r\n",
    b"\x00",
    b"\xff",
    b":",
    b"\t",
    b"upgrade: h2c\r\n",
]

ORIGIN = Origin("http", "127.0.0.1", 1)
TARGET = Target("POST", ORIGIN, "/v1", {})


class Wire(asyncio.Transport):
    """A transport that goes nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.closing = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Kept:
    """A receiver."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: Headers = []
        self.body = b""

    def head(self, status: int, headers: Headers, flow: Flow) -> None:
        assert not self.status, "a second head"
        self.status, self.headers = status, headers

    def feed(self, block: bytes) -> None:
        assert self.status, "a body before its head"
        self.body += block


class Outcome(NamedTuple):
    error: str  # the code, "" for a whole answer, "-" while more is waited for
    reusable: bool
    status: int
    headers: Headers
    body: bytes


@functools.cache
def loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def read(pieces: list[bytes], *, closes: bool) -> Outcome:
    pool = HttpTransport()
    connection = Connection(pool, ORIGIN, loop())
    connection.connection_made(cast("asyncio.Transport", Wire()))
    kept = Kept()
    waiter = connection.begin(UpstreamRequest(TARGET, b"{}"), kept)
    released: list[Connection] = []
    pool.release = released.append  # type: ignore[method-assign]
    for piece in pieces:
        if connection.closed:
            break
        connection.data_received(piece)
    if closes and not connection.closed:
        connection.connection_lost(None)
    reusable = bool(released) and connection.usable
    if not waiter.done():
        assert not closes
        return Outcome("-", reusable, kept.status, kept.headers, kept.body)
    error = waiter.exception()
    assert error is None or isinstance(error, UpstreamError), error
    return Outcome(error.code if error else "", reusable, kept.status, kept.headers, kept.body)


def second_opinion(data: bytes, *, closes: bool) -> Outcome | None:
    """h11's reading; None when it refuses, or finds the answer unfinished."""
    peer = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    peer.send(h11.Request(method="POST", target="/v1", headers=[("host", "x"), ("content-length", "2")]))
    peer.send(h11.Data(b"{}"))
    peer.send(h11.EndOfMessage())
    status, headers, body = 0, [], b""
    try:
        peer.receive_data(data)
        if closes:
            peer.receive_data(b"")
        while True:
            event = peer.next_event()
            if isinstance(event, h11.Response):
                status, headers = event.status_code, [(bytes(name), bytes(value)) for name, value in event.headers]
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return Outcome("", False, status, headers, body)
            elif event in (h11.NEED_DATA, h11.PAUSED) or isinstance(event, h11.ConnectionClosed):
                return None
    except h11.RemoteProtocolError:
        return None


def only_lines_behind(data: bytes) -> bool:
    """Whether nothing but empty lines stands behind a whole answer. The parser skips them when they come along with it; when
    they come later the connection is closed. Either does no harm."""
    begin = len(data.rstrip(b"\r\n"))
    ends = range(begin, min(begin + 100, len(data)))
    return any(read([data[i : i + 1] for i in range(end)], closes=False).reusable for end in ends)


@fuzzed("answer_head", WORDS, 600)
def test_answer_head(data: bytes) -> None:
    """Whole, cut, and byte by byte; with and without the end of the connection."""
    chance = dice(data)
    ways = [list(cut(data, chance)), list(cut(data, chance, 40))]
    if len(data) < 300:
        ways.append([data[i : i + 1] for i in range(len(data))])
    for closes in (False, True):
        whole = read([data] if data else [], closes=closes)
        for pieces in ways:
            one = read(pieces, closes=closes)
            assert one.error == whole.error, (pieces, one, whole)
            assert one.reusable == whole.reusable or only_lines_behind(data), (pieces, one, whole)
            assert (one.status, one.headers, one.body) == (whole.status, whole.headers, whole.body), pieces
        theirs = second_opinion(data, closes=closes)
        if theirs is not None and not whole.error:
            assert (whole.status, whole.body) == (theirs.status, theirs.body)
            # white space behind a value is h11's to take off; ours goes on with it
            assert [(name, value.rstrip(b" \t")) for name, value in whole.headers] == theirs.headers
