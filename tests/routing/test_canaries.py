"""The canaries of a process: who goes where, what counts, and what several processes make of one store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aigw.consumer import Caller, Consumer, ConsumerKey
from aigw.deployment import Deployment, Route
from aigw.errors import StoreError
from aigw.exchange import Exchange, Usage
from aigw.routing import canaries, canary
from aigw.routing.canaries import Canaries, Watch, collected, edit, edit_all, is_empty, is_refusal, read
from aigw.routing.canary import NEW, OLD, Canary
from aigw.storage.base import Store
from aigw.storage.sqlite import SqliteStore

ROUTE = Route(name="chat", targets=(Deployment(provider="old", model="m"),))
SAID = b'{"choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}]}'


def one(**settings: Any) -> Canary:
    return Canary(
        **({"id": "c", "route": "chat", "provider": "new", "model": "m", "before": canary.places(ROUTE.targets)} | settings)
    )


def asked(who: str = "1", **settings: Any) -> Exchange:
    caller = Caller(Consumer(id=who, name=who), ConsumerKey(id=who and "k", consumer_id=who, digest=b""))
    wanted = {"id": "req_1", "at": 1.0, "operation": "chat", "requested_model": "chat", "headers": {}, "caller": caller}
    return Exchange(**(wanted | settings))


def over(exchange: Exchange, route: Route, **became: Any) -> Exchange:
    """*exchange* as it is when it was answered by its route's first target."""
    exchange.chosen = route
    target = route.targets[0]
    became = {"provider": target.provider, "model": target.model, "usage": Usage(input=7, output=3), "sample": SAID} | became
    for name, value in became.items():
        setattr(exchange, name, value)
    if "bytes_out" not in became:
        exchange.bytes_out = len(exchange.sample)
    return exchange


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = SqliteStore(tmp_path / "aigw.db")
    yield store
    await store.close()


async def started(store: Store, *wanted: Canary) -> Canaries:
    """A process that has heard of *wanted*."""
    await edit_all(store, lambda found: bool(wanted) and (found.extend(wanted) or True))
    found = Canaries(store)
    await found.load()
    return found


# ---- who goes where


def test_arms_are_sticky() -> None:
    """A consumer stays on its side, whatever it asks for; about half of many are on each, and the exchange says which."""
    watch = Watch(one(steps=(50.0, 100.0)))
    arms = {}
    for who in range(400):
        sides = set()
        for body in (b"a", b"b"):
            exchange = asked(str(who), body=body)
            route = watch.route(exchange, ROUTE)
            assert (route is ROUTE) == (exchange.arm == OLD)
            assert exchange.canary == "c"
            sides.add(exchange.arm)
        assert len(sides) == 1
        arms[who] = sides.pop()
    assert 150 < list(arms.values()).count(NEW) < 250
    assert watch.moved(ROUTE) is watch.moved(ROUTE)


def test_sticky_by_header_and_by_conversation() -> None:
    """A header, or what a conversation begins with, decides; where there is none the consumer does."""

    def arm(watch: Watch, **settings: Any) -> str:
        exchange = asked(**settings)
        watch.route(exchange, ROUTE)
        return exchange.arm

    by_header = Watch(one(steps=(50.0, 100.0), sticky="header:x-session"))
    assert {arm(by_header, headers={"x-session": "s1"}, who=str(who)) for who in range(50)} == {
        arm(by_header, headers={"x-session": "s1"})
    }
    assert len({arm(by_header, headers={"x-session": str(number)}) for number in range(50)}) == 2
    assert len({arm(by_header, who="7", body=b"%d" % number) for number in range(50)}) == 1
    by_talk = Watch(one(steps=(50.0, 100.0), sticky="conversation"))
    talks = [
        b'{"messages": [{"role": "user", "content": "%d"}%b]}' % (n, more)
        for n in range(50)
        for more in (b"", b', {"role": "x"}')
    ]
    arms = [arm(by_talk, body=talk) for talk in talks]
    assert arms[::2] == arms[1::2]
    assert set(arms) == {OLD, NEW}


def test_nobody_without_a_name() -> None:
    """Where no key is required, the request's user or its address tells callers apart."""
    watch = Watch(one(steps=(50.0, 100.0)))
    seen = set()
    for number in range(50):
        exchange = asked("", address=f"10.0.0.{number}")
        watch.route(exchange, ROUTE)
        seen.add(exchange.arm)
    assert seen == {OLD, NEW}


def test_embeddings_never_change_their_model() -> None:
    """They keep the old side, uncounted, unless it is the same model at another place."""
    other = Watch(one(model="m2", steps=(100.0,)))
    exchange = asked(operation="embeddings")
    assert other.route(exchange, ROUTE) is ROUTE
    assert exchange.arm == ""
    exchange = asked(operation="embeddings")
    assert Watch(one(steps=(100.0,))).route(exchange, ROUTE).targets[0].provider == "new"


