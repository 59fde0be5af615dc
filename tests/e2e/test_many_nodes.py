"""Any number of identical nodes on one PostgreSQL and one Redis: limits and budgets hold across all of them, and what one node
is told the others know. Real processes, each with a folder of its own."""

from __future__ import annotations

import http.client
import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aigw.storage.counters import LONGEST_SLIDING
from tests.e2e.world import HELLO, Gateway, ask, eventually
from tests.servers import Redis

FLEET = """\
[providers.demo]
[prices."demo/*"]
input = 0.0
output = 0.0
request = 0.01
"""


class Nodes:
    """Several `aigw serve` on one database and one Redis."""

    def __init__(self, folder: Path, database: str, redis: str, number: int = 3, workers: int = 1, more: str = "") -> None:
        storage = f'[storage]\nurl = "env:DATABASE_URL"\ncounters = "env:REDIS_URL"\n{more}'
        self.nodes = [
            Gateway(
                folder / str(index),
                f"{FLEET}{storage}",
                server=f"workers = {workers}\n",
                DATABASE_URL=database,
                REDIS_URL=redis,
            )
            for index in range(number)
        ]
        self.key = ""

    def start(self) -> Nodes:
        for node in self.nodes:
            node.start()
        return self

    def create_key(self, name: str, *flags: str) -> str:
        """Known to every node, and to each of its workers."""
        self.key = str(self.nodes[0].create_key(name, *flags)["key"])
        for node in self.nodes:
            node.key = self.key
        return self.key

    def all_know(self, key: str) -> None:
        for node in self.nodes:
            in_a_row = 0
            deadline = time.monotonic() + 20
            while in_a_row < 8:
                answer = node.ask(None, "/v1/models", method="GET", key=key)
                in_a_row = in_a_row + 1 if answer.status == 200 else 0
                assert time.monotonic() < deadline
                if not in_a_row:
                    time.sleep(0.05)

    def close(self) -> None:
        for node in self.nodes:
            node.close()


def storm(nodes: list[Gateway], key: str, requests: int, threads: int = 24) -> Counter[int]:
    """So many requests, spread over the nodes, as many at once as there are threads; the statuses."""
    found: Counter[int] = Counter()
    failures: list[BaseException] = []
    lock = threading.Lock()
    left = iter(range(requests))

    def run(node: Gateway) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=60)
        try:
            while True:
                with lock:
                    if next(left, None) is None:
                        return
                answer = ask(connection, HELLO, headers=node.headers(key=key))
                with lock:
                    found[answer.status] += 1
        except BaseException as error:  # noqa: BLE001 - shown at the end
            failures.append(error)
        finally:
            connection.close()

    running = [threading.Thread(target=run, args=(nodes[index % len(nodes)],), daemon=True) for index in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(120)
    assert not failures, failures[0]
    return found


@pytest.fixture
def own() -> Iterator[Redis]:
    """A Redis that the test may stop."""
    with Redis() as server:
        yield server


def limited(nodes: Nodes, name: str, consumer: str) -> str:
    """A consumer of the config, on every node."""
    key = f"sk-key-of-{name}"
    for node in nodes.nodes:
        text = node.config.read_text().partition("[providers.demo]")[2]
        node.write_config(f'[providers.demo]{text}\n[consumers.{name}]\nkey = "{key}"\n{consumer}')
    return key


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.long)])
def test_limits_hold_across_nodes(tmp_path: Path, postgres: str, redis: Redis, workers: int) -> None:
    """A budget for a hundred requests, and 900 of them on three nodes: a hundred pass. The same for requests a minute. Redis is
    asked once for each request, and settled with in the background; the sums in the database agree."""
    nodes = Nodes(tmp_path, postgres, redis.url, workers=workers)
    rich = limited(nodes, "rich", 'budgets = ["1usd/total"]\n')
    busy = limited(nodes, "busy", "rpm = 100\n")
    try:
        nodes.start()
        nodes.all_know(rich)
        assert storm(nodes.nodes, rich, 900) == {200: 100, 429: 800}
        while time.time() % LONGEST_SLIDING % 60 > 45:  # all of it in one minute
            time.sleep(0.5)
        assert storm(nodes.nodes, busy, 300) == {200: 100, 429: 200}
        spent = lambda: nodes.nodes[0].stats("consumer")  # noqa: E731
        eventually(lambda: any(row.get("requests") == 900 for row in rows(spent())), within=20, every=0.3)
    finally:
        nodes.close()


def rows(stats: dict[str, Any]) -> list[dict[str, Any]]:
    return list(stats["rows"])


