"""`aigw prices`: what models cost here, and where that is known from."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aigw.cli import output, prices_update, saving
from aigw.cli.commands import Noun
from aigw.cli.complete import provider_names, target_names
from aigw.cli.locations import Locations, locations
from aigw.cli.output import Column
from aigw.errors import StoreError

if TYPE_CHECKING:
    from aigw.cli.names import Names

LOOK_BACK = 30 * 86400.0
"""Seconds: what was used within them is listed, configured or not."""

CURRENCIES = ("USD", "CNY", "EUR")

PARTS = ("input", "cached", "output")

app = typer.Typer(
    cls=Noun,
    rich_markup_mode=None,
    help="Prices: what each model costs, for a million tokens, and who says so. Without a command: list.",
    epilog="""\b
Examples:
  aigw prices
  aigw prices set dashscope/qwen-max --input 2.4 --output 9.6 --currency CNY
""",
)


# ---- list, show


@app.command(
    "list",
    epilog="""\b
Examples:
  aigw prices
  aigw prices --unknown
  aigw prices --json | jq -r '.[] | select(.source == null) | .model'
""",
)
def list_prices(
    context: typer.Context,
    provider: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this provider's.", autocompletion=provider_names)
    ] = None,
    unknown: Annotated[bool, typer.Option("--unknown", help="Only models whose price nobody knows.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="For spreadsheets.")] = False,
) -> None:
    """Models that work by name or were used within 30 days. A model without a price is served, and its cost is not counted;
    under a money budget it is refused ('aigw prices set' mends that)."""
    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other")
    from aigw.cli import names
    from aigw.cli.suggest import unknown as unknown_name

    where = locations(context)
    found = names.read(where)
    if provider is not None and provider not in found.providers:
        output.fail(unknown_name("provider", provider, found.providers))
        raise typer.Exit(1)
    used = _used(where, found)
    facts = [_fact(found, one, model, used.get((one, model), 0)) for one, model in sorted({*_named(found), *used})]
    facts = [fact for fact in facts if provider in (None, fact["provider"]) and not (unknown and fact["source"])]
    if as_json:
        output.json(facts)
    elif as_csv:
        columns = ["provider", "model", *PARTS, "currency", "source", "requests"]
        output.csv(columns, [[fact[name] for name in columns] for fact in facts])
    elif facts:
        _show(facts)
    else:
        output.note("No model to list" + (": every price is known." if unknown else " yet."))


@app.command(
    epilog="""\b
Examples:
  aigw prices show openai/gpt-5
"""
)
def show(
    context: typer.Context,
    place: Annotated[str, typer.Argument(metavar="PROVIDER/MODEL", help="As in the list.", autocompletion=target_names)],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """What one model costs at one provider. Exit code 1 when nobody knows."""
    from aigw.cli import names

    found = names.read(locations(context))
    provider, model = _place(place, found.providers)
    fact = _fact(found, provider, model, 0)
    del fact["requests"]
    if as_json:
        output.json(fact)
    else:
        for name in (*PARTS, "currency", "source"):
            output.data(f"{name + ':':<10}{'-' if fact[name] is None else output.safe(_cell(fact[name]))}")
    if fact["source"] is None:
        output.note(f"Nobody knows; you can say: aigw prices set {output.safe(place)} --input AMOUNT --output AMOUNT")
        raise typer.Exit(1)


# ---- set, remove


@app.command(
    "set",
    epilog="""\b
Examples:
  aigw prices set openai/gpt-5 --input 1.1 --output 8.8           a contract of one's own
  aigw prices set "gpu/*" --input 0 --output 0                    what runs here costs nothing by the token
  aigw prices set dashscope/qwen-max --input 2.4 --output 9.6 --currency CNY --dry-run
""",
)
def set_price(
    context: typer.Context,
    place: Annotated[
        str,
        typer.Argument(metavar="PROVIDER/MODEL", help="* and ? stand for anything.", autocompletion=target_names),
    ],
    input_: Annotated[float | None, typer.Option("--input", min=0.0, metavar="AMOUNT", help="For a million tokens.")] = None,
    output_: Annotated[float | None, typer.Option("--output", min=0.0, metavar="AMOUNT", help="For a million tokens.")] = None,
    cache_read: Annotated[
        float | None, typer.Option("--cached", min=0.0, metavar="AMOUNT", help="For a million tokens read from its cache.")
    ] = None,
    request: Annotated[float | None, typer.Option(min=0.0, metavar="AMOUNT", help="For each request, besides.")] = None,
    currency: Annotated[str | None, typer.Option(metavar="CODE", help="USD, CNY or EUR; USD unless said.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the change of the config, and do nothing.")] = False,
) -> None:
    """Say what a model costs, in [prices] of the config: it beats every list. What is not given stays as it is."""
    where = locations(context)
    file = saving.opened(where)
    said = {"input": input_, "output": output_, "cache_read": cache_read, "request": request, "currency": currency}
    said = {name: value for name, value in said.items() if value is not None}
    if not said:
        raise typer.BadParameter("nothing to change: give --input and --output, or others")
    provider, slash, model = place.partition("/")
    if not (provider and slash and model):
        raise typer.BadParameter('expected "PROVIDER/MODEL", for example openai/gpt-5', param_hint="PROVIDER/MODEL")
    if currency is not None and currency not in CURRENCIES:
        raise typer.BadParameter(f"expected one of {', '.join(CURRENCIES)}", param_hint="--currency")
    configured = file.get("providers")
    if "*" not in provider and "?" not in provider and (not isinstance(configured, dict) or provider not in configured):
        output.warn(f"no provider {output.safe(provider)} is configured: the price waits for it")
    old = file.get("prices", place)
    wanted = {**(old if isinstance(old, dict) else {}), **said}
    if "input" not in wanted:
        raise typer.BadParameter("a new price needs at least what input costs", param_hint="--input")
    file.set(wanted, "prices", place)
    file.check()
    saving.finish(where, file, f"{'Changed' if old else 'Set'} the price of {output.safe(place)}", dry_run=dry_run)


@app.command(
    epilog="""\b
