"""Vertex AI: where which model is asked, and with whose word."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from aigw.deployment import ProviderKey
from aigw.errors import ConfigError
from aigw.protocols.operations import OPERATIONS
from aigw.providers import rs256
from aigw.providers.vertex import Vertex
from tests.providers.clouds import built, headers, pem, service_account, url

BODY = b'{"model":"m","stream":true,"x":1.0}'
PLACE = "https://us-central1-aiplatform.googleapis.com/v1/projects/my-project/locations/us-central1/publishers"


def vertex(key: str = "ya29.token", **table: Any) -> Vertex:
    settings = {"project": "my-project"} | table.pop("settings", {})
    provider = built("vertex", *([key] if key else []), settings=settings, **table)
    assert isinstance(provider, Vertex)
    return provider


def asked(provider: Vertex, operation: str, model: str, *, key: str = "ya29.token", stream: bool = False) -> Any:
    return provider.prepare(OPERATIONS[operation], BODY, ProviderKey("k", key), {}, model, stream=stream)


@pytest.mark.parametrize(
    ("operation", "model", "via"),
    [
        ("chat", "gemini-3.8-flash", "chat"),
        ("chat", "meta/llama-4", "chat"),
        ("chat", "claude-opus-5-5@default", "messages"),
        ("messages", "claude-opus-5-5@default", "messages"),
        ("messages", "gemini-3.8-flash", "generate"),
        ("generate", "gemini-3.8-flash", "generate"),
        ("responses", "meta/llama-4", "chat"),
        ("embeddings", "text-embedding-005", "predict_embeddings"),
        ("count_tokens", "gemini-3.8-flash", "count_gemini"),
        ("count_gemini", "claude-opus-5-5@default", "count_tokens"),
    ],
)
def test_who_serves_what(operation: str, model: str, via: str) -> None:
    assert vertex().serving(OPERATIONS[operation], model) is OPERATIONS[via]


def test_gemini() -> None:
    request = asked(vertex(), "generate", "gemini-3.8-flash", stream=True)
    assert url(request) == f"{PLACE}/google/models/gemini-3.8-flash:streamGenerateContent?alt=sse"
    assert request.body == BODY
    assert headers(request)["authorization"] == "Bearer ya29.token"
    assert url(asked(vertex(), "count_gemini", "g")) == f"{PLACE}/google/models/g:countTokens"


def test_claude_by_raw_predict() -> None:
    """The model is in the path and no longer in the body; all else stays byte for byte."""
    request = asked(vertex(), "messages", "claude-opus-5-5@default", stream=True)
    assert url(request) == f"{PLACE}/anthropic/models/claude-opus-5-5@default:streamRawPredict"
    assert request.body == b'{"stream":true,"x":1.0,"anthropic_version":"vertex-2023-10-16"}'
    assert url(asked(vertex(), "messages", "claude-x")).endswith("/claude-x:rawPredict")
    counted = asked(vertex(), "count_tokens", "claude-x")
    assert url(counted) == f"{PLACE}/anthropic/models/count-tokens:rawPredict"
    assert json.loads(counted.body)["model"] == "m"


def test_the_openai_layer_wants_the_publisher() -> None:
    request = asked(vertex(), "chat", "gemini-3.8-flash")
    assert request.body == b'{"model":"google/gemini-3.8-flash","stream":true,"x":1.0}'
    assert asked(vertex(), "chat", "google/gemini-3.8-flash").body == BODY


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("global", "aiplatform.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
        ("europe-west4", "europe-west4-aiplatform.googleapis.com"),
    ],
)
def test_places_have_hosts(location: str, host: str) -> None:
    request = asked(vertex(settings={"location": location}), "generate", "g")
    assert (
        url(request) == f"https://{host}/v1/projects/my-project/locations/{location}/publishers/google/models/g:generateContent"
    )
    request = asked(vertex(settings={"location": location}), "chat", "g")
    assert url(request).startswith(f"https://{host}/v1beta1/projects/my-project/locations/{location}/endpoints/openapi/chat")


def test_express_mode() -> None:
    key = "AQ.Ab8RN6-0123456789"
    provider = built("vertex", key)
    assert provider.serving(OPERATIONS["chat"], "gemini-3.8-flash") is OPERATIONS["generate"]
    request = provider.prepare(OPERATIONS["generate"], BODY, ProviderKey("k", key), {}, "gemini-3.8-flash")
    assert url(request) == "https://aiplatform.googleapis.com/v1/publishers/google/models/gemini-3.8-flash:generateContent"
    assert headers(request)["x-goog-api-key"] == key
    assert "authorization" not in headers(request)


def test_a_service_account_is_exchanged() -> None:
    """The assertion is signed with its key, for its address, for an hour; the token goes where the key would have gone."""
    secret = service_account()
    provider, key = built("vertex", secret), ProviderKey("k", secret)
    credential = provider.credential(key)
    assert credential is not None
    assert provider.credential(key) is credential
    request = credential.refresh(1_700_000_000.5)
    assert request is not None
    assert url(request) == "https://oauth2.googleapis.com/token"
    form = parse_qs(request.body.decode())
    assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    said, _, proof = form["assertion"][0].rpartition(".")
    head, claims = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in said.split("."))
    assert head == {"alg": "RS256", "typ": "JWT", "kid": "k1"}
    assert claims == {
        "iss": "me@my-project.iam.gserviceaccount.com",
        "scope": "https://www.googleapis.com/auth/cloud-platform",
        "aud": "https://oauth2.googleapis.com/token",
        "iat": 1_700_000_000,
        "exp": 1_700_003_600,
    }
    signature = base64.urlsafe_b64decode(proof + "==")
    assert signature == rs256.sign(rs256.read_key(pem()), said.encode())
    credential.accept(200, [], b'{"access_token":"ya29.fresh","expires_in":3599}', 1_700_000_000)
    asked = provider.prepare(OPERATIONS["generate"], BODY, key, {}, "g")
    assert headers(asked)["authorization"] == "Bearer ya29.fresh"
    assert url(asked).startswith(PLACE), "the project is the service account's"
    error = provider.judge(401, [], b'{"error":{"message":"ya29.fresh is stale"}}', key)
    assert "ya29.fresh" not in error.message + error.detail
    assert credential.refresh(1_700_000_001) is not None


def test_the_machines_own_account() -> None:
    provider = vertex("", settings={"credentials": "metadata"})
    credential = provider.credential(ProviderKey("vertex", ""))
    assert credential is not None
    request = credential.refresh(0.0)
    assert request is not None
    assert url(request).startswith("http://metadata.google.internal/computeMetadata/v1/")
    assert headers(request)["metadata-flavor"] == "Google"


def test_application_default_credentials(tmp_path: Path) -> None:
    path = tmp_path / "account.json"
    path.write_text(json.dumps(json.loads(service_account()), indent=2))
    path.chmod(0o600)
    provider = built("vertex", environ={"GOOGLE_APPLICATION_CREDENTIALS": str(path)})
    assert provider.credential(ProviderKey("vertex", "")) is not None


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"private_key": "-----BEGIN PRIVATE KEY-----"}, "private_key"),
        ({"token_uri": "http://evil.test/"}, "token_uri"),
        ({"type": "authorized_user"}, "service account"),
        ({"client_email": None}, "client_email"),
    ],
)
def test_a_broken_service_account(change: dict[str, Any], complaint: str) -> None:
    secret = json.dumps(json.loads(service_account()) | change, separators=(",", ":")).replace(" ", "\\u0020")
    with pytest.raises(ConfigError, match=complaint) as caught:
        built("vertex", secret)
    assert json.loads(service_account())["private_key"].splitlines()[1] not in caught.value.message
