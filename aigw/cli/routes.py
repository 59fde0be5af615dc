"""`aigw routes`: names of your own for models, with shares and fallbacks. They are kept in the config file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from aigw.cli import figures, output, saving
from aigw.cli.commands import Noun
from aigw.cli.complete import route_names, target_names
from aigw.cli.locations import Locations, locations
from aigw.cli.output import Column

if TYPE_CHECKING:
    from aigw.cli.names import Names
    from aigw.config.edit import ConfigFile
    from aigw.config.schema import Route

app = typer.Typer(
    cls=Noun,
    rich_markup_mode=None,
    help="Routes: a name of your own, its models, shares and fallbacks. Without a command: list.",
    epilog="""\b
Examples:
  aigw routes
  aigw routes set fast --to deepseek/deepseek-flash
""",
)


# ---- list, show


@app.command(
    "list",
    epilog="""\b
Examples:
  aigw routes
  aigw routes list --json
""",
)
def list_routes(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="For spreadsheets.")] = False,
) -> None:
    """Each route with its targets (by share), its fallbacks, and which known models a pattern catches."""
    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other")
    from aigw.cli import names

    found = names.read(locations(context))
    routes = found.loaded.config.routes
    facts = [_facts(name, route, _caught(found, name)) for name, route in routes.items()]
    live = _live(locations(context))
    for fact in facts:
        fact["health"] = {one: live[one] for one in _places_of(fact) if one in live}
    if as_json:
        output.json(facts)
    elif as_csv:
        rows = []
        for fact, route in zip(facts, routes.values(), strict=True):
            targets, fallback = names.goes_to(route.targets), names.goes_to(route.fallback, shares=False)
            rows.append([fact["name"], fact["kind"], targets, fallback, " ".join(fact["catches"])])
        output.csv(["name", "kind", "targets", "fallback", "catches"], rows)
    elif not facts:
        output.note("No routes: names go to the provider that has them. 'aigw models' shows which.")
        output.note("Make one: aigw routes set NAME --to PROVIDER/MODEL")
    else:
        output.table(
            [
                Column("route"),
                Column("targets"),
                Column("fallback", rank=2),
                *([Column("health")] if live else []),
                Column("catches", rank=1),
            ],
            [
                [
                    fact["name"],
                    names.goes_to(route.targets),
                    names.goes_to(route.fallback, shares=False),
                    *([_health(fact)] if live else []),
                    _counted(fact),
                ]
                for fact, route in zip(facts, routes.values(), strict=True)
            ],
        )


@app.command(
    epilog="""\b
Examples:
  aigw routes show fast
  aigw routes show "gpt-*" --json
"""
)
def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="As it is written in the config.", autocompletion=route_names)],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """One route with all its settings, and every known model that it catches."""
    from aigw.cli import names

    found = names.read(locations(context))
    route = found.loaded.config.routes.get(name)
    if route is None:
        _unknown(name, found)
    fact = _facts(name, route, _caught(found, name))
    live = _live(locations(context))
    fact["health"] = {one: live[one] for one in _places_of(fact) if one in live}
    if as_json:
        output.json(fact)
        return
    shown = {
        "name": name,
        "kind": fact["kind"],
        "targets": names.goes_to(route.targets),
        "fallback": names.goes_to(route.fallback, shares=False) or "-",
        "strategy": route.strategy,
        "retries": "-" if route.retries is None else str(route.retries),
        "answers as": "the provider's name for the model" if route.response_model == "upstream" else "the requested name",
        **{field.replace("_", " "): f"{value:g} s" for field, value in fact["timeouts"].items()},
    }
    for place, one in fact["health"].items():
        answers = f"{one['good']} good, {one['failed']} failed lately"
        shown[f"health of {place}"] = f"{_said(one)}, {answers}, {one['in_flight']} under way{_pace(one)}"
    if fact["kind"] != "exact":
        shown["catches"] = ", ".join(fact["catches"]) or "no model that is known so far"
    for label, text in shown.items():
        output.data(f"{label + ':':<21} {output.safe(text)}")


def _facts(name: str, route: Route, caught: Sequence[str]) -> dict[str, Any]:
    def places(targets: Sequence[Any], *, shares: bool) -> list[dict[str, Any]]:
        return [{"provider": one.provider, "model": one.model, **({"weight": one.weight} if shares else {})} for one in targets]

    timeouts = ("connect_timeout", "first_byte_timeout", "stream_idle_timeout", "timeout")
    return {
        "name": name,
        "kind": "regex" if name.startswith("re:") else "glob" if "*" in name or "?" in name else "exact",
        "targets": places(route.targets, shares=True),
        "fallback": places(route.fallback, shares=False),
        "strategy": route.strategy,
        "retries": route.retries,
        "response_model": route.response_model,
        "timeouts": {field: value for field in timeouts if (value := getattr(route, field)) is not None},
        "catches": list(caught),
    }


def _places_of(fact: dict[str, Any]) -> list[str]:
    """The names under which a server keeps the health of a route's places."""
    places = [*fact["targets"], *fact["fallback"]]
    return [f"{one['provider']}/{one['model'] or fact['name']}" for one in places]


def _live(where: Locations) -> dict[str, dict[str, Any]]:
    """What the running server knows of the places it has asked; nothing without one."""
    from aigw.cli import control

    try:
        state = control.ask(where.data_path())
    except OSError:
        return {}
    found = (state or {}).get("deployments")
    return {one["deployment"]: one for one in found} if isinstance(found, list) else {}


def _health(fact: dict[str, Any]) -> str:
    """Those that are passed over, else "well"; "-" where nobody was asked yet."""
    bad = [f"{place}: {_said(one)}" for place, one in fact["health"].items() if one["circuit"] != "closed"]
    return "; ".join(bad) if bad else "well" if fact["health"] else "-"


