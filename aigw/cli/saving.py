"""The end of every command that changes the config file: show the change, or save it and tell a running server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from aigw.cli import output

if TYPE_CHECKING:
    from aigw.cli.locations import Locations
    from aigw.config.edit import ConfigFile


def opened(where: Locations) -> ConfigFile:
    """The config file, to be changed. Raises ConfigError."""
    from aigw.config.edit import ConfigFile

    return ConfigFile.read(where.config_path())


def finish(where: Locations, file: ConfigFile, deed: str, *, dry_run: bool) -> None:
    """Save *file*, and say what became of it (*deed*: "Made the route fast"); with *dry_run* show what would be saved. Exits
    with 1 when a running server did not take it."""
    if dry_run:
        output.data("\n".join(output.safe(line) for line in file.diff().split("\n")))
        output.note("Nothing was changed.")
        return
    from aigw.cli import running

    file.save()
    output.note(f"{deed} in {file.path}")
    if not running.tell(where):
        raise typer.Exit(1)
