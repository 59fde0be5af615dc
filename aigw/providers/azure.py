"""Azure OpenAI and Microsoft Foundry: three forms of address, and keys that may be Entra's.

- `https://RESOURCE.openai.azure.com/openai/v1/...`, the model (your deployment's name) in the body: the usual form
- `.../openai/deployments/DEPLOYMENT/...?api-version=2024-10-21`: the classic form, taken when `settings.api_version` is a date,
  or when the base URL ends with a deployment
- `https://HOST/models/...` and `https://NAME.REGION.models.ai.azure.com/...`: Foundry's model inference, by a base URL that
  says so

A key is the resource's, or an Entra token ("eyJ..."), or `TENANT:CLIENT_ID:CLIENT_SECRET`, which is exchanged for one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from urllib.parse import quote, urlsplit

import msgspec

from aigw.exchange import Target, UpstreamRequest
from aigw.protocols.operations import OPERATIONS, Operation
from aigw.providers.compatible import MODEL, Endpoint, Given
from aigw.providers.tokens import ExchangingProvider, checked, form

SCOPE = "https://cognitiveservices.azure.com/.default"
AUTHORITY = "https://login.microsoftonline.com"
_BY_DEPLOYMENT = ("chat", "completions", "embeddings", "images", "speech")
_DEPLOYMENT = re.compile(r"(?P<root>.*)/openai/deployments/(?P<name>[^/]+)", re.DOTALL)
_PARTS = 3  # of TENANT:CLIENT_ID:CLIENT_SECRET
_INFERENCE_VERSION = "2024-05-01-preview"


class Azure(ExchangingProvider):
    """Implements `Provider`."""

    @classmethod
    def fitted(cls, given: Given) -> Given:
        """What people paste: an address with more behind it than the row's."""
        base, settings = (given.base_url or "").rstrip("/"), dict(given.settings)
        checked(settings.get("authority", AUTHORITY), f"{given.place}.settings.authority")
        base = base.removesuffix("/chat/completions")
        deployment = _DEPLOYMENT.fullmatch(base)
        if deployment is not None:
            settings["deployment"] = deployment["name"]
            settings.setdefault("api_version", "2024-10-21")
            base = deployment["root"]
        base = base.removesuffix("/openai/v1").removesuffix("/openai")
        if _inference(base) is not None:
            settings.setdefault("api_version", _INFERENCE_VERSION)
        row = given.row
        if settings.get("api_version", "")[:1].isdigit():
            row = msgspec.structs.replace(row, models_url=f"{row.base_url}/openai/models")
        return given._replace(base_url=base or None, settings=settings, row=row)

    @classmethod
    def urls(cls, given: Given) -> dict[str, str]:
        inference = _inference(given.base_url or "")
        if inference is not None:
            return {name: inference + OPERATIONS[name].path for name in ("chat", "embeddings")}
        found = given.addresses.operations()
        if not given.settings.get("api_version", "")[:1].isdigit():
            return found
        root = given.addresses.root()
        place = quote(given.settings.get("deployment", ""), safe="") or MODEL
        for name in _BY_DEPLOYMENT:
            found[name] = f"{root}/openai/deployments/{place}{OPERATIONS[name].path}"
        for name in found:
            if OPERATIONS[name].dialect == "openai_responses":
                found[name] = f"{root}/openai{OPERATIONS[name].path}"
        return found

    def serving(self, operation: Operation, model: str) -> Operation | None:
        if operation.family == "conversation" and "claude" in model and "messages" in self._endpoints:
            return operation if operation.name == "messages" else OPERATIONS["messages"]
        if operation.name in ("messages", "count_tokens") and "claude" not in model:  # Foundry serves Claude alone by it
            return OPERATIONS["chat"] if operation.name == "messages" else None
        return super().serving(operation, model)

    @classmethod
    def parts(cls, secret: str) -> tuple[str, ...]:
        return (secret.split(":", 2)[2],) if secret.count(":") >= _PARTS - 1 else ()

    def exchange(self, secret: str) -> Callable[[float], UpstreamRequest] | None:
        if secret.count(":") < _PARTS - 1:
            return None
        tenant, client, word = secret.split(":", _PARTS - 1)
        authority = self._settings.get("authority", AUTHORITY).rstrip("/")
        endpoint = self._way(f"{authority}/{quote(tenant, safe='')}/oauth2/v2.0/token")
        fields = {"grant_type": "client_credentials", "client_id": client, "client_secret": word, "scope": SCOPE}
        return lambda _now: form(endpoint, fields)

    def _render(self, method: str, endpoint: Endpoint, secret: str, more: Mapping[str, str], auth: str = "") -> Target:
        if secret.startswith("eyJ") or endpoint.origin.host.endswith(".models.ai.azure.com"):
            auth = "bearer"
        return super()._render(method, endpoint, secret, more, auth)


def _inference(base: str) -> str | None:
    """The address of Foundry's model inference, when *base* is one."""
    parts = urlsplit(base)
    if parts.path.rstrip("/").endswith("/models") or (parts.hostname or "").endswith(".models.ai.azure.com"):
        return base.rstrip("/")
    return None
