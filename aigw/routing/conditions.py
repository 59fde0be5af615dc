"""What a request must be for a target to get it: the `when` of a target, made ready to be asked quickly.

A request is looked at only as far as some condition of its route asks: its body for tools, images and audio, and its length.
Conditions of one table that say the same are one object, and are decided once for each request.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from itertools import count
from typing import Any

import msgspec

from aigw.config import patterns, schema
from aigw.config.bounds import bounds, hours, zone
from aigw.exchange import Exchange

Estimate = Callable[[str, bytes], int]
"""Tokens of the prompt in the body (second) of a request for an operation (first)."""

MOST_PER_BYTE = 2
"""Tokens that a byte can be at most, by our estimate (a small image of 512 base64 bytes counts as 1,000): a body that is that
much shorter than a bound need not be counted."""

_serial = count(1)


def quarter(operation: str, body: bytes) -> int:
    return len(body) // 4


class Facts:
    """One request, as conditions see it; each thing is found out once, when somebody asks."""

    __slots__ = ("_tokens", "_tools", "estimate", "exchange", "serial")

    def __init__(self, exchange: Exchange, estimate: Estimate = quarter) -> None:
        self.exchange, self.estimate = exchange, estimate
        self.serial = next(_serial)
        self._tokens = -1
        self._tools: bool | None = None

    @property
    def prompt_tokens(self) -> int:
        if self._tokens < 0:
            self._tokens = self.estimate(self.exchange.operation, self.exchange.body)
        return self._tokens

    @property
    def tools(self) -> bool:
        if self._tools is None:
            self._tools = has_tools(self.exchange.body)
        return self._tools


class When:
    """One condition. `check` answers for one request; so does `holds`, which remembers when it is asked again for the same."""

    __slots__ = ("_serial", "_truth", "check", "text")

    def __init__(self, text: str, check: Callable[[Facts], bool]) -> None:
        self.text, self.check = text, check
        self._serial, self._truth = 0, False

    def holds(self, facts: Facts) -> bool:
        if self._serial != facts.serial:
            self._truth = self.check(facts)
            self._serial = facts.serial
        return self._truth

    def __repr__(self) -> str:
        return f"When({self.text!r})"


class Conditions:
    """Makes conditions of the config's tables, each of them once."""

    def __init__(self) -> None:
        self._made: dict[str, When] = {}
        self._sets: dict[tuple[When, ...], tuple[When, ...]] = {}

    def of(self, table: schema.When | None) -> tuple[When, ...]:
        """The quickest ones first. Raises ValueError for what cannot be read."""
        if table is None:
            return ()
        made = []
        for name in ("consumer", "group", "tags", "header", "time", "tools", "images", "audio", "prompt_tokens"):
            value = getattr(table, name)
            if value is None or value == {}:
                continue
            if isinstance(value, dict):
                made += [self._one(f"{name}.{key} = {text}", _OF_PAIRS[name](key, text)) for key, text in value.items()]
            elif name == "time":
                made.append(self._one(f"time {value} {table.tz or ''}".rstrip(), Hours(value, table.tz)))
            elif isinstance(value, bool):
                made.append(self._one(name if value else f"no {name}", partial(_is, _CONTENT[name], value)))
            elif name == "prompt_tokens":
                made.append(self._one(f"prompt_tokens {value}", _length(*bounds(value))))
            else:
                made.append(self._one(f"{name} = {value}", _named(name, value)))
        return self._sets.setdefault(tuple(made), tuple(made))

    def _one(self, text: str, check: Callable[[Facts], bool]) -> When:
        return self._made.setdefault(text, When(text, check))


# --- who ---


def _named(field: str, names: str) -> Callable[[Facts], bool]:
    """Whether the consumer (or its group) is one of *names*, globs among them."""
    known: dict[str, bool] = {}
    accept = [_glob(name.strip()) for name in names.split(",") if name.strip()]

    def check(facts: Facts) -> bool:
        caller = facts.exchange.caller
        name = "" if caller is None else caller.consumer.name if field == "consumer" else caller.consumer.group
        truth = known.get(name)
        if truth is None:
            if len(known) > 10_000:
                known.clear()
            truth = known[name] = any(fits(name) for fits in accept)
        return truth

    return check


