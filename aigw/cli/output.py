"""The only file that prints. Data goes to stdout, talk to stderr; what was stored or sent by others is made safe to show."""

from __future__ import annotations

import contextlib
import csv as csv_format
import io
import json as json_format
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TextIO

from aigw.cli.language import is_ascii

_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
_UNSAFE_IN_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
CELL_WIDTH = 60
"""Columns of text that a table shows of one value; the whole of it is in --json and --csv."""


def data(text: str) -> None:
    """One line (or more) of what the command was asked for. The caller has made it safe."""
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """Talk: what happened, what to do next."""
    _talk(text, "")


def warn(text: str) -> None:
    """Talk: it went well, but look at this."""
    _talk(f"warning: {text}", "33")


def fail(text: str) -> None:
    """Talk: it did not go well, and why."""
    _talk(f"error: {text}", "31")


def _talk(text: str, colour: str) -> None:
    sys.stdout.flush()  # the two streams keep their order on a terminal
    lines = [safe(line) for line in text.split("\n")]
    if colour and coloured(sys.stderr):
        head, separator, rest = lines[0].partition(":")
        lines[0] = f"\x1b[{colour}m{head}{separator}\x1b[0m{rest}"
    sys.stderr.write("\n".join(lines) + "\n")
    sys.stderr.flush()


def draw(text: str) -> None:
    """What a full screen sends to the terminal: cursor moves, styles, and text that the caller has made safe."""
    sys.stdout.write(text)
    sys.stdout.flush()


def part(text: str) -> None:
    """Data that somebody else wrote, as it arrives: several lines, made safe, without a line break of ours."""
    sys.stdout.write(readable(text))
    sys.stdout.flush()


def aside(text: str) -> None:
    """Talk that may be overlooked: dim."""
    sys.stdout.flush()
    text = safe(text)
    sys.stderr.write(f"\x1b[2m{text}\x1b[0m\n" if coloured(sys.stderr) else f"{text}\n")
    sys.stderr.flush()


class _Waiting:
    """Whether a line of `waiting` stands on the terminal."""

    shown = False


def waiting(text: str) -> None:
    """On a terminal: what is waited for, in the line where the next output will be; "" takes it away again, if it is there."""
    if not (text or _Waiting.shown) or not (drawn(sys.stderr) and sys.stdout.isatty()):
        return
    _Waiting.shown = bool(text)
    sys.stdout.flush()
    sys.stderr.write("\r\x1b[K" + (f"\x1b[2m{safe(text)}\x1b[0m" if text and coloured(sys.stderr) else safe(text)))
    sys.stderr.flush()


def typed(prompt: str) -> str:
    """What somebody types, without its line break; edited with the arrow keys where stdout is a terminal, too. Raises EOFError
    at the end of input (Ctrl-D)."""
    sys.stdout.flush()
    if sys.stdout.isatty():
        with contextlib.suppress(ImportError):  # some Pythons are built without it; then there are no arrow keys
            import readline  # noqa: F401 - input() uses it once it is there
        return input(prompt)
    sys.stderr.write(prompt)
    sys.stderr.flush()
    text = sys.stdin.readline()
    if not text:
        raise EOFError
    return text.removesuffix("\n")


