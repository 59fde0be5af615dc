"""Any number of identical nodes on one PostgreSQL and one Redis: limits and budgets hold across all of them, and what one node
is told the others know. Real processes, each with a folder of its own."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from msgspec.structs import replace

from aigw.consumer import Budget, Terms
from aigw.storage.base import Store
from aigw.storage.open import open_store
from tests.e2e.far_side import FarSide, answer, completion, provider, route
from tests.e2e.test_budgets import BODY, ONE, config, pays
from tests.e2e.world import HELLO, Gateway, ask, eventually
from tests.loopback import Peer, Request
from tests.servers import Redis

T = TypeVar("T")

FLEET = "[providers.demo]\n"


class Nodes:
    """Several `aigw serve` on one database and one Redis."""

    def __init__(
        self, folder: Path, database: str, redis: str, number: int = 3, workers: int = 1, base: str = FLEET, more: str = ""
    ) -> None:
        self.database = database
        storage = f'[storage]\nurl = "env:DATABASE_URL"\ncounters = "env:REDIS_URL"\n{more}'
        self.nodes = [
            Gateway(
                folder / str(index),
                f"{base}{storage}",
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

    def create_key(self, name: str, terms: Terms | None = None) -> tuple[str, str]:
        """A consumer's id and key."""
        self.key = str(self.nodes[0].create_key(name)["key"])
        for node in self.nodes:
            node.key = self.key

        async def change(store: Store) -> str:
            consumer = await store.consumer(name)
            assert consumer is not None
            if terms is not None:
                await store.put_consumer(replace(consumer, terms=terms))
            return consumer.id

        return self.in_store(change), self.key

    def in_store(self, work: Callable[[Store], Awaitable[T]]) -> T:
        async def run() -> T:
            store = open_store(self.database, self.nodes[0].data_dir)
            try:
                return await work(store)
            finally:
                await store.close()

        return asyncio.run(run())

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
                answer = ask(connection, BODY, headers=node.headers(key=key))
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


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.long)])
def test_limits_hold_across_nodes(tmp_path: Path, postgres: str, redis: Redis, workers: int) -> None:
    """A budget for a hundred requests, and a thousand of them on three nodes: a hundred pass, and that is what was spent. The
    same for requests a minute. Redis is asked once for each, and nothing at all for what has no limits."""
    with FarSide() as far:
        far.scripts["paid"] = pays
        nodes = Nodes(tmp_path, postgres, redis.url, workers=workers, base=config(far))
        try:
            rich, rich_key = nodes.create_key("rich", Terms(budgets=(Budget(100 * ONE, "usd", "total"),)))
            _, busy_key = nodes.create_key("busy", Terms(rpm=100))
            _, free_key = nodes.create_key("free")
            nodes.start()
            nodes.all_know(rich_key)
            before = scripts(redis)
            assert storm(nodes.nodes, free_key, 60) == {200: 60}
            assert scripts(redis) - before < 60
            before = scripts(redis)
            assert storm(nodes.nodes, rich_key, 1000) == {200: 100, 429: 900}
            assert len(far.seen["paid"]) == 160
            asked = scripts(redis) - before
            assert 1000 <= asked < 1400, asked  # holds; and settlements of 100, and signs of life
            eventually(
                lambda: nodes.in_store(lambda store: store.spent([rich], 0)).get(rich, (0, 0))[0] == 100 * ONE, within=30
            )
            while time.time() % 60 > 45:  # all of it in one minute
                time.sleep(0.5)
            assert storm(nodes.nodes, busy_key, 300) == {200: 100, 429: 200}
        finally:
            nodes.close()


def scripts(redis: Redis) -> int:
    """Scripts that it ran, ever."""
    return int(re.search(r"cmdstat_evalsha:calls=(\d+)", redis.ask("INFO", "commandstats"))[1])  # type: ignore[index]


def test_a_revoked_key_is_refused_everywhere_within_a_second(tmp_path: Path, postgres: str, redis: Redis) -> None:
    """Whichever node was told."""
    nodes = Nodes(tmp_path, postgres, redis.url)
    try:
        nodes.start()
        _, key = nodes.create_key("alice")
        nodes.all_know(key)
        assert nodes.nodes[1].aigw("keys", "revoke", "alice", "--yes").returncode == 0
        time.sleep(1)
        for node in nodes.nodes:
            assert node.ask(HELLO).status == 401
    finally:
        nodes.close()


def test_redis_goes_and_comes_back(tmp_path: Path, postgres: str, own: Redis) -> None:
    """Nobody is refused for it; back and empty, budgets are read from the database: what was used before counts."""
    with FarSide() as far:
        far.scripts["paid"] = pays
        nodes = Nodes(tmp_path, postgres, own.url, 2, base=config(far))
        try:
            holder, key = nodes.create_key("rich", Terms(budgets=(Budget(100 * ONE, "usd", "total"),)))
            nodes.start()
            nodes.all_know(key)
            assert storm(nodes.nodes, key, 30, 4) == {200: 30}
            own.stop()
            assert storm(nodes.nodes, key, 20, 4) == {200: 20}
            own.start()
            for node in nodes.nodes:
                node.said("Redis began anew")
                eventually(lambda node=node: node.metrics()["aigw_counters_up"] == 1)
            assert storm(nodes.nodes, key, 100, 4) == {200: 50, 429: 50}
            eventually(lambda: nodes.in_store(lambda store: store.spent([holder], 0))[holder][0] == 100 * ONE, within=30)
        finally:
            nodes.close()


