"""`aigw plugins`: what speaks at the hooks of a request; one of your own, from its first line to its trust."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aigw.cli import output
from aigw.cli.commands import Noun
from aigw.cli.locations import Locations, locations
from aigw.cli.output import Column
from aigw.errors import ConfigError

if TYPE_CHECKING:
    from aigw.hooks import Plugin
    from aigw.plugins.load import Common, Places, Source

app = typer.Typer(
    cls=Noun,
    rich_markup_mode=None,
    help="Plugins: what edits, answers, refuses or watches requests ([plugins.NAME] of the config). Without a command: list.",
    epilog="""\b
Examples:
  aigw plugins
  aigw plugins show mask
  aigw plugins new tidy
""",
)

STARTER = '''"""{name}: what it is for, in a line."""

import msgspec

from aigw.canonical import Text, TextDelta
from aigw.hooks import Plugin


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """What may stand in [plugins.{name}], with its defaults."""

    greeting: str = "Be brief."


class {cls}(Plugin):
    name = "{name}"
    phase = "prompt"  # access, prompt, mask, guard, cache, record: when it sees a request
    reads = frozenset({{"request", "stream"}})  # leave out what you do not need: then bytes pass untouched
    fail = "open"  # when it fails: "open" goes on without it, "closed" ends the request
    Config = Config

    async def request(self, view):
        """Edit what is asked, in words that are the same for every API. Return it when you have changed it."""
        for message in view.request.messages:
            if message.role == "system" and message.parts and isinstance(message.parts[0], Text):
                message.parts[0].text = f"{{self.config.greeting}} {{message.parts[0].text}}"
                return view.request
        return None  # nothing changed: the caller's own bytes go out

    def event(self, view, event):
        """A piece of the answer. Return events to send in its place, or None for it as it is. Must not wait."""
        if isinstance(event, TextDelta):
            event.text = event.text.replace("\\u2014", "-")
        return None
'''


# ---- list, show


@app.command("list", epilog="\b\nExamples:\n  aigw plugins\n  aigw plugins list --available\n  aigw plugins --json\n")
def list_plugins(
    context: typer.Context,
    available: Annotated[bool, typer.Option("--available", help="What could be turned on, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="For spreadsheets.")] = False,
) -> None:
    """Every [plugins.NAME], in the order in which a request meets them, with whose code it is and what it reads."""
    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other")
    where = locations(context)
    facts = _configured(where)
    if available:
        facts += _available(where, {fact["kind"] for fact in facts})
    columns = ["name", "kind", "phase", "reads", "fail", "state", "source"]
    if as_json:
        output.json(facts)
    elif as_csv:
        output.csv(columns, [[_cell(fact[name]) for name in columns] for fact in facts])
    elif facts:
        output.table(
            [Column(name) for name in columns], [[output.safe(_cell(fact[name])) for name in columns] for fact in facts]
        )
    else:
        output.note(
            "No plugin is on. 'aigw plugins list --available' lists what there is; 'aigw plugins new NAME' begins your own."
        )


@app.command(epilog="\b\nExamples:\n  aigw plugins show prompt_decorator\n  aigw plugins show mask --json\n")
def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A table of the config, or a plugin that could be turned on.")],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """What one is for, what it reads, and its settings: as they are, and their defaults."""
    where = locations(context)
    table, common, source = _one(where, name)
    plugin = source.plugin
    facts = _fact(name, common, source, configured=table is not None)
    facts["about"] = (plugin.__doc__ or "").strip()
    facts["hooks"] = sorted(_hooks(plugin))
    facts["settings"] = _settings(plugin, table or {})
    if as_json:
        output.json(facts)
        return
    output.note(output.safe(facts["about"]))
    for label in ("kind", "phase", "reads", "fail", "state", "source", "hooks"):
        output.data(f"{label:<10}{output.safe(_cell(facts[label]))}")
    if facts["settings"]:
        output.data("")
        output.table(
            [Column("setting"), Column("type"), Column("value"), Column("default")],
            [[output.safe(str(one[part])) for part in ("name", "type", "value", "default")] for one in facts["settings"]],
        )


# ---- your own


@app.command(epilog="\b\nExamples:\n  aigw plugins new tidy\n")
def new(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Letters, digits and _; the file becomes NAME.py in the plugin folder.")],
) -> None:
    """Write a plugin to begin with: it works, and says in comments what each line is for."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,63}", name):
        raise typer.BadParameter("expected letters, digits and _, beginning with a letter", param_hint="NAME")
    path = _places(locations(context)).folder / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    cls = "".join(word.capitalize() for word in name.split("_")) or "Mine"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(STARTER.format(name=name, cls=cls))
    except FileExistsError:
        output.fail(f"{path} is there already.")
        raise typer.Exit(1) from None
    path.chmod(0o600)
    output.data(str(path))
    output.note(
        f"Next: edit it; try it: aigw plugins test {name}\n"
        f"then:  aigw plugins trust {name}, and write [plugins.{name}] into the config."
    )


