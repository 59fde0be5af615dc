"""HTTP as callers speak it: lenient paths, old and odd ways to send and to read, and the listeners beside the models."""

from __future__ import annotations

import http.client
import json
import socket
import time

import pytest

from tests.e2e.conftest import Make
from tests.e2e.world import HELLO, Answer, Gateway, ask, eventually, parse, read_all

CHAT = "/v1/chat/completions"

BODY = json.dumps(HELLO).encode()

STREAM = json.dumps(HELLO | {"stream": True}).encode()

SAID = "hello"


def request(gateway: Gateway, body: bytes = BODY, *fields: str, version: str = "1.1", path: str = CHAT) -> bytes:
    lines = [f"POST {path} HTTP/{version}", "host: x", f"authorization: Bearer {gateway.key}", *fields]
    if not any(field.startswith("transfer-encoding") for field in fields):
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def text_of(answer: Answer) -> str:
    """What an answer says, stream or not."""
    assert answer.status == 200
    if answer.headers["content-type"].startswith("text/event-stream"):
        *events, done = answer.events
        assert done == b"data: [DONE]"
        pieces = [json.loads(event.removeprefix(b"data: "))["choices"] for event in events]
        return "".join(choices[0]["delta"].get("content") or "" for choices in pieces if choices)
    return str(answer.json["choices"][0]["message"]["content"])


@pytest.mark.parametrize(
    "path",
    [
        "/chat/completions",
        "/v1/v1/chat/completions",
        "/openai/v1/chat/completions",
        "/openai/chat/completions",
        "/v1/openai/v1/chat/completions",
        "/api/v1/chat/completions",
        "//v1//chat/completions",
        "/v1/chat/completions/",
        "/v1/chat/completions?api-version=2026-01-01",
    ],
)
def test_lenient_addresses(demo: Gateway, path: str) -> None:
    """A base URL with /v1, without, or twice: all the same."""
    assert text_of(demo.ask(HELLO, path)).endswith("You said: hello")


@pytest.mark.parametrize("path", ["/messages", "/v1/v1/messages", "/anthropic/v1/messages", "/v1/messages?beta=true"])
def test_lenient_addresses_of_anthropic(demo: Gateway, path: str) -> None:
    """In its own dialect."""
    answer = demo.ask(HELLO | {"max_tokens": 100}, path)
    assert answer.status == 200
    assert answer.json["type"] == "message"


@pytest.mark.parametrize("path", ["/v1/models", "/models", "/v1/v1/models", "/openai/v1/models"])
def test_models_are_listed_everywhere(demo: Gateway, path: str) -> None:
    """In the shape its SDK expects, for who may call; one by one, too."""
    answer = demo.ask(None, path, method="GET")
    assert "demo" in [model["id"] for model in answer.json["data"]]
    assert answer.id.startswith("req_")
    assert demo.ask(None, f"{path}/demo", method="GET").json["id"] == "demo"
    theirs = demo.ask(None, path, method="GET", headers={"anthropic-version": "2023-06-01"})
    assert theirs.json["data"][0]["type"] == "model"
    assert demo.ask(None, path, method="GET", key="").status == 401
    missing = demo.ask(None, f"{path}/nobody-has-this", method="GET")
    assert (missing.status, missing.error["code"], missing.error["request_id"]) == (404, "model_not_found", missing.id)


@pytest.mark.parametrize("body", [BODY, STREAM], ids=["whole", "stream"])
@pytest.mark.parametrize(("version", "fields"), [("1.0", ()), ("1.1", ("connection: close",)), ("1.0", ("connection: close",))])
def test_callers_who_close(demo: Gateway, body: bytes, version: str, fields: tuple[str, ...]) -> None:
    """HTTP/1.0 and `Connection: close`: the connection ends with the answer, and HTTP/1.0 gets no chunks."""
    began = time.monotonic()
    said = demo.exchange(request(demo, body, *fields, version=version))
    assert time.monotonic() - began < 3
    (answer,) = parse(said)
    assert not answer.cut
    assert text_of(answer).endswith("You said: hello")
    assert answer.headers["connection"] == "close"
    assert (answer.headers.get("transfer-encoding") == "chunked") == (version == "1.1" and body is STREAM)


