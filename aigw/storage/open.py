"""From an address in the config to what stands behind it; each implementation is imported only when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aigw.config import secrets
from aigw.errors import ConfigError
from aigw.storage.base import Counters, Store
from aigw.storage.transfer import move

if TYPE_CHECKING:
    from aigw.storage.postgres import Looked

FILE_NAME = "aigw.db"


def open_store(url: str, data_dir: Path) -> Store:
    """The store at *url*: "sqlite:" is the file aigw.db in *data_dir*, "sqlite:PATH" another file (a relative one is looked for
    in *data_dir*, "~" is the home directory), "postgresql://..." a database that is connected to when it is first needed; the
    last may be a reference (env:NAME, file:PATH). Raises ConfigError for an address we do not serve, StoreError when the store
    cannot be opened."""
    url = address(url)
    scheme, _, rest = url.partition(":")
    if scheme == "sqlite":
        from aigw.storage.sqlite import SqliteStore

        if rest == ":memory:":
            raise ConfigError("a database in memory would forget every key; write a file", key="storage.url")
        return SqliteStore(sqlite_file(url, data_dir))
    if scheme in {"postgresql", "postgres"}:
        try:
            from aigw.storage.postgres import PostgresStore
        except ImportError:
            raise ConfigError(
                'PostgreSQL needs asyncpg, which is not installed: pip install "aigw[postgres]"', key="storage.url"
            ) from None
        return PostgresStore(url)
    expected = '"sqlite:", "sqlite:/path/to/file.db" or "postgresql://USER:PASSWORD@HOST/DATABASE"'
    raise ConfigError(f"unknown storage {_shown(url)}; expected {expected}", key="storage.url")


def address(url: str, key: str = "storage.url") -> str:
    """The address that *url* is, or refers to: one with a password in it is better kept in a variable or a file of its own.
    *key* is where it is written. Raises ConfigError."""
    return secrets.resolve(url, key=key) if url.startswith(("env:", "file:")) else url


async def back_up(store: Store, path: Path, progress: Callable[[str, int], None] | None = None) -> None:
    """Write all that *store* holds into the new SQLite file *path*, while it is used. Raises StoreError, OSError; then there is
    no such file."""
    from aigw.storage.sqlite import SqliteStore

    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        if isinstance(store, SqliteStore):
            await store.back_up(partial)
        else:
            copy = SqliteStore(partial)
            try:
                await move(store, copy, progress=progress)
            finally:
                await copy.close()
        partial.replace(path)
    finally:
        for one in (partial, *(path.with_name(f"{partial.name}{end}") for end in ("-wal", "-shm"))):
            one.unlink(missing_ok=True)


async def look_at(url: str) -> Looked:
    """What is found at a PostgreSQL database's *url*, which nothing changes. Raises ConfigError, StoreError."""
    from aigw.storage.postgres import look

    return await look(address(url))


def place_of(url: str, data_dir: Path) -> str:
    """Where that is, as it may be shown: without user and password."""
    url = address(url)
    if url.startswith("sqlite:"):
        return str(sqlite_file(url, data_dir))
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def sqlite_file(url: str, data_dir: Path) -> Path:
    """The file that *url* ("sqlite:...") names."""
    path = url.partition(":")[2].removeprefix("//")  # sqlite:///path means the same as sqlite:/path
    return data_dir / Path(path or FILE_NAME).expanduser()


def open_counters(url: str, lost: str = "local") -> Counters:
    """The counters at *url*: "memory", or "redis://..." (which may be a reference: env:NAME, file:PATH); *lost* says what holds
    while Redis is out of reach. Raises ConfigError for an address we do not serve."""
    url = address(url, "storage.counters")
    if url in {"memory", "memory:"}:
        from aigw.storage.counters import MemoryCounters

        return MemoryCounters()
    if url.startswith(("redis:", "rediss:")):
        try:
            from aigw.storage.redis import RedisCounters
        except ImportError:
            raise ConfigError(
                'Redis needs redis-py, which is not installed: pip install "aigw[redis]"', key="storage.counters"
            ) from None
        return RedisCounters(url, lost=lost)
    expected = '"memory" or "redis://:PASSWORD@HOST:6379/0"'
    raise ConfigError(f"unknown counters {_shown(url)}; expected {expected}", key="storage.counters")


def _shown(url: str) -> str:
    """*url* for an error message: an address may hold a password."""
    scheme = urlsplit(url).scheme
    return repr(f"{scheme}:...") if scheme else repr(url)