@app.command(
    epilog="\b\nExamples:\n  aigw plugins trust tidy\n  aigw plugins trust ./tidy.py\n  aigw plugins trust --remove tidy.py\n"
)
def trust(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A file, or the name of one in the plugin folder.")],
    remove: Annotated[
        bool, typer.Option("--remove", help="Trust it no longer: by name, or the beginning of its hash.")
    ] = False,
) -> None:
    """Let a single-file plugin run: exactly this content. It stands next to every key, so read it first; once it changes it
    has to be trusted again."""
    from aigw.plugins import trust as trusted

    where = locations(context)
    data_dir = where.data_path()
    if remove:
        gone = trusted.remove(data_dir, file)
        if not gone:
            output.fail(f"Nothing called {output.safe(file)!r} is trusted.")
            raise typer.Exit(1)
        output.note(
            f"No longer trusted: {', '.join(digest[:12] for digest in gone)}. A running server keeps it until it is reloaded."
        )
        return
    path = _path(where, file)
    try:
        content = path.read_bytes()
    except OSError as error:
        output.fail(f"{output.safe(str(path))} cannot be read: {error.strerror}")
        raise typer.Exit(1) from None
    if len(content) > trusted.LARGEST:
        output.fail(f"{output.safe(str(path))} is larger than {trusted.LARGEST // 1024} KiB; is this a plugin?")
        raise typer.Exit(1)
    digest = trusted.add(data_dir, content, path.name)
    output.note(f"{output.safe(str(path))} may run now: {digest}")


