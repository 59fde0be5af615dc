"""Latency histograms: what percentiles are read from when a million records are too many to sort.

A bucket is an eighth of a doubling: bucket *b* holds the microseconds from 2**(b/8) up to 2**((b+1)/8), so each is 9.05 %
wider than the one before. `percentile` answers with a bucket's geometric midpoint, which is off by at most 2**(1/16) - 1 =
4.43 % from the exact (nearest-rank) percentile, over the whole range: one microsecond to as long as you like. A histogram is
sparse, a dict from bucket to count; one model's hour rarely needs more than sixty.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping

Histogram = dict[int, int]

BUCKETS_PER_DOUBLING = 8


def bucket(microseconds: int) -> int:
    """The bucket of a duration; what took no measurable time goes into the first."""
    return int(math.log2(microseconds) * BUCKETS_PER_DOUBLING) if microseconds > 1 else 0


def merge(into: MutableMapping[int, int], other: Mapping[int, int]) -> None:
    """Add the counts of *other*."""
    for key, count in other.items():
        into[key] = into.get(key, 0) + count


def percentile(histogram: Mapping[int, int], share: float) -> int | None:
    """The duration that *share* (0 to 1) of all stay at or below, in microseconds; None when nothing was measured."""
    rank = max(1, math.ceil(share * sum(histogram.values())))
    for key in sorted(histogram):
        rank -= histogram[key]
        if rank <= 0:
            return round(2 ** ((key + 0.5) / BUCKETS_PER_DOUBLING))
    return None
