"""What consumers may be called."""

from __future__ import annotations

import unicodedata

import pytest

from aigw.access.names import LENGTH, valid


@pytest.mark.parametrize(
    "name", ["alice", "a", "ci-2", "Team A", "søren", "李雷", "a/b", "user@example.org", "x" * LENGTH, "कि"]
)
def test_names(name: str) -> None:
    assert valid(name) == name


def test_what_looks_equal_is_equal() -> None:
    assert valid(unicodedata.normalize("NFD", "é")) == unicodedata.normalize("NFC", "é")


@pytest.mark.parametrize(
    "name", ["", " a", "a ", "-a", "a-", "a  b", "a\nb", "a\x1b[2J", "x" * (LENGTH + 1), "a\u202eb", "a,b", "a:b"]
)
def test_no_names(name: str) -> None:
    with pytest.raises(ValueError, match="expected 1 to 64 letters"):
        valid(name)
