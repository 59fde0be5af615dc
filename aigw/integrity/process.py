"""What the kernel says about a running process (Linux, /proc): its children, sockets, executable memory, time on the CPU. What
an implant in a gateway would do shows here, whatever the gateway says of itself.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from aigw.integrity.manifest import Flaw

MOST_THREADS = 128
"""Threads of one process: name look-ups, files and the database take up to 40 or so."""

DNS = 53

SYSTEM = ("/lib/", "/lib64/", "/usr/lib/", "/usr/lib64/", "/usr/local/lib/", "/usr/libexec/")
"""Where shared libraries of the system lie."""

_KERNEL = ("[vdso]", "[vsyscall]", "[uprobes]")
_LISTENING = "0A"
_TICKS = os.sysconf("SC_CLK_TCK")


class Expected(NamedTuple):
    """What a process may have: children and ports by number, addresses it may speak with, folders its code may come from."""

    children: Collection[int]
    ports: Collection[int]
    peers: Collection[str]
    roots: tuple[str, ...]


class Socket(NamedTuple):
    """One end of a TCP or UDP connection; `remote` is ("", 0) where there is no other end."""

    local: tuple[str, int]
    remote: tuple[str, int]
    listening: bool


class Code(NamedTuple):
    """Executable memory: the file it came from, "" for none."""

    path: str
    deleted: bool


def available() -> bool:
    """Whether this system tells."""
    return sys.platform == "linux" and Path("/proc/self/maps").exists()


def children(pid: int) -> dict[int, str]:
    """Processes that *pid* started, and what each is called."""
    found = {}
    for folder in Path(f"/proc/{pid}/task").iterdir():
        try:
            numbers = (folder / "children").read_text("ascii").split()
        except OSError:
            continue
        for number in map(int, numbers):
            try:
                found[number] = Path(f"/proc/{number}/comm").read_text("utf-8", "replace").strip()
            except OSError:
                continue  # it has ended
    return found


def threads(pid: int) -> int:
    """How many it has."""
    return len(os.listdir(f"/proc/{pid}/task"))  # noqa: PTH208


def cpu(pid: int) -> float:
    """Seconds on the CPU so far, its threads' together (proc(5): utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def sockets(pid: int) -> list[Socket]:
    """TCP and UDP sockets that it holds."""
    held = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            held.add(target[8:-1])
    return [one for table in ("tcp", "tcp6", "udp", "udp6") for one in _table(pid, table, held)]


def _table(pid: int, name: str, held: Collection[str]) -> Iterator[Socket]:
    try:
        lines = Path(f"/proc/{pid}/net/{name}").read_text("ascii").splitlines()[1:]
    except OSError:
        return
    for line in lines:
        fields = line.split()
        if fields[9] in held:
            yield Socket(_address(fields[1]), _address(fields[2]), name.startswith("tcp") and fields[3] == _LISTENING)


def _address(text: str) -> tuple[str, int]:
    """`0100007F:1F90` -> 127.0.0.1, 8080: words of four bytes in the machine's own order."""
    host, _, port = text.partition(":")
    data = bytes.fromhex(host)
    if sys.byteorder == "little":
        data = b"".join(data[at : at + 4][::-1] for at in range(0, len(data), 4))
    if not any(data):
        return "", int(port, 16)
    if len(data) == 16 and data.startswith(b"\0" * 10 + b"\xff\xff"):
        data = data[12:]
    return socket.inet_ntop(socket.AF_INET if len(data) == 4 else socket.AF_INET6, data), int(port, 16)


def code(pid: int) -> list[Code]:
    """Its executable memory."""
    found = []
    for line in Path(f"/proc/{pid}/maps").read_text("utf-8", "surrogateescape").splitlines():
        fields = line.split(None, 5)
        if "x" not in fields[1]:
            continue
        path = fields[5] if len(fields) > 5 else ""
        if path not in _KERNEL:
            found.append(Code(path.removesuffix(" (deleted)"), path.endswith(" (deleted)")))
    return list(dict.fromkeys(found))


def oddities(pid: int, expected: Expected) -> list[Flaw]:
    """What *pid* has and should not. Raises OSError when it has ended, or belongs to somebody else."""
    found = [
        Flaw(f"process {number}", f"is a child that the gateway did not start ({name})", f"ps -fp {number}")
        for number, name in children(pid).items()
        if number not in expected.children
    ]
    for one in sockets(pid):
        port, (peer, peer_port) = one.local[1], one.remote
        if port in expected.ports:
            continue  # ours, or a caller's connection to it
        if one.listening:
            found.append(Flaw(f"socket :{port}", "listens where nothing was configured", f"ss -ltnp | grep :{port}"))
        elif peer_port not in (0, DNS) and peer not in expected.peers:
            what = "speaks with an address that no configured host has"
            found.append(Flaw(f"socket {peer}:{peer_port}", what, f"ss -tnp | grep {peer}"))
    suspicious = ((mapped, _suspicious(mapped, expected.roots)) for mapped in code(pid))
    found += [Flaw(mapped.path or "executable memory", problem) for mapped, problem in suspicious if problem]
    if (number := threads(pid)) > MOST_THREADS:
        found.append(Flaw("threads", f"{number}, more than the {MOST_THREADS} that any work of ours takes"))
    return found


def _suspicious(mapped: Code, roots: tuple[str, ...]) -> str:
    if mapped.path.startswith("/memfd:"):
        return "is code that was never a file"
    if not mapped.path or mapped.path.startswith("["):
        return "holds code that came from no file"
    if mapped.deleted:
        return "is code whose file was removed or replaced since it started; a restart takes the new one"
    if not mapped.path.startswith((*roots, *SYSTEM)):
        return "is code from outside of aigw and the system's libraries"
    return ""


def roots() -> tuple[str, ...]:
    """The folders that this Python's own code comes from."""
    bases = {os.path.realpath(one) for one in (sys.prefix, sys.base_prefix, sys.exec_prefix)}
    own = {os.path.realpath(sys.executable)}
    packages = {os.path.realpath(one) for one in sys.path if one.endswith(("site-packages", "dist-packages"))}
    return tuple(sorted({f"{one}/" for one in bases | packages if one != "/usr"} | own))


_HOST = re.compile(r"[A-Za-z0-9.:_-]{1,255}")


def addresses(hosts: Collection[str]) -> set[str]:
    """What the names in *hosts* mean just now; those that nobody knows mean nothing."""
    found: set[str] = set()
    for host in hosts:
        if not _HOST.fullmatch(host):
            continue
        try:
            found.update(str(one[4][0]) for one in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError):
            continue
    return found
