"""The hottest functions of aigw under load, as py-spy samples them: where to look before and after a change."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import msgspec

from bench import wire
from bench.comparison import CONNECTIONS, Load, measure_streams, start, start_upstream, workspace
from bench.contestants import Starter
from bench.environment import ROOT, private_venv
from bench.load import run_wrk
from bench.processes import BenchError, Child

SECONDS = 6
SAMPLES_PER_SECOND = 500
SHOWN = 45


class Profile(msgspec.Struct, frozen=True):
    """CPU microseconds per `unit` (request or event) by function: by itself, and with what it called. Shares of samples times
    the CPU that was spent, the sampler's own disturbance included. What holds for nearly every sample (the runner) is left
    out of the second list."""

    name: str
    unit: str
    samples: int
    us_each: float
    alone: list[tuple[float, str]]
    with_calls: list[tuple[float, str]]


def find_hot_functions(
    name: str, starter: Starter, *, native: bool = False, question: int = wire.QUESTION_BYTES
) -> list[Profile]:
    """One profile of requests, one of streams, of one contestant in Python. *native* shows C functions as well (and slows
    what it looks at); *question* is the size of a request in bytes."""
    spy = private_venv("py-spy", ["--require-hashes", "-r", str(ROOT / "bench" / "py-spy.lock")]) / "bin" / "py-spy"
    with ExitStack() as stack:
        folder = workspace(stack)
        body = folder / "question.json"
        body.write_bytes(wire.question(question))
        upstream = start_upstream(stack, folder)
        one = start(stack, name, starter, upstream, folder)
        run_wrk(one.port, one.key, body, connections=CONNECTIONS, seconds=1)
        load = Load(chunks=SECONDS * 50)

        def requests() -> int:
            return run_wrk(one.port, one.key, body, connections=CONNECTIONS, seconds=SECONDS).requests

        def streams() -> int:
            return measure_streams(one, load).chunks

        return [
            _sample(spy, one.child, folder, name, "request", native, requests),
            _sample(spy, one.child, folder, name, "event", native, streams),
        ]


def _sample(spy: Path, child: Child, folder: Path, name: str, unit: str, native: bool, load: Callable[[], int]) -> Profile:
    out = folder / "samples.txt"
    out.unlink(missing_ok=True)
    command: list[str | Path] = [
        spy, "record", "--pid", str(child.pid), "--format", "raw", "--function", "--output", out,
        "--rate", str(SAMPLES_PER_SECOND), "--duration", str(SECONDS), *(["--native"] if native else ["--nonblocking"]),
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as sampler:
        try:
            before = child.cpu()
            us_each = 1e6 / load()
            us_each *= child.cpu() - before
            said, _ = sampler.communicate(timeout=SECONDS + 30)
        finally:
            sampler.kill()
    if sampler.returncode or not out.exists():
        raise BenchError(f"py-spy failed: {said[-1000:]}")
    alone: Counter[str] = Counter()
    with_calls: Counter[str] = Counter()
    for line in out.read_text(errors="replace").split("\n"):
        stack, _, count = line.rpartition(" ")
        if not count.isdecimal():  # without stopping the process a sample may be torn, and a name be anything
            continue
        frames = stack.split(";")
        alone[frames[-1]] += int(count)
        for frame in set(frames):
            with_calls[frame] += int(count)
    samples = alone.total()
    if not samples:
        raise BenchError("py-spy saw nothing run")

    def cost(counter: Counter[str]) -> list[tuple[float, str]]:
        return [(count / samples * us_each, function) for function, count in counter.most_common()]

    inner = Counter({function: count for function, count in with_calls.items() if count < 0.6 * samples})
    return Profile(name, unit, samples, us_each, cost(alone)[:SHOWN], cost(inner)[:SHOWN])


def show_hot_functions(profiles: list[list[Profile]]) -> None:
    for profile in (profile for of_one in profiles for profile in of_one):
        print(f"\n{profile.name}: {profile.us_each:.0f} us of CPU per {profile.unit}, {profile.samples} samples")
        print(f"  {'us by itself':<66}  us with what it calls")
        for (mine, function), (whole, caller) in zip(profile.alone, profile.with_calls, strict=False):
            print(f"  {mine:6.1f}  {function[:56]:<56}  {whole:6.1f}  {caller[:60]}")
