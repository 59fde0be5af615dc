"""A real `aigw serve` in front of clouds that look at signatures: Bedrock's binary streams, Vertex AI's tokens."""

from __future__ import annotations

import base64
import calendar
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from aigw.protocols import eventstream
from aigw.providers import rs256, sigv4
from tests.e2e.far_side import END, FarSide, answer, chunk, completion
from tests.e2e.world import Gateway
from tests.loopback import Peer, Request
from tests.protocols.translation.bedrock_converse.test_stream import STREAM
from tests.providers.clouds import pem, service_account

PAIR = "AKIDEXAMPLE:wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
CALLER = "the-key-of-ci-0123456789"
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
ASK = {"model": "cloud", "messages": [{"role": "user", "content": "hi"}], "tools": TOOLS}


@pytest.fixture
def far() -> Iterator[FarSide]:
    with FarSide() as side:
        yield side


def signed(request: Request) -> bool:
    """Whether AWS would let this in."""
    fields = {name.decode(): value.decode() for name, value in request.headers.items()}
    moment = calendar.timegm(time.strptime(fields["x-amz-date"], "%Y%m%dT%H%M%SZ"))
    wanted = sigv4.sign(
        "POST",
        fields["host"],
        request.line.split(b" ")[1].decode(),
        {"content-type": fields["content-type"]},
        request.body,
        sigv4.credentials_of(PAIR),
        region="us-east-1",
        service="bedrock",
        now=moment,
    )
    return abs(moment - time.time()) < 60 and fields["authorization"] == wanted["authorization"]


async def bedrock(peer: Peer, request: Request, number: int) -> None:
    if not signed(request):
        await peer.send(answer(403, {"message": "no"}, "x-amzn-errortype: InvalidSignatureException"))
        return
    path = request.line.split(b" ")[1]
    if path.endswith(b"/converse-stream"):
        kind = eventstream.CONTENT_TYPE.decode()
        await peer.send(f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n".encode())
        body = bytearray(STREAM)
        if b"break me" in request.body:
            body[-10] ^= 1
        for at in range(0, len(body), 97):
            await peer.send(chunk(bytes(body[at : at + 97])))
        await peer.send(END)
        return
    message = {"role": "assistant", "content": [{"text": "Rain."}]}
    usage = {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}
    await peer.send(answer(200, {"output": {"message": message}, "stopReason": "end_turn", "usage": usage}))


def served(folder: Path, config: str) -> Gateway:
    gateway = Gateway(folder, f'[consumers.ci]\nkey = "{CALLER}"\n{config}').start()
    gateway.key = CALLER
    return gateway


def test_bedrock(far: FarSide, tmp_path: Path) -> None:
    """Plain, as a stream with tools, for callers of two APIs; and a wrong checksum is no answer."""
    far.scripts["bedrock"] = bedrock
    gateway = served(
        tmp_path,
        f'[providers.bedrock]\nbase_url = "http://127.0.0.1:{far.port}/bedrock"\nkeys = ["{PAIR}"]\n'
        '[routes.cloud]\ntargets = [{provider = "bedrock", model = "us.anthropic.claude-sonnet-4-20250514-v1:0"}]\n'
        "retries = 0\n",
    )
    try:
        plain = gateway.ask(ASK)
        assert plain.status == 200, plain.body
        assert plain.json["choices"][0]["message"]["content"] == "Rain."
        assert plain.json["usage"]["prompt_tokens"] == 3
        stream = gateway.ask(ASK | {"stream": True, "stream_options": {"include_usage": True}})
        chunks = [json.loads(event[6:]) for event in stream.events if event != b"data: [DONE]"]
        deltas = [one["choices"][0]["delta"] for one in chunks if one["choices"]]
        assert "".join(delta.get("content") or "" for delta in deltas) == "你好"
        calls = [call for delta in deltas for call in delta.get("tool_calls") or []]
        assert "".join(call["function"].get("arguments", "") for call in calls if call["index"] == 0) == '{"at":"x"}'
        assert [one for one in chunks if one.get("usage")][-1]["usage"]["prompt_tokens"] == 5
        assert gateway.record(stream.id).input == 5
        asked = json.loads(far.seen["bedrock"][0].request.body)
        assert asked["toolConfig"]["tools"][0]["toolSpec"]["name"] == "look"
        broken = gateway.ask(ASK | {"stream": True, "messages": [{"role": "user", "content": "break me"}]})
        assert b"broken stream" in broken.body
        gateway.assert_calm()
    finally:
        gateway.close()


def test_vertex(far: FarSide, tmp_path: Path) -> None:
    """The service account is exchanged once, however many ask; Gemini and Claude are found each at its own address."""
    key = rs256.read_key(pem())

    async def token(peer: Peer, request: Request, number: int) -> None:
        said, _, proof = parse_qs(request.body.decode())["assertion"][0].rpartition(".")
        proven = int.from_bytes(base64.urlsafe_b64decode(proof + "=="), "big")
        good = hex(pow(proven, key.e, key.n)).endswith(hashlib.sha256(said.encode()).hexdigest())
        assert good
        await peer.send(answer(200, {"access_token": "ya29.ours", "expires_in": 3599, "token_type": "Bearer"}))

    async def vertex(peer: Peer, request: Request, number: int) -> None:
        assert request.headers[b"authorization"] == b"Bearer ya29.ours"
        if b":rawPredict" in request.line:
            body = json.loads(request.body)
            assert body["anthropic_version"] == "vertex-2023-10-16"
            assert "model" not in body
            said = {"id": "msg_1", "type": "message", "role": "assistant", "model": "c", "stop_reason": "end_turn"}
            usage = {"input_tokens": 3, "output_tokens": 2}
            await peer.send(answer(200, said | {"content": [{"type": "text", "text": "Claude."}], "usage": usage}))
        else:
            assert b"/endpoints/openapi/chat/completions" in request.line
            await peer.send(answer(200, completion("Gemini.")))

    far.scripts |= {"token": token, "vertex": vertex}
    account = tmp_path / "account.json"
    account.write_text(json.dumps(json.loads(service_account(f"http://127.0.0.1:{far.port}/token")), indent=2))
    account.chmod(0o600)
    gateway = served(
        tmp_path / "gateway",
        f'[providers.vertex]\nbase_url = "http://127.0.0.1:{far.port}/vertex/v1"\nkeys = ["file:{account}"]\n'
        '[routes.cloud]\ntargets = [{provider = "vertex", model = "gemini-3.8-flash"}]\n'
        '[routes.claude]\ntargets = [{provider = "vertex", model = "claude-opus-5-5@default"}]\n',
    )
    try:
        first = gateway.ask(ASK)
        assert first.status == 200, first.body
        assert first.json["choices"][0]["message"]["content"] == "Gemini."
        assert gateway.ask(ASK | {"model": "claude"}).json["choices"][0]["message"]["content"] == "Claude."
        assert len(far.seen["token"]) == 1
        gateway.assert_calm()
    finally:
        gateway.close()
