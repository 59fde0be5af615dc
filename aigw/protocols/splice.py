"""Edits a JSON object's bytes in place: set, drop or rename one top-level key, all other bytes untouched.

A body is never re-serialised: unknown fields, their order, number formats, signatures and cache marks must reach the
provider as the caller wrote them. The common case finds the key with `bytes.find` and proves the edit by decoding the
result; whatever is unusual (the key twice, escapes inside it, the same word deeper down) goes to `scan`, which walks the
object's top level token by token.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec

_encode = msgspec.json.encode
_decode = msgspec.json.decode

# A string, or one structural character. Everything between them (numbers, literals, white space) is not looked at. Possessive:
# what a string has matched is never given back, or 20 MB of it would take seconds and gigabytes.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\],:]', re.DOTALL)
_OPENING = re.compile(rb"[ \t\r\n]*\{").match
_SPACE = b" \t\r\n"


LOOKS = 200
"""Places with the end of a key that `only` looks at before it calls a body unusual."""


LONG = 4096
"""Bytes from which a body is worth searching in the quicker, roundabout way."""


class Member(NamedTuple):
    """One top-level member: its decoded key, where the key's token and the value's bytes begin and end."""

    key: str
    key_start: int
    key_end: int
    start: int
    end: int


def scan(body: bytes) -> list[Member]:
    """The top-level members of the object *body*, in order, duplicates included. *body* must be valid JSON (decode it first);
    raises ValueError when it is no object."""
    if not _OPENING(body):
        raise ValueError("not a JSON object")
    members: list[Member] = []
    depth = 0
    key: tuple[str, int, int] | None = None
    start = -1
    for token in _TOKEN.finditer(body):
        first = body[token.start()]
        if first in b"{[":
            depth += 1
        elif first in b"}]":
            depth -= 1
            if depth == 0:
                if key is not None:
                    members.append(_member(body, key, start, token.start()))
                return members
        elif depth == 1:
            if first == 0x22 and key is None:  # a string where a key belongs
                key = (_key(token.group()), token.start(), token.end())
            elif first == 0x3A and start < 0:  # the colon behind it
                start = token.end()
            elif first == 0x2C and key is not None:  # a comma ends the member
                members.append(_member(body, key, start, token.start()))
                key, start = None, -1
    raise ValueError("not a JSON object")


def _key(token: bytes) -> str:
    """A key's meaning. One that is no Unicode (JSON's grammar lets it pass, and so do we) has none, and equals no other."""
    try:
        return _decode(token, type=str)
    except ValueError:
        return token.decode("utf-8", "surrogateescape")  # its quotes set it apart


def _member(body: bytes, key: tuple[str, int, int], start: int, end: int) -> Member:
    while body[start] in _SPACE:
        start += 1
    while body[end - 1] in _SPACE:
        end -= 1
    return Member(key[0], key[1], key[2], start, end)


def only(body: bytes, key: str) -> int:
    """Where lower-case *key*'s token stands when no other can mean it, anywhere in *body*; -1 when it is not that simple."""
    token = b'"%b"' % key.encode()
    if len(body) < LONG:
        at = body.find(token)
        if at >= 0 and body.find(token, at + 1) >= 0:
            return -1
    else:
        at = _only_in_long(body, token)
    # An escaped spelling of a lower-case ASCII letter begins \u006 or \u007; ordinary escapes (\u4f60) do not.
    if at >= 0 and b"\\u00" in body and (b"\\u006" in body or b"\\u007" in body):
        return -1
    return at


def _only_in_long(body: bytes, token: bytes) -> int:
    """Where *token* stands alone, -1 when it does not. Looks for its last five bytes: needles up to five are found thrice
    as fast in a long body (CPython's fastsearch goes another way from six)."""
    tail, lead = token[-5:], token[:-5]
    found = at = -1
    for _ in range(LOOKS):
        at = body.find(tail, at + 1)
        if at < 0:
            return found
        if at >= len(lead) and body.startswith(lead, at - len(lead)):
            if found >= 0:
                return -1
            found = at - len(lead)
    return -1


def stands_twice(body: bytes, key: str) -> bool:
    """Whether *key* stands more than once at the top level: two parsers would read two values."""
    return sum(member.key == key for member in scan(body)) > 1


def set_value(body: bytes, key: str, value: Any, old: Any = msgspec.UNSET, at: int | None = None) -> bytes:
    """*body* with top-level *key* holding *value* (any JSON value); added at the end when it is not there.

    *old* is its present value when the caller knows it, and *at* what `only` said: a plain string in a plain place makes the
    fast path. Raises ValueError when *body* is no object or has the key twice.
    """
    fresh = _encode(value)
    if at is None:
        at = only(body, key) if isinstance(old, str) else -1
    if at >= 0:
        colon = at + len(key) + 2
        for separator in (b":", b": "):
            wanted = separator + _encode(old)
            # A backslash before it: the quote belongs to a longer key that only ends like this one.
            if body.startswith(wanted, colon) and body[at - 1] != 0x5C and _top_level_once(body, at):
                whole = memoryview(body)
                return b"".join((whole[: colon + len(separator)], fresh, whole[colon + len(wanted) :]))
    members = scan(body)
    found = [member for member in members if member.key == key]
    if len(found) > 1:
        raise ValueError(f"the key {key!r} stands twice")
    if found:
        return b"".join((body[: found[0].start], fresh, body[found[0].end :]))
    return add(body, key, value, empty=not members)


def _top_level_once(body: bytes, at: int) -> bool:
    """Whether position *at* is at the object's top level. Cheap for what SDKs write (`{"model":` first); counts braces outside
    strings only when it is not that simple."""
    before = body[:at]
    if before.count(b"{") == 1 and b"[" not in before:
        return True
    depth = 0
    for token in _TOKEN.finditer(body, 0, at):
        first = body[token.start()]
        if first in b"{[":
            depth += 1
        elif first in b"}]":
            depth -= 1
    return depth == 1


def add(body: bytes, key: str, value: Any, *, empty: bool | None = None) -> bytes:
    """*body* with a member more, at its end. The caller knows that *key* is not there."""
    end = body.rindex(b"}")
    if empty is None:
        empty = not body[body.index(b"{") + 1 : end].strip(_SPACE)
    whole = memoryview(body)  # one copy, not two
    return b"".join((whole[:end], b"" if empty else b",", _encode(key), b":", _encode(value), whole[end:]))


def drop(body: bytes, key: str) -> bytes:
    """*body* without top-level *key* (each time it stands there)."""
    members = scan(body)
    for index in range(len(members) - 1, -1, -1):
        member = members[index]
        if member.key != key:
            continue
        if index + 1 < len(members):  # up to the next key: takes our comma along
            body = body[: member.key_start] + body[members[index + 1].key_start :]
        elif index:  # the last one: from the end of the one before
            body = body[: members[index - 1].end] + body[member.end :]
        else:
            body = body[: member.key_start] + body[member.end :]
        members = scan(body)
    return body


def rename(body: bytes, key: str, new: str) -> bytes:
    """*body* with top-level *key* called *new*, its value untouched; unchanged when it is not there. When *new* is there
    already it wins, and *key* is dropped: a provider must not read two values."""
    if key == new:
        return body
    members = scan(body)
    if any(member.key == new for member in members):
        return drop(body, key)
    for member in reversed(members):
        if member.key == key:
            body = b"".join((body[: member.key_start], _encode(new), body[member.key_end :]))
    return body
