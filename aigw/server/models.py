"""`GET /v1/models`: the names a caller may ask for, in the shape its SDK expects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from aiohttp import web

from aigw.routing.table import Named, Table

# Nobody knows when a name came to be; SDKs want a number (OpenAI) and a date (Anthropic).
_CREATED = 0
_CREATED_AT = "1970-01-01T00:00:00Z"


Shape = Literal["openai", "anthropic", "gemini"]

_METHODS = ["generateContent", "streamGenerateContent", "countTokens"]


def listing(table: Table, shape: Shape, allows: Callable[[str], bool] | None = None) -> web.Response:
    """All names that the caller may ask for: routes, and the live and configured models of providers. Not what patterns and
    prefixes would take besides."""
    names = table.names() if allows is None else [name for name in table.names() if allows(name.id)]
    data = [_entry(name, shape) for name in names]
    if shape == "openai":
        return web.json_response({"object": "list", "data": data})
    if shape == "gemini":
        return web.json_response({"models": data})
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return web.json_response({"data": data, "has_more": False, "first_id": first, "last_id": last})


def one(table: Table, model: str, shape: Shape) -> web.Response:
    """One name, by whatever way it is served. Raises CallerError (404) with the nearest names."""
    route = table.resolve(model)
    return web.json_response(_entry(Named(model, route.targets[0].provider, route.source), shape))


def _entry(name: Named, shape: Shape) -> dict[str, Any]:
    if shape == "anthropic":
        return {"type": "model", "id": name.id, "display_name": name.id, "created_at": _CREATED_AT}
    if shape == "gemini":  # without limits: nobody has told us
        methods = ["embedContent", "batchEmbedContents"] if "embed" in name.id.lower() else _METHODS
        return {"name": f"models/{name.id}", "displayName": name.id, "supportedGenerationMethods": methods}
    return {"id": name.id, "object": "model", "created": _CREATED, "owned_by": name.owner}
