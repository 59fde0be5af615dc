"""What a canary decides: thousands of runs of the real decision, on requests that fail as we say."""

from __future__ import annotations

import math
import random
from collections import Counter
from itertools import pairwise

import pytest

from aigw.deployment import Deployment, Route
from aigw.routing import canary
from aigw.routing.canary import Canary, Counts, Tally, judge, moved, places, point
from aigw.routing.sequential import RateTest, ShiftTest

ROUTE = Route(name="chat", targets=(Deployment(provider="old", model="m"),), fallback=(Deployment(provider="spare"),))


def one(**settings: object) -> Canary:
    return Canary(**({"id": "c", "route": "chat", "provider": "new", "model": "m", "every": 0.0} | settings))  # type: ignore[arg-type]


# ---- arms


def test_shares_are_exact_and_only_grow() -> None:
    """Of 10,000 consumers a tenth belongs to the new arm at 10 % (within three standard deviations); nobody leaves it as the
    share grows: at each step exactly those change who are added."""
    keys = [f"consumer-{number}".encode() for number in range(10_000)]
    found = one(steps=(1.0, 10.0, 25.0, 50.0, 100.0))
    arms = []
    for step in range(len(found.steps)):
        found.step = step
        arms.append({key for key in keys if found.picks(key)})
    assert abs(len(arms[1]) - 1000) <= 3 * math.sqrt(10_000 * 0.1 * 0.9)
    assert all(before < after for before, after in pairwise(arms))
    assert len(arms[-1]) == 10_000


def test_each_canary_draws_anew() -> None:
    """Who came first in one canary is nobody special in the next; each place is the same for ever."""
    firsts = [{key for key in range(5000) if point(name, b"%d" % key) < 0.1} for name in ("a", "b")]
    assert len(firsts[0] & firsts[1]) < 100
    assert point("a", b"alice") == point("a", b"alice") != point("b", b"alice")


def test_who_tries_pays_nothing() -> None:
    """The old places are the new arm's fallbacks, each once; the rest of the route stays as it is."""
    route = moved(ROUTE, one())
    assert [place.id for place in (*route.targets, *route.fallback)] == ["new/m", "old/m", "spare"]
    assert (route.name, route.retries) == (ROUTE.name, ROUTE.retries)
    route = moved(ROUTE, one(provider="spare", model=None))
    assert [place.id for place in (*route.targets, *route.fallback)] == ["spare", "old/m"]


def test_what_a_route_is() -> None:
    """Another weight, model or order is another route."""
    assert places(ROUTE.targets) == ("old/m 1",)
    assert len({places((Deployment(provider="a", weight=w),)) for w in (1, 2)}) == 2


# ---- many runs


def gap(draw: random.Random, rate: float) -> int:
    """Requests until the next one that fails (or is the new arm's)."""
    return 10**9 if not rate else int(math.log(1 - draw.random()) / math.log1p(-rate)) if rate < 1 else 0


def run(seed: int, base: float, worse: float, most: int, **settings: object) -> tuple[str, int]:
    """One canary whose old arm fails at the rate *base*, its new arm at *base* + *worse*: how it ended, and after how many
    requests of its own; "going on" after *most*."""
    draw, found, counts, test = random.Random(seed), one(**settings), Counts(), RateTest()
    counts.logs = {"errors": test.logs}
    test.begin(0)
    while counts.new.requests < most and found.share < 1:
        left = gap(draw, found.share)
        counts.old.requests += left
        while left:
            well = min(left, gap(draw, base))
            test.add(new=False, failed=False, requests=well)
            left -= well
            if left:
                test.add(new=False, failed=True)
                counts.old.errors += 1
                left -= 1
        failed = draw.random() < base + worse
        test.add(new=True, failed=failed)
        counts.new.requests += 1
        counts.new.errors += failed
        verdict = judge(found, counts, 1.0) if failed or counts.new.requests % 10 == 0 else None
        if verdict is not None and verdict.what == "step":
            found.step, found.at_step = found.step + 1, counts.new.requests
            test.begin(found.step)
        elif verdict is not None:
            return verdict.what, counts.new.requests
    return "complete" if found.share >= 1 else "going on", counts.new.requests


def test_five_points_more_than_nothing() -> None:
    """From a base rate of 0 % it is rolled back within 200 requests of its own. (Of 200 at 5 %, one run in 400 has not even
    three failures without which nothing follows.)"""
    ends = [run(seed, 0.0, 0.05, 200) for seed in range(1000)]
    assert Counter(end for end, _ in ends)["rolled_back"] >= 993
    assert sorted(number for _, number in ends)[500] <= 100


def test_five_points_more_than_two() -> None:
    """From 2 % to 7 %: within 800."""
    ends = [run(seed, 0.02, 0.05, 800) for seed in range(300)]
    assert Counter(end for end, _ in ends)["rolled_back"] >= 297
    assert sorted(number for _, number in ends)[150] <= 300


@pytest.mark.parametrize(("base", "runs"), [(0.0, 200), (0.02, 500), (0.3, 40)])
def test_no_worse_gets_everything(base: float, runs: int) -> None:
    """The same on both sides, whatever the rate: to 100 %, and not one in a hundred is rolled back."""
    ends = Counter(end for end, _ in (run(seed, base, 0.0, 20_000) for seed in range(runs)))
    assert ends["rolled_back"] < max(1, runs / 100)
    assert ends["complete"] > 0.99 * runs


