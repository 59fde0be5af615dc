"""What is particular to HTTP, in bytes on the wire; what every sink must do is in tests/contracts/test_sink.py."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.data_port import HELLO, Running, request, serving
from tests.walk import EVENTS, JSON, Play, Scripted, answers, streams

CHAT = "/v1/chat/completions"


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[Running]:
    async with serving(tmp_path) as running:
        yield running


async def wire(port: Running, play: Play, *, stream: bool = False, version: str = "1.1", path: str = CHAT) -> bytes:
    """All that a caller who asks for `connection: close` receives, its id made plain."""
    port.server.gateway.pipeline.attempter.transport = Scripted(play)
    caller = await port.call()
    body = HELLO.replace(b'"demo"', b'"demo","stream":true') if stream else HELLO
    headers = {"authorization": "Bearer the-key-of-ci", "connection": "close"}
    await caller.send(request("POST", path, body, headers, version=version))
    data = await caller.reader.read()
    at = data.index(b"req_")
    return data[:at] + b"ID" + data[data.index(b"\r\n", at) :]


ANSWER = b'{"choices":[]}'


async def test_a_whole_answer(port: Running) -> None:
    """A length, no chunks; of the provider's headers only what is the caller's business."""
    secret = [(b"set-cookie", b"a=b"), (b"openai-organization", b"org"), (b"x-ratelimit-remaining-requests", b"1")]
    data = await wire(port, answers(ANSWER, 200, JSON, *secret))
    assert data == (
        b"HTTP/1.1 200 OK\r\nx-request-id: ID\r\ncontent-type: application/json\r\nx-aigw-provider: demo\r\n"
        b"x-aigw-model: demo\r\ncontent-length: 14\r\nconnection: close\r\n\r\n" + ANSWER
    )


async def test_a_stream(port: Running) -> None:
    """Chunks, one for each block, the last one empty."""
    event = b'data: {"choices":[]}\n\n'
    data = await wire(port, streams(event, b"data: [DONE]\n\n"), stream=True)
    assert data == (
        b"HTTP/1.1 200 OK\r\nx-request-id: ID\r\ncontent-type: text/event-stream\r\nx-aigw-provider: demo\r\n"
        b"x-aigw-model: demo\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        b"16\r\n" + event + b"\r\ne\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
    )


async def test_a_stream_for_an_old_caller(port: Running) -> None:
    """HTTP/1.0 knows no chunks: the bare events, and the connection's end."""
    event = b'data: {"choices":[]}\n\n'
    data = await wire(port, streams(event), stream=True, version="1.0")
    head, _, body = data.partition(b"\r\n\r\n")
    assert body == event
    assert b"transfer-encoding" not in head
    assert head.endswith(b"connection: close")


async def test_a_long_answer_keeps_its_length(port: Running) -> None:
    """What the provider promised is promised on."""
    sound = b"x" * 300_000
    data = await wire(port, answers(sound, 200, (b"content-type", b"audio/mpeg")), path="/v1/audio/speech")
    head, _, body = data.partition(b"\r\n\r\n")
    assert b"content-length: 300000" in head
    assert b"chunked" not in head
    assert body == sound


@pytest.mark.parametrize("name", ["demo/模型", "demo/a\\r\\nset-cookie: x=y", "demo/a\\u0085b"])
async def test_a_name_cannot_split_the_head(port: Running, name: str) -> None:
    """What is no plain text stays out of it."""
    port.server.gateway.pipeline.attempter.transport = Scripted(answers(ANSWER))
    answer = await port.ask("POST", CHAT, b'{"model":"%b","messages":[]}' % name.encode())
    assert answer.status in (200, 404)
    assert "set-cookie" not in answer.headers
    assert "x-aigw-model" not in answer.headers
    assert answer.whole


async def test_events_are_for_any_caller(port: Running) -> None:
    """An answer that streams although nobody asked for it still arrives whole."""
    data = await wire(port, streams(b'data: {"choices":[]}\n\n', b"data: [DONE]\n\n"))
    assert data.endswith(b"0\r\n\r\n")
    assert EVENTS[1] in data
