"""A Responses stream: read into canonical events, and written from them.

Every event has a number, every item comes whole at its end, and the last event holds the whole answer again; so the renderer
keeps what it has written. What comes for each piece of text is laid out beforehand and only filled in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from aigw.canonical import (
    CallDelta,
    CallStarted,
    Citation,
    CitationDelta,
    Event,
    Finish,
    Finished,
    Foreign,
    ForeignPart,
    Media,
    MediaPart,
    Part,
    Refusal,
    RefusalDelta,
    Spent,
    SpentSoFar,
    Started,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolCall,
)
from aigw.protocols.dialect import Said, Told, says
from aigw.protocols.framing import EventReader
from aigw.protocols.openai_responses import OpenAIResponses
from aigw.protocols.translation.contract import Reply
from aigw.protocols.translation.openai_responses import answer, items
from aigw.protocols.translation.openai_responses.items import OWN
from aigw.protocols.translation.spent import spent_of

# --- reading ---


class _Piece(msgspec.Struct, gc=False):
    """What a piece of text or of a call's arguments needs: all that most events have."""

    type: str = ""
    delta: Any = None
    output_index: int = 0
    summary_index: int = 0
    item: msgspec.Raw = msgspec.Raw()
    response: msgspec.Raw = msgspec.Raw()
    annotation: Any = None
    logprobs: Any = None
    error: Said = msgspec.UNSET