def test_a_killed_node_holds_nothing(tmp_path: Path, postgres: str, redis: Redis) -> None:
    """kill -9 with requests under way: their places are free again when its heartbeat is missed."""

    async def hangs(peer: Peer, request: Request, number: int) -> None:
        await (asyncio.sleep(600) if number < 2 else pays(peer, request, number))

    with FarSide() as far:
        far.scripts["paid"] = hangs
        nodes = Nodes(tmp_path, postgres, redis.url, 2, base=config(far))
        try:
            _, key = nodes.create_key("few", Terms(concurrency=2))
            nodes.start()
            nodes.all_know(key)
            first, second = nodes.nodes
            held = [http.client.HTTPConnection("127.0.0.1", first.port, timeout=60) for _ in range(2)]
            for connection in held:
                connection.request("POST", "/v1/chat/completions", json.dumps(BODY), first.headers(key=key))
            eventually(lambda: len(far.seen["paid"]) == 2)
            assert second.ask(BODY, key=key).status == 429
            first.kill()
            for connection in held:
                connection.close()
            eventually(lambda: second.ask(BODY, key=key).status == 200, within=60, every=0.3)
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


def test_a_key_that_must_rest_is_left_alone_by_all(tmp_path: Path, postgres: str, redis: Redis) -> None:
    """One node's 429 is enough: the others use the other key at once."""

    async def limits_the_first(peer: Peer, request: Request, number: int) -> None:
        if b".two.1." in request.headers[b"authorization"]:
            await peer.send(answer(429, {"error": {"message": "slow down"}}, "retry-after: 60"))
        else:
            await peer.send(answer(200, completion()))

    with FarSide() as far:
        far.scripts["two"] = limits_the_first
        nodes = Nodes(tmp_path, postgres, redis.url, 3, base=provider("two", far.url("two"), keys=2) + route("two"))
        try:
            _, key = nodes.create_key("alice")
            nodes.start()
            nodes.all_know(key)
            eventually(lambda: all(node.metrics().get("aigw_counters_nodes") == 3 for node in nodes.nodes), within=30)
            first, *others = nodes.nodes
            body = BODY | {"model": "two"}
            for _ in range(10):
                assert first.ask(body, key=key).status == 200
            assert any(".two.1." in request.key for request in far.seen["two"])
            resting = 'aigw_provider_keys{provider="two",state="resting"}'
            for node in others:
                eventually(lambda node=node: node.metrics().get(resting) == 1)
            asked = len(far.seen["two"])
            for node in others:
                for _ in range(10):
                    assert node.ask(body, key=key).status == 200
            assert len(far.seen["two"]) == asked + 20
        finally:
            nodes.close()


def test_a_key_in_rotation_is_never_refused(tmp_path: Path, postgres: str, redis: Redis) -> None:
    """With grace, on every node, all the while: the old one and the new one."""
    fleet = Nodes(tmp_path, postgres, redis.url, 2).start()
    try:
        _, old = fleet.create_key("alice")
        fleet.all_know(old)
        statuses: Counter[int] = Counter()
        over = threading.Event()

        def call(node: Gateway) -> None:
            while not over.is_set():
                statuses[node.ask(HELLO, key=old).status] += 1

        callers = [threading.Thread(target=call, args=(node,)) for node in fleet.nodes]
        for caller in callers:
            caller.start()
        made = json.loads(fleet.nodes[0].aigw("keys", "rotate", "alice", "--grace", "1h", "--json").stdout)
        for node in fleet.nodes:
            eventually(lambda node=node: node.ask(HELLO, key=made["key"]).status == 200, within=5)
        before = sum(statuses.values())
        eventually(lambda: sum(statuses.values()) > before + 20)
        over.set()
        for caller in callers:
            caller.join(30)
        assert set(statuses) == {200}
    finally:
        fleet.close()


def test_a_stream_asks_redis_nothing_per_chunk(tmp_path: Path, postgres: str, redis: Redis, far_side: FarSide) -> None:
    """One round trip before the provider is asked, one settlement after; a hundred chunks more add none."""

    async def play(peer: Peer, request: Request, number: int) -> None:
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        chunk = {
            "id": "c",
            "object": "chat.completion.chunk",
            "model": "m",
            "choices": [{"index": 0, "delta": {"content": "x"}}],
        }
        for _ in range(300 if number % 2 else 3):
            await peer.send(b"data: " + json.dumps(chunk).encode() + b"\n\n", 0.002)
        await peer.send(b"data: [DONE]\n\n")
        peer.close()

    far_side.scripts["p"] = play
    fleet = Nodes(tmp_path, postgres, redis.url, 1, base=provider("p", far_side.url("p")) + route("m", target="p")).start()
    try:
        _, key = fleet.create_key("alice", Terms(rpm=10_000, tpm=10**9, budgets=(Budget(10**12, "tokens", "day"),)))
        fleet.all_know(key)
        (node,) = fleet.nodes
        ask_once = {"model": "m", "stream": True, "messages": HELLO["messages"]}
        node.ask(ask_once)  # number 0; primes the budget
        counted = []
        for _ in range(2):  # 300 chunks, then 3
            before = scripts(redis)
            began = time.monotonic()
            assert node.ask(ask_once).status == 200
            took = time.monotonic() - began
            eventually(lambda: node.metrics()["aigw_records_pending"] == 0)
            time.sleep(0.3)  # settlements go in batches
            counted.append(scripts(redis) - before - int(took))  # heartbeats aside: one in two seconds
        assert max(counted) <= 6, counted
    finally:
        fleet.close()
