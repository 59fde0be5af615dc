"""What hostile, broken and slow callers do, and what comes of it: one case after the other against a real server process.

    python -m tests.server.hostile_table      runs them and prints the table of docs/security.md

The numbers are those of the threat model's list. Where the design decides otherwise than the list, `why` says so.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import random
import re
import resource
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.data_port import request as _request
from tests.e2e.far_side import STREAM_HEAD, FarSide, answer, chunk, completion, delta, plays, provider
from tests.e2e.world import Gateway, eventually, parse, read_all
from tests.loopback import Peer, Request

CHAT = "/v1/chat/completions"
KEY = "hostile-consumer-key-0123456789abcdef"
SECRET = "sk-hostile-secret-0123456789"  # in what is malformed; nobody may repeat it
SETTINGS = """
head_timeout = 1
body_timeout = 1
body_rate = 4000
keep_alive = 1.5
stall_timeout = 1
max_body = 16777216
max_connections = 60
"""
BEARER = {"authorization": f"Bearer {KEY}"}
LAST = BEARER | {"connection": "close"}
HELLO = {"model": "demo", "messages": [{"role": "user", "content": "hello"}]}


class World:
    """The server under attack, and the provider behind it."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.far = stack.enter_context(FarSide())
        self.far.scripts = {
            "plain": plays(answer(200, completion())),
            "moved": plays(answer(302, {}, "location: http://127.0.0.1:9/")),
            "endless": endless,
            "silent": silent,
        }
        names = list(self.far.scripts)
        config = f'[providers.demo]\n[consumers.ci]\nkey = "{KEY}"\n[log]\nlevel = "debug"\nexchanges = "all"\n'
        config += "[auth]\nfailures_per_minute = 100000\n"
        config += "".join(provider(name, self.far.url(name)) for name in names)
        self.gateway = Gateway(folder / "gateway", config, server=SETTINGS)
        stack.callback(self.gateway.close)
        self.gateway.start()
        self.gateway.key = KEY
        self.folder, self.stack = folder, stack
        for _ in range(2):
            assert self.good()
        assert self.gateway.ask(HELLO | {"model": "plain/m"}).status == 200
        time.sleep(0.2)
        self.files = self.open_files()

    def good(self) -> bool:
        """Whether a well-behaved caller is served."""
        return self.gateway.ask(HELLO).status == 200

    def good_if_room(self) -> bool:
        """The same, when a connection may be refused or cut."""
        try:
            return self.good()
        except OSError:
            return False

    def open_files(self) -> int:
        return len(list(Path(f"/proc/{self.gateway.process.pid}/fd").iterdir()))

    def memory(self) -> int:
        """Resident bytes."""
        return int(Path(f"/proc/{self.gateway.process.pid}/statm").read_text().split()[1]) * resource.getpagesize()

    def statuses(self, data: bytes, timeout: float = 6.0) -> str:
        """All that is answered to *data*: "200, 400, closed"."""
        began = time.monotonic()
        received = self.gateway.exchange(data, timeout=timeout)
        assert SECRET.encode() not in received
        assert b"Traceback" not in received
        answers = list(parse(received))
        for one in answers:
            if one.status >= 400:
                assert one.error.get("aigw_code", "").partition("_")[0] in ("caller", "policy", "gateway", "provider"), one
                assert one.id.startswith("req_")
        closed = time.monotonic() - began < timeout
        return ", ".join([*(str(one.status) for one in answers), "closed" if closed else "open"])

    def begin(self, model: str, **more: Any) -> socket.socket:
        """A caller whose request for *model* is under way."""
        raw = self.gateway.connect()
        count = len(self.far.seen[model])
        raw.sendall(ask(HELLO | {"model": f"{model}/m"} | more, BEARER))
        eventually(lambda: len(self.far.seen[model]) > count)
        return raw

    def cancelled(self, model: str, act: Callable[[], None], within: float = 1.0) -> None:
        """*act* makes the provider's end of the newest request close within a second."""
        count = len(self.far.closed[model])
        act()
        eventually(lambda: len(self.far.closed[model]) > count, within)


