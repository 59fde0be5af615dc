"""`aigw data`: what is kept. Back it up, put it back, take old things away, take records out, move to another database."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from aigw.cli import output, windows
from aigw.cli.commands import Noun
from aigw.cli.locations import Locations, locations
from aigw.errors import StoreError

if TYPE_CHECKING:
    from aigw.storage.base import Store
    from aigw.storage.transfer import Moved

app = typer.Typer(
    cls=Noun,
    rich_markup_mode=None,
    help="What is kept: back it up, restore, prune, export, copy to another database.",
    epilog="""\b
Examples:
  aigw data                                     what is kept, and how much of it
  aigw data backup ~/aigw.backup                all of it, in one file, while it is served
  aigw data restore ~/aigw.backup
  aigw data prune --before 90d
  aigw data export --month 2026-11 --out november.csv
  aigw data copy sqlite: env:DATABASE_URL       from a file to PostgreSQL
""",
)

SHOWN = {
    "consumers": "consumer",
    "consumer keys": "consumer_key",
    "records": "record_line",
    "hourly sums": "rollup",
    "sums of combinations": "combination",
    "quarters of budgets": "spent",
    "small values": "value",
}
"""What tables are called here."""

PAGE = 2000


# ---- list


@app.command("list", epilog="\b\nExamples:\n  aigw data\n  aigw data --json | jq .records")
def list_data(context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """What is kept, where, and how much of it."""
    where = locations(context)
    facts = asyncio.run(_facts(where))
    if as_json:
        output.json(facts)
        return
    for name, value in facts.items():
        shown = "-" if value is None else f"{value / 1024 / 1024:.1f} MB" if name.endswith("_bytes") else value
        if isinstance(value, int) and not name.endswith("_bytes"):
            shown = f"{value:,}"
        output.data(f"{name.removesuffix('_bytes').replace('_', ' ') + ':':<22}{output.safe(str(shown))}")


async def _facts(where: Locations) -> dict[str, Any]:
    from aigw.storage.open import look_at, place_of, sqlite_file

    config = where.load_config()
    url = config.storage.url
    async with where.store(config) as store:
        consumers, keys, _ = await store.consumers()
        [total] = await store.usage("", 0, time.time() + 1e9)
        newest = await store.records(limit=1)
        oldest = await store.records_after((0.0, ""), 1e12, 1)
        size = _size(sqlite_file(url, where.data_path())) if url.startswith("sqlite:") else (await look_at(url)).size
    journal = where.data_path() / "journal"
    return {
        "place": place_of(url, where.data_path()),
        "size_bytes": size,
        "consumers": len(consumers),
        "consumer_keys": len(keys),
        "requests_counted": total.requests,
        "oldest_record": _iso(oldest[0].at) if oldest else None,
        "newest_record": _iso(newest[0].at) if newest else None,
        "journal_bytes": sum(path.stat().st_size for path in journal.glob("*.journal")) if journal.is_dir() else 0,
    }


def _size(path: Path) -> int:
    return sum(one.stat().st_size for one in (path, path.with_name(f"{path.name}-wal")) if one.exists())


# ---- backup, restore


@app.command(epilog="\b\nExamples:\n  aigw data backup\n  aigw data backup /backups/aigw.backup --yes")
def backup(
    context: typer.Context,
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="The new file.  [default: aigw-DATE-TIME.backup]")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Write over a file that is there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
) -> None:
    """Write consumers, keys, records and sums into one file, while the server goes on. Works for SQLite and PostgreSQL alike.

    The file holds digests of keys, never keys; it can be read by its owner alone. The config and provider keys are not in it.
    """
    where = locations(context)
    target = file or Path(time.strftime("aigw-%Y%m%d-%H%M%S.backup"))
    if target.is_dir():
        raise typer.BadParameter(f"{output.safe(str(target))} is a folder; name a file in it", param_hint="FILE")
    question = f"{target} is there already. Write over it?"
    if target.exists() and not yes and (dry_run or not output.interactive() or not output.confirm(question)):
        output.fail(f"{target} is there already; add --yes to write over it")
        raise typer.Exit(1)
    if dry_run:
        output.note(f"would write everything into {target}; nothing was written")
        return
    began = time.monotonic()
    target.parent.mkdir(parents=True, exist_ok=True)
    asyncio.run(_back_up(where, target))
    size = f"{target.stat().st_size / 1024 / 1024:.1f} MB"
    output.note(f"Wrote {target}: {size} in {time.monotonic() - began:.1f} s.")
    output.note(f"Put it back with: aigw data restore {target}")


async def _back_up(where: Locations, target: Path) -> None:
    from aigw.storage.open import back_up

    async with where.store(where.load_config()) as store:
        with output.working(f"Writing {target}"):
            await back_up(store, target)


@app.command(epilog="\b\nExamples:\n  aigw data restore ~/aigw.backup\n  aigw data restore ~/aigw.backup --dry-run")
def restore(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What 'aigw data backup' wrote.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before what is there now is replaced.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
) -> None:
    """Put a backup in the place of what is kept now. Every key of then works again; one made since does not any more.

    A SQLite file that was there is moved aside, not deleted; the server must be stopped for it. In PostgreSQL all happens in
    one transaction, and running servers follow.
    """
    from aigw.cli import control
    from aigw.storage.open import sqlite_file

    where = locations(context)
    url = where.load_config().storage.url
    if not file.is_file():
        raise typer.BadParameter(f"there is no file {output.safe(str(file))}", param_hint="FILE")
    into_file = url.startswith("sqlite:")
    if into_file and control.ask(where.data_path()) is not None:
        output.fail("a server runs on that file; stop it first")
        raise typer.Exit(1)
    where.data_path().mkdir(mode=0o700, parents=True, exist_ok=True)
    copy = where.data_path().absolute() / f"restore-{os.getpid()}.db"
    began = time.monotonic()
    try:
        with output.working(f"Reading {file}"):
            _private_copy(file, copy)
            there = _of_backup(where, file, copy)
            here = asyncio.run(_of_store(where))
        output.note(f"{file}: {_said(there)}.")
        if any(here):
            output.note(f"Here now: {_said(here)}.")
        if dry_run:
            output.note("would replace what is here; nothing was changed")
            return
        if any(here) and not yes and not (output.interactive() and output.confirm("Replace what is here?")):
            output.fail("what is here was left alone; add --yes to replace it")
            raise typer.Exit(1)
        if into_file:
            aside = _put_in_place(copy, sqlite_file(url, where.data_path()))
            if aside is not None:
                output.note(f"What was there is now {aside}.")
        else:
            asyncio.run(_restore_into(where, copy))
    finally:
        for one in (copy, *(copy.with_name(copy.name + end) for end in ("-wal", "-shm"))):
            one.unlink(missing_ok=True)
    output.note(f"Restored in {time.monotonic() - began:.1f} s.")


def _private_copy(source: Path, target: Path) -> None:
    """The backup itself stays as it is: an older one is brought up to date in the copy."""
    with (
        source.open("rb") as reading,
        os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as writing,
    ):
        shutil.copyfileobj(reading, writing, 1024 * 1024)
        writing.flush()
        os.fsync(writing.fileno())


def _of_backup(where: Locations, file: Path, copy: Path) -> tuple[int, int, int]:
    """Consumers, keys and requests of a backup. Exits with 1 when it is none."""
    from aigw.storage.open import open_store

    async def look() -> tuple[int, int, int]:
        store = open_store(f"sqlite:{copy}", where.data_path())
        try:
            return await _size_of(store)
        finally:
            await store.close()

    with copy.open("rb") as beginning:
        good = beginning.read(16) == b"SQLite format 3\0"
    try:
        if good:
            return asyncio.run(look())
        why = "it is not what 'aigw data backup' writes"
    except StoreError as error:
        why = str(error).replace(str(copy), str(file))
    output.fail(f"{file} cannot be restored: {why}")
    raise typer.Exit(1)


def _said(size: tuple[int, int, int]) -> str:
    names = ("consumer", "key", "request")
    return ", ".join(f"{number:,} {name}{'s' * (number != 1)}" for number, name in zip(size, names, strict=True))


async def _of_store(where: Locations) -> tuple[int, int, int]:
    async with where.store(where.load_config()) as store:
        return await _size_of(store)


async def _size_of(store: Store) -> tuple[int, int, int]:
    consumers, keys, _ = await store.consumers()
    [total] = await store.usage("", 0, time.time() + 1e9)
    return len(consumers), len(keys), total.requests


def _put_in_place(copy: Path, path: Path) -> Path | None:
    """Where the old file is now; None when there was none."""
    aside = None
    if path.exists():
        aside = path.with_name(f"{path.name}.before-{time.strftime('%Y%m%d-%H%M%S')}")
        for end in ("-wal", "-shm"):
            side = path.with_name(path.name + end)
            if side.exists():
                side.replace(aside.with_name(aside.name + end))
        path.replace(aside)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.move(copy, path)
    return aside


async def _restore_into(where: Locations, copy: Path) -> None:
    from aigw.storage.open import open_store

    source = open_store(f"sqlite:{copy}", where.data_path())
    try:
        async with where.store(where.load_config()) as target:
            await _move(source, target, replace=True)
    finally:
        await source.close()


async def _move(source: Store, target: Store, *, replace: bool) -> dict[str, Moved]:
    from aigw.storage.transfer import move

    [total] = await source.usage("", 0, time.time() + 1e9)
    with output.progress("Copying and comparing", 2 * total.requests or None) as advance:

        def told(table: str, rows: int) -> None:
            if table == "record_line":
                advance(rows)

        return await move(source, target, replace=replace, progress=told)


# ---- copy


@app.command(epilog="\b\nExamples:\n  aigw data copy sqlite: env:DATABASE_URL\n  aigw data copy env:OLD env:NEW --yes")
def copy(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="FROM", help="sqlite:, sqlite:PATH, or a reference to an address.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="The same; it has to be empty.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Replace what is in TO, if it is not empty.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what would be copied, and do nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Copy everything to another database: rows are counted, summed and compared on both sides before the copy holds.

    The address of a PostgreSQL database has a password in it: write env:NAME or file:PATH. What a running server adds while it
    is copied is not in the copy: stop it for the move, or copy again with --yes.
    """
    for url in (source, target):
        if "@" in url and ":" in url.partition("@")[0].partition("://")[2]:
            output.warn("a password on the command line can be seen by others; write env:NAME or file:PATH")
    where = locations(context)
    if _same(where, source, target):
        raise typer.BadParameter("FROM and TO are the same")
    if dry_run:
        from aigw.storage.open import open_store

        async def count() -> tuple[int, int, int]:
            store = open_store(source, where.data_path())
            try:
                return await _size_of(store)
            finally:
                await store.close()

        output.note(f"would copy {_said(asyncio.run(count()))}; nothing was copied")
        return
    began = time.monotonic()
    moved = asyncio.run(_copied(where, source, target, replace=yes))
    shown = {name: moved[table].rows for name, table in SHOWN.items()}
    names = ("requests", "input tokens", "output tokens")
    sums = {name: _whole(moved["rollup"], place) for place, name in enumerate(names)}
    if as_json:
        output.json({"rows": shown, "sums": {name.replace(" ", "_"): value for name, value in sums.items()}, "verified": True})
        return
    for name, number in (*shown.items(), *sums.items()):
        output.data(f"{name + ':':<22}{number:,}")
    output.note(f"Copied and compared in {time.monotonic() - began:.1f} s: the same on both sides.")
    output.note("To use it: [storage] url in the config, then start the server again.")


