"""What every counter must do. A new one joins by a line in `OPEN`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from math import inf

import pytest

from aigw.storage.base import Claim, Counters
from aigw.storage.open import open_counters
from aigw.storage.shared import SharedCounters, make

OPEN: dict[str, Callable[[], Counters]] = {
    "memory": lambda: open_counters("memory"),
    "shared": lambda: SharedCounters(make(4), 2),
}

NOW = 1_790_000_000 // 86400 * 86400.0  # the first second of some day, and so of an hour and a minute


@pytest.fixture(params=[*OPEN, "redis"])
async def counters(request: pytest.FixtureRequest) -> AsyncIterator[Counters]:
    counters = open_counters(request.getfixturevalue("redis").url) if request.param == "redis" else OPEN[request.param]()
    yield counters
    await counters.close()


async def granted(counters: Counters, claim: Claim, now: float, times: int) -> int:
    """How many of *times* equal holds are granted."""
    return sum([(await counters.hold([claim], now)).refused is None for _ in range(times)])


async def test_a_window_grants_its_limit(counters: Counters) -> None:
    """Not one more; the refusal names the claim and when to come back."""
    claim = Claim("a", 1, 3)
    assert await granted(counters, claim, NOW + 10, 5) == 3
    permit = await counters.hold([claim], NOW + 20)
    assert permit.refused == claim
    assert permit.claims == ()
    assert 40 <= permit.retry_after <= 120
    assert await granted(counters, Claim("b", 1, 3), NOW + 20, 5) == 3


async def test_who_waits_as_told_is_granted(counters: Counters) -> None:
    """`retry_after` is neither too short nor more than a hair too long, wherever the window stands."""
    chance = random.Random(1)
    for case in range(300):
        limit = chance.choice([1, 2, 3, 10, 600])
        claim = Claim(f"k{case}", chance.randint(1, limit), limit, chance.choice([1, 60, 3600, 86400]))
        now = NOW + chance.uniform(0, 100_000)
        for _ in range(chance.randint(1, 30)):
            now += chance.uniform(0, claim.window / 10)
            await counters.hold([claim], now)
        permit = await counters.hold([claim], now)
        while permit.refused is None:
            permit = await counters.hold([claim], now)
        early = await counters.hold([claim], now + permit.retry_after - 0.01 - claim.window * 2e-5)
        assert early.refused is not None or permit.retry_after < 0.1
        counters.release(early)
        assert (await counters.hold([claim], now + permit.retry_after)).refused is None


async def test_no_double_burst_at_the_border(counters: Counters) -> None:
    """A limit spent at the end of a minute is not there again a second later."""
    claim = Claim("a", 1, 600)
    assert await granted(counters, claim, NOW + 59, 700) == 600
    assert await granted(counters, claim, NOW + 60.5, 700) <= 12
    assert await granted(counters, claim, NOW + 90, 700) <= 300


@pytest.mark.parametrize("window", [60, 3600])
async def test_no_stretch_of_time_gets_more_than_twice_the_limit(counters: Counters, window: int) -> None:
    """Whatever the pattern of requests, in any stretch as long as the window; a tenth of it gets little more than once."""
    chance = random.Random(window)
    claim = Claim("a", 1, 50, window)
    times: list[float] = []
    now = NOW
    while now < NOW + 20 * window:
        now += chance.expovariate(20 / window)
        times += [now] * await granted(counters, claim, now, chance.choice([0, 1, 30, 100]))
    for start in times:
        assert sum(start <= when < start + window for when in times) <= 2 * claim.limit
        assert sum(start <= when < start + window / 10 for when in times) <= 1.2 * claim.limit


async def test_a_steady_caller_may_use_the_limit(counters: Counters) -> None:
    """Sliding takes nothing from those who keep to it: 60 a minute, one a second, for an hour."""
    claim = Claim("a", 1, 60)
    assert all([(await counters.hold([claim], NOW + second)).refused is None for second in range(3600)])


async def test_a_budget_starts_again_with_its_period(counters: Counters) -> None:
    """Windows longer than an hour are fixed: full at the end of the day, empty at its beginning."""
    claim = Claim("a", 1, 5, 86400)
    assert await granted(counters, claim, NOW + 86399, 9) == 5
    assert (await counters.hold([claim], NOW + 86399)).retry_after == pytest.approx(1)
    assert await granted(counters, claim, NOW + 86400, 9) == 5


async def test_all_or_nothing(counters: Counters) -> None:
    """When one claim of a hold is refused the others hold nothing, whatever their order."""
    plenty, none, gauge = Claim("plenty", 1, 5), Claim("none", 1, 0), Claim("gauge", 1, 2, 0)
    for claims in ([plenty, gauge, none], [none, plenty, gauge], [gauge, none, plenty]):
        for _ in range(10):
            assert (await counters.hold(claims, NOW)).refused == none
    assert await granted(counters, plenty, NOW, 9) == 5
    assert await granted(counters, gauge, NOW, 9) == 2


async def test_a_gauge_counts_until_it_is_let_go(counters: Counters) -> None:
    """By release or by settle, once each; time alone changes nothing."""
    claim = Claim("a", 1, 2, 0)
    first, second = await counters.hold([claim], NOW), await counters.hold([claim], NOW)
    full = await counters.hold([claim], NOW + 10**6)
    assert full.refused == claim
    assert full.retry_after > 0
    counters.release(first)
    counters.release(first)
    counters.settle(first, {})
    assert await granted(counters, claim, NOW, 5) == 1
    counters.settle(second, {})
    counters.settle(second, {"a": 0})
    counters.release(second)
    assert await granted(counters, claim, NOW, 5) == 1


async def test_settling_corrects_the_estimate(counters: Counters) -> None:
    """Down or up; a key that is not named keeps what it held; once."""
    claim, other = Claim("a", 10, 100), Claim("b", 10, 100)
    permit = await counters.hold([claim, other], NOW)
    counters.settle(permit, {"a": 90})
    counters.settle(permit, {"a": 0, "b": 0})
    counters.release(permit)
    assert await granted(counters, claim, NOW, 9) == 1
    assert await granted(counters, other, NOW, 99) == 9
    permit = await counters.hold([Claim("c", 100, 100)], NOW)
    counters.settle(permit, {"c": 1})
    assert await granted(counters, Claim("c", 99, 100), NOW, 2) == 1


async def test_releasing_gives_back(counters: Counters) -> None:
    """Windows and gauges, and a refused permit gives back nothing it never had."""
    claims = [Claim("a", 5, 5), Claim("g", 1, 1, 0)]
    permit = await counters.hold(claims, NOW)
    refused = await counters.hold(claims, NOW)
    counters.release(refused)
    counters.settle(refused, {"a": 0})
    assert (await counters.hold(claims, NOW)).refused is not None
    counters.release(permit)
    assert (await counters.hold(claims, NOW)).refused is None


async def test_settling_late_leaves_later_windows_alone(counters: Counters) -> None:
    """What was used in a period that has ended is not charged to, nor given back from, a later one."""
    claim = Claim("a", 10, 10, 86400)
    for used in (0, 1000):
        permit = await counters.hold([claim], NOW)
        later = await counters.hold([claim], NOW + 3 * 86400)
        assert later.refused is None
        counters.settle(permit, {"a": used})
        assert (await counters.hold([claim], NOW + 3 * 86400)).refused == claim
        counters.release(later)
        await counters.sweep(NOW + 9 * 86400)


async def test_the_same_key_with_two_periods_is_two_counters(counters: Counters) -> None:
    """A limit a minute and a limit a day may share a name."""
    minute, day = Claim("a", 1, 2, 60), Claim("a", 1, 3, 86400)
    assert (await counters.hold([minute, day], NOW)).refused is None
    assert (await counters.hold([minute, day], NOW)).refused is None
    assert (await counters.hold([minute, day], NOW)).refused == minute
    assert (await counters.hold([minute, day], NOW + 600)).refused is None
    assert (await counters.hold([minute, day], NOW + 1200)).refused == day


async def test_sweeping_forgets_only_what_is_over(counters: Counters) -> None:
    """A window that still counts is still full afterwards; so is a gauge."""
    claim, gauge, past = Claim("a", 1, 1), Claim("g", 1, 1, 0), Claim("p", 1, 1)
    await counters.hold([past], NOW - 600)
    await counters.hold([claim, gauge], NOW + 30)
    await counters.sweep(NOW + 30)
    assert (await counters.hold([claim], NOW + 30)).refused == claim
    assert (await counters.hold([gauge], NOW + 30)).refused == gauge
    assert (await counters.hold([past], NOW + 30)).refused is None


async def test_a_clock_set_back_opens_no_window(counters: Counters) -> None:
    """A second back over the border does not make the limit fresh."""
    claim = Claim("a", 1, 5)
    assert await granted(counters, claim, NOW + 60, 9) == 5
    assert await granted(counters, claim, NOW + 59.5, 9) == 0
    assert await granted(counters, claim, NOW + 60.5, 9) == 0


async def test_many_at_once_never_exceed_the_limit(counters: Counters) -> None:
    """A thousand tasks, each holding and letting go."""
    claim = Claim("a", 1, 7, 0)
    running = most = refused = 0

    async def one() -> None:
        nonlocal running, most, refused
        permit = await counters.hold([claim], NOW)
        if permit.refused is not None:
            refused += 1
            return
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        counters.release(permit)

    await asyncio.gather(*(one() for _ in range(1000)))
    assert most == 7
    assert refused > 0
    assert await granted(counters, claim, NOW, 9) == 7


# --- what is left ---------------------------------------------------------------------------------------------------------


async def test_left_says_what_is_still_free(counters: Counters) -> None:
    """Claim by claim, after the hold; where it is refused before it, and never below 0."""
    await counters.prime({"p": (40, NOW + 500)})
    claims = [Claim("w", 3, 10), Claim("g", 1, 4, 0), Claim("p", 50, 100, ends=NOW + 500)]
    permit = await counters.hold(claims, NOW)
    assert list(permit.left) == [7, 3, 10]
    refused = await counters.hold(claims, NOW)
    assert refused.refused == claims[2]
    assert list(refused.left) == [7, 3, 10]
    counters.settle(permit, {"p": 90})
    refused = await counters.hold(claims, NOW)
    assert list(refused.left) == [7, 4, 0]
    assert list(refused.unknown) == []


# --- periods --------------------------------------------------------------------------------------------------------------


def budget(key: str, amount: int, limit: int, ends: float = NOW + 3600) -> Claim:
    return Claim(key, amount, limit, ends=ends)


async def test_a_period_must_be_primed(counters: Counters) -> None:
    """Else nothing is held, of the other claims neither, and the permit names all keys that nobody knows."""
    claims = [Claim("w", 1, 1), Claim("g", 1, 1, 0), budget("p", 10, 100), budget("q", 10, 100, inf)]
    for known, unknown in (({}, ["p", "q"]), ({"p": (0, NOW + 3600)}, ["q"])):
        await counters.prime(known)
        permit = await counters.hold(claims, NOW)
        assert (permit.refused, permit.claims, sorted(permit.unknown)) == (None, (), unknown)
        counters.settle(permit, {"p": 99, "q": 99})
        counters.release(permit)
    assert await counters.read(["p", "q"]) == [0, None]
    await counters.prime({"q": (90, inf)})
    assert (await counters.hold(claims, NOW)).refused is None
    assert await counters.read(["q", "p", "none"]) == [100, 10, None]


async def test_unknown_wins_over_refused(counters: Counters) -> None:
    """A permit has one of the two: who primes first hears the refusal next."""
    permit = await counters.hold([Claim("w", 1, 0), budget("p", 1, 1)], NOW)
    assert (permit.refused, list(permit.unknown)) == (None, ["p"])


async def test_priming_changes_nothing_that_is_known(counters: Counters) -> None:
    """Two that prime at once: the second one's figure may be older than what has been held since."""
    await counters.prime({"p": (5, NOW + 3600)})
    await counters.hold([budget("p", 10, 100)], NOW)
    await counters.prime({"p": (5, NOW + 3600), "q": (7, inf)})
    assert await counters.read(["p", "q"]) == [15, 7]


