from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aigw.cli.control import ask
from aigw.config.control_socket import socket_path


@contextmanager
def answering(data_dir: Path, answer: bytes | None) -> Iterator[list[bytes]]:
    """Something that listens there and says *answer*, or nothing at all. Yields what it was asked."""
    heard: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(socket_path(data_dir)))
        listener.listen()
        listener.settimeout(5)
        over = threading.Event()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                heard.append(connection.recv(4096))
                if answer is None:
                    over.wait(5)
                else:
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield heard
        finally:
            over.set()
            thread.join()


def test_an_answer(tmp_path: Path) -> None:
    """JSON in, a dict out; the question is plain HTTP."""
    body = json.dumps({"pid": 1, "name": "中"}).encode()
    with answering(tmp_path, b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n" + body) as heard:
        assert ask(tmp_path, "/reload", method="POST") == {"pid": 1, "name": "中"}
    assert heard[0].startswith(b"POST /reload HTTP/1.0\r\n")


def test_nobody_is_there(tmp_path: Path) -> None:
    """No directory, no socket, a dead process's socket, one that ends while it is asked: None each time."""
    assert ask(tmp_path / "nowhere") is None
    assert ask(tmp_path) is None
    (tmp_path / "file").touch()
    assert ask(tmp_path / "file") is None
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(socket_path(tmp_path)))
    assert ask(tmp_path) is None
    socket_path(tmp_path).unlink()
    with answering(tmp_path, b""):
        assert ask(tmp_path) is None


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "did not answer within 0.2 s"),
        (b"HTTP/1.0 404 Not Found\r\n\r\nno", "answered GET /state with 404; is it another version"),
        (b"HTTP/1.0 200 OK\r\n\r\n[1]", "answered GET /state with 200"),
        (b"\x16\x03\x01", "with no HTTP"),
    ],
)
def test_an_answer_that_is_none(tmp_path: Path, answer: bytes | None, message: str) -> None:
    """It hangs, or speaks another language: an error that names the socket."""
    with answering(tmp_path, answer), pytest.raises(OSError, match=message) as caught:
        ask(tmp_path, timeout=0.2)
    assert caught.value.filename == str(socket_path(tmp_path))


def test_it_costs_no_imports() -> None:
    """Asking loads neither asyncio nor ssl nor an HTTP library."""
    script = "import sys, aigw.cli.control; print(*{'asyncio', 'ssl', 'aiohttp', 'http.client', 'rich'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