def json(value: Any) -> None:
    """Data for programs: UTF-8 JSON, with everything escaped that could play tricks on a terminal."""
    text = json_format.dumps(value, ensure_ascii=False, indent=2)
    data(_UNSAFE_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def csv(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Data for spreadsheets: RFC 4180 with plain newlines. None is an empty cell; a text that a spreadsheet would run as a
    formula (names come from strangers) gets an apostrophe in front."""
    out = io.StringIO()
    writer = csv_format.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_csv_cell(value) for value in row] for row in rows)
    sys.stdout.write(out.getvalue())


def rows(lines: Sequence[Sequence[Any]]) -> str:
    """Lines of a CSV file, as `csv` prints them, for whoever writes them elsewhere."""
    out = io.StringIO()
    csv_format.writer(out, lineterminator="\n").writerows([_csv_cell(value) for value in row] for row in lines)
    return out.getvalue()


def stream(text: str) -> None:
    """Data that comes in many parts, each of whole lines: as it is into a file or a pipe, made safe on a terminal."""
    sys.stdout.write(readable(text) if sys.stdout.isatty() else text)


def _csv_cell(value: Any) -> Any:
    if not isinstance(value, str):
        return "" if value is None else value
    value = safe(value)
    return f"'{value}" if value[:1] in ("=", "+", "-", "@") else value


class Column(NamedTuple):
    """A column of a table. Of those with a `rank` the highest goes first when the terminal is too narrow; 0 always stays."""

    name: str
    right: bool = False
    rank: int = 0


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], total: Sequence[str] | None = None) -> None:
    """A table: drawn on a terminal, plain aligned text without colour in a pipe. `total` is set off at the foot.

    A terminal too narrow for all columns gets fewer of them, never numbers cut in half.
    """
    rows = [[_shorten(safe(cell)) for cell in row] for row in rows]
    foot = None if total is None else [_shorten(safe(cell)) for cell in total]
    everything = [[column.name for column in columns], *rows, *([foot] if foot else [])]
    widths = [max(width(line[at]) for line in everything) for at in range(len(columns))]
    if not drawn(sys.stdout):
        _plain_table(columns, everything, widths)
        return
    shown, hidden = _fitting(columns, widths, shutil.get_terminal_size().columns)
    _drawn_table(
        [columns[at] for at in shown], [[line[at] for at in shown] for line in rows], foot and [foot[at] for at in shown]
    )
    if hidden:
        note(f"not shown for want of width: {', '.join(columns[at].name for at in hidden)} (widen the terminal, or --json)")


def _plain_table(columns: Sequence[Column], lines: Sequence[Sequence[str]], widths: Sequence[int]) -> None:
    for line in lines:
        cells = [
            " " * (wide - width(cell)) + cell if column.right else cell + " " * (wide - width(cell))
            for column, cell, wide in zip(columns, line, widths, strict=True)
        ]
        data("  ".join(cells).rstrip())


def _drawn_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], total: Sequence[str] | None) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawing = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1), header_style="bold", highlight=False)
    for at, column in enumerate(columns):
        drawing.add_column(
            Text(column.name),
            justify="right" if column.right else "left",
            style="cyan" if at == 0 else "",
            no_wrap=True,
            overflow="ellipsis",
        )
    for row in rows:
        drawing.add_row(*map(Text, row))
    if total is not None:
        drawing.add_section()
        drawing.add_row(*map(Text, total), style="bold")
    Console(highlight=False, soft_wrap=False, emoji=False).print(drawing)


def _fitting(columns: Sequence[Column], widths: Sequence[int], room: int) -> tuple[list[int], list[int]]:
    """Which columns fit into *room* characters, and which do not."""
    shown = list(range(len(columns)))
    by_rank = sorted((at for at in shown if columns[at].rank), key=lambda at: -columns[at].rank)
    while by_rank and sum(widths[at] + 3 for at in shown) - 3 > room:  # 3: what is drawn between two cells
        shown.remove(by_rank.pop(0))
    return shown, [at for at in range(len(columns)) if at not in shown]


def safe(text: str) -> str:
    """Text of unknown origin, on one line and without power over the terminal: control, bidirectional and invisible
    characters are shown as escapes."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def readable(text: str) -> str:
    """As `safe`, for text of several lines in any script: newlines and tabs stay, and so does what joins letters and emoji.
    Carriage returns go: on a terminal they would write over what stands there."""
    return _UNSAFE_IN_TEXT.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text.replace("\r", ""))


def width(text: str) -> int:
    """How many columns a safe text takes: wide East Asian characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in ("W", "F") else 1 for one in text)


def wrapped(text: str, room: int) -> list[str]:
    """*text* as lines that end between words, none wider than *room* columns unless one word is."""
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and width(lines[-1]) + 1 + width(word) > room:
            lines.append(word)
        else:
            lines[-1] += f" {word}" if lines[-1] else word
    return lines


def _shorten(text: str) -> str:
    if len(text) <= CELL_WIDTH and width(text) <= CELL_WIDTH:
        return text
    kept, room = [], CELL_WIDTH - 1
    for one in text:
        room -= width(one)
        if room < 0:
            break
        kept.append(one)
    return "".join(kept) + "…"


def drawn(stream: TextIO) -> bool:
    """Whether a stream is a terminal that can do more than print lines."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("dumb", "")


def coloured(stream: TextIO) -> bool:
    """Whether colours are welcome there (NO_COLOR: https://no-color.org)."""
    return drawn(stream) and not os.environ.get("NO_COLOR")


def interactive() -> bool:
    """Whether somebody is there to answer a question."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirm(question: str, *, otherwise: bool = False) -> bool:
    """Ask on the terminal; only a plain yes is one. *otherwise* is what a bare Enter means; the end of input is a no."""
    sys.stdout.flush()
    sys.stderr.write(f"{safe(question)} [{'Y/n' if otherwise else 'y/N'}] ")
    sys.stderr.flush()
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):  # end of input instead of a line
        sys.stderr.write("\n")
        return False
    return answer.strip().lower() in (("y", "yes", "") if otherwise else ("y", "yes"))


def line(question: str) -> str:
    """What is typed behind *question*, without spaces around it. Raises EOFError when there is nobody any more."""
    sys.stdout.flush()
    sys.stderr.write(safe(question))
    sys.stderr.flush()
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):
        sys.stderr.write("\n")
        if not answer:
            raise EOFError
    return answer.strip()


@contextmanager
def progress(text: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal while work is done that comes in parts: call it with each part's size. Elsewhere one line says what
    is done."""
    if not drawn(sys.stderr):
        note(text)
        yield lambda part: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    console = Console(stderr=True, highlight=False, emoji=False)
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(safe(text), total=total)
        yield lambda part: bar.advance(task, part)


@contextmanager
def working(text: str) -> Iterator[None]:
    """Something turns while work is done; where nothing can be drawn, a line says what is done."""
    if not drawn(sys.stderr):
        note(text)
        yield
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True, highlight=False, emoji=False).status(Text(safe(text)), spinner="line" if is_ascii() else "dots"):
        yield
