"""From a request's head and body to an exchange: which operation, whose, how large, and what is refused unread."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aigw.protocols.operations import OPERATIONS
from aigw.server.inference import asked_at, new_id, operation_at
from tests.data_port import BEARER, DEMO, HELLO, KEY, Running, request, serving
from tests.walk import Scripted, answers

CHAT = "/v1/chat/completions"


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[Running]:
    async with serving(tmp_path, DEMO.replace("[server]", "[server]\nmax_body = 1048576")) as running:
        yield running


NAMED = {
    name: operation
    for name, operation in OPERATIONS.items()
    if operation.door and operation.method == "POST" and operation.path and "{id}" not in operation.path
}


@pytest.mark.parametrize("operation", NAMED.values(), ids=NAMED)
@pytest.mark.parametrize("prefix", ["/v1", "", "/v1/v1", "/openai/v1", "/anthropic", "/openai", "/api/v1", "//v1/"])
def test_every_operation_at_every_prefix(operation: object, prefix: str) -> None:
    """Clients add `/v1` once, twice or not at all; a slash or a query at the end changes nothing."""
    path = prefix + operation.path  # type: ignore[attr-defined]
    for ending in ("", "/", "?beta=true", "/?a=/v1/messages"):
        assert operation_at(path + ending) is operation


@pytest.mark.parametrize(
    "path", ["", "/", "/v1", "/v1/", "/v2/chat/completions", "/v1/chat", "/x/v1/messages", "/v1/chat/completions/x"]
)
def test_other_paths_are_no_operation(path: str) -> None:
    """Lenient, not blind."""
    assert operation_at(path) is None


@pytest.mark.parametrize("prefix", ["/v1beta", "/v1", "", "/v1beta/v1beta", "//v1beta/"])
@pytest.mark.parametrize(
    ("path", "operation", "model", "stream"),
    [
        ("/models/m:generateContent", "generate", "m", False),
        ("/models/m:streamGenerateContent?alt=sse", "generate", "m", True),
        ("/models/m:streamGenerateContent?key=k&alt=sse", "generate", "m", True),
        ("/models/m:streamGenerateContent", "generate_array", "m", True),
        ("/models/m:streamGenerateContent?alt=json", "generate_array", "m", True),
        ("/models/m%3AcountTokens", "count_gemini", "m", False),
        ("/models/openai/gpt-4o:embedContent", "embed_gemini", "openai/gpt-4o", False),
        ("/models/openai%2Fgpt-4o:batchEmbedContents/", "embed_gemini_batch", "openai/gpt-4o", False),
        ("/models/llama3:8b:generateContent", "generate", "llama3:8b", False),
        ("/models/%E6%A8%A1:generateContent", "generate", "模", False),
        ("/models/v1/models/m:generateContent", "generate", "v1/models/m", False),
    ],
)
def test_geminis_paths_say_model_and_stream(prefix: str, path: str, operation: str, model: str, stream: bool) -> None:
    """Names with slashes and colons, percent-encoded or not."""
    assert asked_at(prefix + path) == (OPERATIONS[operation], model, stream)


@pytest.mark.parametrize(
    "path", ["/v1beta/models/m", "/v1beta/models/m:predict", "/v1beta/models/:generateContent", "/v1beta/m:generateContent"]
)
def test_other_methods_are_none_of_ours(path: str) -> None:
    """Nor a model without a name."""
    assert operation_at(path) is None


GENERATE = b'{"contents":[{"parts":[{"text":"hello"}]}]}'


async def test_gemini_at_the_front(port: Running) -> None:
    """The key in the query opens as the header does, and goes no further; the record names the model; errors are Gemini's."""
    transport = port.server.gateway.pipeline.attempter.transport
    answer = await port.ask("POST", f"/v1beta/models/demo:generateContent?key={KEY}", GENERATE, {})
    assert answer.status == 200
    assert "hello" in answer.json()["candidates"][0]["content"]["parts"][0]["text"]
    answer = await port.ask("POST", "/v1beta/models/demo:streamGenerateContent", GENERATE, {"x-goog-api-key": KEY})
    assert (answer.headers["content-type"], answer.json()[-1]["candidates"][0]["finishReason"]) == ("application/json", "STOP")
    answer = await port.ask("POST", "/v1beta/models/demo:generateContent?key=wrong", GENERATE, {})
    assert (answer.status, answer.json()["error"]["status"]) == (401, "UNAUTHENTICATED")
    answer = await port.ask("POST", "/v1beta/models/nobody:generateContent", GENERATE)
    assert (answer.status, answer.json()["error"]["status"]) == (404, "NOT_FOUND")
    records = await port.records(4)
    assert [(record.operation, record.requested_model, record.stream) for record in records] == [
        ("generate", "demo", False),
        ("generate_array", "demo", True),
        ("generate", "demo", False) if records[2].requested_model else ("generate", "", False),
        ("generate", "nobody", False),
    ]
    transport = port.server.gateway.pipeline.attempter.transport = Scripted(answers({"choices": []}))
    await port.ask("POST", f"/v1beta/models/demo:generateContent?key={KEY}", GENERATE, {})
    assert KEY.encode() not in transport.requests[0].target.wire + transport.requests[0].extra + transport.requests[0].body


