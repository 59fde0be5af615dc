from __future__ import annotations

import time
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from aigw.cli import windows

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC).timestamp()
DAY = 86400.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("5m", 300), ("24h", DAY), ("30d", 30 * DAY), ("2w", 14 * DAY), ("1d12h", 1.5 * DAY), (" 1.5H ", 5400)],
)
def test_spans(text: str, seconds: float) -> None:
    """Spans are written as people write them."""
    assert windows.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "d", "-5m", "0d", "5 m", "1y", "1e9d", "99999999d", "1d 2h", "٣d", "1d;2h"])
def test_no_spans(text: str) -> None:
    """What is no span is refused with an example, not guessed."""
    with pytest.raises(ValueError, match="span of time"):
        windows.seconds(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("24h", NOW - DAY),
        ("2026-11-19", datetime(2026, 11, 19, tzinfo=ZoneInfo("Asia/Shanghai")).timestamp()),
        ("2026-11-19T06:30", datetime(2026, 11, 19, 6, 30, tzinfo=ZoneInfo("Asia/Shanghai")).timestamp()),
        ("2026-11-19T06:30Z", datetime(2026, 11, 19, 6, 30, tzinfo=UTC).timestamp()),
        ("2026-11-19 06:30+01:00", datetime(2026, 11, 19, 5, 30, tzinfo=UTC).timestamp()),
    ],
)
def test_moments(text: str, expected: float) -> None:
    """A moment is a span ago or a date, in the zone that was asked for unless it names one."""
    assert windows.moment(text, NOW, ZoneInfo("Asia/Shanghai")) == expected


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "2026-11-31", "2026-1", "9999-99", "1d2", ""])
def test_no_moments(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected (one like|a span like)"):
        windows.moment(text, NOW, UTC)


def test_month() -> None:
    """A month is whole in its zone, over the change of the year and of the clocks."""
    berlin = ZoneInfo("Europe/Berlin")
    assert windows.month("2026-12", UTC) == (
        datetime(2026, 12, 1, tzinfo=UTC).timestamp(),
        datetime(2027, 1, 1, tzinfo=UTC).timestamp(),
    )
    first, following = windows.month("2026-10", berlin)
    assert following - first == 31 * DAY + 3600
    for text in ("2026-13", "2026", "11-2026", "2026-11-01", "0000-01", "9999-12"):
        with pytest.raises(ValueError, match="expected one like 2026-11"):
            windows.month(text, UTC)


def test_windows() -> None:
    """No flag: the last 24 hours. --until alone: the 24 hours before it. A month stands alone, and none is empty."""
    assert windows.window(None, None, None, "UTC", NOW) == (NOW - DAY, NOW, "UTC")
    assert windows.window("30d", None, None, "UTC", NOW) == (NOW - 30 * DAY, NOW, "UTC")
    assert windows.window(None, "2d", None, "UTC", NOW) == (NOW - 3 * DAY, NOW - 2 * DAY, "UTC")
    since, until, tz = windows.window(None, None, "2026-11", "Asia/Kolkata", NOW)
    assert (until - since, tz) == (30 * DAY, "Asia/Kolkata")
    for since_text, until_text, month_text, tz_text, complaint in (
        ("1d", None, "2026-11", None, "stands alone"),
        ("1d", "2d", None, None, "the window is empty"),
        ("1d", "1d", None, None, "the window is empty"),
        (None, None, None, "Mars/Olympus", "is no time zone"),
        (None, None, None, "../etc/passwd", "is no time zone"),
        (None, None, None, "a\0b", "is no time zone"),
    ):
        with pytest.raises(ValueError, match=complaint):
            windows.window(since_text, until_text, month_text, tz_text, NOW)


def test_local_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's zone is $TZ when that is a zone; there always is one."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert windows.local_zone() == "Asia/Tokyo"
    monkeypatch.setenv("TZ", "nowhere")
    windows.zone_named(windows.local_zone())
    monkeypatch.delenv("TZ")
    zone = windows.zone_named(windows.local_zone())
    time.tzset()
    assert datetime.now(zone).utcoffset() == datetime.now().astimezone().utcoffset()