async def endless(peer: Peer, request: Request, number: int) -> None:
    """Events as fast as they are taken."""
    await peer.send(STREAM_HEAD)
    event = chunk(delta("x" * 8000))
    while True:
        await peer.send(event)


async def silent(peer: Peer, request: Request, number: int) -> None:
    """Takes the request and says nothing, until the gateway hangs up."""
    await peer.reader.read()
    raise ConnectionError


def ask(body: object = HELLO, headers: dict[str, str] = LAST, path: str = CHAT, method: str = "POST") -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return _request(method, path, data, headers)


def head(*lines: str, first: str = f"POST {CHAT} HTTP/1.1", host: str = "host: x") -> bytes:
    """A head of just these lines, and the secret, which no answer may repeat."""
    fields = [host] if host else []
    return "\r\n".join([first, *fields, f"x-secret: {SECRET}", f"authorization: Bearer {KEY}", *lines, "", ""]).encode(
        "latin-1"
    )


class Case(NamedTuple):
    """One row. *play* does it and returns what came of it, which must be *expected*."""

    number: str
    what: str
    expected: str
    play: Callable[[World], str]
    why: str = ""

    @property
    def id(self) -> str:
        return f"{self.number} {self.what}"


CASES: list[Case] = []


def sends(number: str, what: str, expected: str, *data: bytes, why: str = "", timeout: float = 6.0) -> None:
    """Each of *data*, on a connection of its own, is answered as expected."""

    def play(world: World) -> str:
        found = [world.statuses(one, timeout) for one in data]
        return " / ".join(dict.fromkeys(found))

    CASES.append(Case(number, what, expected, play, why))


def case(number: str, what: str, expected: str, why: str = "") -> Callable[[Callable[[World], str]], Callable[[World], str]]:
    def take(play: Callable[[World], str]) -> Callable[[World], str]:
        CASES.append(Case(number, what, expected, play, why))
        return play

    return take


REFUSED = "400, closed"
CHUNKED = "transfer-encoding: chunked"
JSON = "content-type: application/json"
BODY = json.dumps(HELLO).encode()
FAR = BODY.replace(b"demo", b"plain/m")

# --- framing ---------------------------------------------------------------------------------------------------------------

