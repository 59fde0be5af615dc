"""GigaChat: Basic credentials for a token."""

from __future__ import annotations

import uuid

import pytest

from aigw.deployment import ProviderKey
from aigw.errors import ConfigError
from aigw.protocols.operations import OPERATIONS
from tests.providers.clouds import built, headers, url

KEY = ProviderKey("k", "Y2xpZW50OnNlY3JldA==")


def test_the_exchange() -> None:
    provider = built("gigachat", KEY.secret, settings={"scope": "GIGACHAT_API_B2B"})
    credential = provider.credential(KEY)
    assert credential is not None
    asked = credential.refresh(0.0)
    assert asked is not None
    assert url(asked) == "https://ngw.devices.sberbank.ru:9443/api/v2/oauth"
    assert asked.body == b"scope=GIGACHAT_API_B2B"
    assert headers(asked)["authorization"] == f"Basic {KEY.secret}"
    assert uuid.UUID(headers(asked)["rquid"]).version == 4
    credential.accept(200, [], b'{"access_token":"tok","expires_at":1800000}', 0.0)
    request = provider.prepare(OPERATIONS["chat"], b"{}", KEY, {})
    assert url(request) == "https://gigachat.devices.sberbank.ru/api/v1/chat/completions"
    assert headers(request)["authorization"] == "Bearer tok"


def test_credentials_go_to_https_alone() -> None:
    with pytest.raises(ConfigError, match="https://"):
        built("gigachat", KEY.secret, settings={"auth_url": "http://evil.test/"})
