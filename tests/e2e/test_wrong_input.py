"""Input that is wrong is answered in the caller's dialect, with a request id, a code and a record; and the server serves on."""

from __future__ import annotations

import contextlib
import json
import select
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest

from tests.e2e.conftest import Make
from tests.e2e.world import DEMO, HELLO, Answer, Gateway, eventually, parse

MAX_BODY = 100_000

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"


@pytest.fixture(scope="module")
def gateway(make: Make) -> Gateway:
    made = make(DEMO, server=f"max_body = {MAX_BODY}", started=False)
    made.revoked = made.create_key("gone")  # type: ignore[attr-defined]
    made.expired = made.create_key("late", "--expires", "1s")  # type: ignore[attr-defined]
    assert made.aigw("keys", "revoke", made.revoked["id"], "--yes").returncode == 0  # type: ignore[attr-defined]
    return made.start()


class Case(NamedTuple):
    status: int
    code: str
    body: Any = HELLO
    headers: dict[str, Any] | None = None
    key: str | None = None
    says: str = ""
    kind: tuple[str, str | None, str] = ("invalid_request_error", None, "invalid_request_error")
    """`type` and `code` for OpenAI's SDK, `type` for Anthropic's."""


UNKNOWN = ("invalid_request_error", "model_not_found", "not_found_error")
NO_KEY = ("invalid_request_error", "invalid_api_key", "authentication_error")

CASES = {
    "no body": Case(400, "caller_invalid_json", b""),
    "not JSON": Case(400, "caller_invalid_json", b"{"),
    "not UTF-8": Case(400, "caller_invalid_json", b'{"model": "\xff\xfe", "messages": []}'),
    "not an object": Case(400, "caller_invalid_json", []),
    "a bare string": Case(400, "caller_invalid_json", "demo"),
    "null": Case(400, "caller_invalid_json", b"null"),
    "nested 20,000 deep": Case(400, "caller_invalid_json", b'{"model":"demo","messages":' + b"[" * 20_000),
    "something behind the object": Case(400, "caller_invalid_json", b'{"model":"demo","messages":[]} {}'),
    "no model": Case(400, "caller_invalid_request", {"messages": []}, says="`model`"),
    "an empty model": Case(400, "caller_invalid_request", HELLO | {"model": ""}, says="`model`"),
    "a number for a model": Case(400, "caller_invalid_request", HELLO | {"model": 7}, says="`model` must be a string"),
    "null for a model": Case(400, "caller_invalid_request", HELLO | {"model": None}, says="`model`"),
    "two models": Case(400, "caller_invalid_request", b'{"model":"demo","messages":[],"model":"demo2"}', says="twice"),
    "stream is a word": Case(400, "caller_invalid_request", HELLO | {"stream": "yes"}, says="`stream` must be true or false"),
    "an unknown model": Case(404, "caller_model_not_found", HELLO | {"model": "dmo"}, kind=UNKNOWN, says="demo"),
    "a model of 10,000 letters": Case(404, "caller_model_not_found", HELLO | {"model": "x" * 10_000}, kind=UNKNOWN),
    "a model with control characters": Case(404, "caller_model_not_found", HELLO | {"model": "a\r\nb: c\0"}, kind=UNKNOWN),
    "no key": Case(401, "policy_key_missing", key="", kind=NO_KEY, says="aigw keys create"),
    "a key of someone else's": Case(401, "policy_key_invalid", key="sk-proj-abc", kind=NO_KEY, says="sk-aigw-"),
    "another scheme": Case(401, "policy_key_missing", headers={"authorization": "Basic YTpi"}, key="", kind=NO_KEY),
    "a key beyond ASCII": Case(401, "policy_key_invalid", headers={"x-api-key": "sk-\xe9\xff"}, key="", kind=NO_KEY),
    "a key of 6,000 letters": Case(401, "policy_key_invalid", key="sk-aigw-" + "x" * 6000, kind=NO_KEY),
    "a web form": Case(
        415, "caller_unsupported_media_type", b"model=demo", {"content-type": "application/x-www-form-urlencoded"}
    ),
    "plain text": Case(415, "caller_unsupported_media_type", headers={"content-type": "text/plain"}, says="application/json"),
    "a compressed body": Case(415, "caller_unsupported_media_type", b"\x1f\x8b", {"content-encoding": "gzip"}),
    "too large": Case(
        413,
        "caller_body_too_large",
        HELLO | {"pad": "x" * MAX_BODY},
        kind=("invalid_request_error", None, "request_too_large"),
    ),
}


