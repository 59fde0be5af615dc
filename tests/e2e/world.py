"""A real `aigw serve`, in a process and a folder of its own, and a plain HTTP client to ask it with."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from aigw.exchange import Attempt, Record

T = TypeVar("T")

DEMO = "[providers.demo]\n"

HELLO = {"model": "demo", "messages": [{"role": "user", "content": "hello"}]}

TROUBLE = re.compile(r"Traceback|Exception ignored|never retrieved|Task was destroyed|Warning:|nobody caught")
"""What must not be found on a server's stderr, whatever was done to it."""


def eventually(look: Callable[[], T], within: float = 10.0, every: float = 0.02) -> T:
    """What *look* returns as soon as it is true; fails when that takes too long."""
    deadline = time.monotonic() + within
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {within} s: {look}"
        time.sleep(every)
    return found


class Answer(NamedTuple):
    """One HTTP answer. `cut`: its connection ended before it was whole."""

    status: int
    headers: dict[str, str]
    body: bytes
    cut: bool = False

    @property
    def id(self) -> str:
        return self.headers["x-request-id"]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        return self.json["error"]  # type: ignore[no-any-return]

    @property
    def events(self) -> list[bytes]:
        """Of a stream: its events without the empty line behind each."""
        return [event for event in self.body.split(b"\n\n") if event]


class Gateway:
    """One `aigw serve`. `base` is what stands in its config besides the ports; the folder survives stop and start."""

    def __init__(self, folder: Path, config: str = DEMO, *, server: str = "", **environment: str) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.config = folder / "config.toml"
        self._server = server
        folder.mkdir(parents=True, exist_ok=True)
        self.write_config(config)
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "AIGW_DATA_DIR": str(self.data_dir),
            "AIGW_CONFIG": str(self.config),
            "COLUMNS": "100",
            "TZ": "UTC",
            "PYTHONWARNINGS": "error",
        } | environment
        self.lines: list[str] = []
        self.port = self.admin_port = 0
        self.key = ""
        self._ended = False  # as it was told to
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    # its life

    def write_config(self, config: str) -> None:
        """In one step, as a careful editor does."""
        fresh = self.config.with_suffix(".fresh")
        fresh.write_text(f"[server]\nport = 0\n{self._server}\n[admin]\nport = 0\n{config}")
        fresh.chmod(0o600)
        fresh.replace(self.config)

    def start(self, *flags: str) -> Gateway:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "aigw", "serve", *flags],
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self._ended = False
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        begin = len(self.lines)
        self._reader.start()
        self.port = int(self.said(r"listening on http://\S+:(\d+)", begin)[1])
        self.admin_port = int(self.said(r"metrics at http://\S+:(\d+)/", begin)[1])
        return self

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self.lines.append(line.rstrip("\n"))

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process is not None
        return self._process

    def said(self, pattern: str, begin: int = 0, within: float = 15.0) -> re.Match[str]:
        """The first line of stderr, from number *begin* on, in which *pattern* is found; waits for it."""

        def look() -> re.Match[str] | None:
            found = next((found for line in self.lines[begin:] if (found := re.search(pattern, line))), None)
            assert found or self.process.poll() is None or self._alive_reader(), "\n".join(self.lines)
            return found

        return eventually(look, within)

    def _alive_reader(self) -> bool:
        return self._reader is not None and self._reader.is_alive()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def stop(self, within: float = 20.0) -> int:
        """SIGTERM; the exit code."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.wait(within)

    def wait(self, within: float = 20.0) -> int:
        code = self.process.wait(within)
        self._ended = True
        assert self._reader is not None
        self._reader.join(5)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.wait()

    def close(self) -> None:
        """The end of the test: it must still be there, able to stop by itself, and have kept its calm."""
        if self._process is not None and not self._ended:
            assert self._process.poll() is None, f"the server died ({self._process.returncode}):\n" + "\n".join(
                self.lines[-20:]
            )
            try:
                code = self.stop()
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError("the server did not stop:\n" + "\n".join(self.lines[-20:])) from None
            assert code == 0, "\n".join(self.lines[-20:])
        self.assert_calm()

    def assert_calm(self) -> None:
        trouble = [line for line in self.lines if TROUBLE.search(line)]
        assert not trouble, "\n".join(self.lines[-60:])

    # its commands

    def aigw(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Another `aigw` command in the same folder."""
        return subprocess.run(
            [sys.executable, "-m", "aigw", *arguments],
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def create_key(self, name: str, *flags: str) -> dict[str, Any]:
        done = self.aigw("keys", "create", name, "--json", *flags)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)  # type: ignore[no-any-return]

    def stats(self, by: str = "model", *flags: str) -> dict[str, Any]:
        done = self.aigw("stats", "--json", "--by", by, *flags)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)  # type: ignore[no-any-return]

    # asking it

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self,
        body: Any = None,
        path: str = "/v1/chat/completions",
        *,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        port: int | None = None,
        timeout: float = 30.0,
    ) -> Answer:
        """One request on a connection of its own. *body* is bytes, or something that becomes JSON; *key* None is the
        gateway's own, "" is none."""
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=timeout)
        try:
            return ask(connection, body, path, method=method, headers=self.headers(headers, key))
        finally:
            connection.close()

    def headers(self, more: Mapping[str, str] | None = None, key: str | None = None) -> dict[str, str]:
        key = self.key if key is None else key
        found = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
        return {name: value for name, value in (found | dict(more or {})).items() if value is not None}

    def connect(self, timeout: float = 15.0) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)

    def exchange(self, data: bytes, *, timeout: float = 15.0, half_close: bool = False) -> bytes:
        """Send bytes, read until the server closes (or *timeout*)."""
        with self.connect(timeout) as raw:
            with contextlib.suppress(OSError):  # the server may have seen enough before the end
                raw.sendall(data)
                if half_close:
                    raw.shutdown(socket.SHUT_WR)
            return read_all(raw)

    def metrics(self) -> dict[str, float]:
        """Every sample by its name and labels, as written."""
        answer = self.ask(None, "/metrics", method="GET", port=self.admin_port)
        assert answer.status == 200
        lines = (line.rpartition(" ") for line in answer.body.decode().splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}

    # what it keeps

    @property
    def database(self) -> Path:
        return self.data_dir / "aigw.db"

    def query(self, sql: str, parameters: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self.database, timeout=10)) as connection:
            return connection.execute(sql, tuple(parameters)).fetchall()

    def records(self, where: str = "1", parameters: Iterable[Any] = ()) -> list[Record]:
        """What the store holds now, oldest first."""
        names = ", ".join(f'"{name}"' for name in Record.__struct_fields__)
        rows = self.query(f"SELECT {names} FROM record WHERE {where} ORDER BY at", parameters)
        return [Record(**dict(zip(Record.__struct_fields__, row, strict=True))) for row in rows]

    def journalled(self) -> list[Record]:
        """What the journal holds that the store may not have yet."""
        lines = [line for path in (self.data_dir / "journal").glob("*.journal") for line in path.read_bytes().splitlines()]
        return [msgspec.json.decode(line, type=Record) for line in lines]

    def record(self, request_id: str, within: float = 10.0) -> Record:
        """The one record of *request_id*, from the store, or from the journal on its way there."""

        def look() -> list[Record]:
            found = self.records("id = ?", (request_id,))
            return found or [record for record in self.journalled() if record.id == request_id]

        found = eventually(look, within)
        assert len(found) == 1
        return found[0]

    def attempts(self, request_id: str) -> list[Attempt]:
        return msgspec.json.decode(self.record(request_id).attempts, type=list[Attempt])


