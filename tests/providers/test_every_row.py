"""Golden pairs for every row of the catalog: each operation's exact request, and how answers, errors and streams arrive."""

from __future__ import annotations

import json

import pytest

from aigw.providers import catalog
from tests.providers.every_row import FILES, ODD, SECRET, made


@pytest.mark.parametrize("name", catalog.ids())
def test_a_row(name: str) -> None:
    """What happens is what the file says; after a wanted change of a row: python -m tests.providers.every_row."""
    assert json.loads(made(name)) == json.loads((FILES / f"{name}.json").read_text(encoding="utf-8"))


def test_no_row_is_missing() -> None:
    """Each has its file, no file is left over, and each is served and asked for something."""
    assert {path.stem for path in FILES.glob("*.json")} == set(catalog.ids())
    assert set(ODD) <= set(catalog.ids())
    for path in FILES.glob("*.json"):
        found = json.loads(path.read_text(encoding="utf-8"))
        assert found["requests"], path.stem
        assert found["evidence"] == catalog.row(path.stem).evidence


def test_the_key_goes_to_the_row_alone() -> None:
    """In a header of each request where the row takes one, never in its URL or body, and in nothing that callers see."""
    for name in catalog.ids():
        found = json.loads((FILES / f"{name}.json").read_text(encoding="utf-8"))
        for request in found["requests"].values():
            assert SECRET not in json.dumps([request["url"], request["body"]]), name
        assert SECRET not in json.dumps([found.get(part) for part in ("answer", "error", "stream")]), name
