"""Who listens at a TCP port of this machine, as far as this user may see it: /proc on Linux, `lsof` elsewhere."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_LISTENING = "0A"  # the state in /proc/net/tcp (include/net/tcp_states.h)


class Holder(NamedTuple):
    """A process that listens. `ours`: it is an `aigw serve`."""

    pid: int
    name: str
    ours: bool = False

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid})"


def refusal(host: str, port: int) -> OSError | None:
    """Why a server could not listen at *host*:*port* now; None when it could. Tried, as a server would."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            trial.bind(address)
            trial.listen(1)  # with SO_REUSEADDR the conflict may show only here
    except OSError as error:
        return error
    return None


def holder(port: int) -> Holder | None:
    """The process that listens at *port*; None when there is none, or this user may not see it."""
    if Path("/proc/net/tcp").exists():
        sockets = set(_sockets(port))
        return next(_owners(sockets), None) if sockets else None
    return _asked_of_lsof(port)


def _sockets(port: int) -> Iterator[str]:
    """Inodes of the sockets that listen at *port*."""
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{table}").read_text("ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                yield f"socket:[{fields[9]}]"


def _owners(sockets: set[str]) -> Iterator[Holder]:
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            open_files = list((process / "fd").iterdir())
        except OSError:  # another user's, or gone
            continue
        for file in open_files:
            try:
                found = os.readlink(file) in sockets  # noqa: PTH115 - plain strings here
            except OSError:
                continue
            if found:
                yield _named(int(process.name))
                break


def _named(pid: int) -> Holder:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        name = Path(f"/proc/{pid}/comm").read_text("utf-8", "replace").strip()
    except OSError:
        return Holder(pid, "a process")
    ours = "serve" in words and any(Path(word).name in ("aigw", "__main__.py") for word in words)
    return Holder(pid, "aigw serve" if ours else name, ours)


def _asked_of_lsof(port: int) -> Holder | None:
    lsof = shutil.which("lsof")
    if lsof is None:
        return None
    try:
        # a program of the system, and a number
        answer = subprocess.run(  # noqa: S603
            [lsof, "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-Fpc"], capture_output=True, text=True, timeout=5, check=False
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    fields = {line[0]: line[1:] for line in reversed(answer.splitlines()) if line}
    return Holder(int(fields["p"]), fields.get("c", "a process")) if fields.get("p", "").isdigit() else None
