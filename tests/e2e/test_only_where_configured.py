"""The server connects to what its config names, and to nothing else, whatever it is asked: each connection it makes is written
down by an audit hook in its process, and by strace where there is one."""

# ruff: noqa: SIM905 - a list of forty quoted words reads worse

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import socket
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.far_side import ANTHROPIC, FarSide, provider
from tests.e2e.world import Gateway, eventually
from tests.faults import COMPLETION, MESSAGE, plays, whole

REQUESTS = 1000

INWARD = (
    "http://169.254.169.254/latest/meta-data/",
    "http://[::ffff:169.254.169.254]/",
    "http://[2002:a9fe:a9fe::]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://100.64.0.1/",
    "http://127.1:9/",
    "http://0x7f000001:9/",
    "http://0.0.0.0:9/",
    "http://localhost:9/",
    "http://metadata.google.internal/",
    "https://evil.example/v1",
    "file:///etc/passwd",
    "gopher://127.0.0.1:9/_x",
    "unix:///run/docker.sock",
    "//evil.example/v1",
    "evil.example:443",
    "http://user:password@127.0.0.1:9/",
)
"""Places nobody configured; the first are those that a request forgery would want."""

NAMES = (
    "api_base base_url baseURL api_url endpoint url uri host proxy proxies user_config extra_headers extra_query extra_body "
    "organization deployment_id api_version azure_endpoint vertex_project metadata callback webhook webhook_url logger_fn "
    "mock_response fallbacks router custom_llm_provider provider target redirect file_id file image_url input_file tools"
).split()

FIELDS = (
    "host x-forwarded-host x-forwarded-for x-forwarded-proto x-forwarded-port x-original-url x-rewrite-url forwarded via "
    "x-http-method-override x-portkey-custom-host x-portkey-provider x-litellm-api-base x-aigw-provider x-aigw-target "
    "x-upstream-host x-real-ip referer origin location destination proxy-authorization proxy-connection openai-organization "
    "openai-project api-base x-api-base x-base-url helicone-target-url cf-aig-custom-provider cookie te alt-svc"
).split()

PATHS = (
    "/v1/chat/completions",
    "/v1/messages",
    "/v1/embeddings",
    "/v1/chat/completions?api_base={place}",
    "/v1/chat/completions?url={place}&base_url={place}",
    "/v1/../../admin",
    "/v1/chat/completions/../../../secret",
    "/v1//chat//completions",
    "//evil.example/v1/chat/completions",
    "/v1/..%2f..%2fsecret",
    "/v1/chat/completions%3f@evil.example",
    "/v1/chat/completions;@evil.example",
    "/v1/files/{place}/content",
    "/v1/models/{place}",
    "/proxy/{place}",
    "/one/{place}",
    "/one/v1/../../{place}",
    "/two//evil.example/v1/x",
    "/one/%2e%2e/%2e%2e/two/x?url={place}",
    "/one/@evil.example/x",
    "/one/v1/..%2f..%2fsecret",
    "{place}",
    "http://evil.example/v1/chat/completions",
    "http://127.0.0.1:9/v1/messages",
    "/v1/chat/completions#@evil.example",
    "/v1/chat/completions\\@evil.example",
    "*",
)

HOOK = """
import os, sys
out = os.open({log!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
def hook(event, args):
    if event in {{"socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.gethostbyname", "subprocess.Popen"}}:
        os.write(out, (event + " " + repr(args[1:] if event == "socket.connect" else args) + "\\n").encode("utf-8", "replace"))
sys.addaudithook(hook)
"""


def odd_request(number: int, key: str) -> tuple[bytes, str]:
    """Request *number*: always the same one. Its bytes, and its path."""
    dice = random.Random(number)
    place = dice.choice(INWARD)
    path = dice.choice(PATHS).format(place=place) if dice.random() < 0.5 else dice.choice(PATHS[:3])
    models = [
        "m",
        "m",
        "one/m",
        place,
        f"openai/{place}",
        f"one/{place}",
        f"{place}/m",
        "../../m",
        "m?x=http://evil.example",
        "m\r\nHost: evil.example",
    ]
    pictures = [{"type": "text", "text": place}, {"type": "image_url", "image_url": {"url": place}}]
    pictures += [{"type": "image", "source": {"type": "url", "url": place}}, {"type": "file", "file": {"file_id": place}}]
    body: dict[str, object] = {
        "model": dice.choice(models),
        "max_tokens": 9,
        "messages": [{"role": "user", "content": pictures}],
    }
    body |= {name: dice.choice([place, {"url": place}, [place]]) for name in dice.sample(NAMES, 5)}
    data = json.dumps(body).encode()
    fields = [
        f"authorization: Bearer {key}",
        "content-type: application/json",
        f"content-length: {len(data)}",
        "connection: close",
    ]
    if "host" not in (chosen := dice.sample(FIELDS, 4)):
        fields.append("host: gateway")
    fields += [f"{name}: {place}" for name in chosen]
    dice.shuffle(fields)
    return f"POST {path} HTTP/1.1\r\n".encode() + "\r\n".join(fields).encode() + b"\r\n\r\n" + data, path


