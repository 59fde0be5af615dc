"""Sockets that systemd listens at: taken over, checked, served at."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aigw.config.schema import Auth, Config
from aigw.errors import ConfigError
from aigw.server import inherited
from tests.e2e.world import eventually

STARTER = """\
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.set_inheritable(3, True)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
os.execv(sys.executable, [sys.executable, "-m", "aigw", "serve", *sys.argv[2:]])
"""
"""What systemd does before it starts a service."""


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as one:
        yield one


def ask(port: int, path: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as caller:
        caller.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: caller.recv(65536), b""))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_serving_at_a_socket_that_was_given(listening: socket.socket, tmp_path: Path, workers: str) -> None:
    """Who connects before the server runs is answered by it, and again after a restart: the socket outlives the process."""
    (tmp_path / "config.toml").write_text("[providers.demo]\n[admin]\nport = 0\n")
    (tmp_path / "config.toml").chmod(0o600)
    port = listening.getsockname()[1]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONWARNINGS": "error"}
    command = [sys.executable, "-c", STARTER, str(listening.fileno()), "--config", "config.toml", "--data-dir", "data"]
    for _ in range(2):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as early:
            early.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            with subprocess.Popen(
                [*command, "--workers", workers] if workers != "1" else command,
                env=environment,
                cwd=tmp_path,
                pass_fds=[listening.fileno()],
                stderr=subprocess.PIPE,
                text=True,
            ) as server:
                try:
                    assert b" 200 " in b"".join(iter(lambda: early.recv(65536), b"")).splitlines()[0]
                    said = next(line for line in server.stderr or () if "listening on" in line)
                    assert re.search(rf"listening on http://\S+:{port}$", said.strip())
                    eventually(lambda: b" 200 " in ask(port, "/readyz").splitlines()[0], 30)
                finally:
                    server.terminate()
                assert "Traceback" not in (server.stderr.read() if server.stderr else "")
                assert server.wait(60) == 0


def test_only_what_is_meant_for_this_process() -> None:
    """Another process's variables are not ours; they are taken away either way, so that no child believes in them."""
    for environment in (
        {},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1"},
        {"LISTEN_PID": str(os.getpid())},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "x"},
    ):
        assert inherited.take(Config(), environment) == []
        assert environment == {}


def given(descriptor: int, config: Config) -> str:
    """What is said of this descriptor when it is given as the third, by a process of its own."""
    script = f"""\
import os, sys
from aigw.config.schema import Auth, Config
from aigw.errors import ConfigError
from aigw.server import inherited
if {descriptor} >= 0: os.dup2({descriptor}, 3)
try:
    environment = {{"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}}
    found = inherited.take(Config(auth=Auth(required={config.auth.required})), environment)
    print([inherited.place(one) for one in found], [os.get_inheritable(one.fileno()) for one in found])
    [one.close() for one in found]
except ConfigError as error:
    print(error)
"""
    kept = [descriptor] if descriptor >= 0 else []
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], pass_fds=kept, capture_output=True, text=True, check=False
    )
    assert ran.stderr == ""
    return ran.stdout


def test_what_is_no_listening_socket_is_refused(listening: socket.socket) -> None:
    """A pipe, a socket that does not listen, a descriptor that is not open; each in a sentence."""
    place = f"127.0.0.1:{listening.getsockname()[1]}"
    assert given(listening.fileno(), Config()) == f"['{place}'] [False]\n"
    with socket.socket() as idle, socket.socket(type=socket.SOCK_DGRAM) as udp:
        assert "no listening TCP socket" in given(idle.fileno(), Config())
        assert "no listening TCP socket" in given(udp.fileno(), Config())
    assert ".socket unit" in given(-1, Config())


def test_without_keys_only_this_machine(listening: socket.socket) -> None:
    """Keyless mode at an address that other machines reach is refused, whoever listens there."""
    keyless = Config(auth=Auth(required=False))
    assert "[False]" in given(listening.fileno(), keyless)
    with socket.create_server(("0.0.0.0", 0)) as everywhere:
        assert "only for this machine" in given(everywhere.fileno(), keyless)
        assert "[False]" in given(everywhere.fileno(), Config())


def test_the_names_of_places() -> None:
    """IPv6 in brackets."""
    if socket.has_ipv6:
        try:
            with socket.create_server(("::1", 0), family=socket.AF_INET6) as one:
                assert re.fullmatch(r"\[::1\]:\d+", inherited.place(one))
        except OSError:
            pytest.skip("no IPv6 here")
    assert issubclass(ConfigError, Exception)
