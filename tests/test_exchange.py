"""The nouns that go over the wire: nothing breaks out of a header, no secret is ever printed."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest

from aigw.exchange import Exchange, Origin, Record, Target, UpstreamRequest, Usage

ORIGIN = Origin("https", "api.example.com", 443)


def test_a_target_is_a_request_head() -> None:
    """Line, host and the provider's headers, as they will stand on the wire."""
    target = Target("POST", ORIGIN, "/v1/x?y=1", {"authorization": "Bearer sk-1", "x-empty": ""})
    assert target.wire == b"POST /v1/x?y=1 HTTP/1.1\r\nhost: api.example.com\r\nauthorization: Bearer sk-1\r\nx-empty: \r\n"


@pytest.mark.parametrize(
    ("origin", "line", "host"),
    [
        (Origin("https", "h", 443), b"GET /p HTTP/1.1", b"h"),
        (Origin("https", "h", 80), b"GET /p HTTP/1.1", b"h:80"),
        (Origin("http", "h", 80), b"GET /p HTTP/1.1", b"h"),
        (Origin("http", "h", 8000), b"GET /p HTTP/1.1", b"h:8000"),
        (Origin("http", "::1", 8000), b"GET /p HTTP/1.1", b"[::1]:8000"),
        (Origin("http", "h", 8000, "http://proxy:1"), b"GET http://h:8000/p HTTP/1.1", b"h:8000"),
        (Origin("https", "h", 443, "http://proxy:1"), b"GET /p HTTP/1.1", b"h"),
    ],
)
def test_addresses(origin: Origin, line: bytes, host: bytes) -> None:
    """The port where it is not the scheme's own, brackets for IPv6, the whole URL for a plain proxy."""
    assert Target("GET", origin, "/p", {}).wire == line + b"\r\nhost: " + host + b"\r\n"


@pytest.mark.parametrize("bad", ["\r\nx-evil: 1", "\n", "\r", "\x00", "\x7f", "\t", "é", "海"])
@pytest.mark.parametrize("where", ["value", "name", "path", "host", "method"])
def test_nothing_breaks_out_of_a_header(bad: str, where: str) -> None:
    """A control or non-ASCII character anywhere is refused, and what it stood in is not repeated."""
    parts = {"value": "sk-secret", "name": "x-name", "path": "/p?key=sk-secret:x", "host": "h", "method": "GET"}
    parts[where] += bad
    with pytest.raises(ValueError, match="control or non-ASCII") as caught:
        Target(parts["method"], Origin("https", parts["host"], 443), parts["path"], {parts["name"]: parts["value"]})
    assert "sk-secret" not in str(caught.value)


def test_reprs_hold_no_secret() -> None:
    """Keys live in headers, in queries and in proxy URLs."""
    origin = Origin("http", "h", 80, "http://user:hunter2@proxy:3128")
    target = Target("POST", origin, "/v1/x?key=hunter2", {"authorization": "Bearer hunter2"})
    request = UpstreamRequest(target, b"hunter2")
    for thing in (origin, target, request):
        assert "hunter2" not in repr(thing)
        assert "hunter2" not in str(thing)
    assert repr(target) == "Target(POST http://h:80/v1/x)"
    assert repr(origin) == "Origin(http://h:80 by proxy)"


def test_origins_are_equal_by_all_that_matters() -> None:
    """Two connections are interchangeable only if host, proxy with its password, and trusted authority agree."""
    assert Origin("https", "h", 443) == Origin("https", "h", 443)
    assert hash(Origin("https", "h", 443)) == hash(Origin("https", "h", 443))
    different = {
        Origin("https", "h", 443),
        Origin("http", "h", 443),
        Origin("https", "h", 443, "http://a:1@p"),
        Origin("https", "h", 443, "http://a:2@p"),
        Origin("https", "h", 443, ca_file="x"),
    }
    assert len(different) == 5


@pytest.mark.parametrize(
    ("proxy", "pair"),
    [
        ("", None),
        ("http://h:1", None),
        ("http://u@h:1", b"u:"),
        ("http://u:p@h:1", b"u:p"),
        ("http://u%3A:p%0D%0Ax@h:1", b"u::p\r\nx"),
        ("http://%E6%B5%B7:p%40@h:1", "海:p@".encode()),
    ],
)
def test_proxy_authorization(proxy: str, pair: bytes | None) -> None:
    """Percent-decoded, then Base64: nothing in them can break out of the header."""
    expected = "" if pair is None else f"proxy-authorization: Basic {base64.b64encode(pair).decode()}\r\n"
    assert Origin("https", "h", 443, proxy).proxy_authorization() == expected
    wire = Target("GET", Origin("http", "h", 80, proxy), "/", {}).wire
    assert wire.endswith(b"\r\n")
    assert (b"proxy-authorization" in wire) == (pair is not None)
    assert b"proxy-authorization" not in Target("GET", Origin("https", "h", 443, proxy), "/", {}).wire


def test_exchanges_share_nothing() -> None:
    """Each has its own list of attempts."""
    one, other = (Exchange(str(n), 0.0, operation="chat", dialect="openai_chat", headers={}) for n in range(2))
    one.chain.append(None)  # type: ignore[arg-type]
    assert other.chain == []


def test_the_record_of_an_exchange() -> None:
    """Every field of the record is the exchange's own, but for the counts, which are its usage's once there is one."""
    counts = Usage.__struct_fields__
    first = Record.__struct_fields__.index(counts[0])
    assert Record.__struct_fields__[first : first + len(counts)] == counts
    own: dict[str, Any] = {name: f"its {name}" for name in Record.__struct_fields__ if name not in counts}
    exchange = Exchange(**own, input=3, headers={"x": "y"})
    assert msgspec.structs.asdict(exchange.record()) == msgspec.structs.asdict(Record(**own, input=3))
    usage = dict(zip(counts, range(1, 14), strict=True))
    exchange.usage = Usage(**usage)  # type: ignore[arg-type]
    assert msgspec.structs.asdict(exchange.record()) == own | usage
