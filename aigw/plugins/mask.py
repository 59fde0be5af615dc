"""Personal data and secrets, kept from providers: replaced by placeholders on the way out, and put back into the answer.

    caller:    Write to ann@example.org            ->  provider:  Write to <EMAIL_1>
    caller:    Dear ann@example.org, ...           <-  provider:  Dear <EMAIL_1>, ...

What was replaced lives in memory for as long as the exchange does. Nothing of it is logged or counted but how often.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from aigw.canonical import (
    CallDelta,
    Event,
    Finished,
    Media,
    Part,
    RefusalDelta,
    Request,
    Text,
    TextDelta,
    ThinkingDelta,
    ToolCall,
    ToolResult,
)
from aigw.errors import ConfigError
from aigw.hooks import Host, Plugin, View
from aigw.plugins import personal
from aigw.plugins.patterns import Pattern

LONGEST_NAME = 24
"""Characters of a kind's name; placeholders are held back in streams until they are whole, so they must be short."""

_PLACEHOLDER = re.compile(r"<([A-Z][A-Z0-9_]{0,23})_([0-9]{1,6})>")
_BEGUN = re.compile(r"<(?:[A-Z][A-Z0-9_]{0,30})?\Z")


class Custom(msgspec.Struct, forbid_unknown_fields=True):
    """What only you know: words, or a regular expression (Python's). `name` stands in its placeholders."""

    name: str
    words: tuple[str, ...] = ()
    pattern: str = ""


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """`kinds`: what is looked for, of KEY (API keys and tokens), EMAIL, IBAN, ID (mainland China's), CARD, PHONE, IP. `mode`:
    "mask"; "report" only counts; "deny" refuses requests that hold any. `replacement`: "placeholder" is put back into answers;
    "hash" and "fixed" ("***") are not. `tool_arguments`: put back into arguments of tool calls as well."""

    kinds: tuple[str, ...] = ("KEY", "EMAIL", "IBAN", "ID", "CARD", "PHONE")
    custom: tuple[Custom, ...] = ()
    mode: Literal["mask", "report", "deny"] = "mask"
    replacement: Literal["placeholder", "hash", "fixed"] = "placeholder"
    tool_arguments: bool = False


class Mask(Plugin):
    """Replaces personal data and secrets in requests, and puts them back into answers."""

    name = "mask"
    phase = "mask"
    reads = frozenset({"request", "stream"})
    fail = "closed"
    covers = frozenset({"conversation", "embeddings", "rerank", "moderations"})
    Config = Settings
    config: Settings

    def __init__(self, config: Settings, host: Host) -> None:
        super().__init__(config, host)
        key = f"plugins.{host.name}"
        for number, kind in enumerate(config.kinds):
            if kind not in personal.KINDS:
                raise ConfigError(f"expected one of {', '.join(personal.KINDS)}", key=f"{key}.kinds[{number}]")
        self._finders = [_finder(one, f"{key}.custom[{number}]") for number, one in enumerate(config.custom)]
        self._finders += personal.finders(frozenset(config.kinds))
        if not self._finders:
            raise ConfigError("looks for nothing: expected kinds or custom", key=key)

    # requests

    async def request(self, view: View) -> Request | bytes | None:
        masked = Masked(self._replaced)
        if not view.conversation:
            return self._body(view, masked)
        request = view.request
        texts = list(_texts(request))
        masked.avoid(text for text, _ in texts)
        for text, put in texts:
            made = self._text(text, masked)
            if made is not None and self.config.mode == "mask":
                put(made)
        self._count(view, masked)
        if not masked.values or self.config.mode != "mask":
            view.done()
            return None
        if self.config.replacement == "placeholder":
            view.state = masked
        else:
            view.done()
        return request

    def _body(self, view: View, masked: Masked) -> bytes | None:
        """Of what is no conversation: its texts, wherever they stand."""
        try:
            said = msgspec.json.decode(view.body)
        except (msgspec.MsgspecError, RecursionError):
            return None  # whoever reads it next says what is wrong
        if not isinstance(said, dict):
            return None
        for name in ("input", "query", "documents", "texts", "requests", "content"):
            if name in said:
                said[name] = self._inside(said[name], masked)
        self._count(view, masked)
        return msgspec.json.encode(said) if masked.values and self.config.mode == "mask" else None

    def _inside(self, value: Any, masked: Masked) -> Any:
        if isinstance(value, str):
            made = self._text(value, masked)
            return value if made is None else made
        if isinstance(value, list):
            return [self._inside(one, masked) for one in value]
        if isinstance(value, dict):
            return {key: self._inside(one, masked) for key, one in value.items()}
        return value

    def _text(self, text: str, masked: Masked) -> str | None:
        """*text* with replacements; None where there is nothing to replace."""
        found = personal.places(text, self._finders)
        if not found:
            return None
        pieces: list[str] = []
        at = 0
        for one in found:
            pieces += (text[at : one.start], masked.stands_for(text[one.start : one.end], one.kind))
            at = one.end
        return "".join((*pieces, text[at:]))

    def _replaced(self, value: str, kind: str, number: int) -> str:
        if self.config.replacement == "hash":
            return f"<{kind}_{hashlib.sha256(value.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}>"
        return "***" if self.config.replacement == "fixed" else f"<{kind}_{number}>"

    def _count(self, view: View, masked: Masked) -> None:
        for kind, number in masked.counts.items():
            self.host.count(kind.lower(), number)
        if masked.counts and self.config.mode == "deny":
            kinds = ", ".join(sorted(kind.lower() for kind in masked.counts))
            view.refuse(f"This request holds what may not be sent to a provider ({kinds}).", code="policy_content_blocked")

    # answers

    def event(self, view: View, event: Event) -> Sequence[Event] | None:
        masked: Masked | None = view.state
        if masked is None:
            return None
        if view.heard is None:
            view.heard = Restoring(masked, tool_arguments=self.config.tool_arguments)
        restoring: Restoring = view.heard
        return restoring.event(event)


