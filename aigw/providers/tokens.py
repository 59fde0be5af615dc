"""Providers that take no key but a token, which is exchanged for one and ends: how the exchange is asked for and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar
from urllib.parse import urlencode, urlsplit

import msgspec

from aigw import __version__
from aigw.deployment import ProviderKey
from aigw.errors import ConfigError, UpstreamError
from aigw.exchange import Headers, Target, UpstreamRequest
from aigw.protocols.operations import Operation
from aigw.providers import judge
from aigw.providers.compatible import CompatibleProvider, Endpoint
from aigw.providers.redact import Redactor

EARLY = 120.0
"""Seconds before its end that a token is exchanged again: a request may take that long to be looked at."""

USUAL = 1800.0
"""Seconds a token is taken to last whose answer does not say."""


class Exchanged:
    """Implements `Credential`: one key's token, by whatever request *ask* makes. *ask* is given the time."""

    def __init__(self, ask: Callable[[float], UpstreamRequest], redactor: Redactor) -> None:
        self.token, self.until = "", 0.0
        self._ask, self._redactor = ask, redactor

    def __repr__(self) -> str:  # never the token
        return f"Exchanged(until={self.until:.0f})"

    def refresh(self, now: float) -> UpstreamRequest | None:
        return None if self.token and now < self.until else self._ask(now)

    def accept(self, status: int, headers: Headers, body: bytes, now: float) -> None:
        """Takes OAuth's answer, and GigaChat's, whose `expires_at` is in milliseconds."""
        if status != 200:
            failed = judge.judge(status, headers, body, self._redactor)
            if status in (400, 401, 403):  # OAuth says "invalid_grant" with a 400: it is the key all the same
                failed = judge.judge(401, headers, body, self._redactor)
            failed.message = f"{failed.message} (when its token was asked for)"
            raise failed
        try:
            said = msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError):
            said = None
        token = said.get("access_token") if isinstance(said, dict) else None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable() or " " in token:
            raise UpstreamError(
                "provider_bad_response", "answered with no token to an exchange of its key", fault="key", may_retry=True
            )
        lasts = _number(said, "expires_in")
        end = now + lasts if lasts else _number(said, "expires_at") / 1000
        if end <= now:
            end = now + USUAL
        self.token, self.until = token, max(end - EARLY, now + min(EARLY, (end - now) / 2))

    def forget(self) -> None:
        """The provider does not take it any more, whatever it said about its end."""
        self.token = ""


def _number(said: dict[str, Any], name: str) -> float:
    value = said.get(name)
    if isinstance(value, str) and value.isdecimal() and len(value) < 16:
        return float(value)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e15 else 0.0


def form(endpoint: Endpoint, fields: Mapping[str, str], headers: Mapping[str, str] | None = None) -> UpstreamRequest:
    """A request with a web form."""
    sent = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json", **(headers or {})}
    sent |= {"accept-encoding": "identity", "user-agent": f"aigw/{__version__}"}
    target = Target("POST", endpoint.origin, endpoint.path, sent)
    return UpstreamRequest(target, urlencode(fields).encode(), first_byte_timeout=20.0, timeout=30.0)


def checked(url: str, key: str) -> str:
    """The address *url* where a secret is sent for a token: https, or this machine. Raises ConfigError."""
    parts = urlsplit("")
    host, port = "", None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        pass  # a broken port or bracket: refused below
    safe = parts.scheme == "https" or (parts.scheme == "http" and host in ("127.0.0.1", "localhost", "::1"))
    if safe and host and port != 0 and not parts.username and url.isascii() and url.isprintable():
        return url
    raise ConfigError("expected an address that begins with https://: the key is sent there for a token", key=key)


class ExchangingProvider(CompatibleProvider):
    """One whose keys are exchanged, all of them or those that `exchange` says. A model list is not asked for without a token:
    that the exchange works says that the key is good."""

    exchanges_all: ClassVar[bool] = False
    """No key is sent as it is."""

    def exchange(self, secret: str) -> Callable[[float], UpstreamRequest] | None:
        """How *secret* is exchanged; None when it is sent as it is."""
        raise NotImplementedError

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        if self.exchanges_all:
            self.lists_models, self._models, self._key_check = False, None, None
        self._credentials: dict[str, Exchanged | None] = {}

    def credential(self, key: ProviderKey | None) -> Exchanged | None:
        secret = "" if key is None else key.secret
        try:
            return self._credentials[secret]
        except KeyError:
            ask = self.exchange(secret)
            found = self._credentials[secret] = None if ask is None else Exchanged(ask, self._redactor)
            return found

    def ready(self, key: ProviderKey | None) -> ProviderKey | None:
        """*key* with its token in the secret's place."""
        credential = self.credential(key)
        if credential is None:
            return key
        return ProviderKey("" if key is None else key.label, credential.token)

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
        return super().prepare(operation, body, self.ready(key), headers, model, stream=stream)

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
        return super().reach(
            operation, object_id, query, body, self.ready(key), headers, model=model, content_type=content_type
        )

    def _get(self, endpoint: Endpoint | None, key: ProviderKey | None) -> UpstreamRequest | None:
        ready = self.ready(key)
        if ready is not key and not (ready and ready.secret):
            return None
        return super()._get(endpoint, ready)

    def judge(self, status: int, headers: Headers, body: bytes, key: ProviderKey | None) -> UpstreamError:
        credential = self.credential(key)
        found = super().judge(status, headers, body, key)
        if credential is not None and status == 401:
            credential.forget()
        return found

    def _redactor_with(self, key: ProviderKey | None) -> Redactor:
        redactor = super()._redactor_with(key)
        credential = self.credential(key)
        if credential is None or not credential.token:
            return redactor
        return Redactor([*redactor.secrets, credential.token])
