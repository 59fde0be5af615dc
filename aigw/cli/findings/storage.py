"""What is kept: the data directory, the database in it, the journal, the room on the disk, and who may call.

Nothing is opened through the store, which would make and migrate what it finds: a doctor only looks.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import shutil
import sqlite3
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aigw.cli.findings.finding import Finding, ok, problem, warning
from aigw.config.schema import Config

FULL = 64 * 1024 * 1024
"""Bytes of free disk below which writing ends soon: the journal's segments and SQLite's log need about that much at a time."""

LOW = 1024 * 1024 * 1024
"""Bytes of free disk that are worth a warning: about 1.5 million records."""

CHECKING = 10.0
"""Seconds for SQLite's own check; it reads about 500 MB a second."""

_FULL = (errno.ENOSPC, errno.EDQUOT)


def look(config: Config, data_dir: Path, state: dict[str, Any] | None) -> Iterator[Finding]:
    """*state* is the running server's, None when none runs."""
    from aigw.storage.open import sqlite_file

    yield from _folder(data_dir)
    yield from _room(data_dir)
    if state is not None:
        yield from _away(state)
    if config.storage.url.startswith("sqlite:"):
        yield from _database(sqlite_file(config.storage.url, data_dir), config, serving=state is not None)
    else:
        yield from _server(config)
    yield from _journal(data_dir / "journal", state)


# ---- the folder and the disk


def _folder(data_dir: Path) -> Iterator[Finding]:
    if not data_dir.exists():
        parent = _nearest(data_dir)
        if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK):
            yield ok(
                "data_ok",
                f"data directory {data_dir}: not there yet, made at first use",
                f"数据目录 {data_dir}：首次使用时创建",
            )
        else:
            yield _unwritable(data_dir, f"{parent} cannot be written", f"无法写入 {parent}", parent)
        return
    try:
        with tempfile.TemporaryFile(dir=data_dir) as trial:
            trial.write(bytes(64 * 1024))
            trial.flush()
            os.fsync(trial.fileno())
    except OSError as error:
        if error.errno in _FULL:
            yield _full(data_dir, error.strerror or "")
        else:
            reason = error.strerror or str(error)
            yield _unwritable(data_dir, reason, reason, data_dir)
        return
    yield ok("data_ok", f"data directory {data_dir}: can be written", f"数据目录 {data_dir}：可写")
    for path, wanted in (
        (data_dir, "700"),
        *((data_dir / name, "600") for name in ("aigw.db", "operator.key", "control.sock", "consumers.cache")),
    ):
        with contextlib.suppress(OSError):
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & 0o077 and not (path != data_dir and wanted == "600" and not _reachable(data_dir)):
                yield warning(
                    "data_open",
                    (f"others may look into {path} (mode {mode:04o})", f"其他用户可以访问 {path}（权限 {mode:04o}）"),
                    (
                        "It holds who asked for what and when, and the way to control the server.",
                        "其中有请求记录，以及控制服务器的途径。",
                    ),
                    f"chmod {wanted} {shlex.quote(str(path))}",
                )


def _reachable(data_dir: Path) -> bool:
    """Whether others can enter the folder at all."""
    return bool(data_dir.stat().st_mode & 0o011)


def _unwritable(data_dir: Path, why: str, chinese: str, place: Path) -> Finding:
    return problem(
        "data_unwritable",
        (f"data directory {data_dir} cannot be used: {why}", f"无法使用数据目录 {data_dir}：{chinese}"),
        (
            "Consumer keys and records are kept there. Give this user write access, or choose another with --data-dir.",
            "消费者密钥和记录保存在其中。请授予写权限，或用 --data-dir 另选目录。",
        ),
        f"ls -ld {shlex.quote(str(place))}",
    )


def _full(place: Path, reason: str) -> Finding:
    return problem(
        "disk_full",
        (f"the disk of {place} is full ({reason})", f"{place} 所在磁盘已满（{reason}）"),
        (
            "Requests are still answered; their records wait in memory and are lost when it is full or the server ends.",
            "请求仍会应答；记录暂存内存，内存用尽或服务器退出时会丢失。",
        ),
        f"df -h {shlex.quote(str(place))}",
    )


