"""Addresses: the row's own, filled in, and where they go when the operator names another server."""

from __future__ import annotations

import pytest

from aigw.errors import ConfigError
from aigw.protocols.operations import OPERATIONS
from aigw.providers import catalog
from aigw.providers.addresses import Addresses, checked_url


def addresses(kind: str, base_url: str | None = None, anthropic: str | None = None, **settings: str) -> Addresses:
    row = catalog.row(kind)
    filled = {setting.name: setting.default for setting in row.settings if setting.default} | settings
    return Addresses(row, filled, base_url=base_url, anthropic_base_url=anthropic, place="providers.p")


@pytest.mark.parametrize(
    ("kind", "base_url", "chat", "messages"),
    [
        ("openai", None, "https://api.openai.com/v1/chat/completions", None),
        ("openai", "http://mock:1/v1", "http://mock:1/v1/chat/completions", None),
        ("openai", "http://mock:1/v1/", "http://mock:1/v1/chat/completions", None),
        ("anthropic", None, None, "https://api.anthropic.com/v1/messages"),
        ("anthropic", "http://mock:1/v1", None, "http://mock:1/v1/messages"),
        ("anthropic", "http://mock:1", None, "http://mock:1/v1/messages"),
        ("deepseek", None, "https://api.deepseek.com/chat/completions", "https://api.deepseek.com/anthropic/v1/messages"),
        ("deepseek", "http://m:1", "http://m:1/chat/completions", "http://m:1/anthropic/v1/messages"),
        ("moonshot", "http://m:1/v1", "http://m:1/v1/chat/completions", "http://m:1/anthropic/v1/messages"),
        ("moonshot", "http://m:1/other", "http://m:1/other/chat/completions", None),
        (
            "fireworks",
            "http://m:1/x/inference/v1",
            "http://m:1/x/inference/v1/chat/completions",
            "http://m:1/x/inference/v1/messages",
        ),
        ("ollama", None, "http://localhost:11434/v1/chat/completions", "http://localhost:11434/v1/messages"),
        ("ollama", "http://gpu:11434", "http://gpu:11434/v1/chat/completions", "http://gpu:11434/v1/messages"),
        ("ollama", "http://gpu:11434/v1", "http://gpu:11434/v1/chat/completions", "http://gpu:11434/v1/messages"),
        ("vllm", "http://gpu:8000/v1", "http://gpu:8000/v1/chat/completions", "http://gpu:8000/v1/messages"),
        ("gemini", "http://m:1/v1beta", "http://m:1/v1beta/openai/chat/completions", None),
        ("gemini", "http://m:1/v1beta/openai", "http://m:1/v1beta/openai/chat/completions", None),
        ("azure", "https://me.openai.azure.com", "https://me.openai.azure.com/openai/v1/chat/completions", None),
        ("openai-compatible", "http://[fd00::1]:8000/v1", "http://[fd00::1]:8000/v1/chat/completions", None),
        ("openai-compatible", "http://my-host", "http://my-host/chat/completions", None),
    ],
)
def test_where_chat_and_messages_are(kind: str, base_url: str | None, chat: str | None, messages: str | None) -> None:
    """Both surfaces move together; one whose place nobody named is not served, above all not at the old server."""
    urls = addresses(kind, base_url).operations()
    assert urls.get("chat") == chat
    assert urls.get("messages") == messages
    assert urls.get("count_tokens") == (f"{messages}/count_tokens" if messages else None)


@pytest.mark.parametrize("kind", [id for id in catalog.ids() if catalog.row(id).served and id != "demo"])  # noqa: A001
def test_a_key_never_goes_to_the_old_server(kind: str) -> None:
    """With a base_url of the operator's own, every URL is there."""
    path = catalog.row(kind).base_url.partition("://")[2].partition("/")[2]
    made = addresses(kind, f"http://mine.example:7/{path}".replace("{", "").replace("}", "").rstrip("/"), **dict.fromkeys(
        ("project", "resource", "host", "account", "account_id"), "x"))  # fmt: skip
    urls = [*made.operations().values(), *filter(None, [made.models()])]
    assert urls
    assert all(url.startswith("http://mine.example:7") for url in urls)


