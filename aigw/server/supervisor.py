"""Several workers as one server: who starts them, starts them anew, and speaks for them.

The supervisor serves no request. It holds what there is once: the data directory's lock, the control socket, the listener for
metrics, the data port's address, the table of shared counters. Its workers are processes of their own (see `workers.py`),
started as `python -m aigw --worker N` with this interpreter's own flags.

**The port.** On Linux each worker listens at a socket of its own (`SO_REUSEPORT`), and the kernel deals connections out; a
worker that dies takes its socket along, so no connection waits for it. (With one socket for all, whoever wakes first takes in
all who wait; docs/workers.md has the figures.) Elsewhere the kernel does not deal, and all share one.

**A worker that ends** is replaced: at once if it had lived for a while, else after a pause that doubles. What it held of
limits and budgets is given back first; its records are brought to the store by its successor.

**A reload** asks every worker whether it could serve the new config. Only when all can, all do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from aigw import __version__
from aigw.config import load
from aigw.config.load import Loaded
from aigw.errors import ConfigError, StoreError
from aigw.server import admin, inherited, lifecycle
from aigw.server.channel import Channel, GoneError, Message
from aigw.server.control import AlreadyServedError, Control
from aigw.server.lifecycle import CannotListenError
from aigw.server.state import together
from aigw.server.workers import Task
from aigw.storage.shared import SharedCounters, make
from aigw.telemetry import log as telemetry_log
from aigw.telemetry.sums import added

log = logging.getLogger("aigw.server")

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a worker that ended soon is started anew: the first time, and at most."""

LIVED = 10.0
"""Seconds after which the end of a worker says nothing about the next one."""

ANSWER = 5.0
"""Seconds that a worker has to say how it is."""

PREPARE = 60.0
"""Seconds that workers have to look at a new config (10,000 routes take one)."""

GRACE = 20.0
"""Seconds beyond `drain_timeout` that a worker has to end."""


