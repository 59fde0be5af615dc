"""Gemini's streams, read and written. Each event is an answer with some more parts; calls come whole; nothing but the end of
the connection says that all is said, so reasons and usage are kept until then: the last ones count."""

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
    Foreign,
    ForeignPart,
    Media,
    MediaPart,
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
from aigw.protocols.dialect import Told, says
from aigw.protocols.framing import EventReader
from aigw.protocols.gemini import usage_of
from aigw.protocols.translation.contract import Reply
from aigw.protocols.translation.gemini import answer as whole
from aigw.protocols.translation.gemini.answer import Candidate, Chunk
from aigw.protocols.translation.spent import spent_of

_encode = msgspec.json.encode


class GeminiParser:
    """Implements `StreamParser`."""

    def __init__(self) -> None:
        self.told = Told()
        self.failed = b""
        self.begun = False
        self.done = False
        self._reader = EventReader()
        self._started = False
        self._calls: dict[int, int] = {}
        self._reasons: dict[int, str] = {}
        self._tier = ""

    def feed(self, block: bytes) -> list[Event]:
        return self._read(self._reader.feed(block))

    def end(self) -> list[Event]:
        events = self._read(self._reader.end())
        if self.failed or not self.told.finish_reason:
            return events
        for choice, reason in sorted(self._reasons.items()):
            events.append(Finished(whole.finish_of(reason, called=choice in self._calls), None, choice))
        if self.told.usage is not None:
            events.append(SpentSoFar(spent_of(self.told.usage), self._tier))
        self.done = True
        return events

    def _read(self, found: list[bytes]) -> list[Event]:
        events: list[Event] = []
        for data in found:
            if self.failed:
                break
            try:
                chunk = whole.decode(data)
            except (ValueError, RecursionError):
                continue
            if chunk.error is not msgspec.UNSET and says(chunk.error):
                self.failed = data
                break
            self._chunk(chunk, events)
        return events

    def _chunk(self, chunk: Chunk, events: list[Event]) -> None:
        if not self._started:
            self._started = True
            self.told.model = chunk.model_version or ""
            events.append(Started(chunk.response_id or "", self.told.model))
        if chunk.usage_metadata is not None:
            self.told.usage = usage = usage_of(chunk.usage_metadata)
            self._tier = usage.service_tier
        for number, candidate in enumerate(chunk.candidates or ()):
            self._candidate(candidate, candidate.index or number, events)
        if chunk.prompt_feedback is not None and chunk.prompt_feedback.block_reason:
            self.told.finish_reason = chunk.prompt_feedback.block_reason
            self._reasons[0] = "SAFETY"

    def _candidate(self, candidate: Candidate, at: int, events: list[Event]) -> None:
        parts = candidate.content.parts if candidate.content is not None else None
        logprobs = None if candidate.logprobs_result is None else whole.logprobs_of(candidate.logprobs_result)
        for said in parts or ():
            if said.text and said.thought_signature is None:  # nearly all of them
                events.append(ThinkingDelta(said.text, choice=at) if said.thought else TextDelta(said.text, at, logprobs))
                self.begun = True
                logprobs = None
                continue
            part = whole.part_of(said)
            if part is None:
                continue
            self.begun = True
            if isinstance(part, Text):
                events.append(TextDelta(part.text, at, logprobs, part.signature, part.origin))
                logprobs = None
            elif isinstance(part, Thinking):
                events.append(ThinkingDelta(part.text, part.signature, origin=part.origin, choice=at))
            elif isinstance(part, ToolCall):
                call = self._calls.get(at, 0)
                self._calls[at] = call + 1
                events.append(CallStarted(call, part.id, part.name, False, part.signature, part.origin, at))
                events.append(CallDelta(call, part.arguments, at))
            elif isinstance(part, Media):
                events.append(MediaPart(part, at))
            elif isinstance(part, Foreign):
                events.append(ForeignPart(part, at))
        if candidate.grounding_metadata is not None or candidate.citation_metadata is not None:
            for citation in whole.citations_of(candidate):
                citation.start = citation.end = None  # they count bytes of the whole text, which has gone by
                events.append(CitationDelta(citation, at))
        if candidate.finish_reason and candidate.finish_reason != "FINISH_REASON_UNSPECIFIED":
            self._reasons[at] = candidate.finish_reason
            if at == 0 or not self.told.finish_reason:
                self.told.finish_reason = candidate.finish_reason


class _Open:
    """A call whose arguments are still coming: Gemini's callers get it whole."""

    __slots__ = ("call", "pieces")

    def __init__(self, call: ToolCall) -> None:
        self.call = call
        self.pieces: list[str] = []