def test_what_a_provider_keeps_stays_with_it() -> None:
    """A request that goes on from a stored response is on no side."""
    exchange = asked(operation="responses", owner=object())
    assert Watch(one(steps=(100.0,))).route(exchange, ROUTE) is ROUTE
    assert exchange.arm == ""


def test_shadows_are_drawn_of_talks() -> None:
    """The route stays; a copy is wanted of about as many as was said, and never of what is not safe to repeat."""
    watch = Watch(one(shadow=20.0))
    wanted = 0
    for number in range(500):
        exchange = asked(id=f"req_{number}")
        assert watch.route(exchange, ROUTE) is ROUTE
        wanted += exchange.mirrored
    assert 60 < wanted < 140
    pictures = [asked(id=f"req_{number}", operation="images") for number in range(50)]
    for exchange in pictures:
        watch.route(exchange, ROUTE)
    assert not any(exchange.mirrored for exchange in pictures)


# ---- what counts


def test_what_counts_against_a_side() -> None:
    """The provider's fault, a fallback's help and an empty answer; not the caller's mistakes, nor callers who left."""
    watch = Watch(one(steps=(100.0,)))

    def new(**became: Any) -> None:
        exchange = asked()
        watch.observe(over(exchange, watch.route(exchange, ROUTE), **became))

    new()
    new(outcome="provider_error", error="provider_error")
    new(provider="old")  # it failed over: its caller is happy, the new side is not
    new(outcome="provider_error", error="provider_rejected")
    new(sample=b'{"choices": [{"message": {"content": ""}}]}')
    new(finish_reason="content_filter")
    for outcome in ("client_closed", "caller_error", "policy_error", "gateway_error"):
        new(outcome=outcome)
    new(operation="count_tokens")
    tally = watch.counts.new
    assert (tally.requests, tally.errors, tally.empty, tally.refusals, tally.rejections) == (6, 2, 1, 1, 1)
    assert watch.counts.old.requests == 0


def test_pace_and_money() -> None:
    """Streams have a first token and a speed, whole answers their time; what has no price is counted as such."""
    watch = Watch(one(steps=(100.0,)))
    exchange = asked()
    route = watch.route(exchange, ROUTE)
    watch.observe(over(exchange, route, first_token=1_000_000, took=3_000_000, usage=Usage(output=100), cost=5, currency="USD"))
    exchange = asked()
    watch.observe(over(exchange, watch.route(exchange, ROUTE), took=500_000, cost=5, currency="CNY", abandoned_cost=2))
    tally = watch.counts.new
    assert canary.speed(tally) == 50
    assert (sum(tally.first_token.values()), sum(tally.whole.values())) == (1, 1)
    assert (tally.priced, tally.unpriced, tally.cost) == (1, 1, 7)


@pytest.mark.parametrize(
    ("sample", "usage", "empty"),
    [
        (SAID, Usage(output=3), False),
        (b'{"choices":[{"message":{"content":""}}]}', Usage(output=3), True),
        (b'{"choices":[{"message":{"content":null,"tool_calls":[{}]}}]}', Usage(output=3), False),
        (b'data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"Hi"}}\n\n', None, False),
        (b'{"content":[{"type":"tool_use","input":{}}]}', Usage(output=3, estimated=True), False),
        (b'{"content":[]}', Usage(output=0), True),
        (b'data: {"choices":[{"delta":{"reasoning_content":"hm"}}]}\n\n', Usage(output=9, reasoning=9), True),
        (b'data: {"type":"response.output_text.delta","delta":"Hi"}\n\n', None, False),
    ],
)
def test_empty_answers(sample: bytes, usage: Usage | None, empty: bool) -> None:
    """Nothing said and nothing called; of an answer whose rest is not at hand, only the provider's count tells."""
    assert is_empty(over(asked(), ROUTE, sample=sample, usage=usage)) is empty
    assert not is_empty(over(asked(), ROUTE, sample=b'{"reasoning": "long', usage=None, bytes_out=50_000))


def test_refusals() -> None:
    """By the reason to finish, or OpenAI's field."""
    assert is_refusal(over(asked(), ROUTE, finish_reason="SAFETY"))
    assert is_refusal(over(asked(), ROUTE, sample=b'{"message": {"content": null, "refusal": "I cannot"}}'))
    assert not is_refusal(over(asked(), ROUTE, sample=b'{"message": {"content": "x", "refusal": null}}', finish_reason="stop"))


# ---- one store, several processes


async def test_an_edit_is_heard_of(store: Store) -> None:
    """What the command line writes is live at the next look; what ends is no longer active."""
    here = await started(store)
    assert here.active == {}
    await edit_all(store, lambda found: found.append(one()) or True)
    await here.tick()
    assert set(here.active) == {"chat"}
    assert here.route(asked(), Route(name="other", targets=ROUTE.targets)).name == "other"
    assert await edit(store, "c", lambda found: setattr(found, "status", "aborted") or True, change="canary")
    await here.tick()
    assert here.active == {}