class _Slot:
    """The place of one worker: which process has it now, and since when."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: asyncio.subprocess.Process | None = None
        self.channel: Channel | None = None
        self.ready = asyncio.Event()
        self.failure: Exception | None = None  # why it could not serve
        self.started_at = 0.0
        self.restarts = 0
        self.soon = 0  # ends in a row that came soon
        self.metrics = b""  # the latest that it told


class Supervisor:
    """`run` is the life of a server of several workers."""

    def __init__(
        self, loaded: Loaded, data_dir: Path, say: Callable[[str], None], flags: Mapping[str, str | int], workers: int
    ) -> None:
        """*flags* are keys of [server] given on the command line. Raises ConfigError."""
        self._flags = {**flags, "workers": workers}
        self._written = loaded.config.server.workers  # in the file
        self._loaded = lifecycle.with_flags(loaded, self._flags)
        self._text = _text(loaded.path) if loaded.exists else None
        self._data_dir, self._say = data_dir, say
        telemetry_log.configure(self._loaded.config.log)
        self._slots = [_Slot(number) for number in range(workers)]
        self._control = Control(data_dir)
        self._sockets: list[socket.socket] = []
        self._given = False  # whoever started us listens at them
        self._counters: SharedCounters | None = None
        self._table = -1
        self._bound: dict[str, list[str]] = {"data": [], "admin": []}
        self._runner: web.AppRunner | None = None
        self._gone = b""  # what workers that ended had counted
        self._stopping = asyncio.Event()
        self._reload_wanted = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._started_at = self._loaded_at = time.time()
        self._read = lifecycle.stamp_of(loaded.path)
        self._problem = ""

    async def run(self) -> None:
        """Serve until a signal says stop. Raises CannotListenError, ConfigError, StoreError when it cannot begin."""
        config = self._loaded.config
        keepers: list[asyncio.Task[None]] = []
        try:
            self._claim()
            self._count()
            self._bind()
            application = admin.application(self._metrics, config.admin.host)
            self._runner, self._bound["admin"] = await lifecycle.listen_admin(application, config)
            self._handle_signals()
            for slot in self._slots[:1], self._slots[1:]:  # the first one brings the store up to date
                keepers += [asyncio.get_running_loop().create_task(self._keep(one)) for one in slot]
                await self._all_ready(slot)
            if self._stopping.is_set():
                return
            await self._open_control()
            host = f"[{config.server.host}]" if ":" in config.server.host else config.server.host
            self._say(f"aigw {__version__} listening on http://{host}:{lifecycle.port_of(self._bound['data'])}")
            self._say(f"{len(self._slots)} workers")
            lifecycle.welcome(self._loaded, lifecycle.port_of(self._bound["admin"]), self._say)
            watcher = asyncio.get_running_loop().create_task(self._watch(), name="config")
            try:
                await self._stopping.wait()
            finally:
                watcher.cancel()
        finally:
            await self._end(keepers)

    # what there is once

    def _claim(self) -> None:
        try:
            self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._control.claim()
        except AlreadyServedError as error:
            raise CannotListenError(
                f"aigw is already running for {self._data_dir} ({error}); "
                f"{f'stop it (kill {error.pid})' if error.pid else 'stop it'}, or choose another --data-dir"
            ) from None
        except OSError as error:
            raise CannotListenError(
                f"cannot lock {self._data_dir}: {error.strerror}; give this user write access to it, or choose --data-dir"
            ) from None

    def _count(self) -> None:
        if self._loaded.config.storage.counters in {"memory", "memory:"}:
            self._table = make(len(self._slots))
            self._counters = SharedCounters(os.dup(self._table), -1)

    def _bind(self) -> None:
        server = self._loaded.config.server
        if given := inherited.take(self._loaded.config):
            self._given, self._sockets = True, given
            self._bound["data"] = [inherited.place(one) for one in given]
            return
        host, port = server.host.strip("[]"), server.port
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            _free(found[0][0], found[0][4])
            self._sockets.append(_socket(found[0][0], found[0][4]))
        except OSError as error:
            raise lifecycle.cannot_listen(error, server.host, port, "[server]") from None
        bound = self._sockets[0].getsockname()[1]
        others = [(kind, address[0]) for kind, _, _, _, address in found[1:]]
        if host in {"127.0.0.1", "localhost"} and socket.has_ipv6:
            others.append((socket.AF_INET6, "::1"))
        for kind, name in dict.fromkeys(others):
            with contextlib.suppress(OSError):  # a machine without IPv6; what is bound already
                _free(kind, (name, bound))
                self._sockets.append(_socket(kind, (name, bound)))
        names = [one.getsockname() for one in self._sockets]
        self._bound["data"] = [f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}" for name in names]

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload_wanted.set)

    def _stop(self) -> None:
        what = "cut" if self._stopping.is_set() else "drain"
        self._stopping.set()
        for slot in self._slots:
            if slot.channel is not None and slot.ready.is_set():
                slot.channel.tell(what)
            elif slot.process is not None and slot.process.returncode is None:
                slot.process.terminate()

    # workers

    async def _all_ready(self, slots: list[_Slot]) -> None:
        """Wait until these serve. Raises what keeps one from it."""
        stopping = asyncio.get_running_loop().create_task(self._stopping.wait())
        try:
            for slot in slots:
                ready = asyncio.get_running_loop().create_task(slot.ready.wait())
                await asyncio.wait({ready, stopping}, return_when=asyncio.FIRST_COMPLETED)
                ready.cancel()
                if slot.failure is not None:
                    raise slot.failure
        finally:
            stopping.cancel()

    async def _keep(self, slot: _Slot) -> None:
        """Have a worker in this place until the server stops."""
        while not self._stopping.is_set():
            began, first = time.monotonic(), not slot.ready.is_set() and not slot.restarts
            slot.ready.clear()
            code = await self._live(slot)
            served = slot.ready.is_set()
            self._forget(slot)
            if self._stopping.is_set():
                return
            if first and not served:
                slot.failure = slot.failure or CannotListenError(f"worker {slot.number} {_ended(code)} before it could serve")
                slot.ready.set()
                return
            slot.restarts += 1
            slot.soon = 0 if time.monotonic() - began > LIVED else slot.soon + 1
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (slot.soon - 2)) if slot.soon > 1 else 0.0
            why = f": {slot.failure}" if slot.failure is not None else ""
            slot.failure = None
            when = f"in {pause:g} s" if pause else "now"
            log.error("worker %d %s%s; another one starts %s", slot.number, _ended(code), why, when)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()

    async def _live(self, slot: _Slot) -> int:
        """One process's life. Returns how it ended."""
        ours, theirs = socket.socketpair()
        listening: list[socket.socket] = []
        channel = Channel(lambda message: self._hear(slot, message))
        try:
            with theirs:
                listening = self._listening()
                task = self._task(slot, listening)
                slot.process = await self._spawn(task, theirs)
            for one in listening:
                if one not in self._sockets:
                    one.close()
            listening = []
            await channel.open(ours)
            channel.begin(task)
            slot.channel, slot.started_at = channel, time.time()
            await channel.run()
            try:
                async with asyncio.timeout(self._loaded.config.server.drain_timeout + GRACE):
                    return await slot.process.wait()
            except TimeoutError:
                slot.process.kill()
                return await slot.process.wait()
        finally:
            slot.channel = None
            for one in listening:
                if one not in self._sockets:
                    one.close()
            await channel.close()
            ours.close()
            if slot.process is not None and slot.process.returncode is None:
                slot.process.kill()
                await slot.process.wait()

    def _listening(self) -> list[socket.socket]:
        """The sockets for one worker."""
        if self._given or not _DEALS:
            return list(self._sockets)
        return [_socket(one.family, one.getsockname()) for one in self._sockets]

    def _task(self, slot: _Slot, listening: list[socket.socket]) -> Task:
        return Task(
            number=slot.number,
            workers=len(self._slots),
            data_dir=str(self._data_dir),
            path=str(self._loaded.path),
            text=self._text,
            flags=dict(self._flags),
            sockets=[one.fileno() for one in listening],
            counters=self._table if self._table >= 0 else None,
            bound=self._bound,
        )

    async def _spawn(self, task: Task, end: socket.socket) -> asyncio.subprocess.Process:
        kept = [end.fileno(), *task.sockets, *([] if task.counters is None else [task.counters])]
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *subprocess._args_from_interpreter_flags(),  # type: ignore[attr-defined]  # noqa: SLF001 - what multiprocessing uses, too
            "-m",
            "aigw",
            "--worker",
            str(end.fileno()),
            stdin=subprocess.DEVNULL,
            pass_fds=kept,
            process_group=0,  # a terminal's Ctrl-C is for the supervisor
        )

    async def _hear(self, slot: _Slot, message: Message) -> Message | None:
        what = message["what"]
        if what == "ready":
            slot.ready.set()
            if self._stopping.is_set() and slot.channel is not None:
                slot.channel.tell("drain")
        elif what == "failed":
            kinds = {"config": ConfigError, "store": StoreError}
            slot.failure = kinds.get(message["kind"], CannotListenError)(message["message"])
        else:
            for other in self._serving():
                if other is not slot and other.channel is not None:
                    other.channel.tell(**message)
        return None

    def _serving(self) -> list[_Slot]:
        return [slot for slot in self._slots if slot.channel is not None and slot.ready.is_set()]

    def _forget(self, slot: _Slot) -> None:
        """A worker is gone: what it held is free again, what it counted stays counted."""
        if self._counters is not None:
            self._counters.forget(slot.number)
        if slot.metrics:
            self._gone = added([], added([slot.metrics], self._gone))
            slot.metrics = b""

    # speaking for them

    async def _asked(self, what: str) -> list[tuple[_Slot, Message]]:
        """What each worker that serves answers; who does not is left out."""
        slots = self._serving()
        channels = [slot.channel for slot in slots]
        answers = await asyncio.gather(
            *(channel.ask(what, ANSWER) for channel in channels if channel is not None), return_exceptions=True
        )
        return [(slot, answer) for slot, answer in zip(slots, answers, strict=True) if isinstance(answer, dict)]

    async def _metrics(self) -> tuple[bytes, str]:
        for slot, answer in await self._asked("metrics"):
            slot.metrics = answer["text"].encode()
        text = added([slot.metrics for slot in self._slots if slot.metrics], self._gone)
        up = sum(slot.ready.is_set() and slot.channel is not None for slot in self._slots)
        restarts = sum(slot.restarts for slot in self._slots)
        text += (
            f"# HELP aigw_workers Processes that serve.\n# TYPE aigw_workers gauge\naigw_workers {up}\n"
            "# HELP aigw_worker_restarts_total Workers that were started anew.\n"
            f"# TYPE aigw_worker_restarts_total counter\naigw_worker_restarts_total {restarts}\n"
        ).encode()
        return text, "text/plain; version=0.0.4; charset=utf-8"

    async def _state(self) -> dict[str, Any]:
        told = await self._asked("state")
        states = {slot.number: answer["state"] for slot, answer in told}
        changed = lifecycle.stamp_of(self._loaded.path) != self._read
        own: dict[str, Any] = {
            "pid": os.getpid(),
            "version": __version__,
            "now": time.time(),
            "started_at": self._started_at,
            "data_dir": str(self._data_dir.absolute()),
            "addresses": {plane: [lifecycle.address_of(place) for place in places] for plane, places in self._bound.items()},
            "bound": self._bound,
            "config": {
                "path": str(self._loaded.path.absolute()),
                "hash": self._loaded.hash,
                "loaded_at": self._loaded_at,
                "changed": changed,
                "problem": self._problem if changed else "",
            },
            "workers": [_told(slot, states.get(slot.number)) for slot in self._slots],
        }
        if not states:
            return {"ready": "no worker serves", **own}
        return together(list(states.values()), own)

    async def _open_control(self) -> None:
        try:
            await self._control.start(self._state, self._reload_asked, self._stop)
        except OSError as error:  # callers are served all the same
            log.warning(
                "no control socket at %s (%s): `aigw status` cannot see this server", self._control.path, error.strerror
            )

    # reload

    async def _watch(self) -> None:
        async for _ in lifecycle.edits(self._loaded.path, self._reload_wanted, self._read):
            try:
                await self.reload()
            except Exception:
                log.exception("config not reloaded, the old one serves on; this is a bug of ours")  # go on watching

    async def _reload_asked(self) -> list[str]:
        return [] if await self.reload() else self._problem.splitlines()

    async def reload(self) -> bool:
        """Whether the config on disk now serves, in all workers. When one cannot, the old one goes on in all."""
        async with self._reloading:
            stamp = lifecycle.stamp_of(self._loaded.path)
            try:
                text = _text(self._loaded.path)
                loaded = load.load_text(text, self._loaded.path)
                written = loaded.config.server.workers
                loaded = lifecycle.with_flags(loaded, self._flags)
                problems = await self._prepared(text)
            except ConfigError as error:
                problems = str(error).splitlines()
            if problems:
                self._problem = "\n".join(problems)
                for line in problems:
                    log.error("config not reloaded, the old one serves on: %s", line)
                return False
            for name in lifecycle.static_changes(self._loaded.config, loaded.config):
                log.warning("%s changed: takes effect at the next start", name)
            if written != self._written:
                self._written = written
                log.warning("[server] workers changed: takes effect at the next start")
            self._loaded, self._text = loaded, text
            for slot in self._serving():
                if slot.channel is not None:
                    slot.channel.tell("commit", stamp=stamp)
            self._read, self._loaded_at, self._problem = stamp, time.time(), ""
            telemetry_log.configure(loaded.config.log)
            for warning in loaded.warnings:
                log.warning("%s", warning)
            log.info("config %s reloaded from %s by %d workers", loaded.hash, loaded.path, len(self._slots))
            return True

    async def _prepared(self, text: str) -> list[str]:
        """What keeps a worker from serving the config in *text*. One that ends meanwhile keeps nobody: its successor gets what
        the others have then."""

        async def of(slot: _Slot) -> list[str]:
            channel = slot.channel
            if channel is None:
                return []
            try:
                return list((await channel.ask("prepare", PREPARE, text=text))["problems"])
            except GoneError:
                if slot.channel is channel:
                    return [f"worker {slot.number} did not say whether it can serve this config"]
                return []

        return next((problems for problems in await asyncio.gather(*map(of, self._serving())) if problems), [])

    # ending

    async def _end(self, keepers: list[asyncio.Task[None]]) -> None:
        if not self._stopping.is_set():
            self._stop()
        for one in self._sockets:
            one.close()
        if keepers:
            _, late = await asyncio.wait(keepers, timeout=self._loaded.config.server.drain_timeout + GRACE)
            for keeper in late:
                keeper.cancel()
            for result in await asyncio.gather(*keepers, return_exceptions=True):
                if isinstance(result, Exception):
                    log.error("a worker could not be looked after: %s", result)
        if self._runner is not None:
            await self._runner.cleanup()
        if self._counters is not None:
            await self._counters.close()
            os.close(self._table)
        await self._control.close()