@pytest.fixture
def hooked(own: Callable[..., Gateway], far_side: FarSide, tmp_path: Path) -> tuple[Gateway, Path]:
    """A server whose every way out is written down, from before its first line of code."""
    folder, log = tmp_path / "hook", tmp_path / "connections"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HOOK.format(log=str(log)))
    far_side.scripts["one"] = plays(whole(COMPLETION, anthropic=False).wire)
    far_side.scripts["two"] = plays(whole(MESSAGE, anthropic=True).wire)
    config = provider("one", far_side.url("one"), 'models = ["*"]') + provider("two", far_side.url("two"), kind=ANTHROPIC)
    config += '[routes."*"]\ntargets = [{provider = "one"}, {provider = "two"}]\n'
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    gateway = own(config, PYTHONPATH=path)
    gateway.key = gateway.create_key("me")["key"]
    log.unlink()
    return gateway.start(), log


def ask_oddly(gateway: Gateway) -> list[int]:
    """All of them; the statuses."""

    def ask(number: int) -> int:
        data, _ = odd_request(number, gateway.key)
        answer = gateway.exchange(data, timeout=20)
        found = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
        return int(found[1]) if found else 0

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(ask, range(REQUESTS)))


def test_a_thousand_odd_requests_lead_nowhere_else(hooked: tuple[Gateway, Path], far_side: FarSide, tmp_path: Path) -> None:
    """Hosts, forwarding headers, absolute targets, models that look like URLs, `base_url` in the body, pictures and files by
    reference: each answered, each connection to the configured address and port, each path the configured one, no name asked
    for, no process started."""
    gateway, log = hooked
    traced = tmp_path / "strace"
    tracer = None
    if shutil.which("strace"):
        command = [
            "strace",
            "-f",
            "-qq",
            "-e",
            "trace=connect,sendto,sendmsg",
            "-p",
            str(gateway.process.pid),
            "-o",
            str(traced),
        ]
        tracer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        status = Path(f"/proc/{gateway.process.pid}/status")
        with contextlib.suppress(AssertionError):
            eventually(lambda: "TracerPid:\t0" not in status.read_text() or tracer.poll() is not None, within=5)
    try:
        statuses = ask_oddly(gateway)
    finally:
        if tracer is not None:
            tracer.terminate()
            tracer.wait(10)
    unanswered = {odd_request(number, "")[1] for number, status in enumerate(statuses) if not status}
    assert unanswered <= {"*"}  # what is no path at all may be hung up on
    assert statuses.count(200) > REQUESTS // 10
    assert 500 not in statuses
    ours = ("127.0.0.1", far_side.port)
    for line in log.read_text().splitlines():
        event, _, what = line.partition(" ")
        assert event in ("socket.connect", "socket.getaddrinfo"), line
        assert str(ours)[1:-1] in what or "control.sock" in what or ("127.0.0.1" in what and event == "socket.getaddrinfo"), (
            line
        )
    if tracer is not None and traced.exists() and (lines := traced.read_text().splitlines()):
        connects = [line for line in lines if "connect(" in line and "AF_INET" in line]
        assert connects, "strace saw nothing"
        assert all(f"htons({far_side.port})" in line and 'inet_addr("127.0.0.1")' in line for line in connects)
    paths = {seen.request.line for name in ("one", "two") for seen in far_side.seen[name]}
    assert paths <= {
        b"POST /one/v1/chat/completions HTTP/1.1",
        b"POST /one/v1/embeddings HTTP/1.1",
        b"POST /two/v1/messages HTTP/1.1",
        b"POST /one/v1/@evil.example/x HTTP/1.1",  # a raw path, below the provider's own address: an odd name, no place
    }
    assert set(far_side.seen) <= {"one", "two"}
    hosts = {seen.request.headers[b"host"] for name in ("one", "two") for seen in far_side.seen[name]}
    assert hosts == {b"127.0.0.1:%d" % far_side.port}
    allowed = {b"host", b"authorization", b"x-api-key", b"user-agent", b"accept", b"accept-encoding", b"content-type"}
    allowed |= {b"content-length", b"anthropic-version"}
    assert {name for every in ("one", "two") for seen in far_side.seen[every] for name in seen.request.headers} <= allowed


def test_a_redirect_is_not_followed(own: Callable[..., Gateway], far_side: FarSide) -> None:
    """Not even to a place that listens."""
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0.3)
        place = f"http://127.0.0.1:{trap.getsockname()[1]}/v1/chat/completions"
        for status in (301, 302, 303, 307, 308):
            far_side.scripts[f"r{status}"] = plays(
                f"HTTP/1.1 {status} Away\r\nlocation: {place}\r\nrefresh: 0; url={place}\r\ncontent-length: 0\r\n\r\n".encode()
            )
        gateway = own("\n".join(provider(f"r{status}", far_side.url(f"r{status}")) for status in (301, 302, 303, 307, 308)))
        gateway.key = gateway.create_key("me")["key"]
        gateway.start()
        for status in (301, 302, 303, 307, 308):
            answer = gateway.ask({"model": f"r{status}/m", "messages": []})
            assert (answer.status, answer.headers["x-aigw-error"]) == (502, "provider_bad_response")
            assert "location" not in answer.headers
        with pytest.raises(TimeoutError):
            trap.accept()
