"""Paths that name something a provider keeps (`/v1/responses/resp_...`): which operation with which method, whose id, and what
of the query goes on to the provider. Which paths these are, `protocols/operations.py` says; they walk like every exchange."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple
from urllib.parse import unquote

from aigw.protocols.operations import OPERATIONS, Operation

_OURS = frozenset({"key", "api_key", "api-key", "apikey"})
"""Query parameters that hold the caller's key for us."""

_ID = re.compile(r"[A-Za-z0-9_.:-]{1,256}")
_QUERY = re.compile(r"[!-~]{0,2048}")

_PATHS = {
    (operation.method, tuple(operation.path.strip("/").split("/"))): operation
    for operation in OPERATIONS.values()
    if operation.door and "{id}" in operation.path
}
_KINDS = frozenset(path[0] for _, path in _PATHS)


class Named(NamedTuple):
    """What a path asks for. `methods` says how, when it was not by this one: then there is no operation."""

    operation: Operation | None
    object_id: str = ""
    query: str = ""
    methods: tuple[str, ...] = ()


def named(method: str, path: str, prefixes: Collection[str]) -> Named | None:
    """*path* as it came, with its query; *prefixes* may stand before it. None when it names nothing that is kept."""
    path, _, query = path.partition("?")
    segments = [segment for segment in path.split("/") if segment]
    while segments and segments[0] in prefixes:
        del segments[0]
    if len(segments) < 2 or segments[0] not in _KINDS:
        return None
    object_id = unquote(segments[1])
    if not _ID.fullmatch(object_id) or object_id in {".", ".."}:
        return None
    shape = (segments[0], "{id}", *segments[2:])
    operation = _PATHS.get((method, shape))
    if operation is not None:
        return Named(operation, object_id, _for_provider(query))
    methods = tuple(sorted(one for one, other in _PATHS if other == shape))
    return Named(None, methods=methods) if methods else None


def _for_provider(query: str) -> str:
    if not _QUERY.fullmatch(query):
        return ""
    return "&".join(pair for pair in query.split("&") if pair and unquote(pair.partition("=")[0]).lower() not in _OURS)
