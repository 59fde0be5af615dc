"""Several workers as one server: real processes, killed, reloaded and stopped under load."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from aigw.cli import control
from aigw.consumer import Budget, Terms
from tests.e2e.far_side import FarSide, answer
from tests.e2e.test_budgets import ONE, PAID, config, give, in_store, many as at_once, pays
from tests.e2e.world import DEMO, HELLO, Answer, Gateway, eventually
from tests.loopback import Peer, Request

Own = Callable[..., Gateway]

SLOW = """
[providers.slow]
kind = "openai-compatible"
base_url = "{url}"
keys = ["sk-slow-0123456789"]
[routes.slow]
targets = [{{provider = "slow", model = "m"}}]
"""


def state(gateway: Gateway) -> dict[str, Any]:
    return control.ask(gateway.data_dir, timeout=10) or {}


def pids(gateway: Gateway) -> list[int]:
    return [one["pid"] for one in state(gateway)["workers"]]


def all_serve(gateway: Gateway, number: int) -> list[int]:
    """Their processes, once so many serve."""

    def look() -> list[int]:
        found = [one["pid"] for one in state(gateway).get("workers", ()) if one["ready"] == ""]
        return found if len(found) == number else []

    return eventually(look, 20, 0.2)


def many(gateway: Gateway, number: int, body: Any = HELLO, threads: int = 50) -> list[Answer]:
    def one(_: int) -> Answer:
        return gateway.ask(body)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, range(number)))


@pytest.fixture(scope="module")
def three(make: Callable[..., Gateway]) -> Gateway:
    return make(server="workers = 3")


def test_they_share_the_work_and_count_as_one(three: Gateway) -> None:
    """Every worker serves; metrics, status and stats have the sum."""
    answers = many(three, 90, threads=10)
    assert {answer.status for answer in answers} == {200}
    told = state(three)
    assert told["ready"] == ""
    assert len({one["pid"] for one in told["workers"]}) == 3
    assert all(one["requests"] > 0 for one in told["workers"])
    assert sum(one["requests"] for one in told["workers"]) == told["counters"]["requests"] == 90
    name = 'aigw_requests_total{model="demo",operation="chat",outcome="ok",provider="demo"}'
    metrics = three.metrics()
    assert metrics[name] == 90
    assert metrics["aigw_workers"] == 3
    eventually(lambda: three.query("SELECT count(*) FROM record_line") == [(90,)])


def test_a_revoked_key_is_refused_by_all(three: Gateway) -> None:
    """Within a second or so, whoever is asked. (After many tries as one that is guessed: 429.)"""
    made = three.create_key("bob")
    eventually(lambda: [answer.status for answer in (three.ask(HELLO, key=made["key"]) for _ in range(12))] == [200] * 12)
    assert three.aigw("keys", "revoke", "bob", "--yes").returncode == 0
    eventually(lambda: {three.ask(HELLO, key=made["key"]).status for _ in range(12)} <= {401, 429})


def test_one_that_is_killed_is_replaced(three: Gateway) -> None:
    """At once; what it had counted and told stays in the metrics; all its records are kept."""
    before = three.metrics()
    victim = all_serve(three, 3)[1]
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: victim not in all_serve(three, 3), 20)
    metrics = three.metrics()
    name = 'aigw_requests_total{model="demo",operation="chat",outcome="ok",provider="demo"}'
    assert metrics[name] == before[name]
    assert metrics["aigw_worker_restarts_total"] == 1
    three.said(r"worker 1 was killed \(SIGKILL\); another one starts now")
    assert {answer.status for answer in many(three, 30, threads=10)} == {200}


def test_a_limit_is_one_limit(own: Own) -> None:
    """A hundred a minute for a consumer, 1,000 at once asked of four workers: exactly a hundred pass."""
    gateway = own(DEMO + "[limits]\nrpm = 100\n", server="workers = 4")
    gateway.key = gateway.create_key("me")["key"]
    gateway.start()
    told = Counter(answer.status for answer in many(gateway, 1000, threads=60))
    assert told == {200: 100, 429: 900}
    assert gateway.stop() == 0


def test_what_a_killed_worker_held_is_free_again(own: Own) -> None:
    """Requests that wait for their provider hold a place each; with their worker killed exactly those places are free, and
    each exchange that was answered has exactly one record."""
    with FarSide() as far:
        go = threading.Event()

        async def wait(peer: Peer, request: Request, number: int) -> None:
            while not go.is_set():
                await asyncio.sleep(0.02)
            body = (
                b'{"object":"chat.completion","model":"m","choices":[],'
                b'"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}'
            )
            with contextlib.suppress(ConnectionError):  # of the worker that was killed
                await peer.send(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
                )

        far.scripts["slow"] = wait
        gateway = own(SLOW.format(url=far.url("slow")) + "[limits]\nconcurrency = 40\n", server="workers = 2")
        gateway.key = gateway.create_key("me")["key"]
        gateway.start()
        body = {"model": "slow", "messages": [{"role": "user", "content": "hello"}]}
        answers: list[Answer | None] = []

        def one(_: int) -> Answer | None:
            try:
                return gateway.ask(body, timeout=60)
            except (OSError, http.client.HTTPException):
                return None

        with ThreadPoolExecutor(40) as pool:
            waiting = [pool.submit(one, number) for number in range(40)]
            eventually(lambda: sum(one["exchanges"] for one in state(gateway)["workers"]) == 40, 20)
            assert gateway.ask(body).status == 429
            workers = state(gateway)["workers"]
            victim = max(workers, key=lambda one: one["exchanges"])
            held = victim["exchanges"]
            os.kill(victim["pid"], signal.SIGKILL)
            all_serve(gateway, 2)
            with ThreadPoolExecutor(held + 5) as more:
                again = [more.submit(one, number) for number in range(held + 5)]
                eventually(lambda: sum(job.done() for job in again) == 5, 20)
                go.set()
                answers = [job.result() for job in (*waiting, *again)]
        told = Counter(answer.status if answer is not None else 0 for answer in answers)
        assert told == {0: held, 200: 40, 429: 5}
        ids = [answer.id for answer in answers if answer is not None]
        eventually(lambda: sorted(one[0] for one in gateway.query("SELECT id FROM record") if one[0] in ids) == sorted(ids))
        assert gateway.stop() == 0


def test_reload_takes_all_or_none(own: Own) -> None:
    """A config that cannot be built serves nowhere, and successors of workers that die get the one that serves."""
    gateway = own(DEMO, server="workers = 2")
    gateway.key = gateway.create_key("me")["key"]
    gateway.start()
    good = state(gateway)["config"]["hash"]
    begin = len(gateway.lines)
    gateway.write_config(DEMO + '[providers.openai]\nkeys = ["env:NOT_THERE"]\n')
    gateway.said("config not reloaded, the old one serves on: .*NOT_THERE", begin)
    told = state(gateway)
    assert (told["config"]["hash"], told["config"]["changed"]) == (good, True)
    assert "NOT_THERE" in told["config"]["problem"]
    first = pids(gateway)
    os.kill(first[0], signal.SIGKILL)
    eventually(lambda: first[0] not in all_serve(gateway, 2), 20)
    assert {answer.status for answer in many(gateway, 20, threads=5)} == {200}
    begin = len(gateway.lines)
    gateway.write_config(DEMO + '[routes.other]\ntargets = [{provider = "demo", model = "demo"}]\n')
    gateway.signal(signal.SIGHUP)
    gateway.said("reloaded from .* by 2 workers", begin)
    assert re.search(r"workers +2 of 2 serve; 1 restart", gateway.aigw("status").stdout)
    eventually(lambda: [answer.status for answer in many(gateway, 20, HELLO | {"model": "other"}, 5)] == [200] * 20)
    assert state(gateway)["config"]["hash"] != good
    gateway._server = "workers = 7"
    gateway.write_config(DEMO)
    gateway.said(r"\[server\] workers changed: takes effect at the next start", begin)
    assert gateway.stop() == 0


def test_streams_outlive_a_reload_and_a_drain(own: Own) -> None:
    """Nothing of them is missing; the server ends with 0 when they are over."""
    with FarSide() as far:

        async def drip(peer: Peer, request: Request, number: int) -> None:
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
            for index in range(20):
                await peer.send(b'data: {"choices":[{"index":0,"delta":{"content":"%d "}}]}\n\n' % index)
                await asyncio.sleep(0.1)
            await peer.send(b"data: [DONE]\n\n")
            peer.close()

        far.scripts["slow"] = drip
        gateway = own(SLOW.format(url=far.url("slow")), server="workers = 2")
        gateway.key = gateway.create_key("me")["key"]
        gateway.start()
        body = {"model": "slow", "messages": [{"role": "user", "content": "hello"}], "stream": True}
        with ThreadPoolExecutor(10) as pool:
            streams = [pool.submit(gateway.ask, body) for _ in range(10)]
            eventually(lambda: state(gateway)["in_flight"]["streams"] == 10, 20)
            begin = len(gateway.lines)
            gateway.signal(signal.SIGHUP)
            gateway.said("reloaded from", begin)
            gateway.signal(signal.SIGTERM)
            answers = [stream.result() for stream in streams]
        assert [answer.body.count(b"content") for answer in answers] == [20] * 10
        assert all(answer.body.endswith(b"data: [DONE]\n\n") for answer in answers)
        assert gateway.wait() == 0


def test_a_second_signal_cuts(own: Own) -> None:
    """Streams end early, and the server with 0."""
    with FarSide() as far:

        async def endless(peer: Peer, request: Request, number: int) -> None:
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
            try:
                while True:
                    await peer.send(b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n')
                    await asyncio.sleep(0.1)
            except ConnectionError:
                pass

        far.scripts["slow"] = endless
        gateway = own(SLOW.format(url=far.url("slow")), server="workers = 2")
        gateway.key = gateway.create_key("me")["key"]
        gateway.start()
        body = {"model": "slow", "messages": [{"role": "user", "content": "hello"}], "stream": True}
        with ThreadPoolExecutor(4) as pool:
            streams = [pool.submit(gateway.ask, body) for _ in range(4)]
            eventually(lambda: state(gateway)["in_flight"]["streams"] == 4, 20)
            gateway.signal(signal.SIGTERM)
            eventually(lambda: all(one["ready"] != "" for one in state(gateway)["workers"]), 20)
            gateway.signal(signal.SIGTERM)
            assert gateway.wait() == 0
            for stream in streams:
                assert b"[DONE]" not in stream.result().body


def test_workers_end_with_their_supervisor(own: Own) -> None:
    """kill -9 of it: nobody is left, the port is free, and a new server starts in the same place."""
    gateway = own(DEMO, server="workers = 2")
    gateway.key = gateway.create_key("me")["key"]
    gateway.start()
    workers = pids(gateway)
    gateway.process.kill()
    gateway.process.wait(20)

    def gone(pid: int) -> bool:
        stat = Path(f"/proc/{pid}/stat")
        try:
            return stat.read_text().rpartition(")")[2].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True

    eventually(lambda: all(gone(pid) for pid in workers), 20)
    gateway.wait()
    gateway.start()
    assert gateway.ask(HELLO).status == 200
    assert gateway.stop() == 0


def test_a_crash_loop_slows_down(own: Own) -> None:
    """The first is replaced at once, the next after pauses that double; the other worker serves all the while."""
    gateway = own(DEMO, server="workers = 2")
    gateway.key = gateway.create_key("me")["key"]
    gateway.start()
    for pattern in ("starts now", r"starts in 0\.5 s", "starts in 1 s"):
        begin = len(gateway.lines)
        os.kill(all_serve(gateway, 2)[0], signal.SIGKILL)
        gateway.said(rf"worker 0 was killed .* {pattern}", begin)
        assert gateway.ask(HELLO).status == 200
    all_serve(gateway, 2)
    assert gateway.stop() == 0


def test_what_keeps_it_from_starting_is_said(own: Own) -> None:
    """A port that is taken, and a secret that is not there: a line, and the exit code of one process."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        gateway = own(DEMO)
        port = taken.getsockname()[1]
        done = gateway.aigw("serve", "--workers", "2", "--port", str(port))
        assert done.returncode == 1
        assert f"127.0.0.1:{port} is taken by another program" in done.stderr
    gateway.write_config('[providers.openai]\nkeys = ["env:NOT_THERE"]\n')
    done = gateway.aigw("serve", "--workers", "2")
    assert (done.returncode, len(re.findall("NOT_THERE", done.stderr))) == (2, 1)
    for wrong in ("0", "many", "65"):
        done = gateway.aigw("serve", "--workers", wrong)
        assert (done.returncode, "expected 1 to 64, or auto" in done.stderr) == (2, True), done.stderr


