"""Lists of kept objects, a page at a time, as OpenAI answers them: what is on a page, and a page with less on it."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote

import msgspec

MOST = 100
"""Objects of a page that are asked for: each is looked up before it is shown."""


class Item(NamedTuple):
    """One object of a list: its id, and all of it as it came."""

    id: str
    raw: msgspec.Raw


class Page(NamedTuple):
    """`fields` are the page's own members; `more`: there are further pages."""

    fields: dict[str, msgspec.Raw]
    items: list[Item]
    more: bool


class _Named(msgspec.Struct):
    id: str = ""


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_named = msgspec.json.Decoder(_Named).decode


def read(body: bytes) -> Page | None:
    """None when *body* is no such list."""
    try:
        fields = _fields(body)
        items = [Item(_named(one).id, one) for one in _items(fields["data"])]
    except (KeyError, msgspec.DecodeError, RecursionError, UnicodeError):
        return None
    return Page(fields, items, bool(items) and bytes(fields.get("has_more", b"false")) == b"true")


def write(page: Page, items: list[Item]) -> bytes:
    """*page* with only *items* on it."""
    fields: dict[str, object] = dict(page.fields) | {"data": [one.raw for one in items]}
    for name, at in (("first_id", 0), ("last_id", -1)):
        if name in fields:
            fields[name] = items[at].id if items else None
    return msgspec.json.encode(fields)


def after(query: str, object_id: str) -> str:
    """The query for the page behind *object_id*."""
    kept = [pair for pair in query.split("&") if pair and pair.partition("=")[0] != "after"]
    return "&".join([*kept, f"after={quote(object_id, safe='')}"])


def bounded(query: str) -> str:
    """*query* for a page that is not too long to be looked through."""
    pairs = [pair for pair in query.split("&") if pair]
    limits = [pair.partition("=")[2] for pair in pairs if pair.partition("=")[0] == "limit"]
    limit = int(limits[-1]) if limits and limits[-1].isascii() and limits[-1].isdigit() and len(limits[-1]) < 6 else MOST
    return "&".join([*(pair for pair in pairs if pair.partition("=")[0] != "limit"), f"limit={max(1, min(limit, MOST))}"])
