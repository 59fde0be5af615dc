"""`aigw models`: the names that callers can ask for now, where each goes and why, and what it costs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aigw.cli import output
from aigw.cli.commands import Noun
from aigw.cli.complete import model_names, provider_names
from aigw.cli.locations import locations
from aigw.cli.output import Column

if TYPE_CHECKING:
    from aigw.cli.names import Names
    from aigw.deployment import Deployment, Route

CURRENCIES = {"USD": "$", "CNY": "¥", "EUR": "€"}

app = typer.Typer(
    cls=Noun,
    rich_markup_mode=None,
    help="Models: which names work, where each goes and why, at what price. Without a command: list.",
    epilog="""\b
Examples:
  aigw models
  aigw models show gpt-5
""",
)


@app.command(
    "list",
    epilog="""\b
Examples:
  aigw models
  aigw models --provider openai
  aigw models --json | jq -r '.[].name'
""",
)
def list_models(
    context: typer.Context,
    provider: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only what goes to this provider.", autocompletion=provider_names)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="For spreadsheets.")] = False,
) -> None:
    """The names that work: routes, the models that providers list, and beginnings that the catalog knows ("gpt-*").

    Prices are per million tokens. Nobody is asked: lists of models are those that 'aigw serve' has seen last.
    """
    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other")
    from aigw.cli import names
    from aigw.cli.suggest import unknown

    found = names.read(locations(context))
    if provider is not None and provider not in found.providers:
        output.fail(unknown("provider", provider, found.providers))
        raise typer.Exit(1)
    facts = _all(found)
    if provider is not None:
        facts = [fact for fact in facts if provider in [one["provider"] for one in (*fact["targets"], *fact["fallback"])]]
    if as_json:
        output.json(facts)
    elif as_csv:
        output.csv(
            ["name", "kind", "goes_to", "fallback", "source", "also_claimed_by", "input", "output", "cached", "currency"],
            [_cells(fact) for fact in facts],
        )
    else:
        _show_table(facts)
        _say_what_is_not_known(found, facts)


@app.command(
    epilog="""\b
Examples:
  aigw models show gpt-5
  aigw models show openai/gpt-5 --json
"""
)
def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What a caller would ask for.", autocompletion=model_names)],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """One name: where it goes, why, who else claims it, and what it costs."""
    from aigw.cli import names
    from aigw.cli.suggest import unknown
    from aigw.errors import CallerError

    found = names.read(locations(context))
    try:
        route = found.table.resolve(name)
    except CallerError:
        known = [one.id for one in found.table.names()]
        output.fail(f"{unknown('model', name, known)} ('aigw models' lists what works)")
        raise typer.Exit(1) from None
    fact = _fact(found, name, "name", route, found.others(name, route))
    steps = _steps(found, name)
    if as_json:
        output.json({**fact, "steps": steps})
        return
    rows = {
        "name": name,
        "goes to": fact["goes_to"],
        "fallback": ", ".join(_place(one) for one in fact["fallback"]) or "-",
        "because": fact["why"],
        "also claimed by": ", ".join(fact["also_claimed_by"]) or "-",
    }
    for label, text in rows.items():
        output.data(f"{label + ':':<17}{output.safe(text)}")
    for place in fact["targets"]:
        output.data(f"{'price:':<17}{output.safe(_priced(place))}")
    output.data("\nlooked for, in this order:")
    for number, (source, answer) in enumerate(steps.items(), 1):
        mark = "  <- this one" if source == route.source else ""
        output.data(output.safe(f"  {number}. {names.STEPS[source] + ':':<32} {answer or '-'}") + mark)


# ---- facts


def _all(found: Names) -> list[dict[str, Any]]:
    """Every name, then the patterns among the routes, then the catalog's beginnings."""
    from aigw.config import patterns

    facts = []
    for named in found.table.names():
        route = found.table.resolve(named.id)
        facts.append(_fact(found, named.id, "name", route, found.others(named.id, route)))
    by_pattern = {name: route for name, route in found.loaded.config.routes.items() if patterns.is_pattern(name)}
    facts += [_fact(found, name, "pattern", _as_route(name, route), []) for name, route in by_pattern.items()]
    losers: dict[str, list[str]] = {}
    for lost in found.table.shadowed():
        if lost.kind == "prefix":
            losers.setdefault(lost.claim, []).append(lost.loser)
    for named in found.table.prefixes():
        route = _as_route(named.id, owner=named.owner)
        facts.append(_fact(found, named.id, "prefix", route, losers.get(named.id, [])))
    return facts


