"""Where a command finds its config and its store: `--config` and `--data-dir`, which every command takes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from aigw.config.schema import Config
    from aigw.storage.base import Store


class Locations:
    """The two flags as given (None: not given); the rest follows from them, the environment and the platform."""

    def __init__(self) -> None:
        self.config: str | None = None
        self.data_dir: str | None = None

    def config_path(self) -> Path:
        """The config file. It need not exist."""
        from aigw.config import paths

        return paths.config_path(self.config)

    def data_path(self) -> Path:
        """The data directory. It need not exist."""
        from aigw.config import paths

        return paths.data_dir(self.data_dir)

    def load_config(self) -> Config:
        """The config; defaults when there is no file at the default place. Raises ConfigError."""
        from aigw.config import load

        return load.load(self.config_path())

    def base_url(self, config: Config) -> str:
        """What OpenAI clients are told: the address of the data port as this machine reaches it, with /v1."""
        host = {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1", "": "127.0.0.1"}.get(config.server.host, config.server.host)  # noqa: S104
        port = config.server.port or "PORT"  # 0: any free one, which `serve` says when it starts
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"

    @asynccontextmanager
    async def store(self, config: Config) -> AsyncIterator[Store]:
        """The store, made when there is none yet; closed at the end. Raises ConfigError, StoreError."""
        from aigw.storage.open import open_store

        store = open_store(config.storage.url, self.data_path())
        try:
            yield store
        finally:
            await store.close()


def locations(context: typer.Context) -> Locations:
    """The locations of this command line."""
    return context.ensure_object(Locations)
