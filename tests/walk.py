"""A pipeline whose far side plays scripts and whose near side keeps what it is given: everything between them is the real
thing (table, providers, pools, prices, directory, limits)."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace
from multidict import CIMultiDict

from aigw.access.authenticate import Directory, configured
from aigw.access.quota import Quota, Spent
from aigw.attempt import Attempter
from aigw.config.load import parse
from aigw.config.scrub import Scrubber
from aigw.consumer import Caller, Terms
from aigw.deployment import ProviderKey
from aigw.errors import UpstreamError
from aigw.exchange import Exchange, Headers, Receiver, Record, UpstreamRequest
from aigw.gateway import claimant
from aigw.hooks import Event, Listener
from aigw.metering import usage as metering
from aigw.metering.currencies import Currencies
from aigw.metering.prices import PriceBook
from aigw.pipeline import Pipeline
from aigw.plugins.manager import Manager
from aigw.protocols.operations import OPERATIONS
from aigw.providers import compatible
from aigw.routing.key_pool import KeyPool
from aigw.routing.table import Table
from aigw.storage.base import Counters
from aigw.storage.counters import MemoryCounters

KEY = "the-key-of-ci"

JSON = (b"content-type", b"application/json")
EVENTS = (b"content-type", b"text/event-stream")

Play = Callable[[UpstreamRequest, Receiver], Awaitable[None]]
"""What one call to a provider meets."""


class NoFlow:
    """A connection that nobody has to hold back; keeps whether it was stopped."""

    def __init__(self) -> None:
        self.stopped = False

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def stop(self) -> None:
        self.stopped = True

    def complete(self) -> None: ...


def answers(body: bytes | dict[str, Any], status: int = 200, *headers: tuple[bytes, bytes]) -> Play:
    """A whole answer, in two blocks."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def play(request: UpstreamRequest, receiver: Receiver) -> None:
        receiver.head(status, [*(headers or (JSON,)), (b"content-length", str(len(data)).encode())], NoFlow())
        for block in (data[: len(data) // 2], data[len(data) // 2 :]):
            if block:
                receiver.feed(block)
            await asyncio.sleep(0)

    return play


def streams(*blocks: bytes, then: BaseException | None = None) -> Play:
    """An event stream, block by block; *then* is how it breaks."""

    async def play(request: UpstreamRequest, receiver: Receiver) -> None:
        receiver.head(200, [EVENTS], NoFlow())
        for block in blocks:
            receiver.feed(block)
            await asyncio.sleep(0)
        if then is not None:
            raise then

    return play


def fails(error: BaseException, *, after: float = 0.0) -> Play:
    """No answer at all."""

    async def play(request: UpstreamRequest, receiver: Receiver) -> None:
        await asyncio.sleep(after)
        raise error

    return play


def unreachable() -> UpstreamError:
    return UpstreamError("provider_unreachable", "could not be reached", fault="deployment", may_retry=True, sent=False)


def lost() -> UpstreamError:
    return UpstreamError("provider_connection_lost", "hung up", fault="deployment", may_retry=True)


def timed_out() -> UpstreamError:
    return UpstreamError("provider_timeout", "did not answer in time", fault="deployment", may_retry=True)


class Scripted:
    """A transport: each call plays the next script, the last one from then on."""

    def __init__(self, *plays: Play) -> None:
        self._plays = plays
        self.requests: list[UpstreamRequest] = []
        self.cancelled = 0
        self.running = 0

    async def send(self, request: UpstreamRequest, receiver: Receiver) -> None:
        play = self._plays[min(len(self.requests), len(self._plays) - 1)]
        self.requests.append(request)
        self.running += 1
        try:
            await play(request, receiver)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def close(self) -> None: ...

    @property
    def went_to(self) -> list[str]:
        """Host and key of each call, in order."""
        found = []
        for request in self.requests:
            wire = request.target.wire.decode()
            key = wire.partition("Bearer ")[2].partition("\r\n")[0]
            found.append(f"{request.target.origin.host} {key}".rstrip())
        return found


class Near:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.ended = self.aborted = False
        self.resume: Callable[[], None] | None = None

    @property
    def started(self) -> bool:
        return self.status != 0

    def begin(self, status: int, headers: Headers, length: int | None = None) -> None:
        assert not self.status, "an answer begins once"
        assert len({name for name, _ in headers}) == len(headers), f"a header twice: {headers}"
        self.status, self.headers = status, dict(headers)

    def write(self, block: bytes) -> bool:
        assert self.status
        assert not self.ended, "nothing after the end"
        assert not self.aborted, "nothing after the cut"
        self.body += block
        return False

    def end(self) -> None:
        assert self.status
        assert not self.ended, "an answer ends once"
        assert not self.aborted, "what was cut has no end"
        self.ended = True

    def abort(self) -> None:
        self.aborted = True

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        self.begin(status, headers)
        if body:
            self.write(body)
        self.end()

    def on_resume(self, callback: Callable[[], None]) -> None:
        self.resume = callback

    @property
    def error(self) -> dict[str, Any]:
        """The error object of the answer."""
        found: dict[str, Any] = json.loads(self.body)["error"]
        return found


class Kept:
    """A journal in memory. `seen` says what the caller had seen of the answer's end when each record came."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.seen: list[bool] = []
        self.near: Near | None = None
        self.error: Exception | None = None

    refusing = False

    def write(self, *records: Record) -> None:
        self.records += records
        if self.near is not None:
            self.seen.append(self.near.ended)
        if self.error is not None:
            raise self.error


class Walk:
    """A pipeline for the TOML *config* (its keys are literals), in front of *plays*."""

    def __init__(
        self,
        config: str,
        *plays: Play,
        counters: Counters | None = None,
        listeners: Sequence[Listener] = (),
        patience: float = 60.0,
        clock: Callable[[], float] = time.time,
        groups: Mapping[str, Terms] | None = None,
        spent: Spent | None = None,
        terms: Mapping[str, Terms] | None = None,
        plugins: Manager | None = None,
    ) -> None:
        """*groups* and *terms* (by consumer) replace what the config says of them."""
        parsed = parse(config)
        self.transport = Scripted(*plays)
        self.journal = Kept()
        self.pools: dict[str, KeyPool] = {}
        providers = {}
        for name, table in parsed.providers.items():
            pairs = zip(table.labels(name), table.references, strict=True)
            keys = [ProviderKey(label, key, table.account or "") for label, key in pairs]
            self.pools[name] = KeyPool(keys or [ProviderKey(name, "")])
            providers[name] = compatible.build(name, table, parsed.upstream, list(table.keys), environ={})
        callers = [configured(name, table, table.key) for name, table in parsed.consumers.items()]
        if terms is not None:
            callers = [_on(terms.get(one.consumer.name), one) for one in callers]
        directory = Directory(required=parsed.auth.required, configured=callers, clock=clock)
        directory.seq = 0  # the store was read: it holds nobody
        self.table = Table(parsed.routes, [claimant(parsed, provider) for provider in providers.values()])
        prices = PriceBook(parsed.prices, {name: provider.price_id for name, provider in providers.items()})
        scrubber = Scrubber()
        currencies = Currencies(parsed.currencies)
        self.events: list[Event] = []
        self.counters = counters or MemoryCounters()
        self.limits = Quota(
            Terms(rpm=parsed.limits.rpm, concurrency=parsed.limits.concurrency),
            groups or {},
            self.counters,
            prices=prices,
            usd=currencies.usd,
            estimate=metering.estimate,
            spent=spent,
            resolve=self.table.resolve,
            tell=self.events.append,
            queue=parsed.limits.queue,
        )
        self.pipeline = Pipeline(
            directory=directory,
            limits=self.limits,
            currencies=currencies,
            table=self.table,
            providers=providers,
            pools=self.pools,
            attempter=Attempter(self.transport, prices, scrubber),
            prices=prices,
            journal=self.journal,
            listeners=listeners,
            config_hash="cafe",
            patience=patience,
            scrubber=scrubber,
            plugins=plugins,
        )

    def exchange(self, operation: str = "chat", key: str | None = KEY, **fields: Any) -> Exchange:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        headers |= fields.pop("headers", {})
        dialect = OPERATIONS[operation].dialect
        return Exchange(
            f"req_{len(self.journal.records)}",
            time.time(),
            operation=operation,
            dialect=dialect,
            headers=CIMultiDict(headers),
            started=time.perf_counter(),
            **fields,
        )

    async def ask(
        self,
        body: bytes | dict[str, Any],
        operation: str = "chat",
        *,
        key: str | None = KEY,
        receive: Callable[[], Awaitable[bytes]] | None = None,
        **fields: Any,
    ) -> tuple[Near, Record]:
        """Walk one exchange to its end: what the caller got, and the one record of it."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()

        async def at_once() -> bytes:
            return data

        near = self.journal.near = Near()
        before = len(self.journal.records)
        await self.pipeline.serve(self.exchange(operation, key, **fields), near, receive or at_once)
        assert len(self.journal.records) == before + 1, "exactly one record"
        return near, self.journal.records[-1]

    def begin(self, body: dict[str, Any], operation: str = "chat", **fields: Any) -> tuple[asyncio.Task[None], Near]:
        """Start to walk an exchange in a task of its own, to be cancelled."""
        receive = fields.pop("receive", None)
        data = json.dumps(body).encode()

        async def at_once() -> bytes:
            return data

        near = self.journal.near = Near()
        walk = self.pipeline.serve(self.exchange(operation, **fields), near, receive or at_once)
        return asyncio.get_running_loop().create_task(walk), near


def _on(terms: Terms | None, caller: Caller) -> Caller:
    return caller if terms is None else Caller(replace(caller.consumer, terms=terms), caller.key)


def attempts(record: Record) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(record.attempts)
    return found


CONFIG = f"""
[consumers.ci]
key = "{KEY}"
group = "eng"
tags = {{team = "core"}}
concurrency = 1

[providers.openai]
keys = ["sk-one", "sk-two"]

[providers.deepseek]
keys = ["sk-deep"]

[providers.anthropic]
keys = ["sk-ant"]

[routes.fast]
targets = [{{provider = "openai", model = "gpt-fast"}}]
fallback = [{{provider = "deepseek", model = "deepseek-chat"}}]

[routes.alone]
targets = [{{provider = "deepseek", model = "deepseek-chat"}}]

[routes.once]
targets = [{{provider = "openai"}}]
fallback = [{{provider = "deepseek"}}]
retries = 0

[routes.twice]
targets = [{{provider = "openai"}}]
fallback = [{{provider = "deepseek"}}]
retries = 1

[routes.hasty]
targets = [{{provider = "openai"}}]
connect_timeout = 1
first_byte_timeout = 2
stream_idle_timeout = 3
timeout = 4

[routes.alias]
targets = [{{provider = "openai", model = "gpt-real"}}]
response_model = "requested"

[routes.mixed]
targets = [{{provider = "anthropic", model = "claude"}}]
fallback = [{{provider = "openai", model = "gpt-fast"}}]

[prices."openai/*"]
input = 1
output = 10

[prices."deepseek/*"]
input = 2
output = 20
currency = "CNY"
"""

OPENAI_1, OPENAI_2, DEEPSEEK = "api.openai.com sk-one", "api.openai.com sk-two", "api.deepseek.com sk-deep"

ASK = {"model": "fast", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-fast-2026",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Rayleigh."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
}
GOOD = answers(ANSWER)


def event(data: dict[str, Any] | str) -> bytes:
    return b"data: " + (data if isinstance(data, str) else json.dumps(data)).encode() + b"\n\n"


def chunk(text: str, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return event({"id": "c", "object": "chat.completion.chunk", "model": "gpt-fast-2026", "choices": [choice]} | more)


USAGE_EVENT = event({"id": "c", "model": "gpt-fast-2026", "choices": [], "usage": ANSWER["usage"]})
DONE = event("[DONE]")


def says(status: int, message: str = "no", headers: Sequence[tuple[bytes, bytes]] = (), **fields: Any) -> Play:
    """A provider's error in OpenAI's shape."""
    return answers({"error": {"message": message, "type": None, "code": None} | fields}, status, JSON, *headers)


async def hangs(request: UpstreamRequest, receiver: Receiver) -> None:
    await asyncio.sleep(60)


async def hangs_after_a_chunk(request: UpstreamRequest, receiver: Receiver) -> None:
    receiver.head(200, [EVENTS], NoFlow())
    receiver.feed(chunk("Ray"))
    await asyncio.sleep(60)
