"""The demo provider, as the official SDKs see it: over a real socket, each shape checked against the SDK's own types."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import struct
import wave
import zlib
from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any

import anthropic
import openai
import pytest
from aiohttp import web
from anthropic.types import Message, MessageTokensCount, RawMessageStreamEvent
from openai.types import (
    Completion,
    CreateEmbeddingResponse,
    ImageGenCompletedEvent,
    ImagesResponse,
    ModerationCreateResponse,
)
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from aigw.errors import UpstreamError
from aigw.exchange import Flow, Headers, Origin, Target, UpstreamRequest
from aigw.upstream.mock import DemoTransport

ORIGIN = Origin("demo", "demo", 0)


class Collected:
    """A receiver that keeps what it is given."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.blocks: list[bytes] = []
        self.flow: Flow | None = None

    def head(self, status: int, headers: Headers, flow: Flow) -> None:
        self.status, self.headers, self.flow = status, dict(headers), flow

    def feed(self, block: bytes) -> None:
        self.blocks.append(block)

    @property
    def body(self) -> bytes:
        return b"".join(self.blocks)


async def call(path: str, body: Any = None, *, method: str = "POST", raw: bytes = b"") -> Collected:
    """One request straight to the transport."""
    receiver = Collected()
    content = raw or (b"" if body is None else json.dumps(body).encode())
    await DemoTransport(pause=0).send(UpstreamRequest(Target(method, ORIGIN, path, {}), content), receiver)
    return receiver


async def events(path: str, body: Any) -> list[tuple[str, Any]]:
    """The events of a stream: (event name or "", decoded data or "[DONE]")."""
    collected = await call(path, body)
    assert collected.headers[b"content-type"].startswith(b"text/event-stream")
    found = []
    for event in collected.body.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in event.split("\n"))
        found.append((fields.get("event", ""), fields["data"] if fields["data"] == "[DONE]" else json.loads(fields["data"])))
    return found


@pytest.fixture
async def address() -> AsyncIterator[str]:
    """A real HTTP server on a free port with the demo transport behind it."""
    transport = DemoTransport(pause=0)

    async def serve(request: web.Request) -> web.StreamResponse:
        receiver = Collected()
        target = Target(request.method, ORIGIN, request.path, {})
        await transport.send(UpstreamRequest(target, await request.read()), receiver)
        response = web.StreamResponse(status=receiver.status)
        response.headers.extend({name.decode(): value.decode() for name, value in receiver.headers.items()})
        await response.prepare(request)
        for block in receiver.blocks:
            await response.write(block)
        await response.write_eof()
        return response

    runner = web.ServerRunner(web.Server(serve))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.fixture
async def openai_sdk(address: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
async def anthropic_sdk(address: str) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=address, api_key="none", max_retries=0) as client:
        yield client


ASK: dict[str, Any] = {"model": "demo", "messages": [{"role": "user", "content": "Is the sea blue? 海是蓝的吗？"}]}


async def test_openai_chat(openai_sdk: openai.AsyncOpenAI) -> None:
    """The OpenAI SDK gets the same words streamed and whole, and they repeat what was said."""
    whole = await openai_sdk.chat.completions.create(**ASK)
    text = whole.choices[0].message.content
    assert text is not None
    assert "demo provider" in text
    assert text.endswith("Is the sea blue? 海是蓝的吗？")
    stream = await openai_sdk.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text
    assert chunks[-1].usage == whole.usage
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason == "stop"


