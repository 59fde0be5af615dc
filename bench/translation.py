"""What translation costs: aigw between a caller and a provider of two dialects, beside the passthrough of each, in one process
and in the same rounds, so that the ratio tells and the machine's noise does not.

Also what a request with an image of 5 MB takes in memory: how much the edit of such a body allocates, and what the whole
process takes at its peak (the pieces as they came, the body, the edited body).
"""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import time
import tracemalloc
from contextlib import ExitStack

import msgspec
import uvloop

from aigw.protocols import splice
from bench import wire
from bench.comparison import CONNECTIONS, INTERVAL, Load, say, start, start_upstream, workspace
from bench.contestants import Contestant, start_aigw
from bench.load import CHAT, Caller, head, run_wrk
from bench.processes import BenchError
from bench.table import show_table

MESSAGES = "/v1/messages"
GOAL = 2.5  # times the passthrough, at most
IMAGE = 5_000_000  # bytes of base64
COPIES = 1.1  # of such a body that its edit may make: the edited one
_TOKEN = re.compile(rb" t(\d{6})")

CASES = {
    "OpenAI -> OpenAI": (CHAT, wire.MODEL),
    "Anthropic -> Anthropic": (MESSAGES, wire.CLAUDE),
    "Anthropic -> OpenAI": (MESSAGES, wire.MODEL),
    "OpenAI -> Anthropic": (CHAT, wire.CLAUDE),
}
"""Caller's dialect -> provider's: the path and the model that have them."""
BESIDE = {"Anthropic -> OpenAI": "Anthropic -> Anthropic", "OpenAI -> Anthropic": "OpenAI -> OpenAI"}
"""The passthrough of the same caller, which is what a translation is measured against."""


class Case(msgspec.Struct):
    """CPU microseconds of the process tree, round by round."""

    name: str
    request_us: list[float] = []
    chunk_us: list[float] = []


class Translation(msgspec.Struct):
    """What was measured. `copies`: of a body with a large image, made by renaming its model; `peak`: what such a request added
    to the highest resident memory of the process, in bodies."""

    load: Load
    cases: list[Case]
    copies: float = 0.0
    peak: float = 0.0

    def ratio(self, name: str, field: str) -> float:
        """The median of the rounds' ratios to the passthrough of the same caller."""
        cases = {case.name: case for case in self.cases}
        pairs = zip(getattr(cases[name], field), getattr(cases[BESIDE[name]], field), strict=True)
        return statistics.median(mine / theirs for mine, theirs in pairs)


def measure_translation(load: Load) -> Translation:
    with ExitStack() as stack:
        folder = workspace(stack)
        upstream = start_upstream(stack, folder)
        one = start(stack, "aigw", start_aigw, upstream, folder)
        copies, peak = _image(one)
        files = {}
        for name, (_, model) in CASES.items():
            files[name] = folder / f"{len(files)}.json"
            files[name].write_bytes(_question(model))
        cases = {name: Case(name) for name in CASES}
        for name, (path, _) in CASES.items():
            run_wrk(one.port, one.key, files[name], connections=CONNECTIONS, seconds=1, path=path)  # warm
        for number in range(load.rounds):
            say(f"round {number + 1} of {load.rounds}")
            for name, (path, model) in CASES.items():
                before = one.child.cpu()
                done = run_wrk(one.port, one.key, files[name], connections=CONNECTIONS, seconds=load.seconds, path=path)
                cases[name].request_us.append((one.child.cpu() - before) / done.requests * 1e6)
                before = one.child.cpu()
                uvloop.run(_streams(one, path, _question(model, load.chunks), load.streams, load.chunks))
                cases[name].chunk_us.append((one.child.cpu() - before) / (load.streams * load.chunks) * 1e6)
        return Translation(load, list(cases.values()), copies, peak)


def _question(model: str, chunks: int = 0) -> bytes:
    """Both dialects take it."""
    body = json.loads(wire.question(stream=bool(chunks), chunks=chunks or 200))
    body["model"] = model
    return json.dumps(body, separators=(",", ":")).encode()


async def _streams(one: Contestant, path: str, body: bytes, streams: int, chunks: int) -> None:
    """All at once, started evenly over one interval. Raises BenchError when the text of one is not whole."""
    request = head(one.key, len(body), path) + body
    ends = b"message_stop" if path == MESSAGES else b"[DONE]"
    wanted = [b"%06d" % number for number in range(chunks)]

    async def ask(number: int) -> None:
        await asyncio.sleep(number * INTERVAL / streams)
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(request)
        blocks: list[bytes] = []
        while block := await reader.read(65536):
            blocks.append(block)
            if block.endswith(b"0\r\n\r\n") and ends in b"".join(blocks[-3:]):
                break
        writer.close()
        if _TOKEN.findall(b"".join(blocks)) != wanted:
            raise BenchError(f"a stream at {path} is not whole: {b''.join(blocks)[-800:]!r}")

    async with asyncio.timeout(chunks * INTERVAL * 5 + 20):
        await asyncio.gather(*(ask(number) for number in range(streams)))


def _image(one: Contestant) -> tuple[float, float]:
    """A body with a large image whose model has to be renamed: `copies` and `peak` of `Translation`."""
    url = "data:image/png;base64," + "A" * IMAGE
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]
    body = json.dumps({"model": wire.MODEL, "messages": [{"role": "user", "content": parts}]}).encode()
    caller = Caller(one.port, one.key)
    caller.ask(_question(wire.MODEL))
    time.sleep(1.0)  # the record is written
    before = one.child.resident()
    for _ in range(3):
        caller.ask(body)
    caller.close()
    peak = (one.child.peak() - before) / len(body)
    tracemalloc.start()
    splice.set_value(body, "model", wire.UPSTREAM_MODEL, wire.MODEL, splice.only(body, "model"))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most / len(body), peak


def show_translation(found: Translation) -> None:
    load = found.load
    print(
        f"{load.rounds} rounds; requests: wrk, {CONNECTIONS} connections, {load.seconds} s; streams: {load.streams} at once, "
        f"{load.chunks} events each, one every 20 ms; CPU of the whole process tree\n"
    )
    rows = []
    for case in found.cases:
        cells = [case.name]
        for field in ("request_us", "chunk_us"):
            values = getattr(case, field)
            cells.append(f"{found.ratio(case.name, field):.2f}" if case.name in BESIDE else "1")
            cells.append(f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})")
        rows.append(cells)
    show_table(["caller -> provider", "x passthrough", "us/request", "x passthrough", "us/chunk"], rows)
    print()
    for name in BESIDE:
        for field, unit in (("request_us", "request"), ("chunk_us", "chunk")):
            ratio = found.ratio(name, field)
            verdict = "met" if ratio <= GOAL else "MISSED"
            print(f"{name} per {unit}: {ratio:.2f} x passthrough, goal at most {GOAL} x: {verdict}")
    verdict = "met" if found.copies <= COPIES else "MISSED"
    print(f"an image of {IMAGE / 1e6:.0f} MB: its edit makes {found.copies:.2f} copies, goal at most {COPIES}: {verdict}")
    print(f"the process holds {found.peak:.1f} such bodies at its peak: the pieces as they came, the body, the edited body")
