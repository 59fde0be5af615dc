"""`aigw groups`: what all of a group may do, and how much of it together. They are kept in the config file."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aigw.cli import output, saving, terms as options
from aigw.cli.commands import Noun
from aigw.cli.complete import group_names
from aigw.cli.locations import Locations, locations
from aigw.cli.output import Column
from aigw.errors import StoreError

if TYPE_CHECKING:
    from aigw.config.schema import Config, Group
    from aigw.consumer import Terms

app = typer.Typer(
    cls=Noun,
    rich_markup_mode=None,
    help="Groups: what their consumers may do, and how much of it together. Without a command: list.",
    epilog="""\b
Examples:
  aigw groups
  aigw groups add search --models '@fast' --budget 50usd/month
""",
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The group.", autocompletion=group_names)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the change, and do not make it.")]


# ---- list, show


@app.command("list", epilog="\b\nExamples:\n  aigw groups\n  aigw groups --json\n")
def list_groups(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="For spreadsheets.")] = False,
) -> None:
    """Each group of the config, what it limits, and how many consumers it has."""
    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other")
    where = locations(context)
    config = where.load_config()
    members = _members(where, config)
    facts = [_facts(name, table, members.get(name, [])) for name, table in config.groups.items()]
    strays = sorted(set(members) - set(config.groups))
    if as_json:
        output.json(facts)
    elif as_csv:
        output.csv(["name", "consumers", "terms"], [[fact["name"], len(fact["consumers"]), fact["terms"]] for fact in facts])
    elif facts:
        rows = [
            [output.safe(fact["name"]), str(len(fact["consumers"])), output.safe(_line(config.groups[fact["name"]]))]
            for fact in facts
        ]
        output.table([Column("name"), Column("consumers", right=True), Column("what holds")], rows)
    else:
        output.note("No groups yet. Make one: aigw groups add NAME --models 'gpt-*' --budget 50usd/month")
    if strays and not (as_json or as_csv):
        output.note(f"Without a [groups.NAME], so nothing holds for them: {', '.join(map(output.safe, strays))}.")


@app.command(epilog="\b\nExamples:\n  aigw groups show search\n  aigw groups show search --json\n")
def show(
    context: typer.Context,
    name: Name,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """One group: what holds for it, and its consumers."""
    where = locations(context)
    config = where.load_config()
    table = _one(config, name)
    fact = _facts(name, table, _members(where, config).get(name, []))
    if as_json:
        output.json(fact)
        return
    terms = _terms(table)
    lines = {"name": name, **options.shown(terms)}
    for part in ("rpm", "concurrency"):
        if (value := getattr(terms, part)) is not None:
            lines[part] = str(value or "no limit")
    lines["consumers"] = ", ".join(fact["consumers"]) or "-"
    for label, text in lines.items():
        output.data(f"{label + ':':<13}{output.safe(text)}")


# ---- add, set, remove


@app.command(
    epilog="""\b
Examples:
  aigw groups add search --models '@fast' --budget 50usd/month
  aigw groups add interns --rpm 30 --concurrency 2 --max-price 5
"""
)
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new group.")],
    models: options.Models = None,
    deny: options.Deny = None,
    providers: options.Providers = None,
    residency: options.Residency = None,
    endpoints: options.Endpoints = None,
    max_price: options.MaxPrice = None,
    allow_ip: options.AllowIp = None,
    rpm: options.Rpm = None,
    tpm: options.Tpm = None,
    concurrency: options.Concurrency = None,
    max_output: options.MaxOutput = None,
    budget: options.Budgets = None,
    tokens: options.Tokens = None,
    tz: options.Tz = None,
    hard: options.Hard = None,
    unpriced: options.Unpriced = None,
    on_budget: options.OnBudget = None,
    priority: options.Priority = None,
    dry_run: DryRun = False,
) -> None:
    """Make a group in the config. Consumers join it with 'aigw keys create NAME --group GROUP'."""
    from aigw.cli.keys import valid_name

    said = {
        "models": models, "deny": deny, "providers": providers, "residency": residency, "endpoints": endpoints,
        "max_price": max_price, "allow_ip": allow_ip, "rpm": rpm, "tpm": tpm, "concurrency": concurrency,
        "max_output": max_output, "budget": budget, "tokens": tokens, "tz": tz, "hard": hard, "unpriced": unpriced,
        "on_budget": on_budget, "priority": priority,
    }  # fmt: skip
    name = valid_name(name)
    where = locations(context)
    config = where.load_config()
    if name in config.groups:
        output.fail(f"[groups.{output.safe(name)}] is there already; change it with 'aigw groups set'")
        raise typer.Exit(1)
    _write(where, name, _empty(), options.wanted(said, config), f"Made the group {name}", dry_run=dry_run)


@app.command(
    "set",
    epilog="""\b
