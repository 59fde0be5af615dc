"""A gateway under load for as long as one likes, with callers who leave in the middle: nothing grows.

`AIGW_SOAK` says for how many seconds the long one runs (1,800).
"""

from __future__ import annotations

import json
import os
import random
import socket
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.world import DEMO, HELLO, Gateway, eventually

CONFIG = f"""{DEMO}
[limits]
rpm = 1000000
tpm = 1000000000
budgets = ["1000000 usd/day", "1000000000000 tokens/month"]
[prices."demo/*"]
input = 1
output = 2
"""

CALLERS = 8
GROWTH = 4 * 1024 * 1024
"""Bytes by which the later part may be above the earlier one: what an allocator keeps in hand, whatever the length."""


def resident(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def handles(process: int) -> int:
    return len(list(Path(f"/proc/{process}/fd").iterdir()))


def call(gateway: Gateway, chance: random.Random, over: threading.Event, counts: list[int]) -> None:
    """Whole answers and streams; a third of the callers hang up somewhere, some of them with a reset."""
    body = {stream: json.dumps(HELLO | {"stream": stream}).encode() for stream in (False, True)}
    while not over.is_set():
        stream, leaves = chance.random() < 0.5, chance.random() < 0.33
        said = body[stream]
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {gateway.key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(said)}\r\nconnection: close\r\n\r\n"
        ).encode()
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as raw:
            if leaves:
                raw.sendall((head + said)[: chance.randrange(1, len(head) + len(said) + 1)])
                if chance.random() < 0.5:
                    raw.settimeout(0.02)
                    try:
                        raw.recv(chance.randrange(1, 4096))
                    except TimeoutError:
                        pass
                if chance.random() < 0.5:
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            else:
                raw.sendall(head + said)
                while raw.recv(65536):
                    pass
        counts[0] += 1


def soak(gateway: Gateway, seconds: float) -> tuple[list[int], list[int], int]:
    """Memory and open files ten times a second, after the first fifth of the time; and how many requests there were."""
    over, counts = threading.Event(), [0]
    callers = [threading.Thread(target=call, args=(gateway, random.Random(number), over, counts)) for number in range(CALLERS)]
    for caller in callers:
        caller.start()
    memory, files = [], []
    begin = time.monotonic()
    while (now := time.monotonic()) < begin + seconds:
        if now > begin + seconds / 5:
            memory.append(resident(gateway.process.pid))
            files.append(handles(gateway.process.pid))
        time.sleep(0.1)
    over.set()
    for caller in callers:
        caller.join(60)
    return memory, files, counts[0]


def nothing_grows(gateway: Gateway, seconds: float) -> None:
    for _ in range(200):  # what is made once is made
        gateway.ask(HELLO)
    quiet = handles(gateway.process.pid)
    memory, files, requests = soak(gateway, seconds)
    third = len(memory) // 3
    early, late = statistics.median(memory[:third]), statistics.median(memory[-third:])
    assert late - early < GROWTH, f"{(late - early) / 1024:.0f} KB in {requests} requests"
    assert statistics.median(files[-third:]) <= statistics.median(files[:third]) + CALLERS
    eventually(lambda: handles(gateway.process.pid) <= quiet + 2)
    metrics = gateway.metrics()
    assert metrics["aigw_exchanges_active"] == 0
    eventually(lambda: gateway.metrics()["aigw_records_pending"] == 0)
    assert gateway.metrics()["aigw_records_lost_total"] == 0
    told = gateway.stats("consumer")["total"]
    charged = gateway.query("SELECT sum(usd), sum(tokens) FROM spent WHERE holder NOT LIKE 'g:%'")[0]
    assert told["requests"] > requests / 2
    assert charged[1] == told["input_tokens"] + told["output_tokens"], "the ledger is the sum of the records"


def test_a_short_one(own: Callable[..., Gateway]) -> None:
    gateway = own(CONFIG).start()
    gateway.key = gateway.create_key("alice")["key"]
    eventually(lambda: gateway.ask(HELLO).status == 200)
    nothing_grows(gateway, 6.0)


@pytest.mark.long
def test_a_long_one(own: Callable[..., Gateway]) -> None:
    gateway = own(CONFIG).start()
    gateway.key = gateway.create_key("alice")["key"]
    eventually(lambda: gateway.ask(HELLO).status == 200)
    nothing_grows(gateway, float(os.environ.get("AIGW_SOAK", "1800")))
