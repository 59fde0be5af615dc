"""What a running server tells of itself."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from aigw import __version__
from aigw.errors import UpstreamError
from aigw.server.state import _generations, in_flight, together
from tests.data_port import DEMO, HELLO, KEY, request, serving
from tests.walk import EVENTS, NoFlow, Scripted

CHAT = "/v1/chat/completions"
STREAM = HELLO.replace(b'"demo"', b'"demo","stream":true')


async def test_what_runs_here(tmp_path: Path) -> None:
    """Who, since when, where, with which config; nothing in it is a secret."""
    began = time.time()
    async with serving(tmp_path, DEMO.replace("[admin]", 'keys = ["sk-hidden"]\n[admin]').replace("keys", "#", 1)) as port:
        state = port.server.state()
        assert state["version"] == __version__
        assert began <= state["started_at"] <= state["now"] <= time.time()
        assert state["ready"] == ""
        assert state["addresses"]["data"][0] == f"http://127.0.0.1:{port.server.port}"
        assert state["bound"]["admin"][0] == f"127.0.0.1:{port.server.admin_port}"
        [demo] = state["providers"]
        assert (demo["name"], demo["keys"], demo["resting"]) == ("demo", 1, [])
        assert [(one["key"], one["state"], one["in_flight"]) for one in demo["pool"]] == [("demo", "ready", 0)]
        assert state["in_flight"] == {"exchanges": 0, "streams": 0, "by_model": {}, "by_consumer": {}}
        assert KEY not in json.dumps(state)


async def test_addresses_are_those_of_this_machine(tmp_path: Path) -> None:
    """Bound to all addresses: told apart from where to call it."""
    async with serving(tmp_path, DEMO, {"host": "0.0.0.0"}) as port:
        state = port.server.state()
        assert state["bound"]["data"] == [f"0.0.0.0:{port.server.port}"]
        assert state["addresses"]["data"] == [f"http://127.0.0.1:{port.server.port}"]


async def test_who_is_under_way(tmp_path: Path) -> None:
    """Streams and others, by model and consumer, until they end; idle connections are none of them."""
    gate = asyncio.Event()

    async def play(request: object, receiver: Any) -> None:
        if b'"stream":true' in request.body:  # type: ignore[attr-defined]
            receiver.head(200, [EVENTS], NoFlow())
            receiver.feed(b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n')
        await gate.wait()
        raise UpstreamError("provider_error", "said no", sent=True)

    async with serving(tmp_path) as port:
        port.server.gateway.pipeline.attempter.transport = Scripted(play)
        await port.call()
        callers = [await port.call() for _ in range(3)]
        for caller, body in zip(callers, (STREAM, STREAM, HELLO), strict=True):
            await caller.send(request("POST", CHAT, body))
        async with asyncio.timeout(5):
            while len(in_flight()) < 3 or not all(one.provider for one in in_flight()):
                await asyncio.sleep(0.005)
        assert port.server.state()["in_flight"] == {
            "exchanges": 3,
            "streams": 2,
            "by_model": {"demo": 3},
            "by_consumer": {"ci": 3},
        }
        gate.set()
        await port.idle()
        assert in_flight() == []


async def test_counters(tmp_path: Path) -> None:
    """Requests, errors and tokens since the start."""
    async with serving(tmp_path) as port:
        assert (await port.ask("POST", CHAT, HELLO)).status == 200
        assert (await port.ask("POST", CHAT, b"{}")).status == 400
        await port.records(2)
        counted = port.server.state()["counters"]
        assert (counted["requests"], counted["errors"], counted["records_lost"]) == (2, 1, 0)
        assert counted["input_tokens"] > 0
        assert counted["output_tokens"] > 0


async def test_resting_keys(tmp_path: Path) -> None:
    """By label, with seconds left and the reason."""
    config = DEMO + '[providers.openai]\nkeys = ["sk-one", "sk-two"]\nlist_models = false\n'
    async with serving(tmp_path, config) as port:
        pool = port.server.gateway.pools["openai"]
        error = UpstreamError("provider_rate_limited", "slow down", retry_after=30.0, fault="key")
        pool.failed(pool.keys[1], error, time.perf_counter())
        [openai] = [one for one in port.server.state()["providers"] if one["name"] == "openai"]
        [resting] = openai["resting"]
        assert (openai["keys"], resting["key"], resting["reason"]) == (2, "openai#2", "provider_rate_limited")
        assert 25 < resting["seconds"] <= 30


async def test_not_ready(tmp_path: Path) -> None:
    """Why not."""
    async with serving(tmp_path, "[server]\nport = 0\n[admin]\nport = 0\n") as port:
        assert port.server.state()["ready"] == "no provider is configured"


async def test_several_are_as_one(tmp_path: Path) -> None:
    """What is counted is added up; of what each sees of one thing the worst holds; the supervisor's own word comes last."""
    async with serving(tmp_path) as port:
        one = port.server.state()
    other = json.loads(json.dumps(one))
    for told, active, state, seconds, circuit in ((one, 2, "ready", 0.0, "closed"), (other, 3, "resting", 7.0, "open")):
        told["in_flight"] = {"exchanges": active, "streams": 1, "by_model": {"m": active}, "by_consumer": {"c": active}}
        told["counters"]["requests"] = 10 * active
        told["providers"][0]["pool"][0] |= {"in_flight": active, "state": state, "seconds": seconds}
        told["providers"][0]["resting"] = [{"key": "k", "seconds": seconds, "reason": "r"}] if seconds else []
        told["deployments"] = [
            {"deployment": "d", "circuit": circuit, "seconds": seconds, "reason": "", "row": 0, "in_flight": active}
            | {"good": active, "failed": 1, "first_byte": None, "first_token": seconds or None}
        ]
    other["ready"] = "draining"
    both = together([one, other], {"pid": 7})
    assert both.keys() == one.keys()
    assert (both["pid"], both["ready"], both["counters"]["requests"]) == (7, "draining", 50)
    assert both["in_flight"] == {"exchanges": 5, "streams": 2, "by_model": {"m": 5}, "by_consumer": {"c": 5}}
    key = both["providers"][0]["pool"][0]
    assert (key["in_flight"], key["state"], key["seconds"]) == (5, "resting", 7.0)
    assert both["providers"][0]["resting"] == [{"key": "k", "seconds": 7.0, "reason": "r"}]
    health = both["deployments"][0]
    assert (health["circuit"], health["in_flight"], health["good"], health["failed"], health["first_token"]) == (
        "open",
        5,
        5,
        2,
        7.0,
    )


