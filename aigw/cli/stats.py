"""`aigw stats`: who used what, how fast, at what cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aigw.cli import figures, output, windows
from aigw.cli.locations import Locations, locations
from aigw.cli.output import Column

if TYPE_CHECKING:
    from aigw.storage.base import UsageRow

CURRENCIES = ("USD", "CNY", "EUR")  # those a price may have (config/schema.py) are always there, others when they occur
NOBODY = "(none)"  # a request refused before it had a provider, a route or a consumer

EXAMPLES = """\b
Examples:
  aigw stats                                by model, the last 24 hours
  aigw stats --by consumer --since 30d      who used what
  aigw stats --by day --month 2026-11 --tz Asia/Shanghai
  aigw stats --json | jq -r .total.cost_usd
"""


class By(StrEnum):
    """What the exchanges are grouped by."""

    MODEL = "model"
    CONSUMER = "consumer"
    PROVIDER = "provider"
    ROUTE = "route"
    DAY = "day"
    HOUR = "hour"


COLUMNS: tuple[tuple[Column, Callable[[UsageRow], str]], ...] = (
    (Column("requests", right=True), lambda row: figures.count(row.requests)),
    (Column("errors", right=True, rank=2), lambda row: figures.count(row.errors)),
    (Column("in", right=True, rank=3), lambda row: figures.tokens(row.input)),
    (Column("cached", right=True, rank=7), lambda row: figures.tokens(row.cached)),
    (Column("out", right=True, rank=4), lambda row: figures.tokens(row.output)),
    (Column("cost", right=True, rank=1), lambda row: figures.money(row.costs, row.unpriced)),
    (Column("p50", right=True, rank=5), lambda row: figures.duration(row.total_p50)),
    (Column("p95", right=True, rank=6), lambda row: figures.duration(row.total_p95)),
    (Column("first p50", right=True, rank=8), lambda row: figures.duration(row.first_token_p50)),
    (Column("first p95", right=True, rank=9), lambda row: figures.duration(row.first_token_p95)),
)

app = typer.Typer(rich_markup_mode=None)


@app.command(epilog=EXAMPLES)
def stats(
    context: typer.Context,
    by: Annotated[By, typer.Option(help="Group by this.")] = By.MODEL,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="From: 24h or 30d before now, or 2026-11-30[T18:00].  [default: 24h]")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Up to, not including.  [default: now]")] = None,
    month: Annotated[str | None, typer.Option(metavar="MONTH", help="A whole month: 2026-11.")] = None,
    tz: Annotated[
        str | None, typer.Option(metavar="ZONE", help="Time zone of days, hours and dates.  [default: this machine's]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Exact numbers for programs.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="The same for spreadsheets.")] = False,
) -> None:
    """Who used what: requests, errors, tokens, cost, and latency (p50 and p95, 5 % at most off). With the server on or off.

    "first" is the time to the first token of streams. A "?" marks a cost that leaves out exchanges without a known price.
    """
    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other")
    try:
        window = windows.window(since, until, month, tz, time.time())
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    rows, total = asyncio.run(_usage(locations(context), by, window))
    currencies = [*CURRENCIES, *sorted(set(total.costs) - set(CURRENCIES))]
    if as_json:
        output.json(
            {
                "since": _iso(window.since, window.tz),
                "until": _iso(window.until, window.tz),
                "tz": window.tz,
                "by": by.value,
                "rows": [{by.value: row.group, **_figures(row, currencies)} for row in rows],
                "total": _figures(total, currencies),
            }
        )
    elif as_csv:
        names = [by.value, *_figures(total, currencies)]
        output.csv(names, [[row.group, *_figures(row, currencies).values()] for row in rows])
    elif not rows:
        _say_empty(locations(context), window)
    else:
        columns = [Column(by.value), *(column for column, _ in COLUMNS)]
        lines = [[row.group or NOBODY, *(show(row) for _, show in COLUMNS)] for row in rows]
        output.table(columns, lines, ["total", *(show(total) for _, show in COLUMNS)])
        if total.unpriced:
            output.note(
                f'"?": {figures.count(total.unpriced)} request{"s" * (total.unpriced != 1)} used tokens without a known price; '
                'set one in the config: [prices."PROVIDER/MODEL"]'
            )


async def _usage(where: Locations, by: By, window: windows.Window) -> tuple[list[UsageRow], UsageRow]:
    from aigw.storage.base import UsageRow

    async with where.store(where.load_config()) as store:
        rows = await store.usage(by.value, window.since, window.until, window.tz)
        total = await store.usage("", window.since, window.until, window.tz)  # percentiles do not add up; it knows them
    return rows, total[0] if total else UsageRow(group="")


def _figures(row: UsageRow, currencies: Sequence[str]) -> dict[str, Any]:
    """One row for programs. Every unit is in its name; costs are exact decimal strings, null where nothing was priced."""
    return {
        "requests": row.requests,
        "errors": row.errors,
        "input_tokens": row.input,
        "cached_tokens": row.cached,
        "output_tokens": row.output,
        **{
            f"cost_{currency.lower()}": figures.exact(row.costs[currency]) if currency in row.costs else None
            for currency in currencies
        },
        "unpriced_requests": row.unpriced,
        "latency_p50_ms": _milliseconds(row.total_p50),
        "latency_p95_ms": _milliseconds(row.total_p95),
        "first_token_p50_ms": _milliseconds(row.first_token_p50),
        "first_token_p95_ms": _milliseconds(row.first_token_p95),
    }


def _milliseconds(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / 1000


def _iso(moment: float, tz: str) -> str:
    return datetime.fromtimestamp(moment, windows.zone_named(tz)).isoformat(timespec="seconds")


def _say_empty(where: Locations, window: windows.Window) -> None:
    address = where.base_url(where.load_config())
    output.note(f"No requests from {_iso(window.since, window.tz)} to {_iso(window.until, window.tz)}.")
    output.note(
        "Send one while 'aigw serve' runs:\n"
        f'  curl {address}/chat/completions -H "Authorization: Bearer $OPENAI_API_KEY" \\\n'
        "    -H 'Content-Type: application/json' \\\n"
        '    -d \'{"model": "MODEL", "messages": [{"role": "user", "content": "hello"}]}\'\n'
        "A key is made with 'aigw keys create NAME'; --since 30d looks further back."
    )
