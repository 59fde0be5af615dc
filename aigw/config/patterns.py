"""How a route's name is read: exact ("gpt-6"), a glob ("gpt-*") or a regular expression ("re:^gpt-[56]").

In a glob `*` stands for any characters (also none, also "/") and `?` for one; nothing else is special, so "claude[1m]" is an
exact name. A regular expression is searched for, as grep does: write `^` and `$` where they are meant. All are case-sensitive.

When several patterns match, the most specific one wins: globs before regular expressions, the glob with more literal characters
first, then the one with fewer `*`, then with more `?`; regular expressions in the order of the file; globs without any literal
character ("*") last of all. What is still equal goes by the order of the file.
"""

from __future__ import annotations

import re

MAX_LENGTH = 512
"""Characters of a route's name: a longer pattern is a mistake, and slow on every unknown name."""


def is_pattern(name: str) -> bool:
    """False for an exact name."""
    return name.startswith("re:") or "*" in name or "?" in name


def compiled(name: str) -> re.Pattern[str]:
    """The pattern *name*, ready to `search` with. Raises ValueError, in plain words, for one that cannot be used."""
    if len(name) > MAX_LENGTH:
        raise ValueError(f"longer than {MAX_LENGTH} characters")
    if name.startswith("re:"):
        if name == "re:":
            raise ValueError('an empty regular expression would match every name; write "*" for that')
        try:
            return re.compile(name[3:])
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        except (OverflowError, RecursionError):
            raise ValueError("not a regular expression: too large") from None
    head, *rest = re.sub(r"\*+", "*", name).split("*")
    # atomic groups: the first place where a piece fits is taken for good, so no name makes the search wander (each piece fits
    # as early as possible, which is right for globs)
    middle = "".join(f"(?>.*?{_literal(piece)})" for piece in rest[:-1])
    tail = f".*{_literal(rest[-1])}" if rest else ""
    return re.compile(rf"(?s:\A{_literal(head)}{middle}{tail}\Z)")


def specificity(name: str) -> tuple[int, int, int, int]:
    """Sorts patterns, most specific first; equal ones keep the order they had (use a stable sort)."""
    if name.startswith("re:"):
        return (1, 0, 0, 0)
    stars, single = name.count("*"), name.count("?")
    literals = len(name) - stars - single
    return (0 if literals else 2, -literals, stars, -single)


def literal_head(name: str) -> str:
    """What every name that the glob matches begins with; "" for a regular expression."""
    return "" if name.startswith("re:") else re.split(r"[*?]", name, maxsplit=1)[0]


def _literal(piece: str) -> str:
    return ".".join(re.escape(part) for part in piece.split("?"))
