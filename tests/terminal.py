"""A terminal that understands just what aigw's full screens send, and says what a person would see."""

from __future__ import annotations

import re
import unicodedata

_CODE = re.compile(r"\x1b\[(\??)([0-9;]*)([A-Za-z])|\x1b.?", re.DOTALL)


class Terminal:
    """Feed it what a program wrote. `modes` are the private modes that are on ("1049": the other screen)."""

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        self.columns, self.rows = columns, rows
        self.cells = [[" "] * columns for _ in range(rows)]
        self.modes = {"7", "25"}
        self.styles: set[str] = set()
        self.strange: list[str] = []
        self._row = self._column = 0
        self._resized = False

    def resize(self, columns: int, rows: int) -> None:
        """What stands there is gone; what is on its way may not fit."""
        self.columns, self.rows = columns, rows
        self.cells = [[" "] * columns for _ in range(rows)]
        self._row = self._column = 0
        self._resized = True

    def feed(self, text: str) -> None:
        at = 0
        while at < len(text):
            if text[at] == "\x1b":
                match = _CODE.match(text, at)
                assert match is not None
                self._obey(match)
                at = match.end()
                continue
            self._put(text[at])
            at += 1

    def _obey(self, match: re.Match[str]) -> None:
        private, numbers, letter = match[1], match[2], match[3]
        if private and letter in ("h", "l"):
            (self.modes.add if letter == "h" else self.modes.discard)(numbers)
        elif letter == "H":
            row, _, column = (numbers or "1;1").partition(";")
            self._row, self._column = min(int(row), self.rows) - 1, int(column or 1) - 1
        elif letter == "K" and not numbers:
            start = min(self._column, self.columns - 1)
            self.cells[self._row][start:] = [" "] * (self.columns - start)
        elif letter == "J" and numbers == "2":
            self.cells = [[" "] * self.columns for _ in range(self.rows)]
            if self._resized:  # until now it was drawn for the size before
                self._resized, self.strange = False, []
        elif letter == "m":
            self.styles.add(numbers)
        else:
            self.strange.append(match[0])

    def _put(self, one: str) -> None:
        if one == "\n":
            self._row = min(self._row + 1, self.rows - 1)
        elif one == "\r":
            self._column = 0
        elif not one.isprintable():
            self.strange.append(one)
        else:
            wide = 2 if unicodedata.east_asian_width(one) in ("W", "F") else 1
            if self._column + wide > self.columns:
                self.strange.append("beyond the edge")
                return
            self.cells[self._row][self._column] = one
            if wide == 2:
                self.cells[self._row][self._column + 1] = ""
            self._column += wide  # behind the last one: it waits there, on the last character

    @property
    def lines(self) -> list[str]:
        return ["".join(row).rstrip() for row in self.cells]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)