def _as_route(name: str, table: Any = None, owner: str = "") -> Route:
    from aigw.deployment import Deployment, Route

    def deployments(targets: Any) -> tuple[Deployment, ...]:
        return tuple(Deployment(provider=one.provider, model=one.model, weight=one.weight) for one in targets)

    if table is None:
        return Route(name=name, targets=(Deployment(provider=owner),), source="catalog")
    return Route(name=name, targets=deployments(table.targets), fallback=deployments(table.fallback), source="pattern")


def _fact(found: Names, name: str, kind: str, route: Route, others: list[str]) -> dict[str, Any]:
    """One name for programs. Prices are numbers per million tokens; null where they are not known."""
    from aigw.cli import names

    why = names.REASONS[route.source]
    return {
        "name": name,
        "kind": kind,
        "goes_to": names.goes_to(route.targets),
        "source": route.source,
        "why": f"{why} ({route.name})" if route.source == "pattern" and kind == "name" else why,
        "targets": [_target(found, name, kind, target) for target in route.targets],
        "fallback": [_target(found, name, kind, target) for target in route.fallback],
        "also_claimed_by": others,
    }


def _target(found: Names, name: str, kind: str, target: Deployment) -> dict[str, Any]:
    from aigw.cli import names

    model = target.model or (name if kind == "name" else None)  # of a pattern: whatever was asked for
    price = names.per_million(found.prices, target.provider, model, time.time()) if model else None
    return {"provider": target.provider, "model": model, "weight": target.weight, "price": price}


def _steps(found: Names, name: str) -> dict[str, str]:
    """What each way to look for *name* finds, in the order in which they are tried."""
    from aigw.config import patterns

    routes = found.loaded.config.routes
    head, _, rest = name.partition("/")
    ordered = sorted(filter(patterns.is_pattern, routes), key=patterns.specificity)
    matching = [one for one in ordered if patterns.compiled(one).search(name)]
    beginnings = [one for one in found.table.prefixes() if name.lower().startswith(one.id[:-1])]
    longest = max(beginnings, key=lambda one: len(one.id), default=None)
    return {
        "route": name if name in routes and not patterns.is_pattern(name) else "",
        "provider/model": head if rest and head in found.providers else "",
        "pattern": ", ".join(matching),
        "live": ", ".join(provider for provider, models in found.listed.items() if name in models),
        "catalog": f"{longest.owner} ({longest.id})" if longest else "",
    }


# ---- what is shown


def _show_table(facts: list[dict[str, Any]]) -> None:
    if not facts:
        return
    columns = [
        Column("name"),
        Column("goes to"),
        Column("why", rank=3),
        Column("not to", rank=4),
        Column("in /M", right=True, rank=1),
        Column("out /M", right=True, rank=2),
    ]
    rows = []
    for fact in facts:
        price = fact["targets"][0]["price"] or {}
        prices = [_money(price, "input"), _money(price, "output")]
        rows.append([fact["name"], fact["goes_to"], fact["source"], ", ".join(fact["also_claimed_by"]), *prices])
    output.table(columns, rows)


def _say_what_is_not_known(found: Names, facts: list[dict[str, Any]]) -> None:
    if not found.providers:
        output.note("No provider is configured: 'aigw init' sets one up.")
        return
    quiet = [name for name, provider in found.providers.items() if provider.lists_models and not found.listed[name]]
    if quiet:
        output.note(f"Not asked yet for their models: {', '.join(quiet)}. 'aigw serve' asks, at start and every ten minutes.")
    if any(fact["kind"] != "name" for fact in facts):
        output.note('A name with "*" stands for all that begin so and are not listed above.')


def _cells(fact: dict[str, Any]) -> list[Any]:
    price = fact["targets"][0]["price"] or {}
    return [
        fact["name"],
        fact["kind"],
        fact["goes_to"],
        " ".join(_place(one) for one in fact["fallback"]),
        fact["source"],
        " ".join(fact["also_claimed_by"]),
        *(price.get(part) for part in ("input", "output", "cached", "currency")),
    ]


def _place(target: dict[str, Any]) -> str:
    return f"{target['provider']}/{target['model']}" if target["model"] else str(target["provider"])


def _priced(target: dict[str, Any]) -> str:
    price = target["price"]
    if price is None:
        return f'{_place(target)}: not known; set it in the config: [prices."{_place(target)}"]'
    parts = {"in": "input", "cached": "cached", "out": "output"}
    figures = ", ".join(f"{_money(price, part)} {word}" for word, part in parts.items() if part in price)
    return f"{_place(target)}: {figures} per million tokens ({price['source']})"


def _money(price: dict[str, Any], part: str) -> str:
    if part not in price:
        return "-"
    symbol = CURRENCIES.get(price["currency"], f"{price['currency']} ")
    return f"{symbol}{price[part]:.10g}"
