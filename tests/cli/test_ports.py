"""Who holds a port."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

from aigw.cli.ports import holder, refusal


def test_a_free_one() -> None:
    """A server could listen, and nobody does; trying leaves nothing behind."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for _ in range(2):
        assert refusal("127.0.0.1", port) is None
    assert holder(port) is None


def test_one_that_is_held() -> None:
    """By this very process: its id and name; by an IPv6 socket as well."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        error = refusal("127.0.0.1", port)
        assert error is not None
        assert error.errno == errno.EADDRINUSE
        found = holder(port)
    assert found is not None
    assert (found.pid, found.ours) == (os.getpid(), False)
    assert str(os.getpid()) in str(found)
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        assert holder(server.getsockname()[1]) is not None
        assert refusal("::1", server.getsockname()[1]) is not None


def test_an_address_of_another_machine() -> None:
    """192.0.2.1 is nobody's (RFC 5737), a name under .invalid neither."""
    error = refusal("192.0.2.1", 8080)
    assert error is not None
    assert error.errno == errno.EADDRNOTAVAIL
    assert refusal("nowhere.invalid", 8080) is not None


def test_one_of_ours(tmp_path: Path) -> None:
    """A server of ours is known by its command line."""
    config = tmp_path / "config.toml"
    config.write_text("[server]\nport = 0\n[admin]\nport = 0\n[providers.demo]\n")
    command = [sys.executable, "-m", "aigw", "serve", "--config", str(config), "--data-dir", str(tmp_path / "data")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            port = int(server.stderr.readline().rpartition(":")[2])
            found = holder(port)
        finally:
            server.terminate()
            server.communicate(timeout=20)
    assert found is not None
    assert (found.pid, found.name, found.ours) == (server.pid, "aigw serve", True)
