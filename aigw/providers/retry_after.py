"""How long a provider asks us to wait: the many ways in which an answer says so, in seconds."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime

LONGEST = 3600.0
"""Seconds. A longer wait is cut to this: an hour later we look again."""

_ABSURD = 366 * 86400.0  # nobody means a wait of a year: a clock or a unit is wrong
_DURATION = r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?"
_STEPS = (86400.0, 3600.0, 60.0, 1.0, 0.001)

# Reset times of rate-limit windows, each with the header that tells how much is left. OpenAI and those like it send durations
# ("6m0s"), Anthropic RFC 3339 times, OpenRouter milliseconds since the epoch, others seconds.
_WINDOWS = tuple(
    (f"{start}{kind}reset{end}", f"{start}{kind}remaining{end}")
    for start, kinds, ends in (
        ("x-ratelimit-", ("",), ("", "-requests", "-tokens")),
        ("ratelimit-", ("",), ("",)),
        ("anthropic-ratelimit-", ("requests-", "tokens-", "input-tokens-", "output-tokens-"), ("",)),
    )
    for kind in kinds
    for end in ends
)


def retry_after(headers: Mapping[str, str], now: float, delay: str = "") -> float | None:
    """Seconds from *now* (epoch), 0 to `LONGEST`; None when the answer does not say, or says something absurd.

    *delay* is what the body asked for (Google's RetryInfo: "34.07s"). The first that speaks wins: retry-after-ms,
    retry-after, the body, the windows that are used up.
    """
    milliseconds = number(headers.get("retry-after-ms", ""))
    candidates = [None if milliseconds is None else milliseconds / 1000]
    asked = headers.get("retry-after", "")
    candidates += [_seconds(asked), _until(asked, now), _seconds(delay)]
    for candidate in candidates:
        if (fit := _fit(candidate)) is not None:
            return fit
    resets = [
        fit
        for reset, remaining in _WINDOWS
        if reset in headers and number(headers.get(remaining, "0")) in {0.0, None}
        if (fit := _fit(moment(headers[reset], now))) is not None
    ]
    return max(resets, default=None)


def _fit(seconds: float | None) -> float | None:
    if seconds is None or not math.isfinite(seconds) or not -_ABSURD < seconds < _ABSURD:
        return None
    return min(max(seconds, 0.0), LONGEST)


def number(text: str) -> float | None:
    """A plain number, without a sign; None for anything else."""
    return float(text) if re.fullmatch(r"[ \t]*[0-9]{1,15}(\.[0-9]{0,9})?[ \t]*", text) else None


def _seconds(text: str) -> float | None:
    """A number of seconds, or a duration as Go and Google write it."""
    plain = number(text)
    if plain is not None:
        return plain
    match = re.fullmatch(_DURATION, text.strip().lower()) if len(text) < 32 else None
    if not match or not match[0]:
        return None
    return sum(float(part) * step for part, step in zip(match.groups(), _STEPS, strict=True) if part)


def _until(text: str, now: float) -> float | None:
    """An HTTP date (of a clock that may be a little off) or an RFC 3339 time."""
    text = text.strip()
    if not 10 <= len(text) <= 40:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        from email.utils import parsedate_to_datetime  # rare, and email is a large package

        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, IndexError, OverflowError):
            return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    try:
        return max(moment.timestamp() - now, 0.0)
    except (OverflowError, ValueError):
        return None


def moment(text: str, now: float) -> float | None:
    """A reset header: a duration, a date, or seconds or milliseconds since the epoch."""
    plain = number(text)
    if plain is None:
        return _seconds(text) if _seconds(text) is not None else _until(text, now)
    if plain > 1e12:
        return plain / 1000 - now
    return plain - now if plain > 1e9 else plain
