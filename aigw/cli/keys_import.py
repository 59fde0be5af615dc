"""`aigw keys import`: many consumers at once, from a table."""

from __future__ import annotations

import asyncio
import csv
import io
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from aigw.cli import output, terms as options
from aigw.cli.locations import Locations, locations
from aigw.errors import StoreError

if TYPE_CHECKING:
    from aigw.config.schema import Config

EXAMPLES = """\b
Examples:
  aigw keys import people.csv --dry-run
  aigw keys import people.csv --output keys.csv

\b
A table with a header row; of the columns only `name` is needed:
  name,group,tags,models,budget,rpm,expires
  alice,search,team=core;room=4,"gpt-*,@fast",5usd/day;50usd/month,60,90d
`key` holds a key that somebody has already; all others are called as the options
of 'keys create'. Where there may be several, ; stands between them.
"""

LARGEST = 32 * 1024 * 1024
"""Bytes of a table; 100,000 consumers take about 10 MB."""

SHOWN = 20
"""Mistakes that are listed; more are counted."""

_NUMBERS = ("rpm", "tpm", "concurrency", "max_output")
_LISTS = ("allow_ip", "budget", "tokens")
_WORDS = ("models", "deny", "providers", "residency", "endpoints", "tz", "unpriced", "on_budget", "priority")
_SWITCHES = ("hard", "lead")
COLUMNS = ("name", "key", "group", "tags", "metadata", "expires", "max_price", *_NUMBERS, *_LISTS, *_WORDS, *_SWITCHES)


class Row(NamedTuple):
    """One consumer to be made. `line` is its line in the table."""

    line: int
    name: str
    wanted: dict[str, Any]
    tags: dict[str, str]
    expires: float | None
    given: str | None


def import_keys(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", help="A table with a header row; - is standard input.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write the new keys there (mode 0600) instead of to standard output."
        ),
    ] = None,
    existing: Annotated[
        str,
        typer.Option(
            metavar="fail|skip|add", help="Names that are there already: a mistake, passed over, or given a further key."
        ),
    ] = "fail",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check all of it, and do nothing.")] = False,
) -> None:
    """Make a consumer and a key for each line of a table. Every line is checked before the first is made. The new keys come out
    as a table (name, key id, key): this once."""
    if existing not in ("fail", "skip", "add"):
        raise typer.BadParameter("expected fail, skip or add", param_hint="--existing")
    where = locations(context)
    config = where.load_config()
    now = time.time()
    rows, mistakes = read(_text(file), config, now)
    asyncio.run(_import(where, config, rows, mistakes, now, existing=existing, out=out, dry_run=dry_run))  # type: ignore[arg-type]


def _text(file: Path) -> str:
    import sys

    try:
        content = sys.stdin.buffer.read(LARGEST + 1) if str(file) == "-" else _read(file)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be read: {error.strerror}", param_hint="FILE") from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise typer.BadParameter(f"line {line} is not UTF-8 text; save it as UTF-8", param_hint="FILE") from None
    if len(content) > LARGEST:
        raise typer.BadParameter(f"is larger than {LARGEST // 1024 // 1024} MiB", param_hint="FILE")
    return text


