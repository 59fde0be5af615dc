"""The server's life: bind, serve, reload, drain, end.

    SIGHUP, or a changed config file   reload: build beside, swap, let the old one finish
    SIGTERM, SIGINT                    drain: take nothing new, finish what began (at most `drain_timeout`), exit 0
    a second one                       cut: records are safe, answers are not; exit 0

aiohttp's own shutdown loses half-uploaded bodies and waits twice; so the listeners are closed, our own count of exchanges is
waited for, and only then is it cleaned up.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from aigw import __version__
from aigw.config import followed, kept
from aigw.config.check import is_loopback
from aigw.config.load import Loaded, holds_secrets, load_with_notes
from aigw.config.schema import Config, Server as Settings
from aigw.errors import ConfigError
from aigw.gateway import Gateway, Services
from aigw.plugins.manager import Manager
from aigw.server import admin, app, inherited
from aigw.server.control import AlreadyServedError, Control
from aigw.server.door import LINGER
from aigw.server.front import Exchanges, FrontServer
from aigw.server.inference import Inference
from aigw.server.realtime import SESSIONS, Sessions
from aigw.server.state import Life, state
from aigw.telemetry import log as telemetry_log
from aigw.telemetry.self_watch import examined, summary

log = logging.getLogger("aigw.server")

WATCH = 1.0
"""Seconds between two looks at the config file."""

OTHER_FILES = 64
"""Descriptors that are no connections: database, journal, listeners, log, files that are read."""

BACKLOG = 256
"""Connections that wait to be accepted. A turn of the loop takes in all of them before it does anything else: of 4,096 at once
the others felt 774 ms, of 256 about 6."""

ADMIN_PORT = 8081

ADMIN_CONNECTIONS = 64
"""Connections to the admin port at once: a few scrapers and a person."""

LAST_MOMENT = 1.0
"""Seconds that plugins wait, at the server's end, for exchanges that do not."""

_REACHED = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - read, not bound


class CannotListenError(Exception):
    """An address cannot be bound. The message says which, why, and what to do."""


class NotIntactError(Exception):
    """What is installed is not what was released, and [server] integrity says not to start then. The message says what to
    do."""


