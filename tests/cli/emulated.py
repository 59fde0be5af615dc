"""A provider on loopback for commands to talk to: real HTTP, answers by path, and a memory of what was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

KEY = "sk-good-0123456789abcdef"


class Asked(NamedTuple):
    """One request that arrived. Header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def key(self) -> str:
        return self.headers.get("authorization", "").removeprefix("Bearer ") or self.headers.get("x-api-key", "")

    @property
    def json(self) -> Any:
        return json.loads(self.body) if self.body else None


class Reply(NamedTuple):
    """What it answers: a dict or list becomes JSON, a text HTML."""

    status: int = 200
    body: Any = b""
    headers: Mapping[str, str] = {}


Answer = Reply | Callable[[Asked], Reply]

NOT_FOUND = Reply(404, {"error": {"message": "no such path", "type": "invalid_request_error", "code": None}})
BAD_KEY = Reply(401, {"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}})
NO_MONEY = Reply(402, {"error": {"message": "Insufficient Balance", "code": "invalid_request_error"}})
BUSY = Reply(429, {"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}})
PAGE = Reply(200, "<!doctype html><html><title>Welcome to nginx!</title></html>")
MODELS = Reply(200, {"object": "list", "data": [{"id": "small-1"}, {"id": "large-1"}]})


def guarded(reply: Answer, key: str = KEY, refusal: Reply = BAD_KEY) -> Callable[[Asked], Reply]:
    """*reply* for who has the key, *refusal* for the others."""

    def answer(asked: Asked) -> Reply:
        if asked.key != key:
            return refusal
        return reply(asked) if callable(reply) else reply

    return answer


class Emulated:
    """Use it as a context manager. `answers` maps "GET /v1/models" to what is answered; all else is a 404 in JSON, or
    `otherwise`."""

    def __init__(self, answers: Mapping[str, Answer] | None = None, otherwise: Answer = NOT_FOUND) -> None:
        self.answers = dict(answers or {})
        self.otherwise = otherwise
        self.asked: list[Asked] = []
        emulated = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer()

            def do_POST(self) -> None:
                self._answer()

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.command, self.path, headers, body)
                emulated.asked.append(asked)
                found = emulated.answers.get(f"{asked.method} {asked.path.partition('?')[0]}", emulated.otherwise)
                status, content, more = found(asked) if callable(found) else found
                kind = "text/html" if isinstance(content, str) else "application/json"
                if not isinstance(content, bytes):
                    content = content.encode() if isinstance(content, str) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in {"content-type": kind, "content-length": str(len(content)), **more}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.005}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.root}/v1"
