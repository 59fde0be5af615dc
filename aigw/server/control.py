"""The control socket: how the operator's commands reach a running server. HTTP on `control.sock` in the data directory, for its
owner alone (0600):

    GET  /state     what runs here, and how it is (see `state.py`)
    POST /reload    read the config now: {"reloaded": true, "problems": []}
    POST /drain     stop as SIGTERM does: {"draining": true}

A lock beside it says that a server lives: it goes with its process, however that ends, so a socket that was left behind is
told from one that is served. Two servers of one data directory would bring two answers to each of these questions.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from aigw.config.control_socket import address_of, socket_path

LOCK_NAME = "control.lock"

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""What file systems say that know no locks (some network drives, some containers' volumes)."""

T = TypeVar("T")
Given = Callable[[], T | Awaitable[T]]
"""What gives an answer, at once or in a while."""


class AlreadyServedError(Exception):
    """Another server serves this data directory. `pid` is its process, 0 when it cannot be told."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"process {pid}" if pid else "another process")
        self.pid = pid


class Control:
    """The socket of one server. `claim`, then `start`, then `close`."""

    def __init__(self, data_dir: Path) -> None:
        self.path = socket_path(data_dir)
        self._lock_path = data_dir / LOCK_NAME
        self._lock = -1
        self._runner: web.AppRunner | None = None
        self._server: asyncio.AbstractServer | None = None

    def claim(self) -> None:
        """Say that this process serves the data directory, until `close`. Raises AlreadyServedError when another one does,
        OSError when the lock cannot be made."""
        lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlreadyServedError(_number(os.pread(lock, 20, 0))) from None
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock

    async def start(self, state: Given[dict[str, Any]], reload: Given[list[str]], drain: Callable[[], None]) -> None:
        """Answer from now on. *reload* returns what is wrong with the config, nothing when it serves now. Raises OSError where
        no socket can be made (a file system without them)."""

        async def get_state(request: web.Request) -> web.Response:
            return web.json_response(await _given(state))

        async def post_reload(request: web.Request) -> web.Response:
            problems = await _given(reload)
            return web.json_response({"reloaded": not problems, "problems": problems})

        async def post_drain(request: web.Request) -> web.Response:
            drain()
            return web.json_response({"draining": True})

        app = web.Application()
        app.router.add_get("/state", get_state)
        app.router.add_post("/reload", post_reload)
        app.router.add_post("/drain", post_drain)
        listener = self._bind()
        try:
            self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
            await self._runner.setup()
            assert self._runner.server is not None
            self._server = await asyncio.get_running_loop().create_unix_server(self._runner.server, sock=listener)
        except BaseException:
            listener.close()
            raise

    def _bind(self) -> socket.socket:
        """The socket, not listening yet. Nobody can connect before it listens, so nobody sees it with other modes."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.path.unlink(missing_ok=True)  # a dead server's: ours is the lock
            with address_of(self.path) as address:
                listener.bind(address)
            self.path.chmod(0o600)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
        return listener

    async def close(self) -> None:
        """Stop answering and take the socket away; the lock goes last. Safe to repeat."""
        server, self._server = self._server, None
        if server is not None:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)
            server.close()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)


async def _given(give: Given[T]) -> T:
    found = give()
    return await found if isinstance(found, Awaitable) else found


def _number(text: bytes) -> int:
    try:
        return int(text)
    except ValueError:
        return 0