@app.command(
    "test",
    epilog="""\b
Examples:
  aigw plugins test tidy
  aigw plugins test tidy --prompt "My card is 4111 1111 1111 1111"
  aigw plugins test tidy --request request.json --as messages --stream
""",
)
def try_out(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A table of the config, or a plugin that could be turned on.")],
    prompt: Annotated[str, typer.Option(help="What is asked.")] = "Say hello.",
    request: Annotated[
        Path | None, typer.Option("--request", "-f", help="A whole request in a file, as a caller sends it.")
    ] = None,
    spoken: Annotated[
        str, typer.Option("--as", metavar="OPERATION", help="chat, messages, responses, generate, embeddings.")
    ] = "chat",
    stream: Annotated[bool, typer.Option("--stream", help="Ask for a stream.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Run a plugin over one exchange, alone, with the demo provider behind it: what a provider would get, what the caller gets,
    how long it took. Its file need not be trusted for that. Exit code 1 when it failed or refused."""
    from aigw.cli.plugin_trial import OPERATIONS, trial

    if spoken not in OPERATIONS:
        raise typer.BadParameter(f"expected one of {', '.join(OPERATIONS)}", param_hint="--as")
    where = locations(context)
    table, _, source = _one(where, name, watch=True)
    body = _body(request, spoken, prompt)
    settings: dict[str, Any] = {
        key: value
        for key, value in (table or {}).items()
        if key not in ("routes", "models", "consumers", "groups", "tags", "enabled")
    }
    if table is None and source.said.startswith("file"):
        settings["file"] = str(_path(where, name))
    found = trial(name, settings, spoken, body, stream=stream, config_folder=where.config_path().absolute().parent)
    if as_json:
        output.json(found.facts())
    else:
        for title, text in (("the provider got", found.sent), ("the caller got", found.got)):
            output.note(f"{title}:")
            output.data(output.readable(text) if text else "(nothing)")
        refused = f" {found.error}" if found.error else ""
        output.note(f"HTTP {found.status}{refused}; {found.calls} hooks, {found.micros:.0f} us of its code")
        for line in found.log:
            output.warn(output.safe(line))
    if found.error or found.errors:
        raise typer.Exit(1)


# ---- what is known


def _places(where: Locations, *, watch: bool = False) -> Places:
    from aigw.plugins.load import FOLDER, Places

    config = where.config_path().absolute()
    return Places(config.parent / FOLDER, where.data_path(), watch=watch)


def _path(where: Locations, file: str) -> Path:
    """The file that is meant: as it is written, or in the plugin folder."""
    path = Path(file).expanduser()
    folder = _places(where).folder
    for one in (path, folder / path, folder / f"{file}.py"):
        if one.is_file():
            return one
    return path


def _tables(where: Locations) -> dict[str, dict[str, Any]]:
    from aigw.plugins.load import tables

    return tables(where.load_config().plugins)


def _one(where: Locations, name: str, *, watch: bool = False) -> tuple[dict[str, Any] | None, Common, Source]:
    """Its table (None: it has none), what that says, and its class. Raises ConfigError."""
    from aigw.plugins.load import Common, find, from_file, split

    table = _tables(where).get(name)
    places = _places(where, watch=watch)
    if table is not None:
        common, _ = split(name, table)
        return table, common, find(name, common, places)
    path = _path(where, name)
    if path.suffix == ".py" and path.is_file():
        return None, Common(), from_file(name, str(path.absolute()), places)
    return None, Common(), find(name, Common(), places)


def _configured(where: Locations) -> list[dict[str, Any]]:
    from aigw.hooks import PHASES
    from aigw.plugins.load import find, split

    places, found = _places(where), []
    for number, (name, table) in enumerate(_tables(where).items()):
        try:
            common, _ = split(name, table)
            source = find(name, common, places)
        except ConfigError as error:
            found.append(((len(PHASES), 0, number), _missing(name, table, error)))
            continue
        place = (PHASES.index(source.plugin.phase), common.order, number)
        found.append((place, _fact(name, common, source, configured=True)))
    return [fact for _, fact in sorted(found, key=lambda pair: pair[0])]


def _available(where: Locations, known: set[str]) -> list[dict[str, Any]]:
    """Built-in ones, those that packages offer, and files in the folder, that no table turns on."""
    from aigw.plugins import BUILT_IN
    from aigw.plugins.load import Common, find, offered

    places = _places(where)
    files = [path.stem for path in sorted(places.folder.glob("*.py"))] if places.folder.is_dir() else []
    found = []
    for name in dict.fromkeys([*BUILT_IN, *sorted(offered()), *files]):
        if name in known:
            continue
        try:
            found.append(_fact(name, Common(), find(name, Common(), places), configured=False))
        except ConfigError as error:
            found.append(_missing(name, {}, error))
    return found


def _fact(name: str, common: Common, source: Source, *, configured: bool) -> dict[str, Any]:
    plugin = source.plugin
    return {
        "name": name,
        "kind": common.kind or name,
        "phase": plugin.phase,
        "reads": sorted(plugin.reads),
        "fail": common.fail or plugin.fail,
        "state": ("on" if common.enabled else "off") if configured else "available",
        "source": source.said,
    }


def _missing(name: str, table: Mapping[str, Any], error: ConfigError) -> dict[str, Any]:
    kind = str(table.get("kind") or name)
    return {"name": name, "kind": kind, "phase": "", "reads": [], "fail": "", "state": "wrong", "source": error.message}


def _cell(value: Any) -> str:
    return ", ".join(map(str, value)) or "-" if isinstance(value, (list, tuple)) else str(value) or "-"


def _hooks(plugin: type[Plugin]) -> list[str]:
    from aigw.hooks import Plugin as Base
    from aigw.plugins.entry import HOOKS

    return [hook for hook in HOOKS if getattr(plugin, hook) is not getattr(Base, hook)]


def _settings(plugin: type[Plugin], table: Mapping[str, Any]) -> list[dict[str, Any]]:
    import msgspec

    from aigw.config.load import without_secrets

    found = []
    for field in msgspec.structs.fields(plugin.Config):
        default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
        default = "required" if default is msgspec.NODEFAULT else msgspec.to_builtins(default)
        value = without_secrets(table.get(field.encode_name, default), field.encode_name)
        kind = str(field.type).replace("typing.", "") if not isinstance(field.type, type) else field.type.__name__
        found.append({"name": field.encode_name, "type": kind, "value": value, "default": default})
    return found


def _body(request: Path | None, spoken: str, prompt: str) -> bytes:
    from aigw.cli.plugin_trial import asking

    if request is None:
        return asking(spoken, prompt)
    try:
        body = request.read_bytes()
        json.loads(body)
    except OSError as error:
        raise typer.BadParameter(f"{request} cannot be read: {error.strerror}", param_hint="--request") from None
    except ValueError:
        raise typer.BadParameter(f"{request} is not JSON", param_hint="--request") from None
    return body
