"""A Messages stream, written. Blocks follow one another and never interleave: while a call is open, the arguments of others
wait. The end is written when all is known: finish and usage come in one event, and not before the stream is over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from aigw.canonical import (
    CallDelta,
    CallStarted,
    CitationDelta,
    Event,
    Finished,
    ForeignPart,
    MediaPart,
    RefusalDelta,
    Spent,
    SpentSoFar,
    Started,
    TextDelta,
    Thinking,
    ThinkingDelta,
)
from aigw.protocols.translation.anthropic_messages.answer import call_id, message_id, no_word
from aigw.protocols.translation.anthropic_messages.blocks import (
    DIALECT,
    citation_object,
    signed_call,
    signed_text,
    stop_reason,
    thought,
    usage_object,
)
from aigw.protocols.translation.contract import Reply

_encode = msgspec.json.encode


def _event(kind: str, value: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), _encode({"type": kind} | value))


class _Call:
    """A call whose block is still to come, or open."""

    __slots__ = ("id", "name", "pieces", "signature")

    def __init__(self, started: CallStarted) -> None:
        self.id, self.name = started.id, started.name
        self.signature = (started.signature, started.origin)
        self.pieces: list[str] = []


class MessagesRenderer:
    """Implements `StreamRenderer`."""

    __slots__ = (
        "_begun",
        "_called",
        "_calls",
        "_current",
        "_finish",
        "_head",
        "_index",
        "_kind",
        "_refused",
        "_reply",
        "_spent",
        "_stop",
        "_tier",
    )

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._begun = self._called = self._refused = False
        self._kind = ""  # of the open block; "" when none is
        self._index = -1  # of the open block, or the last one
        self._head = b""  # of the open text's next delta
        self._current = -1  # the open call
        self._calls: dict[int, _Call] = {}  # the open call, and those that wait
        self._finish: Any = "stop"
        self._stop: str | None = None
        self._spent = Spent()
        self._tier = ""

    def render(self, events: Sequence[Event]) -> bytes:
        out: list[bytes] = []
        for event in events:
            if type(event) is TextDelta and self._kind == "text" and not event.choice and not event.signature:
                if event.text:
                    out.append(self._head + _encode(event.text) + b"}}\n\n")
            else:
                self._write(event, out)
        return b"".join(out)

    def end(self) -> bytes:
        out: list[bytes] = []
        if not self._begun:
            self._start(Started(), out)
        self._close_all(out)
        reason = stop_reason(self._finish, self._stop, called=self._called, refused=self._refused)
        delta = {"stop_reason": reason, "stop_sequence": self._stop}
        usage = usage_object(self._spent)
        usage.pop("cache_creation", None)
        out.append(_event("message_delta", {"delta": delta, "usage": usage}))
        out.append(_event("message_stop", {}))
        return b"".join(out)

    def _write(self, event: Event, out: list[bytes]) -> None:
        if isinstance(event, Started):
            if not self._begun:
                self._start(event, out)
            return
        if isinstance(event, SpentSoFar):
            self._spent = event.spent
            self._tier = event.service_tier or self._tier
            return
        if event.choice:  # a caller of this API asks for one answer
            return
        if not self._begun:
            self._start(Started(), out)
        if isinstance(event, TextDelta):
            self._text(event.text, out)
            if event.signature:
                self._whole(signed_text(event.signature, event.origin), out)
        elif isinstance(event, CallDelta):
            self._arguments(event, out)
        elif isinstance(event, ThinkingDelta):
            self._think(event, out)
        elif isinstance(event, CallStarted):
            self._call(event, out)
        elif isinstance(event, Finished):
            self._finish, self._stop = event.finish, event.stop
            self._close_all(out)
        elif isinstance(event, RefusalDelta):
            self._refused = True
            self._text(event.text, out)
        elif isinstance(event, CitationDelta):
            self._cite(event, out)
        elif isinstance(event, MediaPart):
            raise no_word(event.media)
        elif isinstance(event, ForeignPart):
            foreign = event.foreign
            if foreign.dialect == DIALECT and isinstance(foreign.value, dict):
                self._whole(foreign.value, out)

    def _start(self, started: Started, out: list[bytes]) -> None:
        self._begun = True
        reply = self._reply
        if started.spent is not None:
            self._spent = started.spent
        self._tier = started.service_tier
        message: dict[str, Any] = {
            "id": started.id or message_id(reply),
            "type": "message",
            "role": "assistant",
            "model": reply.model or started.model or reply.request.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage_object(self._spent, self._tier),
        }
        out.append(_event("message_start", {"message": message}))

    # --- blocks ---

    def _open(self, kind: str, block: dict[str, Any], out: list[bytes]) -> None:
        self._close_all(out)
        self._index += 1
        self._kind = kind
        out.append(_event("content_block_start", {"index": self._index, "content_block": block}))

    def _close(self, out: list[bytes]) -> None:
        if self._kind:
            self._kind = ""
            out.append(_event("content_block_stop", {"index": self._index}))

    def _close_all(self, out: list[bytes]) -> None:
        """The open block, and after a call those that waited for it."""
        self._close(out)
        self._current = -1
        waiting, self._calls = self._calls, {}
        for call in waiting.values():
            self._call_block(call, out)
            for piece in call.pieces:
                self._delta({"type": "input_json_delta", "partial_json": piece}, out)
            self._close(out)

    def _delta(self, delta: dict[str, Any], out: list[bytes]) -> None:
        out.append(_event("content_block_delta", {"index": self._index, "delta": delta}))

    def _whole(self, block: dict[str, Any], out: list[bytes]) -> None:
        self._open("whole", block, out)
        self._close(out)

    def _text(self, text: str, out: list[bytes]) -> None:
        if not text:
            return
        if self._kind != "text":
            self._open("text", {"type": "text", "text": ""}, out)
            self._head = (
                b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
                b'"delta":{"type":"text_delta","text":' % self._index
            )
        out.append(self._head + _encode(text) + b"}}\n\n")

    def _cite(self, event: CitationDelta, out: list[bytes]) -> None:
        found = citation_object(event.citation)
        if found is not None and self._kind == "text":
            self._delta({"type": "citations_delta", "citation": found}, out)

    def _think(self, event: ThinkingDelta, out: list[bytes]) -> None:
        if event.text:
            if self._kind != "thinking":
                self._open("thinking", {"type": "thinking", "thinking": "", "signature": ""}, out)
            self._delta({"type": "thinking_delta", "thinking": event.text}, out)
        if not (event.signature or event.hidden):
            return
        open_one = self._kind == "thinking"
        words = "-" if open_one else ""  # whether it has any: what they are was sent
        block = thought(Thinking(words, event.signature, event.hidden, event.origin, event.id))
        if block["type"] == "redacted_thinking":
            self._whole(block, out)
            return
        if not open_one:
            self._open("thinking", {"type": "thinking", "thinking": "", "signature": ""}, out)
        self._delta({"type": "signature_delta", "signature": block["signature"]}, out)
        self._close(out)

    # --- calls ---

    def _call(self, event: CallStarted, out: list[bytes]) -> None:
        self._called = True
        call = _Call(event)
        if not call.id:
            call.id = call_id(self._reply, event.call)
        if self._current >= 0 and self._kind == "call":
            self._calls[event.call] = call
            return
        self._close(out)
        self._call_block(call, out)
        self._current = event.call

    def _call_block(self, call: _Call, out: list[bytes]) -> None:
        signature, origin = call.signature
        if signature:
            self._index += 1
            out.append(_event("content_block_start", {"index": self._index, "content_block": signed_call(signature, origin)}))
            out.append(_event("content_block_stop", {"index": self._index}))
        self._index += 1
        self._kind = "call"
        block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
        out.append(_event("content_block_start", {"index": self._index, "content_block": block}))

    def _arguments(self, event: CallDelta, out: list[bytes]) -> None:
        if event.call == self._current and self._kind == "call":
            if event.arguments:
                self._delta({"type": "input_json_delta", "partial_json": event.arguments}, out)
        elif (call := self._calls.get(event.call)) is not None:
            call.pieces.append(event.arguments)
