"""Where in a TOML text each key stands, so that a complaint can name the line.

`tomllib` gives values without positions. This scan reads the same text once more, only for its structure: headers, dotted
and quoted keys, inline tables, arrays. It trusts that `tomllib` accepted the text; in a text that it refused, the scan knows
what came before the first thing it cannot read.
"""

from __future__ import annotations

import re
import tomllib
from typing import NamedTuple

Path = tuple[str | int, ...]
"""A key's way from the root: names of tables and keys, indexes of arrays."""

_BLANK = re.compile(r"[ \t]*")
_SPACE = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*+")  # between the items of an array comments and newlines are allowed
_BARE = re.compile(r"[A-Za-z0-9_-]+")
# long strings first: """ is not an empty string with a quote behind it; up to two quotes may stand before the closing three
_STRING = re.compile(
    r'''
      """(?:[^"\\]+|\\.|"(?!""))*+"{3,5}
    | \'{3}(?:[^']+|'(?!\'\'))*+\'{3,5}
    | "(?:[^"\\\n]+|\\.)*+"
    | '[^'\n]*+'
    ''',
    re.DOTALL | re.VERBOSE,
)
_SCALAR = re.compile(r"[^\s,\]}#]+(?: [0-9][^\s,\]}#]*)?")  # a date and a time may have a space between them
_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}\Z")


class Repeated(NamedTuple):
    """A key or table written again: on *line*, after *first*."""

    path: Path
    line: int
    first: int


