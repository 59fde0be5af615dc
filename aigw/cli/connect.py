"""`aigw connect`: what to enter where, so that an application uses the gateway."""

from __future__ import annotations

import re
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from aigw.cli import output
from aigw.cli.locations import Locations, locations
from aigw.cli.output import Column
from aigw.cli.suggest import unknown

if TYPE_CHECKING:
    from aigw.config.schema import Config

FILE = Path(__file__).with_name("apps.toml")

HOST = "host.docker.internal"
"""What a container calls the machine that it runs on (Docker Desktop; elsewhere by an extra host)."""

_PLAIN = re.compile(r"[\w.:/@+-]+")
"""A model's name that means nothing else in a shell, a program, JSON or YAML. Lists of models come from outside."""

EXAMPLES = """\b
Examples:
  aigw connect                             the applications that are known
  aigw connect open-webui                  what to enter in Open WebUI
  aigw connect cline --key cline           the same, with a new key for it
  aigw connect curl -m gpt-6-luna | sh     some can be run as they are
"""

app = typer.Typer(rich_markup_mode=None)


class App(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of apps.toml, which says what its fields mean."""

    title: str
    kind: str
    api: str = "chat"
    container: bool = False
    where: str = ""
    fields: tuple[tuple[str, str], ...] = ()
    text: str = ""
    note: str = ""
    unsure: str = ""
    source: str


def apps() -> dict[str, App]:
    """Every application by its name, in the file's order."""
    return msgspec.convert(tomllib.loads(FILE.read_text(encoding="utf-8")), dict[str, App])


@app.command(epilog=EXAMPLES)
def connect(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="[APP]", help="The application; without one: all that are known.")
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", metavar="CONSUMER", help="Make a key for this consumer, and put it in.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", metavar="MODEL", help="The model to put in.")] = None,
    url: Annotated[str | None, typer.Option(metavar="URL", help="The gateway's address as the application reaches it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="The list, for spreadsheets.")] = False,
) -> None:
    """What to enter in an application so that it uses the gateway: address, key, model, and where."""
    known = apps()
    if as_csv and (as_json or name is not None):
        raise typer.BadParameter("--csv is for the list, and excludes --json")
    if name is None:
        if key is not None:
            raise typer.BadParameter("--key needs an application", param_hint="--key")
        _list(known, as_json=as_json, as_csv=as_csv)
        return
    if name not in known:
        raise typer.BadParameter(f"{unknown('application', name, known)}; 'aigw connect' lists them", param_hint="APP")
    if model is not None and not _PLAIN.fullmatch(model):
        raise typer.BadParameter("expected letters, digits and . : / @ + - _", param_hint="--model")
    where = locations(context)
    chosen = known[name]
    config = where.load_config()
    root = _root(where, config, chosen, url)
    model = model or _model(where, chosen.api)
    secret = _made_key(where, config, key) if key is not None else "YOUR_KEY"
    values = {"v1": f"{root}/v1", "root": root, "key": secret, "model": model}
    if as_json:
        output.json(_facts(name, chosen, values))
    else:
        _show(chosen, values)
        if key is None:
            output.note(f"YOUR_KEY is a consumer key: aigw connect {name} --key NAME makes one and puts it in.")
        if model == "MODEL":
            output.note("MODEL is a name that the gateway can be asked for; -m puts it in.")


def _list(known: dict[str, App], *, as_json: bool, as_csv: bool) -> None:
    rows = [(name, app.title, app.kind) for name, app in known.items()]
    if as_json:
        output.json([dict(zip(("app", "title", "kind"), row, strict=True)) for row in rows])
    elif as_csv:
        output.csv(("app", "title", "kind"), rows)
    else:
        output.table([Column("app"), Column("name", rank=1), Column("kind", rank=2)], rows)
        output.note(
            "What to enter in one of them: aigw connect APP. Coding agents start with: aigw run claude|codex|opencode|qwen."
        )


def _root(where: Locations, config: Config, chosen: App, url: str | None) -> str:
    """The gateway's address without /v1, as *chosen* reaches it."""
    from urllib.parse import urlsplit

    from aigw.cli.reach import CallFailed, base, here

    if url is not None:
        return base(url)
    try:
        address = here(where, config)
    except CallFailed as error:
        output.fail(str(error))
        raise typer.Exit(1) from None
    if not chosen.container:
        return address
    parts = urlsplit(address)
    return f"{parts.scheme}://{HOST}:{parts.port}" if parts.port else f"{parts.scheme}://{HOST}"


def _model(where: Locations, api: str) -> str:
    from aigw.cli import names
    from aigw.cli.offers import Offers

    known = names.read(where)
    choice = Offers(known.providers, known.table).choice(api)
    return choice if _PLAIN.fullmatch(choice) else "MODEL"


def _made_key(where: Locations, config: Config, consumer: str) -> str:
    import asyncio

    from aigw.cli.keys import issue, unreserved, valid_name

    name = unreserved(valid_name(consumer, "--key"), "--key")

    async def make() -> str:
        async with where.store(config) as store:
            made = await issue(store, name, time.time())
        what = f"Created {name} with its first key" if made.before is None else f"Added a key to {name}"
        output.note(f"{what}, {made.stored.id}. It is shown this once.")
        return made.key

    return asyncio.run(make())


def _facts(name: str, chosen: App, values: dict[str, str]) -> dict[str, Any]:
    return {
        "app": name,
        "title": chosen.title,
        "where": chosen.where,
        "fields": {label: _filled(value, values) for label, value in chosen.fields},
        "text": _filled(chosen.text, values).strip("\n"),
        "url": values["v1"] if chosen.api == "chat" else values["root"],
        "model": values["model"],
        "container": chosen.container,
        "notes": _notes(chosen, values),
        "source": chosen.source,
    }


def _show(chosen: App, values: dict[str, str]) -> None:
    """What to enter on standard output; where, and what to know about it, on standard error: `connect curl | sh` works."""
    if chosen.where:
        output.note(f"{chosen.title}: {chosen.where}")
    wide = max((output.width(label) for label, _ in chosen.fields), default=0)
    for label, value in chosen.fields:
        output.data(output.safe(f"  {label + ':':<{wide + 1}} {_filled(value, values)}"))
    if chosen.fields and chosen.text:
        output.data("")
    if chosen.text:
        output.data(output.readable(_filled(chosen.text, values).strip("\n")))
    for note in _notes(chosen, values):
        output.note(note)
    output.note(f"Source: {chosen.source}")


def _notes(chosen: App, values: dict[str, str]) -> list[str]:
    notes = [text for text in (chosen.note, chosen.unsure and f"Not sure: {chosen.unsure}") if text]
    if HOST in values["root"]:
        notes.append(
            f"In a container, 127.0.0.1 is the container itself; {HOST} is this machine. On Linux it is there with "
            f"'--add-host={HOST}:host-gateway', and the gateway must listen beyond 127.0.0.1: [server] host = \"0.0.0.0\" "
            "(behind a firewall), or the container runs with '--network=host' and 127.0.0.1."
        )
    return notes


def _filled(text: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return text
