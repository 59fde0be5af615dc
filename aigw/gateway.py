"""Config -> a provisioned Gateway. The only builder: it knows every concrete class, and nothing below it does.

A reload builds a new Gateway beside the old one; what must survive (connections, key rests, rate windows, consumers, records)
lives in `Services` or is inherited, the rest is made anew. One that cannot be built raises ConfigError; nothing changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from math import inf
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from aigw.access import authenticate, jwt
from aigw.access.authenticate import Directory
from aigw.access.jwt import Tokens
from aigw.access.permissions import Permissions
from aigw.access.quota import Quota
from aigw.attempt import Attempter
from aigw.config import followed, secrets, terms
from aigw.config.load import ConfigErrors, Loaded
from aigw.config.schema import (
    Alert as AlertTable,
    Circuit as CircuitTable,
    Config,
    Consumer as ConsumerTable,
    Jwt as JwtTable,
    Provider as ProviderTable,
    ProviderKey as KeyTable,
    Retry as RetryTable,
    Upstream,
)
from aigw.config.scrub import Scrubber
from aigw.consumer import Caller
from aigw.deployment import ProviderKey
from aigw.errors import ConfigError, InternalError, UpstreamError
from aigw.exchange import Receiver, UpstreamRequest, Usage
from aigw.failover import Failover
from aigw.hooks import Event, Listener
from aigw.metering import usage as metering
from aigw.metering.currencies import Currencies
from aigw.metering.price_list import newest
from aigw.metering.prices import PriceBook
from aigw.pipeline import Pipeline
from aigw.plugins import build
from aigw.plugins.entry import Counts
from aigw.plugins.host import Ask, Ways
from aigw.plugins.manager import Manager, Watchdog
from aigw.protocols.operations import RAW
from aigw.providers import catalog, compatible, key_check
from aigw.providers.base import Provider
from aigw.providers.compatible import CompatibleProvider
from aigw.providers.proxy import proxy_for
from aigw.providers.rate_headers import allowance
from aigw.routing.canaries import Canaries
from aigw.routing.health import Board, Settings as CircuitSettings
from aigw.routing.key_pool import KeyPool, Lasting
from aigw.routing.live_models import LiveModels
from aigw.routing.rests import Rests
from aigw.routing.retry import Rules
from aigw.routing.stateful import Stateful
from aigw.routing.table import Claimant, Table
from aigw.storage import consumer_cache, published
from aigw.storage.base import Counters, Store
from aigw.storage.journal import Journal
from aigw.storage.open import address, open_counters, open_store
from aigw.telemetry.alerts import AGAIN, Alerts, Channel, ErrorRate
from aigw.telemetry.log import ExchangeLog
from aigw.telemetry.metrics import Metrics, Reading
from aigw.telemetry.self_watch import SelfWatch
from aigw.upstream.answer import WholeAnswer
from aigw.upstream.http import HttpTransport
from aigw.upstream.messenger import Messenger
from aigw.upstream.mock import DemoTransport

log = logging.getLogger("aigw.gateway")

P = TypeVar("P", ProviderTable, Upstream)

CACHE_EVERY = 2.0
"""Seconds between two looks whether the file of those who may call has to be written anew; longer where that takes long."""

MODELS_EVERY = 600.0
"""Seconds between two looks at a provider's list of models."""

MODELS_AGAIN = 60.0
"""Seconds until a provider that did not list its models is asked again."""

SIGN_IN_EVERY = 3600.0
"""Seconds between two looks at the keys of a login service; they change a few times a year."""

SIGN_IN_AGAIN = 60.0
"""Seconds at least between two looks for a key that somebody's token names."""

CHECK_EVERY = 300.0
"""Seconds between two looks whether a key that was called invalid, or out of credit, still is."""

CHECK_LOOK = 15.0
"""Seconds between two looks whether any is due."""

LOOK_OUT = 5.0
"""Seconds between two looks for something to tell of."""

LEDGER_WAIT = 2.0
"""Seconds that the first request of a budget's window waits for records to reach the ledger."""

UNSTORED = 60.0
"""Seconds that records may wait for the store before somebody hears of it."""

MOST_KEYS = 500
"""Keys that metrics tell apart."""

MODELS_MOST = 8 * 1024 * 1024
"""Bytes of a model list; the longest public one is under 1 MB."""


class Transports:
    """The way out by scheme: `demo` is answered in this process, the rest goes over the network."""

    def __init__(self, http: HttpTransport, demo: DemoTransport) -> None:
        self._http, self._demo = http, demo

    def send(self, request: UpstreamRequest, receiver: Receiver) -> Coroutine[Any, Any, None]:
        return (self._demo if request.target.origin.scheme == "demo" else self._http).send(request, receiver)

    async def close(self) -> None:
        await self._http.close()
        await self._demo.close()


