"""A file from which a server without its database knows who may call."""

from __future__ import annotations

from pathlib import Path

import pytest

from aigw.access.consumer_keys import mint
from aigw.consumer import Budget, Consumer, Terms
from aigw.storage.consumer_cache import load, save

URL = "postgresql://u:secret@h/d"


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    """Every field; for the owner alone; no key in it, and no password."""
    path = tmp_path / "consumers.cache"
    consumer = Consumer(id="c", name="alice", terms=Terms(rpm=5, budgets=(Budget(7),), models=("gpt-*",)), tags="{}")
    key, stored = mint("c", now=1.0)
    save(path, URL, [consumer], [stored])
    assert load(path, URL) == ([consumer], [stored])
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    for secret in (key, key.rpartition("-")[2], "secret"):
        assert secret.encode() not in path.read_bytes()


@pytest.mark.parametrize("content", [b"", b"\x93", b"\x94\x02\xa0\x90\x90", b"garbage" * 99])
def test_what_is_of_no_use_is_nothing(tmp_path: Path, content: bytes) -> None:
    """Half a file, another version's, another database's: as if there were none."""
    path = tmp_path / "consumers.cache"
    assert load(path, URL) is None
    save(path, URL, [], [])
    assert load(path, URL + "2") is None
    path.write_bytes(content)
    assert load(path, URL) is None
