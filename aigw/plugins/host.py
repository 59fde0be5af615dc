"""What a plugin may ask the gateway for (`hooks.Host`): the gateway hands over how, so that plugins need know nothing of it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from aigw import canonical
from aigw.canonical import Answer, Losses
from aigw.errors import UpstreamError
from aigw.hooks import Fetched, KeyValue
from aigw.plugins.entry import Counts
from aigw.protocols.translation import shape
from aigw.protocols.translation.contract import Toward


class Values(Protocol):
    """The part of a store that plugins may use."""

    async def get(self, key: str) -> bytes | None: ...

    async def put(self, key: str, value: bytes, ttl: float | None = None) -> None: ...

    async def delete(self, key: str) -> None: ...


Ask = Callable[[str, str, str, bytes, float], Awaitable[bytes]]
"""Plugin, operation, model, body, seconds -> the answer's body. Raises GatewayError."""


class Ways(NamedTuple):
    """What the gateway does for plugins. `fetch` (method, url, headers, body, seconds) asks another server; `ask` asks a
    model of this gateway; `secret` (reference, key)
    resolves a reference."""

    data_dir: Path
    config_folder: Path
    values: Values
    fetch: Callable[[str, str, Mapping[str, str], bytes, float], Awaitable[tuple[int, dict[str, str], bytes]]]
    ask: Ask
    secret: Callable[[str, str], str]


class PluginHost:
    """Of one plugin."""

    def __init__(self, name: str, ways: Ways, counts: Counts) -> None:
        self.name, self._ways, self._counts = name, ways, counts
        self.log = logging.getLogger(f"aigw.plugins.{name}")
        self.kv: KeyValue = Own(ways.values, f"plugin/{name}/")

    @property
    def folder(self) -> Path:
        path = self._ways.data_dir / "plugins" / self.name.replace("/", "_")
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path

    @property
    def config_folder(self) -> Path:
        return self._ways.config_folder

    def secret(self, reference: str) -> str:
        return self._ways.secret(reference, f"plugins.{self.name}")

    async def fetch(
        self,
        url: str,
        *,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        within: float = 10.0,
    ) -> Fetched:
        return Fetched(*await self._ways.fetch(method, url, headers or {}, body, within))

    async def complete(self, model: str, request: canonical.Request, *, within: float = 60.0) -> Answer:
        chat = shape("chat")
        body = chat.render_request(request, Toward(model=model, stream_usage=False), Losses())
        answer = await self._ways.ask(self.name, "chat", model, body, within)
        try:
            found: Answer = chat.parse_answer(answer)[0]
        except (ValueError, RecursionError):
            raise _no_answer(model) from None
        return found

    async def embed(self, model: str, texts: Sequence[str], *, within: float = 30.0) -> list[list[float]]:
        body = msgspec.json.encode({"model": model, "input": list(texts), "encoding_format": "float"})
        try:
            found = msgspec.json.decode(await self._ways.ask(self.name, "embeddings", model, body, within), type=_Vectors)
        except msgspec.DecodeError:
            raise _no_answer(model) from None
        vectors = [one.embedding for one in sorted(found.data, key=lambda one: one.index)]
        if len(vectors) != len(texts):
            raise _no_answer(model)
        return vectors

    def count(self, what: str, number: int = 1) -> None:
        own = self._counts.own
        if what in own or len(own) < MOST_WORDS:
            own[what] = own.get(what, 0) + number


MOST_WORDS = 50
"""Words under which one plugin may count."""


class _Vector(msgspec.Struct):
    embedding: list[float]
    index: int = 0


class _Vectors(msgspec.Struct):
    data: list[_Vector]


class Own:
    """A plugin's own part of the store."""

    def __init__(self, values: Values, prefix: str) -> None:
        self._values, self._prefix = values, prefix

    async def get(self, key: str) -> bytes | None:
        return await self._values.get(self._prefix + key)

    async def put(self, key: str, value: bytes, ttl: float | None = None) -> None:
        await self._values.put(self._prefix + key, value, ttl)

    async def delete(self, key: str) -> None:
        await self._values.delete(self._prefix + key)


def _no_answer(model: str) -> UpstreamError:
    return UpstreamError("provider_bad_response", f"{model!r} answered with something that is no answer")