def test_a_key_that_rests_rests_for_all(own: Own) -> None:
    """One worker meets the 429; the others ask the provider no more."""
    with FarSide() as far:

        async def limited(peer: Peer, request: Request, number: int) -> None:
            body = b'{"error":{"message":"slow down"}}'
            await peer.send(
                b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\nretry-after: 30\r\n"
                b"content-length: %d\r\n\r\n%s" % (len(body), body)
            )

        far.scripts["slow"] = limited
        gateway = own(SLOW.format(url=far.url("slow")), server="workers = 4")
        gateway.key = gateway.create_key("me")["key"]
        gateway.start()
        body = {"model": "slow", "messages": [{"role": "user", "content": "hello"}]}
        assert gateway.ask(body).status != 200
        time.sleep(0.3)
        asked = len(far.seen["slow"])
        assert all(answer.status != 200 for answer in many(gateway, 24, body, 4))
        assert len(far.seen["slow"]) == asked
        assert state(gateway)["providers"][0]["resting"][0]["reason"] == "provider_rate_limited"
        assert gateway.stop() == 0


def test_a_budget_is_one_budget(own: Own) -> None:
    """A thousand at once ask four workers for what a hundred may have: exactly a hundred pass, and the records say the same."""
    with FarSide() as far:
        far.scripts["paid"] = pays
        gateway = own(config(far), server="workers = 4")
        holder, key = give(gateway, "alice", Terms(budgets=(Budget(100 * ONE, "usd", "month"),)))
        gateway.start()
        told: Counter[tuple[int, str]] = Counter()
        for _ in range(4):
            told += at_once(gateway, key, 250)
        assert told == {(200, ""): 100, (429, "policy_budget_exhausted"): 900}
        assert len(far.seen["paid"]) == 100
        assert gateway.stop() == 0
        assert in_store(gateway, lambda store: store.spent([holder], 0))[holder][0] == 100 * ONE