sends(
    "1",
    "a length and chunks",
    REFUSED,
    head(JSON, "content-length: 2", CHUNKED) + b"0\r\n\r\n",
    head(CHUNKED, "content-length: 2"),
)
sends(
    "2",
    "lengths that are two, or none",
    REFUSED,
    *(head(f"content-length: {one}", "content-length: 2") for one in ("1", "2")),
    *(
        head(f"content-length: {one}") + b"{}"
        for one in ("2, 2", "+2", "-1", "0x2", "2_0", "1" * 21, "2 0", "٢".encode().decode("latin-1"))
    ),
)
sends(
    "3",
    "odd transfer encodings",
    REFUSED,
    *(
        head(f"transfer-encoding: {one}") + b"0\r\n\r\n"
        for one in ("xchunked", "chunked, identity", "identity", "chunked, chunked", "\x0bchunked")
    ),
    head(CHUNKED, CHUNKED) + b"0\r\n\r\n",
    head("transfer-encoding : chunked") + b"0\r\n\r\n",
    head(CHUNKED, first=f"POST {CHAT} HTTP/1.0") + b"0\r\n\r\n",
)
sends(
    "4",
    "odd chunk sizes",
    REFUSED,
    *(
        head(JSON, CHUNKED) + one
        for one in (b"0x2\r\n{}\r\n", b"1" * 17 + b"\r\n", b"-2\r\n{}\r\n", b"2\n{}\r\n0\r\n\r\n", b"2 \r\n{}\r\n", b"zz\r\n")
    ),
)
sends("5", "a chunk extension of 2 MB", REFUSED, head(JSON, CHUNKED) + b"2;" + b"a" * 2_000_000 + b"\r\n{}\r\n0\r\n\r\n")
sends(
    "6",
    "1 MB in chunks of one byte",
    "400, closed",
    head(JSON, CHUNKED, "connection: close") + b"1\r\nx\r\n" * 1_000_000 + b"0\r\n\r\n",
    why="read, found to be no JSON",
)
sends("7", "20,000 trailers", "431, closed", head(JSON, CHUNKED) + b"2\r\n{}\r\n0\r\n" + b"x-a: b\r\n" * 20_000 + b"\r\n")
sends(
    "8",
    "bare LF, bare CR, folded lines, NUL, odd names",
    REFUSED,
    head(JSON).replace(b"\r\n", b"\n"),
    head("x-a: b\rx-c: d"),
    head("x-a: b", " folded"),
    head("x-a: \x00"),
    head("x a: b"),
    head("x\xe4: b"),
    head(": b"),
    head("x-a"),
)
sends(
    "9",
    "no host, two hosts, a host that is a path",
    REFUSED,
    head(host=""),
    head("host: y"),
    *(head(host=f"host: {one}") for one in ("a/b", "a?c", "a#b", "a@b", "a b", "a\\b")),
)
sends(
    "10",
    "absolute form with another host",
    "421, closed",
    *(head(first=f"POST http://{one}{CHAT} HTTP/1.1") for one in ("evil.example", "x:1", "x@evil.example")),
)
sends(
    "10",
    "absolute form with this host",
    "200, closed",
    ask().replace(b"POST /", b"POST http://gateway/"),
    why="RFC 9112 wants it served",
)
sends("10", "CONNECT, TRACE", "405, closed", head(first="CONNECT x:443 HTTP/1.1"), head(first=f"TRACE {CHAT} HTTP/1.1"))
sends(
    "11",
    "100 KB of path, of a header; 10,000 headers",
    "431, closed",
    head(first=f"POST /{'a' * 100_000} HTTP/1.1"),
    head("x-a: " + "a" * 100_000),
    head(*["x-a: b"] * 10_000),
    why="431 also for the path: aiohttp does not say which it was",
)
sends(
    "12",
    "HTTP/2.0, HTTP/3.0, HTTP/1.2",
    "505, closed / 400, closed",
    *(head(first=f"POST {CHAT} HTTP/{one}") for one in ("2.0", "3.0", "1.2")),
    why="llhttp answers some of them as malformed",
)
sends(
    "12",
    "HTTP/0.9, HTTP/2's preface, TLS, 4 KB of noise",
    "505, closed / 400, closed",
    b"GET /\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    bytes.fromhex("16030100c8010000c40303") + b"\x00" * 200,
    random.Random(4).randbytes(4096),
)
sends(
    "13",
    "a websocket, and a request behind it",
    REFUSED,
    head("connection: Upgrade", "upgrade: websocket", "sec-websocket-key: x", "sec-websocket-version: 13") + ask(),
)
sends(
    "13",
    "an upgrade to h2c",
    "200, closed",
    ask(HELLO, BEARER | {"connection": "close, Upgrade", "upgrade": "h2c"}),
    why="may be overlooked (RFC 9110), and Java's client always asks",
)
sends("14", "Expect: nonsense", "417, closed", ask(HELLO, LAST | {"expect": "nonsense"}))


@case("15", "5,000 requests sent ahead", "closed, memory flat")
def pipelined(world: World) -> str:
    before = world.memory()
    with world.gateway.connect() as raw, contextlib.suppress(OSError):
        raw.sendall(ask(HELLO, BEARER) * 5000)
        read_all(raw)
    assert world.memory() - before < 16 * 2**20
    return "closed, memory flat"


sends(
    "16",
    "paths with %00, %ff, ..%2f, //, ..",
    "404, closed",
    *(
        ask(HELLO, path=one)
        for one in ("/v1/%00", "/v1/%ff", "/v1/..%2fadmin", "//evil.example/v1/x", "/v1/../admin", "/v1/chat%2fcompletions")
    ),
)

