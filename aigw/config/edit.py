"""A config file that is being edited: one value changes, and every comment, blank line and quote elsewhere stays as it was.

New tables and keys are put into the text line by line, what stands already is replaced by tomlkit, and each edit is verified by
reading the result: it must mean what the old text meant, with that one change. An edit that would not is refused.
"""

from __future__ import annotations

import copy
import difflib
import fcntl
import os
import re
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import Array

from aigw.config import lines, load, secrets
from aigw.errors import ConfigError

_BARE = re.compile(r"[A-Za-z0-9_-]+\Z")
_WIDE = 110
"""Characters of a line beyond which a list is written one item a line."""


class ConfigFile:
    """The config at `path`, in memory, until `save`. `exists` is whether there is such a file.

    Values are plain Python ones: tables are dicts, lists are lists. Keys are the steps from the root: `"providers", "openai",
    "base_url"`.
    """

    def __init__(self, path: Path, content: bytes | None) -> None:
        """The *content* of *path*; None when there is no such file. Raises ConfigErrors for what is no UTF-8 or no TOML."""
        self.path = path
        self.exists = content is not None
        self._content = content or b""  # as it is on the disk
        self._mark = self._content.startswith(b"\xef\xbb\xbf")  # Windows editors put it before UTF-8
        text = load.decode(self._content, str(path))
        self._windows = "\r\n" in text and text.count("\r\n") == text.count("\n")
        self._unended = bool(text) and not text.endswith("\n")
        self._text = (text.replace("\r\n", "\n") if self._windows else text) + ("\n" if self._unended else "")
        self._values = load.tables(self._text, str(path))

    @classmethod
    def read(cls, path: Path) -> ConfigFile:
        """The config in the file *path*; a missing file is a new, empty one. Raises ConfigErrors (a ConfigError) with file and
        line for what cannot be read or is no TOML; whether it means anything is `check`'s question."""
        try:
            content, _ = load.read(path)
        except FileNotFoundError:
            return cls(path, None)
        return cls(path, content)

    def get(self, *keys: str) -> Any:
        """The value at *keys*, a copy; None when there is none."""
        return copy.deepcopy(_at(self._values, keys))

    def set(self, value: Any, *keys: str, comment: str = "") -> None:
        """Put *value* at *keys*, making the tables on the way. *comment* is written above a table or key that is new.

        A dict becomes the whole table: keys of it that are not in *value* go, what is equal is not touched. None, also inside
        of a dict, means absent. Raises ConfigError for a layout in which that cannot be done; nothing has changed then.
        """
        if not keys:
            raise ValueError("a key is needed")
        value = _plain(value)
        if value is None:
            self.remove(*keys)
            return
        old = _at(self._values, keys)
        if type(old) is type(value) and _same(old, value):
            return
        before = self._text, self._values
        try:
            self._put(value, old, keys, comment)
        except ConfigError:
            self._text, self._values = before
            raise

    def remove(self, *keys: str) -> bool:
        """Take *keys* out; a table goes with all below it and the comment right above it. False when it is not there. Raises
        ConfigError as `set` does."""
        if not keys:
            raise ValueError("a key is needed")
        if _at(self._values, keys) is None:
            return False
        expected = copy.deepcopy(self._values)
        del _at(expected, keys[:-1])[keys[-1]]
        self._apply(expected, keys, [lambda: self._without_tables(keys), lambda: self._deleted(keys)])
        return True

    def text(self) -> str:
        """The file as it would be saved."""
        text = self._text
        if self._unended and text.endswith("\n"):
            text = text[:-1]
        return text.replace("\n", "\r\n") if self._windows else text

    def check(self) -> None:
        """Whether a server could read it. References to secrets (`env:`, `file:`) need not resolve. Raises ConfigErrors with
        all that is wrong; the lines are those of the text as it would be saved."""
        load.parse(self.text(), str(self.path))

    def diff(self) -> str:
        """What `save` would change, as a unified diff; "" for nothing. Secrets that are written in the file are masked."""
        return differences(load.decode(self._content, str(self.path)), self.text(), str(self.path), str(self.path))

    def save(self) -> None:
        """Check it, then `replace` the file. Raises ConfigErrors as `check` does, and ConfigError as `replace` does."""
        self.check()
        content = (b"\xef\xbb\xbf" if self._mark else b"") + self.text().encode()
        if not self.exists or content != self._content:
            replace(self.path, self._content if self.exists else None, content)
            self._content, self.exists = content, True

    # --- edits ---

    def _put(self, value: Any, old: Any, keys: tuple[str, ...], comment: str) -> None:
        if isinstance(value, dict) and isinstance(old, dict):
            for name, inner in value.items():
                self.set(inner, *keys, name)
            for gone in [name for name in old if name not in value]:
                self.remove(*keys, gone)
            if _at(self._values, keys) is None:  # was written as dotted keys, and the last of them is gone
                raise self._refused(keys)
            return
        if len(keys) == 1 and isinstance(value, dict) and value and all(isinstance(inner, dict) for inner in value.values()):
            for name, inner in value.items():  # [providers.a], [providers.b] and no [providers]
                self.set(inner, *keys, name, comment=comment)
                comment = ""
            return
        headed = isinstance(value, dict) and len(keys) <= 2  # gets a [header] of its own, needs none above it
        if len(keys) > 1 and not headed and _at(self._values, keys[:-1]) is None:
            self.set({keys[-1]: value}, *keys[:-1], comment=comment)
            return
        expected = copy.deepcopy(self._values)
        table = expected if len(keys) == 1 else expected.setdefault(keys[0], {}) if headed else _at(expected, keys[:-1])
        if not isinstance(table, dict):
            raise self._refused(keys)
        table[keys[-1]] = value
        if old is None and headed:
            ways = [lambda: self._with_table(value, keys, comment), lambda: self._assigned(value, keys)]
        elif old is None:
            ways = [lambda: self._with_line(value, keys, comment), lambda: self._assigned(value, keys)]
        elif isinstance(value, dict) or isinstance(old, dict):
            raise self._refused(keys)
        else:
            ways = [lambda: self._merged(value, keys), lambda: self._assigned(value, keys)]
        self._apply(expected, keys, ways)

    def _apply(self, expected: dict[str, Any], keys: tuple[str, ...], ways: list[Callable[[], str]]) -> None:
        """Take the first of the *ways* to edit whose text means *expected*."""
        for way in ways:
            try:
                text = way()
                values = tomllib.loads(text)
            except (TOMLKitError, LookupError, TypeError, ValueError, AttributeError, RecursionError):
                continue  # tomlkit does not know every layout
            if _same(_pruned(values, keys), _pruned(expected, keys)):
                self._text, self._values = text, values
                return
        raise self._refused(keys)

    def _refused(self, keys: tuple[str, ...]) -> ConfigError:
        return ConfigError(
            "cannot be changed in the way this file is laid out; edit it by hand: aigw config edit",
            file=str(self.path),
            line=lines.Lines(self._text).find(keys),
            key=lines.dotted(keys),
        )

    def _with_table(self, value: dict[str, Any], keys: tuple[str, ...], comment: str) -> str:
        """The text with a new `[table]`: behind its siblings, else at the end."""
        rows = _rows(self._text)
        blocks = self._blocks(rows)
        at = max((end for path, _, end in blocks if path[:1] == keys[:1]), default=len(rows))
        block = [*_commented(comment), f"[{'.'.join(map(spelled, keys))}]\n"]
        block += [f"{spelled(name)} = {rendered(inner, len(spelled(name)) + 3)}\n" for name, inner in value.items()]
        if at and rows[at - 1].strip():
            block.insert(0, "\n")
        if at < len(rows) and rows[at].strip():
            block.append("\n")
        return "".join([*rows[:at], *block, *rows[at:]])

    def _with_line(self, value: Any, keys: tuple[str, ...], comment: str) -> str:
        """The text with a new `key = value` as the last one of its `[table]`. Raises LookupError when it has no header."""
        rows = _rows(self._text)
        places = [(start, end) for path, start, end in self._blocks(rows) if path == keys[:-1]]
        start, end = places[0]
        first = next((row for row in rows[start + 1 : end] if row.strip() and not row.lstrip().startswith("#")), "")
        indent = first[: len(first) - len(first.lstrip(" \t"))]
        added = f"{spelled(keys[-1])} = {rendered(value, len(spelled(keys[-1])) + 3)}\n"
        block = [*_commented(comment), *_rows(added)]
        return "".join([*rows[:end], *(indent + row for row in block), *rows[end:]])

    def _assigned(self, value: Any, keys: tuple[str, ...]) -> str:
        """The text with the value put there by tomlkit, which keeps the comment behind it."""
        document = tomlkit.parse(self._text)
        table: Any = document
        for key in keys[:-1]:
            table = table[key]
        table[keys[-1]] = tomlkit.value(rendered(value, len(spelled(keys[-1])) + 3))
        return tomlkit.dumps(document)

    def _merged(self, value: Any, keys: tuple[str, ...]) -> str:
        """The text with a list changed item by item: each line of it keeps its comment. Raises TypeError when it is none."""
        document = tomlkit.parse(self._text)
        array: Any = document
        for key in keys:
            array = array[key]
        if not isinstance(array, Array) or not isinstance(value, list) or "\n" not in array.as_string():
            raise TypeError("no list over several lines")
        old, new = [rendered(item) for item in array.unwrap()], [rendered(item) for item in value]
        for tag, start, end, first, last in reversed(difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()):
            if tag == "equal":
                continue
            for at in range(start, end) if end - start == last - first else ():
                array[at] = tomlkit.value(new[first + at - start])
            if end - start != last - first:
                for at in reversed(range(start, end)):
                    del array[at]
                for at, item in enumerate(new[first:last], start):
                    array.insert(at, tomlkit.value(item))
        return tomlkit.dumps(document)

    def _deleted(self, keys: tuple[str, ...]) -> str:
        document = tomlkit.parse(self._text)
        table: Any = document
        for key in keys[:-1]:
            table = table[key]
        del table[keys[-1]]
        return tomlkit.dumps(document)

    def _without_tables(self, keys: tuple[str, ...]) -> str:
        """The text without the headers at and below *keys* and what stands there. Raises LookupError when there is none."""
        rows = _rows(self._text)
        doomed = [(start, end) for path, start, end in self._blocks(rows) if path[: len(keys)] == keys]
        if not doomed:
            raise LookupError
        for start, end in reversed(doomed):
            top = start
            while top > 0 and rows[top - 1].lstrip().startswith("#"):
                top -= 1
            if top == 0 or rows[top - 1].strip():
                top = start  # the comment may belong to what is above, or to the whole file
            del rows[top:end]
            while top < len(rows) and not rows[top].strip() and (top == 0 or not rows[top - 1].strip()):
                del rows[top]
            while top == len(rows) and rows and not rows[-1].strip():
                top -= 1
                del rows[top]
        return "".join(rows)

    def _blocks(self, rows: list[str]) -> list[tuple[lines.Path, int, int]]:
        """Each header's path, its row, and the row behind its last key: blank lines and comments before the next header that
        are set off from it are not its own. Rows count from 0."""
        headers = lines.Lines(self._text).headers
        blocks = []
        for number, (path, line) in enumerate(headers):
            end = headers[number + 1][1] - 1 if number + 1 < len(headers) else len(rows)
            if number + 1 < len(headers):
                above = end
                while above > line and rows[above - 1].lstrip().startswith("#"):
                    above -= 1
                if not rows[above - 1].strip():
                    end = above
            while end > line and not rows[end - 1].strip():
                end -= 1
            blocks.append((path, line - 1, end))
        return blocks


