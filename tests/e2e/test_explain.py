"""`aigw explain` and the live server agree: what explain names first is who a real request then goes to."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Make
from tests.e2e.far_side import FarSide, Script, answer, completion, plays, provider
from tests.e2e.world import Gateway, eventually
from tests.loopback import Peer, Request

GOOD = answer(200, completion())
DOWN = answer(503, {"error": {"message": "down", "type": "server_error", "code": None}})
LIMITED = answer(
    429, {"error": {"message": "no", "type": "rate_limit_exceeded", "code": "rate_limit_exceeded"}}, "retry-after: 90"
)

ROUTES = """
[circuit]
pause = 90.0
longest_pause = 90.0
[prices."two/*"]
input = 1
output = 1
[prices."one/*"]
input = 2
output = 2
[prices."three/*"]
input = 3
output = 3
[routes.ordered]
strategy = "priority"
targets = [{provider = "one", model = "m"}, {provider = "two", model = "m"}]
fallback = [{provider = "three", model = "m"}]
[routes.cheap]
strategy = "cheapest"
targets = [{provider = "one", model = "m"}, {provider = "two", model = "m"}, {provider = "three", model = "m"}]
[routes.talk]
strategy = "prefix-affinity"
targets = [{provider = "one", model = "m"}, {provider = "two", model = "m"}, {provider = "three", model = "m"}]
[routes.picky]
strategy = "priority"
targets = [
  {provider = "three", model = "m", when = {header = {x-tier = "gold"}}},
  {provider = "two", model = "m", when = {tools = true}},
  {provider = "one", model = "m", when = {consumer = "me", prompt_tokens = "<500"}},
]
fallback = [{provider = "two", model = "long"}]
"""


def limits(*keys: int) -> Script:
    """The keys of these numbers are limited, the others are good."""

    async def script(peer: Peer, request: Request, number: int) -> None:
        key = request.headers.get(b"authorization", b"").decode()
        await peer.send(LIMITED if any(f".{number}.0123" in key for number in keys) else GOOD)

    return script


@pytest.fixture(scope="module")
def far() -> Iterator[FarSide]:
    with FarSide() as side:
        side.scripts |= dict.fromkeys(("one", "two", "three"), plays(GOOD))
        yield side


@pytest.fixture(scope="module")
def gateway(make: Make, far: FarSide) -> Gateway:
    return make("".join(provider(name, far.url(name), keys=2) for name in ("one", "two", "three")) + ROUTES)


def situation(seed: int) -> tuple[dict[str, Any], dict[str, str]]:
    """A request and its headers, another for each number."""
    chance = random.Random(seed)
    route = ("ordered", "picky", "talk", "cheap")[seed % 4]
    body: dict[str, Any] = {"model": route, "messages": [{"role": "user", "content": f"hello {chance.random()}"}]}
    if chance.random() < 0.4:
        body["tools"] = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    if chance.random() < 0.3:
        body["messages"][0]["content"] += " and so on" * 500
    return body, {"x-tier": "gold"} if chance.random() < 0.3 else {}


def explained(gateway: Gateway, body: dict[str, Any], headers: dict[str, str], *more: str) -> dict[str, Any]:
    file = gateway.folder / "request.json"
    file.write_text(json.dumps(body))
    fields = [part for name, value in headers.items() for part in ("--header", f"{name}={value}")]
    done = gateway.aigw("explain", "-f", str(file), "--consumer", "me", *fields, *more, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_it_agrees_with_the_server(gateway: Gateway, far: FarSide) -> None:
    """Twenty requests, in five kinds of weather: the first place and its key, in the chain of the real request."""
    weathers: list[tuple[dict[str, Script], str]] = [
        ({}, ""),
        ({"one": limits(1)}, "one"),
        ({"one": limits(1, 2)}, "one"),
        ({"two": plays(DOWN)}, "two"),
        ({"three": limits(2)}, "three"),
    ]
    firsts, asked = set(), 0
    for number, (scripts, touched) in enumerate(weathers):
        far.scripts |= scripts
        for _ in range(20 if touched else 0):
            gateway.ask({"model": f"{touched}/m", "messages": []})
            gateway.ask({"model": "cheap", "messages": []})
        for seed in range(4 * number, 4 * number + 4):
            body, headers = situation(seed)
            told = explained(gateway, body, headers)
            real = gateway.ask(body, headers=headers)
            chain = gateway.attempts(real.id)
            assert told["server"]["same_config"]
            assert told["first"] == f"{chain[0].provider}/{chain[0].model}", (seed, told, chain)
            assert told["attempts"][0]["key"] == chain[0].key, (seed, told, chain)
            if len(chain) == 1:
                assert real.headers["x-aigw-provider"] == told["attempts"][0]["provider"]
            firsts.add(chain[0].provider)
            asked += 1
    assert firsts == {"one", "two", "three"}
    assert asked == 20
    weather = explained(gateway, *situation(3))
    assert next(one["circuit"] for one in weather["candidates"] if one["deployment"] == "two/m") == "open"
    states = {one["key"]: one["state"] for place in weather["candidates"] for one in place["keys"]}
    assert states["one#1"] == states["one#2"] == "resting"


def test_nothing_is_sent(gateway: Gateway, far: FarSide) -> None:
    """However often it is asked; and nothing is recorded."""
    before = {name: len(seen) for name, seen in far.seen.items()}
    for seed in range(3):
        explained(gateway, *situation(seed), "--down", "one")
    assert {name: len(seen) for name, seen in far.seen.items()} == before
    assert gateway.query("SELECT count(*) FROM record WHERE id NOT LIKE 'req%'") == [(0,)]


def test_a_canary_is_explained(make: Make, far: FarSide) -> None:
    """The arm that explain names is the arm of the real request."""
    far.scripts |= dict.fromkeys(("one", "two"), plays(GOOD))
    own = make(
        "".join(provider(name, far.url(name)) for name in ("one", "two"))
        + ROUTES.partition("[prices")[0]
        + ('[routes.ordered]\ntargets = [{provider = "one", model = "m"}]\n')
    )
    assert (
        own.aigw("canary", "start", "ordered", "--to", "two/m", "--steps", "50,100", "--sticky", "header:x-user").returncode
        == 0
    )
    arms: set[str] = set()
    for user in range(60):  # each has one half of the chance for either arm
        if user >= 6 and len(arms) == 2:
            break
        headers = {"x-user": str(user)}
        body = {"model": "ordered", "messages": [{"role": "user", "content": "hello"}]}
        told = explained(own, body, headers)

        def answered(body: dict[str, Any] = body, headers: dict[str, str] = headers) -> str:
            real = own.ask(body, headers=headers)
            return own.record(real.id).arm

        eventually(answered)  # until the server has heard of it
        assert told["canary"]["arm"] == answered()
        arms.add(told["canary"]["arm"])
    assert arms == {"old", "new"}


def test_a_past_request(gateway: Gateway, far: FarSide) -> None:
    """Its chain with the reasons, its cost, and what to do; by the beginning of its id, too; with the server off as well."""
    real = gateway.ask({"model": "picky", "messages": [{"role": "user", "content": "hello"}]})
    shown = gateway.aigw("explain", real.id)
    assert shown.returncode == 0
    assert real.id in shown.stdout
    assert "1. +" in shown.stdout
    assert "7 input x" in shown.stdout
    assert "3 output x" in shown.stdout
    lost = gateway.ask({"model": "nobody-has-this", "messages": []})
    shown = gateway.aigw("explain", lost.id)
    assert "caller_model_not_found" in shown.stdout
    assert "aigw models" in shown.stdout
    unknown = gateway.aigw("explain", f"{real.id[:-1]}x")
    assert unknown.returncode == 1
    assert real.id in unknown.stderr or "did you mean" in unknown.stderr
    several = gateway.aigw("explain", real.id[:12])
    assert several.returncode == 1
    assert "several requests" in several.stderr