class Server:
    """One process serving one data directory. Is the `Holder` that requests look for the gateway in."""

    def __init__(
        self, loaded: Loaded, data_dir: Path, say: Callable[[str], None], flags: Mapping[str, str | int] | None = None
    ) -> None:
        """*say* gets the lines a person at the terminal should see; *flags* are keys of [server] given on the command line,
        which win over the file's, after a reload too."""
        self._flags, self._data_dir = flags or {}, data_dir
        self._loaded = loaded = self._with_flags(loaded)
        self._say = say
        telemetry_log.configure(loaded.config.log)
        self.services = self._provide(loaded.config, data_dir)
        telemetry_log.configure(loaded.config.log, self.services.scrubber)
        self.gateway = self._build(loaded, None)
        self._retired: dict[asyncio.Task[None], Gateway] = {}
        self._runners: list[web.AppRunner] = []
        self._front: FrontServer | None = None
        self._sessions: Sessions | None = None
        self._stopping = asyncio.Event()
        self._cut = asyncio.Event()
        self._reload_wanted = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._control = Control(data_dir)
        self._bound: dict[str, list[str]] = {"data": [], "admin": []}  # "127.0.0.1:8080"
        self._started_at = self._loaded_at = time.time()
        self._read = stamp_of(loaded.path)  # the file as it serves
        self._problem = ""  # why the file on disk does not

    def _with_flags(self, loaded: Loaded) -> Loaded:
        loaded = followed.merged(loaded, self._data_dir)
        return with_flags(loaded, self._flags)

    def _provide(self, config: Config, data_dir: Path) -> Services:
        return Services(config, data_dir)

    def _build(self, loaded: Loaded, previous: Gateway | None, plugins: Manager | None = None) -> Gateway:
        return Gateway(loaded, self.services, previous, plugins)

    async def run(self) -> None:
        """Serve until a signal says stop. Raises CannotListenError."""
        config = self._loaded.config
        try:
            self._claim()
            self.services.on_config = self._config_came
            await self.services.start()
            await self.gateway.remember()
            await self.gateway.prepare()
            bound = await self._listen(config)
            await self._open_control()
            self._handle_signals()
            self.gateway.start()
            self._welcome(bound)
            self._keep()
            watcher = asyncio.get_running_loop().create_task(self._watch(), name="config")
            try:
                await self._stopping.wait()
            finally:
                watcher.cancel()
            await self._drain(config)
        finally:
            await self._close()

    def _config_came(self) -> None:
        """A config has come from the store, and lies on the disk."""
        self._reload_wanted.set()

    # the operator's commands

    def _claim(self) -> None:
        data_dir = self.services.data_dir
        try:
            self._control.claim()
        except AlreadyServedError as error:
            raise CannotListenError(
                f"aigw is already running for {data_dir} ({error}); "
                f"{f'stop it (kill {error.pid})' if error.pid else 'stop it'}, or choose another --data-dir"
            ) from None
        except OSError as error:
            raise CannotListenError(
                f"cannot lock {data_dir}: {error.strerror}; give this user write access to it, or choose another --data-dir"
            ) from None

    async def _open_control(self) -> None:
        try:
            await self._control.start(self.state, self._reload_asked, self._stopping.set)
        except OSError as error:  # callers are served all the same
            log.warning(
                "no control socket at %s (%s): `aigw status` cannot see this server", self._control.path, error.strerror
            )

    def state(self) -> dict[str, Any]:
        """What GET /state answers."""
        addresses = {plane: [address_of(place) for place in places] for plane, places in self._bound.items()}
        changed = stamp_of(self._loaded.path) != self._read
        life = Life(
            started_at=self._started_at,
            loaded_at=self._loaded_at,
            path=str(self._loaded.path.absolute()),
            changed=changed,
            problem=self._problem if changed else "",
            addresses=addresses,
            bound=self._bound,
            retired=list(self._retired.values()),
        )
        return state(self.gateway, self.services, life)

    async def _reload_asked(self) -> list[str]:
        return [] if await self.reload() else self._problem.splitlines()

    # listening

    async def _listen(self, config: Config) -> list[str]:
        application = app.application(self)
        self._sessions = application[SESSIONS]
        runner, self._front = await _hardened(application, config.server, Inference(self))
        self._runners.append(runner)
        door = self._front.door
        self.services.refused = lambda: door.refused
        self._adopt(config)
        self._bound["data"] = await self._listen_data(runner, config)
        self.port = data = port_of(self._bound["data"])
        self._bound["admin"] = await self._listen_admin(config)
        self.services.ports = self._ports
        self.admin_port = port_of(self._bound["admin"])
        host = f"[{config.server.host}]" if ":" in config.server.host else config.server.host
        return [f"http://{host}:{data}"]

    def _ports(self) -> set[int]:
        return {port_of([place]) for places in self._bound.values() for place in places}

    def _adopt(self, config: Config) -> None:
        """The limits of callers' connections. Each may need a second descriptor, for the provider's end of its request."""
        if self._front is None:
            return
        settings = config.server
        most = min(settings.max_connections, max(8, (_descriptors() - OTHER_FILES) // 2))
        if most < settings.max_connections:
            log.warning(
                "the system allows %d open files: at most %d connections are served, not %d ([server] max_connections); raise "
                "its limit (ulimit -n, LimitNOFILE=)",
                _descriptors(),
                most,
                settings.max_connections,
            )
        self._front.adopt(settings, most)

    async def _listen_data(self, runner: web.AppRunner, config: Config) -> list[str]:
        if given := inherited.take(config):
            return await inherited.listen(runner, given, BACKLOG)
        return await _bind(runner, config.server.host, config.server.port, "[server]")

    async def _listen_admin(self, config: Config) -> list[str]:
        runner, bound = await listen_admin(admin.application(self._metrics, config.admin.host), config)
        self._runners.append(runner)
        return bound

    async def _metrics(self) -> tuple[bytes, str]:
        return self.services.metrics.render()

    def _welcome(self, bound: list[str]) -> None:
        for address in bound:
            self._say(f"aigw {__version__} listening on {address}")
        welcome(self._loaded, self.admin_port, self._say)

    # signals and reload

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload_wanted.set)

    def _stop(self) -> None:
        if self._stopping.is_set():
            self._cut.set()
        self._stopping.set()

    async def _watch(self) -> None:
        async for _ in edits(self._loaded.path, self._reload_wanted, self._read):
            try:
                await self.reload()
            except Exception:
                log.exception("config not reloaded, the old one serves on; this is a bug of ours")  # go on watching

    async def reload(self) -> bool:
        """Whether the config on disk now serves. When it cannot, the old one goes on, and the log says why."""
        async with self._reloading:
            return await self._reload()

    async def _reload(self) -> bool:
        plugins: Manager | None = None
        stamp = stamp_of(self._loaded.path)
        try:
            loaded = self._with_flags(load_with_notes(self._loaded.path))
            for name in static_changes(self._loaded.config, loaded.config):
                log.warning("%s changed: takes effect at the next start", name)
            plugins = self.services.plugins(loaded)
            await self.services.ready(plugins, loaded.located)
            fresh = self._build(loaded, self.gateway, plugins)
        except ConfigError as error:
            if plugins is not None:
                await plugins.shutdown()
            self._problem = str(error)
            for line in self._problem.splitlines():
                log.error("config not reloaded, the old one serves on: %s", line)
            return False
        self._take(fresh, loaded, stamp)
        for warning in loaded.warnings:
            log.warning("%s", warning)
        log.info("config %s reloaded from %s", loaded.hash, loaded.path)
        return True

    def _keep(self) -> None:
        """So that `aigw config rollback` finds it."""
        config = self._loaded.config
        if not self._loaded.exists or config.storage.config == "store":  # which keeps its own versions
            return
        if holds_secrets(config):
            log.info("keys stand in this config: not kept for `aigw config history`; write them as env:NAME or file:PATH")
        else:
            try:
                kept.keep(self.services.data_dir, self._loaded.hash, self._loaded.text)
            except OSError as error:
                log.warning("the config is not kept for `aigw config history`: %s", error)

    def _take(self, fresh: Gateway, loaded: Loaded, stamp: tuple[int, int, int] | None) -> None:
        """Serve with *fresh* from now on; exchanges that began in the old one finish there."""
        telemetry_log.configure(loaded.config.log, self.services.scrubber)
        self._adopt(loaded.config)
        old, self.gateway, self._loaded = self.gateway, fresh, loaded
        self._read, self._loaded_at, self._problem = stamp, time.time(), ""
        self._keep()
        fresh.start()
        task = asyncio.get_running_loop().create_task(self._retire(old), name="retired gateway")
        self._retired[task] = old
        task.add_done_callback(self._retired.pop)

    async def _retire(self, old: Gateway) -> None:
        await old.close()
        await old.drained()
        await old.plugins.shutdown()

    # ending

    async def _drain(self, config: Config) -> None:
        self.gateway.draining = True
        for runner in self._runners:
            for site in list(runner.sites):
                await site.stop()
        if self.services.active:
            self._say(f"finishing {self.services.active} requests; stop again to cut them off")
        if self._front is not None:
            self._front.finish()
        idle = asyncio.get_running_loop().create_task(self._until_idle(), name="drain")
        cut = asyncio.get_running_loop().create_task(self._cut.wait(), name="cut")
        await asyncio.wait({idle, cut}, timeout=config.server.drain_timeout, return_when=asyncio.FIRST_COMPLETED)
        for task in (idle, cut):
            task.cancel()
        if self.services.active:
            log.warning("%d requests were cut off by the stop", self.services.active)
            for gateway in (self.gateway, *self._retired.values()):
                gateway.pipeline.cutting = True

    async def _until_idle(self) -> None:
        while self.services.active:  # noqa: ASYNC110 - exchanges of several gateways; 20 looks a second cost nothing
            await asyncio.sleep(0.05)

    async def _close(self) -> None:
        await self.gateway.close()
        if self._sessions is not None:
            await self._sessions.cut()
        if self._front is not None:
            self._front.force_close()
            for _ in range(40):  # their handlers are cancelled by that, and record
                if not self.services.active:
                    break
                await asyncio.sleep(0.05)
        for runner in self._runners:
            await runner.cleanup()
        for task in list(self._retired):
            task.cancel()
        for gateway in (self.gateway, *self._retired.values()):
            await gateway.plugins.shutdown(LAST_MOMENT)
        try:
            await self.services.close()
        finally:
            await self._control.close()


def with_flags(loaded: Loaded, flags: Mapping[str, str | int]) -> Loaded:
    """*loaded* with keys of [server] from the command line. Raises ConfigError."""
    if not flags:
        return loaded
    config = loaded.config
    server = msgspec.structs.replace(config.server, **flags)
    if not config.auth.required and not is_loopback(server.host):
        raise ConfigError("auth.required = false is only for this machine: --host must be 127.0.0.1", key="auth.required")
    return loaded._replace(config=msgspec.structs.replace(config, server=server))


async def edits(path: Path, asked: asyncio.Event, seen: tuple[int, int, int] | None) -> AsyncIterator[None]:
    """Comes when a reload was *asked* for, and when the file at *path* is no longer the one *seen* and has stayed so for a
    look: an editor may still be writing."""
    pending = stamp_of(path)
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WATCH):
                await asked.wait()
        wanted = asked.is_set()
        asked.clear()
        now = stamp_of(path)
        if wanted or (now != seen and now == pending):
            seen = now
            yield
        pending = now


