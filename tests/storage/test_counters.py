"""What is particular to counters in memory; what they share with others is in tests/contracts/test_counters.py."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
from hypothesis import given, strategies as st

from aigw.storage.base import Claim, Permit
from aigw.storage.counters import MONEY, PLACE, REQUESTS, TOKEN_WINDOW, TOKENS, MemoryCounters, Slot

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


@given(
    st.lists(
        st.tuples(
            st.integers(0, 30), st.integers(0, 30), st.integers(0, 40), st.integers(0, 40), st.floats(0, 400), st.booleans()
        ),
        max_size=30,
    )
)
async def test_slots_are_claims(asked: list[tuple[int, int, int, int, float, bool]]) -> None:
    """Holding by slots comes to the same as holding by claims, request for request, refusals and settlements too."""
    slots: list[Slot] = [
        (REQUESTS, "rpm:a", 7),
        (TOKEN_WINDOW, "tpm:a", 100),
        (TOKENS, "tokens:a", 300),
        (MONEY, "usd:a", 200),
        (PLACE, "concurrency:a", 3),
    ]
    one, two = MemoryCounters(), MemoryCounters()
    for counters in (one, two):
        await counters.prime({"tokens:a": (0, inf), "usd:a": (0, inf)})
    under_way: list[tuple[Permit, Any, tuple[int, int], tuple[int, int], float]] = []
    now = 1000.0
    for tokens, nano, used, cost, wait, settles in asked:
        now += wait / 10
        claims = [Claim("rpm:a", 1, 7)]
        claims += [Claim("tpm:a", tokens, 100)] if tokens else []
        claims += [Claim("tokens:a", tokens, 300, ends=inf)] if tokens else []
        claims += [Claim("usd:a", nano, 200, ends=inf)] if nano else []
        claims.append(Claim("concurrency:a", 1, 3, 0))
        permit, taken = one.take(claims, now), two.take_slots(slots, tokens, nano, now)
        assert (permit.refused is None) == (taken is not None)
        if taken is not None:
            assert taken[1] == permit.left
            under_way.append((permit, taken[0], (tokens, nano), (used, cost), now))
        if settles and under_way:
            permit, held, size, really, at = under_way.pop(0)
            one.settle(permit, {"tpm:a": really[0], "tokens:a": really[0], "usd:a": really[1]})
            two.settle_slots(slots, held, size, really, at)
        assert await one.read(["tokens:a", "usd:a"]) == await two.read(["tokens:a", "usd:a"])
        assert one._gauges == two._gauges
        for key, limit in (("rpm:a", 7), ("tpm:a", 100)):
            assert one._free(Claim(key, 1, limit), now) == two._free(Claim(key, 1, limit), now)
