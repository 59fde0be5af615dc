"""Serving does not depend on the database: no valid request is refused because of it, and no record is lost or doubled.

A real server, a real PostgreSQL that is stopped as a crash would, and a SQLite file that somebody else has locked.
"""

from __future__ import annotations

import contextlib
import http.client
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest

from tests.e2e.world import DEMO, HELLO, Gateway, ask, eventually
from tests.servers import APP, Postgres

CALLERS = 4


class Load:
    """Some callers that ask all the time; what they were answered, by status."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._ended = threading.Event()
        self.ids: list[str] = []
        self.statuses: Counter[int] = Counter()
        self.failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(CALLERS)]

    def _ask(self) -> None:
        headers = self._gateway.headers()
        connection = http.client.HTTPConnection("127.0.0.1", self._gateway.port, timeout=60)
        try:
            while not self._ended.wait(0.005):
                answer = ask(connection, HELLO, headers=headers)
                self.statuses[answer.status] += 1
                self.ids.append(answer.id)
        except BaseException as error:  # noqa: BLE001 - shown at the end
            self.failures.append(error)
        finally:
            connection.close()

    def begin(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(60)

    def __enter__(self) -> Self:
        return self.begin()

    def __exit__(self, *_: object) -> None:
        self.end()
        assert not self.failures

    def more(self, requests: int) -> None:
        """Wait until that many more were answered."""
        target = len(self.ids) + requests
        eventually(lambda: len(self.ids) >= target or self.failures, within=60)


@pytest.fixture
def server() -> Iterator[Postgres]:
    """One that the test may stop."""
    with Postgres("max_connections=14", "superuser_reserved_connections=3") as server:
        yield server


def first(gateway: Gateway) -> int:
    """Ask until the key is known there and written down for a start without the database; how often that was."""
    asked = 1
    while gateway.ask(HELLO).status != 200:
        asked += 1
        assert asked < 500
        time.sleep(0.02)
    cache, key_id = gateway.data_dir / "consumers.cache", gateway.key.split("-")[2].encode()
    eventually(lambda: cache.exists() and key_id in cache.read_bytes(), within=30)
    return asked


def gateway_on(folder: Path, url: str, more: str = "") -> Gateway:
    return Gateway(folder, f'{DEMO}[storage]\nurl = "env:DATABASE_URL"\n{more}', DATABASE_URL=url)


def kept(server: Postgres, url: str) -> tuple[int, int, int]:
    """Records, different ones, and what the sums say."""
    database = url.rpartition("/")[2]
    query = (
        "SELECT count(*), count(DISTINCT id), (SELECT sum(requests) FROM aigw.rollup WHERE dimension = 'all'), "
        "(SELECT sum(requests) FROM aigw.combination WHERE span = 24) FROM aigw.record_line"
    )
    records, different, rolled_up, combined = (int(number or 0) for number in server.psql(query, database).split("|"))
    assert rolled_up == combined
    return records, different, rolled_up


def all_kept(server: Postgres, url: str, requests: int) -> None:
    """Each once, in the records and in the sums, and nothing waits."""
    eventually(lambda: kept(server, url)[0] >= requests, within=60, every=0.2)
    assert kept(server, url) == (requests, requests, requests)


@pytest.mark.parametrize("seconds", [2.0, pytest.param(60.0, marks=pytest.mark.long)])
def test_postgresql_stops_under_load(tmp_path: Path, server: Postgres, seconds: float) -> None:
    """Every request is answered 200 all the while; every record is there once afterwards; metrics and /readyz say the truth."""
    url = server.fresh()
    gateway = gateway_on(tmp_path, url).start()
    gateway.key = gateway.create_key("alice")["key"]
    asked = first(gateway)
    assert gateway.metrics()["aigw_store_up"] == 1
    with Load(gateway) as load:
        load.more(100)
        server.stop()
        stopped = time.monotonic()
        eventually(lambda: gateway.metrics()["aigw_store_up"] == 0)
        ready = gateway.ask(None, "/readyz", method="GET")
        assert (ready.status, ready.json["status"]) == (200, "ready")
        assert "away" in ready.json["database"]
        while time.monotonic() < stopped + seconds:
            load.more(50)
        server.start()
        eventually(lambda: gateway.metrics()["aigw_store_up"] == 1, within=30)
        load.more(100)
    assert set(load.statuses) == {200}
    assert len(set(load.ids)) == len(load.ids)
    all_kept(server, url, len(load.ids) + asked)
    assert "database" not in gateway.ask(None, "/readyz", method="GET").json
    assert gateway.metrics()["aigw_records_lost_total"] == 0
    gateway.stop()
    assert not list((gateway.data_dir / "journal").iterdir())


@pytest.mark.long
def test_postgresql_stops_answering(tmp_path: Path, server: Postgres) -> None:
    """Connections stay open and nothing comes back, as behind a broken switch: the same."""
    url = server.fresh()
    gateway = gateway_on(tmp_path, url).start()
    gateway.key = gateway.create_key("alice")["key"]
    asked = first(gateway)
    with Load(gateway) as load:
        load.more(100)
        server.freeze()
        try:
            eventually(lambda: gateway.metrics()["aigw_store_up"] == 0, within=60)
            load.more(500)
        finally:
            server.freeze(thaw=True)
        eventually(lambda: gateway.metrics()["aigw_store_up"] == 1, within=60)
        load.more(100)
    assert set(load.statuses) == {200}
    all_kept(server, url, len(load.ids) + asked)
    gateway.stop()


@pytest.mark.long
def test_kill_while_the_database_comes_and_goes(tmp_path: Path, server: Postgres) -> None:
    """kill -9 under load, the database just back from a crash, three times: whatever was answered is there, once."""
    url = server.fresh()
    gateway = gateway_on(tmp_path, url).start()
    gateway.key = gateway.create_key("alice")["key"]
    first(gateway)
    answered: set[str] = set()
    for pause in (0.2, 0.6, 1.0):
        load = Load(gateway).begin()
        load.more(150)
        server.stop()
        load.more(150)
        server.start()
        time.sleep(pause)  # anywhere between the first look at the database and the last record in it
        gateway.kill()
        load.end()
        assert set(load.statuses) == {200}
        answered |= set(load.ids)
        gateway.start()
    database = url.rpartition("/")[2]
    eventually(lambda: answered <= set(server.psql("SELECT id FROM aigw.record_line", database).split()), within=60, every=0.3)
    gateway.stop()
    records, different, counted = kept(server, url)
    assert records == different == counted


def test_postgresql_is_away_at_start(tmp_path: Path, server: Postgres) -> None:
    """A server that knew its consumers still does; one that never did refuses nobody's key, says so, and recovers by itself."""
    url = server.fresh()
    gateway = gateway_on(tmp_path / "one", url).start()
    gateway.key = gateway.create_key("alice")["key"]
    first(gateway)
    gateway.stop()
    server.stop()

    gateway.start()
    assert [gateway.ask(HELLO).status for _ in range(20)] == [200] * 20
    assert gateway.ask(HELLO, key="sk-aigw-unknown").status == 503  # it may have been made since
    assert gateway.ask(None, "/readyz", method="GET").status == 200

    other = gateway_on(tmp_path / "two", url, '[consumers.ci]\nkey = "the-key-of-ci"\n').start()
    assert other.ask(HELLO, key=gateway.key).status == 503
    assert other.ask(HELLO, key="the-key-of-ci").status == 200
    third = gateway_on(tmp_path / "three", url).start()
    ready = third.ask(None, "/readyz", method="GET")
    assert (ready.status, ready.json["status"]) == (503, "the consumer keys could not be read yet")
    doctor = third.aigw("doctor", "--offline")
    assert "cannot be reached" in doctor.stdout
    third.stop()

    server.start()
    eventually(lambda: other.ask(HELLO, key=gateway.key).status == 200, within=30)
    eventually(lambda: gateway.ask(HELLO, key="sk-aigw-unknown").status == 401, within=30)
    gateway.stop()
    other.stop()
    records = int(server.psql("SELECT count(*) FROM aigw.record WHERE status = '200'", url.rpartition("/")[2]))
    assert records == 1 + 20 + 1 + 1