def welcome(loaded: Loaded, admin_port: int, say: Callable[[str], None]) -> None:
    """What else is worth saying at a start."""
    config = loaded.config
    say(f"metrics at http://{config.admin.host}:{admin_port}/metrics")
    for warning in loaded.warnings:
        say(f"warning: {warning}")
    if not is_loopback(config.server.host):
        say(
            f"warning: {config.server.host} can be reached from other machines, and keys and prompts travel there in clear "
            "text: put a TLS proxy in front, or listen at 127.0.0.1"
        )
    if not config.providers:
        say(f"no provider is configured: add one to {loaded.path}; it is served as soon as the file is saved")


async def listen_admin(application: web.Application, config: Config) -> tuple[web.AppRunner, list[str]]:
    """The operator's listener, and where it is bound. Raises CannotListenError."""
    runner, front = await _hardened(application, config.server, admin.NoExchanges())
    front.door.most = ADMIN_CONNECTIONS
    try:
        if config.admin.port is not None:
            return runner, await _bind(runner, config.admin.host, config.admin.port, "[admin]")
        for port in range(ADMIN_PORT, ADMIN_PORT + 20):
            try:
                return runner, await _bind(runner, config.admin.host, port, "[admin]")
            except CannotListenError:
                continue
        return runner, await _bind(runner, config.admin.host, 0, "[admin]")
    except BaseException:
        await runner.cleanup()
        raise


