"""What is Redis's own: one round trip, several nodes, faults. What every counter must do: tests/contracts/test_counters.py."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from math import inf

import pytest

from aigw.errors import InternalError, StoreError
from aigw.storage import redis as module
from aigw.storage.base import Claim
from aigw.storage.redis import RedisCounters
from tests.servers import Redis, free_port

BEAT = 0.1


async def until(look: Callable[[], object], within: float = 20.0) -> None:
    deadline = time.monotonic() + within
    while not look():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def idle(counters: RedisCounters) -> bool:
    """Whether all that was settled has arrived."""
    return not (counters._batches or counters._queue or counters._sending)


@pytest.fixture
def own() -> Iterator[Redis]:
    """A server that the test may stop."""
    with Redis() as server:
        yield server


@asynccontextmanager
async def nodes(
    url: str, number: int, lost: str = "local", beat: float = BEAT, patience: float = 0.5
) -> AsyncIterator[list[RedisCounters]]:
    """Several of them, known to each other."""
    made = [RedisCounters(url, lost=lost, patience=patience, beat=beat) for _ in range(number)]
    try:
        for node in made:
            await node.read(["nothing"])
        await until(lambda: not made[0].up or all(node.nodes == number for node in made))
        yield made
    finally:
        for node in made:
            await node.close()


def budget(amount: int, limit: int, key: str = "usd:alice:day-1") -> Claim:
    return Claim(key, amount, limit, ends=inf)


def calls(redis: Redis) -> dict[str, int]:
    found = re.findall(r"cmdstat_(\S+):calls=(\d+)", redis.ask("INFO", "commandstats"))
    return {name: int(number) for name, number in found}


async def test_one_round_trip_for_a_hold_and_none_awaited_after_it(redis: Redis) -> None:
    """However many claims; settlements go out together, in the next write."""
    async with nodes(redis.url, 1) as [counters]:
        await counters.prime({"usd:alice:day-1": (0, inf), "usd:g:team:day-1": (0, inf)})
        claims = [
            Claim("rpm:alice", 1, 10**6),
            Claim("rpm:g:team", 1, 10**6),
            Claim("tpm:alice", 100, 10**9),
            Claim("concurrency:alice", 1, 10**6, 0),
            budget(5, 10**9),
            budget(5, 10**9, "usd:g:team:day-1"),
        ]
        assert (await counters.hold(claims, time.time())).unknown == ["usd:alice:day-1"]  # it lives with its group's now
        await counters.prime({"usd:alice:day-1": (0, inf)})
        line = counters._line
        assert line is not None
        before, trips = calls(redis)["evalsha"], line.trips
        permits = [await counters.hold(claims, time.time()) for _ in range(50)]
        beats = calls(redis)["evalsha"] - before - 50
        assert line.trips - trips <= 50 + beats
        assert beats < 20
        for permit in permits:
            counters.settle(permit, {"usd:alice:day-1": 3, "usd:g:team:day-1": 3, "tpm:alice": 80})
        assert await counters.read(["usd:alice:day-1", "usd:g:team:day-1"]) == [150, 150]
        assert calls(redis)["evalsha"] - before - 50 - beats < 20


async def test_a_budget_holds_across_nodes(redis: Redis) -> None:
    """A thousand at once on three nodes for a hundred: exactly a hundred."""
    async with nodes(redis.url, 3, beat=2.0, patience=10.0) as three:  # nobody is given up, however slow this machine is
        await three[0].prime({"usd:alice:day-1": (0, inf)})
        claims = [budget(10, 1000), Claim("concurrency:alice", 1, 1000, 0)]
        asked = [(node, node.hold(claims, time.time())) for _ in range(334) for node in three]
        permits = await asyncio.gather(*(hold for _, hold in asked))
        passed = [(node, permit) for (node, _), permit in zip(asked, permits, strict=True) if permit.refused is None]
        assert len(passed) == 100
        for node, permit in passed:
            node.settle(permit, {"usd:alice:day-1": 7})
        for node in three:
            await until(lambda node=node: idle(node))
        assert [await node.read(["usd:alice:day-1"]) for node in three] == [[700]] * 3


async def test_what_a_dead_node_held_is_free_again(redis: Redis) -> None:
    """Its budgets and places, once its heartbeat is missed; a node that was only asleep settles rightly all the same."""
    async with nodes(redis.url, 2) as [one, two]:
        await one.prime({"usd:alice:day-1": (0, inf)})
        claims = [budget(400, 1000), Claim("concurrency:alice", 1, 2, 0)]
        first, second = await one.hold(claims, time.time()), await one.hold(claims, time.time())
        assert (await two.hold(claims, time.time())).refused is not None
        one._tasks[0].cancel()  # no sign of life any more; its line stays open, as that of a stopped process does
        await asyncio.gather(*one._tasks, return_exceptions=True)
        await until(lambda: two.nodes == 1)
        deadline = time.monotonic() + 20
        while await two.read(["usd:alice:day-1"]) != [0]:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        assert (await two.hold(claims, time.time())).refused is None
        one._tasks = []
        one._tried.clear()
        await one.read(["usd:alice:day-1"])  # awake
        one.settle(first, {"usd:alice:day-1": 90})
        one.release(second)
        assert await one.read(["usd:alice:day-1"]) == [490]
        left = (await two.hold([Claim("concurrency:alice", 1, 2, 0)], time.time())).left
        assert list(left) == [0]


async def test_a_cancelled_hold_holds_nothing(redis: Redis) -> None:
    """Whoever asked has gone: what is granted to them is given back."""
    async with nodes(redis.url, 1) as [counters]:
        await counters.prime({"usd:alice:day-1": (0, inf)})
        tasks = [asyncio.create_task(counters.hold([budget(10, 1000)], time.time())) for _ in range(20)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await until(lambda: idle(counters))
        assert await counters.read(["usd:alice:day-1"]) == [0]


async def test_a_clock_that_is_off(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nodes whose clocks are an hour apart share one minute."""
    async with nodes(redis.url, 1) as [right]:
        claim = Claim("rpm:alice", 1, 10)
        for _ in range(10):
            assert (await right.hold([claim], time.time())).refused is None
        true = time.time
        monkeypatch.setattr(module.time, "time", lambda: true() + 3600)
        wrong = RedisCounters(redis.url, beat=BEAT)
        try:
            permit = await wrong.hold([claim], module.time.time())
            assert permit.refused == claim
            assert permit.retry_after < 125
        finally:
            await wrong.close()


