"""`aigw doctor`: what is wrong here, what it means, and the command that helps."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aigw.cli import output
from aigw.cli.findings.finding import CODES, Finding, Level, Words
from aigw.cli.language import say
from aigw.cli.locations import Locations, locations

if TYPE_CHECKING:
    from aigw.config.load import Loaded

app = typer.Typer(rich_markup_mode=None)

EXAMPLES = """\b
Examples:
  aigw doctor                     look at everything
  aigw doctor --offline           ask no provider
  aigw doctor --json | jq '.findings[] | select(.level == "problem")'
"""

SHOWN = {
    Level.OK: ("32", Words("ok", "正常")),
    Level.WARNING: ("33", Words("warning", "警告")),
    Level.PROBLEM: ("31", Words("problem", "问题")),
}
"""Colour and word of each level."""

WIDEST = 100
"""Columns of a line of text; longer ones are hard to read."""


@app.command(epilog=EXAMPLES)
def doctor(
    context: typer.Context,
    offline: Annotated[bool, typer.Option("--offline", help="Send nothing to any provider.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Look at config, provider keys, network, ports, server, database, clock and this machine, and say what is wrong.

    Nothing is changed, no prompt is sent, and no key is shown. Exit code 0 when there is no problem (warnings are none), 1 when
    there is one.
    """
    found = []
    try:
        for finding in _findings(locations(context), offline=offline):
            assert finding.code in CODES, finding.code
            found.append(finding)
            if not as_json:
                output.waiting("")
                _show(finding)
    finally:
        output.waiting("")
    problems = sum(finding.level is Level.PROBLEM for finding in found)
    warnings = sum(finding.level is Level.WARNING for finding in found)
    if as_json:
        output.json({"ok": not problems, "findings": [finding.plain() for finding in found]})
    else:
        output.note(_sum(problems, warnings))
    raise typer.Exit(1 if problems else 0)


def _findings(where: Locations, *, offline: bool) -> Iterator[Finding]:
    from aigw.cli import control
    from aigw.cli.findings import machine, release, server, settings, storage

    state: dict[str, Any] | None = None
    silent: OSError | None = None
    try:
        state = control.ask(where.data_path())
    except OSError as error:
        silent = error
    serving = str(state["config"]["hash"]) if state else ""
    yield from machine.look(os.environ, state)
    yield from release.look(where.data_path(), state)
    found = settings.look(where.config_path(), os.environ, serving)
    yield from found.findings
    if silent is not None:
        yield server.unasked(silent)
    elif state is not None:
        yield from server.running(state, found.loaded, where.config_path())
    else:
        yield from server.stopped(found.loaded)
    if found.loaded is not None:
        yield from storage.look(found.loaded.config, where.data_path(), state)
        yield from _providers(found.loaded, offline=offline)


def _providers(loaded: Loaded, *, offline: bool) -> Iterable[Finding]:
    from aigw.cli.findings import providers

    places = providers.places(loaded.config, os.environ)
    if offline:
        return providers.unchecked(places)
    if not places:
        return ()
    return providers.findings(providers.ask(places, loaded.config.upstream, _progress))


def _progress(done: int, of: int) -> None:
    output.waiting(say(f"asking providers: {done} of {of} ...", f"正在询问服务商：{done}/{of} ..."))


# ---- what is shown


def _show(finding: Finding) -> None:
    """The finding in one line, its meaning and the next command indented below; wrapped on a terminal only."""
    colour, word = SHOWN[finding.level]
    level = str(word)
    mark = f"\x1b[{colour}m{level}\x1b[0m" if output.coloured(sys.stdout) else level
    first, *rest = _wrapped(output.safe(str(finding.what)))
    output.data(f"{mark}{' ' * (INDENT - output.width(level))}{first}")
    for line in rest:
        output.data(" " * INDENT + line)
    if str(finding.means):
        for line in _wrapped(output.safe(str(finding.means))):
            output.data(" " * INDENT + line)
    if finding.next:  # never wrapped: it is there to be copied
        output.data(f"{' ' * INDENT}{say('next: ', '下一步：')}{output.safe(finding.next)}")


INDENT = len("problem") + 2


CLOSING = "。，、；：？！）》”"


def _wrapped(text: str) -> list[str]:
    """*text* in lines that fit beside the indentation; one line where it goes to no terminal."""
    if not sys.stdout.isatty():
        return [text]
    room = max(12, min(WIDEST, shutil.get_terminal_size().columns) - INDENT)
    lines = [""]
    for word in _pieces(text):
        if output.width(lines[-1]) + output.width(word.rstrip()) > room and lines[-1]:
            lines[-1] = lines[-1].rstrip()
            lines.append("")
        while output.width(word.rstrip()) > room:  # a path or an address that no line can hold
            taken = _head(word, room)
            lines[-1] = taken
            lines.append("")
            word = word[len(taken) :]  # noqa: PLW2901 - what is left of it
        lines[-1] += word
    return [line.rstrip() for line in lines]


def _pieces(text: str) -> Iterator[str]:
    """What must stay together: words with the space behind them, and each wide character for itself (Chinese has no spaces)."""
    word = ""
    for one in text:
        if output.width(one) == 2 and one not in CLOSING:  # a line does not begin with a full stop
            if word:
                yield word
            word = one
        else:
            if word and output.width(word[-1]) == 2 and one not in CLOSING:
                yield word
                word = ""
            word += one
            if one == " ":
                yield word
                word = ""
    if word:
        yield word


def _head(word: str, room: int) -> str:
    taken = 0
    for at, one in enumerate(word):
        taken += output.width(one)
        if taken > room:
            return word[:at]
    return word


def _sum(problems: int, warnings: int) -> str:
    if not problems and not warnings:
        return say("Nothing is wrong.", "一切正常。")
    parts = [f"{problems} problem{'s' * (problems != 1)}"] * bool(problems)
    parts += [f"{warnings} warning{'s' * (warnings != 1)}"] * bool(warnings)
    parts_zh = [f"{problems} 个问题"] * bool(problems) + [f"{warnings} 个警告"] * bool(warnings)
    more = "docs/troubleshooting.md"
    return say(f"{' and '.join(parts)}.\nMore: {more}", f"{'，'.join(parts_zh)}。\n详见 {more}")
