"""Amazon Bedrock: who serves which model by which of its three APIs, and requests signed with AWS's own signature.

- Converse serves every model.
- The OpenAI layer of the runtime serves OpenAI's open models; the address `bedrock-mantle` serves the newer ones, which
  `settings.api = "mantle"` asks for all.
- `bedrock-mantle` serves Anthropic's Messages as they are, for Claude from 4.7 on, by names without a region in front
  (`anthropic.claude-opus-4-7`); others come by Converse, which has Claude's thinking, signatures and cache as well.

A key is an API key of Bedrock's (sent as a bearer token), or `KEY_ID:SECRET` or `KEY_ID:SECRET:SESSION_TOKEN`, which signs.
Without one, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN are looked for in the environment.

(Facts: botocore's service model for paths and signing; the Anthropic SDK's `lib/bedrock` for the name of mantle's service.)
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from aigw.deployment import ProviderKey
from aigw.exchange import Target, UpstreamRequest
from aigw.protocols.operations import OPERATIONS, Operation
from aigw.protocols.translation.anthropic_messages.models import traits
from aigw.providers import sigv4
from aigw.providers.compatible import CompatibleProvider, Endpoint, Given

_JSON = {"content-type": "application/json"}


class Bedrock(CompatibleProvider):
    """Implements `Provider`."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._region = self._settings.get("region", "us-east-1")
        self._converse = OPERATIONS["converse"]
        self._signing: dict[str, sigv4.AwsCredentials] = {}
        self.clock = time.time  # seconds since the epoch: a signature is good for five minutes

    @classmethod
    def urls(cls, given: Given) -> dict[str, str]:
        found = given.addresses.operations()
        root = given.addresses.root()
        found["converse"] = root + OPERATIONS["converse"].path
        found["converse:stream"] = f"{found['converse']}-stream"
        found["invoke_embeddings"] = root + OPERATIONS["invoke_embeddings"].path
        return found

    @classmethod
    def fault(cls, secret: str) -> str:
        if ":" in secret:
            try:
                sigv4.credentials_of(secret)
            except ValueError as error:
                return str(error)
        return super().fault(secret)

    @classmethod
    def parts(cls, secret: str) -> tuple[str, ...]:
        if ":" not in secret:
            return ()
        credentials = sigv4.credentials_of(secret)
        return tuple(filter(None, (credentials.secret, credentials.token)))

    @classmethod
    def ambient(cls, given: Given) -> str:
        get = given.environ.get
        key_id, secret, token = get("AWS_ACCESS_KEY_ID"), get("AWS_SECRET_ACCESS_KEY"), get("AWS_SESSION_TOKEN")
        if not key_id or not secret:
            return ""
        return f"{key_id}:{secret}:{token}" if token else f"{key_id}:{secret}"

    def serving(self, operation: Operation, model: str) -> Operation | None:
        name = operation.name
        if operation.family == "conversation":
            api = self._settings.get("api", "")
            if name == "messages" and model.startswith("anthropic.claude") and traits(model).extreme and api != "converse":
                return operation if name in self._endpoints else self._converse
            openai = api in ("mantle", "openai") or (model.startswith("openai.") and api != "converse")
            if openai and "chat" in self._endpoints:
                return operation if name in ("chat", "responses") and name in self._endpoints else OPERATIONS["chat"]
            return self._converse
        if operation.family == "embeddings":
            return OPERATIONS["invoke_embeddings"]
        if operation.family == "count" and not model.startswith("anthropic.claude"):
            return None
        return super().serving(operation, model)

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
        request = super().prepare(operation, body, key, headers, model, stream=stream)
        return self._signed(request, key, _JSON)

    def reach(
        self,
        operation: Operation,
        object_id: str,
        query: str,
        body: bytes,
        key: ProviderKey | None,
        headers: Mapping[str, str],
        *,
        model: str = "",
        content_type: str = "application/json",
    ) -> UpstreamRequest:
        request = super().reach(operation, object_id, query, body, key, headers, model=model, content_type=content_type)
        return self._signed(request, key, {"content-type": content_type} if body else {})

    def _get(self, endpoint: Endpoint | None, key: ProviderKey | None) -> UpstreamRequest | None:
        request = super()._get(endpoint, key)
        return None if request is None else self._signed(request, key, {})

    def _render(self, method: str, endpoint: Endpoint, secret: str, more: Mapping[str, str], auth: str = "") -> Target:
        secret = secret or self._ambient
        return super()._render(method, endpoint, "" if ":" in secret else secret, more, auth)

    def _signed(self, request: UpstreamRequest, key: ProviderKey | None, headers: Mapping[str, str]) -> UpstreamRequest:
        secret = (key.secret if key is not None else "") or self._ambient
        if ":" not in secret:
            return request
        credentials = self._signing.get(secret)
        if credentials is None:
            credentials = self._signing[secret] = sigv4.credentials_of(secret)
        origin, path = request.target.origin, request.target.path
        host = origin.host if origin.port in (80, 443) else f"{origin.host}:{origin.port}"
        proof = sigv4.sign(
            request.target.method,
            host,
            path,
            headers,
            request.body,
            credentials,
            region=self._region,
            service="bedrock-mantle" if origin.host.startswith("bedrock-mantle.") else "bedrock",
            now=self.clock(),
        )
        request.extra += "".join(f"{name}: {value}\r\n" for name, value in proof.items()).encode("ascii")
        return request