class Services:
    """What outlives a reload. Made once, from the first config; `start` and `close` bracket the server's life."""

    def __init__(self, config: Config, data_dir: Path) -> None:
        """Raises StoreError when the data directory or the store cannot be used, ConfigError for an unknown storage."""
        self.data_dir = data_dir
        places = (address(config.storage.url), address(config.storage.counters, "storage.counters"))
        self.scrubber = Scrubber([secret for place in places for secret in secrets.in_url(place)])
        self.store: Store = open_store(config.storage.url, data_dir)
        self.counters: Counters = open_counters(config.storage.counters, config.storage.counters_lost)
        self.journal = Journal(
            data_dir / "journal",
            self.store,
            disk_limit=config.storage.journal,
            refuse=config.storage.journal_full == "refuse",
        )
        self.http = HttpTransport(config.upstream.max_connections)
        self.transport = Transports(self.http, DemoTransport())
        self.directory = Directory()
        self.live_models = LiveModels(data_dir / "models")
        self.messenger = messenger(config, self.http)
        self.alerts = Alerts(self.messenger, self._is_first)
        self.watchdog = Watchdog()
        self.plugin_counts: dict[str, Counts] = {}
        self.ask: Ask | None = None  # a model, for a plugin: by the gateway that serves
        self.canaries = Canaries(self.store, self.alerts.happened)
        self.stateful = Stateful(self.store)
        self.metrics = Metrics(self._readings)
        self.active = 0
        self.hear: Callable[[bytes], None] = lambda message: None
        """Takes what other nodes found out."""
        self.on_config: Callable[[], None] = lambda: None
        """Called when a config has come from the store ([storage] config)."""
        self.refused: Callable[[], int] = int  # connections that were not let in, once there is a listener
        self.pools: Mapping[str, KeyPool] = {}  # those of the gateway that serves
        self.limits: Quota | None = None  # the same
        self.ports: Callable[[], Collection[int]] = tuple  # that this process listens at
        self.first = True  # of the workers of a server, the one that does what is done once
        self.self_watch = SelfWatch(
            self.alerts.happened,
            work=lambda: (self.metrics.requests, self.active),
            ports=lambda: set(self.ports()),
            peers=lambda: self.http.peers,
            hosts=lambda: self.outside,
        )
        self.outside = hosts_of(config)
        self._server = config.server
        self._storage = config.storage
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Read the consumers, begin to store records. A store that does not answer stops nobody: it is asked again."""
        self.journal.start()
        try:
            await authenticate.load(self.store, self.directory)
        except Exception as error:  # noqa: BLE001 - serving goes on from memory; `follow` asks again
            self.directory.away, self.directory.away_since = str(error), time.time()
            log.error("the consumers could not be read yet: %s", error)
            await self._remember_consumers()
        try:
            await self.canaries.load()
        except Exception as error:  # noqa: BLE001 - as above
            log.error("the canaries could not be read yet: %s", error)
        if self._storage.config == "store":
            self._begin("config", self._follow_config())
        self._begin("consumers", authenticate.follow(self.store, self.directory))
        self._begin("canaries", self.canaries.follow())
        self._begin("counters", self._open_counters())
        self._begin("consumer cache", self._keep_consumers())
        self._begin("housekeeping", self._keep_house())
        self._begin("alerts", self.alerts.run())
        self._begin("lookout", self._look_out())
        files = self.first and self._server.integrity == "warn"  # "refuse" has looked before
        if self.first and self._server.release_check == "daily":
            self._begin("release check", self.self_watch.follow_releases(self.data_dir))
        self._begin("self watch", self.self_watch.run(self.data_dir, self._server.self_check, files=files))

    def _begin(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work, name=name))

    def plugins(self, loaded: Loaded) -> Manager:
        """Those of a config, not started yet. Raises ConfigErrors with all that is wrong with any of them."""

        def secret(reference: str, key: str) -> str:
            found = secrets.resolve(reference, key=key, environment=os.environ)
            self.scrubber.learn({found})
            return found

        async def ask(plugin: str, operation: str, model: str, body: bytes, within: float) -> bytes:
            if self.ask is None:
                raise InternalError("gateway_no_provider", "The gateway does not serve yet.")
            return await self.ask(plugin, operation, model, body, within)

        folder = loaded.path.absolute().parent
        ways = Ways(self.data_dir, folder, self.store, self.messenger.fetch, ask, secret)
        return build.manager(loaded, ways, self.plugin_counts)

    @staticmethod
    async def ready(manager: Manager, located: Callable[[ConfigError], ConfigError]) -> None:
        """Start the plugins of *manager*. Raises ConfigErrors; then none of them runs."""
        try:
            await manager.startup()
        except ConfigError as error:
            raise ConfigErrors([located(error)]) from None

    async def spent(self, holders: Iterable[str], since: float) -> Mapping[str, tuple[int, int]]:
        """The ledger, once it has what this process has journalled, and what one before left behind. Raises StoreError."""
        until = time.perf_counter() + LEDGER_WAIT
        while (self.journal.pending or not self.journal.caught_up) and time.perf_counter() < until:  # noqa: ASYNC110 - rarely
            await asyncio.sleep(0.05)
        return await self.store.spent(holders, since)

    async def _open_counters(self) -> None:
        """Connect to those that nodes share, before the first request; and hear what other nodes find out."""
        await self.counters.read([])
        news = getattr(self.counters, "news", None)
        if news is not None:
            await news(self._heard)

    def _heard(self, message: bytes) -> None:
        self.hear(message)  # of the gateway that serves now

    async def _follow_config(self) -> None:
        """The store's newest config, onto the disk, from where it is served."""
        await published.follow(self.store, lambda text: followed.keep(text, self.data_dir), self.on_config)

    async def _is_first(self, what: str) -> bool:
        """Of all processes on this store, to tell of something within the hour."""
        return await self.store.lease(what, self.canaries.node, AGAIN)

    async def _look_out(self) -> None:
        """For what no single request shows: providers none of whose keys can be used, records that are not stored."""
        full_since = 0.0
        while True:
            await asyncio.sleep(LOOK_OUT)
            if self.limits is not None:
                await self.limits.catch_up()
            now = time.perf_counter()
            for name, pool in self.pools.items():
                wait = pool.wait(now)
                if wait > 0:
                    text = f"None of its {len(pool.keys)} keys can be used; the first comes back in {wait:.0f} s."
                    self.alerts.happened(
                        Event(kind="keys", subject=name, text=text, at=time.time(), facts={"seconds": int(wait)})
                    )
            pending = self.journal.pending
            full_since = (full_since or now) if pending else 0.0
            if pending and now - full_since > UNSTORED:
                text = f"{pending} records wait in the journal: the store has not taken them for {now - full_since:.0f} s."
                self.alerts.happened(
                    Event(kind="storage", subject="records", text=text, at=time.time(), facts={"pending": pending})
                )

    async def _remember_consumers(self) -> None:
        """Those whom the last process knew, until the store answers."""
        path = self.data_dir / consumer_cache.FILE_NAME
        known = await asyncio.to_thread(consumer_cache.load, path, self._storage.url)
        if known is not None:
            self.directory.remember(*known)
            log.warning("%d consumer keys are known from before; the store is read as soon as it answers", len(known[1]))

    async def _keep_consumers(self) -> None:
        """Write down who may call, a moment after it has changed: for a start while the store is away."""
        path, written = self.data_dir / consumer_cache.FILE_NAME, None
        while True:
            began = time.monotonic()
            if self.directory.seq is not None and self.directory.seq != written:
                written = self.directory.seq
                try:
                    await asyncio.to_thread(consumer_cache.save, path, self._storage.url, *self.directory.stored())
                except OSError as error:
                    log.warning("who may call could not be written down in %s: %s", path, error.strerror)
            await asyncio.sleep(max(CACHE_EVERY, 20 * (time.monotonic() - began)))

    async def _keep_house(self) -> None:
        """Forget what is over: ended rate windows every minute, old rows a few at a time."""
        while True:
            await asyncio.sleep(60)
            now = time.time()
            try:
                await self.counters.sweep(now)
                while await self.store.expire(now - self._storage.records, now - self._storage.rollups):  # noqa: ASYNC110
                    await asyncio.sleep(0.2)  # room for the writer between two bites
            except Exception as error:  # noqa: BLE001 - tried again in a minute
                log.warning("old records could not be deleted: %s", error)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.watchdog.close()
        await self.canaries.close()
        await self.transport.close()
        await self.stateful.close()
        await self.journal.close()
        await self.counters.close()
        await self.store.close()

    def _readings(self) -> list[Reading]:
        """What is counted here and below, for whoever asks for metrics."""
        journal, throttle = self.journal, self.directory.throttle
        return [
            Reading("exchanges_active", "Exchanges under way.", self.active),
            Reading("connections_refused", "Connections of callers that found no place.", self.refused(), grows=True),
            Reading("upstream_requests_active", "Requests to providers under way.", self.http.active),
            Reading("auth_failures", "Requests refused for a wrong key, or none.", throttle.failures, grows=True),
            Reading("auth_throttled", "Of those: too many came from one address.", throttle.throttled, grows=True),
            Reading("auth_addresses", "Addresses such requests came from lately.", len(throttle)),
            Reading("alerts_sent", "Alerts that arrived.", self.alerts.sent, grows=True),
            Reading("alerts_failed", "Alerts that nobody took.", self.alerts.failed, grows=True),
            Reading("canaries_active", "Canaries that shift or mirror traffic.", len(self.canaries.active)),
            Reading("canary_rollbacks", "Canaries that were rolled back here.", self.canaries.rolled_back, grows=True),
            Reading("canary_pauses", "Canaries that were paused here.", self.canaries.paused, grows=True),
            Reading("records_pending", "Records that the store does not have yet; the journal has them.", journal.pending),
            Reading("records_written", "Records kept, one for each exchange.", journal.written, grows=True),
            Reading("records_lost", "Records that found no room on the disk or in memory.", journal.lost, grows=True),
            Reading("journal_bytes", "Bytes of records that wait on the disk.", journal.size),
            Reading("journal_limit_bytes", "Bytes that may ([storage] journal).", journal.limit),
            Reading("journal_full", "1 while new records find no room on the disk.", int(journal.full)),
            *self.self_watch.readings(),
            *self._counters_readings(),
            Reading("store_up", "0 while the database cannot be asked; serving goes on.", int(not self.directory.away)),
            Reading("records_recovered", "Records of dead processes, brought to the store.", journal.recovered, grows=True),
            Reading(
                "journal_failed_writes",
                "Records that could not be put on the disk, and wait in memory.",
                journal.failed,
                grows=True,
            ),
            Reading(
                "journal_damaged_lines", "Lines of the journal that are no records; set aside.", journal.damaged, grows=True
            ),
            *self._limit_readings(),
            *self._key_readings(),
            *self._plugin_readings(),
        ]

    def _plugin_readings(self) -> list[Reading]:
        """Of each plugin, by the name of its table."""
        counts = self.plugin_counts.items()
        meanings = (
            ("plugin_calls", "Hooks of a plugin that were called.", "calls"),
            ("plugin_errors", "Of those: failed, or took too long.", "errors"),
            ("plugin_refusals", "Exchanges that a plugin refused.", "refused"),
            ("plugin_seconds", "Seconds that a plugin's code ran; waits are not counted.", "seconds"),
            ("plugin_blocked", "Times that a plugin kept every exchange waiting.", "blocked"),
        )
        return [
            *(
                Reading(metric, meaning, getattr(one, field), grows=True, labels={"plugin": name})
                for metric, meaning, field in meanings
                for name, one in counts
            ),
            *(
                Reading("plugin_counts", "What plugins count.", number, grows=True, labels={"plugin": name, "what": what})
                for name, one in counts
                for what, number in one.own.items()
            ),
        ]

    def _limit_readings(self) -> list[Reading]:
        limits = self.limits
        refused, waiting, events = (0, 0, 0) if limits is None else (limits.refused, limits.waiting, limits.events)
        return [
            Reading("limit_refusals", "Requests refused for a limit or a budget.", refused, grows=True),
            Reading("limit_waiting", "Requests that wait for a place ([limits] queue).", waiting),
            Reading("budget_events", "Budgets that were nearly or wholly used, told once each.", events, grows=True),
        ]

    def _counters_readings(self) -> list[Reading]:
        """Of counters that nodes share."""
        up, nodes = getattr(self.counters, "up", None), getattr(self.counters, "nodes", 0)
        if up is None:
            return []
        return [
            Reading("counters_up", "0 while Redis, where limits are counted, cannot be asked; serving goes on.", int(up)),
            Reading("counters_nodes", "Nodes (workers of all machines) that share these limits.", nodes),
        ]

    def _key_readings(self) -> list[Reading]:
        """Provider keys, by their labels, which the operator chose."""
        now = time.perf_counter()
        seen = [(name, one) for name, pool in self.pools.items() for one in pool.view(now)]
        states = Counter((name, one["state"]) for name, one in seen)
        return [
            *(
                Reading(
                    "provider_keys", "Provider keys: ready, resting, probing, or full (their own limit).", number, labels=labels
                )
                for (name, state), number in states.items()
                for labels in ({"provider": name, "state": state},)
            ),
            *(
                Reading(metric, meaning, one[field], labels={"provider": name, "key": one["key"]})
                for metric, meaning, field in (
                    ("provider_key_active", "Requests under way with a provider key.", "in_flight"),
                    ("provider_key_rest_seconds", "Seconds until a provider key is used again; 0: now.", "seconds"),
                )
                for name, one in seen[:MOST_KEYS]
            ),
        ]


