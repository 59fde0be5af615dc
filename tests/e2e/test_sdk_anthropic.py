"""The official Anthropic SDK through a real server to the demo provider."""

from __future__ import annotations

from collections.abc import Iterator

import anthropic
import pytest

from tests.e2e.conftest import Make
from tests.e2e.far_side import ANTHROPIC, FarSide, answer, plays, provider, route
from tests.e2e.world import DEMO, Gateway

HELLO = [{"role": "user", "content": "hello"}]
SAID = "You said: hello"

MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "fine"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 3, "cache_read_input_tokens": 40, "cache_creation_input_tokens": 50, "output_tokens": 2},
}


@pytest.fixture(scope="module")
def gateway(make: Make, far_side: FarSide) -> Gateway:
    busy = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    limited = {"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}}
    far_side.scripts["fine"] = plays(answer(200, MESSAGE, "request-id: req-theirs"))
    far_side.scripts["busy"] = plays(answer(529, busy))
    far_side.scripts["limited"] = plays(answer(429, limited, "retry-after: 30"))
    names = ("fine", "busy", "limited")
    return make(DEMO + "".join(provider(name, far_side.url(name), kind=ANTHROPIC) + route(name) for name in names))


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(api_key=gateway.key, base_url=gateway.url) as made:
        yield made


def test_messages(gateway: Gateway, client: anthropic.Anthropic) -> None:
    """A typed message, and its usage is what the record keeps."""
    raw = client.messages.with_raw_response.create(
        model="demo", max_tokens=100, messages=HELLO, metadata={"user_id": "u-1"}, system="be brief"
    )
    message = raw.parse()
    assert message.content[0].text.endswith(SAID)
    record = gateway.record(raw.headers["x-request-id"])
    assert (record.input, record.output) == (message.usage.input_tokens, message.usage.output_tokens)
    assert (record.operation, record.dialect, record.end_user) == ("messages", "anthropic_messages", "u-1")
    assert record.finish_reason == "end_turn"


def test_stream(gateway: Gateway, client: anthropic.Anthropic) -> None:
    """By the stream helper, and by raw events."""
    with client.messages.stream(model="demo", max_tokens=100, messages=HELLO) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
        request_id = stream.response.headers["x-request-id"]
    assert text.endswith(SAID)
    record = gateway.record(request_id)
    assert (record.input, record.output, record.estimated) == (final.usage.input_tokens, final.usage.output_tokens, False)
    assert 0 < record.first_token < record.took
    events = list(client.messages.create(model="demo", max_tokens=100, messages=HELLO, stream=True))
    assert [events[0].type, events[-1].type] == ["message_start", "message_stop"]


def test_count_tokens(gateway: Gateway, client: anthropic.Anthropic) -> None:
    """Free of charge: nothing was used."""
    raw = client.messages.with_raw_response.count_tokens(model="demo", messages=HELLO)
    assert raw.parse().input_tokens > 0
    record = gateway.record(raw.headers["x-request-id"])
    assert (record.operation, record.input, record.output) == ("count_tokens", 0, 0)


def test_both_ways_to_say_who_one_is(gateway: Gateway) -> None:
    """x-api-key, and a Bearer token; an old one beside a good one does no harm."""
    with anthropic.Anthropic(auth_token=gateway.key, api_key=None, base_url=gateway.url) as bearer:
        assert bearer.messages.create(model="demo", max_tokens=9, messages=HELLO).id
    with anthropic.Anthropic(auth_token=gateway.key, base_url=gateway.url, default_headers={"x-api-key": "sk-ant-old"}) as both:
        assert both.messages.create(model="demo", max_tokens=9, messages=HELLO).id


@pytest.mark.parametrize("version", ["2023-06-01", "2026-10-21"])
def test_both_versions_of_the_api(client: anthropic.Anthropic, far_side: FarSide, version: str) -> None:
    """The version and the betas that a caller names reach the provider; the consumer's key does not."""
    headers = {"anthropic-version": version, "anthropic-beta": "one-2026-01-01,two-2026-02-02"}
    assert client.messages.create(model="fine", max_tokens=9, messages=HELLO, extra_headers=headers).content[0].text == "fine"
    request = far_side.seen["fine"][-1].request
    assert request.line == b"POST /fine/v1/messages HTTP/1.1"
    assert request.headers[b"anthropic-version"] == version.encode()
    assert request.headers[b"anthropic-beta"] == b"one-2026-01-01,two-2026-02-02"
    assert request.headers[b"x-api-key"] == b"far.fine.1.0123456789abcdef"
    assert b"authorization" not in request.headers


def test_cached_tokens_are_counted_apart(gateway: Gateway, client: anthropic.Anthropic) -> None:
    """Anthropic reports them beside the input; the record's input is the whole prompt."""
    raw = client.messages.with_raw_response.create(model="fine", max_tokens=9, messages=HELLO)
    record = gateway.record(raw.headers["x-request-id"])
    assert (record.input, record.cached, record.cache_write_5m, record.output) == (93, 40, 50, 2)
    assert record.upstream_id == "req-theirs"


def test_errors_are_the_sdks_own(gateway: Gateway, client: anthropic.Anthropic) -> None:
    """The exception classes that programs catch, the types they look at, and our request id."""
    with pytest.raises(anthropic.AuthenticationError) as unknown:
        client.with_options(api_key="sk-aigw-wrong").messages.create(model="demo", max_tokens=9, messages=HELLO)
    assert unknown.value.body["error"]["type"] == "authentication_error"
    assert unknown.value.body["request_id"].startswith("req_")
    with pytest.raises(anthropic.NotFoundError) as missing:
        client.messages.create(model="dmeo", max_tokens=9, messages=HELLO)
    assert missing.value.body["error"]["type"] == "not_found_error"
    with pytest.raises(anthropic.BadRequestError) as bad:
        client.messages.create(model="demo", max_tokens=9, messages=[])
    assert bad.value.body["error"]["type"] == "invalid_request_error"
    with pytest.raises(anthropic.RateLimitError) as limited:
        client.with_options(max_retries=0).messages.create(model="limited", max_tokens=9, messages=HELLO)
    assert limited.value.body["error"]["type"] == "rate_limit_error"
    assert int(limited.value.response.headers["retry-after"]) in range(28, 31)


def test_the_sdks_retries_do_not_multiply_ours(client: anthropic.Anthropic, far_side: FarSide) -> None:
    """An overloaded provider was asked twice by us; the SDK asks no more."""
    with pytest.raises(anthropic.APIStatusError) as busy:
        client.with_options(max_retries=5).messages.create(model="busy", max_tokens=9, messages=HELLO)
    assert (busy.value.status_code, busy.value.body["error"]["type"]) == (529, "overloaded_error")
    assert len(far_side.seen["busy"]) == 2


def test_models(client: anthropic.Anthropic) -> None:
    """What may be asked for, in its own shape."""
    assert "demo" in [model.id for model in client.models.list()]
    assert client.models.retrieve("demo").type == "model"


async def test_async(gateway: Gateway) -> None:
    """The asynchronous client: a message and a stream."""
    async with anthropic.AsyncAnthropic(api_key=gateway.key, base_url=gateway.url) as client:
        message = await client.messages.create(model="demo", max_tokens=100, messages=HELLO)
        assert message.content[0].text.endswith(SAID)
        async with client.messages.stream(model="demo", max_tokens=100, messages=HELLO) as stream:
            assert (await stream.get_final_text()).endswith(SAID)