@pytest.mark.long
def test_no_connection_is_left(tmp_path: Path, server: Postgres) -> None:
    """Others have taken all of PostgreSQL's connections, ours among them: nobody is refused, nothing is lost."""
    url = server.fresh()
    gateway = gateway_on(tmp_path, url).start()
    gateway.key = gateway.create_key("alice")["key"]
    asked = first(gateway)
    with Load(gateway) as load, crowded(server):
        eventually(lambda: thrown_out(server) and gateway.metrics()["aigw_store_up"] == 0, within=60, every=0.1)
        load.more(200)
    assert set(load.statuses) == {200}
    all_kept(server, url, len(load.ids) + asked)
    gateway.stop()


def thrown_out(server: Postgres) -> bool:
    """Whether PostgreSQL had room for somebody who ends our connections."""
    try:
        server.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'aigw'")
    except AssertionError:  # those who are still being asked for their password take room, too
        return False
    return True


@contextmanager
def crowded(server: Postgres) -> Iterator[None]:
    """Somebody takes each connection as soon as it is free, but for those kept for superusers."""
    ended = threading.Event()

    def sit() -> None:
        while not ended.is_set():
            with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
                server.psql("SELECT pg_sleep(1)", user=APP)

    sitting = [threading.Thread(target=sit, daemon=True) for _ in range(40)]
    for thread in sitting:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in sitting:
            thread.join(60)


