"""A full screen of text on a terminal that may be far away: only lines that changed are sent, and it is left as it was found.

What is drawn is made safe by whoever draws it (`output.safe`); the screen itself crops what is too long.
"""

from __future__ import annotations

import sys
import termios
import tty
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

from aigw.cli import output
from aigw.cli.language import is_ascii

BOLD, DIM, RED, GREEN, YELLOW, CYAN = "1", "2", "31", "32", "33", "36"

_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[H\x1b[2J"  # the other screen, no cursor, no wrapping
_LEAVE = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"


class Span(NamedTuple):
    """Safe text in one style (an SGR parameter, or nothing)."""

    text: str
    style: str = ""


Line = Sequence[Span]


def plain(line: Line) -> str:
    """A line without styles and without spaces at its end."""
    return "".join(span.text for span in line).rstrip()


def crop(text: str, columns: int) -> str:
    """As much of a safe text as fits; a sign where something is missing."""
    if output.width(text) <= columns:
        return text
    kept, room = [], columns - 1
    for one in text:
        room -= output.width(one)
        if room < 0:
            break
        kept.append(one)
    return "".join(kept) + ("~" if is_ascii() else "…") if columns > 0 else ""


def pad(text: str, columns: int, *, right: bool = False) -> str:
    """A safe text in exactly so many columns; *right*: at their right end."""
    text = crop(text, columns)
    gap = " " * (columns - output.width(text))
    return gap + text if right else text + gap


class Screen:
    """The terminal of standard output while it is ours. As a context manager it gives it back, whatever happens."""

    def __init__(self) -> None:
        self._drawn: list[str] = []
        self._size = (0, 0)
        self._coloured = output.coloured(sys.stdout)
        self._modes: list[Any] | None = None

    def __enter__(self) -> Self:
        self.enter()
        return self

    def __exit__(self, *reason: object) -> None:
        self.leave()

    def enter(self) -> None:
        """Take the terminal. Keys come one by one and are not shown."""
        if sys.stdin.isatty():
            self._modes = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin, termios.TCSANOW)
        output.draw(_ENTER)
        self._drawn, self._size = [], (0, 0)

    def leave(self) -> None:
        """Give it back. Safe to repeat."""
        output.draw(_LEAVE)
        if self._modes is not None:
            termios.tcsetattr(sys.stdin, termios.TCSANOW, self._modes)
            self._modes = None

    def draw(self, lines: Sequence[Line], columns: int, rows: int) -> int:
        """Show *lines*, as many as fit. Returns how many characters were sent."""
        wanted = [self._rendered(line, columns) for line in lines[:rows]]
        wanted += ["\x1b[K"] * (rows - len(wanted))
        sent = []
        if self._size != (columns, rows):
            self._size, self._drawn = (columns, rows), ["\x1b[K"] * rows
            sent.append("\x1b[2J")
        for row, (text, before) in enumerate(zip(wanted, self._drawn, strict=True), 1):
            if text != before:
                sent.append(f"\x1b[{row};1H{text}")
        self._drawn = wanted
        text = "".join(sent)
        if text:
            output.draw(text)
        return len(text)

    def _rendered(self, line: Line, columns: int) -> str:
        parts, room = [], columns
        for span in line:
            text = crop(span.text, room)
            room -= output.width(text)
            parts.append(f"\x1b[{span.style}m{text}\x1b[0m" if span.style and self._coloured and text else text)
            if room <= 0:
                break
        if room > 0:  # behind a full line the cursor still stands on its last character, and would erase it
            parts.append("\x1b[K")
        return "".join(parts)
