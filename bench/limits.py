"""The promises that are no average: what must hold for one aigw worker at its edges. Each check is a figure beside its goal.

The checks look from outside, over sockets and /proc, as an operator would; the same load on the upstream alone stands
beside it where the machine could be at fault.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import msgspec
import uvloop

from bench import wire
from bench.comparison import CONNECTIONS, INTERVAL, say, start, start_upstream, workspace
from bench.contestants import STARTERS, Aigw, start_aigw
from bench.environment import ROOT
from bench.load import Caller, Streams, head, run_streams, run_wrk, wait_for_answer
from bench.processes import BenchError
from bench.table import megabytes, show_table


class Finding(msgspec.Struct, frozen=True):
    """One promise: the figure that was measured, the goal, whether it is met, and what else is worth knowing."""

    name: str
    figure: float
    unit: str
    goal: str
    met: bool
    detail: str = ""


# ---- streams -------------------------------------------------------------------------------------------------------------


def check_pace(stack: ExitStack, folder: Path) -> list[Finding]:
    """300 streams, an event every 20 ms, keep pace in one worker: never one event behind."""
    streams, chunks = 300, 250
    upstream = start_upstream(stack, folder)
    one = start(stack, "aigw", start_aigw, upstream, folder)

    def run(port: int) -> Streams:
        return uvloop.run(
            run_streams(
                port,
                one.key,
                streams=streams,
                chunks=chunks,
                interval=INTERVAL,
                open_within=1.0,
                patience=chunks * INTERVAL * 4,
            )
        )

    alone = run(upstream)
    before = one.child.cpu()
    through = run(one.port)
    share = (one.child.cpu() - before) / through.seconds
    late = through.late_percentile(99)
    whole = not through.problems and not through.wrong
    detail = (
        f"p50 {through.late_percentile(50):.1f}, max {max(through.late):.1f} ms; "
        f"without aigw p99 {alone.late_percentile(99):.1f}, max {max(alone.late):.1f} ms; "
        f"{share:.0%} of one core; {through.wrong} altered, {len(through.problems)} failed"
    )
    return [Finding("300 streams at 20 ms: lateness p99", late, "ms", "<= 20", whole and late <= INTERVAL * 1000, detail)]


def check_exact(stack: ExitStack, folder: Path) -> list[Finding]:
    """2,000 streams at once, more than a worker can pace, arrive byte for byte."""
    streams, chunks = 2000, 100
    upstream = start_upstream(stack, folder)
    one = start(stack, "aigw", start_aigw, upstream, folder)
    result = uvloop.run(
        run_streams(one.port, one.key, streams=streams, chunks=chunks, interval=INTERVAL, open_within=2.0, patience=120.0)
    )
    bad = result.wrong + len(result.problems)
    detail = (
        f"{result.chunks:,} events in {result.seconds:.1f} s; {megabytes(one.child.resident())} MB; {result.problems[:2] or ''}"
    )
    return [Finding("2,000 streams: altered or failed", bad, "streams", "0", bad == 0, detail)]


# ---- large requests ------------------------------------------------------------------------------------------------------


def check_large_body(stack: ExitStack, folder: Path) -> list[Finding]:
    """A request of 200 KB costs at most 0.5 ms more than one of 300 bytes: CPU, and added latency at one connection."""
    upstream = start_upstream(stack, folder)
    one = start(stack, "aigw", start_aigw, upstream, folder)
    bare = start(stack, "nginx", STARTERS["nginx"], upstream, folder)
    bodies = {
        "small": wire.question(),
        "one text": wire.question(200_000),
        "400 messages": wire.question(200_000, messages=400),
    }
    files = {}
    for name, body in bodies.items():
        files[name] = folder / f"{name}.json"
        files[name].write_bytes(body)
    cpu: dict[str, list[float]] = {name: [] for name in bodies}
    bare_cpu: dict[str, list[float]] = {name: [] for name in bodies}
    added: dict[str, list[float]] = {name: [] for name in bodies}
    for _ in range(3):
        for name, file in files.items():
            for contestant, spent in ((one, cpu), (bare, bare_cpu)):
                before = contestant.child.cpu()
                result = run_wrk(contestant.port, contestant.key, file, connections=CONNECTIONS, seconds=2)
                spent[name].append((contestant.child.cpu() - before) / result.requests * 1e6)
            direct = run_wrk(upstream, "sk-direct", file, connections=1, seconds=1)
            added[name].append(run_wrk(one.port, one.key, file, connections=1, seconds=1).p50 - direct.p50)
    findings = []
    for name in list(bodies)[1:]:
        for what, values in (("CPU", cpu), ("latency", added)):
            more = statistics.median(values[name]) - statistics.median(values["small"])
            detail = f"{statistics.median(values[name]):,.0f} us against {statistics.median(values['small']):,.0f}"
            if values is cpu:
                theirs = statistics.median(bare_cpu[name]) - statistics.median(bare_cpu["small"])
                detail += f"; a bare nginx spends {theirs:,.0f} us more"
            findings.append(Finding(f"200 KB ({name}): {what} more", more / 1000, "ms", "<= 0.5", more <= 500, detail))
    return findings


def check_blocking(stack: ExitStack, folder: Path) -> list[Finding]:
    """While one caller posts 20 MB, again and again, small requests of another are answered within 50 ms."""
    findings = []
    upstream = start_upstream(stack, folder)
    one = start(stack, "aigw", start_aigw, upstream, folder)
    for name, messages in (("one text", 1), ("20,000 messages", 20_000)):
        body = wire.question(20_000_000, messages=messages)
        quiet = _latencies_while(one.port, one.key, None)
        loud = _latencies_while(one.port, one.key, head(one.key, len(body)) + body)
        control = _latencies_while(upstream, one.key, head(one.key, len(body)) + body)
        worst = max(loud)
        detail = (
            f"p99 {_percentile(loud, 99):.1f} ms of {len(loud):,} small requests; "
            f"max {max(quiet):.1f} ms without the large ones, {max(control):.1f} ms at the upstream alone"
        )
        findings.append(Finding(f"20 MB posted ({name}): longest wait", worst, "ms", "<= 50", worst <= 50, detail))
    return findings


def _latencies_while(port: int, key: str, large: bytes | None, times: int = 8) -> list[float]:
    """Milliseconds of each small request while *large* is posted *times* over (None: for two seconds)."""
    ended = threading.Event()
    failures: list[Exception] = []

    def post() -> None:
        try:
            caller = Caller(port, key)
            for _ in range(times if large else 0):
                caller.send(cast("bytes", large))
            caller.close()
            if not large:
                time.sleep(2.0)
        except (OSError, BenchError) as error:
            failures.append(error)
        finally:
            ended.set()

    caller, question, latencies = Caller(port, key), wire.question(), []
    poster = threading.Thread(target=post, name="poster")
    poster.start()
    try:
        while not ended.is_set():
            started = time.perf_counter()
            caller.ask(question)
            latencies.append((time.perf_counter() - started) * 1000)
    finally:
        poster.join(60)
        caller.close()
    if failures:
        raise BenchError(f"posting 20 MB failed: {failures[0]}")
    return latencies


def _percentile(values: list[float], percent: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * percent / 100))]


# ---- memory and start ----------------------------------------------------------------------------------------------------


def check_idle_memory(stack: ExitStack, folder: Path) -> list[Finding]:
    """Started, one request answered, nothing to do: at most 60 MB resident."""
    one = start(stack, "aigw", start_aigw, start_upstream(stack, folder), folder)
    time.sleep(3.0)
    resident = one.child.resident()
    detail = f"{resident / 2**20:.1f} MiB; {one.child.threads()} threads, {one.child.open_files()} open files"
    return [Finding("resident when idle", resident / 1e6, "MB", "<= 60", resident <= 60e6, detail)]


def check_growth(stack: ExitStack, folder: Path) -> list[Finding]:
    """100,000 requests, one client in ten hanging up early: memory, threads and open files stay what they were."""
    total, steps, allowed = 100_000, 5, 2e6  # bytes: what the allocator may round up
    upstream = start_upstream(stack, folder, interval=0.002)
    one = start(stack, "aigw", start_aigw, upstream, folder)
    run_seconds = 0.0
    resident, files, threads = [], [], []
    for step in range(steps):
        say(f"{total * step // steps:,} requests")
        started = time.monotonic()
        uvloop.run(_churn(one.port, one.key, total // steps, seed=step))
        run_seconds += time.monotonic() - started
        time.sleep(1.5)  # hung-up streams end
        resident.append(one.child.resident())
        files.append(one.child.open_files())
        threads.append(one.child.threads())
    grown = resident[-1] - resident[0]
    # the upstream pool may keep what a burst opened; a leak grows with each step
    whole = grown <= allowed and files[-1] <= files[0] + 40 and threads[-1] <= threads[0] + 2
    detail = (
        f"MB after each {total // steps:,}: {', '.join(f'{size / 1e6:.1f}' for size in resident)}; open files {files}, "
        f"threads {threads}; {total / run_seconds:,.0f} requests/s"
    )
    return [Finding("growth from 20,000 to 100,000 requests", grown / 1e6, "MB", f"<= {allowed / 1e6:.0f}", whole, detail)]


class _ChurnCall(asyncio.Protocol):
    """A connection whose holder decides when to hang up. `news` ends with the first bytes received, or with all of the
    answer when it is *whole* that is waited for."""

    def __init__(self, request: bytes, loop: asyncio.AbstractEventLoop) -> None:
        self.request, self.loop = request, loop
        self.news: asyncio.Future[None] = loop.create_future()
        self.received = b""
        self.whole = self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if self.request:
            self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.received += data
        if not self.news.done() and (not self.whole or self.received.endswith(wire.ANSWER)):
            self.news.set_result(None)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost = True
        if not self.news.done():
            self.news.set_result(None)

    async def ask(self, request: bytes) -> None:
        """Send *request* and take its answer. Raises BenchError when it is no good one."""
        self.received, self.news, self.whole = b"", self.loop.create_future(), True
        if not self.lost:
            self.transport.write(request)
            try:
                await asyncio.wait_for(self.news, 30)
            except TimeoutError:
                raise BenchError(f"no whole answer within 30 s: {self.received[:500]!r}") from None
        if self.lost or not self.received.startswith(b"HTTP/1.1 200"):
            raise BenchError(
                f"a request was not answered{' (connection closed)' if self.lost else ''}: {self.received[:500]!r}"
            )


async def _churn(port: int, key: str, total: int, seed: int) -> None:
    """*total* requests over 64 callers; every tenth opens a connection and hangs up: half-way through its request, while it
    waits, or in the middle of a stream - politely or with a reset."""
    loop = asyncio.get_running_loop()
    small, stream = wire.question(), wire.question(stream=True, chunks=50)
    ask, ask_stream = head(key, len(small)) + small, head(key, len(stream)) + stream
    left = iter(range(total))
    dice = random.Random(seed)

    async def hang_up(way: int) -> None:
        request = (ask[: len(ask) // 2], ask, ask_stream)[way % 3]
        _, call = await loop.create_connection(lambda: _ChurnCall(request, loop), "127.0.0.1", port)
        if way % 3 == 2:
            await asyncio.wait_for(call.news, 30)
        else:
            await asyncio.sleep(dice.random() * 0.002)
        if way % 2:
            call.transport.abort()
        else:
            call.transport.close()

    async def caller() -> None:
        _, call = await loop.create_connection(lambda: _ChurnCall(b"", loop), "127.0.0.1", port)
        for number in left:
            if number % 10 == 9:
                await hang_up(dice.randrange(6))
                continue
            await call.ask(ask)
        call.transport.close()

    await asyncio.gather(*(caller() for _ in range(64)))


def check_start(stack: ExitStack, folder: Path) -> list[Finding]:
    """From nothing to the first answer within 0.6 s of CPU."""
    upstream = start_upstream(stack, folder)
    house = Aigw(upstream, folder)
    key = house.create_key()
    cpu, wall = [], []
    for _ in range(6):
        started = time.monotonic()
        with house.serve() as child:
            child.wait_for_port(house.port)
            wait_for_answer(house.port, key)
            wall.append(time.monotonic() - started)
            cpu.append(child.cpu())
    cpu, wall = cpu[1:], wall[1:]  # the first one may have compiled
    middle = statistics.median(cpu)
    detail = f"{min(cpu):.2f}-{max(cpu):.2f} in {len(cpu)} starts; {statistics.median(wall):.2f} s on the clock"
    return [Finding("first answer after start", middle, "s CPU", "<= 0.6", middle <= 0.6, detail)]


# ---- records -------------------------------------------------------------------------------------------------------------


def check_stats(stack: ExitStack, folder: Path) -> list[Finding]:
    """`aigw stats` over 1,000,000 records within one second, start of the command included."""
    rows = 1_000_000
    house = Aigw(start_upstream(stack, folder), folder)
    house.create_key()  # makes the store
    say(f"writing {rows:,} records through the store")
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "bench.fill_store", str(folder / "data"), str(rows)], cwd=ROOT, env=house.env, check=False
    )
    if done.returncode:
        raise BenchError("filling the store failed")
    filled = time.monotonic() - started
    questions = [
        ["--since", "30d"],
        ["--since", "30d", "--by", "consumer"],
        ["--since", "30d", "--by", "day", "--tz", "Asia/Shanghai"],
        ["--since", "30d", "--by", "hour"],
        ["--since", "30d", "--by", "consumer,model"],
        ["--since", "30d", "--by", "day,consumer", "--tz", "Asia/Shanghai"],
        ["--since", "30d", "--by", "key,provider", "--model", "model-3"],
        ["--since", "30d", "--by", "day", "--consumer", "team-7", "--tz", "Asia/Shanghai"],
    ]
    slowest, counted, details = 0.0, rows, []
    for question in questions:
        times = []
        for _ in range(3):
            began = time.monotonic()
            answer = json.loads(house.run("stats", "--json", *question))
            times.append(time.monotonic() - began)
        if not answer["only"]:
            counted = min(counted, answer["total"]["requests"])
        slowest = max(slowest, statistics.median(times))
        details.append(f"{' '.join(question)}: {statistics.median(times):.2f} s")
    size = megabytes((folder / "data" / "aigw.db").stat().st_size)
    detail = f"{'; '.join(details)}; {counted:,} counted; filled in {filled:.0f} s, {size} MB"
    return [Finding("stats over 1,000,000 records", slowest, "s", "< 1", slowest < 1 and counted == rows, detail)]


CHECKS: dict[str, Callable[[ExitStack, Path], list[Finding]]] = {
    "pace": check_pace,
    "exact": check_exact,
    "large-body": check_large_body,
    "blocking": check_blocking,
    "idle-memory": check_idle_memory,
    "growth": check_growth,
    "start": check_start,
    "stats": check_stats,
}


def check_limits(names: list[str]) -> list[Finding]:
    """Those named, or all; each with an aigw and an upstream of its own."""
    unknown = set(names) - set(CHECKS)
    if unknown:
        raise BenchError(f"unknown limits {', '.join(sorted(unknown))}; there are {', '.join(CHECKS)}")
    findings: list[Finding] = []
    for name in names or CHECKS:
        say(f"checking {name}")
        with ExitStack() as stack:
            findings += CHECKS[name](stack, workspace(stack))
    return findings


def show_limits(findings: list[Finding]) -> None:
    print(f"one worker, {os.cpu_count()} cores\n")
    rows = [[one.name, f"{one.figure:,.2f} {one.unit}", one.goal, "met" if one.met else "MISSED"] for one in findings]
    show_table(["", "measured", "goal", ""], rows)
    print()
    for one in findings:
        print(f"{one.name}: {one.detail}")