# --- slow and broken callers -----------------------------------------------------------------------------------------------


def drip(raw: socket.socket, data: bytes, size: int = 1, every: float = 0.05) -> None:
    """Until all is sent, or the server has had enough."""
    with contextlib.suppress(OSError):
        for start in range(0, len(data), size):
            raw.sendall(data[start : start + size])
            time.sleep(every)


def ended(raw: socket.socket, most: float) -> str:
    """What the server says at last, which must be within *most* seconds."""
    began = time.monotonic()
    raw.settimeout(most)
    data = read_all(raw)
    assert time.monotonic() - began < most, "still open"
    return ", ".join([*(str(one.status) for one in parse(data)), "closed"])


@case("17", "connects and says nothing", "closed after 1 s")
def mute(world: World) -> str:
    began = time.monotonic()
    with world.gateway.connect() as raw:
        assert ended(raw, 3) == "closed"
    assert 0.9 < time.monotonic() - began < 2
    return "closed after 1 s"


@case("18", "a slow head", "408, closed")
def slow_head(world: World) -> str:
    with world.gateway.connect() as raw:
        drip(raw, head()[:60])
        return ended(raw, 3)


@case("18", "half a head, on the second request of a connection", "408, closed")
def second_head(world: World) -> str:
    with world.gateway.connect() as raw:
        for _ in range(2):
            raw.sendall(ask(HELLO, BEARER))
            assert raw.recv(65536).startswith(b"HTTP/1.1 200")
        raw.sendall(ask(HELLO, BEARER)[:50])
        return ended(raw, 3)


@case("18", "idle after an answer", "closed after 1.5 s")
def idle(world: World) -> str:
    with world.gateway.connect() as raw:
        raw.sendall(ask(HELLO, BEARER))
        assert raw.recv(65536).startswith(b"HTTP/1.1 200")
        assert ended(raw, 3) == "closed"
    return "closed after 1.5 s"


@case("19", "half a body", "408, closed")
def half_body(world: World) -> str:
    with world.gateway.connect() as raw:
        raw.sendall(ask(HELLO, BEARER)[:-5])
        return ended(raw, 4)


@case("19", "a body of 200 bytes a second", "408, closed")
def slow_body(world: World) -> str:
    with world.gateway.connect() as raw:
        data = ask(HELLO | {"user": "x" * 2000}, BEARER)
        raw.sendall(data[:150])
        drip(raw, data[150:1000], 10)
        return ended(raw, 4)


@case("19", "a body that is slow, but steady, over three limits", "200, closed")
def steady_body(world: World) -> str:
    with world.gateway.connect() as raw:
        drip(raw, ask(HELLO | {"user": "x" * 24_000}), 400, 0.05)
        return ended(raw, 4)


@case("20", "asks for a stream and does not read", "closed after 1 s; the provider let go; memory flat")
def slow_reader(world: World) -> str:
    before = world.memory()
    raw = world.begin("endless", stream=True)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with raw:
        world.cancelled("endless", lambda: None, 6)
    assert world.memory() - before < 16 * 2**20
    return "closed after 1 s; the provider let go; memory flat"


def leaves(model: str, leave: Callable[[socket.socket], None], **more: Any) -> Callable[[World], str]:
    def play(world: World) -> str:
        count = len(world.gateway.records("outcome = 'client_closed'"))
        raw = world.begin(model, **more)
        if model == "endless":
            raw.recv(1000)
        world.cancelled(model, lambda: leave(raw))
        raw.close()
        eventually(lambda: len(world.gateway.records("outcome = 'client_closed'")) > count)
        return "the provider let go, recorded"

    return play


def reset(raw: socket.socket) -> None:
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.close()