def _tagged(key: str, value: str) -> Callable[[Facts], bool]:
    fits = _glob(value)
    known: dict[str, bool] = {}

    def check(facts: Facts) -> bool:
        caller = facts.exchange.caller
        tags = "" if caller is None else caller.consumer.tags
        truth = known.get(tags)
        if truth is None:
            if len(known) > 1000:
                known.clear()
            truth = known[tags] = _tag_fits(tags, key, fits)
        return truth

    return check


def _tag_fits(tags: str, key: str, fits: Callable[[str], bool]) -> bool:
    try:
        found = msgspec.json.decode(tags) if tags else {}
    except msgspec.DecodeError:
        return False
    return isinstance(found, dict) and isinstance(found.get(key), str) and fits(found[key])


def _headed(name: str, value: str) -> Callable[[Facts], bool]:
    fits = _glob(value)
    lower = name.lower()

    def check(facts: Facts) -> bool:
        found = facts.exchange.headers.get(lower)
        return found is not None and fits(found)

    return check


def _glob(text: str) -> Callable[[str], bool]:
    if not patterns.is_pattern(text):
        return text.__eq__
    search = patterns.compiled(text).search
    return lambda value: search(value) is not None


_OF_PAIRS: Mapping[str, Callable[[str, str], Callable[[Facts], bool]]] = {"tags": _tagged, "header": _headed}


# --- what ---

_IMAGE = re.compile(rb'"image_url"|"input_image"|"type"\s*:\s*"image"|"(?:mime_?[tT]ype|media_type)"\s*:\s*"image/').search
_AUDIO = re.compile(
    rb'"input_audio"|"type"\s*:\s*"audio"|"audio"\s*:\s*\{|"modalities"\s*:\s*\[[^\]]*"audio"|"mime_?[tT]ype"\s*:\s*"audio/'
).search


class _Tools(msgspec.Struct, gc=False):
    tools: Any = None
    functions: Any = None


_tools = msgspec.json.Decoder(_Tools).decode


def has_tools(body: bytes) -> bool:
    """Whether a request brings tools (or, as it once was, functions)."""
    if b'"tools"' not in body and b'"functions"' not in body:
        return False
    try:
        found = _tools(body)
    except (msgspec.DecodeError, RecursionError):
        return False
    return bool(found.tools or found.functions)


def _is(look: Callable[[Facts], bool], wanted: bool, facts: Facts) -> bool:
    return look(facts) is wanted


_CONTENT: Mapping[str, Callable[[Facts], bool]] = {
    "tools": lambda facts: facts.tools,
    "images": lambda facts: b"image" in facts.exchange.body and _IMAGE(facts.exchange.body) is not None,
    "audio": lambda facts: b"audio" in facts.exchange.body and _AUDIO(facts.exchange.body) is not None,
}


def _length(least: int, most: int) -> Callable[[Facts], bool]:
    def check(facts: Facts) -> bool:
        longest = len(facts.exchange.body) * MOST_PER_BYTE
        if longest < least:
            return False
        if not least and longest <= most:
            return True
        return least <= facts.prompt_tokens <= most

    return check


# --- when ---


class Hours:
    """A window of each day, from (included) until (not included); one that ends before it begins goes over midnight."""

    def __init__(self, text: str, name: str | None = None) -> None:
        """Raises ValueError for hours or a time zone that are none."""
        self._from, self._until = hours(text)
        self._zone = zone(name) if name else None
        self._minute, self._truth = -1, False

    def __call__(self, facts: Facts) -> bool:
        minute = int(facts.exchange.at // 60)
        if minute != self._minute:
            self._minute, self._truth = minute, self.includes(facts.exchange.at)
        return self._truth

    def includes(self, at: float) -> bool:
        """*at* is seconds since the epoch."""
        local = datetime.fromtimestamp(at, self._zone)
        now = local.hour * 60 + local.minute
        if self._from < self._until:
            return self._from <= now < self._until
        return now >= self._from or now < self._until
