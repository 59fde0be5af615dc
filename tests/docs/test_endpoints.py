"""docs/endpoints.md names what is served, and nothing else."""

from __future__ import annotations

import re

from aigw.protocols.operations import OPERATIONS
from aigw.server import billing
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs/endpoints.md").read_text(encoding="utf-8")


def test_every_endpoint() -> None:
    """Each with its method, its path and its name in records."""
    written = set(re.findall(r"^\| `([A-Z]+) /v1(?:beta)?(/\S+)` \| `(\w+)` \|", PAGE, re.MULTILINE))
    assert written == {(one.method, one.path, one.name) for one in OPERATIONS.values() if one.door}


def test_groups() -> None:
    """What `by` takes."""
    assert all(f"`{group}`" in PAGE for group in billing.GROUPS)