@pytest.mark.long
def test_a_locked_sqlite_file(tmp_path: Path) -> None:
    """Another program holds the file from before the start until long after: the same."""
    gateway = Gateway(tmp_path, DEMO).start()
    gateway.key = gateway.create_key("alice")["key"]
    asked = first(gateway)
    gateway.stop()
    with contextlib.closing(sqlite3.connect(gateway.database, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        gateway.start()
        with Load(gateway) as load:
            load.more(200)
        ready = gateway.ask(None, "/readyz", method="GET")
        assert "away" in ready.json["database"]
        other.execute("ROLLBACK")
    assert set(load.statuses) == {200}
    requests = len(load.ids) + asked
    eventually(lambda: len(gateway.query("SELECT 1 FROM record_line")) >= requests, within=60)
    gateway.stop()
    assert gateway.query("SELECT count(*), count(DISTINCT id) FROM record_line") == [(requests, requests)]
    assert gateway.query("SELECT sum(requests) FROM rollup WHERE dimension = 'all'") == [(requests,)]


def test_a_full_journal_refuses_where_that_is_wanted(tmp_path: Path, server: Postgres) -> None:
    """503, gateway_overloaded, while the database is away and there is no room; served again when it is back."""
    url = server.fresh()
    gateway = gateway_on(tmp_path, url, 'journal = 20_000\njournal_full = "refuse"\n').start()
    gateway.key = gateway.create_key("alice")["key"]
    served = first(gateway)
    eventually(lambda: kept(server, url)[0] == served)
    server.stop()
    while (answer := gateway.ask(HELLO)).status == 200:
        served += 1
        assert served < 500
    assert answer.status == 503
    assert answer.headers["x-aigw-error"] == "gateway_overloaded"
    assert answer.headers["retry-after"] == "5"
    ready = gateway.ask(None, "/readyz", method="GET")
    assert (ready.status, ready.json["status"]) == (503, "the journal is full, and the database takes no records")
    assert gateway.metrics()["aigw_journal_full"] == 1
    server.start()
    eventually(lambda: gateway.ask(None, "/readyz", method="GET").status == 200, within=30)
    assert gateway.ask(HELLO).status == 200
    all_kept(server, url, served + 1)
    gateway.stop()


def test_an_edit_is_live_at_once_on_every_node(tmp_path: Path, server: Postgres) -> None:
    """A key that was made or revoked with one node's command holds on the others, long before the next look."""
    url = server.fresh()
    nodes = [gateway_on(tmp_path / name, url).start() for name in ("one", "two", "three")]
    made = nodes[0].create_key("alice")
    for node in nodes:
        node.key = made["key"]
        eventually(lambda node=node: node.ask(HELLO).status == 200, within=5)
    assert nodes[1].aigw("keys", "revoke", "alice", "--yes").returncode == 0
    time.sleep(1)
    for node in nodes:
        assert node.ask(HELLO).status == 401
        node.stop()
