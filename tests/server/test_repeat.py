"""A head that comes again means what it meant; nothing else is taken for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser, RawRequestMessage
from hypothesis import given, strategies as st

from aigw.server.repeat import Repeat, learn
from tests.data_port import BEARER, DEMO, HELLO, Running, request, serving

CHAT = "/v1/chat/completions"


def read(block: bytes) -> RawRequestMessage:
    """aiohttp's reading of the request in *block*."""
    loop = asyncio.new_event_loop()
    try:
        parser = HttpRequestParser(BaseProtocol(loop), loop, 65536, max_line_size=8190, max_headers=128, max_field_size=8190)
        messages, _, _ = parser.feed_data(block)
        return messages[0][0]
    finally:
        loop.close()


def learned(block: bytes) -> Repeat | None:
    return learn(block, read(block))


def test_the_same_head_with_another_body() -> None:
    """Bodies of any length, one digit more or less too."""
    repeat = learned(request("POST", CHAT, b"x" * 300))
    assert repeat is not None
    for length in (1, 9, 10, 99, 300, 1000, 123_456):
        assert repeat.body_of(request("POST", CHAT, b"y" * length)) == b"y" * length
    assert repeat.message.path == CHAT


OTHER = request("POST", CHAT, b"y" * 300)


@pytest.mark.parametrize(
    "block",
    [
        b"",
        OTHER[:-1],
        OTHER + b"z",
        OTHER + OTHER,
        OTHER[:40],
        request("POST", "/v1/embeddings", b"y" * 300),
        request("GET", CHAT),
        request("POST", CHAT, b"y" * 300, BEARER | {"x-more": "1"}),
        request("POST", CHAT, b"y" * 300, {"authorization": "Bearer another-key"}),
        request("POST", CHAT, b"y" * 300, version="1.0"),
        OTHER.replace(b"length: 300", b"length: 0300"),
        OTHER.replace(b"length: 300", b"length: +300"),
        OTHER.replace(b"length: 300", b"length: 300 "),
        OTHER.replace(b"length: 300", b"length: 301"),
        OTHER.replace(b"length: 300", b"length: "),
        OTHER.replace(b"length: 300", b"length: 9999999999999"),
        OTHER.replace(b"content-length", b"Content-Length"),
        request("POST", CHAT, b""),
    ],
)
def test_what_is_not_the_same(block: bytes) -> None:
    """Left to the parser: another byte anywhere, a part, more than one request, an odd length."""
    repeat = learned(request("POST", CHAT, b"x" * 300))
    assert repeat is not None
    assert repeat.body_of(block) is None


@pytest.mark.parametrize(
    "block",
    [
        request("GET", "/v1/models"),
        request("POST", CHAT, b""),
        request("POST", CHAT, b"xyz")[:-1],
        request("POST", CHAT, b"xyz") + b"P",
        request("POST", CHAT, b"xyz", BEARER | {"connection": "close"}),
        request("POST", CHAT, b"xyz", version="1.0"),
        request("POST", CHAT, b"xyz", BEARER | {"expect": "100-continue"}),
        request("POST", CHAT, b"xyz", BEARER | {"content-encoding": "gzip"}),
        request("POST", CHAT, None, BEARER | {"transfer-encoding": "chunked"}) + b"3\r\nxyz\r\n0\r\n\r\n",
        request("POST", CHAT, b"xyz", BEARER | {"connection": "upgrade", "upgrade": "websocket"}),
        request("POST", CHAT, b"xyz", BEARER | {f"x-{number}": "v" * 900 for number in range(10)}),
    ],
)
def test_what_is_not_learned(block: bytes) -> None:
    """Whatever is not one ordinary request, whole, and nothing else."""
    assert learned(block) is None


@given(st.binary(min_size=1, max_size=64), st.integers(0, 400), st.integers(0, 3))
def test_no_other_bytes_pass(noise: bytes, at: int, cut: int) -> None:
    """Bytes put in, or left out, anywhere in the head are never taken for the same head with the same meaning."""
    repeat = learned(request("POST", CHAT, b"x" * 300))
    assert repeat is not None
    end = OTHER.index(b"\r\n\r\n") + 4
    at = min(at, end)
    changed = OTHER[:at] + noise + OTHER[at + cut :]
    body = repeat.body_of(changed)
    if body is not None:  # then it is that head, with its own length
        head = changed[: len(changed) - len(body)]
        assert read(changed).headers["content-length"] == str(len(body))
        assert head.replace(b"%d" % len(body), b"300", 1) == OTHER[:end]


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[Running]:
    async with serving(tmp_path, DEMO.replace("port = 0\n", "port = 0\nmax_body = 5000\n", 1)) as running:
        yield running


def said(text: str) -> bytes:
    return json.dumps({"model": "demo", "messages": [{"role": "user", "content": text}]}).encode()


async def test_one_connection_many_questions(port: Running) -> None:
    """Each gets its own answer: the same head with other bodies, other heads between them, pieces, and two at once."""
    caller = await port.call()
    for text in ("one", "two", "a longer one", "two"):
        assert text in (await caller.ask("POST", CHAT, said(text))).json()["choices"][0]["message"]["content"]
    assert (await caller.ask("GET", "/v1/models")).status == 200
    assert (await caller.ask("POST", CHAT, said("behind a list"))).status == 200
    data = request("POST", CHAT, said("in pieces"))
    for at in range(0, len(data), 50):
        await caller.send(data[at : at + 50])
        await asyncio.sleep(0.002)
    assert b"in pieces" in (await caller.answer()).body
    await caller.send(request("POST", CHAT, said("first")) + request("POST", CHAT, said("second")))
    assert b"first" in (await caller.answer()).body
    assert b"second" in (await caller.answer()).body
    records = await port.records(8)
    assert len({record.id for record in records}) == len(records) == 8


async def test_ahead_of_an_answer(port: Running) -> None:
    """The same head again, while the answer before is still on its way: answered in order. Many more close it."""
    caller = await port.call()
    assert (await caller.ask("POST", CHAT, said("first"))).status == 200
    for text in ("a", "b", "c"):
        await caller.send(request("POST", CHAT, said(text)))
        await asyncio.sleep(0.001)
    for text in (b"a", b"b", b"c"):
        assert b"You said: " + text in (await caller.answer()).body
    for _ in range(40):
        await caller.send(request("POST", CHAT, said("much")))
    assert await caller.is_closed()


async def test_refusals_on_a_repeated_head(port: Running) -> None:
    """What the walk refuses it refuses the tenth time as the first: a bad body, one that is too large; and the key is looked at
    each time."""
    caller = await port.call()
    assert (await caller.ask("POST", CHAT, HELLO)).status == 200
    assert (await caller.ask("POST", CHAT, b"[]")).status == 400
    assert (await caller.ask("POST", CHAT, HELLO)).status == 200
    assert (await caller.ask("POST", CHAT, said("x" * 6000))).status == 413
    caller = await port.call()
    assert (await caller.ask("POST", CHAT, HELLO)).status == 200
    port.config.write_text(DEMO.replace("the-key-of-ci", "another-key-of-ci"))
    assert await port.server.reload()
    assert (await caller.ask("POST", CHAT, HELLO)).status == 401
