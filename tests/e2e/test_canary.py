"""Canaries of a real server: they go back by themselves, wait, and grow; they survive restarts and follow the config."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aigw.routing import canary
from tests.e2e.far_side import DONE, END, STREAM_HEAD, USAGE, FarSide, Script, answer, chunk, completion, delta, plays, provider
from tests.e2e.world import HELLO, Gateway, ask, eventually
from tests.loopback import Peer, Request

Own = Callable[..., Gateway]

ASKED = HELLO | {"model": "chat"}


def config(far_side: FarSide, **scripts: Script) -> str:
    """Providers that play *scripts*, and the route `chat` to the one called `old`."""
    far_side.scripts.update(scripts)
    tables = "".join(provider(name, far_side.url(name)) for name in scripts)
    prices = "".join(f'[prices."{name}/m"]\ninput = 1000\noutput = 1000\n' for name in scripts)
    return f'{tables}{prices}[routes.chat]\ntargets = [{{provider = "old", model = "m"}}]\n'


def good() -> Script:
    return plays(answer(200, completion()))


def streams(pause: float) -> Script:
    """A stream whose first word comes after *pause* seconds."""

    async def script(peer: Peer, request: Request, number: int) -> None:
        await peer.send(STREAM_HEAD, pause)
        for event in (delta("one"), delta("two"), USAGE, DONE):
            await peer.send(chunk(event))
        await peer.send(END)

    return script


def run(gateway: Gateway, *arguments: str) -> str:
    done = gateway.aigw("canary", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def status(gateway: Gateway) -> dict[str, Any]:
    return json.loads(run(gateway, "status", "chat", "--json"))  # type: ignore[no-any-return]


def state(gateway: Gateway) -> str:
    """That of the newest canary, without a process that asks for it."""
    return str(canary.read(gateway.query("SELECT value FROM value WHERE key = ?", (canary.KEY,))[0][0])[-1].status)


def traffic(gateway: Gateway, requests: int, body: dict[str, Any] = ASKED, people: int = 200) -> Counter[str]:
    """*requests* by ten callers for *people*; who answered, how often. None of them fails."""

    def some(first: int) -> list[str]:
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
        found = []
        for number in range(first, requests, 10):
            got = ask(connection, body, headers=gateway.headers({"x-person": f"p{number % people}"}))
            assert got.status == 200, got.body
            found.append(got.headers["x-aigw-provider"])
        connection.close()
        return found

    with ThreadPoolExecutor(10) as pool:
        return Counter(name for names in pool.map(some, range(10)) for name in names)


def begun(own: Own, written: str, *flags: str) -> Gateway:
    """A server of *written*, with a canary from old to new that has been heard of."""
    gateway = own(written)
    gateway.key = gateway.create_key("me")["key"]
    gateway.start()
    run(gateway, "start", "chat", "--to", "new/m", *flags)
    eventually(lambda: gateway.metrics()["aigw_canaries_active"] == 1, 2.0)
    return gateway


def test_a_failing_one_is_rolled_back(own: Own, far_side: FarSide) -> None:
    """Every third answer of the new side is a 500: no caller sees one, it is rolled back within seconds, the reason is in the
    log, in the metrics and shown, and traffic goes where the config says. It stays so after a restart."""
    bad = plays(answer(200, completion()), answer(200, completion()), answer(500, {"error": {"message": "oh"}}))

    async def third(peer: Peer, request: Request, number: int) -> None:
        await bad(peer, request, number % 3)

    gateway = begun(own, config(far_side, old=good(), new=third), "--steps", "20,100", "--sticky", "header:x-person")
    eventually(lambda: traffic(gateway, 50) and state(gateway) == "rolled_back", every=0.2)
    found = status(gateway)
    assert found["state"] == "rolled_back"
    assert found["reason"].startswith("errors: ")
    assert found["new"]["requests"] <= 200
    assert found["new"]["errors"] >= 3
    assert found["old"]["errors"] == 0
    assert gateway.said(r"canary chat -> new/m: rolled back: errors: ")
    assert gateway.metrics()["aigw_canary_rollbacks_total"] == 1
    assert gateway.metrics()["aigw_canaries_active"] == 0
    assert set(traffic(gateway, 60)) == {"old"}
    eventually(lambda: len(gateway.records("arm = 'new'")) >= found["new"]["requests"])
    assert {record.canary for record in gateway.records("arm <> ''")} == {found["id"]}
    gateway.stop()
    gateway.start()
    assert status(gateway)["state"] == "rolled_back"
    assert set(traffic(gateway, 60)) == {"old"}


def test_a_slow_one_is_paused_and_resumed(own: Own, far_side: FarSide) -> None:
    """Twice as slow to the first token: no further step, but no way back either. Resumed, it is not paused for that again, and
    where it was asked for it is rolled back."""
    written = config(far_side, old=streams(0.02), new=streams(0.06))
    flags = ("--steps", "50,100", "--sticky", "header:x-person", "--min-samples", "1000000")
    gateway = begun(own, written, *flags)
    streamed = ASKED | {"stream": True}
    eventually(lambda: traffic(gateway, 60, streamed) and state(gateway) == "paused")
    found = status(gateway)
    assert (found["state"], found["share"]) == ("paused", 50)
    assert "the median time to the first token" in found["reason"]
    assert set(traffic(gateway, 40, streamed)) == {"old", "new"}
    run(gateway, "resume", "chat")
    assert status(gateway)["accepted"] == ["latency"]
    traffic(gateway, 60, streamed)
    gateway.stop()
    assert status(gateway)["state"] == "running"
    assert status(gateway)["new"]["requests"] > found["new"]["requests"]


def test_a_good_one_gets_everything(own: Own, far_side: FarSide) -> None:
    """Step by step to 100 %; a restart on the way keeps step and counts; written into the config it is done."""
    written = config(far_side, old=good(), new=good())
    flags = ("--steps", "30,60,100", "--every", "1s", "--min-samples", "60", "--sticky", "header:x-person")
    gateway = begun(own, written, *flags)
    seen: dict[str, int] = {}
    restarted = False
    deadline = time.monotonic() + 30
    while state(gateway) != "complete" and time.monotonic() < deadline:
        traffic(gateway, 50)
        time.sleep(0.1)
        if not restarted and status(gateway)["step"] == 1:
            restarted = True
            gateway.stop()
            seen = status(gateway)["new"]
            gateway.start()
    found = status(gateway)
    assert found["state"] == "complete"
    assert restarted
    assert found["new"]["requests"] > seen["requests"]
    assert [event["what"] for event in found["history"]] == ["started", "step", "step"]
    assert set(traffic(gateway, 40)) == {"new"}
    run(gateway, "promote", "chat", "--write", "--yes")
    assert 'targets = [{provider = "new", model = "m"}]' in gateway.config.read_text()
    assert status(gateway)["state"] == "done"
    assert set(traffic(gateway, 40)) == {"new"}


def test_a_config_that_no_longer_fits_ends_it(own: Own, far_side: FarSide) -> None:
    """The provider goes, the route changes: the canary is stopped with the reason, and callers are served."""
    both = config(far_side, old=good(), new=good(), third=good())
    gateway = begun(own, both, "--steps", "50,100", "--sticky", "header:x-person")
    assert set(traffic(gateway, 60)) == {"old", "new"}
    gateway.write_config(both.replace('provider = "old"', 'provider = "third"'))
    eventually(lambda: state(gateway) == "stopped")
    assert status(gateway)["reason"] == "the targets of the route have changed in the config"
    assert set(traffic(gateway, 30)) == {"third"}
    run(gateway, "start", "chat", "--to", "new/m", "--steps", "50,100", "--sticky", "header:x-person")
    gateway.write_config(config(far_side, old=good(), third=good()))
    eventually(lambda: state(gateway) == "stopped")
    assert set(traffic(gateway, 30)) == {"old"}


def test_a_shadow_answers_nobody_and_keeps_to_its_money(own: Own, far_side: FarSide) -> None:
    """Copies go out after the answer, have records that name nobody, cost what their cap allows and end with it."""

    async def slow(peer: Peer, request: Request, number: int) -> None:
        await asyncio.sleep(0.3)
        await peer.send(answer(200, completion("never seen")))

    gateway = begun(own, config(far_side, old=good(), new=slow), "--shadow", "50%", "--spend", "0.1usd")
    before = len(far_side.seen["new"])
    started = status(gateway)
    eventually(lambda: set(traffic(gateway, 20)) == {"old"} and state(gateway) == "spent", every=0.3)
    found = status(gateway)
    assert (started["state"], found["state"]) == ("running", "spent")
    eventually(lambda: len(gateway.records("arm = 'shadow'")) >= 10)
    copies = gateway.records("arm = 'shadow'")
    assert len(copies) == len(far_side.seen["new"]) - before == 10  # of a cent each: ten tokens at a thousand dollars a million
    assert sum(record.cost or 0 for record in copies) == 100_000_000
    assert {record.consumer for record in copies} == {""}
    originals = {record.id: record for record in gateway.records("arm = 'old'")}
    assert all(originals[record.id.removesuffix("-shadow")].took < 250_000 for record in copies)
