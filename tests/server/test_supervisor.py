"""What a supervisor does before there are workers; its life with them is in tests/e2e/test_workers.py."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from aigw.config.load import load_text
from aigw.server import supervisor
from aigw.server.lifecycle import CannotListenError
from aigw.server.supervisor import Supervisor


def made(tmp_path: Path, **flags: str | int) -> Supervisor:
    path = tmp_path / "config.toml"
    path.write_text("[server]\nport = 0\n[admin]\nport = 0\n[providers.demo]\n")
    return Supervisor(load_text(path.read_text(), path), tmp_path / "data", lambda line: None, flags, 2)


async def test_an_address_that_others_would_share_is_taken(tmp_path: Path) -> None:
    """Two servers at one port would each get some of the other's requests: it is refused, whoever listens there and however."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(CannotListenError, match=f"127.0.0.1:{port} is taken"):
            await made(tmp_path, port=port).run()


async def test_each_worker_has_sockets_of_its_own(tmp_path: Path) -> None:
    """At the same places, the second family too; none of them listens before its worker does."""
    one = made(tmp_path)
    one._bind()
    first, second = one._listening(), one._listening()
    assert [each.getsockname() for each in first] == [each.getsockname() for each in second]
    port = first[0].getsockname()[1]
    assert one._bound["data"][0] == f"127.0.0.1:{port}"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    for each in (*first, *second, *one._sockets):
        each.close()


def test_how_a_process_ended_is_said() -> None:
    """By the signal's name."""
    assert supervisor._ended(-9) == "was killed (SIGKILL)"
    assert supervisor._ended(3) == "ended with 3"
