"""`aigw serve` as a command: what it takes, says and exits with. What it serves is tried in tests/server and tests/e2e."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import CommandLine

QUIET = "[server]\nport = 0\n[admin]\nport = 0\n"


class Serving:
    """A server in a process of its own; `said` are its lines so far."""

    def __init__(self, aigw: CommandLine, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "aigw", "serve", *arguments],
            env=aigw.environment | environment,
            cwd=aigw.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        self.said: list[str] = []
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(self.process.stderr,), daemon=True)
        self._reader.start()
        assert self._ready.wait(20), self.said
        found = re.search(r"listening on http://(\S+):(\d+)$", self.said[0])
        assert found is not None, self.said
        self.host, self.port = found[1], int(found[2])

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self.said.append(line.rstrip("\n"))
            if "metrics at" in line:
                self._ready.set()
        self._ready.set()

    def stop(self, number: int) -> int:
        """Its exit code."""
        self.process.send_signal(number)
        code = self.process.wait(20)
        self._reader.join(5)
        return code

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(5)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


@contextmanager
def serving(aigw: CommandLine, *arguments: str, **environment: str) -> Iterator[Serving]:
    server = Serving(aigw, arguments, environment)
    try:
        yield server
    finally:
        server.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_from_start_to_stop(aigw: CommandLine, number: signal.Signals) -> None:
    """It says where, answers there, says nothing on stdout, and a stop is no failure."""
    aigw.config.write_text(QUIET + "[providers.demo]\n")
    with serving(aigw) as server:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/readyz", timeout=5) as answer:
            assert answer.status == 200
        assert server.stop(number) == 0
        assert server.process.stdout is not None
        assert server.process.stdout.read() == ""
        assert len(server.said) == 2, server.said


def test_flag_variable_file(aigw: CommandLine) -> None:
    """One name in three places; the flag wins over the variable, the variable over the file."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    aigw.config.write_text("[server]\nport = 9\n[admin]\nport = 0\n")
    with serving(aigw, AIGW_PORT=str(port), AIGW_HOST="127.0.0.1") as server:
        assert server.port == port
    with serving(aigw, "--port", "0", AIGW_PORT="9") as server:
        assert server.port not in (0, 9)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--port", "70000"), ": 70000 is not in the range 0<=x<=65535."),
        (("--port", "http"), ": 'http' is not a valid int range"),
        (("--prot", "1"), "No such option: --prot"),
        (("extra",), "Got unexpected extra argument"),
    ],
)
def test_wrong_usage(aigw: CommandLine, arguments: tuple[str, ...], complaint: str) -> None:
    """Exit code 2, and no data directory was made for it."""
    done = aigw("serve", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr
    assert not aigw.data_dir.exists()


def test_a_config_that_is_wrong(aigw: CommandLine) -> None:
    """Exit code 2: file, line, key, what was expected."""
    aigw.config.write_text("[server]\nport = 'x'\n[providers.openai]\nkeys = ['env:AIGW_UNSET']\n")
    done = aigw("serve")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"error: {aigw.config}:2: server.port: expected a whole number, got a string" in done.stderr
    aigw.config.write_text(QUIET + "[providers.openai]\nkeys = ['env:AIGW_UNSET']\n")
    done = aigw("serve")
    assert done.returncode == 2
    assert f"{aigw.config}:6: providers.openai.keys[0]: " in done.stderr
    assert "AIGW_UNSET" in done.stderr


def test_keyless_is_for_this_machine(aigw: CommandLine) -> None:
    """A flag cannot open what the file opened for this machine only."""
    aigw.config.write_text(QUIET + "[auth]\nrequired = false\n")
    done = aigw("serve", "--host", "0.0.0.0")
    assert done.returncode == 2
    assert done.stderr.startswith("error: auth.required: ")
    assert "--host must be 127.0.0.1" in done.stderr


def test_a_port_in_use(aigw: CommandLine) -> None:
    """Exit code 1, and what to do."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = aigw("serve", "--port", str(port))
    assert done.returncode == 1
    assert done.stderr == (
        f"error: 127.0.0.1:{port} is taken by another program; stop it, or choose another `port` in [server]\n"
    )


def test_nothing_secret_is_said(aigw: CommandLine) -> None:
    """Neither providers' keys nor consumers', at the start or at the end."""
    aigw.config.write_text(
        QUIET + '[providers.openai]\nkeys = ["sk-provider"]\nlist_models = false\n[consumers.ci]\nkey = "sk-ci"\n'
    )
    aigw.config.chmod(0o600)
    key = aigw("keys", "create", "alice").stdout.strip()
    with serving(aigw) as server:
        assert server.stop(signal.SIGTERM) == 0
        said = "\n".join(server.said)
    assert key.startswith("sk-aigw-")
    assert not [secret for secret in ("sk-provider", "sk-ci", key) if secret in said]


def test_help(aigw: CommandLine) -> None:
    """What it takes, with examples."""
    done = aigw("serve", "--help")
    assert done.returncode == 0
    for word in ("--host", "--port", "AIGW_PORT", "aigw serve --port 9000", "kill -HUP"):
        assert word in done.stdout
