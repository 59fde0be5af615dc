"""The official OpenAI SDK, sync and async, through a real server to the demo provider: everything it offers that we serve."""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import AsyncIterator, Iterator

import openai
import pytest

from tests.e2e.conftest import Make
from tests.e2e.far_side import FarSide, answer, plays, provider, route
from tests.e2e.world import DEMO, Gateway

HELLO = [{"role": "user", "content": "hello"}]
SAID = "You said: hello"


@pytest.fixture(scope="module")
def gateway(make: Make, far_side: FarSide) -> Gateway:
    tired = answer(429, {"error": {"message": "slow down", "type": "rate_limit_error"}}, "retry-after: 30")
    far_side.scripts["tired"] = plays(tired)
    far_side.scripts["broken"] = plays(answer(500, {"error": {"message": "the engine fell over"}}))
    far_side.scripts["locked"] = plays(answer(401, {"error": {"message": "no such key", "code": "invalid_api_key"}}))
    names = ("tired", "broken", "locked")
    return make(DEMO + "".join(provider(name, far_side.url(name)) + route(name) for name in names))


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=gateway.key, base_url=f"{gateway.url}/v1") as made:
        yield made


@pytest.fixture
async def aclient(gateway: Gateway) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(api_key=gateway.key, base_url=gateway.url) as made:  # without /v1: as good
        yield made


def test_chat(gateway: Gateway, client: openai.OpenAI) -> None:
    """A typed answer, and its usage is what the record keeps."""
    raw = client.chat.completions.with_raw_response.create(model="demo", messages=HELLO, user="u-1", max_tokens=100)
    completion = raw.parse()
    assert completion.choices[0].message.content.endswith(SAID)
    assert completion.choices[0].finish_reason == "stop"
    assert raw.headers["x-request-id"] == completion._request_id
    assert raw.headers["x-aigw-provider"] == "demo"
    assert raw.headers["x-aigw-demo"] == "1"
    record = gateway.record(raw.headers["x-request-id"])
    assert (record.input, record.output) == (completion.usage.prompt_tokens, completion.usage.completion_tokens)
    assert (record.operation, record.dialect, record.end_user, record.finish_reason) == ("chat", "openai_chat", "u-1", "stop")
    assert record.client_agent.startswith("OpenAI/Python")


@pytest.mark.parametrize("include", [None, False, True])
def test_chat_stream(gateway: Gateway, client: openai.OpenAI, include: bool | None) -> None:
    """The usage chunk is there for who asks, and hidden from who does not; the record has the usage either way, and the time
    to the first token."""
    options = openai.NOT_GIVEN if include is None else {"include_usage": include}
    raw = client.chat.completions.with_raw_response.create(model="demo", messages=HELLO, stream=True, stream_options=options)
    chunks = list(raw.parse())
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices).endswith(SAID)
    assert [chunk.usage is not None for chunk in chunks].count(True) == (include is True)
    assert all(chunk.choices for chunk in chunks) == (include is not True)
    record = gateway.record(raw.headers["x-request-id"])
    assert record.stream
    if include is not False:
        assert (record.input, record.output, record.estimated) == (2, 30, False)
    else:  # who says no gets no, and we count ourselves
        assert record.estimated
        assert record.output > 5
    assert 0 < record.first_token < record.took


def test_chat_stream_left_early(gateway: Gateway, client: openai.OpenAI) -> None:
    """Closing a stream in its middle is the caller's right."""
    raw = client.chat.completions.with_raw_response.create(model="demo", messages=HELLO, stream=True)
    stream = raw.parse()
    next(stream)
    stream.close()
    assert gateway.record(raw.headers["x-request-id"]).outcome in {"client_closed", "ok"}