def _room(data_dir: Path) -> Iterator[Finding]:
    place = _nearest(data_dir)
    try:
        free = shutil.disk_usage(place).free
    except OSError:
        return
    if free < FULL:
        yield _full(place, f"{free // 1024 // 1024} MB free")
    elif free < LOW:
        megabytes = free // 1024 // 1024
        yield warning(
            "disk_low",
            (f"{megabytes} MB are free on the disk of {place}", f"{place} 所在磁盘仅剩 {megabytes} MB"),
            ("A million requests need about 700 MB.", "一百万个请求约需 700 MB。"),
            f"df -h {shlex.quote(str(place))}",
        )


def _nearest(path: Path) -> Path:
    """*path*, or the folder above it that is there."""
    return next(one for one in (path, *path.absolute().parents) if one.exists())


# ---- the database


def _away(state: dict[str, Any]) -> Iterator[Finding]:
    """What the running server says of it."""
    store = state.get("store", {})
    if store.get("away"):
        since = time.strftime("%H:%M:%S", time.localtime(float(store.get("since") or 0)))
        yield warning(
            "database_away",
            (f"the server cannot ask its database since {since}: {store['away']}",
             f"服务器自 {since} 起无法访问数据库：{store['away']}"),
            ("Known keys are served, new ones and revocations wait; records wait in the journal.",
             "已知密钥照常服务，新建和吊销需等待；记录暂存在日志中。"),
            "aigw status",
        )  # fmt: skip
    if store.get("journal_full"):
        size, limit = (int(store.get(name, 0)) // 1024 // 1024 for name in ("journal_bytes", "journal_limit"))
        yield problem(
            "journal_full",
            (f"the journal is full: {size} of {limit} MB", f"日志已满：{size} / {limit} MB"),
            ("Bring the database back, free some disk, or raise [storage] journal. Until then [storage] journal_full decides.",
             "请恢复数据库、释放磁盘空间，或调高 [storage] journal。在此之前由 [storage] journal_full 决定行为。"),
            "df -h",
        )  # fmt: skip


def _probe(url: str) -> str:
    """A command that asks PostgreSQL whether it is there; the password is in no address that is shown."""
    from urllib.parse import urlsplit

    from aigw.errors import ConfigError
    from aigw.storage.open import address

    try:
        parts = urlsplit(address(url))
        return f"pg_isready -h {shlex.quote(parts.hostname or 'localhost')} -p {parts.port or 5432}"
    except (ConfigError, ValueError):
        return "aigw config edit"


def _server(config: Config) -> Iterator[Finding]:
    """PostgreSQL: looked at, nothing is made there."""
    import asyncio

    from aigw.errors import ConfigError, StoreError
    from aigw.storage.migrations import POSTGRES_MIGRATIONS
    from aigw.storage.open import look_at

    try:
        looked = asyncio.run(look_at(config.storage.url))
    except (ConfigError, StoreError) as error:
        yield problem(
            "database_unreachable",
            (str(error), str(error)),
            ("A running server goes on with the keys it knows; records wait in its journal.",
             "运行中的服务器继续使用已知密钥；记录暂存在日志中。"),
            _probe(config.storage.url),
        )  # fmt: skip
        return
    if not looked.schema:
        yield ok(
            "database_none",
            f"PostgreSQL {looked.server} answers; the tables are made at first use",
            f"PostgreSQL {looked.server} 可用；首次使用时建表",
        )
    elif looked.schema < POSTGRES_MIGRATIONS[-1].version:
        yield ok(
            "database_older",
            "the database is of an older aigw; it is brought up to date at the next start",
            "数据库来自旧版本，下次启动时升级",
        )
    else:
        size = f"{looked.size / 1024 / 1024:.1f} MB"
        yield ok("database_ok", f"PostgreSQL {looked.server} answers, {size}", f"PostgreSQL {looked.server} 可用，{size}")
    yield from _consumers(config, looked.consumers)


def _database(path: Path, config: Config, *, serving: bool) -> Iterator[Finding]:
    if not path.exists():
        yield ok("database_none", f"database {path}: not there yet, made at first use", f"数据库 {path}：首次使用时创建")
        yield from _consumers(config, 0)
        return
    moved = f"mv {shlex.quote(str(path))} {shlex.quote(f'{path}.damaged')}"
    backups = f"ls {shlex.quote(str(path.parent))}/*.backup"
    try:
        with contextlib.closing(sqlite3.connect(f"file:{_quoted(path)}?mode=ro", uri=True, timeout=2)) as connection:
            found = list(_versions(connection, path, backups))
            if not found:
                whole = _checked(connection)
                if whole not in ("ok", ""):
                    raise sqlite3.DatabaseError(whole)
                size = f"{path.stat().st_size / 1024 / 1024:.1f} MB"
                found.append(
                    ok("database_ok", f"database {path}: sound, {size}", f"数据库 {path}：完好，{size}")
                    if whole
                    else ok("database_ok", f"database {path}: {size}, not checked whole", f"数据库 {path}：{size}，未完整检查")
                )
                found += _consumers(config, _live_keys(connection))
            yield from found
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            yield _locked(path)
        else:
            yield problem(
                "database_unreadable",
                (f"database {path} cannot be read: {error}", f"无法读取数据库 {path}：{error}"),
                ("Give this user access to the file and its directory.", "请授予该用户对文件及目录的访问权限。"),
                f"ls -l {shlex.quote(str(path))}",
            )
        return
    except sqlite3.DatabaseError as error:
        yield problem(
            "database_damaged",
            (f"database {path} is damaged: {error}", f"数据库 {path} 已损坏：{error}"),
            (
                "Stop the server and put back a backup, or move the file away to begin with an empty one (its keys go, too).",
                "请停止服务器并恢复备份，或移走此文件以空库重新开始（所有密钥将失效）。",
            ),
            moved,
        )
        return
    if not serving:
        yield from _writable(path)


def _quoted(path: Path) -> str:
    from urllib.parse import quote

    return quote(str(path.absolute()))


def _versions(connection: sqlite3.Connection, path: Path, backups: str) -> Iterator[Finding]:
    """What keeps this version of aigw from working on the file."""
    from aigw.storage.migrations import LATEST

    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version == 0:
        if connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is not None:
            yield problem(
                "database_foreign",
                (f"{path} is a database, but not one of aigw's", f"{path} 是数据库，但不属于 aigw"),
                ("Choose another file in [storage] url.", "请在 [storage] url 中另选文件。"),
                "aigw config edit",
            )
        else:
            yield ok("database_none", f"database {path}: empty, filled at first use", f"数据库 {path}：为空，首次使用时建立")
    elif version > LATEST:
        try:
            row = connection.execute("SELECT readable_by FROM schema_version WHERE version = ?", (version,)).fetchone()
        except sqlite3.OperationalError:
            row = None
        if row is None or row[0] > LATEST:
            yield problem(
                "database_newer",
                (
                    f"database {path} was written by a newer aigw (schema {version}; this one knows {LATEST})",
                    f"数据库 {path} 由更新版本的 aigw 写入（结构 {version}，本版本仅支持到 {LATEST}）",
                ),
                (
                    "Update aigw, or put back the backup that the newer version made beside it.",
                    "请升级 aigw，或恢复新版本在旁边留下的备份。",
                ),
                backups,
            )
    elif version < LATEST:
        yield ok(
            "database_older",
            f"database {path}: of an older aigw; it is brought up to date at the next start, after a backup",
            f"数据库 {path}：来自旧版本，下次启动时先备份再升级",
        )


def _checked(connection: sqlite3.Connection) -> str:
    """What SQLite says of the file: "ok", the first complaint, or "" when it took too long."""
    until = time.monotonic() + CHECKING
    connection.set_progress_handler(lambda: time.monotonic() > until, 100_000)
    try:
        return str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            return ""
        raise
    finally:
        connection.set_progress_handler(None, 0)


def _writable(path: Path) -> Iterator[Finding]:
    """Whether another program holds the write lock, or the file cannot be written."""
    if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
        yield _unwritable(path.parent, f"{path.name} cannot be written", f"无法写入 {path.name}", path)
        return
    try:
        with contextlib.closing(
            sqlite3.connect(f"file:{_quoted(path)}?mode=rw", uri=True, timeout=2, isolation_level=None)
        ) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            yield _locked(path)


def _locked(path: Path) -> Finding:
    return warning(
        "database_locked",
        (f"database {path} is locked by another program", f"数据库 {path} 被其他程序锁定"),
        ("Records and new keys wait until it lets go.", "在它释放之前，记录和新密钥都要等待。"),
        f"fuser -v {shlex.quote(str(path))}",
    )


# ---- who may call


def _live_keys(connection: sqlite3.Connection) -> int:
    """Consumers with a key that works, the operator's own left out."""
    query = """
        SELECT count(DISTINCT consumer.id) FROM consumer JOIN consumer_key ON consumer_key.consumer_id = consumer.id
        WHERE NOT consumer.disabled AND consumer.name != 'operator' AND consumer_key.revoked IS NULL
        AND (consumer_key.expires IS NULL OR consumer_key.expires > ?)
    """
    return int(connection.execute(query, (time.time(),)).fetchone()[0])


def _consumers(config: Config, stored: int) -> Iterator[Finding]:
    known = stored + len(config.consumers)
    if known:
        who = f"{known} consumer{'s' if known != 1 else ''}"
        yield ok("consumers_ok", f"{who} may call", f"{known} 个消费者可以调用")
    elif not config.auth.required:
        yield ok("consumers_ok", "everybody on this machine may call without a key", "本机任何人都可以无密钥调用")
    else:
        yield warning(
            "consumers_none",
            ("nobody has a key yet", "还没有任何消费者密钥"),
            ("Every request needs one; without, the answer is 401.", "每个请求都需要密钥，否则返回 401。"),
            "aigw keys create me",
        )


# ---- the journal


def _journal(folder: Path, state: dict[str, Any] | None) -> Iterator[Finding]:
    lost = int(state["counters"].get("records_lost", 0)) if state else 0
    if lost:
        yield warning(
            "records_lost",
            (f"{lost} records were lost since the server's start", f"服务器启动以来丢失了 {lost} 条记录"),
            ("Neither the disk nor memory had room for them.", "磁盘和内存都没有空间。"),
            f"df -h {shlex.quote(str(folder.parent))}",
        )
    waiting = int(state["counters"].get("records_pending", 0)) if state else _lines(folder)
    if waiting > (10_000 if state else 0):  # a busy server has some under way at any time
        yield warning(
            "journal_waiting",
            (f"{waiting} records wait in the journal for the database", f"日志中有 {waiting} 条记录等待写入数据库"),
            (
                ("The database does not take them: see above, or the server's log.", "数据库未接收它们：见上文或服务器日志。")
                if state
                else ("A server ended in the middle. The next one brings them in.", "服务器曾中途退出，下次启动会补上。")
            ),
            "aigw status" if state else "aigw serve",
        )
    if (folder / "damaged.lines").exists():
        yield warning(
            "journal_damaged",
            (f"lines of the journal could not be read, and lie in {folder / 'damaged.lines'}",
             f"日志中有无法读取的行，保存在 {folder / 'damaged.lines'}"),
            ("A disk error or a power cut. Look at them, then delete the file.", "可能是磁盘错误或断电。查看后可删除该文件。"),
            f"less {shlex.quote(str(folder / 'damaged.lines'))}",
        )  # fmt: skip


def _lines(folder: Path) -> int:
    count = 0
    for segment in folder.glob("*.journal"):
        with contextlib.suppress(OSError), segment.open("rb") as file:
            while block := file.read(1024 * 1024):
                count += block.count(b"\n")
    return count
