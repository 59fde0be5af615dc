"""`aigw providers add`: a provider of the catalog, or a server whose kind is found out, comes into the config with its keys."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from aigw.cli import output, provider_keys
from aigw.cli.language import say
from aigw.cli.locations import Locations, locations
from aigw.cli.provider_keys import DryRun, Given, Kept, NoCheck, finish

if TYPE_CHECKING:
    from aigw.cli.names import Names
    from aigw.config import schema
    from aigw.config.edit import ConfigFile
    from aigw.providers.catalog import Row
    from aigw.providers.discovery import Found

EXAMPLES = """\b
Examples:
  aigw providers add deepseek --key -             asks for the key, hidden
  aigw providers add openai --from-env            with $OPENAI_API_KEY
  aigw providers add ollama                       on this machine: needs none
  aigw providers add azure --key - --set resource=my-resource
  aigw providers add gpu --base-url http://10.0.0.7:8000 --key -
                                                  finds out what it speaks
"""


class Wanted(NamedTuple):
    """A provider on its way into the config: its table without keys, and the models it lists, as far as they are known."""

    name: str
    table: dict[str, Any]
    keys: tuple[Given, ...]
    models: tuple[str, ...] = ()
    looked_at: bool = False  # what was found there has been said


def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A row of the catalog, or a name of your own with --base-url.")],
    kind: Annotated[str | None, typer.Option(metavar="KIND", help="The catalog's row, for a name of your own.")] = None,
    base_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Where it is. Of an unknown server the rest is found out.")
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option("--key", metavar="REF|-", help="env:NAME, file:PATH, - for standard input; may be repeated."),
    ] = None,
    from_env: Annotated[bool, typer.Option("--from-env", help="Use the provider's usual variable, which must be set.")] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the row: region, resource ...")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="MODEL", help="Of a server that lists none: one to try, with one word.")
    ] = None,
    no_check: NoCheck = False,
    dry_run: DryRun = False,
) -> None:
    """Add a provider to the config, after its keys were checked."""
    from aigw.config import load, schema
    from aigw.config.edit import ConfigFile

    where = locations(context)
    file = ConfigFile.read(where.config_path())
    config = load.parse(file.text(), str(file.path))
    if name in config.providers:
        output.fail(f"{output.safe(name)} is in the config already; another key: aigw providers keys add {output.safe(name)} -")
        raise typer.Exit(1)
    row = _row(name, kind, base_url)
    table: dict[str, Any] = {"kind": kind, "base_url": base_url, "settings": _settings(settings or [], row)}
    table = {one: value for one, value in table.items() if value}
    keys = _keys(name, row, key or [], from_env=from_env, base_url=base_url)
    wanted = Wanted(name, table, keys)
    if row is None:
        wanted = _discovered(wanted, base_url or "", config.upstream, model or "", forced=no_check)
    else:
        written = schema.Provider(**table)
        models: tuple[str, ...] = ()
        for number, given in enumerate(keys or (Given("", ""),), 1):
            if keys or row.local:
                label = f"{name}#{number}" if len(keys) > 1 else name
                listed = _approved(name, written, config.upstream, given, forced=no_check or dry_run, label=label, row=row)
                models = models or listed
        wanted = wanted._replace(models=models)
    _write(where, file, wanted, dry_run=dry_run)


def _approved(
    name: str, written: schema.Provider, upstream: schema.Upstream, given: Given, *, forced: bool, label: str, row: Row
) -> tuple[str, ...]:
    if row.local and not given.secret and not given.reference:  # whether it runs just now is not the question
        if forced:
            return ()
        from aigw.cli import probing

        verdict = probing.check_key(name, written, upstream, "")
        provider_keys.tell(label, verdict._replace(kind="unknown") if verdict.kind == "wrong_url" else verdict)
        return verdict.models
    return provider_keys.approve(name, written, upstream, given, forced=forced, label=label)


def _row(name: str, kind: str | None, base_url: str | None) -> Row | None:
    """The row that is meant; None for a server that must be looked at. Exits with 2 for what is neither."""
    from aigw.cli.suggest import unknown
    from aigw.providers import catalog

    if kind is None and name not in catalog.ids():
        if base_url:
            return None
        raise typer.BadParameter(
            f"{unknown('provider', name, catalog.ids())}; a server of your own needs --base-url", param_hint="NAME"
        )
    row = catalog.row(kind or name)
    if not row.served:
        raise typer.BadParameter(f"{row.name} speaks a protocol of its own, which this version does not serve yet")
    if row.category == "generic" and not base_url:
        raise typer.BadParameter("such a server needs a --base-url, as in http://127.0.0.1:8000/v1")
    return row


def _settings(texts: Iterable[str], row: Row | None) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise typer.BadParameter(f"{output.safe(text[:64])!r}: expected NAME=VALUE", param_hint="--set")
        found[name] = value
    for one in row.settings if row else ():
        if one.required and not (found.get(one.name) or one.default or os.environ.get(one.env)):
            raise typer.BadParameter(f"{row.name if row else ''} needs --set {one.name}=...", param_hint="--set")
    return found


def _keys(name: str, row: Row | None, texts: Sequence[str], *, from_env: bool, base_url: str | None) -> tuple[Given, ...]:
    """The keys as given; asked for on a terminal when the row needs one and there is none."""
    texts = list(texts)
    if from_env:
        variables = row.env if row else ()
        variable = next((one for one in variables if os.environ.get(one)), "")
        if not variable:
            tried = " nor ".join(f"${one}" for one in variables) or "no variable is known for it; use --key env:NAME"
            raise typer.BadParameter(f"{tried} is set" if variables else tried, param_hint="--from-env")
        texts.append(f"env:{variable}")
    if texts.count("-") > 1:
        raise typer.BadParameter("standard input has one key; add others with 'aigw providers keys add'", param_hint="--key")
    if not texts and row is not None and row.needs_key and not base_url:
        if not output.interactive():
            variable = f"env:{row.env[0]}" if row.env else "env:NAME"
            raise typer.BadParameter(f"{row.name} needs one: --key {variable}, --key - or --from-env", param_hint="--key")
        texts = ["-"]
    return tuple(provider_keys.read(text, name, "--key") for text in texts)


def _discovered(wanted: Wanted, base_url: str, upstream: schema.Upstream, model: str, *, forced: bool) -> Wanted:
    """*wanted* with what was found at *base_url*. Exits with 1 when that is nothing to write down."""
    if forced:
        output.warn("not looked at: taken for a server that speaks OpenAI's API at exactly that address")
        return wanted._replace(table={**wanted.table, "kind": "openai-compatible"})
    from aigw.cli import probing
    from aigw.config import schema

    secret = next((one.secret for one in wanted.keys if one.secret), "")
    with output.working(say(f"looking at {base_url} ...", f"正在查看 {base_url} ...")):
        found = probing.discover(base_url, secret, upstream, model=model)
    _say_found(wanted.name, found)
    verdict = found.verdict
    if not found.kind or (not verdict.usable and verdict.kind != "no_credit"):
        output.note(say("Nothing was changed. --no-check writes it all the same.", "未作任何更改。--no-check 可跳过检查。"))
        raise typer.Exit(1)
    table = {**found.table(), **({"models": [model]} if model and not verdict.models else {})}
    for number, given in enumerate(wanted.keys[1:], 2):
        provider_keys.approve(
            wanted.name, schema.Provider(**table), upstream, given, forced=False, label=f"{wanted.name}#{number}"
        )
    return wanted._replace(table=table, models=verdict.models, looked_at=True)


def _say_found(name: str, found: Found) -> None:
    provider_keys.tell(name, found.verdict)
    if not found.kind:
        return
    output.note(f"  speaks:  {' and '.join(found.dialects)}")
    output.note(f"  address: {found.base_url or found.anthropic_base_url}")
    models = found.verdict.models
    output.note(f"  models:  {listed(models, 5) if models else 'it lists none; name them with models = [...] or in routes'}")
    usage = {
        "stream": "reported in streams",
        "unasked": "reported in streams, which refuse to be asked",
        "none": "not reported",
    }
    if found.usage:
        output.note(f"  usage:   {usage[found.usage]}")
    for note in found.notes:
        output.note(f"  note:    {note}")


def _write(where: Locations, file: ConfigFile, wanted: Wanted, *, dry_run: bool) -> None:
    name = wanted.name
    with Kept(file) as kept:
        references = [kept.reference(given, name, dry_run=dry_run) for given in wanted.keys]
        file.set({**wanted.table, **({"keys": references} if references else {})}, "providers", name)
        file.check()
        names = _meaning(where, file, wanted)
        finish(where, file, f"Added {output.safe(name)}", dry_run=dry_run, kept=kept)
    _say_shadows(names, name)
    if dry_run:
        return
    _remember(where, names, wanted)
    if wanted.models and not wanted.looked_at:
        output.note(f"{name} lists {len(wanted.models)} models: {listed(wanted.models, 5)}")
    model = shlex.quote(next(iter(wanted.models), "MODEL"))
    output.note(
        say(f"Try it: aigw providers test {name} --model {model}", f"试一试：aigw providers test {name} --model {model}")
    )


def _meaning(where: Locations, file: ConfigFile, wanted: Wanted) -> Names:
    """What the config means with the new provider in it."""
    from aigw.cli import names
    from aigw.config import load

    config = load.parse(file.text(), str(file.path))
    found = names.understood(load.Loaded(config, (), "", file.path, exists=True), where.data_path())
    if wanted.models:
        found.table.set_live(wanted.name, wanted.models)
    return found


def _say_shadows(names: Names, name: str) -> None:
    lost = list(names.table.shadowed())
    for winner in dict.fromkeys(one.winner for one in lost if one.loser == name):
        claims = sorted({one.claim for one in lost if one.loser == name and one.winner == winner})
        output.note(
            f"{listed(claims, 5)}: still goes to {winner}, which stands before {name} in the config; "
            f"ask for {name}/MODEL, or make a route"
        )
    for loser in dict.fromkeys(one.loser for one in lost if one.winner == name):
        claims = sorted({one.claim for one in lost if one.winner == name and one.loser == loser})
        output.note(f"{listed(claims, 5)}: goes to {name} now, not to {loser}")


def _remember(where: Locations, names: Names, wanted: Wanted) -> None:
    """The models it lists, where a server and the other commands look for them."""
    from aigw.gateway import models_url
    from aigw.routing.live_models import LiveModels

    provider = names.providers[wanted.name]
    if wanted.models and provider.lists_models:
        LiveModels(where.data_path() / "models").save(wanted.name, models_url(provider), wanted.models, time.time())


def listed(names: Sequence[str], most: int) -> str:
    """The first *most* of *names*, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"
