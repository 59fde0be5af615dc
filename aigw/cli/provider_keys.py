"""`aigw providers keys`: our credentials at providers. A key is never printed; where it is kept is, and how it ends."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Self

import typer

from aigw.cli import output
from aigw.cli.commands import Noun
from aigw.cli.language import say
from aigw.cli.locations import Locations, locations
from aigw.cli.output import Column
from aigw.errors import ConfigError

if TYPE_CHECKING:
    from aigw.config import schema
    from aigw.config.edit import ConfigFile
    from aigw.providers.key_check import Verdict

WORDS = {
    "good": ("good", "有效"),
    "wrong_key": ("wrong key", "密钥无效"),
    "no_credit": ("no credit", "余额不足"),
    "wrong_url": ("wrong URL", "地址不对"),
    "limited": ("good, limited now", "有效，当前限流"),
    "unknown": ("could not check", "无法检查"),
}
"""Verdicts as people read them. Codes and JSON have the names."""

SHORTEST = 12
"""Characters of a key whose last four may be shown; of a shorter one they would be too much of it."""

app = typer.Typer(
    cls=Noun,
    rich_markup_mode=None,
    help="Provider keys: ours at the providers. List, add, rotate, remove. Without a command: list.",
    epilog="""\b
Examples:
  aigw providers keys
  aigw providers keys add openai env:OPENAI_API_KEY_2
