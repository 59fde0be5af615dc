"""Tests that may be looked at after every request: seldom wrong when nothing differs, quick when something does."""

from __future__ import annotations

import math
import random
from itertools import product

import pytest

from aigw.routing.sequential import ENOUGH, ODDS, SLICE, RateTest, ShiftTest, lower, merge, strength, upper


def begun(test: RateTest | ShiftTest, *steps: int) -> None:
    for step in steps or (0,):
        test.begin(step)


def test_the_expectation_of_a_slice_is_one() -> None:
    """An e-value: over all ways in which the failures of a slice may fall on its requests, its mean is exactly 1, for each
    alternative; so no share, and no rate, can make it grow where both arms are alike."""
    new, old, failed = SLICE, SLICE, 4
    means = [0.0] * len(ODDS)
    ways = [fall for fall in product((False, True), repeat=new + old) if sum(fall) == failed]
    for fall in ways:
        test = RateTest()
        begun(test)
        for at, one in enumerate(fall):
            test.add(new=at < new, failed=one)
        for at, log in enumerate(test.logs[0]):
            means[at] += math.exp(log) / len(ways)
    assert means == pytest.approx([1.0] * len(ODDS))


def test_an_outage_of_both_is_no_evidence() -> None:
    """All of both arms fail for a while, in a slice of very unequal arms, too: nothing follows."""
    test = RateTest()
    begun(test)
    test.add(new=False, failed=True, requests=50_000)
    test.add(new=True, failed=True, requests=SLICE)
    assert test.logs[0] == pytest.approx([0.0] * len(ODDS), abs=1e-9)


def test_many_failures_do_not_overflow() -> None:
    """A slice in which one arm waited long for the other."""
    test = RateTest()
    begun(test)
    test.add(new=True, failed=True, requests=4000)
    test.add(new=True, failed=False, requests=4000)
    test.add(new=False, failed=False, requests=SLICE)
    assert all(map(math.isfinite, test.logs[0]))
    assert strength(test.logs, 1) > 0


def test_a_total_failure_is_seen_at_once() -> None:
    """Five of five fail, where 495 of 495 did well."""
    test = RateTest()
    begun(test)
    test.add(new=False, failed=False, requests=495)
    test.add(new=True, failed=True, requests=SLICE)
    assert strength(test.logs, 5) > -math.log(0.0001)


def test_old_sins_hide_nothing() -> None:
    """The old arm failed for long; a process that begins later sees the new arm fail now."""
    test = RateTest()
    begun(test)
    for _ in range(40):
        test.add(new=True, failed=False, requests=SLICE)
        test.add(new=False, failed=True, requests=SLICE)
    assert strength(test.logs, 2) < 0
    begun(test, 1)
    for _ in range(4):
        test.add(new=False, failed=False, requests=SLICE)
        test.add(new=True, failed=True, requests=SLICE)
    assert strength(test.logs, 2) > -math.log(0.003)


@pytest.mark.parametrize(
    ("limit", "factor", "found"), [(1.5, 2.0, True), (1.5, 1.0, False), (1 / 1.5, 0.5, True), (1 / 1.5, 1.0, False)]
)
def test_shifts_of_a_median(limit: float, factor: float, found: bool) -> None:
    """Twice as slow (or half as fast) is seen within 300 values, with a spread such as answers have; the same is not held to be
    different in 5,000."""
    for seed in range(20):
        draw = random.Random(seed)
        test = ShiftTest(limit)
        begun(test)
        strongest = 0.0
        for _ in range(300 if found else 5000):
            test.add(new=False, value=draw.lognormvariate(0, 0.5))
            test.add(new=True, value=factor * draw.lognormvariate(0, 0.5))
            strongest = max(strongest, strength(test.logs, 1))
        assert (strongest > -math.log(0.003)) is found, seed


def test_a_median_follows_the_old_arm() -> None:
    """The old arm became as slow as the new one is: that is no shift. Without enough of the old arm nothing is compared."""
    test = ShiftTest(1.5)
    begun(test)
    for _ in range(ENOUGH - 1):
        test.add(new=False, value=1.0)
    test.add(new=True, value=9.0)
    assert strength(test.logs, 1) == 0
    for _ in range(500):
        test.add(new=False, value=9.0)
    for _ in range(200):
        test.add(new=True, value=9.0)
    assert strength(test.logs, 1) < 0


def test_bounds_hold_at_all_times() -> None:
    """The true rate leaves bounds of 95 % in few of 200 runs that are looked at after each of 2,000 requests."""
    for rate in (0.0, 0.02, 0.5):
        left = 0
        for seed in range(200):
            draw, failed, out = random.Random(seed), 0, False
            for number in range(1, 2001):
                failed += draw.random() < rate
                if number % 50 == 0:
                    out = out or not lower(number, failed, 0.05) <= rate <= upper(number, failed, 0.05)
            left += out
        assert left <= 20, rate


def test_bounds_are_of_use() -> None:
    """None of 200 failed: surely less than 4 %. Of nothing, nothing is known; of everything, what it is."""
    assert upper(200, 0, 0.05) < 0.04
    assert (lower(0, 0, 0.05), upper(0, 0, 0.05)) == (0.0, 1.0)
    assert lower(200, 200, 0.05) > 0.96
    assert lower(1000, 20, 0.05) < 0.02 < upper(1000, 20, 0.05)
    assert upper(1000, 20, 0.05) < upper(100, 2, 0.05)


def test_evidence_adds_up() -> None:
    """Two processes that saw a part each say together what both parts say; a step that one of them never saw counts as well."""
    one, other = {0: [1.0, 2.0]}, {0: [0.5, 0.5], 1: [3.0, 3.0]}
    merge(one, other)
    assert one == {0: [1.5, 2.5], 1: [3.0, 3.0]}
    merge(one, {1: [1.0, 1.0]})
    assert one[1] == [4.0, 4.0]
    assert other[1] == [3.0, 3.0]


def test_strength_is_a_mean() -> None:
    """Of all alternatives and all steps there may be; huge values do not overflow."""
    assert strength({}, 5) == 0.0
    assert strength({0: [0.0, 0.0]}, 5) == pytest.approx(0.0)
    assert strength({0: [math.log(3.0), 0.0]}, 1) == pytest.approx(math.log(2.0))
    assert strength({0: [5000.0]}, 2) == pytest.approx(5000.0 - math.log(2))
