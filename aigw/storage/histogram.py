"""Latency histograms: what percentiles are read from when a million records are too many to sort.

A bucket is an eighth of a doubling: bucket *b* holds the microseconds from 2**(b/8) up to 2**((b+1)/8), so each is 9.05 %
wider than the one before. `percentile` answers with a bucket's geometric midpoint, which is off by at most 2**(1/16) - 1 =
4.43 % from the exact (nearest-rank) percentile, over the whole range: one microsecond to as long as you like. A histogram is
sparse, a dict from bucket to count; one model's hour rarely needs more than sixty.

**Packed**, as it stands in a column, a histogram is its lowest bucket (two bytes), the width of a count in bytes (one), and the
counts from the lowest bucket to the highest: first the low byte of each, then the next byte of each, as many as the width says
(all little-endian). That takes about 60 bytes, and `Total` can add up tens of thousands of them in a blink.
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, MutableMapping
from functools import partial

Histogram = dict[int, int]

BUCKETS_PER_DOUBLING = 8

_HEAD = struct.Struct("<HB")
_LANE = 8
"""Bytes of one count while many histograms are added: no sum of counts needs more."""

_BORDERS = [math.ceil(2 ** (number / BUCKETS_PER_DOUBLING)) for number in range(1, 63 * BUCKETS_PER_DOUBLING)]
"""The least whole microsecond of each bucket but the first. A search here is twice as quick as a logarithm."""

bucket = partial(bisect_right, _BORDERS)
"""The bucket of a duration in microseconds; what took no measurable time goes into the first."""


def count(durations: Iterable[int]) -> Histogram:
    """The histogram of *durations*, in microseconds."""
    return Counter(map(bucket, durations))


def merge(into: MutableMapping[int, int], other: Mapping[int, int]) -> None:
    """Add the counts of *other*."""
    if not into:
        into.update(other)
        return
    for key, number in other.items():
        into[key] = into.get(key, 0) + number


def pack(histogram: Mapping[int, int]) -> bytes:
    """As it stands in a column; nothing measured is no bytes."""
    if not histogram:
        return b""
    lowest, most = min(histogram), max(histogram.values())
    if most < 256:  # one byte each, as nearly always
        small = bytearray(max(histogram) + 1 - lowest)
        for key, number in histogram.items():
            small[key - lowest] = number
        return _HEAD.pack(lowest, 1) + small
    counts = [histogram.get(key, 0) for key in range(lowest, max(histogram) + 1)]
    width = (most.bit_length() + 7) // 8
    lanes = struct.pack(f"<{len(counts)}Q", *counts)
    return _HEAD.pack(lowest, width) + b"".join([lanes[place::_LANE] for place in range(width)])


class Total:
    """The sum of many packed histograms.

    All counts lie side by side in one large integer, one lane of 64 bits for each bucket, so that one addition adds them all:
    a tenth of what bucket by bucket takes.
    """

    __slots__ = ("_lanes",)

    def __init__(self) -> None:
        self._lanes = 0

    def add(self, packed: bytes) -> None:
        """Add the counts of a histogram that `pack` has made."""
        if not packed:
            return
        lowest, width = _HEAD.unpack_from(packed)
        size = (len(packed) - _HEAD.size) // width
        lanes = bytearray(_LANE * size)
        for place in range(width):
            start = _HEAD.size + place * size
            lanes[place::_LANE] = packed[start : start + size]
        self._lanes += int.from_bytes(lanes, "little") << (8 * _LANE * lowest)

    def histogram(self) -> Histogram:
        """All that was added."""
        size = -(-self._lanes.bit_length() // (8 * _LANE))
        counts = struct.unpack(f"<{size}Q", self._lanes.to_bytes(_LANE * size, "little"))
        return {key: number for key, number in enumerate(counts) if number}


def unpack(packed: bytes) -> Histogram:
    """What `pack` was given."""
    total = Total()
    total.add(packed)
    return total.histogram()


def percentile(histogram: Mapping[int, int], share: float) -> int | None:
    """The duration that *share* (0 to 1) of all stay at or below, in microseconds; None when nothing was measured."""
    rank = max(1, math.ceil(share * sum(histogram.values())))
    for key in sorted(histogram):
        rank -= histogram[key]
        if rank <= 0:
            return round(2 ** ((key + 0.5) / BUCKETS_PER_DOUBLING))
    return None