class Lines:
    """The line of every key in a TOML text. Lines count from 1."""

    def __init__(self, text: str) -> None:
        self.repeated: list[Repeated] = []
        self.headers: list[tuple[Path, int]] = []
        """Every `[table]` and `[[table]]` with its line, in the order of the text."""
        self._lines: dict[Path, int] = {}
        self._words: dict[str, int] | None = None  # the same by dotted path, without quotes
        self._headers: set[Path] = set()
        self._arrays: dict[Path, int] = {}  # [[name]] -> index of its last table
        self._text = text
        self._at = 0
        self._line = 1
        self._counted = 0  # newlines before this offset are in _line
        try:
            self._document()
        except (_UnreadableError, RecursionError):
            pass  # what was read so far stands

    def find(self, path: Path) -> int | None:
        """The line of *path*, else of the innermost table around it that the text holds; None when there is none."""
        for end in range(len(path), 0, -1):
            line = self._lines.get(path[:end])
            if line is not None:
                return line
        return None

    def find_dotted(self, key: str) -> int | None:
        """As `find`, for a path that was already made into words. Quotes make no difference: `providers.a.b.keys[0]` finds
        `providers."a.b".keys[0]`."""
        if self._words is None:
            self._words = {dotted(path).replace('"', ""): line for path, line in reversed(self._lines.items())}
        key = key.replace('"', "")
        while key:
            if key in self._words:
                return self._words[key]
            key = key[: max(key.rfind("."), key.rfind("["), 0)]
        return None

    def _document(self) -> None:
        table: Path = ()
        while True:
            self._skip(_SPACE)
            if self._at >= len(self._text):
                return
            line = self._here()
            if self._text.startswith("[[", self._at):
                self._at += 2
                table = self._element(self._inside(self._keys()), line)
                self._expect("]]")
            elif self._text[self._at] == "[":
                self._at += 1
                table = self._inside(self._keys())
                self._table(table, line)
                self._expect("]")
            else:
                self._pair(table)

    def _inside(self, keys: list[str]) -> Path:
        """*keys* of a header as a path: a name of an array of tables means its last table, save for the name itself."""
        path: Path = ()
        for i, key in enumerate(keys):
            path = (*path, key)
            if i < len(keys) - 1 and path in self._arrays:
                path = (*path, self._arrays[path])
        return path

    def _table(self, path: Path, line: int) -> None:
        if path in self._headers:
            self.repeated.append(Repeated(path, line, self._lines[path]))
            return
        self._headers.add(path)
        self.headers.append((path, line))
        self._mark(path, line)
        self._lines[path] = line  # its own header says more than an earlier [table.below]

    def _element(self, path: Path, line: int) -> Path:
        self._mark(path, line)
        index = self._arrays[path] = self._arrays.get(path, -1) + 1
        self._lines[(*path, index)] = line
        self.headers.append(((*path, index), line))
        return (*path, index)

    def _pair(self, table: Path) -> None:
        line = self._here()
        path = (*table, *self._keys())
        self._expect("=")
        if path in self._lines:
            self.repeated.append(Repeated(path, line, self._lines[path]))
        self._mark(path, line)
        self._skip(_BLANK)
        self._value(path)

    def _mark(self, path: Path, line: int) -> None:
        for end in range(1, len(path) + 1):
            self._lines.setdefault(path[:end], line)

    def _value(self, path: Path) -> None:
        text = self._text
        if text.startswith("[", self._at):
            self._at += 1
            self._array(path)
        elif text.startswith("{", self._at):
            self._at += 1
            self._inline(path)
        else:
            match = _STRING.match(text, self._at) or _SCALAR.match(text, self._at)
            if match is None:
                raise _UnreadableError
            self._at = match.end()

    def _array(self, path: Path) -> None:
        index = 0
        while True:
            self._skip(_SPACE)
            if self._text.startswith("]", self._at):
                self._at += 1
                return
            self._lines[(*path, index)] = self._here()
            self._value((*path, index))
            index += 1
            self._skip(_SPACE)
            if self._text.startswith(",", self._at):
                self._at += 1
            elif not self._text.startswith("]", self._at):
                raise _UnreadableError

    def _inline(self, path: Path) -> None:
        while True:
            self._skip(_SPACE)  # wider than TOML 1.0, as 1.1 allows newlines here
            if self._text.startswith("}", self._at):
                self._at += 1
                return
            self._pair(path)
            self._skip(_SPACE)
            if self._text.startswith(",", self._at):
                self._at += 1
            elif not self._text.startswith("}", self._at):
                raise _UnreadableError

    def _keys(self) -> list[str]:
        keys = []
        while True:
            self._skip(_BLANK)
            match = _BARE.match(self._text, self._at)
            if match is not None:
                keys.append(match.group())
            else:
                match = _STRING.match(self._text, self._at)
                if match is None:
                    raise _UnreadableError
                keys.append(_unquoted(match.group()))
            self._at = match.end()
            self._skip(_BLANK)
            if not self._text.startswith(".", self._at):
                return keys
            self._at += 1

    def _skip(self, what: re.Pattern[str]) -> None:
        match = what.match(self._text, self._at)
        if match is not None:
            self._at = match.end()

    def _expect(self, token: str) -> None:
        self._skip(_BLANK)
        if not self._text.startswith(token, self._at):
            raise _UnreadableError
        self._at += len(token)

    def _here(self) -> int:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line


class _UnreadableError(Exception):
    """The text stops being TOML here."""


def _unquoted(raw: str) -> str:
    try:
        value = tomllib.loads(f"k = {raw}")["k"]
    except tomllib.TOMLDecodeError:
        raise _UnreadableError from None
    return str(value)


def dotted(path: Path) -> str:
    """*path* as a person would write it in TOML: `providers.openai.keys[0]`, `routes."gpt-4.1"`. Control characters are
    escaped, so it can be printed."""
    words: list[str] = []
    for step in path:
        if isinstance(step, int):
            words.append(f"[{step}]")
            continue
        word = step if _NAME.match(step) else quoted(step)
        words.append(f".{word}" if words else word)
    return "".join(words)


def quoted(text: str, limit: int = 80) -> str:
    """*text* in double quotes, fit for a terminal and a log: shortened to *limit* characters, unprintable ones escaped."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return '"' + "".join(_shown(character) for character in cut) + '"'


def _shown(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