def _read(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(LARGEST + 1)


def read(text: str, config: Config, now: float) -> tuple[list[Row], list[str]]:
    """The rows of a table, and what is wrong with it, each with its line. Raises BadParameter for what is no such table."""
    lines = csv.reader(io.StringIO(text))
    try:
        header = [name.strip().lower().replace("-", "_").removeprefix("__") for name in next(lines, [])]
    except csv.Error as error:
        raise typer.BadParameter(f"this is no table: {error}", param_hint="FILE") from None
    aliases = {"tag": "tags", "budgets": "budget"}
    header = [aliases.get(name, name) for name in header]
    if "name" not in header:
        raise typer.BadParameter("its first line names no column `name`", param_hint="FILE")
    from aigw.cli.suggest import unknown

    for name in header:
        if name not in COLUMNS:
            raise typer.BadParameter(unknown("column", name, COLUMNS), param_hint="FILE")
        if header.count(name) > 1:
            raise typer.BadParameter(f"the column {name!r} is there twice", param_hint="FILE")
    rows: list[Row] = []
    mistakes: list[str] = []
    seen: dict[str, int] = {}
    while True:
        try:
            cells = next(lines)
        except StopIteration:
            return rows, mistakes
        except csv.Error as error:
            mistakes.append(f"line {lines.line_num}: {error}")
            return rows, mistakes
        if not any(cell.strip() for cell in cells):
            continue
        line = lines.line_num
        try:
            if len(cells) != len(header):
                raise typer.BadParameter(f"has {len(cells)} cells; expected {len(header)}")
            row = _row(line, dict(zip(header, (cell.strip() for cell in cells), strict=True)), config, now)
            if row.name in seen:
                raise typer.BadParameter(f"{output.safe(row.name)} is in line {seen[row.name]} already")
            seen[row.name] = line
            rows.append(row)
        except typer.BadParameter as error:
            hint = getattr(error, "param_hint", None)
            column = f"{str(hint).removeprefix('--').replace('-', '_').lower()}: " if hint and hint != "FILE" else ""
            mistakes.append(f"line {line}: {column}{error.message}")


def _row(line: int, cells: Mapping[str, str], config: Config, now: float) -> Row:
    from aigw.cli import keys

    said: dict[str, Any] = {}
    for name, text in cells.items():
        if not text:
            continue
        if name in _NUMBERS:
            if not (text.isascii() and text.isdigit() and len(text) <= 12):
                raise typer.BadParameter("expected a whole number, 0 or more", param_hint=name)
            said[name] = int(text)
        elif name == "max_price":
            try:
                said[name] = float(text)
            except ValueError:
                raise typer.BadParameter("expected a number", param_hint=name) from None
        elif name in _LISTS:
            said[name] = [part.strip() for part in text.split(";") if part.strip()]
        elif name in _WORDS:
            said[name] = text.replace(";", ",")
        elif name in _SWITCHES:
            if text.lower() not in ("yes", "no", "true", "false", "1", "0"):
                raise typer.BadParameter("expected yes or no", param_hint=name)
            said[name] = text.lower() in ("yes", "true", "1")
    lead = said.pop("lead", None)
    given = cells.get("key") or None
    if given is not None and not (20 <= len(given) <= 512 and all("!" <= one <= "~" for one in given)):
        raise typer.BadParameter("expected 20 to 512 printable characters without spaces", param_hint="key")
    wanted = keys._wanted(config, said, cells.get("group") or None, _parts(cells.get("metadata", "")) or None, lead)  # noqa: SLF001
    expires = keys._expiry(cells["expires"], now) if cells.get("expires") else None  # noqa: SLF001
    name = keys.unreserved(keys.valid_name(cells["name"], "name"), "name")
    return Row(line, name, wanted, options.pairs(_parts(cells.get("tags", "")), "tags"), expires, given)


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(";") if part.strip()]


async def _import(
    where: Locations,
    config: Config,
    rows: Sequence[Row],
    mistakes: list[str],
    now: float,
    *,
    existing: Literal["fail", "skip", "add"],
    out: Path | None,
    dry_run: bool,
) -> None:
    from aigw.cli.keys import issue

    async with where.store(config) as store:
        known = {consumer.name for consumer in (await store.consumers())[0]}
        if existing == "fail":
            mistakes = [
                *mistakes,
                *(f"line {row.line}: {output.safe(row.name)} exists already" for row in rows if row.name in known),
            ]
        elif existing == "skip":
            rows = [row for row in rows if row.name not in known]
        for mistake in mistakes[:SHOWN]:
            output.fail(mistake)
        if len(mistakes) > SHOWN:
            output.fail(f"and {len(mistakes) - SHOWN} more")
        if mistakes:
            output.note(
                "Nothing was made. Mend the table and try again."
                + (" --existing skip passes names over that are there." if known else "")
            )
            raise typer.Exit(1)
        if dry_run or not rows:
            output.note(f"would make {len(rows)} keys; nothing was changed" if rows else "There is nothing to make.")
            return
        made: list[list[str]] = []
        sink = _Sink(out)
        failed = ""
        with output.progress(f"making {len(rows)} keys", len(rows)) as advance:
            for row in rows:
                try:
                    one = await issue(
                        store, row.name, now, wanted=row.wanted, tags=row.tags, expires=row.expires, given=row.given
                    )
                except StoreError as error:
                    failed = f"stopped at line {row.line} ({output.safe(row.name)}): {error}"
                    break
                made.append([row.name, one.stored.id, "" if row.given is not None else one.key])
                advance(1)
        sink.write(made)
    if failed:
        output.fail(f"{failed}. {len(made)} of {len(rows)} were made; '--existing skip' goes on from there.")
        raise typer.Exit(1)
    output.note(
        f"Made {len(made)} keys"
        + (f", in {out}" if out is not None else "")
        + ". They are shown this once; aigw keeps only their digests."
    )


class _Sink:
    """Where new keys go. A file is made before the first key is: what cannot be written down must not be made."""

    def __init__(self, path: Path | None) -> None:
        self._handle = -1
        if path is not None:
            try:
                self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                raise typer.BadParameter(f"{path} is there already", param_hint="--output") from None
            except OSError as error:
                raise typer.BadParameter(f"{path} cannot be written: {error.strerror}", param_hint="--output") from None

    def write(self, rows: Sequence[Sequence[str]]) -> None:
        if self._handle < 0:
            output.csv(("name", "key_id", "key"), rows)
            return
        with os.fdopen(self._handle, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("name", "key_id", "key"))
            writer.writerows(rows)
