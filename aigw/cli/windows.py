"""Times on the command line: `--since --until --month --tz`, and spans like 30d."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import NamedTuple

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SPAN = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhdw])")
FOREVER = 100 * 366 * 86400.0
"""Seconds. No span is longer: what would be is a slip of the finger."""


class Window(NamedTuple):
    """From `since` up to, not including, `until` (seconds since the epoch), seen in the time zone `tz` (IANA name)."""

    since: float
    until: float
    tz: str


def seconds(text: str) -> float:
    """A span in seconds: 90s, 5m, 24h, 30d, 2w, 1d12h. Raises ValueError, whose message says what was expected."""
    compact = text.strip().lower()
    parts = _SPAN.findall(compact)
    if not parts or "".join(number + unit for number, unit in parts) != compact:
        raise ValueError(f"{text!r} is not a span of time; expected one like 30d, 24h, 5m or 1d12h")
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not 0 < total <= FOREVER:
        raise ValueError(f"{text!r} is too {'long' if total else 'short'} a span of time")
    return total


def moment(text: str, now: float, zone: tzinfo, *, ahead: bool = False) -> float:
    """A point in time: a span before *now* (after it with `ahead`), or an ISO 8601 date or time, in *zone* unless it names
    its own. A date is its first moment. Raises ValueError."""
    if re.match(r"\s*[0-9]{4}-", text):
        try:
            found = datetime.fromisoformat(text.strip())
            return (found if found.tzinfo else found.replace(tzinfo=zone)).timestamp()
        except (ValueError, OverflowError):
            raise ValueError(f"{text!r} is no date or time; expected one like 2026-11-30 or 2026-11-30T18:00") from None
    try:
        span = seconds(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time; expected a span like 24h or 30d, or a date like 2026-11-30") from None
    return now + span if ahead else now - span


def month(text: str, zone: tzinfo) -> tuple[float, float]:
    """First moment of a month (2026-11) and of the next. Raises ValueError."""
    match = re.fullmatch(r"([0-9]{4})-([0-9]{1,2})", text.strip())
    try:
        if match is None:
            raise ValueError
        first = datetime(int(match[1]), int(match[2]), 1, tzinfo=zone)
        following = (first + timedelta(days=31)).replace(day=1)
        return first.timestamp(), following.timestamp()
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no month; expected one like 2026-11") from None


def window(since: str | None, until: str | None, of_month: str | None, tz: str | None, now: float) -> Window:
    """What the four flags mean together; the last 24 hours when none is given. Raises ValueError."""
    name = tz or local_zone()
    zone = zone_named(name)
    if of_month is not None:
        if since is not None or until is not None:
            raise ValueError("--month stands alone; leave out --since and --until")
        return Window(*month(of_month, zone), name)
    end = now if until is None else moment(until, now, zone)
    start = end - _UNITS["d"] if since is None else moment(since, now, zone)
    if start >= end:
        raise ValueError("the window is empty: --since is not before --until")
    return Window(start, end, name)


def zone_named(name: str) -> tzinfo:
    """The time zone of an IANA name. Raises ValueError. UTC needs no time zone data, which small containers lack."""
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(
            f"{name!r} is no time zone of this system; expected one like UTC, Asia/Shanghai or Europe/Berlin"
        ) from None


def local_zone() -> str:
    """The IANA name of this machine's time zone: $TZ, else what /etc/localtime points to, else UTC."""
    candidates = [os.environ.get("TZ", "").removeprefix(":")]
    try:
        candidates.append(str(Path("/etc/localtime").readlink()).partition("zoneinfo/")[2])
    except OSError:
        pass
    for name in candidates:
        if name:
            try:
                zone_named(name)
            except ValueError:
                continue
            return name
    return "UTC"
