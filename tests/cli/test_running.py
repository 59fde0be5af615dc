"""Whether a running server took over what was just saved: asked of a real one."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from aigw.cli import control

if TYPE_CHECKING:
    from conftest import CommandLine

WRITTEN = "[server]\nport = 0\n[admin]\nport = 0\n[providers.demo]\n"


@pytest.fixture
def served(aigw: CommandLine) -> Iterator[subprocess.Popen[str]]:
    """A server of that command line's world, ready."""
    aigw.config.write_text(WRITTEN)
    command = [sys.executable, "-m", "aigw", "serve"]
    process = subprocess.Popen(command, env=aigw.environment, cwd=aigw.folder, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while "metrics at" not in (line := process.stderr.readline()):
        assert line, "the server ended"
    yield process
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)


def test_a_running_server_takes_it_over(aigw: CommandLine, served: subprocess.Popen[str]) -> None:
    """It is told, it reads, and the next line says so; the route works at once."""
    done = aigw("routes", "set", "fast", "--to", "demo/demo")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == (
        f"Made the route fast in {aigw.config}\nThe running server (process {served.pid}) has taken it over.\n"
    )
    state = control.ask(aigw.data_dir)
    assert state is not None
    from aigw.config.load import load_with_notes

    assert state["config"]["hash"] == load_with_notes(aigw.config).hash


def test_a_server_that_cannot(aigw: CommandLine, served: subprocess.Popen[str]) -> None:
    """A secret that only fails there: its words are shown, exit code 1, and it serves on."""
    command = 'printf "[providers.openai]\\nkeys = [\\"env:NOT_THERE\\"]\\n" >> '
    done = aigw("config", "edit", EDITOR=f"sh -c '{command} $0'")
    assert done.returncode == 1
    assert f"error: the running server (process {served.pid}) did not take it over, and serves on" in done.stderr
    assert "providers.openai.keys[0]: the environment variable NOT_THERE is not set" in done.stderr
    assert control.ask(aigw.data_dir) is not None


def test_another_config(aigw: CommandLine, served: subprocess.Popen[str]) -> None:
    """A server of the same data that reads another file is left alone, and that is said."""
    other = aigw.folder / "other.toml"
    other.write_text(WRITTEN)
    done = aigw("routes", "set", "fast", "--to", "demo", "--config", str(other))
    assert done.returncode == 0
    assert f"The running server (process {served.pid}) uses another config: {aigw.config}" in done.stderr


def test_what_needs_a_restart(aigw: CommandLine, served: subprocess.Popen[str]) -> None:
    """A reload changes no port: the keys that wait for the next start are named."""
    script = r"2s/$/\nmax_body = 1000\nstall_timeout = 9\ndrain_timeout = 9/; s/^.providers.demo./[storage]\nrecords = 5.0\n&/"
    done = aigw("config", "edit", EDITOR=f"sed -i '{script}'")
    assert done.returncode == 0
    assert done.stderr.endswith(
        f"The running server (process {served.pid}) has taken it over.\n"
        "warning: server.drain_timeout, storage.records: takes effect when it is started again\n"
    )