def test_http_1_0_with_keep_alive(demo: Gateway) -> None:
    """`ab` and old proxies ask for it: two answers on one connection, or a clean close after the first."""
    said = demo.exchange(request(demo, BODY, "connection: keep-alive", version="1.0") * 2, timeout=2)
    answers = list(parse(said))
    assert answers
    for answer in answers:
        assert text_of(answer).endswith("You said: hello")


def test_one_connection_for_many_requests(demo: Gateway) -> None:
    """Answers, streams and refusals, one after the other, and the connection is still good."""
    connection = http.client.HTTPConnection("127.0.0.1", demo.port, timeout=10)
    ids = set()
    for turn in range(60):
        body, expected = [(HELLO, 200), (HELLO | {"stream": True}, 200), ([], 400), (HELLO | {"model": "nobody"}, 404)][
            turn % 4
        ]
        answer = ask(connection, body, headers=demo.headers())
        assert answer.status == expected
        ids.add(answer.id)
        if turn == 0:
            mine = connection.sock.getsockname()
    assert connection.sock.getsockname() == mine
    connection.close()
    assert len(ids) == 60


def test_pipelined_requests_are_answered_in_order(demo: Gateway) -> None:
    """Five at once, streams among them; each answer whole before the next."""
    bodies = [
        json.dumps(HELLO | {"messages": [{"role": "user", "content": f"number {n}"}], "stream": n % 2 == 1}) for n in range(5)
    ]
    sent = b"".join(request(demo, body.encode()) for body in bodies[:-1]) + request(
        demo, bodies[-1].encode(), "connection: close"
    )
    answers = list(parse(demo.exchange(sent)))
    assert [text_of(answer)[-8:] for answer in answers] == [f"number {n}" for n in range(5)]
    assert len({answer.id for answer in answers}) == 5


def test_far_too_many_pipelined_requests(demo: Gateway) -> None:
    """Who sends hundreds ahead is closed, and nobody else notices."""
    slow = json.dumps(HELLO | {"stream": True}).encode()
    demo.exchange(request(demo, slow) * 300, timeout=3)
    assert demo.ask(HELLO).status == 200


def test_expect_100_continue(demo: Gateway) -> None:
    """The caller waits with its body until it is welcome: 100 first, then the answer. Who is not welcome is told at once."""
    head = request(demo, BODY, "expect: 100-continue", "connection: close")[: -len(BODY)]
    with demo.connect() as raw:
        raw.sendall(head)
        assert raw.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.sendall(BODY)
        (answer,) = parse(read_all(raw))
    assert text_of(answer).endswith("You said: hello")
    with demo.connect() as raw:
        raw.sendall(head.replace(demo.key.encode(), b"sk-aigw-wrong"))
        (answer,) = parse(read_all(raw))
    assert answer.status == 401


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_chunked_uploads(demo: Gateway, size: int) -> None:
    """A body of unknown length, in chunks of any size."""
    pieces = [BODY[at : at + size] for at in range(0, len(BODY), size)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    (answer,) = parse(demo.exchange(request(demo, chunks, "transfer-encoding: chunked", "connection: close")))
    assert text_of(answer).endswith("You said: hello")


def test_a_slow_upload(demo: Gateway) -> None:
    """Byte by byte, in many segments."""
    data = request(demo, BODY, "connection: close")
    with demo.connect() as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(data), 5):
            raw.sendall(data[at : at + 5])
            time.sleep(0.002)
        (answer,) = parse(read_all(raw))
    assert text_of(answer).endswith("You said: hello")


