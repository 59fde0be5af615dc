"""What a process has, seen from outside: real children, sockets and memory."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aigw.integrity import process
from aigw.integrity.process import Expected
from tests.e2e.world import eventually

pytestmark = pytest.mark.skipif(not process.available(), reason="Linux only")


@contextmanager
def running(code: str) -> Iterator[subprocess.Popen[str]]:
    """A Python that runs *code*, has said so, and waits."""
    script = textwrap.dedent(code) + "\nprint('ready', flush=True)\nsys.stdin.read()\n"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-I", "-c", "import sys\n" + script], **pipes) as ran:  # type: ignore[call-overload]
        assert ran.stdout.readline() == "ready\n"
        try:
            yield ran
        finally:
            ran.kill()


def odd(pid: int, *, children: tuple[int, ...] = (), ports: tuple[int, ...] = (), peers: tuple[str, ...] = ()) -> list[str]:
    return [f"{one.path} {one.what}" for one in process.oddities(pid, Expected(children, ports, peers, process.roots()))]


def test_nothing_odd() -> None:
    """A Python with our libraries, and this very test."""
    with running("import ssl, sqlite3, asyncio, httptools, msgspec, uvloop") as ran:
        assert odd(ran.pid) == []
        assert process.threads(ran.pid) == 1
        assert process.children(ran.pid) == {}


def test_a_child() -> None:
    with running("import subprocess; child = subprocess.Popen(['sleep', '30'])") as ran:
        number = eventually(lambda: next((pid for pid, name in process.children(ran.pid).items() if name == "sleep"), 0))
        assert odd(ran.pid) == [f"process {number} is a child that the gateway did not start (sleep)"]
        assert odd(ran.pid, children=(number,)) == []
        os.kill(number, 9)


@pytest.mark.parametrize(("family", "host"), [("AF_INET", "127.0.0.1"), ("AF_INET6", "::1")])
def test_connections(family: str, host: str) -> None:
    """To whom: an address that nobody configured is told, one that is known is not; and whoever calls us is no peer."""
    with socket.socket(getattr(socket, family)) as listening:
        listening.bind((host, 0))
        listening.listen()
        port = listening.getsockname()[1]
        with running(f"import socket; one = socket.create_connection(('{host}', {port}))") as ran:
            assert odd(ran.pid) == [f"socket {host}:{port} speaks with an address that no configured host has"]
            assert odd(ran.pid, peers=(host,)) == []
        with running(
            f"""
            import socket
            one = socket.socket(socket.{family}); one.bind(('{host}', 0)); one.listen()
            caller = socket.create_connection(one.getsockname()[:2])
            called, _ = one.accept(); caller = caller.detach(); import os; os.close(caller)
            """
        ) as ran:
            (mine,) = {one.local[1] for one in process.sockets(ran.pid) if one.listening}
            assert f"socket :{mine} listens where nothing was configured" in odd(ran.pid)
            assert odd(ran.pid, ports=(mine,)) == []


def test_datagrams() -> None:
    """A connected one is seen too, but for questions to name servers."""
    with running("import socket; one = socket.socket(type=socket.SOCK_DGRAM); one.connect(('127.0.0.1', 9))") as ran:
        assert odd(ran.pid) == ["socket 127.0.0.1:9 speaks with an address that no configured host has"]
    with running("import socket; one = socket.socket(type=socket.SOCK_DGRAM); one.connect(('127.0.0.1', 53))") as ran:
        assert odd(ran.pid) == []


def test_code_from_elsewhere(tmp_path: Path) -> None:
    """A library that is not the system's, one whose file is gone, and memory that was never a file."""
    library = next(path for path in process.code(os.getpid()) if "libc.so" in path.path or "libm.so" in path.path).path
    copy = tmp_path / "libcopy.so"
    copy.write_bytes(Path(library).read_bytes())
    with running(f"import ctypes; ctypes.CDLL({str(copy)!r})") as ran:
        assert odd(ran.pid) == [f"{copy} is code from outside of aigw and the system's libraries"]
        copy.unlink()
        assert "removed or replaced since it started" in odd(ran.pid)[0]
    with running("import mmap; one = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC, flags=mmap.MAP_PRIVATE)") as ran:
        assert odd(ran.pid) == ["executable memory holds code that came from no file"]
    with running(
        f"""
        import ctypes, os
        number = os.memfd_create('x'); os.write(number, open({library!r}, 'rb').read())
        ctypes.CDLL(f'/proc/self/fd/{{number}}')
        """
    ) as ran:
        assert any("never a file" in one for one in odd(ran.pid)), odd(ran.pid)


def test_work() -> None:
    spin = "def spin():\n    while True: pass\n"
    with running(f"import threading\n{spin}threading.Thread(target=spin, daemon=True).start()") as ran:
        before = process.cpu(ran.pid)
        eventually(lambda: process.cpu(ran.pid) - before > 0.1)
        assert process.threads(ran.pid) == 2


def test_names() -> None:
    assert "127.0.0.1" in process.addresses(["localhost", "no.such.name.invalid", "x" * 300, "a b", "\0"])
    assert process.addresses(["10.1.2.3"]) == {"10.1.2.3"}
