"""Real servers for tests, started on free ports and ended with the session: PostgreSQL and Redis.

Each test gets a database of its own; a test that stops the server starts one of its own (`Postgres`).
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Self

import pytest

PASSWORD = "p@ss/word:secret"  # what has to be escaped in an address


ADMIN, APP = "admin", "app"
"""The superuser, and whom aigw is: the owner of its database, and no more."""


def free_port() -> int:
    """A port that nobody listens at now."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def postgres_bin() -> Path | None:
    """Where PostgreSQL's programs are: the newest of Debian's, or wherever initdb is found."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    return Path(initdb).resolve().parent if initdb else None


class Postgres:
    """One server in a folder of its own; a context manager. It refuses to run as root, so root lends it the user `postgres`."""

    def __init__(self, *settings: str) -> None:
        found = postgres_bin()
        assert found is not None, "PostgreSQL is not installed (apt-get install postgresql)"
        self._bin = found
        runuser = shutil.which("runuser") or "/usr/sbin/runuser"  # not on everybody's PATH
        self._as = (runuser, "-u", "postgres", "--") if os.geteuid() == 0 else ()
        self._folder = Path(tempfile.mkdtemp(prefix="aigw-postgres-"))
        self._settings = settings
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._app = False
        if self._as:
            shutil.chown(self._folder, "postgres", "postgres")
        password = self._folder / "password"
        password.write_text(PASSWORD)
        if self._as:
            shutil.chown(password, "postgres", "postgres")
        self._run("initdb", "--no-sync", "-U", ADMIN, "-A", "scram-sha-256", f"--pwfile={password}", "-E", "UTF8", "--locale=C")

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as, str(self._bin / program), "-D", str(self._folder / "data"), *arguments]
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Returns when it answers."""
        log = (self._folder / "log").open("ab")
        settings = ("fsync=off", "listen_addresses=127.0.0.1", f"port={self.port}", f"unix_socket_directories={self._folder}")
        options = [part for setting in (*settings, *self._settings) for part in ("-c", setting)]
        command = [*self._as, str(self._bin / "postgres"), "-D", str(self._folder / "data"), *options]
        with log:
            self._process = subprocess.Popen(command, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while subprocess.run(
            [str(self._bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)], cwd="/", check=False
        ).returncode:
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline, (self._folder / "log").read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        """At once, as a crash would: what is committed comes back, connections break."""
        process, self._process = self._process, None
        if process is None:
            return
        main = self._folder / "data" / "postmaster.pid"
        try:
            os.kill(int(main.read_text().split()[0]), signal.SIGQUIT)
        except (FileNotFoundError, ProcessLookupError):
            process.terminate()
        process.wait(60)

    def freeze(self, *, thaw: bool = False) -> None:
        """It stops answering, and keeps its connections; *thaw*: it goes on as if nothing had been."""
        main = int((self._folder / "data" / "postmaster.pid").read_text().split()[0])
        parents = [(int(path.parent.name), path) for path in Path("/proc").glob("[0-9]*/stat")]
        children = []
        for pid, path in parents:
            try:
                if int(path.read_text().rpartition(")")[2].split()[1]) == main:
                    children.append(pid)
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended
        for pid in (main, *children):
            os.kill(pid, signal.SIGCONT if thaw else signal.SIGSTOP)
        if thaw and self._process is not None:
            self._process.send_signal(signal.SIGCONT)  # runuser stops with its child

    def url(self, database: str, **more: str) -> str:
        """The address of *database*, as a config has it."""
        from urllib.parse import quote, urlencode

        query = f"?{urlencode(more)}" if more else ""
        return f"postgresql://{APP}:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/{database}{query}"

    def psql(self, sql: str, database: str = "postgres", user: str = ADMIN) -> str:
        """What psql prints for *sql*."""
        done = subprocess.run(
            [str(self._bin / "psql"), "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-c", sql],
            env={
                "PATH": os.environ["PATH"],
                "PGHOST": "127.0.0.1",
                "PGPORT": str(self.port),
                "PGUSER": user,
                "PGPASSWORD": PASSWORD,
                "PGDATABASE": database,
            },
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def fresh(self) -> str:
        """The address of a new, empty database."""
        name = f"t{secrets.token_hex(6)}"
        if not self._app:
            self.psql(f"CREATE ROLE {APP} LOGIN PASSWORD '{PASSWORD}'")
            self._app = True
        self.psql(f"CREATE DATABASE {name} OWNER {APP}")
        return self.url(name)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """One server for all tests that do not stop it."""
    with Postgres("synchronous_commit=off", "max_connections=200") as server:
        yield server


@pytest.fixture
def postgres(postgres_server: Postgres) -> str:
    """The address of an empty database of the test's own."""
    return postgres_server.fresh()


class Redis:
    """One redis-server (or valkey-server) that keeps nothing on the disk; a context manager."""

    def __init__(self, *settings: str) -> None:
        found = shutil.which("redis-server") or shutil.which("valkey-server")
        assert found is not None, "Redis is not installed (apt-get install redis-server)"
        self._program, self._settings = found, settings
        self._folder = Path(tempfile.mkdtemp(prefix="aigw-redis-"))
        self.port = next(port for port in iter(free_port, None) if port <= 55_535)  # a cluster's own is 10,000 above
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD.replace('/', '%2F').replace('@', '%40')}@127.0.0.1:{self.port}/0"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Returns when it answers; empty."""
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder)]
        options += ["--requirepass", PASSWORD, *self._settings]
        log = (self._folder / "log").open("ab")
        with log:
            self.process = subprocess.Popen(
                [self._program, *options], cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 30
        while True:
            try:
                if self.ask("PING") == "PONG":
                    return
            except OSError:
                pass
            assert self.process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline, (self._folder / "log").read_text()
            time.sleep(0.02)

    def stop(self) -> None:
        """At once: everything it knew is gone."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait(30)

    def signal(self, number: int) -> None:
        """SIGSTOP, SIGCONT."""
        assert self.process is not None
        self.process.send_signal(number)

    def ask(self, *command: str) -> str:
        """The first line, or all of a text, that one command is answered with."""
        with closing(socket.create_connection(("127.0.0.1", self.port), 5)) as connection:
            for words in (("AUTH", PASSWORD), command):
                parts = b"".join(b"$%d\r\n%b\r\n" % (len(word.encode()), word.encode()) for word in words)
                connection.sendall(b"*%d\r\n%b" % (len(words), parts))
                with connection.makefile("rb") as file:
                    line = file.readline().decode().strip()
                    if line.startswith("$") and line != "$-1":
                        return file.read(int(line[1:])).decode()
                    if line.startswith("*"):
                        rows = [(file.readline(), file.readline().decode().strip())[1] for _ in range(int(line[1:]))]
                        return "\n".join(rows)
        return line[1:]


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    """One server for all tests that do not stop it."""
    with Redis() as server:
        yield server


@pytest.fixture
def redis(redis_server: Redis) -> Redis:
    """It, emptied."""
    redis_server.ask("FLUSHALL")
    return redis_server
