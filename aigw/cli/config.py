"""`aigw config`: the config file. Where it is, what is wrong with it, what it means, and a safe way to edit it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aigw.cli import config_history, output
from aigw.cli.locations import Locations, locations
from aigw.cli.output import Column
from aigw.errors import ConfigError

if TYPE_CHECKING:
    from aigw.cli.names import Names
    from aigw.config.load import Loaded
    from aigw.config.schema import RouteTarget
    from aigw.routing.table import Shadowed
    from aigw.storage.published import Published

EDITORS = ("editor", "nano", "vim", "vi")
"""Tried in this order where neither $VISUAL nor $EDITOR is set; the first is Debian's name for the user's choice."""

EMPTY = """\
# The config of aigw. Save, and it is checked; what cannot be served is not taken over.

# [providers.openai]                  # a name of the catalog, or your own with a base_url
# keys = ["env:OPENAI_API_KEY"]       # or "file:~/.keys/openai"; several are a pool
"""
"""What an editor shows where there is no config yet."""

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="The config file: check, show, edit and apply it.")


@app.callback(
    epilog="""\b
Examples:
  aigw config path
  aigw config check
  aigw config edit
"""
)
def config() -> None:
    """The config file: check, show, edit and apply it."""


# ---- path


@app.command(
    epilog="""\b
Examples:
  aigw config path
  cp "$(aigw config path)" backup.toml
"""
)
def path(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Print where the config file is (standard output), and why there (standard error)."""
    where = locations(context)
    place = where.config_path()
    source = "--config" if where.config else "$AIGW_CONFIG" if os.environ.get("AIGW_CONFIG") else "the default place"
    if as_json:
        output.json({"path": str(place), "source": source, "exists": place.exists()})
        return
    output.data(output.safe(str(place)))
    output.note(f"from {source}" if source != "the default place" else source)
    if not place.exists():
        output.note("There is no such file yet: 'aigw init' or 'aigw config edit' makes it.")


# ---- check


