"""When another try is allowed: the design's table, line by line."""

from __future__ import annotations

import pytest

from aigw.errors import UpstreamError
from aigw.routing.retry import Budget, Rules, may_retry, pause


def error(code: str, status: int | None = None, *, sent: bool = True, retry: bool = True) -> UpstreamError:
    return UpstreamError(code, "failed", upstream_status=status, sent=sent, may_retry=retry)


UNREACHABLE = error("provider_unreachable", sent=False)
LOST = error("provider_connection_lost")
TIMED_OUT = error("provider_timeout")
NEVER_CONNECTED = error("provider_timeout", sent=False)


@pytest.mark.parametrize(
    ("failure", "chat", "images"),
    [
        (UNREACHABLE, True, True),
        (NEVER_CONNECTED, True, True),
        (LOST, True, False),
        (TIMED_OUT, True, False),
        (error("provider_rate_limited", 429), True, True),
        (error("provider_error", 500), True, True),
        (error("provider_overloaded", 503), True, True),
        (error("provider_overloaded", 529), True, True),
        (error("provider_timeout", 504), True, False),
        (error("provider_bad_response", 200), True, False),
        (error("provider_rejected", 400, retry=False), False, False),
    ],
    ids=lambda value: f"{value.code} {value.upstream_status}" if isinstance(value, UpstreamError) else None,
)
def test_the_first_failure(failure: UpstreamError, chat: bool, images: bool) -> None:
    """Chat is tried again whenever that may help; images only while nobody can have begun to paint: nothing was sent, or the
    provider itself said that it did not."""
    timeouts = int(failure.code == "provider_timeout" and failure.sent)
    assert may_retry(failure, safe=True, timeouts=timeouts) is chat
    assert may_retry(failure, safe=False, timeouts=timeouts) is images


def test_a_timeout_is_followed_by_one_more_try() -> None:
    """Not by two: each may have been billed."""
    assert may_retry(TIMED_OUT, safe=True, timeouts=1)
    assert not may_retry(TIMED_OUT, safe=True, timeouts=2)


def test_other_failures_after_a_timeout_are_judged_for_themselves() -> None:
    """A refusal that follows one timeout costs nothing, so it stops nothing."""
    assert may_retry(error("provider_overloaded", 503), safe=True, timeouts=1)
    assert may_retry(UNREACHABLE, safe=True, timeouts=1)


def test_the_budget_has_a_floor_and_a_share() -> None:
    """100 in ten seconds always; beyond that 15 % of what was asked for."""
    budget = Budget(0.15, 100)
    assert sum(budget.take(0.5) for _ in range(200)) == 100
    budget = Budget(0.15, 100)
    granted = 0
    for step in range(60_000):  # a minute of 1,000 a second, all of which fail
        budget.asked += 1
        granted += budget.take(step / 1000)
    assert 60_000 * 0.10 < granted < 60_000 * 0.2


def test_a_quiet_time_is_no_treasure() -> None:
    """What was asked for long ago allows nothing now."""
    budget = Budget(0.15, 10)
    budget.take(0)
    budget.asked += 1_000_000
    assert sum(budget.take(10_000) for _ in range(5000)) < 200


def test_pauses_have_full_jitter() -> None:
    """Anything from nothing to twice the mean, which doubles, up to the longest."""
    rules = Rules(pause=0.5, longest_pause=3.0)
    first = [pause(rules, 1) for _ in range(500)]
    assert 0 <= min(first) < 0.2 < 0.8 < max(first) <= 1.0
    assert max(pause(rules, 9) for _ in range(500)) <= 3.0