async def test_chat_shapes() -> None:
    """Every chat body and chunk satisfies the SDK's types exactly, and usage appears only when it was asked for."""
    TypeAdapter(ChatCompletion).validate_json((await call("/v1/chat/completions", ASK)).body)
    for options in (None, {"include_usage": False}, {"include_usage": True}):
        stream = await events("/v1/chat/completions", ASK | {"stream": True, "stream_options": options})
        assert stream.pop() == ("", "[DONE]")
        for _, chunk in stream:
            TypeAdapter(ChatCompletionChunk).validate_python(chunk)
        assert stream[0][1]["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
        assert len({chunk["id"] for _, chunk in stream}) == 1
        asked = bool(options and options["include_usage"])
        assert [chunk["choices"] for _, chunk in stream].count([]) == asked
        assert ["usage" in chunk for _, chunk in stream] == [asked] * len(stream)


async def test_usage_is_counted_from_the_text() -> None:
    """A token is four bytes of UTF-8, rounded up; the same question costs the same each time."""
    first, second = [json.loads((await call("/chat/completions", ASK)).body) for _ in range(2)]
    answer = first["choices"][0]["message"]["content"]
    assert first["usage"] == second["usage"]
    assert first["usage"]["prompt_tokens"] == math.ceil(len(ASK["messages"][0]["content"].encode()) / 4)
    assert first["usage"]["completion_tokens"] == math.ceil(len(answer.encode()) / 4)
    assert first["usage"]["total_tokens"] == first["usage"]["prompt_tokens"] + first["usage"]["completion_tokens"]


@pytest.mark.parametrize(
    ("path", "extra", "ending"),
    [
        ("/v1/chat/completions", {"max_tokens": 5}, "length"),
        ("/v1/chat/completions", {"max_completion_tokens": 5.0}, "length"),
        ("/v1/chat/completions", {"stop": "offline"}, "stop"),
        ("/v1/messages", {"max_tokens": 5}, "max_tokens"),
        ("/v1/messages", {"max_tokens": 500, "stop_sequences": ["zzz", "offline"]}, "stop_sequence"),
        ("/v1/messages", {"max_tokens": 500}, "end_turn"),
    ],
)
async def test_limits_are_kept(path: str, extra: dict[str, Any], ending: str) -> None:
    """An answer ends at the caller's limit or stop sequence, and says which."""
    answer = json.loads((await call(path, ASK | extra)).body)
    choice = answer["choices"][0] if "choices" in answer else answer
    assert (choice.get("finish_reason") or choice.get("stop_reason")) == ending
    text = choice["message"]["content"] if "message" in choice else choice["content"][0]["text"]
    if "stop" in extra or "stop_sequences" in extra:
        assert text == "This is the demo provider of aigw. It works "
    elif ending != "end_turn":
        assert len(text.encode()) <= 20


async def test_a_long_message_is_quoted_short() -> None:
    """The echo of a huge prompt stays small; its tokens are counted in full."""
    body = {"model": "demo", "messages": [{"role": "user", "content": "word " * 100_000}]}
    answer = json.loads((await call("/chat/completions", body)).body)
    assert len(answer["choices"][0]["message"]["content"]) < 700
    assert answer["usage"]["prompt_tokens"] == 125_000


async def test_last_user_message_is_repeated() -> None:
    """Parts are read, other roles are skipped, what is no text is named."""
    parts = [{"type": "text", "text": "look:"}, {"type": "image_url", "image_url": {"url": "data:"}}]
    talk = [{"role": "user", "content": parts}, {"role": "assistant", "content": None, "tool_calls": []}]
    answer = json.loads((await call("/chat/completions", {"model": "m", "messages": talk})).body)
    assert answer["choices"][0]["message"]["content"].endswith("You said: look: [image_url]")
    assert answer["model"] == "m"


async def test_json_object() -> None:
    """Who asks for a JSON object gets one."""
    answer = json.loads((await call("/chat/completions", ASK | {"response_format": {"type": "json_object"}})).body)
    said = json.loads(answer["choices"][0]["message"]["content"])
    assert said == {"demo": True, "you_said": ASK["messages"][0]["content"]}


async def test_completions(openai_sdk: openai.AsyncOpenAI) -> None:
    """Legacy completions, streamed and whole, by the SDK and by its types."""
    whole = await openai_sdk.completions.create(model="demo", prompt="Once")
    stream = await openai_sdk.completions.create(
        model="demo", prompt="Once", stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text
    assert chunks[-1].usage == whole.usage
    TypeAdapter(Completion).validate_json((await call("/v1/completions", {"model": "demo", "prompt": [1, 2]})).body)


async def test_responses(openai_sdk: openai.AsyncOpenAI) -> None:
    """The Responses API: the SDK's stream accumulates to the same text as the whole answer."""
    whole = await openai_sdk.responses.create(model="demo", input="Hello", instructions="Be brief")
    assert whole.output_text.endswith("You said: Hello")
    async with openai_sdk.responses.stream(model="demo", input="Hello", instructions="Be brief") as stream:
        final = await stream.get_final_response()
    assert final.output_text == whole.output_text
    assert final.usage == whole.usage


async def test_responses_shapes() -> None:
    """Every response and event satisfies the SDK's types; events are numbered without a gap; a cut answer is incomplete."""
    items = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi there"}]}]
    for limit, status in ((None, "completed"), (4, "incomplete")):
        body = {"model": "demo", "input": items, "max_output_tokens": limit}
        TypeAdapter(Response).validate_json((await call("/v1/responses", body)).body)
        stream = await events("/v1/responses", body | {"stream": True})
        adapter: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
        for name, event in stream:
            adapter.validate_python(event)
            assert name == event["type"]
        assert [event["sequence_number"] for _, event in stream] == list(range(len(stream)))
        assert [name for name, _ in stream if name != "response.output_text.delta"] == [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            f"response.{status}",
        ]
        assert stream[-1][1]["response"]["status"] == status


async def test_anthropic_messages(anthropic_sdk: anthropic.AsyncAnthropic) -> None:
    """The Anthropic SDK gets the same message streamed and whole, with the same usage."""
    ask: dict[str, Any] = {"model": "demo", "max_tokens": 200, "messages": ASK["messages"], "system": "Be kind"}
    whole = await anthropic_sdk.messages.create(**ask)
    async with anthropic_sdk.messages.stream(**ask) as stream:
        final = await stream.get_final_message()
    assert [block.type for block in final.content] == ["text"]
    assert final.content[0].text == whole.content[0].text  # type: ignore[union-attr]
    assert final.usage == whole.usage
    assert final.stop_reason == whole.stop_reason == "end_turn"
    count = await anthropic_sdk.messages.count_tokens(model="demo", messages=ASK["messages"], system="Be kind")
    assert count.input_tokens == whole.usage.input_tokens


async def test_messages_shapes() -> None:
    """Every message and event satisfies the SDK's types, in the order the API has."""
    body = ASK | {"max_tokens": 200}
    TypeAdapter(Message).validate_json((await call("/v1/messages", body)).body)
    TypeAdapter(MessageTokensCount).validate_json((await call("/v1/messages/count_tokens", ASK)).body)
    stream = await events("/v1/messages", body | {"stream": True})
    adapter: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
    for name, event in stream:
        assert name == event["type"]
        if name != "ping":  # the SDK has no type for it, and skips it
            adapter.validate_python(event)
    assert [name for name, _ in stream if name != "content_block_delta"] == [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


async def test_embeddings(openai_sdk: openai.AsyncOpenAI) -> None:
    """Unit vectors, the same each time, nearer for texts that share words; the SDK's base64 default and floats agree."""
    texts = ["the cat sat on the mat", "the cat sat on a mat", "stock prices fell sharply today"]
    packed = await openai_sdk.embeddings.create(model="demo", input=texts, dimensions=64)
    plain = await openai_sdk.embeddings.create(model="demo", input=texts, dimensions=64, encoding_format="float")
    vectors = [item.embedding for item in packed.data]
    for vector, other in zip(vectors, plain.data, strict=True):
        assert vector == pytest.approx(other.embedding, abs=1e-6)
        assert math.hypot(*vector) == pytest.approx(1, abs=1e-5)
        assert len(vector) == 64
    near, far = (sum(a * b for a, b in zip(vectors[0], other, strict=True)) for other in vectors[1:])
    assert near > far
    raw = await call("/v1/embeddings", {"model": "demo", "input": [[1, 2], [3]], "encoding_format": "base64"})
    decoded = struct.unpack("<256f", base64.b64decode(json.loads(raw.body)["data"][0]["embedding"]))
    assert math.hypot(*decoded) == pytest.approx(1, abs=1e-5)
    floats = await call("/v1/embeddings", {"model": "demo", "input": ["", "海"]})
    TypeAdapter(CreateEmbeddingResponse).validate_json(floats.body)


async def test_moderations(openai_sdk: openai.AsyncOpenAI) -> None:
    """One verdict per text, in the SDK's type."""
    answer = await openai_sdk.moderations.create(model="demo", input=["one", "two"])
    assert [result.flagged for result in answer.results] == [False, False]
    TypeAdapter(ModerationCreateResponse).validate_json((await call("/v1/moderations", {"input": "x"})).body)


async def test_images(openai_sdk: openai.AsyncOpenAI) -> None:
    """A real PNG of the size asked for, whole and streamed."""
    answer = await openai_sdk.images.generate(model="demo", prompt="a cat", size="1024x1024", n=2)
    assert answer.data is not None
    assert len(answer.data) == 2
    png = base64.b64decode(answer.data[0].b64_json or "")
    assert png.startswith(b"\x89PNG")
    assert struct.unpack(">II", png[16:24]) == (1024, 1024)
    pixels = png[png.index(b"IDAT") + 4 : png.index(b"IEND") - 8]
    assert len(zlib.decompress(pixels)) == 1024 * (1 + 128)
    body = {"prompt": "a cat", "size": "64x64"}
    TypeAdapter(ImagesResponse).validate_json((await call("/v1/images/generations", body)).body)
    ((name, event),) = await events("/v1/images/generations", body | {"stream": True})
    assert name == "image_generation.completed"
    TypeAdapter(ImageGenCompletedEvent).validate_python(event)


async def test_speech(openai_sdk: openai.AsyncOpenAI) -> None:
    """Sound that players open: wav as the standard library reads it, mp3 as whole frames, pcm as samples."""
    speech = await openai_sdk.audio.speech.create(
        model="demo", voice="alloy", input="one two three four", response_format="wav"
    )
    with wave.open(BytesIO(speech.content)) as sound:
        assert (sound.getframerate(), sound.getnchannels(), sound.getnframes()) == (24_000, 1, 48_000)
    mp3 = await call("/v1/audio/speech", {"model": "demo", "voice": "x", "input": "hello"})
    assert mp3.headers[b"content-type"] == b"audio/mpeg"
    assert len(mp3.body) % 104 == 0
    assert mp3.body.count(b"\xff\xfb\x10\xc4") == len(mp3.body) // 104
    stream = await events("/v1/audio/speech", {"model": "demo", "input": "hello", "stream_format": "sse"})
    assert [event["type"] for _, event in stream][-2:] == ["speech.audio.delta", "speech.audio.done"]
    sent = b"".join(base64.b64decode(event["audio"]) for _, event in stream[:-1])
    assert sent == mp3.body


async def test_rerank() -> None:
    """The document that shares words with the query comes first."""
    body = {
        "model": "demo",
        "query": "blue sea",
        "documents": ["red rocks", {"text": "the blue sea"}],
        "return_documents": True,
    }
    answer = json.loads((await call("/v1/rerank", body)).body)
    assert [result["index"] for result in answer["results"]] == [1, 0]
    assert answer["results"][0]["document"] == {"text": "the blue sea"}
    assert len(json.loads((await call("/v1/rerank", body | {"top_n": 1})).body)["results"]) == 1


async def test_models(openai_sdk: openai.AsyncOpenAI) -> None:
    """It lists one model, and knows no other by name."""
    assert [model.id async for model in openai_sdk.models.list()] == ["demo"]
    assert (await openai_sdk.models.retrieve("demo")).owned_by == "aigw"
    with pytest.raises(openai.NotFoundError):
        await openai_sdk.models.retrieve("gpt-6")


BAD = [
    ("/v1/chat/completions", {"model": "demo", "messages": "hi"}, "messages"),
    ("/v1/chat/completions", {"model": "demo", "messages": []}, "messages"),
    ("/v1/chat/completions", {"model": 5, "messages": []}, "model"),
    ("/v1/chat/completions", ASK | {"n": 2}, "n"),
    ("/v1/chat/completions", ASK | {"max_tokens": 0}, "max_tokens"),
    ("/v1/chat/completions", ASK | {"tool_choice": "required"}, "tool_choice"),
    ("/v1/chat/completions", ASK | {"response_format": {"type": "json_schema"}}, "response_format"),
    ("/v1/completions", {"model": "demo", "prompt": ["a", "b"]}, "prompt"),
    ("/v1/responses", {"model": "demo", "input": "x", "previous_response_id": "resp_1"}, "previous_response_id"),
    ("/v1/responses", {"model": "demo", "input": [{"role": "user", "content": 5}]}, None),
    ("/v1/embeddings", {"model": "demo", "input": "x", "dimensions": 0}, "dimensions"),
    ("/v1/embeddings", {"model": "demo", "input": [{}]}, "input"),
    ("/v1/embeddings", {"model": "demo", "input": "x" * 40_000}, "input"),
    ("/v1/images/generations", {"prompt": "x", "size": "huge"}, "size"),
    ("/v1/audio/speech", {"model": "demo", "input": "x", "response_format": "opus"}, "response_format"),
]


@pytest.mark.parametrize(("path", "body", "param"), BAD)
async def test_bad_bodies_openai(path: str, body: Any, param: str | None) -> None:
    """A request that is wrong, or needs a model, is a 400 in OpenAI's shape that names the parameter."""
    answer = await call(path, body)
    error = json.loads(answer.body)["error"]
    assert (answer.status, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert error["message"]


@pytest.mark.parametrize("raw", [b"{", b"[]", b"null", b"\xff", b'{"model": "demo"}', b"[" * 100_000])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/messages/count_tokens"])
async def test_garbage(path: str, raw: bytes) -> None:
    """What is no request at all is a 400 in the dialect of the path."""
    answer = await call(path, raw=raw)
    shape = json.loads(answer.body)
    assert answer.status == 400
    assert (shape.get("type") == "error") == ("messages" in path)
    assert shape["error"]["type"] == "invalid_request_error"


async def test_unknown_path_and_method() -> None:
    """404 and 405, not an exception."""
    assert (await call("/v1/nothing", {})).status == 404
    assert (await call("/v1/chat/completions", method="GET")).status == 405


async def test_every_answer_says_it_is_the_demo() -> None:
    """`x-aigw-demo: 1` is on answers, streams and errors alike, with a request id."""
    for path, body in [("/v1/messages", ASK | {"max_tokens": 9, "stream": True}), *((path, body) for path, body, _ in BAD)]:
        headers = (await call(path, body)).headers
        assert headers[b"x-aigw-demo"] == b"1"
        assert headers.get(b"x-request-id") or headers[b"request-id"]


class Stalling(Collected):
    """Pauses at the third block."""

    def feed(self, block: bytes) -> None:
        super().feed(block)
        if len(self.blocks) == 3 and self.flow:
            self.flow.pause()


def streaming_request(timeout: float = 60.0) -> UpstreamRequest:
    body = json.dumps(ASK | {"stream": True}).encode()
    return UpstreamRequest(Target("POST", ORIGIN, "/v1/chat/completions", {}), body, timeout=timeout)


async def test_pause_holds_the_stream() -> None:
    """While its reader is paused nothing is fed; after it resumed the rest comes, complete."""
    receiver = Stalling()
    sending = asyncio.create_task(DemoTransport(pause=0).send(streaming_request(), receiver))
    await asyncio.sleep(0.05)
    assert len(receiver.blocks) == 3
    assert receiver.flow is not None
    receiver.flow.resume()
    await sending
    assert receiver.blocks[-1] == b"data: [DONE]\n\n"


async def test_a_stream_streams() -> None:
    """The blocks of a stream arrive one after the other, not at once."""
    receiver = Collected()
    sending = asyncio.create_task(DemoTransport(pause=0.02).send(streaming_request(), receiver))
    await asyncio.sleep(0.05)
    assert 1 <= len(receiver.blocks) <= 4
    await sending
    assert len(receiver.blocks) > 20


async def test_stop_and_cancel() -> None:
    """A receiver that has seen enough, or a cancelled call, ends it at once; one that never resumes meets the timeout."""
    receiver = Stalling()
    sending = asyncio.create_task(DemoTransport(pause=0).send(streaming_request(), receiver))
    await asyncio.sleep(0.02)
    assert receiver.flow is not None
    receiver.flow.stop()
    await sending
    assert len(receiver.blocks) == 3

    receiver = Stalling()
    sending = asyncio.create_task(DemoTransport(pause=0).send(streaming_request(), receiver))
    await asyncio.sleep(0.02)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert len(receiver.blocks) == 3

    with pytest.raises(UpstreamError) as timed_out:
        await DemoTransport(pause=0).send(streaming_request(timeout=0.02), Stalling())
    assert timed_out.value.code == "provider_timeout"
