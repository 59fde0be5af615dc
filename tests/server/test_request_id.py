"""Names for requests."""

from __future__ import annotations

import subprocess
import sys

from aigw.server.request_id import new_id


def test_ids_are_unique_and_in_order() -> None:
    """Within a process each is greater than the one before, so that they sort as the requests came."""
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert ids == sorted(ids)
    assert all(one.startswith("req_") and len(one) == 24 for one in ids)


def test_two_processes_share_no_id() -> None:
    """Their first halves differ: records of two servers meet in one store."""
    code = "from aigw.server.request_id import new_id; print(new_id())"
    first, second = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in "ab"
    )
    assert first[:16] != second[:16]