async def test_generations(tmp_path: Path) -> None:
    """A config that was replaced is told of for as long as something goes by it."""
    gate = asyncio.Event()

    async def play(request: object, receiver: Any) -> None:
        await gate.wait()
        raise UpstreamError("provider_error", "said no", sent=True)

    async with serving(tmp_path) as port:
        (first,) = port.server.state()["generations"]
        assert (first["number"], first["exchanges"], first["serves"]) == (1, 0, True)
        port.server.gateway.pipeline.attempter.transport = Scripted(play)
        caller = await port.call()
        await caller.send(request("POST", CHAT, HELLO))
        async with asyncio.timeout(5):
            while not in_flight():
                await asyncio.sleep(0.005)
        assert await port.server.reload()
        told = port.server.state()["generations"]
        assert [(one["number"], one["exchanges"], one["serves"]) for one in told] == [(2, 0, True), (1, 1, False)]
        gate.set()
        await port.idle()
        async with asyncio.timeout(5):
            while len(port.server.state()["generations"]) > 1:
                await asyncio.sleep(0.005)


def test_generations_of_several_workers() -> None:
    def told(number: int, exchanges: int, *, serves: bool, since: float = 1.0) -> dict[str, Any]:
        return {"number": number, "config": "c", "since": since + number, "exchanges": exchanges, "serves": serves}

    both = [[told(2, 3, serves=True), told(1, 1, serves=False)], [told(2, 4, serves=True, since=0.5)]]
    assert _generations(both) == [told(2, 7, serves=True, since=0.5), told(1, 1, serves=False)]