class Gateway:
    """One config, provisioned and running. Exchanges that began in it finish in it."""

    def __init__(
        self, loaded: Loaded, services: Services, previous: Gateway | None = None, plugins: Manager | None = None
    ) -> None:
        """*plugins*: those of this config, where they have been started already. Raises ConfigErrors with all that is wrong.
        Takes nothing over from *previous* before it is certain to succeed."""
        config = loaded.config
        self.config, self.services, self.hash = config, services, loaded.hash
        self._located = loaded.located
        self.directory = services.directory
        self.max_body, self.max_upload = config.server.max_body, config.server.max_upload
        self.keyless = not config.auth.required
        self.keeps_address, self.keeps_agent = config.storage.client_ip, config.storage.client_agent
        self.draining = False
        self.active = 0
        self.built_at = time.time()
        self.number: int = 1 if previous is None else previous.number + 1  # of configs since the start
        self._done = asyncio.Event()
        self._unknown_key = asyncio.Event()
        self._signed_at = -SIGN_IN_AGAIN  # monotonic: when the keys of [auth.jwt] were last read
        self._tasks: list[asyncio.Task[None]] = []
        built = Build(loaded, os.environ)
        self.plugins = services.plugins(loaded) if plugins is None else plugins
        self._previous_plugins = None if previous is None else previous.plugins
        services.scrubber.learn(built.secrets)
        services.scrubber.spare(_own_names(config))
        self.providers: Mapping[str, Provider] = built.providers
        self.open_to_raw = frozenset(name for name, one in built.providers.items() if one.serving(RAW, "") is not None)
        self.pools: dict[str, KeyPool] = {
            name: KeyPool(keys, previous.pools.get(name) if previous is not None else None, read=allowance)
            for name, keys in built.keys.items()
        }
        self._rests = Rests(services.store, self.pools)
        self.table = Table(
            config.routes,
            [claimant(config, provider) for provider in self.providers.values()],
            fallback=config.fallback.targets,
        )
        kinds = {name: provider.price_id for name, provider in self.providers.items()}
        prices = PriceBook(config.prices, kinds, newest(services.data_dir))
        self.board: Board = previous.board if previous is not None else Board()
        self.board.reconfigure(circuits(config.circuit))
        if hasattr(services.counters, "publish"):
            self.board.tell = self._tell_circuit
            for health in self.board.known.values():
                health.tell = self._tell_circuit
            for name, pool in self.pools.items():
                pool.tell = self._teller(name)
        attempter = Attempter(services.transport, prices, services.scrubber, lossless=config.server.lossy == "deny")
        failover = Failover(
            self.providers,
            self.pools,
            attempter,
            board=self.board,
            rules=retries(config.retry),
            budget=previous.pipeline.failover.budget if previous is not None else None,
        )
        currencies = Currencies(config.currencies)
        defaults = terms.terms(config.limits)
        groups = {name: terms.terms(group) for name, group in config.groups.items()}
        self.limits: Quota
        self.limits = limits = Quota(
            defaults,
            groups,
            services.counters,
            prices=prices,
            usd=currencies.usd,
            estimate=metering.estimate,
            spent=services.spent,
            resolve=self.table.resolve,
            tell=services.alerts.happened,
            queue=config.limits.queue,
            previous=previous.limits if previous is not None else None,
        )
        self.pipeline: Pipeline = Pipeline(
            failover=failover,
            directory=services.directory,
            limits=limits,
            permissions=Permissions(
                groups,
                config.model_groups,
                residency=lambda name: one.residency if (one := self.providers.get(name)) is not None else "",
                priced=output_price(prices, currencies.usd),
                most_output=defaults.max_output or 0,
            ),
            currencies=currencies,
            table=self.table,
            providers=self.providers,
            pools=self.pools,
            attempter=attempter,
            prices=prices,
            journal=services.journal,
            listeners=self._listeners(),
            config_hash=loaded.hash,
            patience=config.server.timeout,
            scrubber=services.scrubber,
            stateful=services.stateful,
            canaries=services.canaries,
            plugins=self.plugins,
        )
        for name, provider in self.providers.items():
            known = services.live_models.load(name, models_url(provider))
            if known:
                self.table.set_live(name, known)
        services.http.max_connections = config.upstream.max_connections
        services.directory.reconfigure(required=config.auth.required, configured=built.consumers)
        self.tokens = built.tokens
        if self.tokens is not None and services.directory.tokens is not None and not self.tokens.known:
            self.tokens.replace(services.directory.tokens.keys)  # until they are read
        services.directory.tokens, services.directory.look_again = self.tokens, self._look_again
        services.alerts.reconfigure(built.alerts)
        services.canaries.reconfigure({name: route.targets for name, route in config.routes.items()}, self.providers)
        throttle = services.directory.throttle
        throttle.limit, throttle.names = config.auth.failures_per_minute, config.storage.client_ip

    def _listeners(self) -> tuple[Listener, ...]:
        always = (self.services.metrics, ExchangeLog(self.config.log.exchanges))
        if any(not alert.events or "errors" in alert.events for alert in self.config.alerts.values()):
            return *always, ErrorRate(self.services.alerts)
        return always

    # its life

    async def prepare(self) -> None:
        """Have plugins get ready, before the first exchange. Raises ConfigErrors."""
        await self.services.ready(self.plugins, self._located)

    def start(self) -> None:
        """Begin to ask providers for their models, and to look after keys that rest long."""
        self.services.pools, self.services.limits = self.pools, self.limits
        self.services.ask = self.pipeline.ask
        self.services.outside = hosts_of(self.config)
        self.services.watchdog.watch(self.plugins)
        if self._previous_plugins is not None:
            self.plugins.inherit(self._previous_plugins)
            self._previous_plugins = None
        self.services.hear = self.heard
        works = {"models": self._follow_models(), "key rests": self._rests.follow(), "key checks": self._check_keys()}
        if self.tokens is not None:
            works["sign-in keys"] = self._follow_sign_in(self.tokens)
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(work, name=name) for name, work in works.items()]

    def tell_nodes(self, what: str, **more: Any) -> None:
        """Tell those on other machines what this one found out about a provider; where nodes share nothing, nobody."""
        publish = getattr(self.services.counters, "publish", None)
        if publish is not None:
            publish(msgspec.json.encode({"what": what, "node": self.services.canaries.node, **more}))

    def heard(self, message: bytes) -> None:
        """What another node found out: a key that must rest (or need not any more), a circuit that opened or closed."""
        now = time.perf_counter()
        try:
            news = msgspec.json.decode(message)
            if news["node"] == self.services.canaries.node:
                return
            if news["what"] == "circuit":
                self.board.of(news["deployment"]).hear(news["seconds"], news["opened"], news["reason"], now)
            elif news["what"] == "rest" and news["provider"] in self.pools:
                rest = news["rest"]
                self.pools[news["provider"]].hear(news["label"], None if rest is None else tuple(rest), now)
        except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
            log.debug("news of another node were not understood: %s", type(error).__name__)

    def _tell_circuit(self, deployment: str, seconds: float, opened: int, reason: str) -> None:
        self.tell_nodes("circuit", deployment=deployment, seconds=seconds, opened=opened, reason=reason)

    def _teller(self, provider: str) -> Callable[[str, Lasting | None], None]:
        def tell(label: str, rest: Lasting | None) -> None:
            known = None if rest is None else (rest.seconds, rest.reason, rest.row, rest.alone)
            self.tell_nodes("rest", provider=provider, label=label, rest=known)

        return tell

    async def remember(self) -> None:
        """Which keys rested when the last process ended."""
        await self._rests.restore()

    def began(self) -> None:
        self.active += 1
        self.services.active += 1

    def ended(self) -> None:
        self.active -= 1
        self.services.active -= 1
        if self.draining and not self.active:
            self._done.set()

    def not_ready(self) -> str:
        """Why new requests are not welcome; "" when they are."""
        if self.draining:
            return "draining"
        if self.services.journal.refusing:
            return "the journal is full, and the database takes no records"
        if self.services.directory.awaited:
            return "the consumer keys could not be read yet"
        return "" if self.providers else "no provider is configured"

    async def drained(self) -> None:
        """Wait until every exchange that began here has ended. New ones go elsewhere, or are refused by the server."""
        self.draining = True
        if self.active:
            await self._done.wait()

    async def close(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.limits.close()

    # tokens of a login service

    def _look_again(self) -> bool:
        """A token was signed with a key that nobody here knows: read them again, but not for everybody who makes one up."""
        if self.tokens is None or time.monotonic() - self._signed_at < SIGN_IN_AGAIN:
            return False
        self._unknown_key.set()
        return True

    async def _follow_sign_in(self, tokens: Tokens) -> None:
        """The keys of `[auth.jwt] jwks`: now, every hour, and when one is missed. One that cannot be read changes nothing."""
        failures = 0
        while True:
            try:
                tokens.replace(jwt.read_keys(await self._sign_in_keys()))
                failures, self._signed_at = 0, time.monotonic()
            except (OSError, ValueError) as error:
                failures += 1
                log.warning("the keys of [auth.jwt] could not be read: %s", self.services.scrubber.text(str(error)))
            self._unknown_key.clear()
            wait = SIGN_IN_EVERY if not failures else min(SIGN_IN_AGAIN, 2.0**failures)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._unknown_key.wait()

    async def _sign_in_keys(self) -> bytes:
        assert self.config.auth.jwt is not None
        where = self.config.auth.jwt.jwks
        if "://" not in where:
            return await asyncio.to_thread(_content, where)
        status, _, body = await self.services.messenger.fetch("GET", where, {}, b"", 20.0)
        if status != 200:
            raise OSError(f"it answered {status}")
        return body

    # live models

    async def _follow_models(self) -> None:
        due = dict.fromkeys((name for name, provider in self.providers.items() if provider.lists_models), 0.0)
        while due:
            now = time.monotonic()
            ready = [name for name, at in due.items() if at <= now]
            answers = await asyncio.gather(*(self._ask_models(self.providers[name]) for name in ready))
            for name, answered in zip(ready, answers, strict=True):
                spread = random.uniform(0.9, 1.1)  # noqa: S311 - so that many servers do not ask at once
                due[name] = time.monotonic() + (MODELS_EVERY if answered else MODELS_AGAIN) * spread
            await asyncio.sleep(max(0.1, min(due.values()) - time.monotonic()))

    async def _ask_models(self, provider: Provider) -> bool:
        """Whether *provider* listed its models; they are put into the table and remembered."""
        key = self.pools[provider.name].peek(time.perf_counter())
        request = provider.models_request(key)
        if request is None or key is None:
            return False
        request.first_byte_timeout = min(request.first_byte_timeout, 20.0)
        request.timeout = min(request.timeout, 30.0)
        answer = WholeAnswer(MODELS_MOST)
        try:
            await self.services.transport.send(request, answer)
            if answer.status != 200 or answer.cut:
                raise provider.judge(answer.status, answer.headers, answer.body, key)
            scrub = self.services.scrubber.text
            models = [model for model in provider.read_models(answer.body) if scrub(model) == model]
        except UpstreamError as error:
            log.info("%s did not list its models: %s", provider.name, error.detail)
            return False
        except Exception as error:  # noqa: BLE001 - the list is a convenience; nothing may fail for want of it
            log.warning("the models of %s could not be read: %s", provider.name, type(error).__name__)
            return False
        self.table.set_live(provider.name, models)
        self.services.live_models.save(provider.name, models_url(provider), models, time.time())
        return True

    # keys that were called invalid or out of credit

    async def _check_keys(self) -> None:
        """Ask, with the row's free check, whether they still are: nobody's request need find out, and where there are no
        requests somebody must."""
        while True:
            await asyncio.sleep(CHECK_LOOK)
            for name, pool in self.pools.items():
                for key, reason in pool.to_check(time.perf_counter(), CHECK_EVERY):
                    try:
                        await self._check_key(name, pool, key, reason)
                    except Exception as error:  # noqa: BLE001 - a convenience; real requests find out as well
                        log.warning("the key %s could not be checked: %s", key.label, type(error).__name__)

    async def _check_key(self, name: str, pool: KeyPool, key: ProviderKey, reason: str) -> None:
        provider, table = self.providers[name], self.config.providers[name]
        if not isinstance(provider, CompatibleProvider):
            return
        own_address = bool(table.base_url or table.anthropic_base_url or table.settings)
        check = key_check.check(provider, key, own_address=own_address)
        try:
            request = next(check)
            while True:
                request = check.send(await self._answer_to(request))
        except StopIteration as end:
            verdict: key_check.Verdict = end.value
        if reason == "provider_credentials_invalid" and verdict.kind in (key_check.GOOD, key_check.LIMITED):
            log.info("the key %s is good again", key.label)
            pool.revived(key)
        elif verdict.kind in (key_check.WRONG_KEY, key_check.NO_CREDIT):
            pool.still_out(key, time.perf_counter(), 2 * CHECK_EVERY)

    async def _answer_to(self, request: UpstreamRequest) -> key_check.Outcome:
        request.first_byte_timeout = request.timeout = min(request.timeout, 20.0)
        answer = WholeAnswer(MODELS_MOST)
        try:
            await self.services.transport.send(request, answer)
        except UpstreamError as error:
            return error
        return key_check.Answered(answer.status, answer.headers, answer.body)


class Build:
    """The parts of a config that may be wrong in ways only building shows: every problem is collected, then raised."""

    def __init__(self, loaded: Loaded, environment: Mapping[str, str]) -> None:
        config = loaded.config
        self._config, self._environment = config, environment
        self._problems: list[ConfigError] = []
        self.secrets: set[str] = set()  # all that were found, whatever they are for
        self._upstream = self._resolved(config.upstream, "upstream")
        self.providers: dict[str, Provider] = {}
        self.keys: dict[str, list[ProviderKey]] = {}
        self.consumers: list[Caller] = []
        self.alerts: list[Channel] = []
        self.tokens: Tokens | None = None
        self._proxies()
        for name in config.providers:
            self._provider(name)
        for name, table in config.consumers.items():
            self._consumer(name, table)
        for name, alert in config.alerts.items():
            self._alert(name, alert)
        if config.auth.jwt is not None:
            self._tokens(config.auth.jwt)
        if self._problems:
            raise ConfigErrors([loaded.located(problem) for problem in self._problems])

    def _tokens(self, table: JwtTable) -> None:
        keys: tuple[jwt.SigningKey, ...] = ()
        if "://" not in table.jwks:  # else they are asked for once it serves
            try:
                keys = jwt.read_keys(_content(table.jwks))
            except (OSError, ValueError) as error:
                self._problems.append(ConfigError(f"{table.jwks}: {error}", key="auth.jwt.jwks"))
                return
        self.tokens = Tokens(
            keys,
            issuer=table.issuer,
            audience=table.audience,
            consumer_claim=table.consumer_claim,
            group_claim=table.group_claim,
            groups=table.groups or tuple(self._config.groups),
            leeway=table.leeway,
        )

    def _provider(self, name: str) -> None:
        table = self._resolved(self._config.providers[name], f"providers.{name}")
        found = [self._secret(key, f"providers.{name}.keys[{index}]") for index, key in enumerate(table.references)]
        parts = zip(table.keys, table.labels(name), found, strict=True)
        keys = [_key(table, written, label, secret) for written, label, secret in parts if secret]
        if found and not keys:
            return  # said already; "needs a key" besides would confuse
        try:
            secrets_found = [key.secret for key in keys]
            provider = compatible.build(name, table, self._upstream, secrets_found, environ=self._environment)
        except ConfigError as error:
            self._problems.append(ConfigError(error.message, key=error.key or f"providers.{name}"))
            return
        self.providers[name] = provider
        self.secrets |= provider.secrets
        self.keys[name] = keys or [ProviderKey(name, "")]  # a server of one's own may need no key

    def _consumer(self, name: str, table: ConsumerTable) -> None:
        secret = table.key if table.key.startswith("sha256:") else self._secret(table.key, f"consumers.{name}.key")
        if not secret:
            return  # said already
        try:
            self.consumers.append(authenticate.configured(name, table, secret))
        except ConfigError as error:
            self._problems.append(error)

    def _alert(self, name: str, table: AlertTable) -> None:
        try:
            made = channel(name, table, self._environment)
        except ConfigError as error:
            self._problems.append(error)
            return
        self.alerts.append(made)
        self.secrets |= made.secrets

    def _resolved(self, table: P, key: str) -> P:
        """*table* with the proxy's address in place of a reference to it."""
        if table.proxy is None or not table.proxy.startswith(("env:", "file:")):
            return table
        return msgspec.structs.replace(table, proxy=self._secret(table.proxy, f"{key}.proxy"))

    def _proxies(self) -> None:
        """Passwords of proxies, wherever they are written."""
        tables: list[Upstream | ProviderTable] = [self._upstream, *self._config.providers.values()]
        said = [table.proxy for table in tables if table.proxy]
        said += [value for name, value in self._environment.items() if name.lower().endswith("_proxy")]
        for url in said:
            self.secrets.update(secrets.in_url(url))

    def _secret(self, reference: str, key: str) -> str:
        try:
            secret = secrets.resolve(reference, key=key, environment=self._environment)
        except ConfigError as error:
            self._problems.append(error)
            return ""
        self.secrets.update(secrets.in_url(secret) if "://" in secret else [secret])
        return secret


def _content(file: str) -> bytes:
    return Path(file).expanduser().read_bytes()


def _key(table: ProviderTable, written: str | KeyTable, label: str, secret: str) -> ProviderKey:
    if isinstance(written, str):
        return ProviderKey(label, secret, table.account or "")
    return ProviderKey(
        label,
        secret,
        written.account or table.account or "",
        weight=written.weight,
        rpm=written.rpm or 0,
        tpm=written.tpm or 0,
        models=written.models,
    )


def output_price(prices: PriceBook, usd: Callable[[int, str], int]) -> Callable[[str, str], float | None]:
    """US dollars for a million output tokens of a model at a provider; None where nobody knows."""

    def price(provider: str, model: str) -> float | None:
        at = time.time()
        thousand, none = (prices.price(provider, (model,), Usage(output=count), at) for count in (1000, 0))
        if thousand is None or none is None:
            return None
        return usd(thousand.nano - none.nano, thousand.currency) / 1e6  # nano for a thousand -> whole for a million

    return price


def messenger(config: Config, http: HttpTransport) -> Messenger:
    """What carries our own messages: by the proxy and with the trust of `[upstream]`. Raises ConfigError."""
    upstream = config.upstream
    said = upstream.proxy
    if said and said.startswith(("env:", "file:")):
        said = secrets.resolve(said, key="upstream.proxy")

    def way(scheme: str, host: str, port: int) -> str:
        return proxy_for(scheme, host, port, proxy=said, no_proxy=upstream.no_proxy, environ=os.environ)

    return Messenger(http, way, upstream.ca_file or "")


def hosts_of(config: Config) -> frozenset[str]:
    """Hosts that are spoken with by other means than the transport of HTTP: databases and mail servers."""
    urls = [config.storage.url, config.storage.counters, *(one.url for one in config.alerts.values() if one.kind == "email")]
    found = set()
    for url in urls:
        try:
            parts = urlsplit(secrets.resolve(url, key="storage.url") if url.startswith(("env:", "file:")) else url)
            found |= {one.rpartition("@")[2].rpartition(":")[0] or one for one in parts.netloc.split(",")} | {
                parts.hostname or ""
            }
        except (ConfigError, ValueError):
            continue
    return frozenset(one.strip("[]") for one in found if one)


def channel(name: str, table: AlertTable, environment: Mapping[str, str] | None = None) -> Channel:
    """`[alerts.NAME]` with its secrets. Raises ConfigError."""
    url = secrets.resolve(table.url, key=f"alerts.{name}.url", environment=environment)
    secret = secrets.resolve(table.secret, key=f"alerts.{name}.secret", environment=environment) if table.secret else ""
    return Channel(name, table, url, secret)


def circuits(table: CircuitTable) -> CircuitSettings:
    """`[circuit]` as the board takes it."""
    return CircuitSettings(
        errors=table.errors,
        samples=table.samples,
        window=table.window,
        slow=inf if table.slow is None else table.slow,
        pause=table.pause,
        longest_pause=table.longest_pause,
    )


def retries(table: RetryTable) -> Rules:
    """`[retry]` as the failover takes it."""
    return Rules(
        attempts=table.attempts,
        time=table.time,
        pause=table.pause,
        longest_pause=table.longest_pause,
        budget=table.budget,
        budget_floor=table.budget_floor,
    )


def claimant(config: Config, provider: Provider) -> Claimant:
    """What *provider* says is its own: its row's prefixes, and those of the same vendor's row across the border."""
    row = catalog.row(provider.kind)
    rows = (row, catalog.row(row.twin)) if row.twin else (row,)
    return Claimant(
        name=provider.name,
        kind=provider.kind,
        prefixes=tuple(prefix for one in rows for prefix in one.prefixes),
        weak_prefixes=tuple(prefix for one in rows for prefix in one.weak_prefixes),
        local=row.local,
        models=config.providers[provider.name].models,
    )


def models_url(provider: Provider) -> str:
    """What a remembered list of models belongs to: another address may have other models."""
    request = provider.models_request(ProviderKey("", "")) if provider.lists_models else None
    return repr(request.target) if request is not None else ""


def _own_names(config: Config) -> set[str]:
    """What the operator calls things: no secret, even where a key has such a name in it."""
    targets = [target for route in config.routes.values() for target in (*route.targets, *route.fallback)]
    targets += config.fallback.targets
    listed = [model for provider in config.providers.values() for model in provider.models or ()]
    return {
        *config.providers,
        *config.routes,
        *config.consumers,
        *(target.model for target in targets if target.model),
        *listed,
    }
