"""Bad callers, for `--attack`: each kind in a process of its own, so that their trouble is theirs alone.

    python -m bench.bad_callers KIND PORT SECONDS          (the consumer key in $BENCH_KEY)

Prints one JSON line when its time is up: what it managed to do.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import cast

import uvloop

from bench import wire
from bench.load import head
from bench.processes import raise_file_limit

CHAT = b"/v1/chat/completions"
FLOOD = 1000
"""Malformed requests a second of the bounded flood."""

GUESSES = 500
"""Wrong keys a second."""


def malformed(key: str) -> list[bytes]:
    """Requests that are none, or none for us. Each ends, or is answered at once."""
    good = head(key, 2)
    post = b"POST " + CHAT + b" HTTP/1.1\r\nHost: x\r\n"
    return [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"GET / HTTP/2.0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /\r\n\r\n",
        b"\x00\x01\x02\x03 nonsense\r\n\r\n",
        post + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        post + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        post + b"Content-Length: -1\r\n\r\n",
        post + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        post + b"Authorization: Bearer sk-\x00\r\n\r\n",
        post + b"X: " + b"a" * 20_000 + b"\r\n\r\n",
        post + b"".join(b"X-%d: 1\r\n" % i for i in range(1000)) + b"\r\n",
        post + b"Content-Length: 1000000000000\r\n\r\n",
        post + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        post + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"DELETE " + CHAT + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        good + b"{]",
        good.replace(b"length: 2", b"length: 20000").replace(b"Length: 2", b"Length: 20000") + b"[" * 20_000,
        good.replace(key.encode(), b"sk-aigw-wrong-key") + b"{}",
    ]


class Call(asyncio.Protocol):
    """One connection: says its piece; `gone` when the other side has closed it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, say: bytes = b"", *, reads: bool = True) -> None:
        self.say, self.reads = say, reads
        self.news: asyncio.Future[None] = loop.create_future()
        self.gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if not self.reads:
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            self.transport.pause_reading()
        if self.say:
            self.transport.write(self.say)

    def data_received(self, data: bytes) -> None:
        if not self.news.done():
            self.news.set_result(None)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.gone = True
        if not self.news.done():
            self.news.set_result(None)


class Attack:
    """What the kinds share: where to, until when, and what came of it."""

    def __init__(self, port: int, seconds: float, key: str) -> None:
        self.port, self.key = port, key
        self.loop = asyncio.get_running_loop()
        self.until = self.loop.time() + seconds
        self.done: Counter[str] = Counter()

    @property
    def over(self) -> bool:
        return self.loop.time() >= self.until

    async def call(self, say: bytes = b"", *, reads: bool = True) -> Call | None:
        try:
            _, call = await self.loop.create_connection(lambda: Call(self.loop, say, reads=reads), "127.0.0.1", self.port)
        except OSError as error:
            self.done[f"no connection: {error.strerror}"] += 1
            await asyncio.sleep(0.05)
            return None
        self.done["connections"] += 1
        return call

    async def flood(self, pieces: list[bytes], callers: int, rate: float = 0.0) -> None:
        """Each caller says a piece on a fresh connection, waits for the answer, and comes again."""

        async def one(number: int) -> None:
            dice = random.Random(number)
            due = self.loop.time()
            while not self.over:
                call = await self.call(dice.choice(pieces))
                if call is not None:
                    try:
                        await asyncio.wait_for(call.news, 2)
                    except TimeoutError:
                        self.done["unanswered for 2 s"] += 1
                    call.transport.abort()
                if rate:
                    due += callers / rate
                    await asyncio.sleep(due - self.loop.time())

        await asyncio.gather(*(one(number) for number in range(callers)))

    async def hold(
        self, count: int, begin: bytes, drip: bytes = b"", every: float = 1.0, *, reads: bool = True, again: float = 0.5
    ) -> None:
        """*count* connections, held: each begins, drips, and is opened again *again* seconds after it was closed."""

        async def one(number: int) -> None:
            await asyncio.sleep(number / 5000)
            while not self.over:
                call = await self.call(begin, reads=reads)
                while call is not None and not call.gone and not self.over:
                    await asyncio.sleep(min(every, max(0.0, self.until - self.loop.time())))
                    if drip and not call.gone:
                        call.transport.write(drip)
                if call is not None:
                    self.done["closed by the server"] += call.gone
                    call.transport.abort()
                    if call.gone:
                        await asyncio.sleep(again)

        await asyncio.gather(*(one(number) for number in range(count)))


async def flood_bounded(attack: Attack) -> None:
    await attack.flood(malformed(attack.key), 16, FLOOD)


async def flood(attack: Attack) -> None:
    await attack.flood(malformed(attack.key), 16)


async def bad_keys(attack: Attack) -> None:
    body = wire.question()
    await attack.flood([head(f"sk-aigw-{number:010}-{'x' * 40}", len(body)) + body for number in range(50)], 16, GUESSES)


async def idle(attack: Attack) -> None:
    await attack.hold(10_000, b"", again=5.0)


async def slow_heads(attack: Attack) -> None:
    await attack.hold(1000, b"POST " + CHAT + b" HTTP/1.1\r\nHost: x\r\n", b"X: y\r\n")


async def slow_bodies(attack: Attack) -> None:
    await attack.hold(1000, head(attack.key, 100_000) + b'{"model":"', b"x")


async def slow_readers(attack: Attack) -> None:
    body = wire.question(stream=True, chunks=2000)
    await attack.hold(200, head(attack.key, len(body)) + body, reads=False)


async def hang_ups(attack: Attack) -> None:
    body = wire.question(stream=True, chunks=200)
    request = head(attack.key, len(body)) + body

    async def one(number: int) -> None:
        dice = random.Random(number)
        while not attack.over:
            call = await attack.call(request[: dice.choice((0, 40, len(request) - 5, len(request)))])
            await asyncio.sleep(dice.random() * 0.05)
            if call is not None:
                call.transport.abort()

    await asyncio.gather(*(one(number) for number in range(16)))


KINDS: dict[str, Callable[[Attack], Awaitable[None]]] = {
    "malformed": flood_bounded,
    "malformed-unbounded": flood,
    "bad-keys": bad_keys,
    "idle": idle,
    "slow-heads": slow_heads,
    "slow-bodies": slow_bodies,
    "slow-readers": slow_readers,
    "hang-ups": hang_ups,
}


async def main(kind: str, port: int, seconds: float) -> Counter[str]:
    attack = Attack(port, seconds, os.environ["BENCH_KEY"])
    await KINDS[kind](attack)
    return attack.done


if __name__ == "__main__":
    os.nice(10)  # one machine for both sides: the bad ones' own work is not the gateway's trouble
    raise_file_limit()
    began = time.monotonic()
    counted = uvloop.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
    print(json.dumps({"seconds": round(time.monotonic() - began, 1)} | counted))