class GeminiRenderer:
    """Implements `StreamRenderer`, for events or (*array*) for one JSON array."""

    def __init__(self, reply: Reply, *, array: bool = False) -> None:
        self._reply = reply
        self._array = array
        self._first = True
        self._open: dict[tuple[int, int], _Open] = {}
        self._finished: dict[int, str] = {}
        self._citations: dict[int, list[Any]] = {}
        self._spent: Spent | None = None
        self._tier = ""
        self._about = b""  # what stands behind the candidates in each event
        self._name(reply.model or reply.request.model, reply.id)

    def _name(self, model: str, answer_id: str) -> None:
        self._about = b'],"modelVersion":%b,"responseId":%b}' % (_encode(model), _encode(answer_id))

    def render(self, events: Sequence[Event]) -> bytes:
        blocks: list[bytes] = []
        for event in events:
            if event.__class__ is TextDelta and not event.signature and event.logprobs is None:
                if self._open:
                    self._close(blocks)
                blocks.append(
                    self._event(
                        b'{"content":{"parts":[{"text":%b}],"role":"model"},"index":%d}' % (_encode(event.text), event.choice)
                    )
                )
            else:
                self._rare(event, blocks)
        return b"".join(blocks)

    def end(self) -> bytes:
        blocks: list[bytes] = []
        self._close(blocks)
        candidates = []
        for choice, finish in sorted(self._finished.items()):
            candidate: dict[str, Any] = {
                "content": {"parts": [{"text": ""}], "role": "model"},
                "finishReason": whole.REASONS[finish],
                "index": choice,
            }
            if choice in self._citations:
                candidate["groundingMetadata"] = whole.grounding([(one, 0) for one in self._citations[choice]], "")
            candidates.append(_encode(candidate))
        usage = _encode(whole.usage_object(self._spent or Spent(), self._tier))
        self._about = b'],"usageMetadata":' + usage + self._about[1:]
        blocks.append(self._event(b",".join(candidates)))
        if self._array:
            blocks.append(b"\n]")
        return b"".join(blocks)

    def _event(self, candidates: bytes) -> bytes:
        data = b'{"candidates":[' + candidates + self._about
        if not self._array:
            return b"data: " + data + b"\r\n\r\n"
        before, self._first = (b"[" if self._first else b",\r\n"), False
        return before + data

    def _part(self, part: Any, at: int) -> bytes:
        written = whole.written_part(part)
        if written is None:
            return b""
        return self._event(_encode({"content": {"parts": [written], "role": "model"}, "index": at}))

    def _close(self, blocks: list[bytes]) -> None:
        """Send the calls that have been coming: whatever follows them, they are whole."""
        for (at, _), opened in sorted(self._open.items(), key=lambda item: item[0]):
            opened.call.arguments = "".join(opened.pieces)
            blocks.append(self._part(opened.call, at))
        self._open.clear()

    def _rare(self, event: Event, blocks: list[bytes]) -> None:
        if isinstance(event, CallDelta):
            opened = self._open.get((event.choice, event.call))
            if opened is not None:
                opened.pieces.append(event.arguments)
        elif isinstance(event, CallStarted):
            call = ToolCall(event.id, event.name, "", event.custom, event.signature, event.origin)
            self._open[event.choice, event.call] = _Open(call)
        elif isinstance(event, Started):
            reply = self._reply
            self._name(reply.model or event.model or reply.request.model, event.id or reply.id)
        elif isinstance(event, SpentSoFar):
            self._spent, self._tier = event.spent, event.service_tier or self._tier
        elif isinstance(event, Finished):
            self._finished[event.choice] = event.finish
        elif isinstance(event, CitationDelta):
            self._citations.setdefault(event.choice, []).append(event.citation)
        else:
            self._close(blocks)
            blocks.append(self._content(event))

    def _content(self, event: Event) -> bytes:
        if isinstance(event, TextDelta):
            candidate: dict[str, Any] = {
                "content": {
                    "parts": [whole.written_part(Text(event.text, signature=event.signature, origin=event.origin))],
                    "role": "model",
                },
                "index": event.choice,
            }
            if (found := whole.logprobs_result(event.logprobs)) is not None:
                candidate["logprobsResult"] = found
            return self._event(_encode(candidate))
        if isinstance(event, ThinkingDelta):
            return self._part(Thinking(event.text, event.signature, event.hidden, event.origin), event.choice)
        if isinstance(event, RefusalDelta):
            return self._part(Text(event.text), event.choice)
        if isinstance(event, MediaPart):
            return self._part(event.media, event.choice)
        return self._part(event.foreign, event.choice) if isinstance(event, ForeignPart) else b""
