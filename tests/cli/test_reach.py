"""Against sockets on loopback that answer what they are told to."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aigw.cli.locations import Locations
from aigw.cli.reach import CallFailed, Event, Gateway, base, failure, find, here
from aigw.config.schema import Config, Server
from aigw.errors import ConfigError
from tests.cli.test_control import answering


@pytest.fixture
def peer() -> Iterator[Callable[..., tuple[str, list[bytes]]]]:
    """Starts something that gives each connection the next answer; its address, and what it was asked."""
    listeners: list[socket.socket] = []

    def start(*answers: bytes) -> tuple[str, list[bytes]]:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        heard: list[bytes] = []

        def serve() -> None:
            for answer in answers:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    heard.append(whole_request(connection))
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}", heard

    yield start
    for listener in listeners:
        listener.close()


def whole_request(connection: socket.socket) -> bytes:
    request = b""
    while block := connection.recv(65536):
        request += block
        head, end, body = request.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        if end and len(body) >= (int(length[1]) if length else 0):
            break
    return request


def http(status: int, body: str, *fields: str) -> bytes:
    lines = "".join(f"{field}\r\n" for field in fields)
    return f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n{lines}\r\n{body}".encode()


INVALID = http(401, '{"error":{"message":"not known","aigw_code":"policy_key_invalid","request_id":"req_1"}}')


def test_a_question(peer: Callable[..., tuple[str, list[bytes]]]) -> None:
    """Path, key and body arrive; the answer's headers are lower case."""
    url, heard = peer(http(200, '{"a":1}', "X-Thing: yes"))
    with Gateway(url, "sk-aigw-x").ask("/v1/chat/completions", {"model": "é"}) as answer:
        assert (answer.status, answer.headers["x-thing"], answer.read()) == (200, "yes", b'{"a":1}')
    head, _, body = heard[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert b"authorization: Bearer sk-aigw-x" in head
    assert json.loads(body) == {"model": "é"}


def test_models(peer: Callable[..., tuple[str, list[bytes]]]) -> None:
    """The names; something else that answers 200 is told apart."""
    url, heard = peer(http(200, '{"data":[{"id":"a"},{"id":"b"}]}'), http(200, "<html>"), http(200, '{"data":3}'))
    assert Gateway(url, "k").models() == ["a", "b"]
    assert heard[0].startswith(b"GET /v1/models ")
    for _ in range(2):
        with pytest.raises(CallFailed, match="is a gateway there"):
            Gateway(url, "k").models()


def test_a_fresh_key_is_waited_for(peer: Callable[..., tuple[str, list[bytes]]]) -> None:
    """A server learns of a new key within a second: until then its refusal is no answer. Of an old key it is one, at once."""
    url, heard = peer(INVALID, INVALID, http(200, '{"data":[]}'), http(200, "{}"), http(200, "{}"))
    gateway = Gateway(url, "k", fresh=True)
    for _ in range(2):
        with gateway.ask("/v1/chat/completions", {}) as answer:
            assert answer.read() == b"{}"
    # no exchange is refused for it, so none is in the records
    assert [one.split(b" ")[0] for one in heard] == [b"GET", b"GET", b"GET", b"POST", b"POST"]
    url, heard = peer(INVALID)
    with pytest.raises(CallFailed, match="policy_key_invalid") as failed:
        Gateway(url, "k").models()
    assert (failed.value.code, failed.value.status, failed.value.request_id) == ("policy_key_invalid", 401, "req_1")
    assert len(heard) == 1


def test_events(peer: Callable[..., tuple[str, list[bytes]]]) -> None:
    """Names and data, several lines of them, comments passed over; the last one needs no empty line behind it."""
    text = ": hi\n\nevent: a\ndata: 1\ndata: 2\n\ndata:3\r\n\r\nid: 7\n\ndata: {}"
    url, _ = peer(http(200, text, "content-type: text/event-stream"))
    with Gateway(url, "k").ask("/", {}) as answer:
        assert answer.streams
        assert list(answer.events()) == [Event("a", "1\n2"), Event("", "3"), Event("", "{}")]


def test_an_answer_that_breaks_off(peer: Callable[..., tuple[str, list[bytes]]]) -> None:
    """In the body and between events: said, with the request id."""
    half = b"HTTP/1.1 200 OK\r\nx-request-id: req_7\r\ncontent-length: 100\r\n\r\nhalf"
    chunked = b"HTTP/1.1 200 OK\r\nx-request-id: req_7\r\ntransfer-encoding: chunked\r\n\r\n5\r\ndata:"
    url, _ = peer(half, chunked)
    with Gateway(url, "k").ask("/") as answer, pytest.raises(CallFailed, match=r"broke off.*\(req_7\)"):
        answer.read()
    with Gateway(url, "k").ask("/") as answer, pytest.raises(CallFailed, match=r"broke off.*\(req_7\)"):
        list(answer.events())


def test_nobody_there(peer: Callable[..., tuple[str, list[bytes]]]) -> None:
    """A closed port: the command that helps. Something that speaks no HTTP, a name that is none: what went wrong."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(CallFailed, match="start one in another terminal: aigw serve"):
        Gateway(f"http://127.0.0.1:{port}", "k").ask("/")
    url, _ = peer(b"SSH-2.0-x\r\n")
    with pytest.raises(CallFailed, match="cannot be asked"):
        Gateway(url, "k").ask("/")
    with pytest.raises(CallFailed, match="cannot be asked"):
        Gateway("http://no-such-host.invalid", "k").ask("/")
    url, _ = peer(b"")
    with pytest.raises(CallFailed, match="no header can carry") as failed:
        Gateway(url, "a key\nwith a line break").ask("/")
    assert "a key" not in str(failed.value)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            '{"error":{"message":"m","aigw_code":"caller_model_not_found"}}',
            "m (caller_model_not_found, req_h); choose one with -m ('aigw models' lists them)",
        ),
        ('{"type":"error","error":{"message":"m"},"request_id":"req_b"}', "m (HTTP 404, req_b)"),
        ('{"error":{"message":"two\\nlines"}}', "two lines (HTTP 404, req_h)"),
        ("<html>", "the answer was HTTP 404: is a gateway there? (HTTP 404)"),
        ('{"error":"text"}', "the answer was HTTP 404: is a gateway there? (HTTP 404)"),
    ],
)
def test_failures(body: str, said: str) -> None:
    """Both shapes of our errors, a provider's own, and what is none: always one line."""
    assert str(failure(body.encode(), 404, {"x-request-id": "req_h"})) == said


def test_a_key_is_not_in_a_repr() -> None:
    """A traceback of ours shows no secret."""
    assert repr(Gateway("http://h", "sk-secret")) == "Gateway('http://h')"


@pytest.mark.parametrize("url", ["http://h:1/v1/", "http://h:1/v1", " http://h:1/ ", "http://h:1"])
def test_addresses(url: str) -> None:
    """With or without /v1: people copy both."""
    assert base(url) == "http://h:1"


@pytest.mark.parametrize("url", ["", "h:1", "ftp://h", "http://", "http://h:x", "http://a:b@h", "http://h?x", "http://hé"])
def test_addresses_that_are_none(url: str) -> None:
    """Wrong usage, said without repeating what may hold a password."""
    with pytest.raises(ConfigError, match="--url: expected an address") as failed:
        base(url)
    assert "a:b" not in str(failed.value)


@pytest.fixture
def where(tmp_path: Path) -> Locations:
    places = Locations()
    places.data_dir = str(tmp_path)
    return places


def test_the_running_server_says_where_it_is(where: Locations) -> None:
    """Its own word first (--port, port 0), the config's second; neither: the command that helps."""
    state = json.dumps({"addresses": {"data": ["http://127.0.0.1:4711"], "admin": []}})
    with answering(where.data_path(), f"HTTP/1.0 200 OK\r\n\r\n{state}".encode()):
        assert here(where, Config()) == "http://127.0.0.1:4711"
    assert here(where, Config(server=Server(port=9000))) == "http://127.0.0.1:9000"
    with pytest.raises(CallFailed, match="no server runs here"):
        here(where, Config(server=Server(port=0)))


def test_find(where: Locations, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator's key by itself, another by reference, never one that cannot be found."""
    own = find(where, Config())
    assert own.fresh
    assert not find(where, Config()).fresh
    assert find(where, Config()).key == own.key
    monkeypatch.setenv("MINE", "sk-aigw-mine")
    other = find(where, Config(), url="http://h/v1", key="env:MINE")
    assert (other.url, other.key, other.fresh) == ("http://h", "sk-aigw-mine", False)
    with pytest.raises(ConfigError, match="--key: the environment variable NOT_SET is not set"):
        find(where, Config(), key="env:NOT_SET")


def test_waiting_for_a_key_ends(peer: Callable[..., tuple[str, list[bytes]]], monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that never becomes known is refused in the end."""
    monkeypatch.setattr("aigw.cli.reach.LEARNS", 0.3)
    url, heard = peer(*[INVALID] * 20)
    started = time.monotonic()
    with pytest.raises(CallFailed, match="policy_key_invalid"):
        Gateway(url, "k", fresh=True).models()
    assert 0.3 <= time.monotonic() - started < 2
    assert len(heard) > 1


@pytest.mark.parametrize("framing", ["", "content-length: 999\r\n", "transfer-encoding: chunked\r\n"])
def test_closing_hangs_up(framing: str) -> None:
    """At once, however the answer says where it ends: the gateway then stops the provider."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        over = threading.Event()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(5)
                connection.recv(65536)
                connection.sendall(f"HTTP/1.1 200 OK\r\n{framing}\r\n9\r\ndata: 1\r\n\r\n".encode())
                if connection.recv(1) == b"":
                    over.set()

        server = threading.Thread(target=serve)
        server.start()
        answer = Gateway(f"http://127.0.0.1:{listener.getsockname()[1]}", "k").ask("/")
        assert not over.wait(0.1)
        answer.close()
        assert over.wait(5)
        server.join(5)
