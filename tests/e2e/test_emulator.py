"""The official SDKs through a real server to an emulator of providers that others wrote: what comes is what it sent."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator

import anthropic
import openai
import pytest

from tests.e2e.conftest import Make
from tests.e2e.node import Emulator, emulator
from tests.e2e.world import Answer, Gateway, ask

USAGE = {"prompt_tokens": 21, "completion_tokens": 9, "total_tokens": 30}

CLAUDE_USAGE = {"input_tokens": 21, "output_tokens": 9}

TEXT = 'Largely, yes: 气象 says rain, "probably".'

FIXTURES = [
    {"match": {"userMessage": "say it in claude"}, "response": {"content": TEXT, "id": "msg_1", "usage": CLAUDE_USAGE}},
    {"match": {"userMessage": "say it"}, "response": {"content": TEXT, "id": "chatcmpl-1", "created": 7, "usage": USAGE}},
    {
        "match": {"userMessage": "use a tool"},
        "response": {"toolCalls": [{"name": "get_weather", "arguments": '{"city": "Shanghai"}'}]},
    },
    {
        "match": {"userMessage": "think"},
        "response": {"content": "done", "reasoning": "one thing after the other"},
    },
    {
        "match": {"userMessage": "slow down"},
        "response": {"error": {"message": "too fast", "type": "rate_limit_error"}, "status": 429},
    },
    {"match": {"userMessage": "break off"}, "response": {"content": "word " * 200}, "truncateAfterChunks": 5},
    {"match": {"inputText": "embed"}, "response": {"embedding": [0.5, -0.25, 0.125]}},
]

TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}]


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with emulator(tmp_path_factory.mktemp("emulator"), FIXTURES) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(make: Make, far: Emulator) -> Gateway:
    return make(
        f'[providers.openai]\nbase_url = "http://127.0.0.1:{far.port}/v1"\nkeys = ["sk-far"]\n'
        f'[providers.anthropic]\nbase_url = "http://127.0.0.1:{far.port}/v1"\nkeys = ["sk-ant-far"]\n'
    )


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=gateway.key, base_url=f"{gateway.url}/v1", max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def claude(gateway: Gateway) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(api_key=gateway.key, base_url=gateway.url, max_retries=0) as made:
        yield made


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_byte_for_byte(gateway: Gateway, far: Emulator, path: str, stream: bool) -> None:
    """What the caller gets by us is what it gets directly, to the byte; the usage is in the record."""
    asked = "say it in claude" if path == "/v1/messages" else "say it"
    model = "claude-sonnet-5-5" if path == "/v1/messages" else "gpt-6-sol"
    body = {"model": model, "messages": user(asked), "max_tokens": 100, "stream": stream}
    if stream and path != "/v1/messages":
        body["stream_options"] = {"include_usage": True}
    connection = http.client.HTTPConnection("127.0.0.1", far.port, timeout=10)
    directly: Answer = ask(connection, body, path, headers={"content-type": "application/json", "x-api-key": "x"})
    connection.close()
    by_us = gateway.ask(body, path)
    assert by_us.body == directly.body
    assert by_us.headers["content-type"] == directly.headers["content-type"]
    record = gateway.record(by_us.id)
    assert (record.input, record.output, record.estimated) == (21, 9, False)
    assert record.upstream_id


def test_chat(client: openai.OpenAI, far: Emulator) -> None:
    """Text and tool calls, whole and streamed; the emulator saw our provider key, never the consumer's."""
    assert client.chat.completions.create(model="gpt-6-sol", messages=user("say it")).choices[0].message.content == TEXT
    chunks = list(client.chat.completions.create(model="gpt-6-sol", messages=user("say it"), stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT
    assert not any(chunk.usage for chunk in chunks)
    whole = client.chat.completions.create(model="gpt-6-sol", messages=user("use a tool"), tools=TOOLS)
    call = whole.choices[0].message.tool_calls[0].function
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Shanghai"})
    with client.chat.completions.stream(model="gpt-6-sol", messages=user("use a tool"), tools=TOOLS) as stream:
        streamed = stream.get_final_completion().choices[0]
    assert streamed.message.tool_calls[0].function.arguments == call.arguments
    assert streamed.finish_reason == "tool_calls"
    entries = [entry for entry in far.journal() if entry["path"].endswith("/chat/completions")]
    shown = json.dumps(entries)
    assert client.api_key not in shown


def test_responses(client: openai.OpenAI) -> None:
    """Whole and as typed events."""
    assert client.responses.create(model="gpt-6-sol", input="say it").output_text == TEXT
    with client.responses.stream(model="gpt-6-sol", input="say it") as stream:
        assert stream.get_final_response().output_text == TEXT


def test_what_is_no_chat(client: openai.OpenAI) -> None:
    """Embeddings as floats and as the SDK's base64, and verdicts."""
    floats = client.embeddings.create(model="text-embedding-3-small", input="embed this", encoding_format="float")
    assert floats.data[0].embedding == [0.5, -0.25, 0.125]
    assert client.embeddings.create(model="text-embedding-3-small", input="embed this").data[0].embedding == [0.5, -0.25, 0.125]
    assert client.moderations.create(model="omni-moderation-latest", input="hello").results[0].flagged is False


def test_messages(claude: anthropic.Anthropic) -> None:
    """Text, tools and thinking, whole and streamed; the beta path of newer tools."""
    tools = [{"name": "get_weather", "input_schema": {"type": "object", "properties": {}}}]
    model = "claude-sonnet-5-5"
    message = claude.messages.create(model=model, max_tokens=100, messages=user("say it in claude"))
    assert message.content[0].text == TEXT
    with claude.messages.stream(model=model, max_tokens=100, messages=user("use a tool"), tools=tools) as stream:
        block = stream.get_final_message().content[-1]
    assert (block.type, block.name, block.input) == ("tool_use", "get_weather", {"city": "Shanghai"})
    thought = claude.messages.create(model=model, max_tokens=100, messages=user("think"))
    assert [block.type for block in thought.content] == ["thinking", "text"]
    beta = claude.beta.messages.create(
        model=model, max_tokens=100, messages=user("say it in claude"), betas=["context-management-2025-06-27"]
    )
    assert beta.content[0].text == TEXT


def test_a_stream_that_is_cut(client: openai.OpenAI, claude: anthropic.Anthropic) -> None:
    """The emulator breaks off after a few pieces: the SDK raises, instead of taking half an answer for a whole one."""
    with pytest.raises(openai.APIError, match="openai"):
        list(client.chat.completions.create(model="gpt-6-sol", messages=user("break off"), stream=True))
    with (
        pytest.raises(anthropic.APIStatusError, match="anthropic"),
        claude.messages.stream(model="claude-sonnet-5-5", max_tokens=900, messages=user("break off")) as stream,
    ):
        stream.get_final_message()


def test_live_models(gateway: Gateway, far: Emulator) -> None:
    """What the emulator lists is listed by us, too."""
    theirs = {model["id"] for model in far.get("/v1/models")["data"]}
    ours = {model["id"] for model in gateway.ask(None, "/v1/models", method="GET").json["data"]}
    assert theirs
    assert theirs <= ours


def test_errors(client: openai.OpenAI, claude: anthropic.Anthropic, gateway: Gateway) -> None:
    """The emulator's 429, in both dialects. It rests the keys: nothing may come after."""
    with pytest.raises(openai.RateLimitError) as limited:
        client.chat.completions.create(model="gpt-6-sol", messages=user("slow down"))
    assert "too fast" in limited.value.message
    with pytest.raises(anthropic.RateLimitError) as too:
        claude.messages.create(model="claude-sonnet-5-5", max_tokens=9, messages=user("slow down"))
    assert too.value.body["error"]["type"] == "rate_limit_error"
