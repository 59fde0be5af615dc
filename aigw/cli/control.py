"""Asking the running server: HTTP on its control socket, with the standard library alone (the answer is there in 2 ms, where an
HTTP library takes 100 ms to import)."""

from __future__ import annotations

import errno
import json
import socket
import time
from pathlib import Path
from typing import Any

from aigw.config.control_socket import address_of, socket_path


def ask(data_dir: Path, path: str = "/state", *, method: str = "GET", timeout: float = 2.0) -> dict[str, Any] | None:
    """What the server of *data_dir* answers to *path*: GET /state, POST /reload, POST /drain; None when no server runs there.

    *timeout* (seconds) is for all of it. Raises OSError, with the socket as its file, when the server does not answer in time
    or not as it should, and when this user may not ask it.
    """
    place = socket_path(data_dir)
    deadline = time.monotonic() + timeout
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        try:
            with address_of(place) as address:
                connection.connect(address)
            connection.sendall(f"{method} {path} HTTP/1.0\r\nhost: aigw\r\ncontent-length: 0\r\n\r\n".encode())
            answer = b""
            while block := connection.recv(65536):
                answer += block
                connection.settimeout(max(0.001, deadline - time.monotonic()))
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):  # never there, or left by a dead process
            return None
        except TimeoutError:
            raise OSError(errno.ETIMEDOUT, f"the server did not answer within {timeout:g} s", str(place)) from None
        except ConnectionError:  # it ended while it was asked
            return None
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(place)) from None
    if not answer:
        return None
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1:2]
    try:
        value = json.loads(body) if status == [b"200"] else None
    except ValueError:
        value = None
    if not isinstance(value, dict):
        shown = status[0].decode("ascii", "replace") if status else "no HTTP"
        raise OSError(errno.EPROTO, f"the server answered {method} {path} with {shown}; is it another version?", str(place))
    return value
