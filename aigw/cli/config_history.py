"""`aigw config history|diff|rollback`: the configs that served on this machine, and the way back to one of them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aigw.cli import output, running
from aigw.cli.locations import Locations, locations
from aigw.cli.output import Column

if TYPE_CHECKING:
    from aigw.config.kept import Kept

HISTORY = """\b
Examples:
  aigw config history               which configs served, the newest first
  aigw config history --json
"""

DIFF = """\b
Examples:
  aigw config diff                  what the file says otherwise than what served before it
  aigw config diff 3f2a             than that one
  aigw config diff 3f2a 91cc        between the two
"""

ROLLBACK = """\b
Examples:
  aigw config rollback              to the one that served before
  aigw config rollback 3f2a
  aigw config rollback 3f2a --dry-run
"""


def history(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """The configs that served on this machine, the newest first, by the hash that records name them by."""
    where = locations(context)
    found = _kept(where)
    content = _content(where.config_path())
    same = [one.hash for one in found if _is(one, content)]
    if as_json:
        output.json([{"hash": one.hash, "at": one.at, "path": str(one.path), "file": one.hash in same} for one in found])
        return
    if not found:
        output.note("None has served yet: aigw serve")
        return
    rows = [[one.hash, _moment(one.at), "the file" if one.hash in same else ""] for one in found]
    output.table([Column("config"), Column("serves since"), Column("")], rows)


def diff(
    context: typer.Context,
    before: Annotated[str, typer.Argument(metavar="[HASH]", help="The older one.", show_default=False)] = "",
    after: Annotated[str, typer.Argument(metavar="[HASH]", help="The newer one; the file.", show_default=False)] = "",
) -> None:
    """What differs between two configs, or between one and the file. Secrets are masked."""
    from aigw.config import kept
    from aigw.config.edit import differences

    where = locations(context)
    data_dir = where.data_path()
    old = kept.find(data_dir, before) if before else _before(where)
    if old is None:
        output.note("No other config has served: there is nothing to compare.")
        return
    if after:
        new = kept.find(data_dir, after)
        name, text = new.hash, new.text()
    else:
        path = where.config_path()
        name, text = str(path), _text(path)
    _draw(differences(old.text(), text, old.hash, name))


def rollback(
    context: typer.Context,
    to: Annotated[
        str, typer.Argument(metavar="[HASH]", help="Its beginning is enough; the one that served before.", show_default=False)
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the change, and change nothing.")] = False,
) -> None:
    """Put a config that served before into the file; a running server takes it over at once.

    What the file says now is kept, too. A config that this version of aigw does not understand is refused, and nothing is
    changed.
    """
    from aigw.config import kept
    from aigw.config.edit import differences, replace
    from aigw.config.load import load_text

    where = locations(context)
    path = where.config_path()
    old = kept.find(where.data_path(), to) if to else _before(where)
    if old is None:
        output.fail("no other config has served here; aigw config history lists those that have")
        if dry_run:
            return
        raise typer.Exit(1)
    text, content = old.text(), _content(path)
    if text.encode() == content:
        output.note(f"Nothing to do: {path} is that config.")
        return
    load_text(text, path)
    if dry_run:
        _draw(differences(_text(path), text, str(path), old.hash))
        output.note("Nothing was changed.")
        return
    if content is not None and not any(_is(one, content) for one in _kept(where)):
        beside = path.with_name(f"{path.name}.before")
        replace(beside, _content(beside), content)
        output.note(f"The file, which never served as it is, is kept in {beside}")
    replace(path, content, text.encode())
    output.note(f"{path} is the config {old.hash} again, which last began to serve {_moment(old.at)}")
    if not running.tell(where):
        raise typer.Exit(1)


def _kept(where: Locations) -> list[Kept]:
    from aigw.config import kept

    return kept.history(where.data_path())


def _before(where: Locations) -> Kept | None:
    """The newest config that is not what the file says."""
    content = _content(where.config_path())
    return next((one for one in _kept(where) if not _is(one, content)), None)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _is(one: Kept, content: bytes | None) -> bool:
    return content is not None and one.text().encode() == content.removeprefix(b"\xef\xbb\xbf")


def _text(path: Path) -> str:
    """Raises ConfigError."""
    from aigw.config.load import decode

    content = _content(path)
    return "" if content is None else decode(content, str(path))


def _draw(found: str) -> None:
    if found:
        output.data("\n".join(output.safe(line) for line in found.split("\n")))
    else:
        output.note("They are the same.")


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