def differences(before: str, after: str, before_name: str, after_name: str) -> str:
    """A unified diff of two configs, "" for none. Secrets that are written in either are masked. Raises ConfigErrors for what
    is no TOML."""
    rows = difflib.unified_diff(before.splitlines(), after.splitlines(), before_name, after_name, lineterm="", n=2)
    found = "\n".join(rows)
    for literal in _literals(load.tables(before, before_name)) | _literals(load.tables(after, after_name)):
        found = found.replace(literal, "***")
    return re.sub(r"//[^/\s@]*@", "//***@", found)


def replace(path: Path, old: bytes | None, new: bytes) -> None:
    """Put *new* into the file *path* in one step: 0600, in a directory that is made (0700) when there is none. Whatever happens
    on the way, there is the old file or the new one. A link stays a link; the file it names is replaced.

    Raises ConfigError when the file does not hold *old* any more (None: is not there), and when the disk says no.
    """
    target = Path(os.path.realpath(path))
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone_in(target.parent):
            found = target.exists()
            if found and not target.is_file():
                raise ConfigError("is no regular file; expected one that can be replaced", file=str(path))
            if (target.read_bytes() if found else None) != old:
                message = "was changed by somebody else in the meantime; nothing was saved. Look at it, then try again"
                raise ConfigError(message, file=str(path))
            _write(target, new, owner=target.stat() if found else None)
    except OSError as error:
        raise ConfigError(f"cannot be saved: {error.strerror or error}; nothing was changed", file=str(path)) from None


