"""One worker of several: a whole server, but for what its supervisor does for all of them.

The supervisor holds the data directory, the control socket and the metrics' listener, watches the config and tells when to
take it, to drain and to end. Limits, budgets and requests at once are counted in memory that all workers share. A key that
must rest and a circuit that opens are told to the others. Worker 0 does what is done once: it asks providers for their
models, looks after keys that are out, deletes what is old.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from aigw.config.load import Loaded, config_hash, load_text
from aigw.config.schema import Config, Provider as ProviderTable, ProviderKey
from aigw.errors import ConfigError, StoreError
from aigw.gateway import Build, Gateway, Services, models_url
from aigw.plugins.manager import Manager
from aigw.providers.base import Provider
from aigw.routing.key_pool import Lasting
from aigw.server import lifecycle
from aigw.server.channel import Channel, Message
from aigw.server.lifecycle import CannotListenError, Server, log
from aigw.storage.shared import SharedCounters
from aigw.telemetry import log as telemetry_log


class Task(msgspec.Struct, kw_only=True):
    """What a supervisor hands to a worker at its start. Descriptors are inherited; `text` is the config as it serves, also when
    the file has changed since, and None where there is no file."""

    number: int
    workers: int
    data_dir: str
    path: str
    text: str | None
    flags: dict[str, str | int]
    sockets: list[int]
    counters: int | None  # None: the config names others
    bound: dict[str, list[str]]


class WorkerServices(Services):
    """Services of which some belong to all workers."""

    def __init__(self, config: Config, data_dir: Path, task: Task) -> None:
        super().__init__(config, data_dir)
        self.first = task.number == 0
        if task.counters is not None:
            self.counters = SharedCounters(task.counters, task.number)

    async def _follow_config(self) -> None:
        if self.first:
            await super()._follow_config()

    async def _keep_house(self) -> None:
        if self.first:
            await super()._keep_house()

    async def _keep_consumers(self) -> None:
        if self.first:
            await super()._keep_consumers()


class WorkerGateway(Gateway):
    """A gateway that tells the other workers what it learns of providers, and hears what they learn."""

    def __init__(
        self, loaded: Loaded, services: WorkerServices, previous: Gateway | None, channel: Channel, plugins: Manager | None
    ) -> None:
        self._first, self._channel = services.first, channel
        super().__init__(loaded, services, previous, plugins)
        self.board.tell = self._tell_circuit
        for health in self.board.known.values():
            health.tell = self._tell_circuit
        for name, pool in self.pools.items():
            pool.tell = self._teller(name)

    def _tell_circuit(self, deployment: str, seconds: float, opened: int, reason: str) -> None:
        super()._tell_circuit(deployment, seconds, opened, reason)
        self._channel.tell("circuit", deployment=deployment, seconds=seconds, opened=opened, reason=reason)

    def _teller(self, provider: str) -> Any:
        tell_nodes = super()._teller(provider)

        def tell(label: str, rest: Lasting | None) -> None:
            tell_nodes(label, rest)
            known = None if rest is None else (rest.seconds, rest.reason, rest.row, rest.alone)
            self._channel.tell("rest", provider=provider, label=label, rest=known)

        return tell

    def hear(self, message: Message) -> None:
        """What another worker learnt."""
        now = time.perf_counter()
        if message["what"] == "circuit":
            self.board.of(message["deployment"]).hear(message["seconds"], message["opened"], message["reason"], now)
        elif message["what"] == "rest" and message["provider"] in self.pools:
            rest = message["rest"]
            self.pools[message["provider"]].hear(message["label"], None if rest is None else tuple(rest), now)
        elif message["what"] == "models" and message["provider"] in self.providers:
            provider = self.providers[message["provider"]]
            models = self.services.live_models.load(provider.name, models_url(provider))
            if models:
                self.table.set_live(provider.name, models)

    async def _follow_models(self) -> None:
        if self._first:
            await super()._follow_models()

    async def _check_keys(self) -> None:
        if self._first:
            await super()._check_keys()

    async def _ask_models(self, provider: Provider) -> bool:
        answered = await super()._ask_models(provider)
        if answered:
            self._channel.tell("models", provider=provider.name)  # the list is on the disk
        return answered


class Worker(Server):
    """The server of one worker."""

    def __init__(self, loaded: Loaded, task: Task, end: socket.socket) -> None:
        self._task, self._end = task, end
        self._channel = Channel(self._hear)
        self._next: tuple[Loaded, Manager] | None = None
        super().__init__(loaded, Path(task.data_dir), _quiet, task.flags)

    def _with_flags(self, loaded: Loaded) -> Loaded:
        return shared_out(super()._with_flags(loaded), self._task.workers)

    def _provide(self, config: Config, data_dir: Path) -> Services:
        return WorkerServices(config, data_dir, self._task)

    def _build(self, loaded: Loaded, previous: Gateway | None, plugins: Manager | None = None) -> Gateway:
        assert isinstance(self.services, WorkerServices)
        return WorkerGateway(loaded, self.services, previous, self._channel, plugins)

    def _config_came(self) -> None:
        os.kill(os.getppid(), signal.SIGHUP)  # the supervisor has all workers take it, or none

    # what the supervisor does

    def _claim(self) -> None:
        """The supervisor has the data directory."""

    async def _open_control(self) -> None:
        """The supervisor answers there, and asks by the channel."""
        await self._channel.open(self._end)

    async def _listen_data(self, runner: web.AppRunner, config: Config) -> list[str]:
        for number in self._task.sockets:
            listening = socket.socket(fileno=number)
            await web.SockSite(runner, listening, backlog=lifecycle.BACKLOG).start()
        return self._task.bound["data"]

    async def _listen_admin(self, config: Config) -> list[str]:
        return self._task.bound["admin"]

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stopping.set)
        for number in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to all; the supervisor says what follows
            loop.add_signal_handler(number, lambda: None)

    def _welcome(self, bound: list[str]) -> None:
        self._channel.tell("ready", pid=os.getpid())

    async def _watch(self) -> None:
        """Hear the supervisor. Without it nobody would start this worker anew, or tell it to stop: it ends, too."""
        await self._channel.run()
        if not self._cut.is_set():
            log.error("the supervisor is gone: worker %d ends", self._task.number)
        self._cut.set()
        self._stopping.set()

    async def _drain(self, config: Config) -> None:
        hearing = asyncio.get_running_loop().create_task(self._watch(), name="config")  # the first one has ended
        try:
            await super()._drain(config)
        finally:
            hearing.cancel()

    async def _close(self) -> None:
        try:
            await super()._close()
        finally:
            await self._channel.close()

    # what the supervisor says

    async def _hear(self, message: Message) -> Message | None:
        what = message["what"]
        if what == "state":
            return {"state": self.state()}
        if what == "metrics":
            return {"text": self.services.metrics.render()[0].decode()}
        if what == "prepare":
            return {"problems": await self._prepare(message["text"])}
        if what == "commit":
            self._commit(message["stamp"])
        elif what == "drain":
            self._stopping.set()
        elif what == "cut":
            self._cut.set()
            self._stopping.set()
        elif isinstance(self.gateway, WorkerGateway):
            self.gateway.hear(message)
        return None

    async def _prepare(self, text: str) -> list[str]:
        """What keeps this worker from serving the config in *text*; nothing is changed yet, but its plugins have started."""
        before, self._next = self._next, None
        if before is not None:  # another worker could not
            await before[1].shutdown()
        try:
            loaded = self._with_flags(load_text(text, self._loaded.path))
            Build(loaded, os.environ)
            plugins = self.services.plugins(loaded)
            await self.services.ready(plugins, loaded.located)
        except ConfigError as error:
            return str(error).splitlines()
        self._next = loaded, plugins
        return []

    def _commit(self, stamp: list[int] | None) -> None:
        ready, self._next = self._next, None
        if ready is not None:
            loaded, plugins = ready
            self._take(
                self._build(loaded, self.gateway, plugins), loaded, None if stamp is None else (stamp[0], stamp[1], stamp[2])
            )


def shared_out(loaded: Loaded, workers: int) -> Loaded:
    """*loaded* with what each of so many workers counts for itself as its share, rounded up: provider keys' own limits, wrong
    keys a minute."""
    config = loaded.config
    auth = msgspec.structs.replace(config.auth, failures_per_minute=_share(config.auth.failures_per_minute, workers))
    providers = {name: _provider_share(table, workers) for name, table in config.providers.items()}
    return loaded._replace(config=msgspec.structs.replace(config, auth=auth, providers=providers))


def _provider_share(table: ProviderTable, workers: int) -> ProviderTable:
    if not any(isinstance(key, ProviderKey) and (key.rpm or key.tpm) for key in table.keys):
        return table
    keys = [
        msgspec.structs.replace(key, rpm=key.rpm and _share(key.rpm, workers), tpm=key.tpm and _share(key.tpm, workers))
        if isinstance(key, ProviderKey)
        else key
        for key in table.keys
    ]
    return msgspec.structs.replace(table, keys=type(table.keys)(keys))


def _share(amount: int, workers: int) -> int:
    return -(-amount // workers)


def _quiet(line: str) -> None:
    """The supervisor speaks to whoever sits at the terminal."""
    log.info("%s", line)


def main(descriptor: int) -> int:
    """The life of a worker process; *descriptor* is its end of the channel, which holds its `Task`. Returns the exit code."""
    end = socket.socket(fileno=descriptor)
    end.set_inheritable(False)
    with end.makefile("rb") as file:  # nothing more is sent before this worker is ready
        line = file.readline()
    if not line:
        return 1  # the supervisor is gone already
    task = msgspec.json.decode(line, type=Task)
    for number in (*task.sockets, *([] if task.counters is None else [task.counters])):
        os.set_inheritable(number, False)
    telemetry_log.take_tracebacks()

    async def serve() -> None:
        path = Path(task.path)
        loaded = (
            load_text(task.text, path)
            if task.text is not None
            else Loaded(Config(), (), config_hash(Config()), path, exists=False)
        )
        await Worker(loaded, task, end).run()

    gc.freeze()  # what was imported is there to stay
    try:
        lifecycle.run(serve())
    except (ConfigError, StoreError, CannotListenError) as error:
        kind = "config" if isinstance(error, ConfigError) else "store" if isinstance(error, StoreError) else "listen"
        try:
            end.setblocking(True)
            end.sendall(msgspec.json.encode({"what": "failed", "kind": kind, "message": str(error)}) + b"\n")
        except OSError:
            log.error("%s", error)
        return 1
    return 0