async def test_redis_stops_and_comes_back_as_it_was(own: Redis) -> None:
    """Paused: each node has its share meanwhile; what was settled is added once, whatever was under way, and holds that Redis
    finds when it wakes are not taken any more."""
    async with nodes(own.url, 2, beat=1.0) as [one, two]:  # nobody is given up, however slow this machine is
        await one.prime({"usd:alice:day-1": (100, inf)})
        open_permit = await one.hold([budget(50, 1100)], time.time())
        await two.hold([budget(50, 1100)], time.time())
        own.signal(signal.SIGSTOP)
        one.settle(open_permit, {"usd:alice:day-1": 30})
        permits = [await one.hold([budget(10, 1100)], time.time()) for _ in range(100)]
        passed = [permit for permit in permits if permit.refused is None]
        assert 40 <= len(passed) <= 50  # a half of what was left
        assert not one.up
        for permit in passed[:-1]:
            one.settle(permit, {"usd:alice:day-1": 2})
        own.signal(signal.SIGCONT)
        await until(lambda: one.up and two.up)
        one.settle(passed[-1], {"usd:alice:day-1": 1})
        expected = 100 + 30 + 50 + 2 * (len(passed) - 1) + 1
        await until(lambda: idle(one))
        assert await two.read(["usd:alice:day-1"]) == [expected]
        assert (await two.hold([budget(1100 - expected, 1100)], time.time())).refused is None
        assert (await two.hold([budget(1, 1100)], time.time())).refused is not None