async def test_geminis_list_of_models(port: Running) -> None:
    """Where Google's SDK looks for it, and to whoever shows its key as Google's SDK does."""
    answer = await port.ask("GET", f"/v1beta/models?key={KEY}", headers={})
    assert [one["name"] for one in answer.json()["models"]] == ["models/demo"]
    answer = await port.ask("GET", "/v1/models/demo", headers={"x-goog-api-key": KEY})
    assert answer.json()["displayName"] == "demo"
    assert (await port.ask("GET", "/v1beta/models", headers={})).json()["error"]["status"] == "UNAUTHENTICATED"
    assert (await port.ask("GET", "/v1/models")).json()["object"] == "list"


def test_ids_differ_and_sort() -> None:
    """In the order they were given."""
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert ids == sorted(ids)
    assert all(one.startswith("req_") and one[4:].isalnum() for one in ids)


async def test_an_exchange_from_end_to_end(port: Running) -> None:
    """What the head says of the caller is in the record; the id in the answer is the record's."""
    answer = await port.ask("POST", CHAT, HELLO, BEARER | {"user-agent": "u" * 500})
    assert (answer.status, answer.headers["x-aigw-demo"]) == (200, "1")
    (record,) = await port.records(1)
    assert record.id == answer.headers["x-request-id"]
    assert (record.client_ip, record.client_agent) == ("127.0.0.1", "u" * 200)
    assert (record.bytes_in, record.bytes_out) == (len(HELLO), len(answer.body))
    assert (record.consumer, record.operation, record.outcome) == ("ci", "chat", "ok")


async def test_address_and_agent_may_be_left_out(tmp_path: Path) -> None:
    """[storage] client_ip and client_agent."""
    async with serving(tmp_path, DEMO + "[storage]\nclient_ip = false\nclient_agent = false\n") as port:
        await port.ask("POST", CHAT, HELLO, BEARER | {"user-agent": "curl"})
        (record,) = await port.records(1)
        assert (record.client_ip, record.client_agent) == ("", "")


@pytest.mark.parametrize("header", ["authorization", "x-api-key", "x-goog-api-key"])
async def test_where_a_key_may_be(port: Running, header: str) -> None:
    """As each SDK sends it."""
    value = f"Bearer {KEY}" if header == "authorization" else KEY
    assert (await port.ask("POST", CHAT, HELLO, {header: value})).status == 200


@pytest.mark.parametrize(("said", "wait"), [("7.5", 7.5), ("0", 600), ("-1", 600), ("soon", 600), ("nan", 600), ("1e9", 600)])
async def test_a_callers_patience(port: Running, said: str, wait: float) -> None:
    """x-stainless-timeout bounds the wait for the first byte; what is no such number says nothing."""
    transport = port.server.gateway.pipeline.attempter.transport = Scripted(answers({"choices": []}))
    assert (await port.ask("POST", CHAT, HELLO, BEARER | {"x-stainless-timeout": said})).status == 200
    assert transport.requests[0].first_byte_timeout == pytest.approx(wait, abs=0.5)


# --- bodies -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2_000, 64_000, 1_000_000])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_a_body_arrives_whole(port: Running, size: int, chunked: bool) -> None:
    """However it is cut up on the way."""
    transport = port.server.gateway.pipeline.attempter.transport = Scripted(answers({"choices": []}))
    body = json.dumps({"model": "demo", "messages": [], "x": "y" * size}).encode()
    caller = await port.call()
    if chunked:
        head = request("POST", CHAT, b"", BEARER | {"transfer-encoding": "chunked"}).replace(b"content-length: 0\r\n", b"")
        await caller.send(head)
        for start in range(0, len(body), 50_001):
            piece = body[start : start + 50_001]
            await caller.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        await caller.send(b"0\r\n\r\n")
    else:
        data = request("POST", CHAT, body)
        for start in range(0, len(data), 40_001):
            await caller.send(data[start : start + 40_001])
            await asyncio.sleep(0)
    assert (await caller.answer()).status == 200
    assert transport.requests[0].body == body
    assert (await caller.ask("POST", CHAT, HELLO)).status == 200, "the connection goes on"


