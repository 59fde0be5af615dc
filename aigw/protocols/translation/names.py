"""Names and ids of tools as every provider takes them: letters, digits, `_` and `-`, 64 at most, a letter or `_` first.

All writers rename alike, so whoever writes the answer can undo it without knowing which provider it was (`Transform` does).
Nothing is remembered between requests: the same name becomes the same other name in each turn.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256

from aigw.canonical import Tool

_GOOD = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{0,63}").fullmatch
_BAD = re.compile(r"[^a-zA-Z0-9_-]")


def spoken(name: str) -> str:
    """*name* as any provider takes it: itself where it can be, else what is left of it and a hash of the whole."""
    if _GOOD(name):
        return name
    left = _BAD.sub("_", name)[:55]
    if not left[:1].isalpha():
        left = f"_{left}"[:55]
    return f"{left}_{sha256(name.encode('utf-8', 'replace')).hexdigest()[:8]}"


def renamed(tools: Iterable[Tool]) -> dict[str, str]:
    """The caller's names by the spoken ones, of those tools where they differ; empty for nearly every request."""
    return {spoken(tool.name): tool.name for tool in tools if not tool.server and not _GOOD(tool.name)}


def short_id(called: str, most: int = 40) -> str:
    """A call's id with *most* characters at most, all of them letters, digits, `_` and `-`; the same for the same id."""
    if 0 < len(called) <= most and not _BAD.search(called):
        return called
    return ("call_" + sha256(called.encode("utf-8", "replace")).hexdigest())[:most]