""",
)


class Given(NamedTuple):
    """A key as it was given: a `reference` for the config ("" for one that gets a file of its own), and the secret, "" when
    it is not known on this machine."""

    reference: str
    secret: str

    def __repr__(self) -> str:
        return f"Given({self.reference!r})"


def read(text: str, name: str, option: str) -> Given:
    """The key that *text* stands for: `env:NAME`, `file:PATH`, `-` (standard input, hidden on a terminal), or itself, with a
    warning. Exits with 2 for what can be no key."""
    from aigw.config import secrets

    if text == "-":
        return Given("", _pasted(name, option))
    if text.startswith("file:"):
        path = Path(text.removeprefix("file:"))
        text = text if text.startswith(("file:/", "file:~")) else f"file:{path.absolute()}"
        return Given(text, secrets.resolve(text, key=option))
    if text.startswith("env:"):
        try:
            return Given(text, secrets.resolve(text, key=option))
        except ConfigError as error:
            if not text.removeprefix("env:").isidentifier():
                raise
            output.warn(f"{error.message}; the server will need it")
            return Given(text, "")
    output.warn(
        "a key on the command line stays in the shell's history and is seen in the list of processes; use - or env:NAME"
    )
    return Given("", _cleaned(text, option))


def _pasted(name: str, option: str) -> str:
    if sys.stdin.isatty():
        try:
            text = getpass.getpass(say(f"Key for {name} (not shown): ", f"{name} 的密钥（不显示）："), stream=sys.stderr)
        except EOFError:
            output.note("")
            raise typer.Exit(1) from None
    else:
        text = sys.stdin.read(70_000)
    return _cleaned(text, option)


def _cleaned(text: str, option: str) -> str:
    from aigw.config import secrets

    try:
        return secrets.clean(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def approve(
    name: str, table: schema.Provider, upstream: schema.Upstream, given: Given, *, forced: bool, label: str = ""
) -> tuple[str, ...]:
    """Check a key live before it is written. Exits with 1 for one that is wrong, unless *forced*. The models it may ask for."""
    from aigw.cli import probing

    shown = label or name
    if not given.secret and given.reference:
        output.note(f"{shown}: {say('not checked, its value is not known here', '未检查：此处读不到它的值')}")
        return ()
    _notice_foreign(name, table, given.secret)
    if forced:
        return ()
    with output.working(say(f"checking {shown} ...", f"正在检查 {shown} ...")):
        verdict = probing.check_key(name, table, upstream, given.secret)
    tell(shown, verdict)
    if not verdict.usable and verdict.kind != "no_credit":
        output.note(say("Nothing was changed. --no-check writes it all the same.", "未作任何更改。--no-check 可跳过检查。"))
        raise typer.Exit(1)
    return verdict.models


def tell(shown: str, verdict: Verdict) -> None:
    """One line on what came of a check."""
    text = f"{shown}: {say(*WORDS[verdict.kind])}{f' ({verdict.detail})' if verdict.detail else ''}"
    if verdict.kind in ("good", "limited"):
        output.note(text)
    elif verdict.kind in ("unknown", "no_credit"):
        output.warn(text)
    else:
        output.fail(text)


def _notice_foreign(name: str, table: schema.Provider, secret: str) -> None:
    from aigw.providers import catalog, key_check

    kind = table.kind or name
    if kind not in catalog.ids():
        return
    other = key_check.foreign(secret, catalog.row(kind))
    if not other or table.base_url:
        return
    whose = "consumer key of an aigw gateway" if other == "aigw" else f"key of {other}"
    output.warn(say(f"this looks like a {whose}, not like one of {name}", f"这看起来是 {other} 的密钥，而不是 {name} 的"))
    if output.interactive() and not output.confirm(say("Use it all the same?", "仍然使用吗？")):
        output.note(say("Nothing was changed.", "未作任何更改。"))
        raise typer.Exit(1)


class Kept:
    """Files that are made for keys while a config is changed: should that fail, they go again. Use it as a context manager."""

    def __init__(self, file: ConfigFile) -> None:
        self._directory = file.path.parent
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self._undo.close()

    def settle(self) -> None:
        """The config names them now: they stay."""
        self._undo.pop_all()

    def reference(self, given: Given, name: str, *, dry_run: bool) -> str:
        """What is written into the config for *given*."""
        from aigw.config import secrets

        if given.reference:
            return given.reference
        if dry_run:
            return f"file:{self._directory.absolute()}/keys/{name}"
        reference = secrets.keep(self._directory, name, given.secret)
        self._undo.callback(secrets.forget, self._directory, reference)
        return reference


def finish(where: Locations, file: ConfigFile, deed: str, *, dry_run: bool, kept: Kept | None = None) -> None:
    """Save, and say what became of it; or show what would be saved. Exits with 1 when the running server refuses it."""
    from aigw.cli import running

    if dry_run:
        file.check()
        output.data("\n".join(output.safe(row) for row in file.diff().split("\n")))
        output.note(say("Nothing was changed.", "未作任何更改。"))
        return
    file.save()
    if kept is not None:
        kept.settle()
    output.note(f"{deed} in {file.path}")
    if not running.tell(where):
        raise typer.Exit(1)


def known(where: Locations, name: str) -> tuple[ConfigFile, schema.Config]:
    """The config that has a provider *name*, to be edited, and as it reads now. Exits with 1 when it has none."""
    from aigw.cli.suggest import unknown
    from aigw.config import load
    from aigw.config.edit import ConfigFile

    file = ConfigFile.read(where.config_path())
    config = load.parse(file.text(), str(file.path))
    if name not in config.providers:
        output.fail(unknown("provider", name, config.providers))
        output.note("'aigw providers' lists those of the config; 'aigw providers add NAME' adds one.")
        raise typer.Exit(1)
    return file, config


def configured(context: typer.Context, incomplete: str) -> list[str]:
    """For the shell: the config's providers."""
    try:
        return [name for name in locations(context).load_config().providers if name.startswith(incomplete)]
    except ConfigError:
        return []


def facts(name: str, table: schema.Provider) -> list[dict[str, Any]]:
    """Each key of a provider: its label (as in records), its reference, how it ends, and whether it can be looked up here."""
    from aigw.config import secrets

    found = []
    for number, (label, reference, key) in enumerate(zip(table.labels(name), table.references, table.keys, strict=True), 1):
        problem, secret = "", ""
        try:
            secret = secrets.resolve(reference, key=f"providers.{name}.keys[{number - 1}]")
        except ConfigError as error:
            problem = error.message
        found.append(
            {
                "provider": name,
                "label": label,
                "reference": secrets.public(reference),
                "ends_in": secret[-4:] if len(secret) >= SHORTEST else "",
                "problem": problem,
                "account": (None if isinstance(key, str) else key.account) or table.account or "",
                **({} if isinstance(key, str) else _more(key)),
            }
        )
    return found


def shown(name: str, label: str) -> str:
    """A label in a list of several providers' keys: "openai#2" says whose it is, "team-b" does not."""
    return label if label.startswith(f"{name}#") else f"{name} {label}"