def _write(target: Path, content: bytes, owner: os.stat_result | None) -> None:
    fresh = target.with_name(f".{target.name}.new")
    fresh.unlink(missing_ok=True)  # of a process that died
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if owner is not None and owner.st_uid != os.fstat(descriptor).st_uid:
                try:  # root may edit a service's config; the service must be able to read it afterwards
                    os.fchown(descriptor, owner.st_uid, owner.st_gid)
                except PermissionError:
                    raise ConfigError("belongs to another user; run this as that user", file=str(target)) from None
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        fresh.replace(target)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def _literals(values: dict[str, Any]) -> set[str]:
    """The secrets that are written where references may stand, and the values of headers."""
    found: list[Any] = []
    for table in _tables(values, "providers"):
        found += map(secrets.written, table["keys"]) if isinstance(table.get("keys"), list) else []
        found += table["headers"].values() if isinstance(table.get("headers"), dict) else []
    found += [table.get("key") for table in _tables(values, "consumers")]
    found += [table.get(name) for table in _tables(values, "alerts") for name in ("url", "secret")]
    return {one for one in found if isinstance(one, str) and len(one) > 3 and secrets.is_literal(one)}


def _tables(values: dict[str, Any], name: str) -> list[dict[str, Any]]:
    tables = values.get(name)
    return [table for table in tables.values() if isinstance(table, dict)] if isinstance(tables, dict) else []


