"""How many workers `workers = "auto"` is."""

from __future__ import annotations

import os
from pathlib import Path

from aigw.config.check import MOST_WORKERS

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Where a container finds how much of the processors is its own: "200000 100000" is two of them."""


def amount(workers: str | int, quota: Path = QUOTA) -> int:
    """The number that *workers* says; "auto" is one for each processor that this process may use, and at least one."""
    if isinstance(workers, int):
        return workers
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        share, period = quota.read_text().split()
        allowed = min(allowed, max(1, int(share) // int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        pass  # no container, or one without a limit ("max")
    return min(allowed, MOST_WORKERS)
