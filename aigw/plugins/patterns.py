"""Regular expressions that a config may bring: none that could hold up the server.

Python's engine goes back and tries again; a repeat inside a repeat may take it longer than anybody lives, and nothing can
interrupt it. Such expressions are refused, and texts are looked at in pieces, so that what else is slow stays bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

PIECE = 4096
"""Characters that one search looks at. An expression whose time grows with the square of the text takes some 20 ms for it."""

OVERLAP = 512
"""Characters that two pieces have in common: what is longer may not be found."""

_REPEATS = {"MAX_REPEAT", "MIN_REPEAT"}


class Pattern:
    """One expression. `longest` is how many characters of a match are sure to be found."""

    def __init__(self, said: str) -> None:
        """Raises ValueError for what is no expression, matches nothing at all, or may take forever."""
        try:
            tree = re._parser.parse(said)  # type: ignore[attr-defined]  # noqa: SLF001 - there is no public one
            self._find = re.compile(said)
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(f"is no regular expression: {error}") from None
        if _nested(tree, inside=False):
            raise ValueError("has a repeat inside a repeat, which may take forever; write it without")
        if self._find.match(""):
            raise ValueError("matches the empty text")

    def places(self, text: str) -> Iterator[tuple[int, int]]:
        """From and to of what matches, in order."""
        if len(text) <= PIECE:
            for match in self._find.finditer(text):
                if match.end() > match.start():
                    yield match.span()
            return
        last = 0
        for begin in range(0, len(text), PIECE - OVERLAP):
            for match in self._find.finditer(text, begin, begin + PIECE):
                if match.end() > max(match.start(), last) and match.start() >= last:
                    last = match.end()
                    yield match.span()


def _nested(tree: Any, *, inside: bool) -> bool:
    """Whether a repeat without an end (or a large one) is inside another, or follows itself by a group that it repeats."""
    for kind, value in tree:
        name = str(kind)
        if name in _REPEATS:
            least, most, body = value
            many = most > MANY and most != least
            if many and inside:
                return True
            if _nested(body, inside=inside or many):
                return True
        elif name == "POSSESSIVE_REPEAT":
            if _nested(value[2], inside=inside):
                return True
        elif _nested_within(value, inside=inside):
            return True
    return False


def _nested_within(value: Any, *, inside: bool) -> bool:
    """Groups, branches, looks ahead: whatever holds further parts."""
    if isinstance(value, re._parser.SubPattern):  # type: ignore[attr-defined]  # noqa: SLF001
        return _nested(value, inside=inside)
    if isinstance(value, (tuple, list)):
        return any(_nested_within(one, inside=inside) for one in value)
    return False


MANY = 10
"""Repeats that are few enough inside others."""
