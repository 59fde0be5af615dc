"""Azure: three forms of address, and Entra."""

from __future__ import annotations

from typing import Any

import pytest

from aigw.deployment import ProviderKey
from aigw.protocols.operations import OPERATIONS
from tests.providers.clouds import built, headers, url

KEY = "0123456789abcdef"
DATED = "2024-10-21"


def asked(operation: str = "chat", key: str = KEY, **table: Any) -> Any:
    if "base_url" not in table:
        table["settings"] = {"resource": "r"} | table.get("settings", {})
    provider = built("azure", key, **table)
    return provider.prepare(OPERATIONS[operation], b"{}", ProviderKey("k", key), {}, "gpt 4o")


@pytest.mark.parametrize(
    ("operation", "table", "wanted"),
    [
        ("chat", {}, "https://r.openai.azure.com/openai/v1/chat/completions"),
        (
            "responses",
            {"settings": {"api_version": "preview"}},
            "https://r.openai.azure.com/openai/v1/responses?api-version=preview",
        ),
        (
            "chat",
            {"settings": {"api_version": DATED}},
            f"https://r.openai.azure.com/openai/deployments/gpt%204o/chat/completions?api-version={DATED}",
        ),
        ("responses", {"settings": {"api_version": DATED}}, f"https://r.openai.azure.com/openai/responses?api-version={DATED}"),
        (
            "embeddings",
            {"base_url": "https://x.openai.azure.com/openai/deployments/mine"},
            f"https://x.openai.azure.com/openai/deployments/mine/embeddings?api-version={DATED}",
        ),
        ("chat", {"base_url": "https://x.openai.azure.com/openai/v1"}, "https://x.openai.azure.com/openai/v1/chat/completions"),
        ("chat", {"base_url": "https://x.services.ai.azure.com"}, "https://x.services.ai.azure.com/openai/v1/chat/completions"),
        (
            "chat",
            {"base_url": "https://x.services.ai.azure.com/models"},
            "https://x.services.ai.azure.com/models/chat/completions?api-version=2024-05-01-preview",
        ),
        ("messages", {}, "https://r.services.ai.azure.com/anthropic/v1/messages"),
    ],
)
def test_addresses(operation: str, table: dict[str, Any], wanted: str) -> None:
    request = asked(operation, **table)
    assert url(request) == wanted
    assert headers(request)["api-key"] == KEY


def test_the_models_of_a_classic_address() -> None:
    provider = built("azure", KEY, settings={"resource": "r", "api_version": DATED})
    request = provider.models_request(ProviderKey("k", KEY))
    assert request is not None
    assert url(request) == f"https://r.openai.azure.com/openai/models?api-version={DATED}"


def test_claude_is_asked_by_messages_and_nobody_else_is() -> None:
    provider = built("azure", KEY, settings={"resource": "r"})
    assert provider.serving(OPERATIONS["chat"], "claude-opus-5-5") is OPERATIONS["messages"]
    assert provider.serving(OPERATIONS["messages"], "gpt-6") is OPERATIONS["chat"]
    assert provider.serving(OPERATIONS["responses"], "gpt-6") is OPERATIONS["responses"]


def test_a_token_of_entra() -> None:
    request = asked(key="eyJhbGciOi.eyJhdWQi.c2ln")
    assert headers(request)["authorization"] == "Bearer eyJhbGciOi.eyJhdWQi.c2ln"
    assert "api-key" not in headers(request)


def test_an_application_of_entra_is_exchanged() -> None:
    secret = "tenant-1:client-1:word~with:colon"
    provider, key = built("azure", secret, settings={"resource": "r"}), ProviderKey("k", secret)
    credential = provider.credential(key)
    assert credential is not None
    request = credential.refresh(0.0)
    assert request is not None
    assert url(request) == "https://login.microsoftonline.com/tenant-1/oauth2/v2.0/token"
    assert b"client_secret=word~with%3Acolon&scope=https%3A%2F%2Fcognitiveservices.azure.com%2F.default" in request.body
    credential.accept(200, [], b'{"access_token":"eyJ.a.b","expires_in":3600}', 0.0)
    assert headers(provider.prepare(OPERATIONS["chat"], b"{}", key, {}))["authorization"] == "Bearer eyJ.a.b"
    assert "word~with:colon" in provider.secrets
