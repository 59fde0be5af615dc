"""What is particular to counters in memory; what they share with others is in tests/contracts/test_counters.py."""

from __future__ import annotations

import pytest

from aigw.storage.base import Claim
from aigw.storage.counters import MemoryCounters

NOW = 1_790_000_000.0


async def test_memory_is_given_back() -> None:
    """Gauges when nobody holds them, windows when they can no longer count."""
    counters = MemoryCounters()
    for number in range(1000):
        permit = await counters.hold([Claim(f"w{number}", 1, 5), Claim(f"g{number}", 1, 5, 0)], NOW)
        counters.settle(permit, {})
    assert counters._gauges == {}
    await counters.sweep(NOW + 60)
    assert len(counters._windows) == 1000  # still the window before
    await counters.sweep(NOW + 130)
    assert counters._windows == {}


async def test_hold_does_not_wait() -> None:
    """It runs through at once, which is what makes it atomic in one event loop."""
    counters = MemoryCounters()
    coroutine = counters.hold([Claim("a", 1, 5), Claim("b", 1, 5, 0)], NOW)
    with pytest.raises(StopIteration) as done:
        coroutine.send(None)
    assert done.value.value.refused is None
