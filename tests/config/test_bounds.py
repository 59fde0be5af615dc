"""Bounds as operators write them."""

from __future__ import annotations

import pytest

from aigw.config.bounds import bounds, hours, zone


def test_lengths() -> None:
    """More than, at least, less than, at most, and between."""
    assert bounds(">8000") == (8001, 2**62)
    assert bounds(">= 8000") == (8000, 2**62)
    assert bounds("<8000") == (0, 7999)
    assert bounds("<=8000") == (0, 8000)
    assert bounds("1000-8000") == (1000, 8000)


@pytest.mark.parametrize("text", ["", "8000", "=8", "8000-1000", ">many", "<0"])
def test_no_lengths(text: str) -> None:
    """Each with a hint of what is expected."""
    with pytest.raises(ValueError, match="expected"):
        bounds(text)


def test_hours() -> None:
    """In minutes; midnight may be called 24:00."""
    assert hours("22:00-06:30") == (1320, 390)
    assert hours("18:00-24:00") == (1080, 1440)
    for text in ("22-6", "24:00-01:00", "08:00-08:00", "soon"):
        with pytest.raises(ValueError, match="expected"):
            hours(text)


def test_zones() -> None:
    """Such as this machine knows."""
    assert str(zone("Asia/Shanghai")) == "Asia/Shanghai"
    for name in ("Mars/Olympus", "../etc/passwd", ""):
        with pytest.raises(ValueError, match="time zone"):
            zone(name)
