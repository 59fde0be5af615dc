"""`aigw logs`: what was asked and what became of it, a line for each request; with the server on or off."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from aigw.cli import output, windows
from aigw.cli.complete import consumer_names, model_names, provider_names
from aigw.cli.locations import Locations, locations

if TYPE_CHECKING:
    from aigw.exchange import Record
    from aigw.storage.base import Store

EVERY = 0.5
"""Seconds between two looks while following: as often as the server brings records to the store."""

BATCH = 2000
"""Records read at once while looking for those that are wanted."""

MOST_AT_ONCE = 50_000
"""Records of one look while following; more than a server writes between two."""

EXAMPLES = """\b
Examples:
  aigw logs                             the newest 50 of the last 24 hours
  aigw logs -f                          as they come, until Ctrl-C
  aigw logs --errors --since 7d
  aigw logs --status 429,5xx --provider openai
  aigw logs --slow 10s --model "gpt-*" -n 20
  aigw logs --consumer alice --json | jq -r '.[].id'
"""

app = typer.Typer(rich_markup_mode=None)


class Wanted(NamedTuple):
    """Which records are shown; what is None or empty excludes nothing. `slow` is in microseconds."""

    errors: bool = False
    statuses: tuple[range, ...] = ()
    slow: int = 0
    key: str = ""
    consumer: str = ""
    model: Callable[[str], bool] | None = None
    provider: str = ""
    until: float | None = None

    def takes(self, record: Record) -> bool:
        """Whether *record* is one of them."""
        if self.until is not None and record.at >= self.until:
            return False
        if self.errors and record.outcome in ("ok", "client_closed"):
            return False
        if self.statuses and not any(record.status in one for one in self.statuses):
            return False
        if record.took < self.slow:
            return False
        if self.consumer and self.consumer not in (record.consumer, record.consumer_id):
            return False
        if self.model is not None and not any(
            map(self.model, (record.requested_model, record.model, record.answer_model, f"{record.provider}/{record.model}"))
        ):
            return False
        if self.provider and self.provider != record.provider and not self._asked("provider", self.provider, record):
            return False
        if not self.key:
            return True
        return self.key in (record.key_id, record.consumer) or self._asked("key", self.key, record)

    @staticmethod
    def _asked(field: str, name: str, record: Record) -> bool:
        """Whether an attempt went there: failures elsewhere are often why a request was slow."""
        from aigw.cli.log_lines import attempts

        return name in record.attempts and any(getattr(one, field) == name for one in attempts(record))


@app.command(epilog=EXAMPLES)
def logs(
    context: typer.Context,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with those that come, until Ctrl-C.")] = False,
    errors: Annotated[bool, typer.Option("--errors", help="Only what failed; a caller that left is no failure.")] = False,
    status: Annotated[str, typer.Option(metavar="LIST", help="Only these: 429, 5xx or 400-499, with commas.")] = "",
    slow: Annotated[str | None, typer.Option(metavar="SPAN", help="Only what took at least so long: 10s, 2m.")] = None,
    key: Annotated[
        str, typer.Option(metavar="NAME", help="Only one key's: a consumer key's id, or a provider key's label (openai#2).")
    ] = "",
    consumer: Annotated[str, typer.Option(metavar="NAME", help="Only this consumer's.", autocompletion=consumer_names)] = "",
    model: Annotated[
        str, typer.Option(metavar="NAME", help='As asked for, or as it was sent; "gpt-*".', autocompletion=model_names)
    ] = "",
    provider: Annotated[
        str, typer.Option(metavar="NAME", help="Only where it was asked, be it in vain.", autocompletion=provider_names)
    ] = "",
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="From: 24h or 30d before now, or 2026-11-30[T18:00].  [default: 24h]")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Up to, not including.  [default: now]")] = None,
    month: Annotated[str | None, typer.Option(metavar="MONTH", help="A whole month: 2026-11.")] = None,
    tz: Annotated[str | None, typer.Option(metavar="ZONE", help="Time zone of dates.  [default: this machine's]")] = None,
    number: Annotated[int, typer.Option("-n", "--number", metavar="N", min=0, help="The newest N.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Whole records for programs; with -f one object a line.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="For spreadsheets.")] = False,
) -> None:
    """What was asked and what became of it, a line each, the newest last. With the server on or off.

    "first" is the time to the first token, "tries" how many attempts it took. 'aigw explain ID' tells all about one.
    """
    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other")
    if follow and (until is not None or month is not None):
        raise typer.BadParameter("-f shows what comes; leave out --until and --month")
    if follow and as_csv:
        raise typer.BadParameter("-f goes with lines or --json")
    now = time.time()
    try:
        window = windows.window(since, until, month, tz, now)
        least = 0 if slow is None else int(windows.seconds(slow) * 1e6)
        statuses = ranges(status)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    wanted = Wanted(errors, statuses, least, key, consumer, _named(model), provider, window.until if until or month else None)
    where = locations(context)
    try:
        shown = asyncio.run(_show(where, wanted, window.since, number, follow=follow, as_json=as_json, as_csv=as_csv))
    except KeyboardInterrupt:
        if not follow:
            raise
        return  # the way it is ended
    if not shown and not (as_json or as_csv):
        further = "" if since or month else " in the last 24 hours; --since 30d looks further back"
        output.note(f"No such request{further}." if wanted != Wanted() or since or month else f"No request{further}.")


def ranges(text: str) -> tuple[range, ...]:
    """Statuses as people write them: "429,5xx,400-404". Raises ValueError."""
    found = []
    for part in filter(None, (one.strip().lower() for one in text.split(","))):
        first, dash, last = part.partition("-")
        if part[1:] == "xx" and part[0] in "12345":
            found.append(range(int(part[0]) * 100, int(part[0]) * 100 + 100))
        elif _is_status(first) and (not dash or (_is_status(last) and int(last) >= int(first))):
            found.append(range(int(first), int(last or first) + 1))
        else:
            raise ValueError(f"{part[:20]!r} is no status; expected one like 429, 5xx or 400-404")
    return tuple(found)


def _is_status(text: str) -> bool:
    return len(text) == 3 and text.isascii() and text.isdigit()


def _named(text: str) -> Callable[[str], bool] | None:
    from aigw.config import patterns

    if not text:
        return None
    if not patterns.is_pattern(text):
        return text.__eq__
    try:
        search = patterns.compiled(text).search
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--model") from None
    return lambda name: search(name) is not None


async def _show(
    where: Locations, wanted: Wanted, since: float, number: int, *, follow: bool, as_json: bool, as_csv: bool
) -> int:
    """Print what is there, then what comes. How many there were."""
    from aigw.cli.log_lines import CSV, Lines, csv_row, facts

    config = where.load_config()
    if not where.data_path().is_dir() and not follow:  # to look is no reason to make a store
        if as_json:
            output.json([])
        elif as_csv:
            output.csv(CSV, [])
        return 0
    async with where.store(config) as store:
        last = (await store.appended(None, 1))[1] if follow else 0
        found = await newest(store, wanted, since, number)
        if as_json and not follow:
            output.json([facts(record) for record in found])
        elif as_csv:
            output.csv(CSV, [csv_row(record) for record in found])
        else:
            lines = Lines()

            def put(records: list[Record]) -> None:
                if not as_json:
                    lines.add(records, time.time())
                    return
                for record in records:
                    output.data(json.dumps(facts(record)))  # ASCII alone: nothing that plays tricks on a terminal
                sys.stdout.flush()

            put(found)
            if follow:
                seen = {record.id for record in found}
                async for records in _coming(store, last):
                    put([record for record in records if record.id not in seen and wanted.takes(record)])
    return len(found)


async def newest(store: Store, wanted: Wanted, since: float, number: int) -> list[Record]:
    """The newest *number* of the records that are *wanted*, oldest first."""
    found: list[Record] = []
    until = time.time() + 86400.0 if wanted.until is None else wanted.until  # clocks that were set back
    edge: set[str] = set()
    while len(found) < number:
        records = await store.records(limit=BATCH, since=since, until=until, failed=wanted.errors)
        fresh = [record for record in records if record.id not in edge]
        found += [record for record in fresh if wanted.takes(record)]
        if len(records) < BATCH or not fresh:
            break
        until = records[-1].at
        edge = {record.id for record in records if record.at == until}  # they come again
    return found[:number][::-1]


async def _coming(store: Store, last: int) -> AsyncIterator[list[Record]]:
    """Records as they come to the store, after place *last*."""
    while True:
        records, last = await store.appended(last, MOST_AT_ONCE)
        if records:
            yield records
        await asyncio.sleep(EVERY)