async def _hardened(
    application: web.Application, settings: Settings, exchanges: Exchanges[Any]
) -> tuple[web.AppRunner, FrontServer]:
    """A listener whose connections are `Front`s; they see to their own timeouts, so aiohttp's are off."""
    runner = web.AppRunner(
        application,
        access_log=None,
        handle_signals=False,
        handler_cancellation=True,
        keepalive_timeout=0,
        lingering_time=LINGER,
        auto_decompress=False,
        shutdown_timeout=1.0,
    )
    await runner.setup()
    front = runner.server
    assert front is not None
    front.__class__ = FrontServer
    assert isinstance(front, FrontServer)
    front.harden(settings, exchanges)
    return runner, front


def _descriptors() -> int:
    """Files this process may have open, after asking for as many as it may have."""
    try:
        import resource
    except ImportError:  # Windows
        return 2**20
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return 2**20 if soft == resource.RLIM_INFINITY else soft


async def _bind(runner: web.AppRunner, host: str, port: int, table: str) -> list[str]:
    """Listen at *host*:*port*, and at [::1] besides 127.0.0.1 where there is one. Returns the places: "127.0.0.1:8080"."""
    try:
        site = web.TCPSite(runner, host, port, backlog=BACKLOG, reuse_address=True)
        await site.start()
    except OSError as error:
        raise cannot_listen(error, host, port, table) from None
    sockets = site._server.sockets  # type: ignore[union-attr]  # noqa: SLF001 - aiohttp does not tell the bound port
    bound = int(sockets[0].getsockname()[1])
    if host in ("127.0.0.1", "localhost") and socket.has_ipv6:
        with contextlib.suppress(OSError):  # a machine without IPv6
            await web.TCPSite(runner, "::1", bound, backlog=BACKLOG, reuse_address=True).start()
            return [f"{host}:{bound}", f"[::1]:{bound}"]
    return [f"[{host}]:{bound}" if ":" in host else f"{host}:{bound}"]


