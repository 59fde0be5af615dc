from __future__ import annotations

import math
import random

import pytest

from aigw.storage.histogram import Total, bucket, count, merge, pack, percentile, unpack

STATED_ERROR = 2 ** (1 / 16) - 1


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("share", [0.01, 0.5, 0.95, 0.99, 1.0])
def test_percentiles_are_within_the_stated_error(seed: int, share: float) -> None:
    """4.43 % against sorting, for latencies from microseconds to hours."""
    chance = random.Random(seed)
    values = [max(1, int(chance.lognormvariate(chance.uniform(5, 20), 2))) for _ in range(chance.randint(1, 3000))]
    histogram: dict[int, int] = {}
    for value in values:
        merge(histogram, {bucket(value): 1})
    exact = sorted(values)[max(1, math.ceil(share * len(values))) - 1]
    assert percentile(histogram, share) == pytest.approx(
        exact, abs=STATED_ERROR * exact + 0.5
    )  # an answer is a whole microsecond


def test_every_duration_has_a_bucket_no_wider_than_a_tenth() -> None:
    """From nothing to a month, in order, and each answer lies close to what went in."""
    last = 0
    for value in [*range(2000), *(int(1000 * 1.01**power) for power in range(2200))]:
        assert bucket(value) >= last or value == 1000
        last = bucket(value)
        middle = percentile({bucket(value): 1}, 0.5)
        assert middle is not None
        assert abs(middle - max(1, value)) <= STATED_ERROR * value + 0.51


def test_nothing_measured_has_no_percentile() -> None:
    """None, not 0; a clock that ran backwards is no error."""
    assert percentile({}, 0.5) is None
    assert bucket(-7) == bucket(0) == 0


def test_merging_adds() -> None:
    """Counts of the same bucket are summed, and the one added is left alone."""
    into, other = {1: 2}, {1: 1, 5: 9}
    merge(into, other)
    assert (into, other) == ({1: 3, 5: 9}, {1: 1, 5: 9})


def test_counting_is_finding_each_bucket() -> None:
    """And a bucket is where the logarithm says, up to the largest number there is."""
    durations = [0, 1, 2, 3, 999, 1000, 1000, 10**15, 2**64]
    assert count(durations) == {
        bucket(value): sum(bucket(other) == bucket(value) for other in durations) for value in durations
    }
    for power in range(4, 62):
        assert [bucket(2**power - 1), bucket(2**power)] == [8 * power - 1, 8 * power]


@pytest.mark.parametrize(
    "histogram",
    [{}, {0: 1}, {7: 255}, {7: 256, 9: 1}, {160: 3, 200: 70_000, 161: 1}, {503: 2**40}],
    ids=str,
)
def test_a_packed_histogram_comes_back(histogram: dict[int, int]) -> None:
    """Whatever the width of its counts; a usual one takes no more than a byte for each bucket."""
    assert unpack(pack(histogram)) == histogram
    if histogram and max(histogram.values()) < 256:
        assert len(pack(histogram)) == 3 + max(histogram) - min(histogram) + 1


def test_many_packed_histograms_add_up() -> None:
    """As they do bucket by bucket, at every width and place."""
    chance = random.Random(5)
    total, expected = Total(), dict[int, int]()
    assert total.histogram() == {}
    for _ in range(500):
        histogram = {chance.randrange(300): chance.choice([1, 200, 300, 2**33]) for _ in range(chance.randrange(30))}
        total.add(pack(histogram))
        merge(expected, histogram)
    assert total.histogram() == expected
