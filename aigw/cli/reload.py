"""`aigw reload`: the config on disk, now; and what still goes by an older one."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aigw.cli import control, output
from aigw.cli.locations import Locations, locations

if TYPE_CHECKING:
    from collections.abc import Sequence

PATIENCE = 60.0
"""Seconds for a reload: plugins are started before they take over."""

EXAMPLES = """\b
Examples:
  aigw reload                       read the config and the plugins again, now
  aigw reload --status              which configs are in use, and by how many requests
  aigw reload --status --json
"""

app = typer.Typer(rich_markup_mode=None)


@app.command(epilog=EXAMPLES)
def reload(
    context: typer.Context,
    status: Annotated[bool, typer.Option("--status", help="Change nothing; show what each config still holds.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Have the running server take the config and the code of plugins as they are now.

    Both are built and tried beside the running ones. When they are good they take over, and requests, streams and sessions
    that are under way end with what they began with. When not, the old ones go on; exit code 1. A changed config file is
    also read by itself, within two seconds.
    """
    where = locations(context)
    problems: list[str] = []
    try:
        if not status:
            told = control.ask(where.data_path(), "/reload", method="POST", timeout=PATIENCE)
            problems = [] if told is None else [str(one) for one in told.get("problems", [])]
        state = control.ask(where.data_path())
    except OSError as error:
        output.fail(f"the server cannot be asked: {error.strerror or error}")
        raise typer.Exit(1) from None
    if state is None:
        output.fail(f"aigw is not running for {where.data_path()}")
        output.note("Start it: aigw serve")
        raise typer.Exit(1)
    generations = state.get("generations", [])
    if as_json:
        output.json({"reloaded": not status and not problems, "problems": problems, "generations": generations})
    elif problems:
        _refused(where, problems)
    else:
        _show(generations, reloaded=not status)
    if problems:
        raise typer.Exit(1)


def _refused(where: Locations, problems: Sequence[str]) -> None:
    output.fail("not reloaded; what served before serves on")
    for line in problems:
        output.note(f"  {line}")
    output.note(f"Mend it: aigw config edit ({where.config_path()})")


def _show(generations: Sequence[dict[str, Any]], *, reloaded: bool) -> None:
    if reloaded:
        newest = generations[0] if generations else {}
        output.data(f"reloaded: config {newest.get('config', '?')}, generation {newest.get('number', '?')}")
        held = sum(int(one.get("exchanges", 0)) for one in generations[1:])
        if held:
            output.note(f"{held} under way end with the config they began with; see 'aigw reload --status'")
        return
    columns = [
        output.Column("generation", right=True),
        output.Column("config"),
        output.Column("since"),
        output.Column("under way", right=True),
        output.Column(""),
    ]
    rows = [
        [
            str(one.get("number")),
            output.safe(str(one.get("config"))),
            datetime.fromtimestamp(float(one.get("since", 0))).astimezone().strftime("%Y-%m-%d %H:%M:%S"),
            str(one.get("exchanges")),
            "serves" if one.get("serves") else "ends when they do",
        ]
        for one in generations
    ]
    output.table(columns, rows)