def _more(key: schema.ProviderKey) -> dict[str, Any]:
    """What a key that is written as a table has besides."""
    weight = key.weight if key.weight != 1 else None
    more = {"weight": weight, "rpm": key.rpm, "tpm": key.tpm, "models": list(key.models)}
    return {name: value for name, value in more.items() if value}


NameArgument = Annotated[str, typer.Argument(metavar="PROVIDER", help="As in the config.", autocompletion=configured)]
NoCheck = Annotated[bool, typer.Option("--no-check", help="Do not ask the provider whether the key is good.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the change of the config, and do nothing.")]


@app.command(
    "list",
    epilog="""\b
Examples:
  aigw providers keys
  aigw providers keys list openai --json
""",
)
def list_keys(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="[PROVIDER]", help="Of this one only.", autocompletion=configured)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="For spreadsheets.")] = False,
) -> None:
    """The keys of all providers: label, where each is kept, its last four characters. Never the keys."""
    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other")
    where = locations(context)
    config = where.load_config() if name is None else known(where, name)[1]
    rows = [fact for one, table in config.providers.items() if name in (None, one) for fact in facts(one, table)]
    if as_json:
        output.json(rows)
    elif as_csv:
        columns = ["provider", "label", "reference", "ends_in", "problem", "account"]
        output.csv(columns, [[row[one] for one in columns] for row in rows])
    elif not rows:
        output.note("No provider keys. Add one: aigw providers keys add PROVIDER -")
    else:
        output.table(
            [Column("key"), Column("kept in"), Column("ends in", rank=2), Column("problem", rank=1)],
            [[shown(row["provider"], row["label"]), row["reference"], row["ends_in"] or "-", row["problem"]] for row in rows],
        )


@app.command(
    epilog="""\b
Examples:
  aigw providers keys add openai -                       asks, or reads standard input
  aigw providers keys add openai env:OPENAI_API_KEY_2
  aigw providers keys add openai file:~/.keys/openai-2
  aigw providers keys add openai env:KEY_B --label team-b --rpm 500
"""
)
def add(
    context: typer.Context,
    name: NameArgument,
    key: Annotated[str, typer.Argument(metavar="REF|-", help="env:NAME, file:PATH, or - for standard input.")],
    label: Annotated[str | None, typer.Option("--label", metavar="LABEL", help="What to call it (default: openai#2).")] = None,
    weight: Annotated[int | None, typer.Option("--weight", min=1, help="Its share of the traffic (default 1).")] = None,
    rpm: Annotated[int | None, typer.Option("--rpm", min=1, help="Requests a minute it may be used for.")] = None,
    tpm: Annotated[int | None, typer.Option("--tpm", min=1, help="Tokens a minute.")] = None,
    models: Annotated[
        list[str] | None, typer.Option("--model", metavar="GLOB", help="Only for these models; may be repeated.")
    ] = None,
    account: Annotated[str | None, typer.Option("--account", help="Keys of one account share its limits.")] = None,
    no_check: NoCheck = False,
    dry_run: DryRun = False,
) -> None:
    """Add a key to a provider's pool, after it was checked. When one key is limited, the others go on."""
    where = locations(context)
    file, config = known(where, name)
    table = config.providers[name]
    given = read(key, name, "KEY")
    _refuse_double(name, table, given)
    written, label = label, label or f"{name}#{len(table.keys) + 1}"
    approve(name, table, config.upstream, given, forced=no_check or dry_run, label=label)
    with Kept(file) as kept:
        more = {"label": written, "weight": weight, "rpm": rpm, "tpm": tpm, "models": models, "account": account}
        more = {one: value for one, value in more.items() if value}
        reference = kept.reference(given, name, dry_run=dry_run)
        file.set([*_standing(file, name), {"key": reference, **more} if more else reference], "providers", name, "keys")
        finish(where, file, f"Added {label}", dry_run=dry_run, kept=kept)


