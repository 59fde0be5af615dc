"""The windows of budgets, by the calendar of any zone."""

from __future__ import annotations

from datetime import UTC, datetime
from math import inf
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given, strategies as st

from aigw.access.periods import period, zone
from aigw.consumer import WINDOWS

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC).timestamp()  # a Tuesday


def at(*parts: int, tz: str = "UTC") -> float:
    return datetime(*parts, tzinfo=ZoneInfo(tz)).timestamp()  # type: ignore[arg-type,misc]


@pytest.mark.parametrize(
    ("window", "starts", "ends"),
    [
        ("hour", (2026, 11, 24, 12), (2026, 11, 24, 13)),
        ("day", (2026, 11, 24), (2026, 11, 25)),
        ("week", (2026, 11, 23), (2026, 11, 30)),
        ("month", (2026, 11, 1), (2026, 12, 1)),
    ],
)
def test_windows_of_the_calendar(window: str, starts: tuple[int, ...], ends: tuple[int, ...]) -> None:
    """Its first moment belongs to it, its end to the next; the label is the same all through and never another's."""
    found = period(window, "", NOON)
    assert (found.starts, found.ends) == (at(*starts), at(*ends))
    assert period(window, "UTC", found.starts) == period(window, "", found.ends - 0.001) == found
    assert period(window, "", found.ends).starts == found.ends
    assert period(window, "", found.ends).label != found.label


def test_total_never_ends() -> None:
    assert period("total", "Asia/Shanghai", NOON) == ("total", 0.0, inf)


def test_a_zone_has_its_own_midnight() -> None:
    """Shanghai's day is another than UTC's, and says so."""
    here, there = period("day", "", NOON + 6 * 3600), period("day", "Asia/Shanghai", NOON + 6 * 3600)
    assert there.starts == at(2026, 11, 25, tz="Asia/Shanghai")
    assert here.label != there.label


def test_days_of_23_and_25_hours() -> None:
    """When the clocks of Berlin change."""
    spring = period("day", "Europe/Berlin", at(2026, 3, 29, 12, tz="Europe/Berlin"))
    autumn = period("day", "Europe/Berlin", at(2026, 10, 25, 12, tz="Europe/Berlin"))
    assert (spring.ends - spring.starts, autumn.ends - autumn.starts) == (23 * 3600, 25 * 3600)


def test_an_hour_shown_twice_is_two_hours() -> None:
    """And one of a zone off by three quarters begins at its own full hour."""
    first = period("hour", "Europe/Berlin", at(2026, 10, 25, 0, 30))  # 2:30, summer time
    second = period("hour", "Europe/Berlin", at(2026, 10, 25, 1, 30))  # 2:30 again
    assert first.ends == second.starts
    assert period("hour", "Asia/Kathmandu", NOON).starts == NOON - 45 * 60


@example("hour", "Africa/Abidjan", 2208988799.9999995)  # less than the clock can tell before the hour
@given(
    st.sampled_from(WINDOWS[:-1]),
    st.sampled_from(sorted(available_timezones() - {"localtime"})),
    st.floats(at(2020, 1, 1), at(2040, 1, 1)),
)
def test_every_moment_lies_in_one_window(window: str, tz: str, moment: float) -> None:
    """In any zone; windows follow one another without a gap, and begin where the ledger has a border."""
    found = period(window, tz, moment)
    assert found.starts <= moment < found.ends
    assert found.starts % 900 == 0
    assert period(window, tz, found.ends).starts == found.ends
    assert period(window, tz, found.starts - 1).ends == found.starts


@pytest.mark.parametrize(("window", "tz"), [("fortnight", ""), ("day", "Mars/Olympus"), ("day", "../etc/passwd")])
def test_what_is_no_window(window: str, tz: str) -> None:
    with pytest.raises(ValueError, match="unknown"):
        period(window, tz, NOON)


def test_zones_are_found_by_name() -> None:
    assert zone("") is zone("UTC") is UTC
    assert zone("Asia/Shanghai") == ZoneInfo("Asia/Shanghai")