def test_the_anthropic_surface_may_be_named() -> None:
    """With or without its version."""
    for url in ("http://m:2/anthropic", "http://m:2/anthropic/v1/", "http://m:2/anthropic/v1"):
        urls = addresses("openai-compatible", "http://m:1/v1", url).operations()
        assert urls["messages"] == "http://m:2/anthropic/v1/messages"
        assert urls["chat"] == "http://m:1/v1/chat/completions"


def test_settings_become_parts_of_the_address() -> None:
    """And a missing or a crooked one is the operator's to mend."""
    urls = addresses("vertex", project="my-project", location="europe-west4").operations()
    assert urls["chat"].startswith(
        "https://europe-west4-aiplatform.googleapis.com/v1beta1/projects/my-project/locations/europe-west4/"
    )
    assert (
        addresses("vertex", project="p", location="global")
        .operations()["chat"]
        .startswith("https://aiplatform.googleapis.com/")
    )
    assert addresses("databricks", host="https://dbc-1.cloud.databricks.com/").operations()["chat"] == (
        "https://dbc-1.cloud.databricks.com/serving-endpoints/chat/completions"
    )
    with pytest.raises(ConfigError, match="AZURE_RESOURCE_NAME"):
        addresses("azure").operations()
    for evil in ("evil.example/x", "a@b", "a b", "a\r\nb", "..", "{project}"):
        with pytest.raises(ConfigError, match=r"providers\.p\.settings\.resource"):
            addresses("azure", resource=evil).operations()


def test_own_paths() -> None:
    """What is not at the usual place."""
    assert addresses("dashscope").operations()["rerank"] == "https://dashscope.aliyuncs.com/compatible-api/v1/reranks"
    assert (
        addresses("dashscope", "http://m:1/compatible-mode/v1").operations()["rerank"] == "http://m:1/compatible-api/v1/reranks"
    )
    assert addresses("cohere").operations()["rerank"] == "https://api.cohere.ai/v2/rerank"
    assert addresses("ollama", "http://gpu:1/v1").models() == "http://gpu:1/api/tags"
    assert addresses("anthropic", "http://m:1").models() == "http://m:1/v1/models?limit=1000"
    assert addresses("github", "http://m:1/inference").models() == "http://m:1/catalog/models"
    assert addresses("voyage").operations()["voyage_rerank"] == "https://api.voyageai.com/v1/rerank"
    assert "rerank" not in addresses("voyage").operations(), "its shape is another"
    assert "chat" not in addresses("voyage").operations()


def test_shapes_of_their_own() -> None:
    """Behind the base URL, or on its server; which one, a setting may say."""
    assert addresses("cohere", "http://m:1/compatibility/v1").operations()["cohere_chat"] == "http://m:1/v2/chat"
    assert addresses("ollama", "http://gpu:1/v1").operations()["ollama_chat"] == "http://gpu:1/api/chat"
    assert addresses("dify", "http://d:1/v1").operations() == {"dify": "http://d:1/v1/chat-messages"}
    workflow = Addresses(
        catalog.row("dify"), {"bot_type": "workflow"}, base_url=None, anthropic_base_url=None, place="providers.p"
    )
    assert workflow.operations() == {"dify": "https://api.dify.ai/v1/workflows/run"}
    versioned = Addresses(
        catalog.row("triton"), {"model_version": "3"}, base_url="http://t:1", anthropic_base_url=None, place="providers.p"
    )
    assert versioned.operations()["triton:stream"] == "http://t:1/v2/models/{model}/versions/3/generate_stream"


def test_the_generic_row_passes_everything_on() -> None:
    """Each operation as itself, behind the base URL; nothing is translated for a server that nobody knows."""
    found = addresses("generic", "http://any:1/v1").operations()
    assert found["chat"] == "http://any:1/v1/chat/completions"
    assert found["messages"] == "http://any:1/v1/messages"
    assert found["generate"] == "http://any:1/v1/models/{model}:generateContent"
    assert not [name for name in found if not OPERATIONS[name].door]


