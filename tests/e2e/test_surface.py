"""The whole surface of the data port, asked for all sorts of things: every answer is well-formed HTTP in the right dialect."""

from __future__ import annotations

import json
import time
from typing import NamedTuple

from hypothesis import HealthCheck, example, given, settings, strategies as st

from tests.e2e.world import Gateway, eventually, parse

PATHS = [
    "/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/embeddings", "/v1/models", "/v1/models/demo", "/healthz",
    "/v1/messages/count_tokens", "/chat/completions", "/openai/v1/chat/completions", "/v1/audio/speech", "/v1/files", "/",
]  # fmt: skip
ODD = ["/..", "/%00", "/%ff", "//x", "/..%2f", "?a=b", "?key=sk-planted", "#x", "/\u00e9", ";p", "/*", "%", "/v1", "/v1/v1"]
METHODS = ["POST", "POST", "POST", "GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"]
HEADERS = [
    "content-type: text/plain", "content-type: application/json; charset=utf-8", "content-type: ", "te: trailers",
    "content-type: multipart/form-data; boundary=x", "accept: text/event-stream", "accept-encoding: gzip, br",
    "content-encoding: gzip", "anthropic-version: 2023-06-01", "x-stainless-timeout: nan", "x-stainless-timeout: 1",
    "x-stainless-timeout: -1e400", "x-request-id: mine", "origin: https://evil.example", "cookie: a=b; c=\u00ff",
    "x-forwarded-for: 10.0.0.1", "range: bytes=0-10", "if-none-match: *", "expect: 200-ok",
    "user-agent: \u001b[31m", "x-api-key: sk-aigw-nobody", "authorization: Basic dXNlcjpwdw==", "upgrade: h2c",
]  # fmt: skip
MODELS = ["demo", "demo", "demo/demo", "nobody", "", "../x", "a\nb", "\u202e", "x" * 3000, None, 7, ["demo"]]


class Asked(NamedTuple):
    method: str
    path: str
    headers: list[str]
    body: bytes
    key: bool


def values(depth: int = 2) -> st.SearchStrategy[object]:
    plain = st.one_of(st.none(), st.booleans(), st.integers(-3, 2**70), st.floats(allow_nan=False), st.text(max_size=20))
    return st.recursive(
        plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    )


FIELDS = [
    "messages",
    "input",
    "max_tokens",
    "stream_options",
    "metadata",
    "user",
    "tools",
    "temperature",
    "n",
    "system",
    "prompt",
    "x",
]
HELLO = [{"role": "user", "content": "hello"}]
BODIES = st.one_of(
    st.builds(
        lambda model, stream, more, said: json.dumps(
            {"model": model, "messages": HELLO, "input": "hello"} | ({"stream": stream} if said else {}) | more
        ).encode("utf-8", "replace"),
        st.sampled_from(MODELS),
        st.sampled_from([True, False, None, "yes"]),
        st.dictionaries(st.sampled_from(FIELDS), values(), max_size=3),
        st.booleans(),
    ),
    st.sampled_from(
        [b"", b"{", b"[]", b"null", b'{"model":"demo"', b"\xff\xfe{\x00", b"[" * 3000, b'{"model":"demo","model":"x"}']
    ),
    st.binary(max_size=60),
)
ASKED = st.builds(
    Asked,
    st.sampled_from(METHODS),
    st.builds(lambda path, odd: path + odd, st.sampled_from(PATHS), st.sampled_from([""] * 10 + ODD)),
    st.lists(st.sampled_from(HEADERS), max_size=3, unique_by=lambda line: line.split(":")[0]),
    BODIES,
    st.sampled_from([True, True, True, False]),
)


def wire(asked: Asked, key: str) -> bytes:
    names = {line.split(":")[0] for line in asked.headers}
    lines = [f"{asked.method} {asked.path} HTTP/1.1", "host: gateway", "connection: close", *asked.headers]
    lines += [f"authorization: Bearer {key}"] if asked.key and "authorization" not in names else []
    lines += ["content-type: application/json"] if "content-type" not in names else []
    lines += [f"content-length: {len(asked.body)}"] if asked.body or asked.method == "POST" else []
    return "\r\n".join(lines).encode("utf-8") + b"\r\n\r\n" + asked.body


@settings(max_examples=400, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(ASKED)
@example(
    Asked(
        "POST", "/v1/chat/completions", [], b'{"model":"demo","stream":true,"messages":[{"role":"user","content":"x"}]}', True
    )
)
def test_surface(demo: Gateway, asked: Asked) -> None:
    """One answer, whole and at once; an error in the dialect that was asked in, with our code, an id, and no secret."""
    began = time.monotonic()
    answers = list(parse(demo.exchange(wire(asked, demo.key), timeout=10)))
    assert time.monotonic() - began < 5
    assert len(answers) == 1, answers
    answer = answers[0]
    assert asked.method == "HEAD" or not answer.cut
    assert answer.headers["x-request-id"]
    assert answer.headers["x-request-id"] != "mine"
    assert 200 <= answer.status < 600
    code = answer.headers.get("x-aigw-error", "")
    assert not code.startswith("gateway_"), answer
    assert answer.status not in {500, 501}
    assert (answer.status >= 400) == bool(code), answer
    assert demo.key.encode() not in answer.body
    assert b"planted" not in answer.body
    assert "server" not in answer.headers or "aiohttp" not in answer.headers["server"].lower()
    if asked.method == "HEAD":
        assert not answer.body or b"no valid HTTP" in answer.body  # what cannot be read has no method either
    elif code:
        assert answer.headers["content-type"].startswith("application/json")
        error = answer.json["error"]
        assert error["message"]
        assert error["aigw_code"] == code
        if answer.json.get("type") == "error":
            assert "messages" in asked.path or "anthropic-version: 2023-06-01" in asked.headers
        else:
            assert error["request_id"] == answer.id
    elif answer.headers.get("content-type", "").startswith("application/json"):
        assert isinstance(answer.json, dict)


def test_it_is_as_it_was(demo: Gateway) -> None:
    """After all that: nothing under way, no complaint on the terminal, and the next caller is served."""
    demo.assert_calm()
    eventually(lambda: demo.metrics().get("aigw_exchanges_active", 0.0) == 0.0)
    with demo.connect() as raw:
        raw.sendall(wire(Asked("GET", "/healthz", [], b"", False), ""))
        assert raw.recv(100).startswith(b"HTTP/1.1 200")