class Masked:
    """What was replaced in one exchange: the same value by the same placeholder, in all its texts."""

    def __init__(self, written: Callable[[str, str, int], str]) -> None:
        self.values: dict[str, str] = {}  # placeholder -> value
        self.counts: dict[str, int] = {}
        self._written = written
        self._known: dict[tuple[str, str], str] = {}
        self._first: dict[str, int] = {}

    def avoid(self, texts: Any) -> None:
        """Number placeholders behind those that callers wrote themselves."""
        for text in texts:
            if "<" in text:
                for match in _PLACEHOLDER.finditer(text):
                    self._first[match[1]] = max(self._first.get(match[1], 0), int(match[2]))

    def stands_for(self, value: str, kind: str) -> str:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        known = self._known.get((kind, value))
        if known is None:
            self._first[kind] = number = self._first.get(kind, 0) + 1
            known = self._known[kind, value] = self._written(value, kind, number)
            self.values[known] = value
        return known


class Restoring:
    """Values put back into one answer, however its placeholders are cut."""

    def __init__(self, masked: Masked, *, tool_arguments: bool) -> None:
        self._values, self._tool_arguments = masked.values, tool_arguments
        self._held: dict[tuple[str, int, int], str] = {}  # kind of text, choice, call -> a beginning that is not whole

    def event(self, event: Event) -> Sequence[Event] | None:
        if isinstance(event, TextDelta):
            return self._piece(event, ("text", event.choice, 0), event.text)
        if isinstance(event, ThinkingDelta):
            return None  # signed by its provider as it is: it comes back with the next request
        if isinstance(event, RefusalDelta):
            return self._piece(event, ("refusal", event.choice, 0), event.text)
        if isinstance(event, CallDelta):
            if not self._tool_arguments:
                return None
            return self._piece(event, ("call", event.choice, event.call), event.arguments)
        choice = getattr(event, "choice", None)
        if choice is None or not self._held:
            return None
        return [*self._flush(choice, "" if isinstance(event, Finished) else "text"), event]

    def _piece(self, event: Any, place: tuple[str, int, int], text: str) -> Sequence[Event] | None:
        held = self._held.pop(place, "")
        if not held and "<" not in text:
            return None
        text = held + text
        match = _BEGUN.search(text)
        if match is not None:
            self._held[place] = text[match.start() :]
            text = text[: match.start()]
        text = self._restored(text, escaped=place[0] == "call")
        if isinstance(event, CallDelta):
            event.arguments = text
        else:
            event.text = text
        return [event] if text or getattr(event, "logprobs", None) or getattr(event, "signature", "") else []

    def _restored(self, text: str, *, escaped: bool) -> str:
        def value(match: re.Match[str]) -> str:
            found = self._values.get(match[0])
            if found is None:
                return match[0]
            return json.dumps(found, ensure_ascii=False)[1:-1] if escaped else found

        return _PLACEHOLDER.sub(value, text)

    def _flush(self, choice: int, kind: str) -> list[Event]:
        """What was held back of a choice (of one kind of text, or of all) and turned out to be no placeholder."""
        found: list[Event] = []
        for place in [place for place in self._held if place[1] == choice and kind in ("", place[0])]:
            text = self._held.pop(place)
            if place[0] == "text":
                found.append(TextDelta(text, choice))
            elif place[0] == "refusal":
                found.append(RefusalDelta(text, choice))
            else:
                found.append(CallDelta(place[2], text, choice))
        return found


def _texts(request: Request) -> Any:
    """Every text of a conversation, and how to put another in its place."""
    for message in request.messages:
        for part in message.parts:
            yield from _of_part(part)


def _of_part(part: Part) -> Any:
    if isinstance(part, (Text, Media)) and part.text:
        yield part.text, _setter(part, "text")
    elif isinstance(part, ToolCall):
        yield part.arguments, _setter(part, "arguments")
    elif isinstance(part, ToolResult):
        for inner in part.parts:
            yield from _of_part(inner)


def _setter(part: Any, field: str) -> Callable[[str], None]:
    return lambda text: setattr(part, field, text)


def _finder(one: Custom, key: str) -> personal.Finder:
    if not re.fullmatch(rf"[A-Z][A-Z0-9_]{{0,{LONGEST_NAME - 1}}}", one.name) or one.name[-1] == "_":
        raise ConfigError(f"expected up to {LONGEST_NAME} capital letters, digits and _", key=f"{key}.name")
    if bool(one.words) == bool(one.pattern) or not all(one.words):
        raise ConfigError("expected words, or a pattern", key=key)
    if one.words:
        longest = sorted(one.words, key=len, reverse=True)
        return personal.patterns(one.name, re.compile("|".join(map(re.escape, longest))))
    try:
        pattern = Pattern(one.pattern)
    except ValueError as error:
        raise ConfigError(str(error), key=f"{key}.pattern") from None
    return lambda text: (personal.Found(start, end, one.name) for start, end in pattern.places(text))
