"""Google's SDK through a real server to the demo provider, which speaks OpenAI's dialect: every answer is translated."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google import genai
from google.genai import errors, types

from tests.e2e.world import Gateway, eventually

SAID = "You said: hello"
SAFE = types.SafetySetting(
    category=types.HarmCategory.HARM_CATEGORY_HARASSMENT, threshold=types.HarmBlockThreshold.BLOCK_ONLY_HIGH
)


@pytest.fixture(scope="module")
def client(demo: Gateway) -> Iterator[genai.Client]:
    made = genai.Client(api_key=demo.key, http_options=types.HttpOptions(base_url=demo.url))
    yield made
    made.close()


def test_generate_content(demo: Gateway, client: genai.Client) -> None:
    """A typed answer, its usage the record's; what the provider cannot be told is named."""
    config = types.GenerateContentConfig(system_instruction="be brief", max_output_tokens=100, safety_settings=[SAFE])
    answer = client.models.generate_content(model="demo", contents="hello", config=config)
    assert answer.text is not None
    assert answer.text.endswith(SAID)
    assert answer.candidates is not None
    assert answer.candidates[0].finish_reason == types.FinishReason.STOP
    record = eventually(lambda: demo.records("operation = 'generate'"))[-1]
    usage = answer.usage_metadata
    assert usage is not None
    assert (record.input, record.output) == (usage.prompt_token_count, usage.candidates_token_count)
    assert (record.dialect, record.requested_model, record.loss) == ("gemini", "demo", "safetySettings")
    assert "google-genai-sdk" in record.client_agent


def test_a_stream(demo: Gateway, client: genai.Client) -> None:
    """Piece by piece, the reason and the usage in the last one."""
    chunks = list(client.models.generate_content_stream(model="demo", contents="hello"))
    assert len(chunks) > 5
    assert "".join(chunk.text or "" for chunk in chunks).endswith(SAID)
    assert chunks[-1].usage_metadata is not None
    assert chunks[-1].candidates is not None
    assert chunks[-1].candidates[0].finish_reason == types.FinishReason.STOP
    record = eventually(lambda: demo.records("operation = 'generate' AND stream"))[-1]
    assert record.output == chunks[-1].usage_metadata.candidates_token_count


@pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")  # the SDK's own
async def test_without_blocking(demo: Gateway) -> None:
    """The asynchronous half of the SDK."""
    client = genai.Client(api_key=demo.key, http_options=types.HttpOptions(base_url=demo.url))
    async with client.aio as asking:
        stream = await asking.models.generate_content_stream(model="demo", contents="hello")
        assert "".join([chunk.text or "" async for chunk in stream]).endswith(SAID)
    client.close()


def test_a_conversation(client: genai.Client) -> None:
    """The SDK sends back what it got."""
    chat = client.chats.create(model="demo")
    chat.send_message("first")
    assert (chat.send_message("hello").text or "").endswith(SAID)


def test_counts_embeddings_and_models(client: genai.Client) -> None:
    """What is asked besides."""
    assert (client.models.count_tokens(model="demo", contents="hello " * 100).total_tokens or 0) > 50
    one = client.models.embed_content(model="demo", contents=["a", "b"])
    assert one.embeddings is not None
    assert len(one.embeddings) == 2
    assert all(embedding.values for embedding in one.embeddings)
    (model,) = client.models.list()
    assert (model.name, model.display_name) == ("models/demo", "demo")
    assert "generateContent" in (model.supported_actions or [])
    assert client.models.get(model="demo").name == "models/demo"


def test_errors_are_the_sdks_own(demo: Gateway, client: genai.Client) -> None:
    """With google.rpc's status."""
    with pytest.raises(errors.ClientError) as caught:
        client.models.generate_content(model="nobody", contents="hello")
    assert (caught.value.code, caught.value.status) == (404, "NOT_FOUND")
    with genai.Client(api_key="wrong", http_options=types.HttpOptions(base_url=demo.url)) as stranger:
        with pytest.raises(errors.ClientError) as caught:
            stranger.models.generate_content(model="demo", contents="hello")
        assert (caught.value.code, caught.value.status) == (401, "UNAUTHENTICATED")