async def test_a_period_holds_and_settles(counters: Counters) -> None:
    """What is held counts, up to the limit and not one more; what was used takes its place, were it more than the limit; what
    was released was never used."""
    await counters.prime({"p": (0, NOW + 3600)})
    first = await counters.hold([budget("p", 60, 100)], NOW)
    refused = await counters.hold([budget("p", 41, 100)], NOW + 1)
    assert refused.refused == budget("p", 41, 100)
    assert refused.retry_after == pytest.approx(3599)
    second = await counters.hold([budget("p", 40, 100)], NOW + 2)
    assert second.refused is None
    assert await counters.read(["p"]) == [100]
    counters.release(second)
    counters.settle(first, {"p": 130})
    counters.settle(first, {"p": 0})
    counters.release(first)
    assert await counters.read(["p"]) == [130]
    assert (await counters.hold([budget("p", 0, 100)], NOW)).refused is not None
    third = await counters.hold([budget("p", 10, 200)], NOW)
    counters.settle(third, {"other": 1})
    assert await counters.read(["p"]) == [140]  # not named: it keeps what it held


async def test_money_needs_all_its_digits(counters: Counters) -> None:
    """A million dollars in billionths, one more or less."""
    million = 10**6 * 10**9
    await counters.prime({"p": (million - 1, inf)})
    assert (await counters.hold([budget("p", 2, million, inf)], NOW)).refused is not None
    permit = await counters.hold([budget("p", 1, million, inf)], NOW)
    assert permit.refused is None
    counters.settle(permit, {"p": 8 * million + 1})
    assert await counters.read(["p"]) == [9 * million]


