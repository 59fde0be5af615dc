"""How many workers "auto" is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aigw.server.processors import amount


def test_a_number_is_that_number() -> None:
    """However many processors there are."""
    assert amount(7) == 7


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux")
def test_auto_is_what_this_process_may_use(tmp_path: Path) -> None:
    """Its processors, less what the container's quota leaves of them; never none."""
    mine = len(os.sched_getaffinity(0))
    quota = tmp_path / "cpu.max"
    assert amount("auto", quota) == mine
    for text, expected in (
        ("max 100000", mine),
        ("100000 100000", 1),
        ("50000 100000", 1),
        ("9900000 100000", mine),
        ("?", mine),
    ):
        quota.write_text(text + "\n")
        assert amount("auto", quota) == expected