def _said(one: dict[str, Any]) -> str:
    if one["circuit"] == "closed":
        return "well"
    return f"passed over ({one['reason'].removeprefix('provider_')}, {one['circuit']})"


def _pace(one: dict[str, Any]) -> str:
    """How soon a place begins to answer, as far as it was seen."""
    seen = {"first byte": one["first_byte"], "first token": one["first_token"]}
    return "".join(f", {name} after {figures.duration(round(value * 1e6))}" for name, value in seen.items() if value)


def _caught(found: Names, name: str) -> list[str]:
    """The known models that go to the pattern *name*; of an exact name, nothing."""
    from aigw.config import patterns

    if not patterns.is_pattern(name):
        return []
    routes = ((one.id, found.table.resolve(one.id)) for one in found.table.names())
    return [model for model, route in routes if route.source == "pattern" and route.name == name]


def _counted(fact: dict[str, Any]) -> str:
    caught = fact["catches"]
    if fact["kind"] == "exact":
        return ""
    return f"{len(caught)}: {', '.join(caught)}" if caught else "none known"


def _unknown(name: str, found: Names) -> NoReturn:
    from aigw.cli.suggest import unknown
    from aigw.errors import CallerError

    output.fail(unknown("route", name, found.loaded.config.routes))
    try:
        route = found.table.resolve(name)
    except CallerError:
        pass
    else:
        output.note(f"The name works without one: it goes to {route.targets[0].id} (aigw models show {output.safe(name)})")
    raise typer.Exit(1)


# ---- set, remove


@app.command(
    "set",
    epilog="""\b
Examples:
  aigw routes set fast --to deepseek/deepseek-flash
  aigw routes set chat --to deepseek/deepseek-flash=90 --to openai/gpt-5=10 --fallback dashscope/qwen-plus
  aigw routes set "claude-*" --to bedrock --dry-run       the model stays the requested one
""",
)
def set_route(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help='What callers ask for: exact, "gpt-*" or "re:^gpt-".', autocompletion=route_names),
    ],
    to: Annotated[
        list[str] | None,
        typer.Option(
            "--to",
            metavar="PROVIDER[/MODEL][=WEIGHT]",
            help="Where it goes; may be repeated, then traffic is shared by weight.",
            autocompletion=target_names,
        ),
    ] = None,
    fallback: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PROVIDER[/MODEL]",
            help="Tried in this order when all targets failed; may be repeated. 'none' takes them away.",
            autocompletion=target_names,
        ),
    ] = None,
    retries: Annotated[int | None, typer.Option(min=0, metavar="N", help="Further attempts after the first.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the change of the config, and do nothing.")] = False,
) -> None:
    """Make a route, or change the one of that name: what is not given stays as it is."""
    from aigw.config import patterns

    where = locations(context)
    file = saving.opened(where)
    old = file.get("routes", name)
    if not isinstance(old, dict):
        old = None
        if not to:
            raise typer.BadParameter("a new route needs at least one", param_hint="--to")
    elif not to and fallback is None and retries is None:
        raise typer.BadParameter("nothing to change: give --to, --fallback or --retries")
    wanted = dict(old or {})
    if to:
        wanted["targets"] = [_target(one, file, "--to", weighted=True) for one in to]
    if fallback is not None:
        wanted["fallback"] = None if fallback == ["none"] else [_target(one, file, "--fallback") for one in fallback]
    if retries is not None:
        wanted["retries"] = retries
    file.set(wanted, "routes", name)
    file.check()
    as_asked = sorted({one["provider"] for one in wanted["targets"] if not one.get("model")})
    if to and as_asked and not patterns.is_pattern(name):
        output.note(f"{', '.join(as_asked)} will be asked for {name!r} itself; PROVIDER/MODEL names another model")
    saving.finish(where, file, f"{'Changed' if old else 'Made'} the route {output.safe(name)}", dry_run=dry_run)


@app.command(
    epilog="""\b
Examples:
  aigw routes remove fast
  aigw routes remove fast --dry-run
"""
)
def remove(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="As it is written in the config.", autocompletion=route_names)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the change of the config, and do nothing.")] = False,
) -> None:
    """Take a route out of the config. Its name then goes wherever it would go without it."""
    where = locations(context)
    file = saving.opened(where)
    if not file.remove("routes", name):
        from aigw.cli import names

        _unknown(name, names.read(where))
    asks = not yes and not dry_run and output.interactive()
    if asks and not output.confirm(f"Remove the route {name}?"):
        output.note("Nothing was changed.")
        raise typer.Exit(1)
    saving.finish(where, file, f"Removed the route {output.safe(name)}", dry_run=dry_run)


def _target(text: str, file: ConfigFile, option: str, *, weighted: bool = False) -> dict[str, Any]:
    """`provider[/model][=weight]` as the config has it. Exits with usage for what is none."""
    from aigw.cli.suggest import unknown

    place, equals, weight = text.rpartition("=") if weighted else (text, "", "")
    if not equals:
        place, weight = text, ""
    elif not (weight.isascii() and weight.isdigit()):
        raise typer.BadParameter(f"{output.safe(text)!r}: expected a whole number behind '='", param_hint=option)
    provider, slash, model = place.partition("/")
    configured = file.get("providers")
    if not isinstance(configured, dict) or provider not in configured:
        hint = unknown("provider", provider, configured or ())
        more = "" if configured else "; none is configured yet: aigw init, or aigw providers add"
        raise typer.BadParameter(f"{hint}{more}", param_hint=option)
    if slash and not model:
        raise typer.BadParameter(f"{output.safe(text)!r}: expected a model behind the slash", param_hint=option)
    return {"provider": provider, "model": model or None, "weight": int(weight) if weight else None}
