"""Paths that name something a provider keeps (`/v1/responses/resp_...`), or the list of it: which operation with which method,
whose id, and what of the query goes on to the provider. Which paths these are, `protocols/operations.py` says; they walk like
every exchange."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection
from typing import NamedTuple
from urllib.parse import unquote

from aigw.protocols.operations import OPERATIONS, Operation

OURS = frozenset({"key", "api_key", "api-key", "apikey"})
"""Query parameters that hold the caller's key for us."""

_ID = re.compile(r"[A-Za-z0-9_.:-]{1,256}")
_QUERY = re.compile(r"[!-~]{0,4096}")
_PLACES = frozenset({"{id}", "{item}"})

_SHAPES: dict[str, list[tuple[tuple[str, ...], Operation]]] = defaultdict(list)
for _one in OPERATIONS.values():
    if _one.door and "{model}" not in _one.path and ("{" in _one.path or _one.method != "POST"):
        _steps = tuple(_one.path.strip("/").split("/"))
        _SHAPES[_steps[0]].append((_steps, _one))


class Named(NamedTuple):
    """What a path asks for. `methods` says how, when it was not by this one: then there is no operation."""

    operation: Operation | None
    object_id: str = ""
    query: str = ""
    methods: tuple[str, ...] = ()
    item: str = ""


def named(method: str, path: str, prefixes: Collection[str]) -> Named | None:
    """*path* as it came, with its query; *prefixes* may stand before it. None when it names nothing that is kept."""
    path, _, query = path.partition("?")
    segments = [segment for segment in path.split("/") if segment]
    while segments and segments[0] in prefixes:
        del segments[0]
    if not segments or segments[0] not in _SHAPES:
        return None
    methods = set()
    for steps, operation in _SHAPES[segments[0]]:
        found = _found(steps, segments)
        if found is None:
            continue
        if operation.method == method:
            return Named(operation, found.get("{id}", ""), for_provider(query), (), found.get("{item}", ""))
        methods.add(operation.method)
    return Named(None, methods=tuple(sorted(methods))) if methods else None


def _found(steps: tuple[str, ...], segments: list[str]) -> dict[str, str] | None:
    """What stands in the places of *steps*; None when *segments* is another path."""
    if len(steps) != len(segments):
        return None
    found = {}
    for step, segment in zip(steps, segments, strict=True):
        if step not in _PLACES:
            if step != segment:
                return None
            continue
        name = unquote(segment)
        if not _ID.fullmatch(name) or name in {".", ".."}:
            return None
        found[step] = name
    return found


def for_provider(query: str) -> str:
    """*query* without the caller's key."""
    if not _QUERY.fullmatch(query):
        return ""
    return "&".join(pair for pair in query.split("&") if pair and unquote(pair.partition("=")[0]).lower() not in OURS)