def test_completions(client: openai.OpenAI) -> None:
    """The older API, whole and as a stream."""
    whole = client.completions.create(model="demo", prompt="hello")
    assert whole.choices[0].text.endswith(SAID)
    chunks = list(client.completions.create(model="demo", prompt="hello", stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text


def test_embeddings(gateway: Gateway, client: openai.OpenAI) -> None:
    """Floats, and base64, which the SDK asks for by itself; the same numbers."""
    floats = client.embeddings.create(model="demo", input=["a", "b"], encoding_format="float", dimensions=8)
    assert [len(one.embedding) for one in floats.data] == [8, 8]
    coded = client.embeddings.create(model="demo", input=["a", "b"], encoding_format="base64", dimensions=8)
    first = struct.unpack("<8f", base64.b64decode(coded.data[0].embedding))
    assert first == pytest.approx(floats.data[0].embedding, abs=1e-6)
    own = client.embeddings.with_raw_response.create(model="demo", input="a", dimensions=8)
    assert own.parse().data[0].embedding == pytest.approx(floats.data[0].embedding, abs=1e-6)
    record = gateway.record(own.headers["x-request-id"])
    assert (record.operation, record.input, record.output) == ("embeddings", 1, 0)


def test_responses(gateway: Gateway, client: openai.OpenAI) -> None:
    """The Responses API, whole and as a stream of typed events."""
    raw = client.responses.with_raw_response.create(model="demo", input="hello")
    whole = raw.parse()
    assert whole.output_text.endswith(SAID)
    record = gateway.record(raw.headers["x-request-id"])
    assert (record.operation, record.dialect) == ("responses", "openai_responses")
    assert (record.input, record.output) == (whole.usage.input_tokens, whole.usage.output_tokens)
    events = list(client.responses.create(model="demo", input="hello", stream=True))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole.output_text
    assert events[-1].type == "response.completed"
    with client.responses.stream(model="demo", input="hello") as stream:
        assert stream.get_final_response().output_text == whole.output_text


def test_images_speech_moderations(client: openai.OpenAI) -> None:
    """What is no text: a PNG, sound as it comes, a verdict."""
    image = client.images.generate(model="demo", prompt="a cat", size="64x64", response_format="b64_json")
    assert base64.b64decode(image.data[0].b64_json).startswith(b"\x89PNG")
    with client.audio.speech.with_streaming_response.create(
        model="demo", voice="alloy", input="hello", response_format="wav"
    ) as sound:
        blocks = list(sound.iter_bytes())
        assert sound.headers["content-type"].startswith("audio/")
    assert b"".join(blocks).startswith(b"RIFF")
    assert client.moderations.create(model="demo", input="hello").results[0].flagged is False


def test_models(client: openai.OpenAI) -> None:
    """What may be asked for."""
    assert "demo" in [model.id for model in client.models.list()]
    assert client.models.retrieve("demo").owned_by
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("nobody")
    assert caught.value.code == "model_not_found"


def test_errors_are_the_sdks_own(gateway: Gateway, client: openai.OpenAI) -> None:
    """The exception classes that programs catch, with the codes they look at and our request id."""
    wrong = client.with_options(api_key="sk-aigw-wrong")
    with pytest.raises(openai.AuthenticationError) as unknown:
        wrong.chat.completions.create(model="demo", messages=HELLO)
    assert unknown.value.code == "invalid_api_key"
    assert unknown.value.request_id.startswith("req_")
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="dmeo", messages=HELLO)
    assert missing.value.code == "model_not_found"
    assert "demo" in missing.value.message
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model=7, messages=HELLO)
    assert bad.value.param == "model"
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="demo", messages=[])
    with pytest.raises(openai.RateLimitError) as limited:
        client.with_options(max_retries=0).chat.completions.create(model="tired", messages=HELLO)
    assert int(limited.value.response.headers["retry-after"]) in range(28, 31)
    with pytest.raises(openai.InternalServerError) as down:
        client.chat.completions.create(model="locked", messages=HELLO)
    assert down.value.status_code == 502  # never a 401: agents would ask their users to log in
    assert gateway.record(down.value.request_id).error == "provider_credentials_invalid"


def test_the_sdks_retries_do_not_multiply_ours(client: openai.OpenAI, far_side: FarSide) -> None:
    """The SDK would try twice more after a 500; we have tried, and say so."""
    with pytest.raises(openai.InternalServerError):
        client.with_options(max_retries=5).chat.completions.create(model="broken", messages=HELLO)
    assert len(far_side.seen["broken"]) == 2


def test_an_error_in_a_stream_is_an_exception(make: Make, far_side: FarSide, client: openai.OpenAI) -> None:
    """A stream that is refused raises before its first event."""
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="nobody", messages=HELLO, stream=True)


async def test_async(aclient: openai.AsyncOpenAI, gateway: Gateway) -> None:
    """The same by the asynchronous client: many at once, streams among them."""

    async def whole(text: str) -> str:
        made = await aclient.chat.completions.create(model="demo", messages=[{"role": "user", "content": text}])
        return made.choices[0].message.content or ""

    async def streamed(text: str) -> str:
        stream = await aclient.chat.completions.create(model="demo", messages=[{"role": "user", "content": text}], stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

    said = await asyncio.gather(*(work(f"number {n}") for n in range(20) for work in (whole, streamed)))
    assert [one.rpartition("You said: ")[2] for one in said] == [f"number {n}" for n in range(20) for _ in range(2)]
    response = await aclient.responses.create(model="demo", input="hello")
    assert response.output_text.endswith(SAID)
    vectors = await aclient.embeddings.create(model="demo", input="a")
    assert len(vectors.data) == 1
    with pytest.raises(openai.NotFoundError):
        await aclient.chat.completions.create(model="nobody", messages=HELLO)