def _told(slot: _Slot, state: dict[str, Any] | None) -> dict[str, Any]:
    """One worker, for those who look closer."""
    return {
        "worker": slot.number,
        "pid": slot.process.pid if slot.process is not None and state is not None else None,
        "started_at": slot.started_at,
        "restarts": slot.restarts,
        "ready": "it does not serve" if state is None else state["ready"],
        "exchanges": 0 if state is None else state["in_flight"]["exchanges"],
        "requests": 0 if state is None else state["counters"]["requests"],
    }


_DEALS = sys.platform == "linux" and hasattr(socket, "SO_REUSEPORT")
"""Whether the kernel deals connections out to the sockets at one address."""


def _free(family: int, address: Any) -> None:
    """Raises OSError when somebody listens at *address*, even one who would share it."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        probe.bind(address)
        probe.listen(1)


def _socket(family: int, address: Any) -> socket.socket:
    """A bound socket; nobody listens at it yet."""
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if _DEALS:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
    except BaseException:
        bound.close()
        raise
    return bound


def _text(path: Path) -> str:
    """Raises ConfigError."""
    try:
        return load.decode(load.read(path)[0], str(path))
    except FileNotFoundError:
        raise ConfigError("no such file any more", file=str(path)) from None


def _ended(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"was killed ({signal.Signals(-code).name})"
    return f"ended with {code}"


def supervise(loaded: Loaded, data_dir: Path, say: Callable[[str], None], flags: Mapping[str, str | int], workers: int) -> None:
    """Run a server of so many *workers* until it is told to stop. Raises ConfigError, StoreError, CannotListenError."""

    async def main() -> None:
        await Supervisor(loaded, data_dir, say, flags, workers).run()

    telemetry_log.take_tracebacks()
    asyncio.run(main())
