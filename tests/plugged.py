"""Plugins for tests: made of a class, at work in a walk."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aigw.hooks import Fetched, Plugin
from aigw.plugins import load
from aigw.plugins.entry import Counts, Entry
from aigw.plugins.manager import Manager
from aigw.plugins.scope import Scope


class Values:
    """A store's key-value part in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    async def get(self, key: str) -> bytes | None:
        return self.kept.get(key)

    async def put(self, key: str, value: bytes, ttl: float | None = None) -> None:
        self.kept[key] = value

    async def delete(self, key: str) -> None:
        self.kept.pop(key, None)


class Alone:
    """A host that is nobody's: `answers` (by URL), `models` (by name) and `vectors` say what the world is."""

    def __init__(self, name: str = "plugin", folder: Path = Path()) -> None:
        self.name, self.folder, self.config_folder = name, folder, folder
        self.log = logging.getLogger(f"aigw.plugins.{name}")
        self.kv = Values()
        self.counts: dict[str, int] = {}
        self.answers: dict[str, Fetched | Exception] = {}
        self.models: dict[str, Any] = {}
        self.vectors: Any = None
        self.fetched: list[tuple[str, bytes]] = []
        self.asked: list[tuple[str, Any]] = []

    def secret(self, reference: str) -> str:
        return reference

    async def fetch(
        self,
        url: str,
        *,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        within: float = 10.0,
    ) -> Fetched:
        self.fetched.append((url, body))
        found = self.answers[url]
        if isinstance(found, Exception):
            raise found
        return found

    async def complete(self, model: str, request: Any, *, within: float = 60.0) -> Any:
        self.asked.append((model, request))
        found = self.models[model]
        if isinstance(found, Exception):
            raise found
        return found

    async def embed(self, model: str, texts: Any, *, within: float = 30.0) -> list[list[float]]:
        self.asked.append((model, texts))
        found: list[list[float]] = self.vectors(texts)
        return found

    def count(self, what: str, number: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + number


def entry(
    plugin: type[Plugin], table: Mapping[str, Any] | None = None, *, name: str = "", number: int = 0, host: Alone | None = None
) -> Entry:
    """*plugin* at work with *table* for its config."""
    name = name or plugin.name or plugin.__name__.lower()
    common, own = load.split(name, table or {})
    load.check(plugin, name)
    return Entry(
        name,
        plugin(load.configured(name, plugin, own), host or Alone(name)),
        scope=Scope(**{field: getattr(common, field) for field in load.SCOPE}),
        fail=common.fail or plugin.fail,
        timeout=common.timeout or plugin.timeout,
        uncovered=common.uncovered,
        order=common.order * 10_000 + number,
        counts=Counts(),
        source="a test",
    )


def manager(*plugins: type[Plugin] | Entry) -> Manager:
    entries = [one if isinstance(one, Entry) else entry(one, number=number) for number, one in enumerate(plugins)]
    return Manager(entries, {})