@pytest.mark.long
def test_a_thousand_of_the_same() -> None:
    """Under one per cent of 1,000 are rolled back, also when the operator watches without a step for long."""
    assert Counter(end for end, _ in (run(seed, 0.02, 0.0, 20_000) for seed in range(1000)))["rolled_back"] < 10
    still = (run(seed, 0.05, 0.0, 3000, steps=(20.0,)) for seed in range(1000))
    assert Counter(end for end, _ in still)["rolled_back"] < 10


def test_a_good_one_is_not_hurried() -> None:
    """No step without its samples and its time, and none on a rate that may be far worse."""
    test = Tally(requests=10_000)
    assert judge(one(every=60.0), Counts(old=test, new=Tally(requests=400)), 59.0) is None
    assert judge(one(at_step=300), Counts(old=test, new=Tally(requests=400)), 1.0) is None
    assert judge(one(min_samples=20), Counts(old=test, new=Tally(requests=20)), 1.0) is None  # 20 of 20 prove little
    assert judge(one(min_samples=20, margin=40.0), Counts(old=test, new=Tally(requests=20)), 1.0) is not None
    waits = canary.waits_for(one(every=3600.0), Counts(), 0.0)
    assert waits[0] == "200 more requests"
    assert waits[1] == "60 min more"
    assert waits[2].startswith("more certainty")


# ---- the other reasons


def slow(factor: float = 2.0) -> Counts:
    """A new arm that is *factor* times as slow to the first token."""
    draw, test = random.Random(1), ShiftTest(canary.SLOWER)
    test.begin(0)
    for _ in range(400):
        test.add(new=False, value=draw.lognormvariate(0, 0.4))
        test.add(new=True, value=factor * draw.lognormvariate(0, 0.4))
    return Counts(Tally(requests=400), Tally(requests=400), {"first_token": test.logs})


def test_slowness_pauses() -> None:
    """Twice as slow to the first token: paused, with the words for it; accepted, it goes on; where it was asked for, it goes
    back, also out of a pause. A little slower is no reason."""
    verdict = judge(one(), slow(), 1.0)
    assert verdict is not None
    assert (verdict.what, verdict.cause) == ("paused", "latency")
    assert verdict.reason.startswith("latency: the median time to the first token is more than 1.5 times the old one")
    assert judge(one(accepted=("latency",)), slow(), 1.0) == ("step", "1 % -> 5 %", "")
    assert judge(one(status="paused"), slow(), 1.0) is None
    for state in ("running", "paused"):
        verdict = judge(one(status=state, rollback_on=("errors", "empty", "latency")), slow(), 1.0)
        assert verdict is not None
        assert verdict.what == "rolled_back"
    verdict = judge(one(), slow(1.1), 1.0)
    assert verdict is not None
    assert verdict.what == "step"


@pytest.mark.parametrize(("reason", "what"), [("empty", "rolled_back"), ("refusals", "paused"), ("rejections", "paused")])
def test_rates(reason: str, what: str) -> None:
    """Empty answers are as bad as errors; refusals and rejected requests ask for somebody to look."""
    test = RateTest()
    test.begin(0)
    for _ in range(20):
        test.add(new=False, failed=False, requests=95)
        test.add(new=True, failed=False, requests=4)
        test.add(new=True, failed=True)
    new = Tally(requests=100)
    setattr(new, reason, 20)
    verdict = judge(one(), Counts(Tally(requests=1900), new, {reason: test.logs}), 1.0)
    assert verdict is not None
    assert (verdict.what, verdict.cause) == (what, reason)
    assert verdict.reason.endswith(": 20.0 % of 100, against 0.0 % of 1,900")


def test_what_has_ended_decides_nothing() -> None:
    """Neither does one that has everything: there is nothing to compare it with."""
    for state in ("complete", "rolled_back", "aborted", "stopped", "done"):
        assert judge(one(status=state), slow(), 1.0) is None


def test_a_shadow_ends_with_its_money() -> None:
    """At its cap, and when nobody can tell what it costs; it takes no steps, and only errors end it."""
    shadow = {"shadow": 5.0, "spend": 1000}
    spent = judge(one(**shadow), Counts(new=Tally(cost=1000)), 1.0)
    assert spent is not None
    assert spent.what == "spent"
    unknown = judge(one(**shadow), Counts(new=Tally(requests=1, unpriced=1)), 1.0)
    assert unknown is not None
    assert unknown.what == "stopped"
    assert judge(one(**shadow), slow(), 1.0) is None
    assert one(**shadow).share == 0


# ---- the document


def test_the_document() -> None:
    """All that a canary is survives; of those that have ended the last are kept, of the live ones all."""
    assert canary.read(None) == []
    found = one(route="r", steps=(2.0, 100.0), shadow=1.0)
    for number in range(60):
        found.note(float(number), "step", "x")
    assert len(found.history) == 50
    assert canary.read(canary.written([found])) == [found]
    many = [one(id="live"), *(one(id=str(number), status="aborted") for number in range(canary.KEPT + 10))]
    kept = [each.id for each in canary.read(canary.written(many))]
    assert kept == ["live", *map(str, range(10, canary.KEPT + 10))]


def test_counts_add_up() -> None:
    """Those of several processes: sums, histograms, evidence."""
    total = Counts()
    for _ in range(2):
        total.add(Counts(Tally(requests=3, errors=1, first_token={5: 2}), Tally(cost=7), {"errors": {0: [1.0]}}))
    assert total.old == Tally(requests=6, errors=2, first_token={5: 4})
    assert (total.new.cost, total.logs) == (14, {"errors": {0: [2.0]}})
