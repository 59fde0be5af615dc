"""What the doctor says about the server and its ports."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from aigw import __version__
from aigw.cli.findings import server
from aigw.config.load import Loaded, load_with_notes
from tests.cli.findings import network


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    path = tmp_path / "config.toml"
    path.write_text(f"[server]\nport = {network.closed()}\n[providers.demo]\n")
    return load_with_notes(path)


def state(loaded: Loaded, **changed: Any) -> dict[str, Any]:
    """What such a server answers to GET /state, as far as it matters here."""
    port = loaded.config.server.port
    config = {"path": str(loaded.path), "hash": loaded.hash, "problem": ""} | changed.pop("config", {})
    return {
        "pid": os.getpid(),
        "version": __version__,
        "started_at": time.time(),
        "ready": "",
        "addresses": {"data": [f"http://127.0.0.1:{port}"]},
        "bound": {"data": [f"127.0.0.1:{port}", f"[::1]:{port}"]},
        "config": config,
    } | changed


def running(loaded: Loaded, **changed: Any) -> list[str]:
    return [finding.code for finding in server.running(state(loaded, **changed), loaded, loaded.path)]


def stopped(loaded: Loaded) -> list[str]:
    return [finding.code for finding in server.stopped(loaded)]


def test_one_that_runs(loaded: Loaded) -> None:
    """This version, this config, ready: good news only."""
    assert running(loaded) == ["server_ok"]


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"ready": "draining"}, "server_not_ready"),
        ({"version": "0.0.1"}, "server_other_version"),
        ({"config": {"path": "/etc/other.toml"}}, "server_other_config"),
        ({"config": {"hash": "0" * 12}}, "server_old_config"),
        ({"config": {"problem": "line 3: no"}}, "server_old_config"),
        ({"bound": {"data": ["127.0.0.1:1"]}}, "port_changed"),
    ],
)
def test_one_that_differs(loaded: Loaded, changed: dict[str, Any], code: str) -> None:
    """Each difference is a finding of its own."""
    assert running(loaded, **changed) == ["server_ok", code]


def test_one_that_does_not_answer() -> None:
    """The socket is named."""
    finding = server.unasked(OSError(110, "did not answer within 2 s", "/data/control.sock"))
    assert finding.code == "server_unasked"
    assert "/data/control.sock" in finding.means.english


def test_a_free_port(loaded: Loaded) -> None:
    """No server, and one could start."""
    assert stopped(loaded) == ["server_none", "port_free"]


def test_a_port_that_is_held(loaded: Loaded) -> None:
    """By whom is said, with a command that shows the process."""
    with socket.create_server(("127.0.0.1", loaded.config.server.port)):
        held = list(server.stopped(loaded))[-1]
    assert held.code == "port_held"
    assert f"process {os.getpid()}" in held.what.english
    assert os.system(f"{held.next} >/dev/null") == 0


def test_an_admin_port_that_is_held(tmp_path: Path) -> None:
    """It counts only when it is written in the config."""
    path = tmp_path / "config.toml"
    with socket.create_server(("127.0.0.1", 0)) as other:
        path.write_text(f"[server]\nport = 0\n[admin]\nport = {other.getsockname()[1]}\n")
        assert stopped(load_with_notes(path)) == ["server_none", "port_held"]
        path.write_text("[server]\nport = 0\n")
        assert stopped(load_with_notes(path)) == ["server_none"]


def test_an_address_of_another_machine(tmp_path: Path) -> None:
    """192.0.2.1 is nobody's (RFC 5737)."""
    path = tmp_path / "config.toml"
    path.write_text('[server]\nhost = "192.0.2.1"\n')
    assert stopped(load_with_notes(path)) == ["server_none", "port_impossible"]


def test_the_port_of_the_environment(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """AIGW_PORT wins, as it does for `aigw serve`."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setenv("AIGW_PORT", str(other.getsockname()[1]))
        assert stopped(loaded) == ["server_none", "port_held"]