async def test_redis_comes_back_empty(own: Redis) -> None:
    """Periods are unknown, so they are primed from the ledger, which has what was used meanwhile; nothing is added twice."""
    async with nodes(own.url, 1) as [counters]:
        await counters.prime({"usd:alice:day-1": (100, inf)})
        before = await counters.hold([budget(50, 1000)], time.time())
        own.stop()
        await until(lambda: not counters.up)
        meanwhile = await counters.hold([budget(50, 1000)], time.time())
        assert meanwhile.refused is None
        counters.settle(meanwhile, {"usd:alice:day-1": 20})
        own.start()
        await until(lambda: counters.up)
        assert (await counters.hold([budget(50, 1000)], time.time())).unknown == ["usd:alice:day-1"]
        await counters.prime({"usd:alice:day-1": (120, inf)})
        counters.settle(before, {"usd:alice:day-1": 7})
        assert await counters.read(["usd:alice:day-1"]) == [127]


async def test_nobody_there_at_the_start() -> None:
    """The three ways to go on; and it is found when it comes."""
    url = f"redis://127.0.0.1:{free_port()}/0"
    async with nodes(url, 1) as [local]:
        assert (await local.hold([budget(1, 2)], time.time())).unknown == ["usd:alice:day-1"]
        await local.prime({"usd:alice:day-1": (1, inf)})
        assert (await local.hold([budget(1, 2)], time.time())).refused is None
        assert (await local.hold([budget(1, 2)], time.time())).refused is not None
    async with nodes(url, 1, "open") as [opened]:
        with pytest.raises(StoreError):
            await opened.hold([budget(1, 2)], time.time())
    async with nodes(url, 1, "refuse") as [refuses]:
        with pytest.raises(InternalError) as raised:
            await refuses.hold([budget(1, 2)], time.time())
        assert (raised.value.status, raised.value.retry_after) == (503, 5)


async def test_too_much_waits_for_redis(own: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only sums are kept then, and they are right; what was held is given back by others, for the old name is dead."""
    monkeypatch.setattr(module, "QUEUED", 50)
    async with nodes(own.url, 1) as [counters]:
        await counters.prime({"usd:alice:day-1": (0, inf)})
        permits = [await counters.hold([budget(10, 10**6)], time.time()) for _ in range(120)]
        own.signal(signal.SIGSTOP)
        await until(lambda: not counters.up)
        for permit in permits:
            counters.settle(permit, {"usd:alice:day-1": 3})
        assert len(counters._queue) <= 51
        own.signal(signal.SIGCONT)
        await until(lambda: counters.up)
        deadline = time.monotonic() + 20
        while await counters.read(["usd:alice:day-1"]) != [360]:
            assert time.monotonic() < deadline, await counters.read(["usd:alice:day-1"])
            await asyncio.sleep(0.05)


async def test_all_keys_of_a_hold_share_a_slot() -> None:
    """A cluster takes everything that is asked: it would refuse keys of two slots in one call."""
    with Redis("--cluster-enabled", "yes") as server:
        server.ask("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        deadline = time.monotonic() + 20
        while "cluster_state:ok" not in server.ask("CLUSTER", "INFO"):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        async with nodes(server.url, 1) as [counters]:
            claims = [
                Claim("rpm:alice", 1, 10),
                Claim("rpm:g:a {team}", 1, 10),
                budget(1, 10),
                budget(1, 10, "usd:g:a {team}:day-1"),
                Claim("concurrency:bob", 1, 5, 0),
            ]
            permit = await counters.hold(claims, time.time())
            await counters.prime(dict.fromkeys(permit.unknown, (0, inf)))
            permit = await counters.hold(claims, time.time())
            assert permit.refused is None
            assert not permit.unknown
            counters.settle(permit, {"usd:alice:day-1": 4})
            assert await counters.read(["usd:alice:day-1", "usd:g:a {team}:day-1"]) == [4, 1]


async def test_no_secret_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """The address has a password in it."""
    counters = RedisCounters(f"redis://:the-password@127.0.0.1:{free_port()}/0", lost="open")
    with pytest.raises(StoreError) as raised:
        await counters.hold([Claim("rpm:a", 1, 1)], time.time())
    await counters.close()
    assert "the-password" not in str(raised.value) + caplog.text + repr(counters)
    assert "cannot be reached" in caplog.text
