"""`aigw config`: the config file. `check` says what is wrong with it, or what it means."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aigw.cli import output
from aigw.cli.locations import Locations, locations
from aigw.cli.output import Column
from aigw.errors import ConfigError

if TYPE_CHECKING:
    from aigw.config.load import Loaded
    from aigw.config.schema import RouteTarget
    from aigw.routing.table import Shadowed

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="The config file: check it.")


@app.callback()
def config() -> None:
    """The config file: check it."""


@app.command(
    epilog="""\b
Examples:
  aigw config check
  aigw config check --config ./aigw.toml --json
"""
)
def check(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Say what is wrong with it, or what it means.

    It is read as `serve` reads it; every secret is looked up and none is shown. Exit code 0 when it can be served, 2 when
    not: every problem is listed with file, line and key.
    """
    where = locations(context)
    try:
        found = _checked(where)
    except ConfigError as error:
        problems = getattr(error, "problems", (error,))
        if as_json:
            output.json({"ok": False, "file": str(where.config_path()), "problems": [_problem(one) for one in problems]})
        else:
            for problem in problems:
                output.fail(str(problem))
        raise typer.Exit(2) from None
    if as_json:
        output.json(found)
    else:
        _say(found)


def _checked(where: Locations) -> dict[str, Any]:
    """What the config means, as plain values. Raises ConfigError."""
    from aigw.config.load import load_with_notes
    from aigw.gateway import Build, claimant, models_url
    from aigw.routing.live_models import LiveModels
    from aigw.routing.table import Table

    loaded = load_with_notes(where.config_path())
    built = Build(loaded, os.environ)
    table = Table(loaded.config.routes, [claimant(loaded.config, provider) for provider in built.providers.values()])
    remembered = LiveModels(where.data_path() / "models")  # what a server that ran here has heard from its providers
    for name, provider in built.providers.items():
        table.set_live(name, remembered.load(name, models_url(provider)))
    kinds = {name: provider.kind for name, provider in built.providers.items()}
    return {
        "ok": True,
        "file": str(loaded.path),
        "exists": loaded.exists,
        "hash": loaded.hash,
        "warnings": list(loaded.warnings),
        "providers": _providers(loaded, kinds),
        "routes": [
            {
                "name": name,
                "targets": [{"target": _target(target), "weight": target.weight} for target in route.targets],
                "fallback": [_target(target) for target in route.fallback],
            }
            for name, route in loaded.config.routes.items()
        ],
        "shadowed": _grouped(table.shadowed()),
    }


def _problem(problem: ConfigError) -> dict[str, Any]:
    return {"file": problem.file, "line": problem.line, "key": problem.key, "message": problem.message}


def _providers(loaded: Loaded, kinds: dict[str, str]) -> list[dict[str, Any]]:
    from aigw.providers import catalog

    rows = []
    for name, provider in loaded.config.providers.items():
        row = catalog.row(kinds[name])
        url = provider.base_url or provider.anthropic_base_url or row.base_url or row.openai_surface or row.anthropic_url
        rows.append({"name": name, "kind": row.id, "base_url": url, "keys": len(provider.keys)})
    return rows


def _target(target: RouteTarget) -> str:
    return f"{target.provider}/{target.model}" if target.model else target.provider


def _grouped(shadowed: Iterable[Shadowed]) -> list[dict[str, Any]]:
    """One entry for each pair of providers: what the one claims and the other gets."""
    pairs: dict[tuple[str, str], list[str]] = {}
    for lost in shadowed:
        pairs.setdefault((lost.winner, lost.loser), []).append(lost.claim)
    return [{"winner": winner, "loser": loser, "claims": sorted(claims)} for (winner, loser), claims in pairs.items()]


def _say(found: dict[str, Any]) -> None:
    for warning in found["warnings"]:
        output.warn(warning)
    providers, routes = found["providers"], found["routes"]
    if providers:
        output.table(
            [Column("provider"), Column("kind", rank=1), Column("base url", rank=2), Column("keys", right=True)],
            [[one["name"], one["kind"], one["base_url"], str(one["keys"])] for one in providers],
        )
    if routes:
        if providers:
            output.data("")
        output.table(
            [Column("route"), Column("targets"), Column("fallback", rank=1)],
            [[one["name"], _weighted(one["targets"]), ", ".join(one["fallback"])] for one in routes],
        )
    for one in found["shadowed"]:
        claims = one["claims"]
        more = f" and {len(claims) - 5} more" if len(claims) > 5 else ""
        output.note(
            f"{', '.join(claims[:5])}{more}: goes to {one['winner']}, not to {one['loser']}; the first one in the file wins"
        )
    if not found["exists"]:
        output.note(f"no config file at {found['file']}: the defaults hold, and no provider is configured")
    else:
        output.note(f"{found['file']} is fine: {_count(len(providers), 'provider')}, {_count(len(routes), 'route')}")


def _weighted(targets: list[dict[str, Any]]) -> str:
    total = sum(target["weight"] for target in targets)
    if len(targets) == 1 or not total:
        return ", ".join(target["target"] for target in targets)
    return ", ".join(f"{target['target']} {100 * target['weight'] / total:.3g}%" for target in targets)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