def ask(
    connection: http.client.HTTPConnection,
    body: Any = None,
    path: str = "/v1/chat/completions",
    *,
    method: str = "POST",
    headers: Mapping[str, str],
) -> Answer:
    """One request on *connection*, which stays open when the server keeps it open."""
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    connection.request(method, path, body, dict(headers))
    response = connection.getresponse()
    found = {name.lower(): value for name, value in response.getheaders()}
    try:
        return Answer(response.status, found, response.read())
    except http.client.IncompleteRead as error:
        return Answer(response.status, found, error.partial, cut=True)
    except ConnectionError:
        return Answer(response.status, found, b"", cut=True)


def read_all(raw: socket.socket) -> bytes:
    """Until the other side closes."""
    blocks = []
    try:
        while block := raw.recv(65536):
            blocks.append(block)
    except (TimeoutError, ConnectionResetError):
        pass
    return b"".join(blocks)


def parse(data: bytes) -> Iterator[Answer]:
    """The answers in a recorded connection, one after the other."""
    while data:
        head, separator, data = data.partition(b"\r\n\r\n")
        assert separator, f"half a head: {head[:200]!r}"
        line, *fields = head.split(b"\r\n")
        status = int(line.split(b" ")[1])
        headers = {name.decode().lower(): value.decode() for name, _, value in (field.partition(b": ") for field in fields)}
        if status == 100:
            yield Answer(status, headers, b"")
            continue
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while True:
                size, separator, data = data.partition(b"\r\n")
                if not separator or len(data) < int(size, 16) + 2:
                    yield Answer(status, headers, body + data, cut=True)
                    return
                length = int(size, 16)
                body, data = body + data[:length], data[length + 2 :]
                if not length:
                    break
        else:
            length = int(headers["content-length"]) if "content-length" in headers else len(data)
            body, data = data[:length], data[length:]
        yield Answer(status, headers, body)