GONE = "the provider let go, recorded"
case("21", "goes before the answer", GONE)(leaves("silent", socket.socket.close))
case("22", "goes in the middle of a stream", GONE)(leaves("endless", socket.socket.close, stream=True))
case("23", "resets", GONE)(leaves("silent", reset))
case("24", "closes its half", GONE, "half-closed is gone: nothing tells it from a caller that went")(
    leaves("silent", lambda raw: raw.shutdown(socket.SHUT_WR))
)


@case("25", "200 connections that say nothing, of 60 that may be", "the idle make room; served")
def many_idle(world: World) -> str:
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(world.gateway.connect())
        assert world.good()
        assert world.open_files() < world.files + 70
    return "the idle make room; served"


@case("25", "60 busy connections, and one more", "503 + retry-after, closed")
def many_busy(world: World) -> str:
    with ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(world.begin("silent"))
        (refused,) = parse(world.gateway.exchange(b"", timeout=3))
        assert refused.error["aigw_code"] == "gateway_overloaded"
        assert world.gateway.metrics()["aigw_connections_refused_total"] >= 1
        found = f"{refused.status} + {'retry-after' if 'retry-after' in refused.headers else 'nothing'}, closed"
    eventually(world.good_if_room)
    return found


@case("26", "no descriptors left", "accepts wait; served again")
def no_files(world: World) -> str:
    pid = world.gateway.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    try:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (world.open_files() + 5, before[1]))
        with ExitStack() as stack:
            for _ in range(40):
                stack.enter_context(world.gateway.connect())
            time.sleep(0.3)
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    eventually(world.good_if_room)
    return "accepts wait; served again"


sends("27", "announces a terabyte", "413, closed", head(JSON, "content-length: 1000000000000"))

# --- bodies ----------------------------------------------------------------------------------------------------------------

sends("28", "17 MB of 16, announced", "413, closed", head(JSON, "content-length: 17000000") + b"x" * 100_000)
sends("28", "17 MB of 16, in chunks", "413, closed", head(JSON, CHUNKED) + (b"10000\r\n" + b"x" * 65536 + b"\r\n") * 260)
BOMB = gzip.compress(b"x" * 10_000_000)
sends(
    "29",
    "compressed bodies, bombs",
    "415, closed",
    *(ask(BOMB, LAST | {"content-encoding": one}) for one in ("gzip", "deflate", "br", "zstd", "x-gzip")),
)
sends(
    "30",
    "no JSON, half of it, more than it, BOM, UTF-16",
    REFUSED,
    *(
        ask(one)
        for one in (
            b"hello",
            BODY[:-1],
            BODY + b"x",
            b"\xef\xbb\xbf" + BODY,
            BODY.decode().encode("utf-16"),
            b"[]",
            b"null",
            b'"x"',
        )
    ),
)
sends(
    "30",
    "invalid UTF-8 in the prompt",
    "200, closed",
    ask(FAR.replace(b"hello", b"\xff\xfe")),
    why="forwarded unchanged; the provider judges it",
)
sends("30", "half a surrogate pair in the prompt", REFUSED, ask(FAR.replace(b"hello", b"\\ud800")))
sends("31", "100,000 levels deep", REFUSED, ask(b'{"model":"demo","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}"))
sends("32", "model twice", REFUSED, ask(BODY[:-1] + b',"model":"x"}'), ask(b'{"model":"x",' + BODY[1:]))
sends("33", "Model, MODEL", REFUSED, ask(BODY.replace(b"model", b"Model")), ask(BODY.replace(b"model", b"MODEL")))
sends("33", "mode\\u006c", "200, closed", ask(BODY.replace(b"model", b"mode\\u006c")), why="JSON's own escape of the same name")
sends(
    "34",
    "NaN, Infinity, -",
    REFUSED,
    *(ask(BODY[:-1] + b',"n":' + one + b"}") for one in (b"NaN", b"Infinity", b"-", b"01", b"1.", b"+1")),
)
sends(
    "34",
    "1e400, huge and negative numbers",
    "200, closed",
    *(ask(FAR[:-1] + b',"n":' + one + b"}") for one in (b"1e400", b"9" * 10_000, b"18446744073686646784", b"-1")),
    why="forwarded unchanged",
)
sends(
    "35",
    "no model, null, a number, a list",
    REFUSED,
    ask({"messages": []}),
    *(ask(HELLO | {"model": one}) for one in (None, 5, [], {}, True, "")),
)
sends(
    "35",
    "models with ../, newline, ESC, bidi, 1 MB",
    "404, closed",
    *(
        ask(HELLO | {"model": one})
        for one in ("../x", "a\nb", "a\r\nx: y", "\x1b[2J", "\u202eabc", "x" * 1_000_000, "demo\x00")
    ),
)
sends(
    "36",
    "messages: none, 100,000, nested, null",
    "200, closed",
    *(ask(HELLO | {"model": "plain/m", "messages": one}) for one in ([], [HELLO["messages"][0]] * 100_000, [[[]]], None)),
    why="forwarded unchanged",
)
sends("37", 'stream: "yes"', REFUSED, *(ask(HELLO | {"stream": one}) for one in ("yes", 1, [])))
sends(
    "38",
    "other content types",
    "415, closed",
    *(
        ask(HELLO, LAST | {"content-type": one})
        for one in (
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=" + "b" * 7000,
            "application/jsonx",
        )
    ),
)
sends("39", "10 MB of picture", "200, closed", ask(HELLO | {"messages": [{"role": "user", "content": "A" * 10_000_000}]}))
sends(
    "40",
    "a tool whose pattern explodes",
    "200, closed",
    ask(
        HELLO
        | {
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"pattern": "^(a+)+$"}}}],
            "user": "a" * 50 + "!",
        }
    ),
)

