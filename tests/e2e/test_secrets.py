"""Secrets are planted wherever one can get into a gateway; then everything that comes out of it is searched for them."""

from __future__ import annotations

import base64
import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from aigw.config.scrub import forms
from tests.e2e.far_side import DONE, END, STREAM_HEAD, FarSide, Script, answer, chunk, completion, delta, plays, stream
from tests.e2e.world import Gateway, eventually
from tests.loopback import Peer, Request

# Provider keys, by where they come from. No two share a piece that could hide one behind the other.
LITERAL = "literal-Kq7wZ2rTn9XbVmA4"
FROM_FILE = "fromfile/Ye+5uHc8JpLs0Gd3"
FROM_ENV = "gsk_fromenvBw6iMf1oQx7tRv2N"
TOKEN = "hdrtoken-Sz4kDa9lPy3eCj8"
PROXY_PASSWORD = "pr0xy:Pa55/Wq8nUb"
ENV_PROXY = "envpr0xyHt5mXe2"
# Consumers'
CONSUMER = "consumerOg2yNp8sKw5xEd"
CONSUMER_ENV = "consumerenvTb3jVa6hMq9"

PROVIDERS = (LITERAL, FROM_FILE, FROM_ENV, TOKEN, PROXY_PASSWORD, ENV_PROXY)
HELLO = {"messages": [{"role": "user", "content": "hello"}]}


def sent(request: Request) -> str:
    """The credential that came with a request."""
    fields = request.headers
    return (fields.get(b"authorization", b"").removeprefix(b"Bearer ") or fields.get(b"x-api-key", b"")).decode()


def echoes(status: int, body: str, *fields: str, kind: str = "application/json") -> Script:
    """A provider that says *body* with its caller's key in it, as {key} or in another form."""

    async def script(peer: Peer, request: Request, number: int) -> None:
        key = sent(request)
        forms_of = {
            "{key}": key,
            "{base64}": base64.b64encode(f"user:{key}".encode()).decode(),
            "{url}": quote(key, safe=""),
            "{hex}": key.encode().hex(),
            "{masked}": f"{key[:7]}...{key[-4:]}",
            "{head}": key[:18],
            "{middle}": key[5:-3],
            "{token}": request.headers.get(b"x-secret-token", b"").decode(),
            "{proxy}": request.headers.get(b"proxy-authorization", b"").decode(),
        }
        said = [body, kind, *fields]
        for word, form in forms_of.items():
            said = [text.replace(word, form) for text in said]
        await peer.send(answer(status, said[0].encode(), *said[2:], kind=said[1]))

    return script


def events(*more: bytes) -> Script:
    """A stream whose events hold the key."""

    async def script(peer: Peer, request: Request, number: int) -> None:
        key = sent(request).encode()
        await peer.send(STREAM_HEAD + b"".join(chunk(event.replace(b"{key}", key)) for event in more) + END)

    return script


def error(text: str, **more: Any) -> str:
    return json.dumps({"error": {"message": text, "type": "invalid_request_error", "code": "bad"} | more})


ECHO = {
    "body400": echoes(400, error("you sent {key}, {base64}, {url}, {hex}")),
    "body401": echoes(401, error("Incorrect API key provided: {key} ({masked}). Find yours at https://x")),
    "body422": echoes(422, error("shortened: {masked} {head}... ...{middle}")),
    "body500": echoes(500, "upstream says Authorization: Bearer {key}", kind="text/plain"),
    "body429": echoes(429, error("limit of key {key} and token {token}")),
    "html": echoes(200, "<html><title>{key}</title>{base64}</html>", kind="text/html"),
    "html502": echoes(502, "<html>{key} {hex}</html>", kind="text/html"),
    "redirect": echoes(302, "", "location: https://elsewhere.test/?api_key={key}"),
    "headers": echoes(200, json.dumps(completion()), "x-request-id: r-{key}", "set-cookie: k={key}", "openai-version: {key}"),
    "kind": echoes(200, json.dumps(completion()), kind="application/json; k={key}"),
    "headers500": echoes(500, error("no"), "x-request-id: r-{base64}", "retry-after: {key}"),
    "good": echoes(200, json.dumps(completion("your headers: {key}"))),
    "names": echoes(200, json.dumps(completion(model="m-{key}") | {"service_tier": "{key}"})),
    "wrapped": echoes(200, error("wrapped {key}")),
    "first": events(delta("{key}"), DONE),
    "event": events(delta("fine"), b'data: {"error":{"message":"bad {key}","type":"server_error"}}\n\n'),
    "event_first": events(b'data: {"error":{"message":"bad {key}","code":"x"}}\n\n'),
    "garbage": events(b"data: {key} no json\n\n", DONE),
    "": echoes(407, "proxy login {proxy}", kind="text/plain"),
    "ok": plays(answer(200, completion())),
    "listed": plays(answer(200, {"object": "list", "data": []})),
}