class _Head(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    created_at: Any = None
    service_tier: Any = None


_piece = msgspec.json.Decoder(_Piece).decode
_head = msgspec.json.Decoder(_Head).decode
_item = msgspec.json.Decoder(dict[str, Any]).decode
_dialect = OpenAIResponses()

_TERMINAL = ("response.completed", "response.incomplete", "response.cancelled")
_HIDES = ("response.failed", "error")


class Parser:
    """Implements `StreamParser`."""

    def __init__(self) -> None:
        self.told = Told()
        self.failed = b""
        self.begun = self.done = False
        self._reader = EventReader()
        self._calls: dict[int, int] = {}  # output index -> which call
        self._texted: set[int] = set()  # output indices of which pieces came
        self._summary: dict[int, int] = {}  # output index -> the part of a thought that its last piece was of
        self._parts: list[Part] = []
        self._started = False

    def feed(self, block: bytes) -> list[Event]:
        found: list[Event] = []
        for data in self._reader.feed(block):
            self._read(data, found)
            if self.done or self.failed:
                break
        return found

    def end(self) -> list[Event]:
        found: list[Event] = []
        for data in self._reader.end():
            if not (self.done or self.failed):
                self._read(data, found)
        return found

    def _read(self, data: bytes, found: list[Event]) -> None:
        try:
            piece = _piece(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            if b'"error"' in data and data[:1] == b"{":
                self._odd_error(data)
            return
        kind = piece.type
        if kind == "response.output_text.delta":
            if isinstance(piece.delta, str):
                self.begun = True
                self._texted.add(piece.output_index)
                found.append(TextDelta(piece.delta, 0, {"content": piece.logprobs} if piece.logprobs else None))
        elif kind in ("response.function_call_arguments.delta", "response.custom_tool_call_input.delta"):
            call = self._calls.get(piece.output_index)
            if call is not None and isinstance(piece.delta, str):
                self._texted.add(piece.output_index)
                found.append(CallDelta(call, piece.delta))
        elif kind in ("response.reasoning_summary_text.delta", "response.reasoning_text.delta"):
            self._think(piece, found)
        elif kind == "response.refusal.delta":
            if isinstance(piece.delta, str):
                self.begun = True
                self._texted.add(piece.output_index)
                self._parts.append(Refusal(""))
                found.append(RefusalDelta(piece.delta))
        elif kind in _HIDES or says(piece.error):
            self.failed = data
        elif bytes(piece.item):
            self._item(piece, found)
        elif bytes(piece.response):
            self._response(kind, bytes(piece.response), found)
        elif kind == "response.output_text.annotation.added" and isinstance(piece.annotation, dict):
            citation = answer.citation_of(piece.annotation)
            if citation is not None:
                found.append(CitationDelta(citation))

    def _odd_error(self, data: bytes) -> None:
        """An error whose other members are of odd types is an error all the same."""
        try:
            raw = _item(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return
        if raw.get("error") or raw.get("type") in _HIDES:
            self.failed = data

    def _think(self, piece: _Piece, found: list[Event]) -> None:
        if not isinstance(piece.delta, str):
            return
        self.begun = True
        at = piece.output_index
        self._texted.add(at)
        text = piece.delta
        if self._summary.get(at, piece.summary_index) != piece.summary_index:
            text = "\n\n" + text  # a summary in parts is one thought
        self._summary[at] = piece.summary_index
        found.append(ThinkingDelta(text, origin=OWN))

    def _item(self, piece: _Piece, found: list[Event]) -> None:
        try:
            item = _item(piece.item)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return
        kind, at = item.get("type"), piece.output_index
        is_call = kind in ("function_call", "custom_tool_call")
        if is_call and at not in self._calls:
            self.begun = True
            self._calls[at] = len(self._calls)
            call = answer.parts_of(item)[0]
            assert isinstance(call, ToolCall)
            self._parts.append(call)
            found.append(CallStarted(self._calls[at], call.id, call.name, call.custom))
        if piece.type != "response.output_item.done":
            return
        if is_call:
            given = item.get("input" if kind == "custom_tool_call" else "arguments")
            if at not in self._texted and isinstance(given, str) and given:
                found.append(CallDelta(self._calls[at], given))
        elif kind == "reasoning":
            self._thought(item, at, found)
        elif kind == "message":
            if at not in self._texted:
                for part in answer.parts_of(item):
                    self._whole(part, found)
        else:
            for part in answer.parts_of(item):
                self._whole(part, found)

    def _whole(self, part: Part, found: list[Event]) -> None:
        """Some hosts send no pieces."""
        self.begun = True
        self._parts.append(part)
        if isinstance(part, Text):
            found.append(TextDelta(part.text))
            found += [CitationDelta(citation) for citation in part.citations]
        elif isinstance(part, Refusal):
            found.append(RefusalDelta(part.text))
        elif isinstance(part, Media):
            found.append(MediaPart(part))
        elif isinstance(part, Foreign):
            found.append(ForeignPart(part))

    def _thought(self, item: dict[str, Any], at: int, found: list[Event]) -> None:
        thought = answer.thought_of(item)
        if thought is None:
            return
        self.begun = True
        if at in self._texted:
            if thought.signature or thought.hidden:
                found.append(ThinkingDelta("", thought.signature or thought.hidden, "", OWN, thought.id))
        else:
            found.append(ThinkingDelta(thought.text, thought.signature, thought.hidden, OWN, thought.id))

    def _response(self, kind: str, raw: bytes, found: list[Event]) -> None:
        try:
            told = _dialect.read_answer(raw)
        except ValueError:
            return
        self.told.model = told.model or self.told.model
        self.told.usage = told.usage or self.told.usage
        if not self._started:
            self._started = True
            try:
                head = _head(raw)
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                head = _Head()
            created = int(head.created_at) if isinstance(head.created_at, (int, float)) else 0
            tier = head.service_tier if isinstance(head.service_tier, str) else ""
            found.insert(0, Started(head.id or "", told.model, created, None, tier))
        if kind not in _TERMINAL:
            return
        self.told.finish_reason = told.finish_reason or kind.rpartition(".")[2]
        found.append(Finished(answer.finish_of(self.told.finish_reason, self._parts)))
        if told.usage is not None:
            found.append(SpentSoFar(spent_of(told.usage), told.usage.service_tier))
        self.done = True


# --- writing ---

_encode = msgspec.json.encode


class _Open:
    """An item that is not whole yet. `pieces` of the part that grows; `lead` and `tail` are what stands around a piece in its
    event."""

    __slots__ = ("annotations", "content", "id", "index", "kind", "lead", "logprobs", "part", "pieces", "tail")

    def __init__(self, kind: str, index: int, item_id: str, part: Any = None) -> None:
        self.kind, self.index, self.id, self.part = kind, index, item_id, part
        self.pieces: list[str] = []
        self.content: list[dict[str, Any]] = []  # of a message: its parts that are whole
        self.annotations: list[dict[str, Any]] = []
        self.logprobs: list[Any] = []
        self.lead = self.tail = b""


class Renderer:
    """Implements `StreamRenderer`."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._called = items.called(reply.request)
        self._head: answer.Head | None = None
        self._number = 0
        self._output: dict[int, dict[str, Any]] = {}  # whole items
        self._next = 0
        self._message: _Open | None = None
        self._growing = ""  # which part of it grows: "text", "refusal", or ""
        self._thinking: _Open | None = None
        self._calls: dict[int, _Open] = {}
        self._finish: Finish = "stop"
        self._refused = False
        self._spent: Spent | None = None
        self._tier = ""
        self._text_signed: TextDelta | None = None

    def render(self, events: Sequence[Event]) -> bytes:
        out: list[bytes] = []
        for event in events:
            kind = event.__class__
            if kind is TextDelta:
                self._text(event, out)  # type: ignore[arg-type]  # its class says what it is
            elif kind is CallDelta:
                self._call_piece(event, out)  # type: ignore[arg-type]
            else:
                self._other(event, out)
        return b"".join(out)

    def end(self) -> bytes:
        out: list[bytes] = []
        self._begin(out)
        self._close(out)
        self._end_calls(out)
        assert self._head is not None
        output = [self._output[index] for index in sorted(self._output)]
        whole = self._head.whole(output, self._finish, self._refused, self._spent, self._tier)
        self._event(out, f"response.{whole['status']}", {"response": whole})
        return b"".join(out)

    # events

    def _event(self, out: list[bytes], kind: str, fields: dict[str, Any]) -> None:
        name = kind.encode()
        data = _encode({"type": kind, **fields, "sequence_number": self._number})
        self._number += 1
        out.append(b"event: %b\ndata: %b\n\n" % (name, data))

    def _frame(self, kind: str, item: _Open, more: bytes) -> None:
        """Lay out the event of a piece of *item*."""
        name = kind.encode()
        where = b'"item_id":%b,"output_index":%d' % (_encode(item.id), item.index)
        item.lead = b'event: %b\ndata: {"type":"%b",%b%b,"delta":' % (name, name, where, more)
        item.tail = b',"sequence_number":'

    def _piece(self, out: list[bytes], item: _Open, text: str) -> None:
        item.pieces.append(text)
        out.append(b"%b%b%b%d}\n\n" % (item.lead, _encode(text), item.tail, self._number))
        self._number += 1

    def _begin(self, out: list[bytes], started: Started | None = None) -> None:
        if self._head is not None:
            return
        said = started or Started()
        self._head = head = answer.Head(said.id, said.model, said.created, self._reply)
        self._event(out, "response.created", {"response": head.object("in_progress", [])})
        self._event(out, "response.in_progress", {"response": head.object("in_progress", [])})

    def _open(self, kind: str, prefix: str, part: Any = None, item_id: str = "") -> _Open:
        item = _Open(kind, self._next, item_id or items.made_id(prefix, self._reply.id, self._next), part)
        self._next += 1
        return item

    def _added(self, out: list[bytes], item: _Open, shown: dict[str, Any]) -> None:
        self._event(out, "response.output_item.added", {"output_index": item.index, "item": shown})

    def _done(self, out: list[bytes], item: _Open, whole: dict[str, Any]) -> None:
        self._output[item.index] = whole
        self._event(out, "response.output_item.done", {"output_index": item.index, "item": whole})

    def _at_once(self, out: list[bytes], kind: str, prefix: str, shown: dict[str, Any]) -> None:
        """An item that comes whole."""
        item = self._open(kind, prefix, item_id=str(shown.get("id") or ""))
        shown = shown | {"id": item.id}
        self._added(out, item, shown)
        self._done(out, item, shown)

    # texts and refusals

    def _text(self, event: TextDelta, out: list[bytes]) -> None:
        if event.choice:
            return
        message = self._message
        if message is None or self._growing != "text":
            if not event.text:
                if event.signature:
                    self._text_signed = event
                return
            message = self._grow("text", out)
        if event.logprobs is not None:
            logprobs = answer.logprobs_out(event.logprobs)
            message.logprobs += logprobs
            fields = {"item_id": message.id, "output_index": message.index, "content_index": len(message.content)}
            message.pieces.append(event.text)
            self._event(out, "response.output_text.delta", {**fields, "delta": event.text, "logprobs": logprobs})
        elif event.text:
            self._piece(out, message, event.text)
        if event.signature:
            self._text_signed = event

    def _grow(self, what: str, out: list[bytes]) -> _Open:
        """The open message, with a part of this kind that grows."""
        self._begin(out)
        message = self._message
        if message is None:
            self._close(out)
            message = self._message = self._open("message", "msg")
            self._added(out, message, answer.message_item(message.id, [], "in_progress"))
        elif self._growing:
            self._end_part(out, message)
        self._growing = what
        at = len(message.content)
        empty = answer.text_part("") if what == "text" else answer.refusal_part("")
        where = {"item_id": message.id, "output_index": message.index, "content_index": at}
        self._event(out, "response.content_part.added", {**where, "part": empty})
        if what == "text":
            self._frame("response.output_text.delta", message, b',"content_index":%d,"logprobs":[]' % at)
        else:
            self._frame("response.refusal.delta", message, b',"content_index":%d' % at)
        return message

    def _end_part(self, out: list[bytes], message: _Open) -> None:
        text = "".join(message.pieces)
        where = {"item_id": message.id, "output_index": message.index, "content_index": len(message.content)}
        if self._growing == "text":
            part = answer.text_part(text) | {"annotations": message.annotations, "logprobs": message.logprobs}
            self._event(out, "response.output_text.done", {**where, "text": text, "logprobs": message.logprobs})
        else:
            part = answer.refusal_part(text)
            self._event(out, "response.refusal.done", {**where, "refusal": text})
        self._event(out, "response.content_part.done", {**where, "part": part})
        message.content.append(part)
        message.pieces, message.annotations, message.logprobs = [], [], []
        self._growing = ""

    def _cite(self, citation: Citation, out: list[bytes]) -> None:
        message = self._message
        if message is None or self._growing != "text":
            return
        found = answer.annotation(citation, "".join(message.pieces))
        where = {"item_id": message.id, "output_index": message.index, "content_index": len(message.content)}
        at = len(message.annotations)
        self._event(out, "response.output_text.annotation.added", {**where, "annotation_index": at, "annotation": found})
        message.annotations.append(found)

    # thoughts

    def _think(self, event: ThinkingDelta, out: list[bytes]) -> None:
        if event.hidden:
            self._close(out)
            thought = Thinking("", event.signature, event.hidden, event.origin, event.id)
            self._at_once(out, "reasoning", "rs", items.reasoning_item(thought, ""))
            return
        item = self._thinking
        if event.text:
            if item is None:
                item = self._begin_thought(event, out)
            self._piece(out, item, event.text)
        if event.signature:
            if item is None:
                item = self._begin_thought(event, out)
            item.part.signature, item.part.origin = event.signature, event.origin
            item.part.id = item.part.id or event.id
            self._end_thought(out)

    def _begin_thought(self, event: ThinkingDelta, out: list[bytes]) -> _Open:
        self._close(out)
        item = self._thinking = self._open("reasoning", "rs", Thinking(origin=event.origin, id=event.id), event.id)
        self._added(out, item, {"id": item.id, "type": "reasoning", "summary": []})
        where = {"item_id": item.id, "output_index": item.index, "summary_index": 0}
        if event.text:
            empty = {"type": "summary_text", "text": ""}
            self._event(out, "response.reasoning_summary_part.added", {**where, "part": empty})
        self._frame("response.reasoning_summary_text.delta", item, b',"summary_index":0')
        return item

    def _end_thought(self, out: list[bytes]) -> None:
        item, self._thinking = self._thinking, None
        assert item is not None
        thought: Thinking = item.part
        thought.text, thought.id = "".join(item.pieces), item.id
        where = {"item_id": item.id, "output_index": item.index, "summary_index": 0}
        if thought.text:
            self._event(out, "response.reasoning_summary_text.done", {**where, "text": thought.text})
            part = {"type": "summary_text", "text": thought.text}
            self._event(out, "response.reasoning_summary_part.done", {**where, "part": part})
        self._done(out, item, items.reasoning_item(thought, item.id))

    # calls

    def _call(self, event: CallStarted, out: list[bytes]) -> None:
        if event.call in self._calls:
            return
        self._end_message(out)
        if self._thinking is not None:
            self._end_thought(out)
        if event.signature:
            mark = ToolCall(event.id, event.name, signature=event.signature, origin=event.origin)
            self._at_once(out, "reasoning", "rs", items.mark_item(mark, ""))
        known = self._called.get(event.name)
        custom = event.custom or (known is not None and known.custom)
        call = ToolCall(event.id or items.made_id("call", self._reply.id, self._next), event.name, "", event.custom)
        item = self._calls[event.call] = self._open("custom" if custom else "function", "ctc" if custom else "fc", call)
        self._added(out, item, answer.call_item(call, known, item.id, "in_progress"))
        kind = "response.custom_tool_call_input.delta" if custom else "response.function_call_arguments.delta"
        self._frame(kind, item, b"")

    def _call_piece(self, event: CallDelta, out: list[bytes]) -> None:
        item = self._calls.get(event.call)
        if item is None or event.choice or not event.arguments or item.index in self._output:
            return
        if item.kind == "custom" and not item.part.custom:
            item.pieces.append(event.arguments)  # JSON around free text: only the whole of it can be read
        else:
            self._piece(out, item, event.arguments)

    def _end_calls(self, out: list[bytes]) -> None:
        for item in self._calls.values():
            call: ToolCall = item.part
            if item.index in self._output:
                continue
            call.arguments = "".join(item.pieces) or ("" if call.custom else "{}")
            whole = answer.call_item(call, self._called.get(call.name), item.id, "completed")
            where = {"item_id": item.id, "output_index": item.index}
            if item.kind == "custom":
                if not call.custom and whole["input"]:
                    self._piece(out, item, whole["input"])
                self._event(out, "response.custom_tool_call_input.done", {**where, "input": whole["input"]})
            else:
                if not item.pieces:
                    self._piece(out, item, call.arguments)
                fields = {**where, "name": whole["name"], "arguments": call.arguments}
                self._event(out, "response.function_call_arguments.done", fields)
            self._done(out, item, whole)

    # the rest

    def _other(self, event: Event, out: list[bytes]) -> None:
        if isinstance(event, Started):
            self._begin(out, event)
            self._spent, self._tier = event.spent or self._spent, event.service_tier or self._tier
            return
        if isinstance(event, SpentSoFar):
            self._spent, self._tier = event.spent, event.service_tier or self._tier
            return
        if event.choice:
            return
        self._begin(out)
        if isinstance(event, ThinkingDelta):
            self._think(event, out)
        elif isinstance(event, CallStarted):
            self._call(event, out)
        elif isinstance(event, RefusalDelta):
            self._refused = True
            if event.text:
                message = self._message if self._growing == "refusal" else None
                self._piece(out, message or self._grow("refusal", out), event.text)
        elif isinstance(event, CitationDelta):
            self._cite(event.citation, out)
        elif isinstance(event, Finished):
            self._finish = event.finish
            self._close(out)
            self._end_calls(out)
        elif isinstance(event, MediaPart):
            self._close(out)
            self._at_once(out, "image", "ig", answer.media_item(event.media, ""))
        elif isinstance(event, ForeignPart) and event.foreign.dialect == OWN:
            self._close(out)
            self._at_once(out, event.foreign.type, "item", event.foreign.value)

    def _end_message(self, out: list[bytes]) -> None:
        message, signed = self._message, self._text_signed
        if message is not None:
            if self._growing:
                self._end_part(out, message)
            self._message = None
            self._done(out, message, answer.message_item(message.id, message.content))
        if signed is not None:
            self._text_signed = None
            mark = Text("", signature=signed.signature, origin=signed.origin)
            self._at_once(out, "reasoning", "rs", items.mark_item(mark, ""))

    def _close(self, out: list[bytes]) -> None:
        """What is open is whole now, but for calls: pieces of them may come between all else."""
        if self._thinking is not None:
            self._end_thought(out)
        self._end_message(out)
