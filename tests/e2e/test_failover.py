"""Providers that go down, and come back: a real gateway in front of real sockets; no caller sees a failure."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.conftest import Make
from tests.e2e.far_side import FarSide, Script, answer, completion, plays, provider
from tests.e2e.world import Gateway, ask, eventually
from tests.loopback import Peer, Request

ASK = {"model": "pair", "messages": [{"role": "user", "content": "hello"}]}
GOOD = answer(200, completion())
DOWN = answer(503, {"error": {"message": "down", "type": "server_error", "code": None}})


@pytest.fixture
def far() -> Iterator[FarSide]:
    with FarSide() as side:
        side.scripts |= {"one": plays(GOOD), "two": plays(GOOD)}
        yield side


def pair(far: FarSide, more: str = "") -> str:
    places = '[routes.pair]\ntargets = [{provider = "one", model = "m"}]\nfallback = [{provider = "two", model = "m"}]\n'
    return provider("one", far.url("one"), "first_byte_timeout = 0.5") + provider("two", far.url("two")) + places + more


def many(gateway: Gateway, count: int, at_once: int) -> Counter[int]:
    """Statuses of *count* requests, *at_once* of them under way."""
    local = threading.local()
    opened: list[http.client.HTTPConnection] = []

    def one(_: int) -> int:
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
            opened.append(local.connection)
        return ask(local.connection, ASK, headers={"authorization": f"Bearer {gateway.key}"}).status

    with ThreadPoolExecutor(at_once) as callers:
        found = Counter(callers.map(one, range(count)))
    for connection in opened:
        connection.close()
    return found


async def _resets(peer: Peer, request: Request, number: int) -> None:
    peer.reset()
    raise ConnectionResetError


async def _swallows(peer: Peer, request: Request, number: int) -> None:
    await peer.gone()
    raise ConnectionResetError


WAYS: dict[str, Script] = {
    "reset": _resets,
    "500": plays(answer(500, {"error": {"message": "broken"}})),
    "503": plays(DOWN),
    "black hole": _swallows,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_provider_goes_down_and_nobody_notices(make: Make, far: FarSide, way: str) -> None:
    """50 in flight, no failure; it is passed over, and when it is well it is asked again within five seconds."""
    gateway = make(pair(far))
    assert many(gateway, 20, 5) == {200: 20}
    far.scripts["one"] = WAYS[way]
    assert many(gateway, 400, 50) == {200: 400}
    before = len(far.seen["one"])
    assert many(gateway, 100, 10) == {200: 100}
    assert len(far.seen["one"]) - before <= 5, "it is passed over but for a look"
    far.scripts["one"] = plays(GOOD)
    back, since = len(far.seen["one"]), time.monotonic()

    def asked_again() -> bool:
        many(gateway, 5, 1)
        return len(far.seen["one"]) >= back + 5

    eventually(asked_again, within=5.0, every=0.1)
    assert time.monotonic() - since < 5.0


@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=pytest.mark.long)])
def test_a_provider_that_refuses_connections(make: Make, far: FarSide, count: int) -> None:
    """Nobody listens at its address: the fallback answers, and soon it is not even tried any more."""
    with socket.socket() as taken:  # bound, and deaf
        taken.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{taken.getsockname()[1]}/one/v1"
        gateway = make(pair(far).replace(far.url("one"), nowhere))
        assert many(gateway, count, 50) == {200: count}
        tried = gateway.query('SELECT count(*) FROM record WHERE attempts LIKE \'%"error":"provider_unreachable"%\'')[0][0]
    assert tried < count / 2


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
def test_ten_thousand_requests_meet_a_broken_provider(make: Make, far: FarSide, way: str) -> None:
    """50 in flight all the time, and no caller sees a failure."""
    gateway = make(pair(far))
    far.scripts["one"] = WAYS[way]
    assert many(gateway, 10_000, 50) == {200: 10_000}


def test_an_outage_is_not_multiplied(make: Make, far: FarSide) -> None:
    """Everything down: the providers see less than 1.2 times what callers asked for, and every caller gets an answer."""
    gateway = make(pair(far))
    far.scripts |= {"one": plays(DOWN), "two": plays(DOWN)}
    statuses = many(gateway, 1500, 20)
    assert statuses == {503: 1500}
    assert len(far.seen["one"]) + len(far.seen["two"]) < 1500 * 1.2


@pytest.mark.long
def test_an_outage_of_a_minute_is_not_multiplied(make: Make, far: FarSide) -> None:
    """The same for a minute."""
    gateway = make(pair(far))
    far.scripts |= {"one": plays(DOWN), "two": plays(DOWN)}
    offered, until = 0, time.monotonic() + 60
    while time.monotonic() < until:
        offered += many(gateway, 500, 20).total()
    assert len(far.seen["one"]) + len(far.seen["two"]) < offered * 1.2


@pytest.mark.parametrize(("seconds", "at_once"), [(2, 100), pytest.param(60, 1000, marks=pytest.mark.long)])
def test_flapping(make: Make, far: FarSide, seconds: int, at_once: int) -> None:
    """Targets that come and go every 200 ms: nothing hangs, nothing leaks, and every request has its record."""
    gateway = make(pair(far))
    over = threading.Event()

    def flap() -> None:
        turn = 0
        while not over.wait(0.2):
            turn += 1
            far.scripts["one" if turn % 2 else "two"] = plays(GOOD)
            far.scripts["two" if turn % 2 else "one"] = plays(DOWN)

    flapping = threading.Thread(target=flap)
    flapping.start()
    asked, until = Counter[int](), time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            asked += many(gateway, 5 * at_once, at_once)
    finally:
        over.set()
        flapping.join()
    assert set(asked) <= {200, 503}
    eventually(lambda: gateway.query("SELECT count(*) FROM record") == [(asked.total(),)], within=30)
    state = json.loads(gateway.aigw("status", "--json").stdout)
    assert state["in_flight"]["exchanges"] == 0
    assert all(one["in_flight"] == 0 for one in json.loads(gateway.aigw("routes", "--json").stdout)[0]["health"].values())


def test_routes_show_how_their_places_do(make: Make, far: FarSide) -> None:
    """A place that is passed over is named with its reason."""
    gateway = make(pair(far))
    assert many(gateway, 3, 1) == {200: 3}
    assert "well" in gateway.aigw("routes").stdout
    far.scripts["one"] = plays(DOWN)
    many(gateway, 8, 1)
    assert "one/m: passed over (overloaded" in gateway.aigw("routes").stdout
    assert "health of one/m:" in gateway.aigw("routes", "show", "pair").stdout


def test_health_outlives_a_reload(make: Make, far: FarSide) -> None:
    """A config that is saved does not send everybody back to what is broken."""
    gateway = make(pair(far, "[circuit]\npause = 60.0\nlongest_pause = 60.0\n"))
    far.scripts["one"] = plays(DOWN)
    many(gateway, 5, 1)
    seen = len(far.seen["one"])
    gateway.write_config(pair(far, "[circuit]\npause = 60.0\nlongest_pause = 60.0\nwindow = 9.0\n") + "[log]\nlevel = 'info'\n")
    assert gateway.aigw("reload").returncode == 0 or not time.sleep(3)
    assert many(gateway, 10, 2) == {200: 10}
    assert len(far.seen["one"]) == seen
