from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import pytest

from aigw.config.control_socket import LONGEST, address_of, socket_path


@pytest.mark.parametrize("name", ["short", "l" * 100, "中" * 60])
def test_any_directory_has_an_address(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket can be bound and reached however long the path is; nothing of the way there stays behind."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    data_dir = tmp_path / name
    data_dir.mkdir()
    path = socket_path(data_dir)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as caller:
        with address_of(path) as address:
            assert len(os.fsencode(address)) <= LONGEST
            listener.bind(address)
        listener.listen()
        assert path.is_socket()
        with address_of(path) as address:
            caller.connect(address)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_a_relative_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the one below the working directory, also by the detour."""
    monkeypatch.chdir(tmp_path)
    deep = Path("a" * 60) / ("b" * 60)
    deep.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener, address_of(socket_path(deep)) as address:
        listener.bind(address)
    assert (tmp_path / deep / "control.sock").is_socket()
