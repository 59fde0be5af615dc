"""Google Vertex AI: Gemini by its own API and by Google's OpenAI layer, Claude by `rawPredict`, embeddings by `predict`.

A key is one of three: a service account's JSON (exchanged for a token that lasts an hour), an API key of express mode
("AIza...", "AQ....": Gemini only, without a project), or an access token of one's own. `settings.credentials = "metadata"`
asks the machine's metadata server instead (Compute Engine, GKE, Cloud Run).

(Facts: google-genai 3.4 and the Anthropic SDK's `lib/vertex` for URLs and bodies; RFC 7523 as Google documents it for
service accounts.)
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from aigw import __version__
from aigw.deployment import ProviderKey
from aigw.errors import ConfigError
from aigw.exchange import Target, UpstreamRequest
from aigw.protocols import splice
from aigw.protocols.operations import OPERATIONS, Operation
from aigw.providers import rs256
from aigw.providers.compatible import MODEL, Endpoint, Given
from aigw.providers.tokens import ExchangingProvider, checked, form

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
TOKEN_URL = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
METADATA = "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token"
LASTS = 3600  # seconds; Google allows no more
CLAUDE_VERSION = "vertex-2023-10-16"
_NEWER = "2026-10-21"
_EXPRESS = re.compile(r"(?:AIza|AQ\.)[A-Za-z0-9_.-]+")
_GEMINI_WAYS = {
    "generate": "generateContent",
    "generate:stream": "streamGenerateContent?alt=sse",
    "generate_array": "streamGenerateContent",
    "count_gemini": "countTokens",
}


def service_account(secret: str) -> dict[str, Any] | None:
    """The service account that *secret* is the JSON of; None when it is none."""
    if not secret.startswith("{"):
        return None
    try:
        found = msgspec.json.decode(secret)
    except (msgspec.DecodeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


class Vertex(ExchangingProvider):
    """Implements `Provider`."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._express = "chat" not in self._endpoints
        self.clock = time.time

    @classmethod
    def fitted(cls, given: Given) -> Given:
        """Regions have hosts of their own, and a service account says its project."""
        settings = dict(given.settings)
        accounts = [account for key in given.keys or [cls.ambient(given)] if (account := service_account(key)) is not None]
        project = next((account["project_id"] for account in accounts if isinstance(account.get("project_id"), str)), "")
        if project:
            settings.setdefault("project", project)
        location = settings.get("location", "us-central1")
        settings["location"] = location
        express = [_EXPRESS.fullmatch(key) is not None for key in given.keys]
        if any(express) and not all(express):
            raise ConfigError(
                "keys of express mode and others are asked at different addresses; make two providers of them",
                key=f"{given.place}.keys",
            )
        if location == "global" or any(express):
            host = "https://aiplatform.googleapis.com"
        elif location in ("us", "eu"):
            host = f"https://aiplatform.{location}.rep.googleapis.com"
        else:
            host = "https://{location}-aiplatform.googleapis.com"
        surface = f"{host}/v1beta1/projects/{{project}}/locations/{{location}}/endpoints/openapi"
        row = msgspec.structs.replace(
            given.row, base_url=f"{host}/v1", openai_url="" if any(express) else surface, openai_url_when={}
        )
        return given._replace(row=row, settings=settings)

    @classmethod
    def urls(cls, given: Given) -> dict[str, str]:
        root = given.addresses.root()
        if given.keys and _EXPRESS.fullmatch(given.keys[0]):
            google = f"{root}/publishers/google/models/{MODEL}"
            return {name: f"{google}:{way}" for name, way in _GEMINI_WAYS.items()}
        found = {"chat": given.addresses.operations()["chat"]}
        place = given.addresses.filled(f"{root}/projects/{{project}}/locations/{{location}}/publishers")
        found |= {name: f"{place}/google/models/{MODEL}:{way}" for name, way in _GEMINI_WAYS.items()}
        found["predict_embeddings"] = f"{place}/google/models/{MODEL}:predict"
        found["messages"] = f"{place}/anthropic/models/{MODEL}:rawPredict"
        found["messages:stream"] = f"{place}/anthropic/models/{MODEL}:streamRawPredict"
        found["count_tokens"] = f"{place}/anthropic/models/count-tokens:rawPredict"
        return found

    @classmethod
    def fault(cls, secret: str) -> str:
        if not secret.startswith("{"):
            return super().fault(secret)
        account = service_account(secret)
        if account is None or account.get("type", "service_account") != "service_account":
            return "expected the JSON of a service account; this is other JSON, or only a part of it"
        if not isinstance(account.get("client_email"), str):
            return "the service account's JSON names no client_email"
        try:
            rs256.read_key(str(account.get("private_key", "")))
            checked(str(account.get("token_uri") or TOKEN_URL), "token_uri")
        except ValueError as error:
            return f"the service account's private_key: {error}"
        except ConfigError as error:
            return f"the service account's token_uri: {error.message}"
        return ""

    @classmethod
    def parts(cls, secret: str) -> tuple[str, ...]:
        account = service_account(secret)
        if account is None:
            return ()
        pem = str(account.get("private_key", ""))
        return tuple(filter(None, (pem, "".join(line for line in pem.splitlines() if not line.startswith("--")))))

    @classmethod
    def ambient(cls, given: Given) -> str:
        if given.settings.get("credentials") == "metadata":
            return "metadata"
        path = given.environ.get("GOOGLE_APPLICATION_CREDENTIALS", "")
        return given.secret(f"file:{path}") if path else ""

    def exchange(self, secret: str) -> Callable[[float], UpstreamRequest] | None:
        secret = secret or self._ambient
        if secret == "metadata":  # noqa: S105 - the word for having none
            return self._from_metadata
        account = service_account(secret)
        if account is None:
            return None
        key = rs256.read_key(account["private_key"])
        url = str(account.get("token_uri") or TOKEN_URL)
        endpoint = self._way(url)

        def ask(now: float) -> UpstreamRequest:
            at = int(now)
            claims = {"iss": account["client_email"], "scope": SCOPE, "aud": url, "iat": at, "exp": at + LASTS}
            grant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
            proof = rs256.jwt(key, claims, str(account.get("private_key_id", "")))
            return form(endpoint, {"grant_type": grant, "assertion": proof})

        return ask

    def _from_metadata(self, now: float) -> UpstreamRequest:
        endpoint = self._way(METADATA)
        headers = {"metadata-flavor": "Google", "user-agent": f"aigw/{__version__}"}
        return UpstreamRequest(Target("GET", endpoint.origin, endpoint.path, headers), first_byte_timeout=5.0, timeout=10.0)

    def serving(self, operation: Operation, model: str) -> Operation | None:
        name, family = operation.name, operation.family
        claude = "claude" in model and not self._express
        if family == "conversation":
            if claude:
                wanted = "messages"
            elif "/" in model and not self._express:  # "google/gemini-...", "meta/llama-...": the OpenAI layer's names
                wanted = "chat"
            elif operation.dialect.startswith("gemini") or (name == "chat" and not self._express):
                wanted = name
            else:
                wanted = "generate"
        elif family == "count":
            wanted = "count_tokens" if claude else "count_gemini"
        elif family == "embeddings" and not self._express:
            wanted = "predict_embeddings"
        else:
            return None
        return operation if wanted == name else OPERATIONS[wanted]

    def prepare(
        self,
        operation: Operation,
        body: bytes,
        key: ProviderKey | None,
        headers: Mapping[str, str],
        model: str = "",
        *,
        stream: bool = False,
    ) -> UpstreamRequest:
        name = operation.name
        if operation.dialect == "anthropic_messages":
            if name == "messages":
                body = splice.drop(body, "model")
            version = _NEWER if headers.get("anthropic-version") == _NEWER else CLAUDE_VERSION
            body = splice.set_value(body, "anthropic_version", version)
        elif name == "chat" and model and "/" not in model:
            body = splice.set_value(body, "model", f"google/{model}")
        return super().prepare(operation, body, key, headers, model, stream=stream)

    def _target(self, name: str, secret: str, model: str) -> Target:
        endpoint = self._endpoints.get(name)
        if endpoint is not None and model and "@" in model:  # Claude's versions: "claude-opus-5-5@default"
            endpoint = Endpoint(endpoint.origin, endpoint.path.replace(MODEL, quote(model, safe="@")))
            return self._render("POST", endpoint, secret, {"content-type": "application/json"})
        return super()._target(name, secret, model)

    def _render(self, method: str, endpoint: Endpoint, secret: str, more: Mapping[str, str], auth: str = "") -> Target:
        if self._express:
            auth = "x-goog-api-key"
        return super()._render(method, endpoint, secret, more, auth)
