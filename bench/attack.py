"""What a well-behaved caller, the memory and the descriptors feel of bad callers, and what a request can make us spend.

First-token latency is asked for in small streams, paced, over connections that were there before and (one in eight) fresh
ones. Each attack is measured beside a quiet phase of its own, since the machine is not always equally fast.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec
import uvloop

from bench import wire
from bench.bad_callers import FLOOD, GUESSES
from bench.comparison import say, start, start_upstream, workspace
from bench.contestants import Contestant, start_aigw
from bench.environment import ROOT
from bench.load import Caller, head
from bench.processes import BenchError, Child
from bench.table import megabytes, show_table

QUIET, LOUD = 2.0, 7.0
"""Seconds measured before and during each attack."""
PAUSE = 0.01
"""Seconds between two questions of one good caller; there are `GOOD` of them."""
GOOD = 4
SLOWER, FATTER = 2.0, 1.5
"""Goals: first-token p99 and resident memory under attack, as multiples of quiet."""
MEMORY_X, CPU_MS_PER_KB = 100.0, 10.0
"""Goals: what a request may cost for each byte, and each KB, of its own."""
CONNECTION = 240
"""Bytes of TCP and IP headers that a connection costs its caller at the least: six packets of 40."""

ATTACKS = {
    "malformed": f"malformed requests, {FLOOD:,}/s",
    "malformed-unbounded": "malformed requests, 16 callers, no pause",
    "bad-keys": f"wrong keys, {GUESSES}/s",
    "idle": "10,000 idle connections",
    "slow-heads": "1,000 slow heads",
    "slow-bodies": "1,000 slow bodies",
    "slow-readers": "200 streams nobody reads",
    "hang-ups": "16 callers who hang up",
}
AT_ONCE = [name for name in ATTACKS if name != "malformed-unbounded"]
"""Without a flood that takes whatever the machine has."""
SLOWHTTPTEST = {
    "slowhttptest -H": ["-H", "-c", "1000", "-r", "500", "-i", "2"],
    "slowhttptest -B": ["-B", "-c", "1000", "-r", "500", "-i", "2", "-s", "8192", "-t", "POST"],
    "slowhttptest -X": ["-X", "-c", "500", "-r", "250", "-w", "1", "-y", "2", "-n", "2", "-z", "8"],
    "slowhttptest -R": ["-R", "-c", "500", "-r", "250", "-a", "0", "-b", "3000"],
}


class Felt(msgspec.Struct):
    """One attack. Latencies are milliseconds to the first token, memory is bytes; `failed` are good requests that got no
    answer; `said` is what the bad callers report."""

    name: str
    quiet: list[float]
    loud: list[float]
    failed: list[str]
    memory: tuple[int, int]
    files: tuple[int, int, int]
    said: str

    @property
    def slower(self) -> float:
        return p99(self.loud) / p99(self.quiet)

    @property
    def fatter(self) -> float:
        return self.memory[1] / self.memory[0]


class Spent(msgspec.Struct):
    """What one kind of request cost: of each copy, its bytes and CPU milliseconds; of all, peak memory over bytes sent."""

    name: str
    size: int
    copies: int
    cpu_ms: float
    memory: int
    answer: str

    @property
    def memory_x(self) -> float:
        return self.memory / (self.copies * (self.size + CONNECTION))

    @property
    def cpu_per_kb(self) -> float:
        return self.cpu_ms / ((self.size + CONNECTION) / 1000)


def p99(values: Sequence[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))] if values else float("inf")


class Good:
    """Well-behaved callers, in a thread of their own until `stop`."""

    def __init__(self, one: Contestant) -> None:
        body = wire.question(stream=True, chunks=1)
        self._one, self._request = one, head(one.key, len(body)) + body
        self._stop = threading.Event()
        self.seen: list[tuple[float, float]] = []  # when asked, milliseconds
        self.failed: list[tuple[float, str]] = []
        self._thread = threading.Thread(target=lambda: uvloop.run(self._ask()), name="good")
        self._thread.start()

    async def _ask(self) -> None:
        await asyncio.gather(*(self._caller() for _ in range(GOOD)))

    async def _caller(self) -> None:
        kept: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        number = 0
        while not self._stop.is_set():
            number += 1
            fresh = number % 8 == 0
            began = time.perf_counter()
            try:
                async with asyncio.timeout(10):
                    pair = None if fresh else kept
                    reader, writer = pair or await asyncio.open_connection("127.0.0.1", self._one.port)
                    began = time.perf_counter()
                    writer.write(self._request)
                    status = await reader.readuntil(b"\r\n\r\n")
                    if not status.startswith(b"HTTP/1.1 200"):
                        raise ConnectionError(status.split(b"\r\n")[0].decode())
                    await reader.readuntil(b"data: ")
                    self.seen.append((began, (time.perf_counter() - began) * 1000))
                    await reader.readuntil(b"0\r\n\r\n")
                if fresh:
                    writer.close()
                else:
                    kept = reader, writer
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                self.failed.append((began, f"{'new' if fresh else 'kept'}: {type(error).__name__} {error}"[:80]))
                kept = None if not fresh else kept
            await asyncio.sleep(PAUSE)

    def between(self, begin: float, end: float) -> tuple[list[float], list[str]]:
        return (
            [took for at, took in self.seen if begin <= at < end],
            [why for at, why in self.failed if begin <= at < end],
        )

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)


def attack(names: Sequence[str]) -> tuple[list[Felt], list[Spent]]:
    """Every attack in turn (or those *names* hold), then what each kind of request costs."""
    kinds = {**ATTACKS, **{name: name for name in SLOWHTTPTEST}, "everything": "all of them at once", "amplification": ""}
    unknown = set(names) - set(kinds)
    if unknown:
        raise BenchError(f"unknown attacks {', '.join(sorted(unknown))}; there are {', '.join(kinds)}")
    chosen = [name for name in kinds if not names or name in names]
    felt: list[Felt] = []
    with ExitStack() as stack:
        folder = workspace(stack)
        upstream = start_upstream(stack, folder)
        one = start(stack, "aigw", start_aigw, upstream, folder)
        good = Good(one)
        stack.callback(good.stop)
        time.sleep(2.0)
        for name in chosen:
            if name == "amplification":
                continue
            if name in SLOWHTTPTEST and shutil.which("slowhttptest") is None:
                say("slowhttptest is not installed (Debian: apt-get install slowhttptest)")
                continue
            say(f"attack: {kinds[name]}")
            felt.append(_felt(kinds[name], AT_ONCE if name == "everything" else [name], one, good, folder))
    spent = []
    if "amplification" in chosen:
        with ExitStack() as stack:
            folder = workspace(stack)
            one = start(stack, "aigw", start_aigw, start_upstream(stack, folder), folder)
            spent = amplification(one)
    return felt, spent


def _felt(title: str, names: list[str], one: Contestant, good: Good, folder: Path) -> Felt:
    begin = time.perf_counter()
    time.sleep(QUIET)
    loud = time.perf_counter()
    memory, files = one.child.resident(), one.child.open_files()
    log = folder / "bad.log"
    log.write_bytes(b"")
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(_bad(name, one, log))
        peak, most = memory, files
        while time.perf_counter() < loud + LOUD:
            time.sleep(0.25)
            if one.child.popen.poll() is not None:
                raise BenchError(f"the gateway died of {title}: {one.child.tail()}")
            peak, most = max(peak, one.child.resident()), max(most, one.child.open_files())
        end = time.perf_counter()
        time.sleep(1.0)  # they report
    deadline = time.monotonic() + 5
    while (after := one.child.open_files()) > files + 5 and time.monotonic() < deadline:
        time.sleep(0.1)
    quiet, _ = good.between(begin, loud)
    hurt, failed = good.between(loud, end)
    said = " ".join(line for line in log.read_text(errors="replace").splitlines() if line.startswith("{"))
    return Felt(title, quiet, hurt, failed, (memory, peak), (files, most, after), said)


def _bad(name: str, one: Contestant, log: Path) -> Child:
    if name in SLOWHTTPTEST:
        url = f"http://127.0.0.1:{one.port}/v1/chat/completions"
        command = ["nice", "-n", "10", "slowhttptest", *SLOWHTTPTEST[name], "-l", str(int(LOUD)), "-p", "5", "-u", url]
        return Child(name, command, log=log, cwd=log.parent)
    command = [sys.executable, "-m", "bench.bad_callers", name, str(one.port), str(LOUD)]
    return Child(name, command, log=log, cwd=ROOT, env={"BENCH_KEY": one.key})


# ---- amplification ---------------------------------------------------------------------------------------------------------


def dear_requests(key: str) -> dict[str, tuple[bytes, int]]:
    """Requests that might cost more than they should, with how many of each are sent: so many at once."""
    post = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n" % key.encode()

    def chat(body: bytes, *lines: bytes) -> bytes:
        more = b"".join(line + b"\r\n" for line in lines)
        return post + b"Content-Type: application/json\r\n" + more + b"Content-Length: %d\r\n\r\n" % len(body) + body

    model = b'{"model":"%b",' % wire.MODEL.encode()
    big = 1_000_000
    bomb = subprocess.run(["gzip", "-9c"], input=bytes(100 * big), capture_output=True, check=True).stdout
    return {
        "one byte": (b"G", 400),
        "GET /": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        "GET /v1/models": (b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n\r\n" % key.encode(), 400),
        "no HTTP": (b"\x16\x03\x01" + bytes(200), 400),
        "a wrong key": (chat(b"{}").replace(key.encode(), b"sk-aigw-nobody"), 400),
        "{}": (chat(b"{}"), 400),
        "an unknown model": (chat(b'{"model":"nobody-has-this"}'), 400),
        "a small question": (chat(wire.question()), 400),
        "a small stream": (chat(wire.question(stream=True, chunks=1)), 400),
        "7 KB of heads": (
            post + b"".join(b"X-%d: %b\r\n" % (i, b"y" * 50) for i in range(110)) + b"Content-Length: 0\r\n\r\n",
            100,
        ),
        "10,000 heads": (post + b"".join(b"X-%d: 1\r\n" % i for i in range(10_000)) + b"\r\n", 50),
        "5,000 pipelined": (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 5000, 5),
        "length of 1e12": (post + b"Content-Length: 1000000000000\r\n\r\n", 400),
        "1-byte chunks, 200 KB": (post + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 33_000 + b"0\r\n\r\n", 5),
        "gzip bomb, 100 MB": (chat(bomb, b"Content-Encoding: gzip"), 5),
        "a body of 1 MB": (chat(model + b'"x":"' + b"y" * big + b'"}'), 10),
        "nested 100,000 deep": (chat(model + b'"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), 10),
        "100,000 messages": (chat(model + b'"messages":[' + b"{}," * 100_000 + b"{}]}"), 5),
        "a model of 1 MB": (chat(b'{"model":"' + b"m" * big + b'"}'), 5),
        "a number of 1 MB": (chat(model + b'"max_tokens":' + b"9" * big + b"}"), 5),
        "100,000 keys": (chat(model + b",".join(b'"k%d":0' % i for i in range(100_000)) + b"}"), 5),
        "the key 50,000 times": (chat(b'{"model":"x"' + b',"model":"x"' * 50_000 + b"}"), 5),
        "escapes, 1 MB": (chat(b'{"model":"' + b"\\u0041" * (big // 6) + b'"}'), 5),
    }


def amplification(one: Contestant) -> list[Spent]:
    """One kind after the other: all copies over ten connections at a time, an answer waited for."""
    found = []
    for name, (request, copies) in dear_requests(one.key).items():
        say(f"amplification: {name}")
        _calm(one.child)
        Path(f"/proc/{one.child.pid}/clear_refs").write_text("5")  # the peak is counted anew (proc(5))
        memory, cpu = one.child.resident(), one.child.cpu()
        answers = uvloop.run(_send(one.port, request, copies))
        time.sleep(0.3)
        spent = one.child.cpu() - cpu
        peak = _peak(one.child.pid) - memory
        found.append(Spent(name, len(request), copies, spent / copies * 1000, max(0, peak), answers))
    caller = Caller(one.port, one.key)  # it is still there
    caller.ask(wire.question())
    caller.close()
    return found


def _calm(child: Child) -> None:
    """Until it does nothing."""
    for _ in range(50):
        before = child.cpu()
        time.sleep(0.1)
        if child.cpu() - before < 0.005:
            return


def _peak(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise BenchError("no VmHWM in /proc: this needs Linux")


async def _send(port: int, request: bytes, copies: int) -> str:
    turns = asyncio.Semaphore(10)
    statuses: dict[str, int] = {}

    async def send() -> None:
        async with turns:
            status = "closed"
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                writer.write(request)
                async with asyncio.timeout(3 if len(request) > 1 else 0.02):
                    status = (await reader.readuntil(b"\r\n"))[9:12].decode("latin-1")
            except (OSError, asyncio.IncompleteReadError):
                pass
            except TimeoutError:
                status = "none"
            finally:
                writer.transport.abort()
            statuses[status] = statuses.get(status, 0) + 1

    await asyncio.gather(*(send() for _ in range(copies)))
    return " ".join(sorted(statuses))


# ---- the tables ------------------------------------------------------------------------------------------------------------


def show_attack(felt: list[Felt], spent: list[Spent]) -> None:
    if felt:
        rows = []
        for one in felt:
            met = one.slower <= SLOWER and one.fatter <= FATTER and one.files[2] <= one.files[0] + 5 and not one.failed
            rows.append(
                [
                    one.name,
                    f"{statistics.median(one.quiet):.1f} {p99(one.quiet):.1f}",
                    f"{statistics.median(one.loud) if one.loud else float('inf'):.1f} {p99(one.loud):.1f}",
                    f"{one.slower:.1f}",
                    f"{len(one.loud)}/{len(one.failed)}",
                    f"{megabytes(one.memory[0])} {megabytes(one.memory[1])}",
                    f"{one.fatter:.2f}",
                    "{} {} {}".format(*one.files),
                    "met" if met else "MISSED",
                ]
            )
        heads = ["first token, ms", "quiet p50 p99", "attacked", "x", "answered/failed", "MB before, peak", "x", "files", ""]
        show_table(heads, rows)
        print(f"goals: p99 at most {SLOWER} x quiet, memory {FATTER} x, no good request failed, files as before\n")
        for one in felt:
            print(f"{one.name}: {one.said or '(slowhttptest reports nothing of use)'}")
            for why in sorted(set(one.failed))[:3]:
                print(f"  failed {one.failed.count(why)} x {why}")
        print()
    if spent:
        rows = []
        for cost in spent:
            # under a megabyte in all the allocator's steps are bigger than what is measured
            met = cost.cpu_per_kb <= CPU_MS_PER_KB and (cost.memory < 1e6 or cost.memory_x <= MEMORY_X)
            rows.append(
                [
                    cost.name, f"{cost.size:,}", str(cost.copies), cost.answer, f"{cost.cpu_ms:.2f}", f"{cost.cpu_per_kb:.2f}",
                    f"{cost.memory / 1e6:.1f}", f"{cost.memory_x:.1f}", "met" if met else "MISSED",
                ]
            )  # fmt: skip
        show_table(["request", "bytes", "copies", "answer", "CPU ms", "ms/KB", "peak MB", "x bytes", ""], rows)
        goals = f"{CPU_MS_PER_KB:.0f} ms per KB, memory {MEMORY_X:.0f} x"
        print(f"goals: {goals}; each connection is counted with {CONNECTION} bytes of its own")