async def lists(peer: Peer, request: Request, number: int) -> None:
    """A provider whose list of models names the key."""
    if b"GET" in request.line[:4]:
        names = [{"id": f"model-{sent(request)}", "object": "model"}, {"id": "listed-model", "object": "model"}]
        await peer.send(answer(200, {"object": "list", "data": names}))
    else:
        await peer.send(stream(delta("x"), DONE) if b'"stream":true' in request.body else answer(200, completion()))


class Planted:
    """A gateway with a secret in every place, and all that came out of it."""

    def __init__(self, folder: Path, far: FarSide) -> None:
        far.scripts = {**ECHO, "lists": lists}
        folder.mkdir(parents=True, exist_ok=True)
        key_file = folder / "provider.key"
        key_file.write_text(FROM_FILE + "\n")
        key_file.chmod(0o600)
        tables = []
        for name in ECHO:
            key = json.dumps([f"file:{key_file}" if len(name) % 2 else LITERAL])
            if name:
                listing = "list_models = false\n"
                tables.append(
                    f'[providers.{name}]\nkind = "openai-compatible"\nbase_url = "{far.url(name)}"\nkeys = {key}\n{listing}'
                    f'headers = {{"x-secret-token" = "{TOKEN}"}}\n'
                )
        proxy = f"http://me:{quote(PROXY_PASSWORD, safe='')}@127.0.0.1:{far.port}"
        tables += [
            f'[providers.lists]\nkind = "openai-compatible"\nbase_url = "{far.url("lists")}"\nkeys = ["env:PLANTED_KEY"]\n',
            '[providers.proxied]\nkind = "openai-compatible"\nbase_url = "http://far.test/v1"\nkeys = ["env:PLANTED_KEY"]\n',
            f'list_models = false\nproxy = "{proxy}"\n',
            f'[consumers.ci]\nkey = "{CONSUMER}"\n[consumers.gitops]\nkey = "env:PLANTED_CONSUMER"\n',
            '[log]\nlevel = "debug"\nexchanges = "all"\n',
            "[auth]\nfailures_per_minute = 0\n",
        ]
        self.gateway = Gateway(
            folder,
            "".join(tables),
            PLANTED_KEY=FROM_ENV,
            PLANTED_CONSUMER=CONSUMER_ENV,
            FTP_PROXY=f"http://me:{ENV_PROXY}@127.0.0.1:9",
        ).start()
        self.gateway.key = CONSUMER
        self.outputs: dict[str, bytes] = {}
        made = self.gateway.create_key("stored")
        self.stored = str(made["key"])

    def ask(self, what: str, body: Any = None, path: str = "/v1/chat/completions", **more: Any) -> None:
        """One request; its answer is one of the outputs."""
        try:
            got = self.gateway.ask(body, path, **more)
        except (http.client.HTTPException, ConnectionError) as failure:
            self.outputs[f"answer: {what}"] = repr(failure).encode()
            return
        self.outputs[f"answer: {what}"] = repr(got.headers).encode() + got.body

    def raw(self, what: str, data: bytes) -> None:
        self.outputs[f"answer: {what}"] = self.gateway.exchange(data, timeout=3, half_close=False)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planted]:
    """Everything was done to it, and everything it says was collected, once."""
    with FarSide() as far:
        it = Planted(tmp_path_factory.mktemp("planted"), far)
        try:
            provoke(it)
            collect(it)
            yield it
        finally:
            it.gateway.close()


