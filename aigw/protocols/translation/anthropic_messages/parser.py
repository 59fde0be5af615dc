"""A Messages stream, read."""

from __future__ import annotations

from typing import Any

import msgspec

from aigw.canonical import (
    CallDelta,
    CallStarted,
    CitationDelta,
    Event,
    Finished,
    Foreign,
    ForeignPart,
    RefusalDelta,
    SpentSoFar,
    Started,
    TextDelta,
    ThinkingDelta,
)
from aigw.protocols.anthropic_messages import AnthropicUsage, usage_with
from aigw.protocols.dialect import Said, Told, decode_leniently, says
from aigw.protocols.framing import EventReader
from aigw.protocols.translation.anthropic_messages.answer import explanation
from aigw.protocols.translation.anthropic_messages.blocks import DIALECT, FINISH, JSON_TOOL, TIERS, citation_of
from aigw.protocols.translation.spent import spent_of


class _Message(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    usage: AnthropicUsage | None = None


class _Delta(msgspec.Struct, gc=False):
    type: str | None = None
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    signature: str | None = None
    citation: Any = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: Any = None


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    index: int | None = None
    delta: _Delta | None = None
    message: _Message | None = None
    content_block: dict[str, Any] | None = None
    usage: AnthropicUsage | None = None
    error: Said = msgspec.UNSET


class _Block:
    """An open block that is no text: the number of its call, what has come of its JSON, or another's whole value."""

    __slots__ = ("call", "kind", "pieces", "value")

    def __init__(self, kind: str, call: int = -1, value: dict[str, Any] | None = None) -> None:
        self.kind, self.call, self.value = kind, call, value
        self.pieces: list[str] = []


_event = msgspec.json.Decoder(_Event).decode
_encode = msgspec.json.encode


class MessagesParser:
    """Implements `StreamParser`."""

    __slots__ = ("_as_json", "_blocks", "_calls", "_reader", "_seen", "begun", "done", "failed", "told")

    def __init__(self) -> None:
        self.told = Told()
        self.failed = b""
        self.begun = self.done = False
        self._reader = EventReader()
        self._seen = AnthropicUsage()
        self._blocks: dict[int, _Block] = {}
        self._calls = 0
        self._as_json = False

    def feed(self, block: bytes) -> list[Event]:
        return self._read(self._reader.feed(block))

    def end(self) -> list[Event]:
        return self._read(self._reader.end())

    def _read(self, found: list[bytes]) -> list[Event]:
        events: list[Event] = []
        for data in found:
            if self.done or self.failed:
                break
            try:
                event = _event(data)
            except (msgspec.DecodeError, RecursionError, UnicodeError):
                mended = _mended(data)
                if mended is None:
                    continue
                event = mended
            delta = event.delta
            if event.type == "content_block_delta" and delta is not None:
                if delta.type == "text_delta" and delta.text:
                    self.begun = True
                    events.append(TextDelta(delta.text))
                else:
                    self._delta(event.index or 0, delta, events)
            else:
                self._other(event, data, events)
        return events

    def _delta(self, index: int, delta: _Delta, events: list[Event]) -> None:
        if delta.partial_json is not None:
            block = self._blocks.get(index)
            if block is None or not delta.partial_json:
                return
            self.begun = True
            if block.kind == "json":
                events.append(TextDelta(delta.partial_json))
            elif block.call >= 0:
                events.append(CallDelta(block.call, delta.partial_json))
            block.pieces.append(delta.partial_json)
        elif delta.thinking:
            self.begun = True
            events.append(ThinkingDelta(delta.thinking, origin=DIALECT))
        elif delta.signature:
            self.begun = True
            events.append(ThinkingDelta(signature=delta.signature, origin=DIALECT))
        elif delta.citation is not None and (citation := citation_of(delta.citation)) is not None:
            events.append(CitationDelta(citation))

    def _other(self, event: _Event, data: bytes, events: list[Event]) -> None:
        if event.type == "error" or says(event.error):
            self.failed = data
        elif event.type == "content_block_start" and event.content_block is not None:
            self._start(event.index or 0, event.content_block, events)
        elif event.type == "content_block_stop":
            self._stop(event.index or 0, events)
        elif event.type == "message_start" and event.message is not None:
            message = event.message
            self.told.model = message.model or ""
            self._count(message.usage)
            usage = self.told.usage
            spent, tier = (None, "") if usage is None else (spent_of(usage), TIERS.get(usage.service_tier, ""))
            events.append(Started(message.id or "", message.model or "", 0, spent, tier))
        elif event.type == "message_delta":
            self._count(event.usage)
            self._finish(event.delta or _Delta(), events)
        elif event.type == "message_stop":
            self.done = True

    def _start(self, index: int, block: dict[str, Any], events: list[Event]) -> None:
        kind = block.get("type")
        if kind == "text":
            text = block.get("text")
            if isinstance(text, str) and text:
                self.begun = True
                events.append(TextDelta(text))
        elif kind == "thinking":
            text, signature = block.get("thinking"), block.get("signature")
            if isinstance(text, str) and text:
                events.append(ThinkingDelta(text, origin=DIALECT))
            if isinstance(signature, str) and signature:
                events.append(ThinkingDelta(signature=signature, origin=DIALECT))
        elif kind == "redacted_thinking":
            self.begun = True
            hidden = block.get("data")
            events.append(ThinkingDelta(hidden=hidden if isinstance(hidden, str) else "", origin=DIALECT))
        elif kind == "tool_use":
            self._call(index, block, events)
        elif isinstance(kind, str) and kind:
            self._blocks[index] = _Block("foreign", value=block)

    def _call(self, index: int, block: dict[str, Any], events: list[Event]) -> None:
        self.begun = True
        name, known, given = block.get("name"), block.get("id"), block.get("input")
        if name == JSON_TOOL:
            self._as_json = True
            opened = _Block("json")
        else:
            opened = _Block("call", self._calls)
            self._calls += 1
            events.append(
                CallStarted(opened.call, known if isinstance(known, str) else "", name if isinstance(name, str) else "")
            )
        if isinstance(given, dict) and given:  # some send it whole
            opened.value = given
        self._blocks[index] = opened

    def _stop(self, index: int, events: list[Event]) -> None:
        block = self._blocks.pop(index, None)
        if block is None:
            return
        if block.kind == "foreign":
            value = block.value or {}
            if block.pieces:
                value = value | {"input": _input("".join(block.pieces))}
            events.append(ForeignPart(Foreign(DIALECT, str(value.get("type")), value)))
        elif not block.pieces:  # a call without arguments
            whole = _encode(block.value or {}).decode()
            events.append(TextDelta(whole) if block.kind == "json" else CallDelta(block.call, whole))

    def _count(self, usage: AnthropicUsage | None) -> None:
        if usage is not None:
            self.told.usage = usage_with(self._seen, usage)

    def _finish(self, delta: _Delta, events: list[Event]) -> None:
        reason = delta.stop_reason
        if reason:
            for index in list(self._blocks):  # a host that ends no block
                self._stop(index, events)
            self.told.finish_reason = reason
            finish = FINISH.get(reason, "stop")
            if self._calls and finish == "stop":
                finish = "tool_calls"
            elif self._as_json and not self._calls and finish == "tool_calls":
                finish = "stop"
            if finish == "content_filter" and (words := explanation(delta.stop_details)):
                events.append(RefusalDelta(words))
            events.append(Finished(finish, delta.stop_sequence))
        usage = self.told.usage
        if usage is not None:
            events.append(SpentSoFar(spent_of(usage), TIERS.get(usage.service_tier, "")))


def _input(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return {}


def _mended(data: bytes) -> _Event | None:
    """An event of odd JSON (half a surrogate pair, say), or with odd types inside; None when it is none at all."""
    try:
        value = decode_leniently(data)
    except (ValueError, RecursionError):
        return None
    try:
        return msgspec.convert(value, _Event, strict=False)
    except (ValueError, RecursionError):
        kind = value.get("type")
        return _Event("error") if kind == "error" or value.get("error") else None