def test_a_revoked_key_is_refused_everywhere_within_a_second(tmp_path: Path, postgres: str, redis: Redis) -> None:
    """Whichever node was told."""
    nodes = Nodes(tmp_path, postgres, redis.url)
    try:
        nodes.start()
        key = nodes.create_key("alice")
        nodes.all_know(key)
        assert nodes.nodes[1].aigw("keys", "revoke", "alice", "--yes").returncode == 0
        time.sleep(1)
        for node in nodes.nodes:
            assert node.ask(HELLO).status == 401
    finally:
        nodes.close()


def test_redis_goes_and_comes_back(tmp_path: Path, postgres: str, own: Redis) -> None:
    """Nobody is refused for it; back and empty, budgets are read from the database: what was used before counts."""
    nodes = Nodes(tmp_path, postgres, own.url, 2)
    key = limited(nodes, "rich", 'budgets = ["1usd/total"]\n')
    try:
        nodes.start()
        nodes.all_know(key)
        assert storm(nodes.nodes, key, 30, 4) == {200: 30}
        own.stop()
        assert storm(nodes.nodes, key, 20, 4) == {200: 20}
        own.start()
        time.sleep(4)
        assert storm(nodes.nodes, key, 100, 4) == {200: 50, 429: 50}
    finally:
        nodes.close()


def test_a_killed_node_holds_nothing(tmp_path: Path, postgres: str, redis: Redis) -> None:
    """kill -9 with requests under way: their places are free again when its heartbeat is missed."""
    nodes = Nodes(tmp_path, postgres, redis.url, 2)
    key = limited(nodes, "few", "concurrency = 2\n")
    slow = {"model": "demo", "messages": [{"role": "user", "content": "[demo] delay=60000"}], "stream": True}
    try:
        nodes.start()
        nodes.all_know(key)
        first, second = nodes.nodes
        held = [http.client.HTTPConnection("127.0.0.1", first.port, timeout=60) for _ in range(2)]
        for connection in held:
            connection.request("POST", "/v1/chat/completions", json.dumps(slow), first.headers(key=key))
        eventually(lambda: second.ask(HELLO, key=key).status == 429)
        first.process.send_signal(signal.SIGKILL)
        first.wait()
        for connection in held:
            connection.close()
        eventually(lambda: second.ask(HELLO, key=key).status == 200, within=60, every=0.3)
    finally:
        nodes.close()


def test_one_config_for_all_nodes(tmp_path: Path, postgres: str, redis: Redis) -> None:
    """Applied once, served by every node that follows the store; what would be lost is asked for; a node that starts while the
    database is away serves what it had."""
    nodes = Nodes(tmp_path, postgres, redis.url, 2, more='config = "store"\n')
    for node in nodes.nodes:
        text = node.config.read_text()
        node.write_config(text[text.index("[storage]") :])
    fleet = tmp_path / "fleet.toml"
    fleet.write_text(
        f'{FLEET}[consumers.ci]\nkey = "env:CI_KEY"\n[routes.fast]\ntargets = [{{provider = "demo", model = "demo"}}]\n'
    )
    for node in nodes.nodes:
        node.environment["CI_KEY"] = "the-key-of-ci"
    fast = HELLO | {"model": "fast"}
    try:
        nodes.start()
        first, second = nodes.nodes
        assert first.ask(None, "/readyz", method="GET").status == 503
        done = first.aigw("config", "apply", str(fleet))
        assert done.returncode == 0, done.stderr
        assert "Version 1 is applied" in done.stderr
        for node in nodes.nodes:
            eventually(lambda node=node: node.ask(fast, key="the-key-of-ci").status == 200)
        assert "Nothing to do" in first.aigw("config", "apply", str(fleet)).stderr

        fleet.write_text(f'{FLEET}[consumers.ci]\nkey = "env:CI_KEY"\n')
        done = second.aigw("config", "apply", str(fleet))
        assert done.returncode == 2
        assert "the route fast would be lost" in done.stderr
        assert first.ask(fast, key="the-key-of-ci").status == 200
        assert second.aigw("config", "apply", str(fleet), "--yes").returncode == 0
        for node in nodes.nodes:
            eventually(lambda node=node: node.ask(fast, key="the-key-of-ci").status == 404)
        assert [one["version"] for one in json.loads(first.aigw("config", "versions", "--json").stdout)] == [2, 1]
        assert first.aigw("config", "apply", "--version", "1").returncode == 0
        eventually(lambda: second.ask(fast, key="the-key-of-ci").status == 200)

        second.stop()
        second.environment["DATABASE_URL"] = "postgresql://nobody@127.0.0.1:1/none"
        second.start()
        assert second.ask(fast, key="the-key-of-ci").status == 200

        fleet.write_text('[providers.openai]\nkeys = ["sk-a-secret-of-mine"]\n')
        done = first.aigw("config", "apply", str(fleet), "--yes")
        assert done.returncode == 2
        assert "providers.openai.keys[0]: is a secret itself" in done.stderr
        assert "sk-a-secret" not in done.stderr
    finally:
        nodes.close()
