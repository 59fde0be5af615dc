"""Counters that processes share: real processes, one table."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from math import inf

import pytest

from aigw.errors import StoreError
from aigw.storage.base import Claim
from aigw.storage.shared import SharedCounters, make

NOW = 1_790_000_000.0

CHILD = """
import asyncio, os, signal, sys
from math import inf
from aigw.storage.base import Claim
from aigw.storage.shared import SharedCounters
counters = SharedCounters({table}, {worker})
async def main():
{body}
asyncio.run(main())
"""


@pytest.fixture
def table() -> Iterator[int]:
    descriptor = make(4)
    yield descriptor
    os.close(descriptor)


def child(table: int, worker: int, body: str) -> subprocess.Popen[str]:
    """A process that does *body* with `counters`, as that worker."""
    text = CHILD.format(table=table, worker=worker, body="".join(f"    {line}\n" for line in body.strip().splitlines()))
    return subprocess.Popen(
        [sys.executable, "-c", text], pass_fds=(table,), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def supervisor(table: int) -> SharedCounters:
    return SharedCounters(os.dup(table), -1)


async def test_processes_never_exceed_a_limit_together(table: int) -> None:
    """Four that hold as fast as they can: exactly as many are granted as each limit allows."""
    body = """
sys.stdin.readline()
granted = 0
for _ in range(400):
    permit = await counters.hold([Claim("rpm", 1, 5000), Claim("usd", 7, 700, ends=inf)], 1.79e9)
    granted += permit.refused is None
print(granted, flush=True)
"""
    counters = supervisor(table)
    await counters.prime({"usd": (0, inf)})
    processes = [child(table, worker, body) for worker in range(4)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    granted = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert sum(granted) == 100
    assert await counters.read(["usd"]) == [700]
    await counters.close()


async def test_what_a_killed_worker_held_is_given_back(table: int) -> None:
    """200 requests under way, kill -9: gauges and budgets are as if those had never been; what others hold and what was used
    stays, and so does the rate window."""
    body = """
settled = await counters.hold([Claim("usd", 50, 10**6, ends=inf), Claim("now", 1, 10**6, 0)], 1.79e9)
counters.settle(settled, {"usd": 30})
for _ in range(200):
    await counters.hold([Claim("rpm", 1, 10**6), Claim("usd", 50, 10**6, ends=inf), Claim("now", 1, 10**6, 0)], 1.79e9)
print("held", flush=True)
sys.stdin.readline()
"""
    counters, mine = supervisor(table), SharedCounters(os.dup(table), 0)
    await counters.prime({"usd": (0, inf)})
    own = await mine.hold([Claim("usd", 11, 10**6, ends=inf), Claim("now", 1, 10**6, 0)], NOW)
    process = child(table, 3, body)
    assert line_of(process) == "held"
    assert await counters.read(["usd"]) == [30 + 11 + 200 * 50]
    process.kill()
    process.communicate(timeout=60)
    assert counters.forget(3) == 2
    assert counters.forget(3) == 0
    assert await counters.read(["usd"]) == [41]
    assert list((await mine.hold([Claim("now", 1, 3, 0), Claim("rpm", 0, 1000)], NOW)).left) == [1, 800]
    mine.settle(own, {"usd": 5})
    assert await counters.read(["usd"]) == [35]
    await mine.close()
    await counters.close()


@pytest.mark.parametrize("before", [0, 1, 2])
async def test_who_dies_half_way_leaves_nothing_behind(table: int, before: int) -> None:
    """Killed while it holds the lock and has changed some of a hold's counters: the next one finds them as they were."""
    body = f"""
await counters.prime({{"usd": (5, inf)}})
await counters.hold([Claim("now", 1, 9, 0), Claim("usd", 10, 100, ends=inf)], 1.79e9)
write, left = counters._write, [{before}]
def dying(*values):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    write(*values)
counters._write = dying
await counters.hold([Claim("now", 1, 9, 0), Claim("usd", 10, 100, ends=inf), Claim("new", 1, 9)], 1.79e9)
"""
    process = child(table, 1, body)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    counters, mine = supervisor(table), SharedCounters(os.dup(table), 0)
    assert await counters.read(["usd"]) == [15]
    assert list((await mine.hold([Claim("now", 1, 9, 0), Claim("new", 0, 9)], NOW)).left) == [7, 9]
    counters.forget(1)
    assert await counters.read(["usd"]) == [5]
    await mine.close()
    await counters.close()


async def test_a_full_table_lets_go_of_what_hurts_least() -> None:
    """Gauges nobody holds, then budgets that can be primed again, then the oldest windows; never what is held."""
    table = make(2, entries=16)
    mine = SharedCounters(table, 0)
    held = Claim("held", 1, 9, ends=inf)
    await mine.prime({"held": (3, inf)})
    await mine.hold([held, Claim("now", 1, 1, 0)], NOW)
    await mine.prime({f"usd{number}": (number, inf) for number in range(14)})
    assert (await mine.hold([Claim("rpm", 1, 1)], NOW)).refused is None
    assert (await mine.hold([Claim("rpm", 1, 1)], NOW)).refused is not None
    known = await mine.read([f"usd{number}" for number in range(14)])
    assert sum(one is None for one in known) == 1
    for number in range(40):
        assert (await mine.hold([Claim(f"rpm{number}", 1, 1)], NOW + number)).refused is None
    assert await mine.read(["held"]) == [4]
    assert (await mine.hold([Claim("now", 1, 1, 0)], NOW)).refused is not None
    for number in range(14):
        await mine.hold([Claim(f"g{number}", 1, 1, 0)], NOW)
    with pytest.raises(StoreError, match="no room"):
        await mine.hold([Claim("one more", 1, 1, 0)], NOW)
    assert await mine.read(["held"]) == [4]
    await mine.close()


async def test_a_sweep_makes_room(table: int) -> None:
    """What is over goes, whoever made it, and others count meanwhile."""
    mine, other = SharedCounters(os.dup(table), 0), SharedCounters(os.dup(table), 1)
    for number in range(2000):
        await mine.hold([Claim(f"rpm{number}", 1, 1)], NOW)
    await asyncio.gather(mine.sweep(NOW + 200), *(other.hold([Claim(f"new{n}", 1, 1)], NOW + 200) for n in range(50)))
    assert len(list(mine._taken(0, 2**20))) == 50
    await mine.close()
    await other.close()


def test_more_limits_than_fit_are_refused_in_words(table: int) -> None:
    """Nobody has so many; the counters stay whole."""

    async def main() -> None:
        mine = SharedCounters(os.dup(table), 0)
        with pytest.raises(StoreError, match="limits at once"):
            await mine.hold([Claim(f"k{n}", 1, 1) for n in range(500)], NOW)
        await mine.close()

    asyncio.run(main())