def cannot_listen(error: OSError, host: str, port: int, table: str) -> CannotListenError:
    """What to say of an address in *table* that cannot be bound."""
    where = f"{host}:{port}"
    if error.errno == errno.EADDRINUSE:
        return CannotListenError(f"{where} is taken by another program; stop it, or choose another `port` in {table}")
    if error.errno in (errno.EACCES, errno.EPERM):
        return CannotListenError(f"no permission to listen at {where}; choose a `port` above 1023 in {table}")
    return CannotListenError(f"cannot listen at {where}: {error.strerror}; see `host` and `port` in {table}")


def port_of(places: Sequence[str]) -> int:
    """The port of what is bound at *places*."""
    return int(places[0].rpartition(":")[2])


def address_of(place: str) -> str:
    """The URL by which this machine reaches what is bound at *place*."""
    host, _, port = place.rpartition(":")
    return f"http://{_REACHED.get(host, host)}:{port}"


def stamp_of(path: Path) -> tuple[int, int, int] | None:
    """What tells one state of a file from the next; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def static_changes(old: Config, new: Config) -> list[str]:
    """What a reload cannot change."""
    server = ("host", "port", "workers", "drain_timeout", "integrity", "self_check", "release_check")
    found = [f"[server] {name}" for name in server if getattr(old.server, name) != getattr(new.server, name)]
    if old.admin != new.admin:
        found.append("[admin]")
    storage = ("url", "counters", "counters_lost", "config", "records", "rollups", "journal", "journal_full")
    found += [f"[storage] {name}" for name in storage if getattr(old.storage, name) != getattr(new.storage, name)]
    return found


def intact(config: Config, data_dir: Path) -> None:
    """Look at what is installed, where the config says that nothing else may serve. Raises NotIntactError."""
    if config.server.integrity != "refuse":
        return
    checks = examined(data_dir)
    flaws = [flaw for one in checks for flaw in one.flaws]
    if flaws:
        first = "; ".join(f"{flaw.path} {flaw.what}" for flaw in flaws[:3])
        more = f" (and {len(flaws) - 3} more)" if len(flaws) > 3 else ""
        raise NotIntactError(
            f'what is installed is not what was released, and [server] integrity = "refuse": {first}{more}; '
            "see aigw verify, then install it again"
        )
    log.info("integrity: %s", summary(checks))


def _leave_no_core() -> None:
    """A core file would hold every key. (Limited to one byte: smaller than any core, and the one limit that Linux keeps to
    also when it pipes cores to a program; see fs/coredump.c.)"""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (0 if most == 0 else 1, most))


def serve(loaded: Loaded, data_dir: Path, say: Callable[[str], None], flags: Mapping[str, str | int] | None = None) -> None:
    """Run a server until it is told to stop. Raises ConfigError, StoreError, CannotListenError."""

    async def main() -> None:
        await Server(loaded, data_dir, say, flags).run()

    run(main())


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run *main* as a server's process runs: on the fastest loop there is, and leaving no secret behind when it dies."""
    telemetry_log.take_tracebacks()
    _leave_no_core()
    if sys.platform == "win32":
        asyncio.run(main)
        return
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)
