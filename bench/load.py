"""The load: wrk for requests, our own client for streams, one blocking connection for looking on from outside."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import cast

import httptools
import msgspec

from bench import wire
from bench.processes import BenchError

_SCRIPT = Path(__file__).with_name("post.lua")
CHAT = "/v1/chat/completions"


class Requests(msgspec.Struct, frozen=True):
    """What wrk saw: answered requests, and their latency in microseconds. `failed` had a status other than 2xx or 3xx."""

    requests: int
    seconds: float
    bytes: int
    p50: float
    p90: float
    p99: float
    max: float
    failed: int
    broken: int
    timeouts: int


def run_wrk(port: int, key: str, body: Path, *, connections: int, seconds: float, path: str = CHAT) -> Requests:
    """Keep-alive connections that each ask again as soon as they are answered. Raises BenchError when a request failed."""
    whole = max(1, round(seconds))  # wrk knows whole seconds only
    done = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{whole}s", "--timeout", "10s", "-s", str(_SCRIPT), f"http://127.0.0.1:{port}"],
        env={**os.environ, "BENCH_BODY": str(body), "BENCH_KEY": key, "BENCH_PATH": path},
        capture_output=True,
        text=True,
        timeout=whole + 30,
        check=False,
    )
    line = next((line for line in done.stdout.splitlines() if line.startswith("{")), "")
    if not line:
        raise BenchError(f"wrk gave no result: {done.stdout}{done.stderr}")
    result = msgspec.json.decode(line, type=Requests)
    if result.failed or result.broken or result.timeouts or not result.requests:
        raise BenchError(f"not every request was answered: {result}")
    return result


def head(key: str, length: int, path: str = CHAT) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


class Streams(msgspec.Struct):
    """What became of many concurrent streams.

    `chunks` are content events received. `wrong` streams were not byte for byte what the upstream sent. `late` is, for each
    event, how many milliseconds it came after its place in a schedule of one event per interval (the schedule starts at
    the stream's first event). `seconds` is the whole run.
    """

    streams: int
    chunks: int = 0
    wrong: int = 0
    seconds: float = 0.0
    late: list[float] = []
    problems: list[str] = []

    def late_percentile(self, percent: float) -> float:
        ordered = sorted(self.late)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else float("nan")


class StreamCall(asyncio.Protocol):
    """One streamed request on a connection of its own."""

    def __init__(self, request: bytes, loop: asyncio.AbstractEventLoop) -> None:
        self.request, self.loop = request, loop
        self.parser = httptools.HttpResponseParser(self)
        self.blocks: list[bytes] = []
        self.arrivals: list[tuple[float, int]] = []  # when, how many events by then
        self.events = 0
        self.problem = ""
        self.done: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop derives its own from none of asyncio's
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.finish(f"not HTTP: {error}")

    def on_body(self, body: bytes) -> None:
        self.blocks.append(body)
        ends = body.count(b"\n\n")
        if ends:
            self.events += ends
            self.arrivals.append((self.loop.time(), self.events))

    def on_message_complete(self) -> None:
        status = self.parser.get_status_code()
        self.finish("" if status == 200 else f"status {status}: {self.body()[:300]!r}")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.finish(f"connection lost: {exc}")

    def finish(self, problem: str) -> None:
        if not self.done.done():
            self.problem = problem
            self.done.set_result(None)
            self.transport.close()

    def body(self) -> bytes:
        return b"".join(self.blocks)


async def run_streams(
    port: int,
    key: str,
    *,
    streams: int,
    chunks: int,
    interval: float,
    exact: bool = True,
    open_within: float = 0.0,
    patience: float,
) -> Streams:
    """*streams* at once, started evenly over one interval (or *open_within* seconds), each with *chunks* content events.

    *exact* compares every byte with what the upstream sent; without it only events are counted (a gateway that writes the
    events anew). Ends after *patience* seconds in any case.
    """
    loop = asyncio.get_running_loop()
    body = wire.question(stream=True, chunks=chunks)
    request = head(key, len(body)) + body
    expected = wire.stream_body(chunks)
    calls: list[StreamCall] = []
    started = loop.time()
    result = Streams(streams)
    spread = open_within or interval

    async def one(number: int) -> None:
        await asyncio.sleep(number * spread / streams)
        call = StreamCall(request, loop)
        calls.append(call)
        try:
            await loop.create_connection(lambda: call, "127.0.0.1", port)
        except OSError as error:
            call.problem = f"no connection: {error}"
            return
        await call.done

    tasks = [asyncio.create_task(one(number)) for number in range(streams)]
    _, slow = await asyncio.wait(tasks, timeout=patience)
    for task in slow:
        task.cancel()
    result.seconds = loop.time() - started
    for call in calls:
        if not call.problem and not call.done.done():
            call.problem = f"not ended after {patience:.0f} s, {call.events} events received"
            call.transport.abort()
        if call.problem:
            result.problems.append(call.problem)
        elif call.body() != expected if exact else call.events < chunks:
            result.wrong += 1
        body_events = min(call.events, chunks)
        result.chunks += body_events
        result.late += _lateness(call.arrivals, chunks, interval)
    return result


def _lateness(arrivals: list[tuple[float, int]], chunks: int, interval: float) -> list[float]:
    late: list[float] = []
    seen = 0
    for at, events in arrivals:
        late.extend((at - arrivals[0][0] - number * interval) * 1000 for number in range(seen, min(events, chunks)))
        seen = events
    return late


class Caller:
    """One blocking keep-alive connection: asks, reads the answer, asks again."""

    def __init__(self, port: int, key: str, timeout: float = 30.0) -> None:
        self.port, self.key = port, key
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, body: bytes) -> bytes:
        """The answer's body. Raises BenchError when it is no 200."""
        return self.send(head(self.key, len(body)) + body)

    def send(self, request: bytes) -> bytes:
        self.socket.sendall(request)
        answer = b""
        while (end := answer.find(b"\r\n\r\n")) < 0:
            answer += self._receive()
        names = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(b":") for line in answer[:end].split(b"\r\n")[1:])
        }
        if b"content-length" not in names:
            raise BenchError(f"an answer without length: {answer[:500]!r}")
        whole = end + 4 + int(names[b"content-length"])
        while len(answer) < whole:
            answer += self._receive()
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise BenchError(f"port {self.port} answered {answer[:800].decode(errors='replace')}")
        return answer[end + 4 : whole]

    def _receive(self) -> bytes:
        data = self.socket.recv(1 << 18)
        if not data:
            raise BenchError(f"port {self.port} closed the connection")
        return data

    def close(self) -> None:
        self.socket.close()


def wait_for_answer(port: int, key: str, *, patience: float = 30.0, every: float = 0.005) -> bytes:
    """The first good answer to a small question."""
    deadline = time.monotonic() + patience
    body = wire.question()
    while True:
        try:
            caller = Caller(port, key)
        except OSError as error:
            problem: Exception = error
        else:
            try:
                return caller.ask(body)
            except (OSError, BenchError) as error:
                problem = error
            finally:
                caller.close()
        if time.monotonic() > deadline:
            raise BenchError(f"no answer on port {port} after {patience:.0f} s: {problem}")
        time.sleep(every)


def same_answer(received: bytes) -> bool:
    """The upstream's answer, to the byte, or (a gateway that writes answers anew) with the same text in it."""
    if received == wire.ANSWER:
        return True
    text = json.loads(wire.ANSWER)["choices"][0]["message"]["content"]
    return bool(json.loads(received)["choices"][0]["message"]["content"] == text)
