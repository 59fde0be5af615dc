"""One exchange with one plugin, and the demo provider behind it: how `aigw plugins test` shows what a plugin does."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from aigw.config.load import load_text
from aigw.exchange import Exchange, Headers, Receiver, UpstreamRequest
from aigw.gateway import Gateway, Services
from aigw.protocols.operations import OPERATIONS as ALL

OPERATIONS = ("chat", "messages", "responses", "generate", "embeddings")

MODEL = "demo"


class Trial(NamedTuple):
    """What became of it. `sent` is the body that a provider would get, `got` the caller's answer; `error` our code, `errors`
    how often the plugin failed, `micros` how long its code ran, `log` what it had to say."""

    status: int
    error: str
    sent: str
    got: str
    calls: int
    errors: int
    micros: float
    log: list[str]

    def facts(self) -> dict[str, Any]:
        return self._asdict()


def asking(operation: str, prompt: str) -> bytes:
    """A request for *prompt*, as callers of *operation* write it."""
    said: dict[str, Any] = {"model": MODEL}
    if operation in ("embeddings", "responses"):
        said["input"] = prompt
    elif operation == "generate":
        said = {"contents": [{"role": "user", "parts": [{"text": prompt}]}]}
    else:
        said["messages"] = [{"role": "user", "content": prompt}]
        if operation == "messages":
            said["max_tokens"] = 1024
    return msgspec.json.encode(said)


def trial(name: str, table: Mapping[str, Any], operation: str, body: bytes, *, stream: bool, config_folder: Path) -> Trial:
    """Walk one request. Nothing is kept of it. Raises ConfigError for a plugin that cannot be built or started."""
    with tempfile.TemporaryDirectory(prefix="aigw-trial-") as folder:
        return asyncio.run(_walk(name, table, operation, body, stream=stream, folder=Path(folder), config_folder=config_folder))


async def _walk(
    name: str, table: Mapping[str, Any], operation: str, body: bytes, *, stream: bool, folder: Path, config_folder: Path
) -> Trial:
    loaded = load_text("[auth]\nrequired = false\n[providers.demo]\n[log]\nexchanges = 'none'\n", config_folder / "config.toml")
    plugins = {"watch": True, name: dict(table)}
    loaded = loaded._replace(config=msgspec.structs.replace(loaded.config, plugins=plugins))
    services = Services(loaded.config, folder)
    heard = Heard()
    logging.getLogger("aigw.plugins").addHandler(heard)
    try:
        gateway = Gateway(loaded, services)
        await gateway.prepare()
        gateway.table.set_live("demo", [MODEL])
        services.ask = gateway.pipeline.ask
        sent = Sent(gateway.pipeline.attempter.transport)
        gateway.pipeline.attempter.transport = sent
        near = Near()
        exchange = Exchange(
            "trial",
            time.time(),
            operation=operation,
            dialect=ALL[operation].dialect,
            headers={},
            address="127.0.0.1",
            requested_model=MODEL,
            stream=stream,
            started=time.perf_counter(),
            body=_streamed(body, operation) if stream else body,
        )
        await gateway.pipeline.serve(exchange, near)
        await gateway.plugins.shutdown(1.0)
        counts = services.plugin_counts[name]
        return Trial(
            near.status,
            exchange.error,
            "\n".join(one.decode("utf-8", "replace") for one in sent.bodies),
            b"".join(near.blocks).decode("utf-8", "replace"),
            counts.calls,
            counts.errors,
            counts.seconds * 1e6,
            heard.lines,
        )
    finally:
        logging.getLogger("aigw.plugins").removeHandler(heard)
        await services.close()


def _streamed(body: bytes, operation: str) -> bytes:
    said = msgspec.json.decode(body)
    if isinstance(said, dict) and operation not in ("generate", "embeddings"):
        said["stream"] = True
    return msgspec.json.encode(said)


class Sent:
    """A transport that remembers what went out."""

    def __init__(self, way: Any) -> None:
        self._way = way
        self.bodies: list[bytes] = []

    async def send(self, request: UpstreamRequest, receiver: Receiver) -> None:
        self.bodies.append(request.body)
        await self._way.send(request, receiver)

    async def close(self) -> None:
        await self._way.close()


class Near:
    """A sink that keeps what a caller would get."""

    def __init__(self) -> None:
        self.status = 0
        self.blocks: list[bytes] = []

    @property
    def started(self) -> bool:
        return self.status != 0

    def begin(self, status: int, headers: Headers, length: int | None = None) -> None:
        self.status = status

    def write(self, block: bytes) -> bool:
        self.blocks.append(block)
        return False

    def end(self) -> None: ...

    def abort(self) -> None: ...

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        self.status = status
        self.blocks.append(body)

    def on_resume(self, callback: Any) -> None: ...


class Heard(logging.Handler):
    """What plugins log."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
