"""A ConverseStream, read: binary frames, each with an event's name in its head and JSON inside."""

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
    SpentSoFar,
    Started,
    TextDelta,
    ThinkingDelta,
)
from aigw.protocols.dialect import Told, decode_leniently
from aigw.protocols.eventstream import BrokenFrameError, Frame, FrameReader
from aigw.protocols.translation.bedrock_converse.answer import DIALECT, citation_of, finish_of, stop_of, usage_of
from aigw.protocols.translation.spent import spent_of

_encode = msgspec.json.encode


class _Input(msgspec.Struct, gc=False):
    input: str = ""


class _Thought(msgspec.Struct, gc=False):
    text: str | None = None
    signature: str | None = None
    redactedContent: str | None = None  # noqa: N815 - the wire's name


class _Delta(msgspec.Struct, gc=False):
    text: str | None = None
    toolUse: _Input | None = None  # noqa: N815 - the wire's name
    reasoningContent: _Thought | None = None  # noqa: N815 - the wire's name
    citation: dict[str, Any] | None = None


class _Piece(msgspec.Struct, gc=False):
    contentBlockIndex: int = 0  # noqa: N815 - the wire's name
    delta: _Delta | None = None


_piece = msgspec.json.Decoder(_Piece).decode


class ConverseParser:
    """Implements `StreamParser`. A wrong checksum ends the stream: nothing behind it can be trusted."""

    __slots__ = ("_calls", "_reader", "_silent", "begun", "done", "failed", "told")

    def __init__(self) -> None:
        self.told = Told()
        self.failed = b""
        self.begun = self.done = False
        self._reader = FrameReader()
        self._calls: dict[int, int] = {}  # a block's number -> its call's
        self._silent: set[int] = set()  # calls whose arguments have not begun

    def feed(self, block: bytes) -> list[Event]:
        events: list[Event] = []
        if self._over():
            return events
        try:
            frames = self._reader.feed(block)
        except BrokenFrameError as error:
            self._fail("broken_stream", f"sent a broken stream: {error}")
            return events
        for frame in frames:
            self._frame(frame, events)
            if self._over():
                break
        return events

    def end(self) -> list[Event]:
        if self._reader.torn and not self._over():
            self._fail("broken_stream", "broke off its stream inside a frame")
        return []

    def _over(self) -> bool:
        return self.done or bool(self.failed)

    def _frame(self, frame: Frame, events: list[Event]) -> None:
        headers, payload = frame
        kind = headers.get(":event-type", "")
        if headers.get(":message-type", "event") != "event":
            self._refused(headers, payload)
        elif kind == "contentBlockDelta":
            self._delta(payload, events)
        elif kind in ("messageStart", "contentBlockStart", "contentBlockStop", "messageStop", "metadata"):
            try:
                value = decode_leniently(payload)
            except ValueError:
                return
            self._event(kind, value, events)

    def _delta(self, payload: bytes, events: list[Event]) -> None:
        try:
            piece = _piece(payload)
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            try:
                piece = msgspec.convert(decode_leniently(payload), _Piece, strict=False)
            except (ValueError, RecursionError):
                return
        delta = piece.delta
        if delta is None:
            return
        if delta.text:
            self.begun = True
            events.append(TextDelta(delta.text))
        elif delta.toolUse is not None:
            call = self._calls.get(piece.contentBlockIndex)
            if call is not None and delta.toolUse.input:
                self.begun = True
                self._silent.discard(call)
                events.append(CallDelta(call, delta.toolUse.input))
        elif delta.reasoningContent is not None:
            thought = delta.reasoningContent
            self.begun = True
            if thought.redactedContent:
                events.append(ThinkingDelta(hidden=thought.redactedContent, origin=DIALECT))
            elif thought.text or thought.signature:
                events.append(ThinkingDelta(thought.text or "", thought.signature or "", origin=DIALECT))
        elif delta.citation is not None:
            events.append(CitationDelta(citation_of(delta.citation)))

    def _event(self, kind: str, value: dict[str, Any], events: list[Event]) -> None:
        if kind == "messageStart":
            events.append(Started())
        elif kind == "contentBlockStart":
            self._start(value, events)
        elif kind == "contentBlockStop":
            call = self._calls.get(_index(value))
            if call is not None and call in self._silent:
                self._silent.discard(call)
                events.append(CallDelta(call, "{}"))
        elif kind == "messageStop":
            reason = value.get("stopReason")
            self.told.finish_reason = reason if isinstance(reason, str) and reason else "end_turn"
            finish = finish_of(self.told.finish_reason, called=bool(self._calls))
            events.append(Finished(finish, stop_of(value.get("additionalModelResponseFields"))))
        else:
            usage = usage_of(value.get("usage"), value.get("serviceTier"))
            if usage is not None:
                self.told.usage = usage
                events.append(SpentSoFar(spent_of(usage), usage.service_tier))
            self.done = bool(self.told.finish_reason)  # the last event, as the service model has it

    def _start(self, value: dict[str, Any], events: list[Event]) -> None:
        start = value.get("start")
        if not isinstance(start, dict) or not start:
            return
        call = start.get("toolUse")
        if not isinstance(call, dict):
            kind = next(iter(start))
            events.append(ForeignPart(Foreign(DIALECT, kind, start)))
            return
        self.begun = True
        number = self._calls[_index(value)] = len(self._calls)
        self._silent.add(number)
        known, name = call.get("toolUseId"), call.get("name")
        events.append(CallStarted(number, known if isinstance(known, str) else "", name if isinstance(name, str) else ""))

    def _refused(self, headers: Any, payload: bytes) -> None:
        """An exception (modelled: its name is in the head, its message inside) or an error (all of it is in the head)."""
        kind = headers.get(":exception-type") or headers.get(":error-code") or "error"
        said: dict[str, Any] = {}
        try:
            said = decode_leniently(payload)
        except ValueError:
            pass
        message = said.get("message") or said.get("Message") or headers.get(":error-message") or ""
        original = said.get("originalStatusCode")
        self._fail(kind, message if isinstance(message, str) else "", original if isinstance(original, int) else None)

    def _fail(self, kind: str, message: str, original: int | None = None) -> None:
        error: dict[str, Any] = {"type": kind, "message": message}
        if original is not None:
            error["originalStatusCode"] = original
        self.failed = _encode({"error": error})


def _index(value: dict[str, Any]) -> int:
    index = value.get("contentBlockIndex")
    return index if isinstance(index, int) else 0