def provoke(it: Planted) -> None:
    eventually(lambda: it.gateway.ask(HELLO | {"model": "ok/m"}, key=it.stored).status == 200, 5)
    for name in ECHO:
        if name:
            it.ask(f"{name}, plain", HELLO | {"model": f"{name}/m"})
            it.ask(f"{name}, stream", HELLO | {"model": f"{name}/m", "stream": True})
    it.ask("proxied", HELLO | {"model": "proxied/m"})
    # the caller's keys, in every header and where none belongs
    for key in (CONSUMER, CONSUMER_ENV, it.stored):
        begin = HELLO | {"model": "ok/m"}
        it.ask(f"{key}: x-api-key", begin, key="", headers={"x-api-key": key})
        it.ask(f"{key}: x-goog-api-key", begin, key="", headers={"x-goog-api-key": key})
        it.ask(f"{key}: query", begin, f"/v1/chat/completions?key={key}", key="")
        it.ask(f"{key}: basic", begin, key="", headers={"authorization": "Basic " + base64.b64encode(key.encode()).decode()})
        it.ask(f"{key}: twice", begin, key=key, headers={"x-api-key": key + "x"})
        it.ask(f"{key}: bare", begin, key="", headers={"authorization": key})
        for name in ("user-agent", "x-request-id", "openai-beta", "idempotency-key", "x-stainless-timeout", "expect", "cookie"):
            it.ask(f"{key}: {name}", begin, headers={name: key})
        it.ask(f"{key}: content-type", begin, headers={"content-type": f"text/{key}"})
        it.ask(f"{key}: content-encoding", begin, headers={"content-encoding": key})
        it.ask(f"{key}: user", begin | {"user": key})
        it.ask(f"{key}: user in words", begin | {"user": f"my key is {key[:-2]}"})
        it.ask(f"{key}: metadata", begin | {"metadata": {"user_id": key}})
        it.ask(f"{key}: model", HELLO | {"model": key})
        it.ask(f"{key}: model of a provider", HELLO | {"model": f"ok/{key}"})
        it.ask(f"{key}: model, failing", HELLO | {"model": f"body500/{key}"})
        it.ask(f"{key}: path", None, f"/v1/{key}", method="GET")
        it.ask(f"{key}: models path", None, f"/v1/models/{key}", method="GET")
        it.ask(f"{key}: deep", b'{"model":"' + key.encode() + b'","messages":' + b"[" * 50_000)
        it.ask(f"{key}: no json", b'{"model": ' + key.encode())
        it.ask(f"{key}: anthropic", HELLO | {"model": key, "metadata": {"user_id": key}}, "/v1/messages")
        line = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
        it.raw(f"{key}: NUL", line + f"authorization: Bearer {key}\0\r\ncontent-length: 0\r\n\r\n".encode())
        it.raw(f"{key}: fold", line + f"authorization: Bearer\r\n {key}\r\n\r\n".encode())
        it.raw(f"{key}: no colon", line + f"authorization Bearer {key}\r\n\r\n".encode())
        it.raw(f"{key}: long", line + f"authorization: Bearer {key * 800}\r\n\r\n".encode())
        it.raw(f"{key}: method", f"{key} / HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        it.raw(f"{key}: host", f"GET /v1/models HTTP/1.1\r\nhost: {key}\r\nhost: {key}\r\n\r\n".encode())
        it.raw(f"{key}: length", line + f"content-length: {key}\r\n\r\n".encode())
    it.ask("a good one at the end", HELLO | {"model": "ok/m"})


def collect(it: Planted) -> None:
    gateway = it.gateway
    for path in ("/v1/models", "/healthz", "/readyz", "/nowhere"):
        it.ask(f"other caller: {path}", None, path, method="GET", key=it.stored)
    it.outputs["metrics"] = gateway.ask(None, "/metrics", method="GET", port=gateway.admin_port).body
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(gateway.data_dir / "control.sock"))
        raw.sendall(b"GET /state HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        it.outputs["state"] = b"".join(iter(lambda: raw.recv(65536), b""))
    eventually(lambda: len(gateway.records()) > 100 and not gateway.journalled(), 10)
    commands = ["config show", "stats --json", "stats --by provider --json", "stats --by consumer --json", "doctor --json"]
    commands += ["status --json", "keys --json", "providers --json", "models --json", "config check", "routes --json"]
    for command in commands:
        done = gateway.aigw(*command.split())
        it.outputs[f"aigw {command}"] = (done.stdout + done.stderr).encode()
    gateway.write_config(
        gateway.config.read_text().partition("[admin]\nport = 0\n")[2] + f'\n[routes."{CONSUMER}"]\ntargets = 3\n'
    )
    gateway.said("config not reloaded")
    process = Path(f"/proc/{gateway.process.pid}")
    if process.exists():
        it.outputs["command line"] = (process / "cmdline").read_bytes()
        assert "Max core file size        1 " in (process / "limits").read_text()
    gateway.stop()
    assert not list(gateway.folder.glob("**/core*"))
    for path in gateway.data_dir.rglob("*"):
        if path.is_file() and path.name != "operator.key":
            it.outputs[f"file: {path.relative_to(gateway.data_dir)}"] = path.read_bytes()
    it.outputs["log"] = "\n".join(gateway.lines).encode()


def leaks(output: bytes, secret: str) -> list[str]:
    """Forms, and runs of 12 characters, of *secret* in *output*."""
    pieces = {secret[at : at + 12] for at in range(len(secret) - 11)}
    return [form for form in forms(secret) | pieces if form.encode() in output]


@pytest.mark.parametrize("secret", PROVIDERS)
def test_provider_secrets_are_nowhere(planted: Planted, secret: str) -> None:
    """No answer to anybody, no file, no line and no command shows a key of ours, or a proxy's password."""
    assert len(planted.outputs) > 150
    found = {name: leaks(output, secret) for name, output in planted.outputs.items()}
    assert {name: what for name, what in found.items() if what} == {}


@pytest.mark.parametrize("which", ["config", "environment", "store"])
def test_consumer_keys_are_nowhere_but_with_their_owner(planted: Planted, which: str) -> None:
    """A caller's own key may be in what it is told itself (it named a model so); it is in nothing that others can see."""
    secret = {"config": CONSUMER, "environment": CONSUMER_ENV, "store": planted.stored.rpartition("-")[2]}[which]
    shared = {name: output for name, output in planted.outputs.items() if not name.startswith("answer: ") or "other" in name}
    assert {"log", "metrics", "state", "file: aigw.db"} <= shared.keys()
    assert {name: found for name, output in shared.items() if (found := leaks(output, secret))} == {}


def test_malformed_requests_repeat_nothing(planted: Planted) -> None:
    """What is no HTTP is answered without a word of it, also to its sender."""
    names = ("NUL", "fold", "no colon", "long", "method", "host", "length")
    answers = {name: output for name, output in planted.outputs.items() if name.rpartition(": ")[2] in names}
    assert len(answers) == 3 * len(names)
    for name, output in answers.items():
        assert CONSUMER.encode() not in output, name
        assert planted.stored.encode() not in output, name


def test_what_was_planted_was_at_work(planted: Planted) -> None:
    """The search proves something: providers were asked with each key, and what they said came through but for the key."""
    outputs = planted.outputs
    assert b"[redacted]" in outputs["answer: body400, plain"]
    assert b"your headers: [redacted]" in outputs["answer: good, plain"]
    assert b"[redacted]" in outputs["answer: first, stream"]
    assert b"listed-model" in outputs["answer: other caller: /v1/models"]
    assert b"[redacted]" in outputs["file: aigw.db"]
    assert b"[redacted]" in outputs["log"]
    assert b"provider_" in outputs["metrics"]
