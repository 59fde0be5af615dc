from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import typer
from typer.main import get_command

from aigw.cli.commands import Noun, _adopt
from aigw.cli.locations import Locations, locations

if TYPE_CHECKING:
    from conftest import CommandLine


def test_a_command_is_imported_when_it_is_called(aigw: CommandLine) -> None:
    """Of all commands only the one that is asked for is imported."""
    script = (
        "import sys\n"
        "from aigw.cli.main import main\n"
        "main(['stats', '--help'])\n"
        "print(sorted(name for name in sys.modules if name in ('aigw.cli.keys', 'aigw.cli.serve', 'aigw.cli.stats')))\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=aigw.environment, cwd=aigw.folder, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("['aigw.cli.stats']\n")


def fruit(seen: list[str]) -> typer.Typer:
    noun = typer.Typer(cls=Noun)

    @noun.command("list")
    def listing(context: typer.Context, as_json: bool = typer.Option(False, "--json")) -> None:
        seen.append(f"list {as_json} {locations(context).config}")

    @noun.command()
    def eat(context: typer.Context, name: str) -> None:
        seen.append(f"eat {name} {locations(context).config}")

    return noun


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "list False None"),
        (["--json"], "list True None"),
        (["list", "--json"], "list True None"),
        (["--config", "c", "--json"], "list True c"),
        (["--config=c"], "list False c"),
        (["--json", "--config", "c"], "list True c"),
        (["--config", "b", "list", "--config", "c"], "list False c"),
        (["eat", "list"], "eat list None"),
        (["eat", "--config", "c", "plum"], "eat plum c"),
        (["--config", "c", "eat", "plum"], "eat plum c"),
    ],
)
def test_a_bare_noun_lists(arguments: list[str], expected: str) -> None:
    """Without a verb a noun lists, options and all; the global options change nothing about it."""
    seen: list[str] = []
    noun = _adopt(get_command(fruit(seen)))
    noun.main(list(arguments), prog_name="fruit", obj=Locations(), standalone_mode=False)
    assert seen == [expected]
