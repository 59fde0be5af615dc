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
from bench.contestants import Contestant, Starter
from bench.environment import ROOT, private_venv
from bench.load import run_wrk
from bench.processes import BenchError

SECONDS = 6
SAMPLES_PER_SECOND = 500
SHOWN = 30


class Profile(msgspec.Struct, frozen=True):
    """Shares of the samples in which the process ran, by function: by itself, and with what it called."""

    load: str
    samples: int
    alone: list[tuple[float, str]]
    with_calls: list[tuple[float, str]]


def find_hot_functions(name: str, starter: Starter, *, native: bool = False) -> list[Profile]:
    """One profile of requests, one of streams, of one contestant in Python. *native* shows C functions as well (and slows
    what it looks at)."""
    spy = private_venv("py-spy", ["--require-hashes", "-r", str(ROOT / "bench" / "py-spy.lock")]) / "bin" / "py-spy"
    with ExitStack() as stack:
        folder = workspace(stack)
        body = folder / "question.json"
        body.write_bytes(wire.question())
        upstream = start_upstream(stack, folder)
        one = start(stack, name, starter, upstream, folder)
        run_wrk(one.port, one.key, body, connections=CONNECTIONS, seconds=1)
        load = Load(chunks=SECONDS * 50)
        return [
            _sample(spy, one.child.pid, folder, f"{name}, requests", native, lambda: _requests(one.port, one.key, body)),
            _sample(spy, one.child.pid, folder, f"{name}, streams", native, lambda: _streams(one, load)),
        ]


def _requests(port: int, key: str, body: Path) -> None:
    run_wrk(port, key, body, connections=CONNECTIONS, seconds=SECONDS)


def _streams(one: Contestant, load: Load) -> None:
    measure_streams(one, load)


def _sample(spy: Path, pid: int, folder: Path, name: str, native: bool, load: Callable[[], None]) -> Profile:
    out = folder / "samples.txt"
    out.unlink(missing_ok=True)
    command: list[str | Path] = [
        spy, "record", "--pid", str(pid), "--format", "raw", "--function", "--output", out,
        "--rate", str(SAMPLES_PER_SECOND), "--duration", str(SECONDS), *(["--native"] if native else ["--nonblocking"]),
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as sampler:
        try:
            load()
            said, _ = sampler.communicate(timeout=SECONDS + 30)
        finally:
            sampler.kill()
    if sampler.returncode or not out.exists():
        raise BenchError(f"py-spy failed: {said[-1000:]}")
    alone: Counter[str] = Counter()
    with_calls: Counter[str] = Counter()
    for line in out.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        alone[frames[-1]] += int(count)
        for frame in set(frames):
            with_calls[frame] += int(count)
    samples = alone.total()
    if not samples:
        raise BenchError("py-spy saw nothing run")

    def shares(counter: Counter[str]) -> list[tuple[float, str]]:
        return [(count / samples, function) for function, count in counter.most_common(SHOWN)]

    return Profile(name, samples, shares(alone), shares(with_calls))


def show_hot_functions(profiles: list[list[Profile]]) -> None:
    for profile in (profile for of_one in profiles for profile in of_one):
        print(f"\n{profile.load}: {profile.samples} samples")
        print(f"  {'by itself':<66}  with what it calls")
        for (mine, function), (whole, caller) in zip(profile.alone, profile.with_calls, strict=False):
            print(f"  {mine:6.1%}  {function[:56]:<56}  {whole:6.1%}  {caller[:60]}")