Examples:
  aigw groups set search --budget 100usd/month --rpm 600
  aigw groups set search --deny none --rpm 0
""",
)
def set_group(
    context: typer.Context,
    name: Name,
    models: options.Models = None,
    deny: options.Deny = None,
    providers: options.Providers = None,
    residency: options.Residency = None,
    endpoints: options.Endpoints = None,
    max_price: options.MaxPrice = None,
    allow_ip: options.AllowIp = None,
    rpm: options.Rpm = None,
    tpm: options.Tpm = None,
    concurrency: options.Concurrency = None,
    max_output: options.MaxOutput = None,
    budget: options.Budgets = None,
    tokens: options.Tokens = None,
    tz: options.Tz = None,
    hard: options.Hard = None,
    unpriced: options.Unpriced = None,
    on_budget: options.OnBudget = None,
    priority: options.Priority = None,
    dry_run: DryRun = False,
) -> None:
    """Change what holds for a group: what is not given stays, 'none' takes a list away, 0 a limit."""
    said = {
        "models": models, "deny": deny, "providers": providers, "residency": residency, "endpoints": endpoints,
        "max_price": max_price, "allow_ip": allow_ip, "rpm": rpm, "tpm": tpm, "concurrency": concurrency,
        "max_output": max_output, "budget": budget, "tokens": tokens, "tz": tz, "hard": hard, "unpriced": unpriced,
        "on_budget": on_budget, "priority": priority,
    }  # fmt: skip
    where = locations(context)
    config = where.load_config()
    before = _terms(_one(config, name))
    _write(where, name, before, options.wanted(said, config), f"Changed the group {name}", dry_run=dry_run)


@app.command(epilog="\b\nExamples:\n  aigw groups remove search\n")
def remove(
    context: typer.Context,
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Take a group out of the config. Its consumers keep the name, and nothing of it holds for them any more."""
    where = locations(context)
    config = where.load_config()
    _one(config, name)
    left = _members(where, config).get(name, [])
    if left and not dry_run:
        output.warn(
            f"{len(left)} consumers are in it; nothing of it holds for them then: {', '.join(map(output.safe, left[:10]))}"
        )
        if not yes and output.interactive() and not output.confirm(f"Remove {name}?"):
            output.note("Nothing was changed.")
            raise typer.Exit(1)
    file = saving.opened(where)
    file.remove("groups", name)
    saving.finish(where, file, f"Removed the group {name}", dry_run=dry_run)


# ---- what is known, and written


def _write(where: Locations, name: str, before: Terms, fields: dict[str, Any], deed: str, *, dry_run: bool) -> None:
    after = options.changed(before, fields)
    file = saving.opened(where)
    if after == before and file.get("groups", name) is not None:
        output.note(f"{output.safe(name)} is so already.")
        return
    file.set(_table(after), "groups", name)
    saving.finish(where, file, deed, dry_run=dry_run)


def _table(terms: Terms) -> dict[str, Any]:
    """*terms* as they stand in the config: what says nothing is left out."""
    from aigw.config.terms import written

    found = options.facts(terms)
    if terms.budgets:
        found["budgets"] = [written(one) for one in terms.budgets]
    return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}


def _terms(table: Group) -> Terms:
    from aigw.config.terms import terms

    return terms(table)


def _empty() -> Terms:
    from aigw.consumer import Terms

    return Terms()


def _one(config: Config, name: str) -> Group:
    from aigw.cli.suggest import unknown

    if name not in config.groups:
        output.fail(unknown("group", name, config.groups))
        raise typer.Exit(1)
    return config.groups[name]


def _members(where: Locations, config: Config) -> Mapping[str, list[str]]:
    """Names of consumers by group; without a store, those of the config."""

    async def ask() -> list[tuple[str, str]]:
        async with where.store(config) as store:
            return [(one.group, one.name) for one in (await store.consumers())[0]]

    pairs = [(table.group, name) for name, table in config.consumers.items()]
    try:
        pairs += asyncio.run(ask())
    except StoreError as error:
        output.warn(f"consumers of the store are not shown: {error}")
    found: dict[str, list[str]] = {}
    for group, name in sorted(pairs):
        if group:
            found.setdefault(group, []).append(name)
    return found


def _facts(name: str, table: Group, consumers: list[str]) -> dict[str, Any]:
    return {"name": name, "terms": _table(_terms(table)), "consumers": consumers}


def _line(table: Group) -> str:
    terms = _terms(table)
    parts = [f"{label} {text}" for label, text in options.shown(terms).items()]
    parts += [f"{part} {value}" for part in ("rpm", "concurrency") if (value := getattr(terms, part))]
    return "; ".join(parts) or "-"