@pytest.fixture(scope="module")
def answers(gateway: Gateway) -> dict[str, dict[str, Answer]]:
    """What each case got, by path. Asked side by side, for speed."""

    def ask_both(case: Case) -> dict[str, Answer]:
        return {path: gateway.ask(case.body, path, headers=case.headers, key=case.key) for path in (CHAT, MESSAGES)}

    with ThreadPoolExecutor(4) as pool:
        return dict(zip(CASES, pool.map(ask_both, CASES.values()), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_request_is_explained_and_recorded(gateway: Gateway, answers: dict[str, dict[str, Answer]], name: str) -> None:
    """Status, our code, the SDK's words, one request id in header, body and record; and the next request is served."""
    case = CASES[name]
    for path, answer in answers[name].items():
        check(answer, case, path)
        assert case.says in answer.error["message"]
        record = gateway.record(answer.id)
        assert (record.status, record.error) == (case.status, case.code)
        assert record.outcome == case.code.partition("_")[0] + "_error"
        assert record.consumer == ("me" if case.key is None else "")
        assert (record.input, record.output, record.provider) == (0, 0, "")
    assert gateway.ask(HELLO).status == 200


def check(answer: Answer, case: Case, path: str) -> None:
    assert answer.status == case.status, answer
    assert answer.headers["x-aigw-error"] == case.code
    assert answer.headers["content-type"].startswith("application/json")
    error = answer.error
    assert error["aigw_code"] == case.code
    openai_type, openai_code, anthropic_type = case.kind
    if path == MESSAGES:
        assert answer.json["type"] == "error"
        assert error["type"] == anthropic_type
        assert answer.json["request_id"] == answer.id
    else:
        assert (error["type"], error["code"]) == (openai_type, openai_code)
        assert error["request_id"] == answer.id
    assert answer.id.startswith("req_")


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize(("which", "code"), [("revoked", "policy_key_revoked"), ("expired", "policy_key_expired")])
def test_a_key_that_ended_says_so(gateway: Gateway, which: str, code: str, path: str) -> None:
    """401 with its own code, and the record says whose key it was not to be."""
    key = getattr(gateway, which)["key"]
    eventually(lambda: gateway.ask(HELLO, key=key).status == 401)
    answer = gateway.ask(HELLO, path, key=key)
    check(answer, Case(401, code, kind=NO_KEY), path)
    assert key not in answer.body.decode()
    assert gateway.record(answer.id).error == code


def test_a_wrong_key_is_not_worth_another_try(gateway: Gateway) -> None:
    """Claude Code tries a 401 again ten times, for minutes, unless it is told not to."""
    assert gateway.ask(HELLO, key="sk-aigw-wrong").headers["x-should-retry"] == "false"


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "PATCH", "OPTIONS", "HEAD"])
@pytest.mark.parametrize("path", [CHAT, MESSAGES, "/v1/embeddings?x=1", "/chat/completions"])
def test_another_method_is_405(gateway: Gateway, method: str, path: str) -> None:
    """With `allow`, our code and a request id, in the dialect of the path."""
    answer = gateway.ask(None, path, method=method)
    assert answer.status == 405
    assert answer.headers["allow"] == "POST"
    assert answer.headers["x-aigw-error"] == "caller_method_not_allowed"
    assert answer.id
    if method == "HEAD":
        assert answer.body == b""
    elif path == MESSAGES:
        assert answer.json["type"] == "error"
        assert answer.json["request_id"] == answer.id
    else:
        assert answer.error["request_id"] == answer.id


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/nothing", "/v2/chat/completions", "/v1/chat", "/../etc/passwd", "/v1/%00", "/favicon.ico"]
)
@pytest.mark.parametrize("anthropic", [False, True])
def test_another_path_is_404(gateway: Gateway, path: str, anthropic: bool) -> None:
    """In the dialect that the caller's headers speak."""
    answer = gateway.ask(HELLO, path, headers={"anthropic-version": "2023-06-01"} if anthropic else None)
    assert answer.status == 404
    assert answer.headers["x-aigw-error"] == "caller_path_not_found"
    assert answer.error["aigw_code"] == "caller_path_not_found"
    assert (answer.json["request_id"] if anthropic else answer.error["request_id"]) == answer.id