# --- keys ------------------------------------------------------------------------------------------------------------------


def keyed(**headers: str) -> bytes:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ask(HELLO, {"connection": "close"} | named)


sends(
    "41",
    "no key, an empty one, Basic, in the query",
    "401, closed",
    keyed(),
    keyed(authorization="Bearer"),
    keyed(authorization="Bearer "),
    keyed(authorization="Basic " + KEY),
    ask(HELLO, {"connection": "close"}, path=f"{CHAT}?api_key={KEY}"),
)
sends("41", "two Authorization headers", REFUSED, head(f"authorization: Bearer {KEY}", "connection: close"))
sends(
    "42",
    "a key with quotes, percent signs, other bytes",
    "401, closed",
    *(keyed(authorization=f"Bearer {one}") for one in ("' OR 1=1 --", "%", "%s%n", "a\xff", "\\x00", "${jndi:ldap://x}")),
)
sends("42", "a key with NUL", REFUSED, keyed(authorization="Bearer x\x00"))
sends("42", "a key of 1 MB", "431, closed", keyed(authorization="Bearer " + "k" * 1_000_000))
sends(
    "43",
    "parts of a key, or more than one",
    "401, closed",
    *(
        keyed(authorization=f"Bearer {one}")
        for one in (KEY[:-1], KEY[1:], KEY + "x", KEY[:20] + "x" * (len(KEY) - 20), KEY.upper())
    ),
)


@case("45", "a revoked key", "200, then 401 within 2 s")
def revoked(world: World) -> str:
    made = world.gateway.create_key("hostile")
    key = made["key"]
    eventually(lambda: world.gateway.ask(HELLO, key=key).status == 200, 3)
    assert world.gateway.aigw("keys", "revoke", made.get("id") or "hostile", "--yes").returncode == 0
    eventually(lambda: world.gateway.ask(HELLO, key=key).status == 401, 2)
    return "200, then 401 within 2 s"