@app.command(
    epilog="""\b
Examples:
  aigw config check
  aigw config check deploy/aigw.toml          in CI, without any secret
  aigw config check --secrets --json
"""
)
def check(
    context: typer.Context,
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Instead of --config.", show_default=False)] = None,
    need_secrets: Annotated[
        bool, typer.Option("--secrets", help="A secret that cannot be looked up here is an error, not a warning.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Say what is wrong with it, or what it means.

    It is read as `serve` reads it; secrets are looked up and none is shown. Exit code 0 when it can be served, 2 when not:
    every problem is listed with file, line and key. Nothing is sent anywhere.
    """
    where = locations(context)
    if file is not None:
        where.config = str(file)
    try:
        names = _names(where, need_secrets=need_secrets)
    except ConfigError as error:
        problems = getattr(error, "problems", (error,))
        if as_json:
            output.json({"ok": False, "file": str(where.config_path()), "problems": [_problem(one) for one in problems]})
        else:
            for problem in problems:
                output.fail(str(problem))
        raise typer.Exit(2) from None
    found = _meaning(names)
    if as_json:
        output.json(found)
    else:
        _say(found)


def _names(where: Locations, *, need_secrets: bool) -> Names:
    from aigw.cli import names
    from aigw.config.load import ConfigErrors

    found = names.read(where)
    if need_secrets and found.missing:
        raise ConfigErrors(sorted(found.missing, key=lambda problem: problem.line or 0))
    return found


def _meaning(names: Names) -> dict[str, Any]:
    """What the config means, as plain values."""
    loaded = names.loaded
    return {
        "ok": True,
        "file": str(loaded.path),
        "exists": loaded.exists,
        "hash": loaded.hash,
        "warnings": list(loaded.warnings),
        "missing": [_problem(one) for one in names.missing],
        "providers": _providers(loaded, {name: provider.kind for name, provider in names.providers.items()}),
        "routes": [
            {
                "name": name,
                "targets": [{"target": _target(target), "weight": target.weight} for target in route.targets],
                "fallback": [_target(target) for target in route.fallback],
            }
            for name, route in loaded.config.routes.items()
        ],
        "shadowed": _grouped(names.table.shadowed()),
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
    missing = found["missing"]
    for one in missing:
        output.warn(str(ConfigError(one["message"], file=one["file"], line=one["line"], key=one["key"])))
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
        return
    output.note(f"{found['file']} is fine: {_count(len(providers), 'provider')}, {_count(len(routes), 'route')}")
    if missing:
        output.note(f"{_count(len(missing), 'secret')} not found here; a server needs them (--secrets makes that an error)")


def _weighted(targets: list[dict[str, Any]]) -> str:
    total = sum(target["weight"] for target in targets)
    if len(targets) == 1 or not total:
        return ", ".join(target["target"] for target in targets)
    return ", ".join(f"{target['target']} {100 * target['weight'] / total:.3g}%" for target in targets)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


# ---- show


@app.command(
    epilog="""\b
Examples:
  aigw config show
  aigw config show --json | jq .config.server
"""
)
def show(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="For programs; with everything that is unset.")] = False,
) -> None:
    """The config as it holds: what is written and every default. References to secrets are shown, secrets are not."""
    from aigw.config.edit import ConfigFile
    from aigw.config.load import load_with_notes, public

    loaded = load_with_notes(locations(context).config_path())
    written = ConfigFile.read(loaded.path).get() if loaded.exists else {}
    values = public(loaded.config)
    if as_json:
        defaults = [".".join(key) for key in _defaults(values, written)]
        output.json(
            {"file": str(loaded.path), "exists": loaded.exists, "hash": loaded.hash, "config": values, "defaults": defaults}
        )
        return
    if not loaded.exists:
        output.note(f"no config file at {loaded.path}: all of this is defaults")
    lines = list(_toml(values, written))
    output.data("\n".join(map(output.safe, "\n".join(lines).strip().split("\n"))))


def _defaults(values: Mapping[str, Any], written: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The keys of tables that nobody wrote."""
    for table, found in values.items():
        named = found.items() if table in NAMED else [("", found)]
        for name, fields in named:
            there = written.get(table, {}).get(name, {}) if name else written.get(table, {})
            yield from ((table, *([name] if name else []), field) for field in fields if field not in there)


NAMED = ("providers", "routes", "consumers", "prices")
"""Tables whose keys are names that the operator gives."""


def _toml(values: Mapping[str, Any], written: Mapping[str, Any]) -> Iterator[str]:
    from aigw.config.edit import rendered, spelled

    unwritten = set(_defaults(values, written))
    for table, found in values.items():
        for name, fields in found.items() if table in NAMED else [("", found)]:
            keys = (table, name) if name else (table,)
            rows = []
            for field, value in fields.items():
                default = (*keys, field) in unwritten
                if value is None or (default and not value and not isinstance(value, bool | int | float)):
                    continue  # unset, and nothing to see
                rows.append(f"{field} = {rendered(_set(value), len(field) + 3)}{'  # default' if default else ''}")
            if rows or name:
                yield "\n".join(["", f"[{'.'.join(map(spelled, keys))}]", *rows])


def _set(value: Any) -> Any:
    """*value* without what is unset or empty in it; TOML has no null."""
    if isinstance(value, dict):
        return {name: _set(inner) for name, inner in value.items() if inner is not None and inner != {}}
    return [_set(inner) for inner in value] if isinstance(value, list | tuple) else value


# ---- edit


@app.command(
    epilog="""\b
Examples:
  aigw config edit
  EDITOR="code --wait" aigw config edit
"""
)
def edit(context: typer.Context) -> None:
    """Open it in $VISUAL or $EDITOR. Only what can be served replaces it; a running server takes it over at once.

    You edit a copy. When something is wrong with it, every problem is shown with its line, and you may go back to the editor or
    drop the change.
    """
    from aigw.cli import running
    from aigw.config.load import read

    where = locations(context)
    place = where.config_path()
    editor = _editor()
    try:
        old: bytes | None = read(place)[0]
    except FileNotFoundError:
        old = None
    shown = EMPTY.encode() if old is None else old
    folder = Path(os.path.realpath(place)).parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    private = Path(tempfile.mkdtemp(prefix=".edit-", dir=folder))  # 0700, beside the config: it may hold secrets
    copy = private / "config.toml"
    copy.write_bytes(shown)
    copy.chmod(0o600)
    try:
        saved = _edited(where, editor, copy, shown, old)
    except (ConfigError, OSError, KeyboardInterrupt):
        output.note(f"Your text is kept in {copy}")
        raise
    except BaseException:
        shutil.rmtree(private, ignore_errors=True)
        raise
    shutil.rmtree(private, ignore_errors=True)
    if saved and not running.tell(where, _values_of(old, place)):
        raise typer.Exit(1)


def _edited(where: Locations, editor: list[str], copy: Path, shown: bytes, old: bytes | None) -> bool:
    """Edit until it is saved (True), or left as it was. Exits when the editor fails (1) and when the change is dropped (2)."""
    from aigw.config.edit import replace

    place = where.config_path()
    while True:
        try:
            code = subprocess.call([*editor, str(copy)])  # noqa: S603 - the user's own editor
        except OSError as error:
            output.fail(f"{editor[0]}: {error.strerror}; set $EDITOR to the editor you like")
            raise typer.Exit(1) from None
        if code:
            output.fail(f"{editor[0]} ended with exit code {code}; nothing was changed")
            raise typer.Exit(1)
        content = copy.read_bytes()
        if content == shown:
            output.note("Nothing was changed.")
            return False
        problems = _problems_of(content, where)
        if not problems:
            replace(place, old, content)
            output.note(f"Saved {place}")
            return True
        for problem in problems:
            output.fail(str(problem))
        if not output.interactive() or not output.confirm("Go back to the editor? (no drops the change)", otherwise=True):
            output.note(f"Dropped: {place} is as it was.")
            raise typer.Exit(2)


def _problems_of(content: bytes, where: Locations) -> list[ConfigError]:
    """What is wrong with the text of an editor; warnings are said."""
    from aigw.cli import names
    from aigw.config.load import decode, load_text

    place = where.config_path()
    try:
        found = names.understood(load_text(decode(content, str(place)), place), where.data_path())
    except ConfigError as error:
        return list(getattr(error, "problems", (error,)))
    for warning in (*found.loaded.warnings, *map(str, found.missing)):
        output.warn(warning)
    return []


def _values_of(content: bytes | None, place: Path) -> dict[str, Any]:
    """The plain values of the text that was there; none of one that was broken."""
    from aigw.config.load import decode, tables

    try:
        return tables(decode(content or b"", str(place)), str(place))
    except ConfigError:
        return {}


def _editor() -> list[str]:
    """The user's editor as a command line. Exits with 1 when there is none."""
    for variable in ("VISUAL", "EDITOR"):
        text = os.environ.get(variable, "").strip()
        if text:
            try:
                return shlex.split(text)
            except ValueError:
                output.fail(f"${variable} cannot be read as a command: a quote is not closed")
                raise typer.Exit(1) from None
    for name in EDITORS:
        if output.interactive() and shutil.which(name):
            return [name]
    output.fail("no editor: set $EDITOR to the one you like" if output.interactive() else "no terminal, and $EDITOR is not set")
    raise typer.Exit(1)


# ---- apply


@app.command(
    epilog="""\b
Examples:
  aigw config apply                    this node's config, for all nodes
  aigw config apply fleet.toml --dry-run
  aigw config apply --version 3        an earlier one again
  aigw config versions
"""
)
def apply(
    context: typer.Context,
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Instead of --config.", show_default=False)] = None,
    version: Annotated[int | None, typer.Option(min=1, metavar="N", help="Apply this version of the store again.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Also when providers, routes or consumers are lost by it.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the change, and change nothing.")] = False,
) -> None:
    """Put a config into the store; every node with [storage] config = "store" serves it within two seconds.

    What belongs to a node - [server], [admin], [storage], [log] - is left out. Secrets have to be references (env:NAME,
    file:PATH), which each node looks up for itself.
    """
    import asyncio

    if file is not None and version is not None:
        raise typer.BadParameter("give a file or a version, not both", param_hint="--version")
    if not asyncio.run(_apply(locations(context), file, version, yes=yes, dry_run=dry_run)):
        raise typer.Exit(1)


async def _apply(where: Locations, file: Path | None, version: int | None, *, yes: bool, dry_run: bool) -> bool:
    """Whether it was done, or need not be."""
    import time

    from aigw.storage import published

    async with where.store(where.load_config()) as store:
        before = await published.newest(store)
        if version is not None:
            old = await published.version(store, version)
            if old is None:
                output.fail(f"there is no version {version}; aigw config versions lists them")
                return False
            text = old.text
        else:
            text = _shared(where.config_path() if file is None else file)
        if before is not None and before.text == text:
            output.note(f"Nothing to do: version {before.version} is the same.")
            return True
        lost = [] if before is None else _lost(before.text, text)
        if dry_run:
            output.data("\n".join(map(output.safe, _diff("" if before is None else before.text, text))))
        for one in lost:
            output.warn(f"{one} would be lost on every node")
        if dry_run:
            output.note("Nothing was changed.")
            return True
        if lost and not yes and not (output.interactive() and output.confirm("Apply it all the same?")):
            output.fail("not applied: add --yes if that is what you want")
            raise typer.Exit(2)
        fresh = await published.publish(store, text, by=_who(), at=time.time(), after=before)
    if fresh is None:
        output.fail("somebody else has applied another config at this moment; look at it (aigw config versions), and try again")
        return False
    output.note(f"Version {fresh.version} is applied; nodes that follow the store serve it within two seconds.")
    if version is None and file is None and where.load_config().storage.config != "store":
        output.note('This node does not follow it: that needs [storage] config = "store" in its file.')
    return True


def _shared(path: Path) -> str:
    """The text of the file *path* as nodes share it. Raises ConfigErrors: it is wrong, or has secrets in it."""
    import tomlkit

    from aigw.config import check, secrets
    from aigw.config.followed import OWN
    from aigw.config.lines import dotted
    from aigw.config.load import ConfigErrors, decode, load_text, read

    try:
        text = decode(read(path)[0], str(path))
    except FileNotFoundError:
        raise ConfigError("no such file", file=str(path)) from None
    config = load_text(text, path).config
    literal = [
        ConfigError(
            "is a secret itself; write env:NAME or file:PATH, which every node looks up", file=str(path), key=dotted(key)
        )
        for key, said in check.references(config)
        if secrets.is_literal(said)
    ]
    proxies = {("upstream", "proxy"): config.upstream.proxy} | {
        ("providers", name, "proxy"): provider.proxy for name, provider in config.providers.items()
    }
    literal += [
        ConfigError("has a password in it; write env:NAME or file:PATH", file=str(path), key=dotted(key))
        for key, proxy in proxies.items()
        if proxy and "@" in proxy
    ]
    if literal:
        raise ConfigErrors(literal)
    document = tomlkit.parse(text)
    for table in OWN:
        document.pop(table, None)
    return tomlkit.dumps(document).lstrip("\n")


def _lost(before: str, after: str) -> list[str]:
    """Providers, routes and consumers that *before* has and *after* has not."""
    from aigw.config.load import parse

    old, new = parse(before), parse(after)
    return [
        f"the {kind[:-1]} {output.safe(name)}"
        for kind in ("providers", "routes", "consumers")
        for name in getattr(old, kind)
        if name not in getattr(new, kind)
    ]


def _diff(before: str, after: str) -> list[str]:
    import difflib

    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), "in the store", "to be applied", lineterm="")
    return list(lines)


def _who() -> str:
    import getpass
    import socket

    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "?"
    return f"{user}@{socket.gethostname()}"


@app.command(
    epilog="""\b
Examples:
  aigw config versions
  aigw config versions --json
"""
)
def versions(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """The configs that were applied to the store, newest first."""
    import asyncio
    from datetime import UTC, datetime

    found = asyncio.run(_versions(locations(context)))
    if as_json:
        output.json([{"version": one.version, "at": one.at, "by": one.by, "bytes": len(one.text.encode())} for one in found])
        return
    if not found:
        output.note("Nothing was applied yet: aigw config apply FILE")
        return
    output.table(
        [Column("version", right=True), Column("applied"), Column("by", rank=1), Column("bytes", right=True, rank=2)],
        [
            [
                str(one.version),
                datetime.fromtimestamp(one.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
                output.safe(one.by),
                str(len(one.text.encode())),
            ]
            for one in found
        ],
    )


async def _versions(where: Locations) -> list[Published]:
    from aigw.storage import published

    async with where.store(where.load_config()) as store:
        newest = await published.newest(store)
        if newest is None:
            return []
        earlier = [
            await published.version(store, number) for number in range(newest.version - 1, max(0, newest.version - 50), -1)
        ]
    return [newest, *(one for one in earlier if one is not None)]


app.command("history", epilog=config_history.HISTORY)(config_history.history)
app.command("diff", epilog=config_history.DIFF)(config_history.diff)
app.command("rollback", epilog=config_history.ROLLBACK)(config_history.rollback)
