"""`/{provider}/...`: a path that no operation has, passed on to a configured provider as it is, below that provider's own
address. What could be read as another place is none of these: steps upwards, encoded slashes, whatever is no plain path."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple
from urllib.parse import unquote

from aigw.server.objects import for_provider

METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})

_PATH = re.compile(r"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+)+/?")  # RFC 3986, without empty steps
_QUERY = re.compile(r"[!\"$-~]{0,4096}")  # no '#', no control characters
_HIDDEN = re.compile(r"[/\\\x00-\x1f\x7f?#%]")


class Named(NamedTuple):
    """Which provider, what path below its address, and the query, without the caller's key."""

    provider: str
    path: str
    query: str


def named(method: str, path: str, providers: Collection[str]) -> Named | None:
    """*path* as it came, with its query. None when it begins with no provider's name, or must not be passed on."""
    path, _, query = path.partition("?")
    name, slash, rest = path[1:].partition("/")
    if name not in providers or not slash or not rest or method not in METHODS:
        return None
    rest = "/" + rest
    if not _PATH.fullmatch(rest) or any(_leads_astray(step) for step in rest.split("/")) or not _QUERY.fullmatch(query):
        return None
    return Named(name, rest, for_provider(query))


def _leads_astray(step: str) -> bool:
    """Whether some server might see something else in it than one step."""
    seen = unquote(step, errors="replace")
    return seen in {".", ".."} or _HIDDEN.search(seen) is not None or seen.split(";")[0] in {".", ".."}