@case("48", "cookies, forwarding and hop-by-hop headers, its key", "none of them reaches the provider")
def headers_stay(world: World) -> str:
    odd = {
        "cookie": "a=b",
        "x-forwarded-for": "1.2.3.4",
        "x-forwarded-host": "evil",
        "forwarded": "for=1",
        "te": "trailers",
        "proxy-authorization": "Basic x",
        "x-real-ip": "1.2.3.4",
    }
    assert world.gateway.ask(HELLO | {"model": "plain/m"}, headers=odd | {"x-api-key": KEY}).status == 200
    sent = world.far.seen["plain"][-1].request
    assert not {name.encode() for name in odd} & set(sent.headers)
    assert KEY.encode() not in b"".join([*sent.headers, *sent.headers.values()])
    assert sent.headers[b"host"] == f"127.0.0.1:{world.far.port}".encode()
    return "none of them reaches the provider"


@case(
    "49",
    "a rebound name, a web page; keyless mode",
    "421, 403; local names 200",
    "Host and Origin are checked there and on the admin port: behind a key any name is served",
)
def rebound(world: World) -> str:
    other = Gateway(world.folder / "keyless", "[providers.demo]\n[auth]\nrequired = false\n", server=SETTINGS)
    with contextlib.closing(other.start()):
        codes = []
        for more in ({"host": "evil.example"}, {"origin": "https://evil.example"}, {"origin": "null"}):
            found = {other.ask(HELLO, headers=more).status, other.ask(None, "/v1/models", method="GET", headers=more).status}
            assert len(found) == 1
            codes.append(str(*found))
        for more in (
            {},
            {"host": "localhost:1"},
            {"host": "[::1]"},
            {"host": "host.docker.internal"},
            {"origin": "http://localhost:3000"},
        ):
            assert other.ask(HELLO, headers=more).status == 200, more
    return ", ".join(dict.fromkeys(codes)) + "; local names 200"


@case("50", "a CORS preflight", "405, nothing is allowed")
def preflight(world: World) -> str:
    asks = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    found = world.gateway.ask(None, method="OPTIONS", headers=asks)
    assert not [name for name in found.headers if name.startswith("access-control")]
    return f"{found.status}, nothing is allowed"


# --- what a request would like fetched, injected, or shown --------------------------------------------------------------------

PLACES = (
    "http://169.254.169.254/",
    "http://0.0.0.0/",
    "http://[::ffff:127.0.0.1]/",
    "http://127.1/",
    "http://0x7f000001/",
    "file:///etc/passwd",
    "gopher://x/",
)


@case("51", "api_base, base_url, user_config, extra_headers in the body", "the configured provider only, bytes unchanged")
def elsewhere(world: World) -> str:
    body = HELLO | {
        "model": "plain/m",
        "api_base": "http://127.0.0.1:9",
        "base_url": "http://127.0.0.1:9",
        "user_config": {"url": "http://127.0.0.1:9"},
        "extra_headers": {"x": "y"},
    }
    assert world.gateway.ask(body, headers={"x-portkey-custom-host": "http://127.0.0.1:9"}).status == 200
    assert world.far.seen["plain"][-1].json == body | {"model": "m"}
    assert b"x-portkey-custom-host" not in world.far.seen["plain"][-1].request.headers
    return "the configured provider only, bytes unchanged"


@case("52", "the provider answers with a redirect", "502, not followed")
def moved(world: World) -> str:
    return f"{world.gateway.ask(HELLO | {'model': 'moved/m'}).status}, not followed"


@case("53", "pictures at inner addresses", "one request each, to the provider; nothing fetched")
def pictures(world: World) -> str:
    before = len(world.far.seen["plain"])
    for place in PLACES:
        content = [{"type": "image_url", "image_url": {"url": place}}]
        assert world.gateway.ask({"model": "plain/m", "messages": [{"role": "user", "content": content}]}).status == 200
    assert len(world.far.seen["plain"]) == before + len(PLACES)
    return "one request each, to the provider; nothing fetched"


@case("54", "CR LF in a model's name", "no header of the caller's making, on either side")
def injected(world: World) -> str:
    found = world.gateway.ask(HELLO | {"model": "plain/m\r\nx-evil: 1"})
    assert "x-evil" not in found.headers
    assert b"x-evil" not in world.far.seen["plain"][-1].request.headers
    return "no header of the caller's making, on either side"