def _rows(text: str) -> list[str]:
    """The lines of a text that ends with a newline. (`splitlines` would split at characters that strings may hold.)"""
    return [f"{row}\n" for row in text.split("\n")[:-1]]


def _at(values: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        if not isinstance(values, dict):
            return None
        values = values.get(key)
    return values


def _plain(value: Any) -> Any:
    """*value* as TOML knows it: no None, tuples as lists."""
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value


def _same(one: Any, other: Any) -> bool:
    """Equal, of the same types (1 is not true, and not 1.0), tables in the same order: of two providers the first one wins."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return False
        inner = all(_same(one[name], other[name]) for name in one)
        tables = [name for name in one if isinstance(one[name], dict)]
        return inner and tables == [name for name in other if isinstance(other[name], dict)]
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _pruned(values: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    """*values* without tables on the way to *keys* that are empty: removing `[a.b]` takes `a` away where no `[a]` is written.
    The order of the root's tables is nobody's business, so they are sorted."""
    pruned = copy.deepcopy(values)
    for end in range(len(keys) - 1, 0, -1):
        if _at(pruned, keys[:end]) == {}:
            del _at(pruned, keys[: end - 1])[keys[end - 1]]
    return dict(sorted(pruned.items()))


def spelled(name: str) -> str:
    """A key as TOML has it: quoted where it must be."""
    return name if _BARE.match(name) else str(tomlkit.string(name).as_string())


def rendered(value: Any, indent: int = 0) -> str:
    """*value* in TOML; a list of tables, or one that exceeds the line, one item a line. *indent* is what stands before it."""
    if isinstance(value, dict):
        pairs = ", ".join(f"{spelled(name)} = {rendered(inner)}" for name, inner in value.items())
        return f"{{{pairs}}}" if pairs else "{}"
    if isinstance(value, list):
        items = [rendered(item).replace("\n", " ") for item in value]
        flat = f"[{', '.join(items)}]"
        if len(items) > 1 and (indent + len(flat) > _WIDE or any(isinstance(item, dict) for item in value)):
            return "[\n" + "".join(f"  {item},\n" for item in items) + "]"
        return flat
    return str(tomlkit.item(value).as_string())


def _commented(comment: str) -> list[str]:
    """*comment* as lines of TOML, where control characters are not allowed."""
    rows = ("".join(one for one in row if one == "\t" or one.isprintable()) for row in comment.splitlines())
    return [f"# {row}".rstrip() + "\n" for row in rows]


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Hold off other processes of ours that save there: between their look at the file and its replacement nobody else does."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system without locks
        yield
        try:
            os.fsync(descriptor)  # the new name is on the disk too
        except OSError:
            pass  # not every file system can
    finally:
        os.close(descriptor)
