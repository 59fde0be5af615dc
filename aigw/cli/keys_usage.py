"""`aigw keys usage`: what consumers have used, and what is left of their budgets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from math import isinf
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aigw.cli import figures, output
from aigw.cli.complete import consumer_names
from aigw.cli.locations import Locations, locations
from aigw.cli.output import Column

if TYPE_CHECKING:
    from aigw.access.quota import Window
    from aigw.config.schema import Config
    from aigw.consumer import Consumer
    from aigw.storage.base import UsageRow

EXAMPLES = """\b
Examples:
  aigw keys usage                    everybody, and what is left of budgets
  aigw keys usage alice --since 7d
  aigw keys usage --json
"""


def usage(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Only this consumer.", autocompletion=consumer_names)
    ] = None,
    since: Annotated[
        str, typer.Option(metavar="TIME", help="Requests, tokens and cost from then on: 30d, 24h, 2026-11-01.")
    ] = "30d",
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="For spreadsheets.")] = False,
) -> None:
    """What each consumer has used, and of its budgets (its group's too) how much is left and when they begin anew. From the
    records that are kept: what is under way just now is not in it."""
    from aigw.cli import windows

    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other")
    now = time.time()
    try:
        begin = windows.moment(since, now, windows.zone_named(windows.local_zone()))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from None
    where = locations(context)
    facts = asyncio.run(_facts(where, where.load_config(), name, begin, now))
    if name is not None and not facts:
        output.fail(f"there is no consumer {output.safe(name[:64])!r}; 'aigw keys list' shows all")
        raise typer.Exit(1)
    if as_json:
        output.json(facts)
    elif as_csv:
        columns = [
            "name",
            "group",
            "requests",
            "input_tokens",
            "output_tokens",
            "costs",
            "whose",
            "unit",
            "window",
            "limit",
            "used",
            "left",
            "renews",
        ]
        output.csv(columns, _csv_rows(facts))
    elif facts:
        _table(facts)
    else:
        output.note("No consumers yet. Make one: aigw keys create NAME")


async def _facts(where: Locations, config: Config, name: str | None, since: float, now: float) -> list[dict[str, Any]]:
    from aigw.access.quota import budgets_of
    from aigw.config import terms

    defaults = terms.terms(config.limits)
    groups = {group: terms.terms(table) for group, table in config.groups.items()}
    async with where.store(config) as store:
        consumers = [*(await store.consumers())[0], *_configured(config)]
        consumers = sorted((one for one in consumers if name in (None, one.name)), key=lambda one: one.name.casefold())
        rows = {row.group[0]: row for row in await store.usage("consumer", since, now + 1)}
        windows = {one.id: budgets_of(one, groups.get(one.group), defaults, now) for one in consumers}
        used: dict[str, int] = {}
        for starts in {window.starts for each in windows.values() for window in each}:
            same = [window for each in windows.values() for window in each if window.starts == starts]
            sums = await store.spent({window.holder for window in same}, starts)
            used |= {window.key: sums.get(window.holder, (0, 0))[not window.money] for window in same}
    return [_fact(one, rows.get(one.name), windows[one.id], used) for one in consumers]


def _configured(config: Config) -> Iterable[Consumer]:
    from aigw.config import terms
    from aigw.consumer import Consumer

    for name, table in config.consumers.items():
        yield Consumer(id=f"config:{name}", name=name, group=table.group, terms=terms.terms(table))


def _fact(consumer: Consumer, row: UsageRow | None, windows: Sequence[Window], used: dict[str, int]) -> dict[str, Any]:
    return {
        "name": consumer.name,
        "group": consumer.group,
        "requests": 0 if row is None else row.requests,
        "input_tokens": 0 if row is None else row.input,
        "output_tokens": 0 if row is None else row.output,
        "costs": {} if row is None else {currency: nano / 1e9 for currency, nano in row.costs.items()},
        "budgets": [_budget(window, used[window.key]) for window in windows],
    }


def _budget(window: Window, used: int) -> dict[str, Any]:
    scale = 1e9 if window.money else 1
    left = max(0, window.limit - used)
    return {
        "whose": window.holder if window.holder.startswith("g:") else "own",
        "unit": "usd" if window.money else "tokens",
        "window": window.name,
        "limit": window.limit / scale,
        "used": used / scale,
        "left": left / scale,
        "renews": None if isinf(window.ends) else datetime.fromtimestamp(window.ends, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _csv_rows(facts: Sequence[dict[str, Any]]) -> list[list[Any]]:
    rows = []
    for fact in facts:
        costs = " ".join(f"{amount:g} {currency}" for currency, amount in fact["costs"].items())
        own = [fact["name"], fact["group"], fact["requests"], fact["input_tokens"], fact["output_tokens"], costs]
        names = ("whose", "unit", "window", "limit", "used", "left", "renews")
        rows += [[*own, *(budget[part] for part in names)] for budget in fact["budgets"]] or [[*own, *[""] * len(names)]]
    return rows


def _table(facts: Sequence[dict[str, Any]]) -> None:
    columns = [
        Column("name"),
        Column("requests", right=True, rank=3),
        Column("tokens", right=True, rank=4),
        Column("cost", right=True, rank=2),
        Column("budget"),
        Column("used", right=True),
        Column("left", right=True, rank=1),
        Column("anew (UTC)", rank=5),
    ]
    rows: list[list[str]] = []
    for fact in facts:
        tokens = fact["input_tokens"] + fact["output_tokens"]
        costs = figures.money({currency: round(amount * 1e9) for currency, amount in fact["costs"].items()})
        own = [output.safe(fact["name"]), figures.count(fact["requests"]), figures.count(tokens), costs]
        for number, budget in enumerate(fact["budgets"] or [None]):
            lead = own if number == 0 else ["", "", "", ""]
            rows.append([*lead, *(_budget_cells(budget) if budget else ["-", "-", "-", "-"])])
    output.table(columns, rows)


def _budget_cells(budget: dict[str, Any]) -> list[str]:
    def amount(value: float) -> str:
        return _money(value, "USD") if budget["unit"] == "usd" else figures.count(int(value))

    whose = "" if budget["whose"] == "own" else f" ({output.safe(budget['whose'].removeprefix('g:'))})"
    share = f" ({budget['used'] / budget['limit']:.0%})" if budget["limit"] else ""
    anew = (budget["renews"] or "never")[:16].replace("T", " ")
    limit = f"{amount(budget['limit'])}{'' if budget['unit'] == 'usd' else ' tokens'}/{budget['window']}{whose}"
    return [limit, amount(budget["used"]) + share, amount(budget["left"]), anew]


def _money(amount: float, currency: str) -> str:
    return figures.money({currency: round(amount * 1e9)})
