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
from aigw.cli.complete import consumer_names, model_names, provider_names
from aigw.cli.language import is_ascii
from aigw.cli.locations import Locations, locations
from aigw.cli.output import Column
from aigw.cli.suggest import nearest, unknown

if TYPE_CHECKING:
    from aigw.storage.base import UsageRow

CURRENCIES = ("USD", "CNY", "EUR")  # those a price may have (config/schema.py) are always there, others when they occur
NOBODY = "(none)"  # a request refused before it had a provider, a route or a consumer
NO_ERROR = "(no error)"

THINGS = ("model", "consumer", "provider", "route", "group", "key", "operation", "error")
TIMES = ("day", "hour")

PARTS = 12
"""Characters of a trend; two hours each in the window of 24 that is the default."""

EXAMPLES = """\b
Examples:
  aigw stats                                by model, the last 24 hours
  aigw stats --by consumer,model --since 30d
  aigw stats --by day --month 2026-11 --tz Asia/Shanghai
  aigw stats --consumer alice --sort cost --top 5
  aigw stats --by error --since 1h          what went wrong, how often
  aigw stats --json | jq -r .total.cost_usd
  aigw stats --watch                        live, as 'aigw top'
"""


class Sort(StrEnum):
    """What the rows are ordered by, largest first."""

    REQUESTS = "requests"
    COST = "cost"
    TOKENS = "tokens"
    ERRORS = "errors"
    P95 = "p95"


ORDERS: dict[Sort, Callable[[UsageRow], Any]] = {
    Sort.REQUESTS: lambda row: row.requests,
    Sort.COST: lambda row: tuple(row.costs.get(currency, 0) for currency in CURRENCIES),  # no rates here: dollars first
    Sort.TOKENS: lambda row: row.input + row.output,
    Sort.ERRORS: lambda row: row.errors,
    Sort.P95: lambda row: row.total_p95 or 0,
}

COLUMNS: tuple[tuple[Column, Callable[[UsageRow], str]], ...] = (
    (Column("requests", right=True), lambda row: figures.count(row.requests)),
    (Column("errors", right=True, rank=9), lambda row: figures.count(row.errors)),
    (Column("err %", right=True, rank=2), lambda row: figures.share(row.errors, row.requests).removesuffix(" %")),
    (Column("in", right=True, rank=5), lambda row: figures.tokens(row.input)),
    (Column("cached", right=True, rank=11), lambda row: figures.tokens(row.cached)),
    (Column("out", right=True, rank=4), lambda row: figures.tokens(row.output)),
    (Column("cost", right=True, rank=1), lambda row: figures.money(row.costs, row.unpriced)),
    (Column("p50", right=True, rank=8), lambda row: figures.duration(row.total_p50)),
    (Column("p95", right=True, rank=6), lambda row: figures.duration(row.total_p95)),
    (Column("first p50", right=True, rank=10), lambda row: figures.duration(row.first_token_p50)),
    (Column("first p95", right=True, rank=12), lambda row: figures.duration(row.first_token_p95)),
    (Column("tok/s", right=True, rank=7), lambda row: figures.rate(tokens_per_second(row))),
)

app = typer.Typer(rich_markup_mode=None)


def _by(text: str) -> tuple[str, ...]:
    names = tuple(name.strip().lower() for name in text.split(",") if name.strip())
    for name in names:
        if name not in THINGS and name not in TIMES:
            near = nearest(name, (*THINGS, *TIMES))
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join((*THINGS, *TIMES))}"
            raise typer.BadParameter(f"nothing to group by is called {output.safe(name[:40])!r}: {hint}")
    if not names or len(names) > 2 or len(set(names)) < len(names) or set(TIMES) <= set(names):
        raise typer.BadParameter("group by one thing or by two with a comma between them: --by consumer,model")
    return names


def _groupings(ctx: typer.Context, incomplete: str) -> list[str]:
    """What completes `--by`: a thing, or a second one behind a comma."""
    first, comma, rest = incomplete.rpartition(",")
    return [first + comma + name for name in (*THINGS, *TIMES) if name.startswith(rest) and name != first]


@app.command(epilog=EXAMPLES)
def stats(
    context: typer.Context,
    by: Annotated[
        str,
        typer.Option(
            metavar="THING[,THING]",
            help="Group by one or two of: model, consumer, provider, route, group, key, operation, error, day, hour.",
            autocompletion=_groupings,
        ),
    ] = "model",
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="From: 24h or 30d before now, or 2026-11-30[T18:00].  [default: 24h]")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Up to, not including.  [default: now]")] = None,
    month: Annotated[str | None, typer.Option(metavar="MONTH", help="A whole month: 2026-11.")] = None,
    tz: Annotated[
        str | None, typer.Option(metavar="ZONE", help="Time zone of days, hours and dates.  [default: this machine's]")
    ] = None,
    consumer: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this consumer's.", autocompletion=consumer_names)
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only those of this model.", autocompletion=model_names)
    ] = None,
    provider: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only those of this provider.", autocompletion=provider_names)
    ] = None,
    sort: Annotated[Sort | None, typer.Option(help="Largest first.  [default: requests; days and hours in order]")] = None,
    top: Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first N rows; the total is of all.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Live, as 'aigw top'.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Exact numbers for programs.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="The same for spreadsheets.")] = False,
) -> None:
    """Who used what: requests, errors, tokens, cost, and latency (p50 and p95, 5 % at most off). With the server on or off.

    "first" is the time to the first token of streams, "tok/s" how fast the rest of them came; "trend" are the requests over
    the window. A "?" marks a cost that leaves out exchanges without a known price.
    """
    if watch:
        if as_json or as_csv or until or month:
            raise typer.BadParameter("--watch shows what happens now; leave out --json, --csv, --until and --month")
        from aigw.cli.top import INTERVAL, watch as watch_live, window_of

        watch_live(locations(context), interval=INTERVAL, window=window_of(since), once=False)
        return
    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other")
    names = _by(by)
    only = {
        name: value for name, value in (("consumer", consumer), ("model", model), ("provider", provider)) if value is not None
    }
    try:
        window = windows.window(since, until, month, tz, time.time())
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    rows, total, others = asyncio.run(_usage(locations(context), names, window, only))
    if sort is not None:
        rows.sort(key=ORDERS[sort], reverse=True)
    hidden = 0 if top is None else max(0, len(rows) - top)
    rows = rows[:top]
    currencies = [*CURRENCIES, *sorted(set(total.costs) - set(CURRENCIES))]
    if as_json:
        output.json(
            {
                "since": _iso(window.since, window.tz),
                "until": _iso(window.until, window.tz),
                "tz": window.tz,
                "by": list(names),
                "only": only,
                "rows": [{**_named(names, row), **_figures(row, currencies), "trend": row.trend} for row in rows],
                "total": {**_figures(total, currencies), "trend": total.trend},
            }
        )
    elif as_csv:
        columns = [*names, *_figures(total, currencies)]
        output.csv(columns, [[*row.group, *_figures(row, currencies).values()] for row in rows])
    elif not rows:
        _say_empty(locations(context), window, only, others)
    else:
        _show(names, rows, total, hidden)