def _whole(rollups: Moved, place: int) -> int:
    """A sum of which each dimension has the whole."""
    from aigw.storage.rollup import DIMENSIONS

    return rollups.sums[place] // len(DIMENSIONS) if rollups.sums else 0


def _same(where: Locations, source: str, target: str) -> bool:
    from aigw.storage.open import address, sqlite_file

    places = [address(url) for url in (source, target)]
    return (
        len({str(sqlite_file(url, where.data_path()).absolute()) if url.startswith("sqlite:") else url for url in places}) == 1
    )


async def _copied(where: Locations, source: str, target: str, *, replace: bool) -> dict[str, Moved]:
    from aigw.storage.open import open_store

    stores: list[Store] = []
    try:
        for url in (source, target):
            stores.append(open_store(url, where.data_path()))  # noqa: PERF401 - those that were opened are closed
        return await _move(stores[0], stores[1], replace=replace)
    finally:
        for store in stores:
            await store.close()


# ---- prune


@app.command(epilog="\b\nExamples:\n  aigw data prune --before 90d --dry-run\n  aigw data prune --before 2026-01-01 --yes")
def prune(
    context: typer.Context,
    before: Annotated[str, typer.Option("--before", metavar="TIME", help="Records older than this: 90d, or 2026-01-01.")],
    sums: Annotated[
        str | None, typer.Option("--sums", metavar="TIME", help="Hourly sums older than this, too.  [default: keep]")
    ] = None,
    tz: Annotated[str | None, typer.Option(metavar="ZONE", help="Time zone of dates.  [default: this machine's]")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and delete nothing.")] = False,
) -> None:
    """Delete old records, a few thousand at a time, while the server goes on. 'aigw stats' and budgets keep their sums.

    The server does this by itself after [storage] records seconds (30 days). A SQLite file does not shrink: its pages are used
    again; 'aigw data backup' writes a compact one.
    """
    now = time.time()
    try:
        zone = windows.zone_named(tz or windows.local_zone())
        records_before = windows.moment(before, now, zone)
        sums_before = 0.0 if sums is None else windows.moment(sums, now, zone)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if records_before > now or sums_before > now:
        raise typer.BadParameter("that is in the future: everything would go")
    if sums_before > records_before:
        raise typer.BadParameter("sums are kept at least as long as records", param_hint="--sums")
    where = locations(context)
    count, oldest = asyncio.run(_older(where, records_before))
    if not count and not sums:
        output.note(f"No record is older than {_local(records_before)}.")
        return
    what = f"records from {_local(oldest)} to {_local(records_before)} (at most {count:,})" if count else "sums"
    if dry_run:
        output.note(f"would delete {what}; nothing was deleted")
        return
    if not yes and not (output.interactive() and output.confirm(f"Delete {what}?")):
        output.fail("nothing was deleted; add --yes to delete")
        raise typer.Exit(1)
    gone = asyncio.run(_prune(where, records_before, sums_before, count))
    output.note(f"Deleted {gone:,} rows.")


async def _older(where: Locations, before: float) -> tuple[int, float]:
    async with where.store(where.load_config()) as store:
        first = await store.records_after((0.0, ""), before, 1)
        if not first:
            return 0, before
        [row] = await store.usage("", first[0].at // 3600 * 3600, before)
        return max(1, row.requests), first[0].at


async def _prune(where: Locations, records_before: float, sums_before: float, count: int) -> int:
    gone = 0
    async with where.store(where.load_config()) as store:
        with output.progress("Deleting", count) as advance:
            while part := await store.expire(records_before, sums_before):
                gone += part
                advance(part)
                await asyncio.sleep(0.02)  # room for a server that writes to the same file
    return gone


# ---- export


class Format(StrEnum):
    """How records are written."""

    JSONL = "jsonl"
    CSV = "csv"


@app.command(
    epilog="""\b
Examples:
  aigw data export --since 7d --out week.jsonl
  aigw data export --month 2026-11 --format csv --out november.csv
  aigw data export --since 1h | jq -r .model | sort | uniq -c
"""
)
def export(
    context: typer.Context,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="From: 24h or 30d before now, or 2026-11-30.  [default: 24h]")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Up to, not including.  [default: now]")] = None,
    month: Annotated[str | None, typer.Option(metavar="MONTH", help="A whole month: 2026-11.")] = None,
    tz: Annotated[str | None, typer.Option(metavar="ZONE", help="Time zone of dates.  [default: this machine's]")] = None,
    form: Annotated[Format | None, typer.Option("--format", help="jsonl or csv.  [default: as FILE ends, else jsonl]")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write there.  [default: standard output]")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Write over a file that is there.")] = False,
) -> None:
    """Records as they are kept, oldest first, page by page: a year of them needs no more memory than a minute."""
    try:
        window = windows.window(since, until, month, tz, time.time())
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if out is not None and out.exists() and not yes:
        output.fail(f"{out} is there already; add --yes to write over it")
        raise typer.Exit(1)
    wanted = form or (Format.CSV if out is not None and out.suffix == ".csv" else Format.JSONL)
    where = locations(context)
    count = asyncio.run(_export(where, window, wanted, out))
    if out is not None:
        output.note(f"Wrote {count:,} records to {out}.")
    elif not count:
        output.note("No records in that time.")