def test_a_base_url_of_another_form_is_explained() -> None:
    """Rather than a provider that serves nothing."""
    with pytest.raises(ConfigError, match="v1beta"):
        addresses("gemini", "http://m:1/v7").operations()


@pytest.mark.parametrize(
    "url",
    [
        "api.example/v1",
        "ftp://h/v1",
        "http://",
        "http://user:hunter2@h/v1",
        "http://h/v1?key=hunter2",
        "http://h/v1#x",
        "http://h:99999/v1",
        "http://h/a b",
        "http://h/\r\nx: y",
        "http://h/../v1",
        "http://h/é",
        "http://[::1/v1",
    ],
)
def test_bad_urls(url: str) -> None:
    """Refused with the key's name, and never repeated."""
    with pytest.raises(ConfigError, match=r"providers\.p\.base_url") as caught:
        checked_url(url, "providers.p.base_url")
    assert "hunter2" not in str(caught.value)


def test_good_urls() -> None:
    """One form leaves."""
    assert checked_url(" https://API.Example/v1/ ", "k") == "https://api.example/v1"
    assert checked_url("http://münchen.example:8/v1", "k") == "http://xn--mnchen-3ya.example:8/v1"
    assert checked_url("http://[::1]:8", "k") == "http://[::1]:8"


@pytest.mark.parametrize(
    ("kind", "base_url", "settings", "expected"),
    [
        ("openai", None, {}, ("https://api.openai.com/v1/realtime", "model")),
        ("openai", "http://m:1/v1", {}, ("http://m:1/v1/realtime", "model")),
        ("azure", None, {"resource": "r"}, ("https://r.openai.azure.com/openai/v1/realtime", "model")),
        (
            "azure",
            None,
            {"resource": "r", "api_version": "preview"},
            ("https://r.openai.azure.com/openai/v1/realtime", "model"),
        ),
        (
            "azure",
            None,
            {"resource": "r", "api_version": "2025-04-01-preview"},
            ("https://r.openai.azure.com/openai/realtime", "deployment"),
        ),
        ("dashscope", None, {}, ("https://dashscope.aliyuncs.com/api-ws/v1/realtime", "model")),
        ("dashscope", "http://m:1/compatible-mode/v1", {}, ("http://m:1/api-ws/v1/realtime", "model")),
        ("dashscope-intl", None, {}, ("https://dashscope-intl.aliyuncs.com/api-ws/v1/realtime", "model")),
        ("openai-compatible", "http://m:1/v1", {}, ("http://m:1/v1/realtime", "model")),
        ("vllm", "http://m:1/v1", {}, ("http://m:1/v1/realtime", "model")),
        ("deepseek", None, {}, ("", "")),
        ("gemini", None, {}, ("", "")),
        ("anthropic", None, {}, ("", "")),
    ],
)
def test_where_realtime_is(kind: str, base_url: str | None, settings: dict[str, str], expected: tuple[str, str]) -> None:
    """Azure has two forms of it, DashScope a path of its own; Google's is another protocol."""
    assert addresses(kind, base_url, **settings).realtime() == expected


@pytest.mark.parametrize("root", [None, "http://m:1/v1beta"])
def test_geminis_own_api_beside_its_openai_layer(root: str | None) -> None:
    """Each operation where it belongs, the model's place open, streams by a path of their own."""
    urls = addresses("gemini", root).operations()
    base = root or "https://generativelanguage.googleapis.com/v1beta"
    assert urls["chat"] == f"{base}/openai/chat/completions"
    assert urls["generate"] == f"{base}/models/{{model}}:generateContent"
    assert urls["generate:stream"] == f"{base}/models/{{model}}:streamGenerateContent?alt=sse"
    assert urls["embed_gemini_batch"] == f"{base}/models/{{model}}:batchEmbedContents"
    assert not any("generate" in name for name in addresses("openai").operations())
