"""How commands are put together: imported when they are asked for, with the options that all of them take; a bare noun lists.

A command is a module `aigw.cli.<name>` with a `typer.Typer` called `app`. Typer's pieces are typed loosely here, because
its command classes live in a private module.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import typer
from typer.core import TyperGroup, TyperOption
from typer.main import get_command

from aigw.cli.locations import Locations

_COMPLETION = {  # of the root alone
    "install_completion": "Have this shell complete commands and names; or name one: bash, zsh, fish.",
    "show_completion": "Print what that would install.",
}


class Noun(TyperGroup):
    """The commands of one noun; without a verb it lists (`aigw keys --json` is `aigw keys list --json`).

    Used as `typer.Typer(cls=Noun)`; there is a command `list`.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        at = 0
        while at < len(args) and args[at].partition("=")[0] in ("--config", "--data-dir"):
            at += 1 if "=" in args[at] else 2
        optioned = at < len(args) and args[at].startswith("-") and args[at] not in ctx.help_option_names
        if optioned or (at == len(args) and not ctx.resilient_parsing):  # resilient: a shell asks, and a verb may follow
            args = [*args[:at], "list", *args[at:]]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        found = super().shell_complete(ctx, incomplete)
        if incomplete.startswith("-"):  # `aigw keys --js`: the options of `list`, too
            known = {item.value for item in found}
            found += [item for item in self.commands["list"].shell_complete(ctx, incomplete) if item.value not in known]
        return found


class Root(TyperGroup):
    """`aigw` itself: knows its commands by name and one line each, and imports the one that is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        from typer._click.shell_completion import CompletionItem  # typer has no public name for it

        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        summaries = self.commands.summaries  # type: ignore[attr-defined]
        return [CompletionItem(name, help=text) for name, text in summaries.items() if name.startswith(incomplete)]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.commands.summaries[name]) for name in self.commands])  # type: ignore[attr-defined]


class _Later(MutableMapping[str, Any]):
    """Name -> command, imported at the first look. Names alone cost nothing."""

    def __init__(self, summaries: Mapping[str, str]) -> None:
        self.summaries = dict(summaries)
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            self.summaries[name]  # KeyError for a name we do not have
            command = get_command(importlib.import_module(f"aigw.cli.{name}").app)
            command.name = name
            command.params = [one for one in command.params if one.name not in _COMPLETION]
            self._loaded[name] = _adopt(command)
        return self._loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._loaded[name] = command
        self.summaries.setdefault(name, command.get_short_help_str())

    def __delitem__(self, name: str) -> None:
        self._loaded.pop(name, None)
        del self.summaries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.summaries)

    def __len__(self) -> int:
        return len(self.summaries)


def assemble(app: typer.Typer, summaries: Mapping[str, str]) -> Any:
    """The whole command line: `app`'s own options, and the commands named in `summaries` with their one-line help."""
    root: Any = get_command(app)
    root.commands = _Later(summaries)
    for option in root.params:
        option.help = _COMPLETION.get(option.name, option.help)
    return _adopt(root)


def _adopt(command: Any) -> Any:
    """Give a command, and all below it, what every command has: plain help (half the time of rich help), `-h`, and the
    global options, wherever in the line they stand."""
    command.rich_markup_mode = None
    command.context_settings.setdefault("help_option_names", ["-h", "--help"])
    taken = {name for parameter in command.params for name in parameter.opts}
    command.params += [option for option in _global_options() if not taken & set(option.opts)]
    below = getattr(command, "commands", {})
    if not isinstance(below, _Later):
        for one in below.values():
            _adopt(one)
    return command


def _global_options() -> list[TyperOption]:
    return [
        _location("--config", "FILE", "Config file. Default: $AIGW_CONFIG, else the user's config directory."),
        _location("--data-dir", "DIR", "Database and journal. Default: $AIGW_DATA_DIR, else the user's data directory."),
    ]


def _location(flag: str, metavar: str, help_text: str) -> TyperOption:
    def keep(ctx: Any, parameter: Any, value: str | None) -> None:
        if value is not None:  # given twice, the later one holds
            setattr(ctx.ensure_object(Locations), parameter.name, value)

    return TyperOption(param_decls=[flag], metavar=metavar, help=help_text, expose_value=False, callback=keep)
