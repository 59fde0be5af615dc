from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from aigw.errors import ConfigError
from aigw.storage.counters import MemoryCounters
from aigw.storage.open import open_counters, open_store
from aigw.storage.postgres import PostgresStore
from aigw.storage.redis import RedisCounters


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("sqlite:", "data/aigw.db"),
        ("sqlite:{tmp}/elsewhere/x.db", "elsewhere/x.db"),
        ("sqlite://{tmp}/elsewhere/x.db", "elsewhere/x.db"),
        ("sqlite:relative.db", "data/relative.db"),
    ],
)
async def test_where_the_file_is(tmp_path: Path, url: str, file: str) -> None:
    """In the data directory unless the address says otherwise; made, with its directory, for the owner alone."""
    store = open_store(url.format(tmp=tmp_path), tmp_path / "data")
    await store.close()
    path = tmp_path / file
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


async def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a shell would."""
    monkeypatch.setenv("HOME", str(tmp_path))
    await open_store("sqlite:~/x.db", tmp_path / "data").close()
    assert (tmp_path / "x.db").exists()


async def test_an_address_may_be_kept_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a variable or a file of its own; nothing is connected to by opening."""
    monkeypatch.setenv("DATABASE", "postgresql://u:secret@127.0.0.1:1/d?schema=mine")
    store = open_store("env:DATABASE", tmp_path)
    assert isinstance(store, PostgresStore)
    assert store.schema == "mine"
    assert store.place == "the database postgresql://127.0.0.1:1/d"
    await store.close()
    with pytest.raises(ConfigError, match="NOWHERE is not set") as raised:
        open_store("env:NOWHERE", tmp_path)
    assert raised.value.key == "storage.url"


@pytest.mark.parametrize("url", ["mysql://u:secret@h/d", "nonsense", "sqlite::memory:", ""])
def test_other_stores_are_refused(tmp_path: Path, url: str) -> None:
    """With the key to change and what is possible, and without the password that an address may hold."""
    with pytest.raises(ConfigError) as raised:
        open_store(url, tmp_path)
    assert raised.value.key == "storage.url"
    assert "secret" not in str(raised.value)
    assert "sqlite:" in str(raised.value) or "file" in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory and Redis are served (nothing is connected to by opening), the address may be kept elsewhere; anything else is
    unknown."""
    monkeypatch.setenv("COUNTERS", "rediss://:secret@h")
    assert isinstance(open_counters("memory"), MemoryCounters)
    assert isinstance(open_counters("redis://:secret@h"), RedisCounters)
    assert isinstance(open_counters("env:COUNTERS", "refuse"), RedisCounters)
    for url, words in (("memcached://:secret@h", "unknown"), ("abacus", "unknown"), ("env:NOWHERE", "NOWHERE is not set")):
        with pytest.raises(ConfigError, match=words) as raised:
            open_counters(url)
        assert raised.value.key == "storage.counters"
        assert "secret" not in str(raised.value)


def test_a_store_is_imported_when_it_is_asked_for() -> None:
    """Importing the door costs nobody SQLite, nor asyncpg."""
    code = "import sys, aigw.storage.open; sys.exit('sqlite3' in sys.modules or 'asyncpg' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
