"""Tokens of somebody's own login in the place of keys, at a real server."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.access.test_jwt import Signer, b64, jwks
from tests.e2e.world import HELLO, Gateway, eventually

CONFIG = """
[providers.demo]

[auth.jwt]
issuer = "https://login.example"
audience = "aigw"
jwks = "{jwks}"
group_claim = "groups"
groups = ["search", "small"]

[routes.other]
targets = [{{provider = "demo", model = "demo"}}]

[groups.search]
models = ["demo"]

[groups.small]
rpm = 1
"""


@pytest.fixture(scope="module")
def signers(tmp_path_factory: pytest.TempPathFactory) -> list[Signer]:
    folder = tmp_path_factory.mktemp("keys")
    return [Signer(folder, "RS256", "old"), Signer(folder, "ES256", "new")]


def claims(name: str = "alice", **more: Any) -> dict[str, Any]:
    base = {
        "iss": "https://login.example",
        "aud": ["aigw"],
        "sub": name,
        "exp": time.time() + 600,
        "groups": ["staff", "search"],
    }
    return base | more


class Login:
    """A login service: its JWKS by HTTP."""

    def __init__(self) -> None:
        self.answer = b"{}"
        self.asked = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                self.send_response(200)
                self.send_header("content-length", str(len(outer.answer)))
                self.end_headers()
                self.wfile.write(outer.answer)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/jwks.json"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def login() -> Iterator[Login]:
    service = Login()
    yield service
    service.close()


def test_a_token_is_a_key(own: Callable[..., Gateway], tmp_path: Path, signers: list[Signer]) -> None:
    """Its consumer and group stand in the record, and the group's terms hold; in any place where a key may be."""
    file = tmp_path / "jwks.json"
    file.write_bytes(jwks(*signers))
    gateway = own(CONFIG.format(jwks=file)).start()
    for signer in signers:
        answer = gateway.ask(HELLO, key=signer.token(claims()))
        assert answer.status == 200
        record = gateway.record(answer.id)
        assert (record.consumer, record.consumer_id, record.group) == ("alice", "jwt:alice", "search")
    token = signers[0].token(claims())
    assert gateway.ask(HELLO, key="", headers={"x-api-key": token}).status == 200
    refused = gateway.ask(HELLO | {"model": "other"}, key=token)
    assert (refused.status, refused.headers["x-aigw-error"]) == (403, "policy_forbidden")
    bob = signers[1].token(claims("bob", groups="small"))
    assert [gateway.ask(HELLO, key=bob).status for _ in range(2)] == [200, 429]
    listed = gateway.ask(None, "/v1/models", method="GET", key=token)
    assert [one["id"] for one in listed.json["data"]] == ["demo"]
    assert token not in "\n".join(gateway.lines)


def unsigned(header: dict[str, Any], body: dict[str, Any]) -> str:
    return f"{b64(json.dumps(header).encode())}.{b64(json.dumps(body).encode())}."


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (lambda one: one.token(claims(exp=time.time() - 3600)), "policy_key_expired"),
        (lambda one: one.token(claims(iss="https://evil.example")), "policy_key_invalid"),
        (lambda one: one.token(claims(aud="other")), "policy_key_invalid"),
        (lambda one: one.token(claims(groups=["nobody"])), "policy_forbidden"),
        (lambda one: unsigned({"alg": "none"}, claims()), "policy_key_invalid"),
        (
            lambda one: unsigned({"alg": "HS256", "kid": one.id}, claims()) + base64.b64encode(b"x" * 32).decode(),
            "policy_key_invalid",
        ),
        (lambda one: one.token(claims())[:-4] + "AAAA", "policy_key_invalid"),
    ],
    ids=["ended", "issuer", "audience", "group", "alg none", "hs256", "changed"],
)
def test_a_wrong_token_opens_nothing(shared: Gateway, signers: list[Signer], made: Callable[[Signer], str], code: str) -> None:
    answer = shared.ask(HELLO, key=made(signers[0]))
    assert answer.status in (401, 403)
    assert answer.headers["x-aigw-error"] == code


@pytest.fixture(scope="module")
def shared(make: Callable[..., Gateway], tmp_path_factory: pytest.TempPathFactory, signers: list[Signer]) -> Gateway:
    file = tmp_path_factory.mktemp("jwks") / "jwks.json"
    file.write_bytes(jwks(*signers))
    return make(CONFIG.format(jwks=file))


def test_keys_that_change(own: Callable[..., Gateway], login: Login, signers: list[Signer]) -> None:
    """A token signed with a new key is nobody's fault: 503 until the keys were read anew, and then it is good. Made-up key
    names do not have them read again and again, and are a wrong key."""
    old, new = signers
    login.answer = b"not ready"
    gateway = own(CONFIG.format(jwks=login.url)).start()
    token = old.token(claims())
    early = gateway.ask(HELLO, key=token)
    assert (early.status, early.headers["x-aigw-error"], early.headers["retry-after"]) == (503, "gateway_internal", "1")
    login.answer = jwks(old)
    eventually(lambda: gateway.ask(HELLO, key=token).status == 200, within=15)
    asked = login.asked
    strange = new.token(claims(), kid="made-up")
    statuses = [gateway.ask(HELLO, key=strange).status for _ in range(10)]
    assert set(statuses) == {401}, "they were read a moment ago"
    assert login.asked == asked
    key = gateway.create_key("carol")["key"]
    eventually(lambda: gateway.ask(HELLO, key=key).status == 200)


def test_a_reload_keeps_the_keys(own: Callable[..., Gateway], login: Login, signers: list[Signer]) -> None:
    """Also while the login service is away; without the table tokens are strangers."""
    login.answer = jwks(*signers)
    config = CONFIG.format(jwks=login.url)
    gateway = own(config).start()
    token = signers[0].token(claims())
    eventually(lambda: gateway.ask(HELLO, key=token).status == 200, within=15)
    login.answer = b"away"
    begin = len(gateway.lines)
    gateway.write_config(config + "\n[limits]\nrpm = 100\n")
    gateway.said("config .* reloaded", begin)
    assert gateway.ask(HELLO, key=token).status == 200
    begin = len(gateway.lines)
    gateway.write_config("[providers.demo]\n")
    gateway.said("config .* reloaded", begin)
    assert gateway.ask(HELLO, key=token).status == 401