def _show(names: tuple[str, ...], rows: Sequence[UsageRow], total: UsageRow, hidden: int) -> None:
    """The table, and what has to be said about it."""
    by_time = next((name for name in names if name in TIMES), None)
    only_ascii = is_ascii()
    most = max(row.requests for row in rows)

    def picture(row: UsageRow) -> str:
        if by_time:
            return figures.bar(row.requests, most, PARTS, ascii_only=only_ascii)
        return figures.sparkline(row.trend, ascii_only=only_ascii)

    columns = [*map(Column, names), *(column for column, _ in COLUMNS), Column("trend", rank=3)]
    lines = [
        [
            *(value or (NO_ERROR if name == "error" else NOBODY) for name, value in zip(names, row.group, strict=True)),
            *(show(row) for _, show in COLUMNS),
            picture(row),
        ]
        for row in rows
    ]
    foot = ["total", *[""] * (len(names) - 1), *(show(total) for _, show in COLUMNS)]
    output.table(columns, lines, [*foot, "" if by_time else picture(total)])
    if hidden:
        output.note(f"{hidden} more row{'s' * (hidden != 1)} without --top; the total is of all.")
    if total.unpriced:
        output.note(
            f'"?": {figures.count(total.unpriced)} request{"s" * (total.unpriced != 1)} used tokens without a known price; '
            'set one in the config: [prices."PROVIDER/MODEL"]'
        )


async def _usage(
    where: Locations, by: tuple[str, ...], window: windows.Window, only: dict[str, str]
) -> tuple[list[UsageRow], UsageRow, dict[str, list[str]]]:
    """The rows, the total, and, when there is nothing, the names there are besides those in *only*."""
    from aigw.storage.base import UsageRow

    async with where.store(where.load_config()) as store:
        span = window.since, window.until, window.tz
        rows = await store.usage(",".join(by), *span, only=only, parts=PARTS)
        total = await store.usage("", *span, only=only, parts=PARTS)  # percentiles do not add up; it knows them
        others = {}
        if only and not rows:
            others = {name: [row.group[0] for row in await store.usage(name, *span)] for name in only}
    return rows, total[0] if total else UsageRow(group=()), others


def tokens_per_second(row: UsageRow) -> float | None:
    """How fast streams came once they had begun; None where there was none."""
    return row.stream_output / row.stream_took * 1e6 if row.stream_took > 0 else None


def _named(names: tuple[str, ...], row: UsageRow) -> dict[str, str]:
    return dict(zip(names, row.group, strict=True))


def _figures(row: UsageRow, currencies: Sequence[str]) -> dict[str, Any]:
    """One row for programs. Every unit is in its name; costs are exact decimal strings, null where nothing was priced."""
    speed = tokens_per_second(row)
    return {
        "requests": row.requests,
        "errors": row.errors,
        "error_share": round(row.errors / row.requests, 6) if row.requests else None,
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
        "tokens_per_second": None if speed is None else round(speed, 3),
    }


def _milliseconds(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / 1000


def _iso(moment: float, tz: str) -> str:
    return datetime.fromtimestamp(moment, windows.zone_named(tz)).isoformat(timespec="seconds")


def _say_empty(where: Locations, window: windows.Window, only: dict[str, str], others: dict[str, list[str]]) -> None:
    output.note(f"No requests from {_iso(window.since, window.tz)} to {_iso(window.until, window.tz)}.")
    if only:
        strange = [(name, value) for name, value in only.items() if value not in others[name]]
        for name, value in strange:
            output.note(f"In this window there is {unknown(name, value, others[name])}")
        if not strange:
            output.note(f"There are some without {' and '.join(f'--{name}' for name in only)} together.")
        return
    address = where.base_url(where.load_config())
    output.note(
        "Send one while 'aigw serve' runs:\n"
        f'  curl {address}/chat/completions -H "Authorization: Bearer $OPENAI_API_KEY" \\\n'
        "    -H 'Content-Type: application/json' \\\n"
        '    -d \'{"model": "MODEL", "messages": [{"role": "user", "content": "hello"}]}\'\n'
        "A key is made with 'aigw keys create NAME'; --since 30d looks further back."
    )