Examples:
  aigw prices remove openai/gpt-5
"""
)
def remove(
    context: typer.Context,
    place: Annotated[str, typer.Argument(metavar="PROVIDER/MODEL", help="As it is written in the config.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the change of the config, and do nothing.")] = False,
) -> None:
    """Take a price out of the config: then the lists say what it costs, if they know."""
    from aigw.cli.suggest import unknown

    where = locations(context)
    file = saving.opened(where)
    if not file.remove("prices", place):
        written = file.get("prices")
        output.fail(unknown("price", place, written if isinstance(written, dict) else ()))
        raise typer.Exit(1)
    saving.finish(where, file, f"Removed the price of {output.safe(place)}", dry_run=dry_run)


app.command("update", epilog=prices_update.EXAMPLES)(prices_update.update)


# ---- facts


def _named(found: Names) -> set[tuple[str, str]]:
    """Provider and model of every place that a name leads to, and of every price of the config that names one."""
    from aigw.config import patterns

    places: set[tuple[str, str]] = set()
    for named in found.table.names():
        for target in found.table.resolve(named.id).places:
            model = target.model or named.id
            places.add((target.provider, model))
    for written in found.loaded.config.prices:
        provider, _, model = written.partition("/")
        if provider in found.providers and not patterns.is_pattern(model):
            places.add((provider, model))
    return places


def _used(where: Locations, found: Names) -> dict[tuple[str, str], int]:
    """How many requests each place had lately; nothing where the store cannot say."""

    async def ask() -> dict[tuple[str, str], int]:
        now = time.time()
        async with where.store(found.loaded.config) as store:
            rows = await store.usage("provider,model", now - LOOK_BACK, now)
        return {(row.group[0], row.group[1]): row.requests for row in rows if row.group[0] and row.group[1]}

    try:
        return asyncio.run(ask())
    except StoreError as error:
        output.warn(f"what was used cannot be read: {error}")
        return {}


def _fact(found: Names, provider: str, model: str, requests: int) -> dict[str, Any]:
    from aigw.cli import names

    price = names.per_million(found.prices, provider, model, time.time()) if provider in found.providers else None
    said = price or {}
    parts = {part: said.get(part) for part in PARTS}
    return {
        "provider": provider,
        "model": model,
        **parts,
        "currency": said.get("currency"),
        "source": said.get("source"),
        "requests": requests,
    }


def _show(facts: list[dict[str, Any]]) -> None:
    columns = [Column("provider"), Column("model")]
    columns += [Column(part, right=True) for part in PARTS]
    columns += [Column("currency"), Column("source"), Column("requests in 30 days", right=True)]
    rows = []
    for fact in facts:
        cells = [fact["provider"], fact["model"], *(_cell(fact[part]) for part in PARTS)]
        cells += [fact["currency"] or "-", fact["source"] or "unknown", f"{fact['requests']:,}" if fact["requests"] else "-"]
        rows.append([output.safe(cell) for cell in cells])
    output.table(columns, rows)
    missing = [fact for fact in facts if fact["source"] is None and fact["requests"]]
    if missing:
        one = missing[0]
        place = output.safe(f"{one['provider']}/{one['model']}")
        output.note(f"{len(missing)} of those that were used have no price. To set one: aigw prices set {place} --input ...")


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _place(text: str, providers: Any) -> tuple[str, str]:
    from aigw.cli.suggest import unknown

    provider, slash, model = text.partition("/")
    if not (provider and slash and model):
        raise typer.BadParameter('expected "PROVIDER/MODEL", for example openai/gpt-5', param_hint="PROVIDER/MODEL")
    if provider not in providers:
        raise typer.BadParameter(unknown("provider", provider, providers), param_hint="PROVIDER/MODEL")
    return provider, model