async def _export(where: Locations, window: windows.Window, form: Format, out: Path | None) -> int:
    import msgspec

    from aigw.exchange import Record

    fields = Record.__struct_fields__
    count, after = 0, (window.since, "")
    async with where.store(where.load_config()) as store:
        [total] = await store.usage("", window.since, window.until)
        with _written(out) as file, output.progress("Exporting", total.requests or None) as advance:

            def write(text: str) -> None:
                if file is None:
                    output.stream(text)
                else:
                    file.write(text)

            if form is Format.CSV:
                write(output.rows([fields]))
            while page := await store.records_after(after, window.until, PAGE):
                rows = [msgspec.structs.astuple(record) for record in page]
                if form is Format.CSV:
                    write(output.rows(rows))
                else:
                    encoded = (msgspec.json.encode(_object(fields, row)).decode() for row in rows)
                    write("".join(line + "\n" for line in encoded))
                count += len(page)
                after = page[-1].at, page[-1].id
                advance(len(page))
    return count


def _object(fields: tuple[str, ...], row: tuple[Any, ...]) -> dict[str, Any]:
    """A record as an object; what is JSON in it is JSON there, too."""
    import msgspec

    found = dict(zip(fields, row, strict=True))
    for name in ("attempts", "tags"):
        try:
            found[name] = msgspec.json.decode(found[name]) if found[name] else None
        except msgspec.DecodeError:
            pass
    return found


@contextmanager
def _written(out: Path | None) -> Iterator[TextIO | None]:
    """The file, for its owner alone; in its place when all of it is written."""
    if out is None:
        yield None
        return
    partial = out.with_name(f"{out.name}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            yield file
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _local(moment: float) -> str:
    return datetime.fromtimestamp(moment).astimezone().strftime("%Y-%m-%d %H:%M")
