"""When a budget's window begins and ends: the calendar of its time zone, and the name by which counters know it.

An hour, a day, a week (from Monday), a month begin when the clocks of that zone say so, on days of 23 and of 25 hours as well.
The ledger's rows are quarters of an hour (`storage/spent.py`), and every zone there is begins its hours at one.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from math import floor, inf
from typing import NamedTuple
from zoneinfo import ZoneInfo

from aigw.consumer import WINDOWS

HOUR = 3600
QUARTER = 900


class Period(NamedTuple):
    """One window of a budget. `label` is part of its counter's key: it tells windows apart, and the same window of another
    zone. Times are epoch seconds; `ends` is `inf` for what never begins anew."""

    label: str
    starts: float
    ends: float


def zone(name: str) -> tzinfo:
    """The time zone *name* ("" is UTC). Raises ValueError for none."""
    return _zone(name)


@lru_cache(maxsize=256)
def _zone(name: str) -> tzinfo:
    if not name or name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"unknown time zone {name!r}; expected a name such as Asia/Shanghai") from None


def period(window: str, tz: str, at: float) -> Period:
    """The *window* (one of `consumer.WINDOWS`) of the zone *tz* in which *at* (epoch seconds) lies. Raises ValueError for a
    window or a zone that is none."""
    if window == "total":
        return Period("total", 0.0, inf)
    if window not in WINDOWS:
        raise ValueError(f"unknown window {window!r}; expected one of {', '.join(WINDOWS)}")
    where = zone(tz)
    second = floor(at)  # windows begin on whole seconds; `fromtimestamp` would round the last half microsecond up
    now = datetime.fromtimestamp(second, where)
    if window == "hour":
        # By the zone's own minutes, but in real time: an hour that the clocks show twice is two hours.
        starts = round((second - now.minute * 60 - now.second) / QUARTER) * QUARTER
        ends = starts + HOUR
        return Period(f"hour@{starts}", float(starts), float(ends))
    day = datetime(now.year, now.month, now.day, tzinfo=where)
    if window == "day":
        begins, until = day, day + timedelta(days=1)
    elif window == "week":
        begins = day - timedelta(days=day.weekday())
        until = begins + timedelta(days=7)
    else:
        begins = day.replace(day=1)
        until = begins.replace(year=begins.year + 1, month=1) if begins.month == 12 else begins.replace(month=begins.month + 1)
    starts = int(begins.timestamp())
    return Period(f"{window}@{starts}", float(starts), until.timestamp())
