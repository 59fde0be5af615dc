"""watsonx.ai: OpenAI's chat under other names."""

from __future__ import annotations

import pytest

from aigw.deployment import ProviderKey
from aigw.protocols.operations import OPERATIONS
from tests.providers.clouds import built, headers, url

KEY = ProviderKey("k", "ibm-key-0123456789")


@pytest.mark.parametrize(("stream", "path"), [(False, "chat"), (True, "chat_stream")])
def test_a_request(stream: bool, path: str) -> None:
    provider = built("watsonx", KEY.secret, settings={"project_id": "p-1"})
    credential = provider.credential(KEY)
    assert credential is not None
    asked = credential.refresh(0.0)
    assert asked is not None
    assert url(asked) == "https://iam.cloud.ibm.com/identity/token"
    assert asked.body == b"grant_type=urn%3Aibm%3Aparams%3Aoauth%3Agrant-type%3Aapikey&apikey=ibm-key-0123456789"
    credential.accept(200, [], b'{"access_token":"tok","expires_in":3600}', 0.0)
    body = b'{"model":"ibm/granite-4-h-small","stream":true,"stream_options":{},"messages":[],"x":1.0}'
    request = provider.prepare(OPERATIONS["chat"], body, KEY, {}, "ibm/granite-4-h-small", stream=stream)
    assert url(request) == f"https://us-south.ml.cloud.ibm.com/ml/v1/text/{path}?version=2025-02-11"
    assert request.body == b'{"model_id":"ibm/granite-4-h-small","messages":[],"x":1.0,"project_id":"p-1"}'
    assert headers(request)["authorization"] == "Bearer tok"


def test_only_chat_is_served_and_the_key_is_never_sent() -> None:
    provider = built("watsonx", KEY.secret, settings={"space_id": "s"})
    assert provider.serving(OPERATIONS["embeddings"], "m") is None
    assert provider.models_request(KEY) is None
    request = provider.prepare(OPERATIONS["chat"], b"{}", KEY, {}, "m")
    assert KEY.secret not in str(headers(request))