def test_a_budget_after_a_worker_was_killed(own: Own) -> None:
    """What it held for requests under way is there for others; what was recorded stays used: to the last request."""
    hanging = asyncio.Event()

    async def some_hang(peer: Peer, request: Request, number: int) -> None:
        if number >= 30 and not hanging.is_set() and number < 50:
            await hanging.wait()
        with contextlib.suppress(ConnectionError):
            await peer.send(answer(200, PAID))

    with FarSide() as far:
        far.scripts["paid"] = some_hang
        gateway = own(config(far), server="workers = 2")
        holder, key = give(gateway, "bob", Terms(budgets=(Budget(100 * ONE, "usd", "month"),)))
        gateway.start()
        assert at_once(gateway, key, 30) == {(200, ""): 30}
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(at_once, gateway, key, 20)
            eventually(lambda: len(far.seen["paid"]) == 50)
            for pid in pids(gateway):
                os.kill(pid, signal.SIGKILL)
            assert waiting.result() == {(0, ""): 20}
        all_serve(gateway, 2)
        told = at_once(gateway, key, 100)
        assert told == {(200, ""): 70, (429, "policy_budget_exhausted"): 30}
        assert gateway.stop() == 0
        assert in_store(gateway, lambda store: store.spent([holder], 0))[holder][0] == 100 * ONE
