"""Sockets that whoever started us listens at already (systemd's socket activation; sd_listen_fds(3)).

    LISTEN_PID   the process they are meant for
    LISTEN_FDS   how many: descriptors 3, 4, ...

Callers that come while the server restarts wait in the kernel's queue instead of being refused, and a port below 1024 needs no
right of ours.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

from aiohttp import web

from aigw.config.check import is_loopback
from aigw.config.schema import Config
from aigw.errors import ConfigError

FIRST = 3
"""The descriptor of the first one."""


def take(config: Config, environment: MutableMapping[str, str] = os.environ) -> list[socket.socket]:
    """The sockets given to this process; none when there are none. They are ours from then on, and our children's no more.

    Raises ConfigError for one that is no listening TCP socket, and for one that other machines reach while no key is required.
    """
    meant, count = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
    environment.pop("LISTEN_FDNAMES", None)
    if meant != str(os.getpid()) or not count.isdecimal():
        return []
    given: list[socket.socket] = []
    try:
        for number in range(FIRST, FIRST + int(count)):
            os.set_inheritable(number, False)
            given.append(socket.socket(fileno=number))
            _check(given[-1], number, config)
    except OSError as error:
        _close(given)
        raise ConfigError(
            f"descriptor {number}, which we were given to listen at, cannot be used: {error.strerror}; see the .socket unit"
        ) from None
    except ConfigError:
        _close(given)
        raise
    return given


def _check(one: socket.socket, number: int, config: Config) -> None:
    tcp = one.family in (socket.AF_INET, socket.AF_INET6) and one.type == socket.SOCK_STREAM
    if not tcp or not one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise ConfigError(
            f"descriptor {number} is no listening TCP socket; the .socket unit takes ListenStream=ADDRESS:PORT and Accept=no"
        )
    if not config.auth.required and not is_loopback(one.getsockname()[0]):
        raise ConfigError(
            f"auth.required = false is only for this machine: ListenStream={place(one)} of the .socket unit must be 127.0.0.1",
            key="auth.required",
        )


def _close(given: list[socket.socket]) -> None:
    for one in given:
        one.close()


def place(one: socket.socket) -> str:
    """Where a socket is bound: "127.0.0.1:8080"."""
    host, port = one.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def listen(runner: web.AppRunner, given: list[socket.socket], backlog: int) -> list[str]:
    """Serve at these sockets. Returns the places."""
    for one in given:
        one.setblocking(False)
        await web.SockSite(runner, one, backlog=backlog).start()
    return [place(one) for one in given]
