"""Sber GigaChat: OpenAI's chat behind a token that is exchanged for Basic credentials and ends after half an hour."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from aigw.exchange import UpstreamRequest
from aigw.providers.compatible import Given
from aigw.providers.tokens import ExchangingProvider, checked, form

OAUTH = "https://ngw.devices.sberbank.ru:9443/api/v2/oauth"
SCOPE = "GIGACHAT_API_PERS"


class GigaChat(ExchangingProvider):
    """Implements `Provider`."""

    exchanges_all = True

    @classmethod
    def fitted(cls, given: Given) -> Given:
        checked(given.settings.get("auth_url", OAUTH), f"{given.place}.settings.auth_url")
        return given

    def exchange(self, secret: str) -> Callable[[float], UpstreamRequest]:
        endpoint = self._way(self._settings.get("auth_url", OAUTH))
        scope = self._settings.get("scope", SCOPE)

        def ask(now: float) -> UpstreamRequest:
            sent = {"authorization": f"Basic {secret}", "rquid": str(uuid.uuid4())}
            return form(endpoint, {"scope": scope}, sent)

        return ask
