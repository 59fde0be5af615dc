"""Bounds as an operator writes them: of a prompt's length (">8000"), of the day ("22:00-06:00")."""

from __future__ import annotations

import re
from datetime import tzinfo

_TOKENS = re.compile(r"(>=?|<=?)\s*([0-9]{1,12})\Z|([0-9]{1,12})\s*-\s*([0-9]{1,12})\Z")
_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)\s*-\s*(?:([01]\d|2[0-3]):([0-5]\d)|24:00)\Z")


def bounds(text: str) -> tuple[int, int]:
    """The least and the most tokens that *text* (">8000", "<=8000", "1000-8000") means. Raises ValueError."""
    found = _TOKENS.match(text.strip())
    if found is None:
        raise ValueError('expected a bound such as ">8000", "<=8000" or "1000-8000"')
    if found[3]:
        least, most = int(found[3]), int(found[4])
    elif found[1].startswith(">"):
        least, most = int(found[2]) + (found[1] == ">"), 2**62
    else:
        least, most = 0, int(found[2]) - (found[1] == "<")
    if least > most:
        raise ValueError("no prompt has that length; expected the smaller number first")
    return least, most


def hours(text: str) -> tuple[int, int]:
    """From and until, in minutes of the day. Raises ValueError."""
    found = _HOURS.match(text.strip())
    if found is None:
        raise ValueError('expected hours such as "22:00-06:00"')
    begin = int(found[1]) * 60 + int(found[2])
    end = int(found[3]) * 60 + int(found[4]) if found[3] else 24 * 60
    if begin == end:
        raise ValueError('expected two different times of the day, such as "22:00-06:00"')
    return begin, end


def zone(name: str) -> tzinfo:
    """Raises ValueError for what is no time zone here."""
    from zoneinfo import ZoneInfo  # only where somebody names one

    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        raise ValueError('expected a time zone such as "Asia/Shanghai" or "UTC"') from None