async def test_too_large_by_its_head_is_refused_unread(port: Running) -> None:
    """Not a byte of it is waited for, and the connection ends with the answer."""
    caller = await port.call()
    await caller.send(request("POST", CHAT, b"", BEARER | {"content-length": "99999999"}))
    answer = await caller.answer()
    assert (answer.status, answer.json()["error"]["aigw_code"]) == (413, "caller_body_too_large")
    assert "1 MiB" in answer.json()["error"]["message"]
    assert answer.headers["connection"] == "close"
    (record,) = await port.records(1)
    assert (record.status, record.error) == (413, "caller_body_too_large")


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_who_sends_too_much_sees_the_refusal(port: Running, chunked: bool) -> None:
    """And not a reset, although it goes on sending for a while."""
    caller = await port.call()
    if chunked:
        head = request("POST", CHAT, b"", BEARER | {"transfer-encoding": "chunked"}).replace(b"content-length: 0\r\n", b"")
        await caller.send(head)
        block = b"%x\r\n%b\r\n" % (65536, b"x" * 65536)
        for _ in range(24):
            await caller.send(block)
    else:
        await caller.send(request("POST", CHAT, b"x" * 1_500_000))
    answer = await caller.answer()
    assert (answer.status, answer.whole) == (413, True)


@pytest.mark.parametrize("size", [1_048_576, 1_048_577])
async def test_the_limit_to_the_byte(port: Running, size: int) -> None:
    """As much as max_body is taken."""
    frame = b'{"model":"nobody","x":""}'
    body = frame[:-2] + b"y" * (size - len(frame)) + frame[-2:]
    assert len(body) == size
    assert (await port.ask("POST", CHAT, body)).status == (404 if size == 1_048_576 else 413)


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json", None])
async def test_content_types_that_are_json(port: Running, kind: str | None) -> None:
    """Also none at all: curl without -H is a beginner's first call."""
    data = request("POST", CHAT, HELLO, BEARER | ({"content-type": kind} if kind else {}))
    if kind is None:
        data = data.replace(b"content-type: application/json\r\n", b"")
    caller = await port.call()
    await caller.send(data)
    assert (await caller.answer()).status == 200


@pytest.mark.parametrize(
    "headers",
    [{"content-type": "text/plain"}, {"content-type": "application/x-www-form-urlencoded"}, {"content-encoding": "gzip"}],
    ids=lambda headers: next(iter(headers.values())),
)
async def test_what_is_no_json_is_a_415(port: Running, headers: dict[str, str]) -> None:
    """And says what to send instead."""
    answer = await port.ask("POST", CHAT, HELLO, BEARER | headers)
    assert (answer.status, answer.json()["error"]["aigw_code"]) == (415, "caller_unsupported_media_type")


async def test_the_wrong_key_is_told_before_the_body_comes(port: Running) -> None:
    """Who may not call need not send 60 MB first."""
    caller = await port.call()
    await caller.send(request("POST", CHAT, b"", {"content-length": "1000000", "authorization": "Bearer wrong"}))
    answer = await caller.answer()
    assert (answer.status, answer.json()["error"]["aigw_code"]) == (401, "policy_key_invalid")


async def test_expect_100_continue(port: Running) -> None:
    """curl waits for it with large bodies: it comes when the caller is welcome, and not before a refusal."""
    caller = await port.call()
    headers = BEARER | {"expect": "100-continue", "content-length": str(len(HELLO)), "content-type": "application/json"}
    await caller.send(request("POST", CHAT, None, headers))
    assert (await caller.answer()).status == 100
    await caller.send(HELLO)
    assert (await caller.answer()).status == 200

    for refused, status in (
        (headers | {"authorization": "Bearer wrong"}, 401),
        (headers | {"content-length": "99999999"}, 413),
    ):
        caller = await port.call()
        await caller.send(request("POST", CHAT, None, refused))
        assert (await caller.answer()).status == status

    caller = await port.call()
    await caller.send(request("POST", CHAT, None, headers | {"expect": "the-impossible"}))
    assert (await caller.answer()).status == 417


async def test_half_a_body(port: Running) -> None:
    """The caller leaves in the middle: recorded as its doing, nobody was asked."""
    transport = port.server.gateway.pipeline.attempter.transport = Scripted(answers({}))
    caller = await port.call()
    await caller.send(request("POST", CHAT, b"", BEARER | {"content-length": "1000000"}) + HELLO)
    await asyncio.sleep(0.05)
    caller.close()
    (record,) = await port.records(1)
    assert (record.outcome, record.status) == ("client_closed", 499)
    assert transport.requests == []


async def test_a_reload_between_two_requests(port: Running) -> None:
    """The running gateway is looked up for each request, also on one connection."""
    caller = await port.call()
    assert (await caller.ask("POST", CHAT, HELLO)).status == 200
    port.config.write_text(port.config.read_text().replace(KEY, "another-key"))
    assert await port.server.reload()
    assert (await caller.ask("POST", CHAT, HELLO)).status == 401
    assert (await caller.ask("POST", CHAT, HELLO, {"authorization": "Bearer another-key"})).status == 200


async def test_an_upgrade_is_not_an_exchange(port: Running) -> None:
    """Realtime is not served yet: a websocket handshake gets an HTTP answer."""
    headers = BEARER | {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-key": "x",
        "sec-websocket-version": "13",
    }
    answer = await port.ask("GET", "/v1/realtime", None, headers)
    assert (answer.status, answer.headers["connection"]) == (400, "close")
