"""The comparison: every contestant under the same load, round by round in turn, so that a noisy machine is noisy for all."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import msgspec
import uvloop

from bench import wire
from bench.contestants import Command, Contestant, Starter
from bench.environment import CACHE, ROOT
from bench.load import Streams, run_streams, run_wrk, same_answer, wait_for_answer
from bench.processes import BenchError, Child, free_port

INTERVAL = 0.02  # seconds between two events of a stream
CONNECTIONS = 32


class Load(msgspec.Struct, frozen=True):
    """How much of everything. Durations are whole seconds (wrk's grain)."""

    rounds: int = 5
    seconds: int = 4  # of requests, per contestant and round
    latency_seconds: int = 2  # of requests at one connection
    streams: int = 100
    chunks: int = 200


class Round(msgspec.Struct, frozen=True):
    """One contestant in one round: CPU microseconds of the whole process tree; added latency in microseconds."""

    request_us: float
    requests_per_second: float
    chunk_us: float
    late_p99_ms: float
    added_p50_us: float
    added_p99_us: float


class Result(msgspec.Struct):
    """One contestant: its rounds, and its memory in bytes."""

    name: str
    version: str
    idle: int = 0
    loaded: int = 0
    served: int = 0  # requests and streams it answered
    records: int | None = None  # exchanges it has on record itself
    rounds: list[Round] = []

    def median(self, field: str) -> float:
        return float(statistics.median(getattr(one, field) for one in self.rounds))

    def spread(self, field: str) -> tuple[float, float]:
        values = [getattr(one, field) for one in self.rounds]
        return min(values), max(values)

    def ratio(self, other: Result, field: str) -> tuple[float, float, float]:
        """Median, lowest and highest of the per-round ratios to *other*."""
        ratios = [getattr(mine, field) / getattr(theirs, field) for mine, theirs in zip(self.rounds, other.rounds, strict=True)]
        return statistics.median(ratios), min(ratios), max(ratios)


class Comparison(msgspec.Struct):
    """What a run found. `direct` is the upstream itself at one connection: p50 and p99 in microseconds."""

    load: Load
    results: list[Result]
    direct_p50_us: float = 0.0
    direct_p99_us: float = 0.0

    def named(self, name: str) -> Result | None:
        return next((result for result in self.results if result.name == name), None)


def start_upstream(stack: ExitStack, folder: Path, interval: float = INTERVAL) -> int:
    """The mock provider in a process of its own; its port."""
    port = free_port()
    command = [sys.executable, "-m", "bench.upstream", str(port), str(interval)]
    child = stack.enter_context(Child("upstream", command, log=folder / f"upstream-{port}.log", cwd=ROOT))
    child.wait_for_port(port)
    return port


def start(stack: ExitStack, name: str, starter: Starter, upstream: int, folder: Path, wrapper: Command = ()) -> Contestant:
    """A contestant that answers, with the upstream's answer."""
    home = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder))
    contestant = starter(upstream, home, wrapper)
    stack.enter_context(contestant.child)
    contestant.child.wait_for_port(contestant.port, patience=120.0)
    try:
        answer = wait_for_answer(contestant.port, contestant.key)
    except BenchError as error:
        raise BenchError(f"{name}: {error}\n{contestant.child.tail()}") from None
    if not same_answer(answer):
        raise BenchError(f"{name} does not pass the upstream's answer on: {answer[:800]!r}")
    return contestant


def workspace(stack: ExitStack) -> Path:
    """A folder that is gone when *stack* ends. On disk, not in memory: records are to cost what they cost."""
    CACHE.mkdir(exist_ok=True)
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="run-", dir=CACHE)))


def compare(starters: dict[str, Starter], load: Load) -> Comparison:
    """Start everybody, load them in turn, weigh them."""
    with ExitStack() as stack:
        folder = workspace(stack)
        body = folder / "question.json"
        body.write_bytes(wire.question())
        upstream = start_upstream(stack, folder)
        contestants = {name: start(stack, name, starter, upstream, folder) for name, starter in starters.items()}
        results = {name: Result(name, one.version) for name, one in contestants.items()}
        time.sleep(1.0)  # what a start leaves behind settles
        for name, one in contestants.items():
            results[name].idle = one.child.resident()
            results[name].served += 1 + run_wrk(one.port, one.key, body, connections=CONNECTIONS, seconds=1).requests  # warm
        direct_p50, direct_p99 = [], []
        for number in range(load.rounds):
            say(f"round {number + 1} of {load.rounds}")
            direct = run_wrk(upstream, "sk-direct", body, connections=1, seconds=load.latency_seconds)
            direct_p50.append(direct.p50)
            direct_p99.append(direct.p99)
            for name, one in contestants.items():
                one_round, served = _round(one, body, load, direct.p50, direct.p99)
                results[name].rounds.append(one_round)
                results[name].served += served
        for name, one in contestants.items():
            results[name].loaded = one.child.resident()
        for name, one in contestants.items():
            if one.count_records:
                one.child.stop(patience=30.0)
                results[name].records = one.count_records()
        return Comparison(load, list(results.values()), statistics.median(direct_p50), statistics.median(direct_p99))


def _round(one: Contestant, body: Path, load: Load, direct_p50: float, direct_p99: float) -> tuple[Round, int]:
    before = one.child.cpu()
    requests = run_wrk(one.port, one.key, body, connections=CONNECTIONS, seconds=load.seconds)
    request_us = (one.child.cpu() - before) / requests.requests * 1e6
    before = one.child.cpu()
    streams = measure_streams(one, load)
    chunk_us = (one.child.cpu() - before) / streams.chunks * 1e6
    alone = run_wrk(one.port, one.key, body, connections=1, seconds=load.latency_seconds)
    return (
        Round(
            request_us=request_us,
            requests_per_second=requests.requests / requests.seconds,
            chunk_us=chunk_us,
            late_p99_ms=streams.late_percentile(99),
            added_p50_us=alone.p50 - direct_p50,
            added_p99_us=alone.p99 - direct_p99,
        ),
        requests.requests + streams.streams + alone.requests,
    )


def measure_streams(one: Contestant, load: Load) -> Streams:
    """The stream load, every byte checked. Raises BenchError when a stream was not whole."""
    count = max(1, round(load.streams * one.load))
    ideal = load.chunks * INTERVAL
    streams = uvloop.run(
        run_streams(
            one.port,
            one.key,
            streams=count,
            chunks=load.chunks,
            interval=INTERVAL,
            exact=one.exact,
            patience=ideal * 5 + 20,
        )
    )
    if streams.problems or streams.wrong:
        raise BenchError(
            f"{one.child.name}: {streams.wrong} of {count} streams were altered; {streams.problems[:3]}\n{one.child.tail()}"
        )
    return streams


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
