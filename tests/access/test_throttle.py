"""Whoever tries keys is slowed down, by address; nobody else is."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

from aigw.access import throttle as room
from aigw.access.throttle import Throttle, ThrottledError


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("limit", [1, 7, 60, 1000])
def test_so_many_a_minute(limit: int) -> None:
    """As many as are allowed are listened to at once; then one for each share of the minute that has passed; after a quiet
    minute as many again."""
    clock = Clock()
    throttle = Throttle(limit, clock=clock)
    for _ in range(2):
        assert [throttle.failed("10.0.0.1") for _ in range(limit)] == [0.0] * limit
        wait = throttle.failed("10.0.0.1")
        assert 0 < wait <= 60 / limit + 1e-6
        clock.now += wait
        assert throttle.failed("10.0.0.1") == 0.0
        assert throttle.failed("10.0.0.1") > 0
        clock.now += 61
    assert throttle.failures == 2 * (limit + 3)
    assert throttle.throttled == 4


def test_a_flood_is_worth_no_more() -> None:
    """Those that are throttled are not counted against an address: it is free again as soon as the minute has room."""
    limit, clock = 10, Clock()
    throttle = Throttle(limit, clock=clock)
    listened = 0
    for _ in range(10_000):
        listened += not throttle.failed("10.0.0.1")
        clock.now += 0.012  # two minutes in all
    assert limit + 19 <= listened <= limit + 21


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("10.0.0.1", "::ffff:10.0.0.1", True),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("::1", "::2", False),
        ("", "10.0.0.1", False),
        ("no:address", "10.0.0.1", False),
    ],
)
def test_what_one_address_is(one: str, other: str, same: bool) -> None:
    """Of IPv6 a caller has a whole network, so that counts as one; IPv4 is the same on every kind of socket."""
    throttle = Throttle(1, clock=Clock())
    assert throttle.failed(one) == 0
    assert bool(throttle.failed(other)) == same


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many addresses fail; those that failed last are remembered, also when all they do is being throttled."""
    monkeypatch.setattr(room, "ADDRESSES", 100)
    throttle = Throttle(1, clock=Clock())
    for number in range(1000):
        throttle.failed(f"10.0.{number // 250}.{number % 250}")
        throttle.failed("192.0.2.1")
    assert len(throttle) == 100
    assert throttle.failed("192.0.2.1")
    assert throttle.failed("10.0.3.249")
    assert not throttle.failed("10.0.0.0")


def test_off() -> None:
    """0 is no limit; it is counted all the same."""
    throttle = Throttle(0)
    assert not any(throttle.failed("10.0.0.1") for _ in range(1000))
    assert (throttle.failures, throttle.throttled, len(throttle)) == (1000, 0, 0)


def test_what_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """One line a minute for an address and ten in all, naming it only where addresses may be kept."""
    caplog.set_level(logging.WARNING, "aigw.access")
    clock = Clock()
    throttle = Throttle(2, names=True, clock=clock)
    for _ in range(100):
        throttle.failed("10.0.0.1")
        clock.now += 0.1
    assert [record.getMessage() for record in caplog.records] == [
        "2 wrong keys within a minute from 10.0.0.1: answered 429 from now on, valid keys excepted"
    ]
    for number in range(100):
        for _ in range(3):
            throttle.failed(f"10.0.1.{number}")
    assert len(caplog.records) == 10
    clock.now += 100
    throttle.names = False
    for _ in range(3):
        throttle.failed("10.0.0.1")
    assert "from one address" in caplog.records[-1].getMessage()


async def test_the_answer_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A throttled caller waits; but not so many at a time that their waiting costs us."""
    monkeypatch.setattr(room, "PAUSE", 0.05)
    monkeypatch.setattr(room, "WAITING", 3)
    throttle = Throttle(1)
    began = time.monotonic()
    waiting = [asyncio.create_task(throttle.pause()) for _ in range(3)]
    await asyncio.sleep(0)
    await throttle.pause()
    assert time.monotonic() - began < 0.04
    waiting[0].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert time.monotonic() - began >= 0.05
    assert throttle._waiting == 0


def test_the_error() -> None:
    """It says what helps: a valid key, or time."""
    error = ThrottledError(0.3)
    assert (error.code, error.status, error.retry_after) == ("policy_rate_limited", 429, 0.3)
    assert "try again in 1 s, or send a valid key" in error.message