async def test_more_may_be_added(counters: Counters) -> None:
    """What nobody held; a period that is not known stays so."""
    await counters.prime({"p": (1, NOW + 3600)})
    counters.add({"p": 7, "q": 7})
    assert await counters.read(["p", "q"]) == [8, None]


async def test_sweeping_keeps_periods_that_run(counters: Counters) -> None:
    """One that has ended is unknown again; late settlements of it hurt nobody."""
    await counters.prime({"p": (1, NOW + 100), "q": (2, inf)})
    late = await counters.hold([budget("p", 5, 10, NOW + 100), budget("q", 5, 10, inf)], NOW)
    await counters.sweep(NOW + 99)
    assert await counters.read(["p", "q"]) == [6, 7]
    await counters.sweep(NOW + 101)
    assert await counters.read(["q"]) == [7]
    counters.settle(late, {"p": 1, "q": 1})
    assert await counters.read(["q"]) == [3]


async def test_many_at_once_never_exceed_a_budget(counters: Counters) -> None:
    """A thousand for a hundred, with a rate window and a gauge beside it that have room."""
    await counters.prime({"p": (0, inf)})
    claims = [Claim("w", 1, 2000), Claim("g", 1, 2000, 0), budget("p", 10, 1000, inf)]
    permits = await asyncio.gather(*(counters.hold(claims, NOW) for _ in range(1000)))
    passed = [permit for permit in permits if permit.refused is None]
    assert len(passed) == 100
    for permit in passed:
        counters.settle(permit, {"p": 3})
    assert await counters.read(["p"]) == [300]
    assert list((await counters.hold([Claim("w", 0, 2000), Claim("g", 0, 2000, 0)], NOW)).left) == [1900, 2000]


async def test_the_ledger_is_exact_whatever_happens(counters: Counters) -> None:
    """Holds, settlements and releases in any order: a period's figure is what was used plus what is held."""
    chance = random.Random(7)
    await counters.prime({"p": (0, inf), "q": (5, NOW + 3600)})
    used, held = {"p": 0, "q": 5}, []
    for _ in range(500):
        if held and chance.random() < 0.5:
            permit, amounts = held.pop(chance.randrange(len(held)))
            if chance.random() < 0.3:
                counters.release(permit)
            else:
                real = {key: chance.randint(0, 30) for key in amounts}
                counters.settle(permit, real)
                for key, amount in real.items():
                    used[key] += amount
        else:
            amounts = {"p": chance.randint(0, 20), "q": chance.randint(0, 20)}
            claims = [budget("p", amounts["p"], 4000, inf), Claim("w", 1, 400), budget("q", amounts["q"], 4000)]
            permit = await counters.hold(claims, NOW)
            if permit.refused is None:
                held.append((permit, amounts))
        expected = [used[key] + sum(amounts[key] for _, amounts in held) for key in ("p", "q")]
        assert await counters.read(["p", "q"]) == expected