async def test_two_processes_count_together(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither has seen enough to tell; what both have seen is enough, and one of them decides. The other hears of it."""
    monkeypatch.setattr(canaries, "FLUSH", 0.0)
    monkeypatch.setattr(canaries, "DECIDE", 0.0)
    both = [await started(store, one(steps=(50.0, 100.0), sticky="header:p")), await started(store)]
    for here in both:
        for number in range(60):
            exchange = asked(headers={"p": str(number)})
            route = here.route(exchange, ROUTE)
            bad = exchange.arm == NEW and number % 3 == 0
            here.observe(
                over(exchange, route, outcome="provider_error" if bad else "ok", error="provider_error" if bad else "")
            )
    for here in (*both, *both, *both):
        await here.tick()
    found = (await read(store))[0]
    assert found.status == "rolled_back"
    assert len(found.nodes) == 2
    assert (await collected(store, found)).new.requests + (await collected(store, found)).old.requests == 120
    assert [here.active for here in both] == [{}, {}]
    assert sum(here.rolled_back for here in both) == 1


async def test_time_is_counted_by_clocks_that_do_not_jump(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock leaps by ten years: no step is taken for it. The seconds of a step survive a restart."""
    monkeypatch.setattr(canaries, "DECIDE", 0.0)
    here = await started(store, one(every=0.3, min_samples=1, margin=100.0))
    here.active["chat"].counts.new.requests = 1
    here.active["chat"].dirty = True
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 10 * 366 * 86400)
    await here.tick()
    assert (await read(store))[0].step == 0
    monkeypatch.setattr(time, "time", real)
    await asyncio.sleep(0.2)
    await here.tick()
    await here.close()
    assert 0.15 < (await read(store))[0].held < 0.3
    again = await started(store)
    await asyncio.sleep(0.15)
    await again.tick()
    assert (await read(store))[0].step == 1


@pytest.mark.parametrize(
    ("routes", "providers", "ends", "reason"),
    [
        ({"chat": ROUTE.targets}, ("old", "new"), "running", ""),
        ({"chat": ROUTE.targets}, ("old",), "stopped", "the config has no provider 'new' any more"),
        ({}, ("old", "new"), "stopped", "the config has no route of this name any more"),
        (
            {"chat": (Deployment(provider="old", model="x"),)},
            ("old", "new"),
            "stopped",
            "the targets of the route have changed",
        ),
        ({"chat": (Deployment(provider="new", model="m"),)}, ("old", "new"), "done", "the config has it now"),
    ],
)
async def test_configs(
    store: Store, routes: dict[str, tuple[Deployment, ...]], providers: tuple[str, ...], ends: str, reason: str
) -> None:
    """A config that no longer fits stops it at once, and the store says why."""
    here = await started(store, one())
    here.reconfigure(routes, dict.fromkeys(providers))
    assert bool(here.active) == (ends == "running")
    await here.tick()
    found = (await read(store))[0]
    assert found.status == ends
    assert found.reason.startswith(reason)


async def test_money_of_a_shadow(store: Store) -> None:
    """No copy goes out that the cap has no room for; the first one is waited for, since nobody knows what it costs."""
    here = await started(store, one(shadow=100.0, spend=100))
    sent: list[Exchange] = []
    gate = asyncio.Event()

    async def serve(copy: Exchange, sink: object, route: Route) -> None:
        sent.append(copy)
        assert [place.provider for place in route.targets] == ["new"]
        assert not route.fallback
        await gate.wait()
        here.observe(over(copy, route, cost=40))

    def ask() -> None:
        exchange = asked()
        here.mirror(over(exchange, here.route(exchange, ROUTE)), serve)

    ask()
    ask()
    await asyncio.sleep(0)
    assert len(sent) == 1
    gate.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for _ in range(5):
        ask()
        await asyncio.sleep(0.001)
    assert len(sent) == 2  # a third one would cost 120 in all
    failed = over(asked(), ROUTE, failure=ValueError())
    here.mirror(failed, serve)
    assert len(sent) == 2
    await here.close()


async def test_a_store_that_cannot_be_used(store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Traffic stays shared as it is; said once. What somebody else wrote there is an error with words."""
    here = await started(store, one())
    gone = SqliteStore(tmp_path / "other.db")
    await gone.close()
    here._store = gone
    task = asyncio.get_running_loop().create_task(here.follow())
    await asyncio.sleep(0.05)
    task.cancel()
    assert "traffic stays shared as it is" in caplog.text
    assert set(here.active) == {"chat"}
    await store.put(canary.KEY, b"{")
    with pytest.raises(StoreError, match="cannot be read"):
        await read(store)


async def test_edits_at_once(store: Store) -> None:
    """Twenty who change the same canary: none is lost."""
    await edit_all(store, lambda found: found.append(one()) or True)

    def join(name: str) -> Any:
        def joined(found: Canary) -> bool:
            found.nodes = (*found.nodes, name)
            return True

        return joined

    await asyncio.gather(*(edit(store, "c", join(str(number))) for number in range(20)))
    assert sorted((await read(store))[0].nodes, key=int) == [str(number) for number in range(20)]
    assert not await edit(store, "nobody", lambda _: True)
