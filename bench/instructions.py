"""Instructions per request and per streamed event, counted by callgrind: repeatable where time is not.

For differences under 10 %, which no clock on a shared machine shows. The kernel's share is not in it. One connection asks
one question at a time, so that each run does the same; what the server does by the clock (polling, flushing) weighs more
than in life, since everything else is some fifty times slower here: it is measured while idle and taken off.
"""

from __future__ import annotations

import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import msgspec
import uvloop

from bench import wire
from bench.comparison import INTERVAL, say, start, start_upstream, workspace
from bench.contestants import Contestant, Starter
from bench.load import Caller, run_streams
from bench.processes import BenchError
from bench.table import show_table

WARM, REQUESTS, BLOCKS = 500, 2000, 3
EVENTS = (100, 500)  # of two streams, whose difference is the events'
IDLE_SECONDS = 4.0


class Instructions(msgspec.Struct, frozen=True):
    """Counts of one contestant. `blocks` are instructions per request of each measured block, the clock's share taken off."""

    name: str
    per_request: float
    per_event: float
    idle_per_second: float
    blocks: list[float]
    hottest: list[tuple[float, str]]  # share of a request's instructions in C functions, by themselves

    @property
    def spread(self) -> float:
        return (max(self.blocks) - min(self.blocks)) / self.per_request


class _Counter:
    """Callgrind's dumps of one process."""

    def __init__(self, pid: int, out: Path) -> None:
        self.pid, self.out, self.dumps = pid, out, 0

    def control(self, *arguments: str) -> None:
        done = subprocess.run(
            ["callgrind_control", *arguments, str(self.pid)], capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode or "Error" in done.stdout:
            raise BenchError(f"callgrind_control {' '.join(arguments)} failed: {done.stdout}{done.stderr}")

    def dump(self) -> tuple[int, Path]:
        """Instructions since the last dump, and the file that says where."""
        self.dumps += 1
        self.control("--dump")
        file = self.out.with_name(f"{self.out.name}.{self.dumps}")
        for line in file.read_text(errors="replace").splitlines():
            if line.startswith(("totals:", "summary:")):
                return int(line.split()[1]), file
        raise BenchError(f"{file} has no total")


def count_instructions(starters: dict[str, Starter]) -> list[Instructions]:
    """Each contestant under callgrind, on its own."""
    return [_count(name, starter) for name, starter in starters.items()]


def _count(name: str, starter: Starter) -> Instructions:
    with ExitStack() as stack:
        folder = workspace(stack)
        upstream = start_upstream(stack, folder)
        out = folder / "callgrind.out"
        say(f"starting {name} under callgrind")
        wrapper = [
            "env",
            "PYTHONHASHSEED=0",
            "valgrind",
            "--tool=callgrind",
            "--instr-atstart=no",
            f"--callgrind-out-file={out}",
        ]
        one = start(stack, name, starter, upstream, folder, wrapper)
        counter = _Counter(one.child.pid, out)
        counter.control("--instr=on")
        caller = Caller(one.port, one.key, timeout=60.0)
        question = wire.question()
        say("warming")
        for _ in range(WARM):
            caller.ask(question)
        counter.dump()
        time.sleep(IDLE_SECONDS)
        idle_started = time.monotonic()
        counter.dump()
        time.sleep(IDLE_SECONDS)
        idle, _ = counter.dump()
        idle_per_second = idle / (time.monotonic() - idle_started)
        blocks = []
        hottest: list[tuple[float, str]] = []
        for number in range(BLOCKS):
            say(f"block {number + 1} of {BLOCKS}: {REQUESTS} requests")
            started = time.monotonic()
            for _ in range(REQUESTS):
                caller.ask(question)
            took = time.monotonic() - started
            total, file = counter.dump()
            blocks.append((total - idle_per_second * took) / REQUESTS)
            hottest = _hottest(file)
        caller.close()
        short, long = (_stream(one, counter, events, idle_per_second) for events in EVENTS)
        per_request = sorted(blocks)[len(blocks) // 2]
        per_event = (long - short) / (EVENTS[1] - EVENTS[0])
        return Instructions(name, per_request, per_event, idle_per_second, blocks, hottest)


def _stream(one: Contestant, counter: _Counter, events: int, idle_per_second: float) -> float:
    """Instructions of one stream of *events*."""
    say(f"a stream of {events} events")
    started = time.monotonic()
    streams = uvloop.run(
        run_streams(one.port, one.key, streams=1, chunks=events, interval=INTERVAL, exact=one.exact, patience=120.0)
    )
    took = time.monotonic() - started
    total, _ = counter.dump()
    if streams.problems or streams.wrong:
        raise BenchError(f"the stream was not whole: {streams.problems}")
    return total - idle_per_second * took


def _hottest(file: Path, count: int = 25) -> list[tuple[float, str]]:
    done = subprocess.run(
        ["callgrind_annotate", "--threshold=100", str(file)], capture_output=True, text=True, timeout=120, check=False
    )
    found: list[tuple[float, str]] = []
    for line in done.stdout.splitlines():
        share, _, rest = line.partition("%)")
        if not rest or "PROGRAM TOTALS" in rest:
            continue
        function = rest.strip().rpartition(":")[2].partition(" [")
        library = Path(function[2].rstrip("]")).name
        found.append((float(share.rpartition("(")[2]), f"{function[0]} [{library}]"))
        if len(found) == count:
            break
    return found


def show_instructions(counted: list[Instructions]) -> None:
    print(
        f"callgrind: {BLOCKS} blocks of {REQUESTS} requests at one connection, streams of {EVENTS[0]} and {EVENTS[1]} events\n"
    )
    rows = [
        [
            one.name,
            f"{one.per_request:,.0f}",
            f"{one.spread:.2%}",
            f"{one.per_event:,.0f}",
            f"{one.idle_per_second:,.0f}",
        ]
        for one in counted
    ]
    show_table(["", "instructions/request", "spread of blocks", "per event", "idle, per second"], rows)
    for one in counted:
        print(f"\n{one.name}: share of a request's instructions, functions by themselves")
        for share, function in one.hottest:
            print(f"  {share:5.2f} %  {function}")