def test_a_large_body_passes(demo: Gateway) -> None:
    """Five megabytes, well below the limit."""
    long = {"model": "demo", "messages": [{"role": "user", "content": "x" * 5_000_000}]}
    answer = demo.ask(long)
    assert answer.status == 200
    assert demo.record(answer.id).bytes_in > 5_000_000


def test_a_slow_reader_gets_all_of_it(demo: Gateway) -> None:
    """Who reads a little at a time gets the same bytes."""
    with socket.create_connection(("127.0.0.1", demo.port), timeout=15) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        raw.sendall(request(demo, STREAM, "connection: close"))
        data = b""
        while block := raw.recv(64):
            data += block
            time.sleep(0.001)
    (answer,) = parse(data)
    assert text_of(answer).endswith("You said: hello")


def test_health(demo: Gateway) -> None:
    """No key needed, on both planes; the data port answers any Host."""
    for path in ("/healthz", "/readyz"):
        answer = demo.ask(None, path, method="GET", key="", headers={"host": "gateway.example"})
        assert answer.status == 200
    assert demo.ask(None, "/healthz", method="HEAD", key="").status == 200
    assert demo.ask(None, "/healthz", method="GET", key="", port=demo.admin_port).status == 200


def test_the_admin_listener_knows_its_host(demo: Gateway) -> None:
    """A web page cannot reach it by rebinding a name, nor by asking across origins; the data port has no /metrics."""

    def status(port: int, **headers: str) -> int:
        return demo.ask(None, "/metrics", method="GET", key="", port=port, headers=headers).status

    assert status(demo.admin_port) == 200
    assert status(demo.admin_port, host=f"localhost:{demo.admin_port}") == 200
    assert status(demo.admin_port, host="[::1]:1") == 200
    assert status(demo.admin_port, host="evil.example") == 421
    assert status(demo.admin_port, host="127.0.0.1.evil.example") == 421
    assert status(demo.admin_port, origin="http://evil.example") == 403
    assert status(demo.port) == 404
    assert demo.ask(HELLO, port=demo.admin_port).status == 404


def test_metrics_move(make: Make) -> None:
    """Requests, tokens, times and errors, by what was asked of whom."""
    gateway = make()
    gateway.ask(HELLO)
    gateway.ask(HELLO | {"stream": True})
    gateway.ask(HELLO, key="nonsense")
    gateway.ask(HELLO | {"model": "nobody"})
    eventually(lambda: len(gateway.records()) == 4)
    seen = gateway.metrics()
    labels = 'model="demo",operation="chat",outcome="ok",provider="demo"'
    assert seen[f"aigw_requests_total{{{labels}}}"] == 2
    records = gateway.records("outcome = 'ok'")
    assert seen[f'aigw_tokens_total{{direction="input",{labels}}}'] == sum(record.input for record in records)
    assert seen[f'aigw_tokens_total{{direction="output",{labels}}}'] == sum(record.output for record in records)
    assert seen[f"aigw_request_seconds_count{{{labels}}}"] == 2
    assert seen[f"aigw_first_token_seconds_count{{{labels}}}"] == 1
    assert seen['aigw_errors_total{code="policy_key_invalid"}'] == 1
    assert seen['aigw_errors_total{code="caller_model_not_found"}'] == 1
    assert (seen["aigw_exchanges_active"], seen["aigw_records_lost_total"]) == (0, 0)
    assert seen["aigw_records_written_total"] == 4


def test_limits_of_a_consumer(make: Make) -> None:
    """Requests a minute and at once: 429 with our code and a Retry-After, others untouched; a refused one is recorded."""
    gateway = make(started=False)
    slow = gateway.create_key("slow", "--rpm", "2")["key"]
    gateway.start()
    answers = [gateway.ask(HELLO, key=slow) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    last = answers[-1]
    assert (last.headers["x-aigw-error"], last.error["type"]) == ("policy_rate_limited", "rate_limit_error")
    assert 0 < int(last.headers["retry-after"]) <= 60
    assert gateway.record(last.id).outcome == "policy_error"
    assert gateway.ask(HELLO).status == 200