@app.command(
    epilog="""\b
Examples:
  aigw providers keys rotate openai openai#1 --key -
  aigw providers keys rotate openai 2 --key env:OPENAI_API_KEY
"""
)
def rotate(
    context: typer.Context,
    name: NameArgument,
    label: Annotated[str, typer.Argument(metavar="LABEL", help="As 'keys list' shows it: openai#2, or 2.")],
    key: Annotated[str, typer.Option("--key", metavar="REF|-", help="The new key: env:NAME, file:PATH, or -.")] = "-",
    no_check: NoCheck = False,
    dry_run: DryRun = False,
) -> None:
    """Put a new key in the place of an old one. The new one is checked before the old one goes."""
    where = locations(context)
    file, config = known(where, name)
    table = config.providers[name]
    at = _position(name, table, label)
    given = read(key, name, "--key")
    _refuse_double(name, table, given)
    approve(name, table, config.upstream, given, forced=no_check or dry_run, label=table.labels(name)[at])
    old = table.references[at]
    with Kept(file) as kept:
        new = kept.reference(given, name, dry_run=dry_run)
        standing = _standing(file, name)
        standing[at] = {**standing[at], "key": new} if isinstance(standing[at], dict) else new
        file.set(standing, "providers", name, "keys")
        finish(where, file, f"Replaced {table.labels(name)[at]}", dry_run=dry_run, kept=kept)
    if not dry_run:
        forget(file, [old])
        output.note(f"Revoke the old key in the console of {name} now: aigw does not use it any more.")


@app.command(
    epilog="""\b
Examples:
  aigw providers keys remove openai openai#2
"""
)
def remove(
    context: typer.Context,
    name: NameArgument,
    label: Annotated[str, typer.Argument(metavar="LABEL", help="As 'keys list' shows it: openai#2, or 2.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Take a key out of the pool. The last one stays where the provider needs one: remove the provider instead."""
    where = locations(context)
    file, config = known(where, name)
    table = config.providers[name]
    at = _position(name, table, label)
    if len(table.keys) == 1 and _needs_key(name, table):
        output.fail(f"{name}#1 is its only key, and it needs one; rotate it, or: aigw providers remove {output.safe(name)}")
        raise typer.Exit(1)
    asks = not yes and not dry_run and output.interactive()
    if asks and not output.confirm(f"Remove {table.labels(name)[at]}?"):
        output.note(say("Nothing was changed.", "未作任何更改。"))
        raise typer.Exit(1)
    left = [one for index, one in enumerate(_standing(file, name)) if index != at]
    if left:
        file.set(left, "providers", name, "keys")
    else:
        file.remove("providers", name, "keys")
    finish(where, file, f"Removed {table.labels(name)[at]}", dry_run=dry_run)
    if not dry_run:
        forget(file, [table.references[at]])
        if at < len(left) and table.labels(name)[at + 1] == f"{name}#{at + 2}":
            output.note(f"The keys behind it moved up: {name}#{at + 2} is {name}#{at + 1} now.")


def forget(file: ConfigFile, references: Sequence[str]) -> None:
    """Delete the files that we made for keys which the config names no more."""
    from aigw.config import load, secrets

    config = load.parse(file.text(), str(file.path))
    used = {one for table in config.providers.values() for one in table.references}
    used |= {one.key for one in config.consumers.values()}
    for reference in references:
        if reference not in used and secrets.forget(file.path.parent, reference):
            output.note(f"Deleted {secrets.public(reference).removeprefix('file:')}")


def _refuse_double(name: str, table: schema.Provider, given: Given) -> None:
    from aigw.config import secrets

    for label, reference in zip(table.labels(name), table.references, strict=True):
        try:
            same = reference == given.reference or secrets.resolve(reference, key="") == given.secret
        except ConfigError:
            same = False
        if same:
            output.fail(f"that is {label} already")
            raise typer.Exit(1)


def _standing(file: ConfigFile, name: str) -> list[Any]:
    """The provider's keys as the file has them: strings, and tables."""
    return list(file.get("providers", name, "keys") or ())


def _position(name: str, table: schema.Provider, label: str) -> int:
    labels = table.labels(name)
    if label in labels:
        return labels.index(label)
    number = label.removeprefix(name).removeprefix("#")
    if number.isascii() and number.isdigit() and 1 <= int(number) <= len(table.keys):
        return int(number) - 1
    have = ", ".join(labels) or "none"
    output.fail(f"{name} has no key {output.safe(label)!r}; it has {have}")
    raise typer.Exit(1)


def _needs_key(name: str, table: schema.Provider) -> bool:
    from aigw.providers import catalog

    kind = table.kind or name
    return kind in catalog.ids() and catalog.row(kind).needs_key and not table.base_url
