"""Waits: every way to ask for one is understood, nonsense is not."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given, strategies

from aigw.providers.retry_after import LONGEST, retry_after

NOW = datetime(2026, 11, 18, 8, 26, 40, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("headers", "delay", "seconds"),
    [
        ({}, "", None),
        ({"retry-after": "7"}, "", 7.0),
        ({"retry-after": "1.5"}, "", 1.5),
        ({"retry-after": "0"}, "", 0.0),
        ({"retry-after-ms": "250", "retry-after": "7"}, "", 0.25),
        ({"retry-after": "Wed, 18 Nov 2026 08:27:40 GMT"}, "", 60.0),
        ({"retry-after": "Wed, 18 Nov 2026 08:00:00 GMT"}, "", 0.0),
        ({"retry-after": "7200"}, "", LONGEST),
        ({"retry-after": "99999999999"}, "", None),
        ({"retry-after": "-5"}, "", None),
        ({"retry-after": "nan"}, "", None),
        ({"retry-after": "soon"}, "", None),
        ({"retry-after": "9" * 500}, "", None),
        ({}, "34.07s", 34.07),
        ({}, "34s", 34.0),
        ({"retry-after": "3"}, "34s", 3.0),
        ({"x-ratelimit-reset-requests": "6m0s", "x-ratelimit-remaining-requests": "0"}, "", 360.0),
        ({"x-ratelimit-reset-tokens": "120ms", "x-ratelimit-remaining-tokens": "0"}, "", 0.12),
        ({"x-ratelimit-reset-requests": "1d2h3m4s", "x-ratelimit-remaining-requests": "0"}, "", LONGEST),
        ({"x-ratelimit-reset-requests": "6m0s", "x-ratelimit-remaining-requests": "12"}, "", None),
        (
            {
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-remaining-requests": "99",
                "x-ratelimit-reset-tokens": "20s",
                "x-ratelimit-remaining-tokens": "0",
            },
            "",
            20.0,
        ),
        ({"x-ratelimit-reset": str(int((NOW + 30) * 1000)), "x-ratelimit-remaining": "0"}, "", 30.0),
        ({"x-ratelimit-reset": str(int(NOW + 30))}, "", 30.0),
        ({"x-ratelimit-reset": "30"}, "", 30.0),
        ({"anthropic-ratelimit-tokens-reset": "2026-11-18T08:27:10Z", "anthropic-ratelimit-tokens-remaining": "0"}, "", 30.0),
        (
            {"anthropic-ratelimit-requests-reset": "2026-11-18T08:27:10Z", "anthropic-ratelimit-requests-remaining": "5"},
            "",
            None,
        ),
    ],
)
def test_forms(headers: dict[str, str], delay: str, seconds: float | None) -> None:
    """As vendors write them."""
    assert retry_after(headers, NOW, delay) == (None if seconds is None else pytest.approx(seconds))


NAMES = ["retry-after", "retry-after-ms", "x-ratelimit-reset", "x-ratelimit-reset-tokens", "anthropic-ratelimit-tokens-reset"]


@given(
    strategies.dictionaries(strategies.sampled_from(NAMES), strategies.text() | strategies.floats().map(str)), strategies.text()
)
def test_anything(headers: dict[str, str], delay: str) -> None:
    """Always None or a wait we can live with."""
    wait = retry_after(headers, NOW, delay)
    assert wait is None or (math.isfinite(wait) and 0 <= wait <= LONGEST)
