"""IBM watsonx.ai: OpenAI's chat under other names - `model_id`, a project or a space, streams by a path of their own - and an
API key that is exchanged for a token of IBM's IAM."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aigw.deployment import ProviderKey
from aigw.errors import ConfigError
from aigw.exchange import UpstreamRequest
from aigw.protocols import splice
from aigw.protocols.operations import Operation
from aigw.providers.compatible import Given
from aigw.providers.tokens import ExchangingProvider, checked, form

IAM = "https://iam.cloud.ibm.com/identity/token"


class Watsonx(ExchangingProvider):
    """Implements `Provider`."""

    exchanges_all = True

    @classmethod
    def fitted(cls, given: Given) -> Given:
        checked(given.settings.get("iam_url", IAM), f"{given.place}.settings.iam_url")
        if not (given.settings.get("project_id") or given.settings.get("space_id")):
            raise ConfigError(
                f'{given.row.name} needs a project or a space: settings = {{project_id = "..."}}',
                key=f"{given.place}.settings.project_id",
            )
        return given

    @classmethod
    def urls(cls, given: Given) -> dict[str, str]:
        root = given.addresses.root()
        return {"chat": f"{root}/ml/v1/text/chat", "chat:stream": f"{root}/ml/v1/text/chat_stream"}

    def exchange(self, secret: str) -> Callable[[float], UpstreamRequest]:
        endpoint = self._way(self._settings.get("iam_url", IAM))
        fields = {"grant_type": "urn:ibm:params:oauth:grant-type:apikey", "apikey": secret}
        return lambda _now: form(endpoint, fields)

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
        for name in ("stream", "stream_options"):
            body = splice.drop(body, name)
        body = splice.rename(body, "model", "model_id")
        for name in ("project_id", "space_id"):
            if name in self._settings:
                body = splice.set_value(body, name, self._settings[name])
                break
        return super().prepare(operation, body, key, headers, model, stream=stream)
