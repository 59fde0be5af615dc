"""Providers and proxies on loopback, each in threads of its own: what a doctor may meet."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

ANSWERS = {
    "sk-good": (200, {"object": "list", "data": [{"id": "one"}, {"id": "two"}]}),
    "sk-good-too": (200, {"object": "list", "data": [{"id": "one"}]}),
    "sk-poor": (402, {"error": {"message": "Insufficient Balance", "type": "unknown_error", "code": "invalid_request_error"}}),
    "sk-busy": (429, {"error": {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}}),
}
REFUSED = (401, {"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}})


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    ahead = 0.0
    answer = 0  # of a proxy: the status of CONNECT, 0 to go on to `to`
    to: tuple[str, int] | None = None
    login = ""
    seen: list[str]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever refuses our certificate or hangs up is no error of ours."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002 - its name there

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string((timestamp or time.time()) + self.server.ahead)

    def do_HEAD(self) -> None:
        self.server.seen.append(f"{self.command} {self.path}")
        if self._refused():
            return
        self.send_response(404)
        self.send_header("content-length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.server.seen.append(f"{self.command} {self.path}")
        if self._refused():
            return
        key = self.headers.get("authorization", "").removeprefix("Bearer ")
        status, body = ANSWERS.get(key, REFUSED)
        if urlsplit(self.path).path != "/v1/models":
            status, body = 404, {}
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _refused(self) -> bool:
        """Of a proxy: whether it answers itself."""
        login = self.headers.get("proxy-authorization", "")
        status = 407 if self.server.login and login != self.server.login else self.server.answer
        if not status:
            return False
        self.send_response(status)
        if status == 407:
            self.send_header("proxy-authenticate", 'Basic realm="company"')
        self.send_header("content-length", "0")
        self.end_headers()
        self.close_connection = True
        return True

    def do_CONNECT(self) -> None:
        self.server.seen.append(f"CONNECT {self.path}")
        if self._refused():
            return
        host, _, port = self.path.rpartition(":")
        with socket.create_connection(self.server.to or (host, int(port)), 5) as far:
            self.send_response(200)
            self.end_headers()
            self.wfile.flush()

            def copy(source: socket.socket, target: socket.socket) -> None:
                with contextlib.suppress(OSError):
                    while block := source.recv(65536):
                        target.sendall(block)
                for end in (source, target):
                    with contextlib.suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)

            back = threading.Thread(target=copy, args=(far, self.connection), daemon=True)
            back.start()
            copy(self.connection, far)
            back.join(5)
        self.close_connection = True


@contextlib.contextmanager
def provider(*, tls: ssl.SSLContext | None = None, ahead: float = 0.0) -> Iterator[_Server]:
    """An OpenAI-shaped provider (see ANSWERS for its keys), whose clock is *ahead* by so many seconds."""
    with _running(tls) as server:
        server.ahead = ahead
        yield server


@contextlib.contextmanager
def proxy(*, answer: int = 0, login: str = "", to: tuple[str, int] | None = None) -> Iterator[_Server]:
    """A proxy that answers everything with *answer*, or wants a *login*, or leads where it is asked to, or to *to*."""
    with _running(None) as server:
        server.answer, server.login, server.to = answer, login, to
        yield server


@contextlib.contextmanager
def _running(tls: ssl.SSLContext | None) -> Iterator[_Server]:
    server = _Server(("127.0.0.1", 0), _Handler)
    server.seen = []
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@contextlib.contextmanager
def deaf() -> Iterator[int]:
    """A port where connections are taken and never answered."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def closed() -> int:
    """A port where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
