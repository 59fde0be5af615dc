"""What a provider says one of our keys may still do: `x-ratelimit-*`, `anthropic-ratelimit-*` and their relatives.

OpenAI, Groq, Together, Fireworks, Moonshot, Baidu and most others send `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`;
Anthropic `anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}`; OpenRouter and GitHub
`x-ratelimit-{limit,remaining,reset}`, of requests.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from aigw.deployment import Allowance
from aigw.exchange import Headers
from aigw.providers.retry_after import moment, number

_STARTS = (b"x-ratelimit-", b"anthropic-ratelimit-", b"ratelimit-")

_REQUESTS = (
    ("x-ratelimit-{}-requests",),
    ("anthropic-ratelimit-requests-{}",),
    ("x-ratelimit-{}",),
    ("ratelimit-{}",),
)
_TOKENS = (
    ("x-ratelimit-{}-tokens",),
    ("anthropic-ratelimit-tokens-{}", "anthropic-ratelimit-input-tokens-{}", "anthropic-ratelimit-output-tokens-{}"),
)


def allowance(headers: Headers, now: float) -> Allowance | None:
    """What *headers* say, None when they say nothing that can be understood. *now* is seconds since the epoch."""
    said = {
        lower.decode("latin-1"): value.decode("latin-1")
        for name, value in headers
        if (lower := name.lower()).startswith(_STARTS) and len(value) < 64
    }
    if not said:
        return None
    requests, tokens = _tightest(said, _REQUESTS, now), _tightest(said, _TOKENS, now)
    if requests is None and tokens is None:
        return None
    return Allowance(*(requests or (None, None, None)), *(tokens or (None, None, None)))


def _tightest(
    said: Mapping[str, str], families: tuple[tuple[str, ...], ...], now: float
) -> tuple[float, float | None, float | None] | None:
    """Left, limit, seconds until the reset: of the first family that is there, the member with the least left."""
    for family in families:
        found = []
        for member in family:
            left = number(said.get(member.format("remaining"), ""))
            if left is None or not math.isfinite(left):
                continue
            reset = moment(said.get(member.format("reset"), ""), now)
            if reset is not None and not 0 <= reset < 86400 * 366:
                reset = None  # a clock or a unit is wrong
            limit = number(said.get(member.format("limit"), ""))
            found.append((left, limit or None, reset))
        if found:
            return min(found, key=lambda one: one[0] / one[1] if one[1] else one[0])
    return None