def test_too_large_is_refused_before_it_is_read(gateway: Gateway) -> None:
    """A length above the limit is answered although not one byte of the body was sent, and so is a wrong key."""
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 999999999\r\n"
    refused = next(parse(gateway.exchange(f"{head}authorization: Bearer {gateway.key}\r\n\r\n".encode())))
    assert refused.status == 413
    assert refused.headers["connection"] == "close"
    assert gateway.record(refused.id).status == 413
    unknown = next(parse(gateway.exchange(f"{head}authorization: Bearer sk-aigw-x\r\n\r\n".encode())))
    assert unknown.status == 401


def test_too_large_by_chunks_is_refused_on_the_way(gateway: Gateway) -> None:
    """Nobody can send more than the limit by not saying how much it is."""
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nauthorization: Bearer {gateway.key}\r\n\r\n"
    data, began = b"", time.monotonic()
    with gateway.connect() as raw:
        raw.sendall(head.encode())
        piece = b"%x\r\n%b\r\n" % (10_000, b"x" * 10_000)
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < began + 10:
                raw.sendall(piece)
                while select.select([raw], [], [], 0)[0]:
                    block = raw.recv(65536)
                    if not block:
                        raise ConnectionResetError
                    data += block
    assert time.monotonic() < began + 5  # it did not listen any longer than a caller needs to notice
    answer = next(parse(data))
    assert (answer.status, answer.headers["x-aigw-error"]) == (413, "caller_body_too_large")
    assert gateway.record(answer.id).status == 413


def test_an_expectation_nobody_can_meet_is_417(gateway: Gateway) -> None:
    """It is answered while the caller still waits with its body."""
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\nexpect: 200-ok\r\nauthorization: Bearer {gateway.key}\r\n\r\n"
    )
    answer = next(parse(gateway.exchange(head.encode())))
    assert (answer.status, answer.headers["x-aigw-error"]) == (417, "caller_expectation_failed")
    assert gateway.record(answer.id).status == 417


MALFORMED = {
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "no HTTP": b"hello there\r\n\r\n",
    "a header without a colon": b"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization Bearer sk-secret-1234\r\n\r\n",
    "a huge header": b"GET /v1/models HTTP/1.1\r\nhost: x\r\nx-pad: " + b"x" * 100_000 + b"\r\n\r\n",
    "a huge header name": b"GET /v1/models HTTP/1.1\r\nhost: x\r\n" + b"n" * 300_000 + b": x\r\n\r\n",
    "two lengths": b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
    "length and chunks": b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n"
    b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a negative length": b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
    "a bad chunk": b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer KEY\r\n"
    b"transfer-encoding: chunked\r\n\r\nzz\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_http_is_refused_without_repeating_it(gateway: Gateway, name: str) -> None:
    """A 400 that repeats nothing of what was sent (or the connection ends), and the server serves on."""
    sent = MALFORMED[name].replace(b"KEY", gateway.key.encode())
    said = gateway.exchange(sent, half_close=True)
    if said:
        answer = next(parse(said))
        assert 400 <= answer.status < 500
        assert b"sk-secret" not in said
        assert gateway.key.encode() not in said
        assert answer.error["aigw_code"] in {"caller_invalid_request", "caller_invalid_json"}
    assert gateway.ask(HELLO).status == 200


@pytest.mark.parametrize("name", ["no HTTP", "a header without a colon", "a huge header"])
def test_what_is_no_http_has_a_request_id_too(gateway: Gateway, name: str) -> None:
    """`x-request-id` always, and the same in the body; and the code in a header."""
    answer = next(parse(gateway.exchange(MALFORMED[name], half_close=True)))
    assert answer.id == answer.error["request_id"]
    assert answer.headers["x-aigw-error"] == "caller_invalid_request"


def test_half_a_body_is_recorded(gateway: Gateway) -> None:
    """A caller that goes in the middle of its upload leaves a record, and nothing else."""
    before = len(gateway.records("outcome = 'client_closed'"))
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\nauthorization: Bearer {gateway.key}\r\n\r\n"
    with gateway.connect() as raw:
        raw.sendall(head.encode() + json.dumps(HELLO).encode())
    eventually(lambda: len(gateway.records("outcome = 'client_closed'")) == before + 1)


def test_stats_count_the_errors(gateway: Gateway) -> None:
    """What was refused is counted as a request and as an error, with no tokens; what callers broke off is counted, too."""
    last = gateway.ask(b"[]")
    eventually(lambda: gateway.records("id = ?", (last.id,)))  # the store has all that came before it
    records = gateway.records()
    total = gateway.stats()["total"]
    assert total["requests"] == len(records) > 50
    assert total["errors"] == len([record for record in records if record.outcome not in ("ok", "client_closed")]) > 40
    assert total["input_tokens"] == sum(record.input for record in records)