@case("55", "configs with file://, or a password in the URL", "refused, exit 2")
def odd_config(world: World) -> str:
    for url in ("file:///etc/passwd", "http://user:s3cr3t@127.0.0.1:1/v1", "gopher://127.0.0.1/"):
        path = world.folder / "odd.toml"
        path.write_text(f'[providers.x]\nkind = "openai-compatible"\nbase_url = "{url}"\n')
        path.chmod(0o600)
        done = world.gateway.aigw("config", "check", str(path))
        assert done.returncode == 2, (url, done.stderr)
        assert "s3cr3t" not in done.stdout + done.stderr
    return "refused, exit 2"


@case("56", "templates in a prompt", "bytes unchanged")
def templates(world: World) -> str:
    body = ask({"model": "plain/m", "messages": [{"role": "user", "content": "{{7*7}} ${jndi:ldap://x} __import__('os') %s"}]})
    assert "200" in world.statuses(body)
    sent = world.far.seen["plain"][-1].request.body
    assert sent == body.partition(b"\r\n\r\n")[2].replace(b'"plain/m"', b'"m"')
    return "bytes unchanged"


@case("57", "ESC, OSC, markup, bidi in names that stats shows", "escaped")
def shown(world: World) -> str:
    for name in ("\x1b[2Jx", "\x1b]8;;http://x\x07y", "[red]z", "\u202eabc"):
        world.gateway.ask(HELLO | {"model": f"plain/{name}"})
    time.sleep(1.2)  # the journal's records reach the store
    done = world.gateway.aigw("stats", "--by", "model")
    assert done.returncode == 0, done.stderr
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", done.stdout)
    return "escaped"


@case("58", "newlines in a model, a user, a user agent", "one log line each")
def one_line(world: World) -> str:
    before = len(world.gateway.lines)
    world.gateway.ask(HELLO | {"model": "evil\nERROR forged", "user": "a\nERROR forged"})
    time.sleep(0.1)
    assert not [line for line in world.gateway.lines[before:] if line.startswith("ERROR forged")]
    return "one log line each"


@case("59", "a CSV cell that begins with =", "quoted")
def csv_cell(world: World) -> str:
    world.gateway.ask(HELLO | {"model": "plain/=cmd()"})
    time.sleep(1.2)
    done = world.gateway.aigw("stats", "--by", "model", "--csv")
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stdout.splitlines() if line.startswith(("=", '"='))], done.stdout
    return "quoted"


ELSEWHERE = {
    "44": "timing of keys: tests/access",
    "46": "models and endpoints a key may not use: with the consumers",
    "47": "budgets: with the consumers",
}
"""Cases of the list that are not here, and where they are."""


@contextmanager
def world_at_war() -> Iterator[World]:
    """The one server that all cases attack."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        yield World(Path(folder), stack)


def play(world: World, one: Case) -> tuple[str, float]:
    """What came of it, and in how many seconds; afterwards the server serves, leaks nothing and has repeated no secret."""
    lines = len(world.gateway.lines)
    began = time.monotonic()
    found = one.play(world)
    took = time.monotonic() - began
    assert world.good(), "a good request is not answered"
    eventually(lambda: world.open_files() <= world.files, 5)
    said = "\n".join(world.gateway.lines[lines:])
    assert SECRET not in said
    assert KEY not in said
    world.gateway.assert_calm()
    return found, took


def rows(cases: Iterable[Case]) -> Iterator[str]:
    yield "| Case | What is sent | What comes of it | Seconds |"
    yield "|--:|---|---|--:|"
    with world_at_war() as world:
        for one in cases:
            found, took = play(world, one)
            outcome = found if found == one.expected else f"**{found}**, not {one.expected}"
            yield f"| {one.number} | {one.what} | {outcome}{f' ({one.why})' if one.why else ''} | {took:.2f} |"


if __name__ == "__main__":
    for row in rows(CASES):
        sys.stdout.write(row + "\n")
        sys.stdout.flush()
