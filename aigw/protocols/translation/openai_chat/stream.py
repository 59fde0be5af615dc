"""OpenAI's chat streams: read from providers, whatever their host made of the shape, and written for callers."""

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
)
from aigw.exchange import Usage
from aigw.protocols.dialect import Said, Told, decode_leniently, says
from aigw.protocols.framing import EventReader
from aigw.protocols.openai_chat import OpenAIUsage, usage_of
from aigw.protocols.translation.contract import Reply
from aigw.protocols.translation.openai_chat import answer as whole
from aigw.protocols.translation.openai_chat.request import DIALECT, citation_of
from aigw.protocols.translation.spent import spent_of

_encode = msgspec.json.encode


class _Function(msgspec.Struct, gc=False):
    name: Any = None
    arguments: Any = None


class _Call(msgspec.Struct, gc=False):
    index: Any = None
    id: Any = None
    function: _Function | None = None
    custom: Any = None
    extra_content: Any = None
    provider_specific_fields: Any = None


class _Delta(msgspec.Struct, gc=False):
    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    reasoning_details: Any = None
    thinking_blocks: Any = None
    refusal: Any = None
    tool_calls: list[_Call] | None = None
    function_call: _Function | None = None
    annotations: Any = None
    audio: Any = None
    images: Any = None


class _Choice(msgspec.Struct, gc=False):
    index: Any = None
    delta: _Delta | None = None
    finish_reason: Any = None
    logprobs: Any = None
    stop_reason: Any = None
    text: Any = None  # of the older completions
    usage: OpenAIUsage | None = None


class _Groq(msgspec.Struct, gc=False):
    usage: OpenAIUsage | None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    id: Any = None
    model: Any = None
    created: Any = None
    usage: OpenAIUsage | None = None
    service_tier: Any = None
    x_groq: _Groq | None = None
    error: Said = msgspec.UNSET
    object: Any = None


_chunk = msgspec.json.Decoder(_Chunk).decode


class _Open:
    """A call that is being written. `name` is "" until it came: pieces wait for it."""

    __slots__ = ("id", "name", "number", "pieces", "started")

    def __init__(self, number: int, called: str) -> None:
        self.number, self.id, self.name = number, called, ""
        self.pieces: list[str] = []
        self.started = False

    def is_whole(self) -> bool:
        """Whether its arguments are JSON already: then what follows is another call."""
        try:
            msgspec.json.decode("".join(self.pieces))
        except (ValueError, RecursionError):
            return False
        return True


class _Side:
    """One choice, as far as it has come."""

    __slots__ = ("audio", "audio_id", "by_index", "calls", "finished", "refused")

    def __init__(self) -> None:
        self.calls: list[_Open] = []
        self.by_index: dict[Any, _Open] = {}
        self.audio: list[str] = []
        self.audio_id = ""
        self.finished = False
        self.refused = False


class ChatParser:
    """Implements `StreamParser`."""

    def __init__(self) -> None:
        self.told = Told()
        self.failed = b""
        self.begun = False
        self.done = False
        self._reader = EventReader()
        self._started = False
        self._sides: dict[int, _Side] = {}
        self._usage: Usage | None = None
        self._tier = ""

    def feed(self, block: bytes) -> list[Event]:
        events: list[Event] = []
        found = self._reader.feed(block)
        for data in found:
            if self.done or self.failed:
                break
            self._look(data, events)
        if not found and self.told.finish_reason and not self.done and self._reader.idle:
            self._close(events)  # nothing but heartbeats after the end: such a stream may never say that it is over
        return events

    def end(self) -> list[Event]:
        events: list[Event] = []
        for data in self._reader.end():
            if not (self.done or self.failed):
                self._look(data, events)
        if not (self.done or self.failed):
            if self.told.finish_reason:
                self._close(events)
            elif self._usage is not None:
                events.append(SpentSoFar(spent_of(self._usage), self._tier))
        return events

    def _look(self, data: bytes, events: list[Event]) -> None:
        try:
            chunk = _chunk(data)
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            if data.strip() == b"[DONE]":
                self._close(events)
                return
            odd = _oddly(data)
            if odd is None:
                return
            chunk = odd
        if (chunk.error is not msgspec.UNSET and says(chunk.error)) or chunk.object == "error":
            self.failed = data
            return
        if not self._started:
            self._start(chunk, events)
        if chunk.usage is not None:
            self._count(chunk.usage, chunk.service_tier)
        elif chunk.x_groq is not None and chunk.x_groq.usage is not None:
            self._count(chunk.x_groq.usage, chunk.service_tier)
        for choice in chunk.choices or ():
            delta = choice.delta
            at = choice.index if choice.index.__class__ is int else 0
            if delta is None and choice.text.__class__ is str:
                delta = _Delta(choice.text)
            if delta is not None:
                self._delta(delta, at, choice.logprobs, events)
            if choice.usage is not None and chunk.usage is None:
                self._count(choice.usage, chunk.service_tier)
            if choice.finish_reason.__class__ is str and choice.finish_reason and choice.finish_reason != "null":
                self._finish(choice, at, events)

    def _start(self, chunk: _Chunk, events: list[Event]) -> None:
        if not chunk.choices and chunk.usage is None:
            return  # Azure speaks of its filter first, and names no model there
        self._started = True
        named, model, created = chunk.id, chunk.model, chunk.created
        self.told.model = model if isinstance(model, str) else ""
        self._tier = chunk.service_tier if isinstance(chunk.service_tier, str) else ""
        events.append(
            Started(
                named if isinstance(named, str) else "",
                self.told.model,
                int(created) if isinstance(created, int | float) else 0,
                service_tier=self._tier,
            )
        )

    def _count(self, seen: OpenAIUsage, tier: Any) -> None:
        """The last one counts: some hosts tell the sum so far in every chunk. What has no numbers in it tells nothing."""
        self._tier = tier if isinstance(tier, str) and tier else self._tier
        usage = usage_of(seen, self._tier)
        if usage.input or usage.output or self._usage is None:
            self._usage = self.told.usage = usage

    def _delta(self, delta: _Delta, at: int, logprobs: Any, events: list[Event]) -> None:
        content = delta.content
        if content.__class__ is str and content and delta.reasoning_content is None and delta.tool_calls is None:
            self.begun = True  # nearly all of them
            events.append(TextDelta(content, at, logprobs))
            if delta.reasoning is None and delta.annotations is None:
                return
            content = None
        before = len(events)
        if delta.reasoning_content or delta.reasoning or delta.reasoning_details or delta.thinking_blocks:
            self._think(delta, at, events)
        if content:
            if isinstance(content, str):
                events.append(TextDelta(content, at, logprobs))
            elif isinstance(content, list):
                self._content(content, at, events)
        elif logprobs:
            events.append(TextDelta("", at, logprobs))
        if isinstance(delta.refusal, str) and delta.refusal:
            self._side(at).refused = True
            events.append(RefusalDelta(delta.refusal, at))
        if delta.annotations:
            self._cite(delta.annotations, at, events)
        if delta.audio:
            self._hear(delta.audio, at, events)
        if delta.images:
            events += [MediaPart(part, at) for part in whole.images(delta.images) if isinstance(part, Media)]
        for call in delta.tool_calls or ():
            self._call(call, at, events)
        if delta.function_call is not None:
            self._call(_Call(0, None, delta.function_call), at, events)
        if len(events) > before:
            self.begun = True

    def _think(self, delta: _Delta, at: int, events: list[Event]) -> None:
        words = delta.reasoning_content
        if not isinstance(words, str) or not words:
            words = delta.reasoning if isinstance(delta.reasoning, str) else ""
        details = delta.reasoning_details
        if not isinstance(details, list):
            details = None
        if delta.thinking_blocks or details:
            found = whole.thoughts({"reasoning_details": details, "thinking_blocks": delta.thinking_blocks})
            for part in found:
                if isinstance(part, Thinking):
                    text = part.text if not words else ""  # the details repeat the words beside them
                    if text or part.signature or part.hidden:
                        if words:
                            events.append(ThinkingDelta(words, origin=DIALECT, choice=at))
                            words = ""
                        events.append(ThinkingDelta(text, part.signature, part.hidden, DIALECT, choice=at))
        if words:
            events.append(ThinkingDelta(words, origin=DIALECT, choice=at))

    def _content(self, content: list[Any], at: int, events: list[Event]) -> None:
        for part in whole.content_parts(content):
            if isinstance(part, Text):
                events.append(TextDelta(part.text, at))
            elif isinstance(part, Thinking):
                events.append(ThinkingDelta(part.text, origin=DIALECT, choice=at))
            elif isinstance(part, Media):
                events.append(MediaPart(part, at))

    def _cite(self, notes: Any, at: int, events: list[Event]) -> None:
        for note in notes if isinstance(notes, list) else []:
            citation = citation_of(note)
            if citation is not None:
                events.append(CitationDelta(citation, at))

    def _hear(self, audio: Any, at: int, events: list[Event]) -> None:
        """A recording comes in pieces of base64, and what it says beside them."""
        if not isinstance(audio, dict):
            return
        side = self._side(at)
        self.begun = True
        if isinstance(audio.get("id"), str):
            side.audio_id = audio["id"]
        if isinstance(audio.get("data"), str):
            side.audio.append(audio["data"])
        words = audio.get("transcript")
        if isinstance(words, str) and words:
            events.append(TextDelta(words, at))

    def _side(self, at: int) -> _Side:
        side = self._sides.get(at)
        if side is None:
            side = self._sides[at] = _Side()
        return side

    def _call(self, call: _Call, at: int, events: list[Event]) -> None:
        function, called = call.function or _Function(), call.id if isinstance(call.id, str) else ""
        custom = call.custom if isinstance(call.custom, dict) else None
        name = function.name if custom is None else custom.get("name")
        name = name if isinstance(name, str) else ""
        found = self._which(self._side(at), call.index, called, name)
        if not found.started:
            found.name = found.name or name
            found.id = found.id or called
            if found.name:
                found.started = True
                extra = {"extra_content": call.extra_content, "provider_specific_fields": call.provider_specific_fields}
                signature = whole.signature_of(extra)
                origin = DIALECT if signature else ""
                events.append(CallStarted(found.number, found.id, found.name, custom is not None, signature, origin, at))
                if found.pieces:
                    events.append(CallDelta(found.number, "".join(found.pieces), at))
        piece = whole.arguments(function.arguments) if custom is None else custom.get("input")
        if isinstance(piece, str) and piece:
            found.pieces.append(piece)
            if found.started:
                events.append(CallDelta(found.number, piece, at))

    def _which(self, side: _Side, index: Any, called: str, name: str) -> _Open:
        """The call that a piece belongs to. Some hosts give no index, some the same to every call, some repeat id and name with
        each piece, some make up a new id for each."""
        known: _Open | None
        if index.__class__ is int:
            known = side.by_index.get(index)
        elif called:
            known = next((call for call in side.calls if call.id == called), None)
        elif name:
            known = None
        else:
            known = side.calls[-1] if side.calls else None
        if (
            known is not None
            and called
            and known.id
            and called != known.id
            and name
            and (name != known.name or known.is_whole())
        ):
            known = next((call for call in side.calls if call.id == called), None)
        if known is None:
            known = _Open(len(side.calls), called)
            side.calls.append(known)
        if index.__class__ is int:
            side.by_index[index] = known
        return known

    def _finish(self, choice: _Choice, at: int, events: list[Event]) -> None:
        reason = choice.finish_reason
        if reason in whole.BROKEN:
            self.failed = _encode(
                {"error": {"message": f"broke off its answer: {reason}", "type": "server_error", "code": reason}}
            )
            return
        if at == 0 or not self.told.finish_reason:
            self.told.finish_reason = reason
        side = self._side(at)
        if side.finished:
            return
        stop = choice.stop_reason
        self._last_of(at, reason, events, stop if isinstance(stop, str) and stop else None)

    def _last_of(self, at: int, reason: str, events: list[Event], stop: str | None = None) -> None:
        side = self._side(at)
        side.finished = True
        if side.audio:
            events.append(MediaPart(Media("audio", "".join(side.audio), name=side.audio_id), at))
        finish = whole.finish_of(reason, called=bool(side.calls))
        if finish == "stop" and side.refused:
            finish = "content_filter"
        events.append(Finished(finish, stop, at))

    def _close(self, events: list[Event]) -> None:
        self.done = True
        for at in {0, *self._sides}:
            if not self._side(at).finished and self._started:
                self._last_of(at, "", events)
        if self._usage is not None:
            events.append(SpentSoFar(spent_of(self._usage), self._tier))


def _oddly(data: bytes) -> _Chunk | None:
    """A chunk with types nobody expects: member by member, what is readable counts."""
    try:
        value = decode_leniently(data)
    except ValueError:
        return None
    found = _Chunk(id=value.get("id"), model=value.get("model"), created=value.get("created"), object=value.get("object"))
    if value.get("error"):
        found.error = msgspec.Raw(_encode(value["error"]))
    found.usage = _converted(value.get("usage"), OpenAIUsage)
    choices = value.get("choices")
    found.choices = []
    for choice in choices if isinstance(choices, list) else []:
        if isinstance(choice, dict):
            seen = _Choice(choice.get("index"), None, choice.get("finish_reason"), choice.get("logprobs"))
            seen.usage = _converted(choice.get("usage"), OpenAIUsage)
            seen.text = choice.get("text")
            delta = choice.get("delta")
            if isinstance(delta, dict):
                seen.delta = _converted(delta, _Delta)
                if seen.delta is None:
                    seen.delta = _Delta(delta.get("content"), delta.get("reasoning_content"), delta.get("reasoning"))
            found.choices.append(seen)
    return found


def _converted(value: Any, kind: Any) -> Any:
    if value is None:
        return None
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError):
        return None


class ChatRenderer:
    """Implements `StreamRenderer`."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._legacy = whole.wants_legacy(reply)
        self._head = b""
        self._id = self._model = self._tier = ""
        self._created = 0
        self._roles: set[int] = set()
        self._custom: set[tuple[int, int]] = set()
        self._thought: dict[int, list[str]] = {}
        self._blocks: dict[int, int] = {}
        self._listed: dict[tuple[int, str], int] = {}
        self._words = self._thoughts = b""  # what stands before the text of the first choice's delta
        self._spent: Spent | None = None

    def render(self, events: Sequence[Event]) -> bytes:
        out: list[bytes] = []
        for event in events:
            kind = event.__class__
            if kind is TextDelta and not event.choice and not event.logprobs and self._words:  # type: ignore[union-attr]
                out.append(b'%b%b},"finish_reason":null}]}\n\n' % (self._words, _encode(event.text)))  # type: ignore[union-attr]
            elif isinstance(event, Started):
                self._id, self._model = event.id or self._id, event.model or self._model
                self._created, self._tier = event.created or self._created, event.service_tier or self._tier
                self._spent = event.spent or self._spent
            elif isinstance(event, SpentSoFar):
                self._spent, self._tier = event.spent, event.service_tier or self._tier
            else:
                self._rare(event, out)
        return b"".join(out)

    def end(self) -> bytes:
        last = b""
        if self._reply.include_usage and self._spent is not None:
            usage = _encode(whole.usage_object(self._spent))
            last = b'%b"choices":[],"usage":%b}\n\n' % (self._start(), usage)
        return last + b"data: [DONE]\n\n"

    def _start(self) -> bytes:
        if not self._head:
            reply = self._reply
            head: dict[str, Any] = {
                "id": self._id or whole.completion_id(reply),
                "object": "chat.completion.chunk",
                "created": self._created or int(reply.now),
                "model": reply.model or self._model or reply.request.model,
            }
            if self._tier:
                head["service_tier"] = self._tier
            self._head = b"data: " + _encode(head)[:-1] + b","
        return self._head

    def _chunk(self, choice: int, delta: dict[str, Any], finish: str | None = None, logprobs: Any = None) -> bytes:
        said: dict[str, Any] = {"index": choice, "delta": delta}
        if logprobs:
            said["logprobs"] = logprobs
        said["finish_reason"] = finish
        return b'%b"choices":[%b]}\n\n' % (self._start(), _encode(said))

    def _rare(self, event: Any, out: list[bytes]) -> None:
        at: int = event.choice
        if at not in self._roles:
            self._roles.add(at)
            out.append(self._chunk(at, {"role": "assistant", "content": ""}))
            if at == 0:
                head = self._start() + b'"choices":[{"index":0,"delta":{'
                self._words, self._thoughts = head + b'"content":', head + b'"reasoning_content":'
        if isinstance(event, ThinkingDelta):
            self._think(event, out)
        elif isinstance(event, TextDelta):
            if event.text or event.logprobs:
                out.append(self._chunk(at, {"content": event.text}, None, event.logprobs))
        elif isinstance(event, CallDelta):
            out.append(self._chunk(at, self._piece(event)))
        elif isinstance(event, CallStarted):
            out.append(self._chunk(at, self._call(event)))
        elif isinstance(event, Finished):
            finish = "function_call" if self._legacy and event.finish == "tool_calls" else event.finish
            out.append(self._chunk(at, {}, finish))
        elif isinstance(event, RefusalDelta):
            out.append(self._chunk(at, {"refusal": event.text}))
        elif isinstance(event, CitationDelta):
            note = {**whole.annotation(event.citation, 0, 0), "index": self._next(at, "annotations")}
            out.append(self._chunk(at, {"annotations": [note]}))
        elif isinstance(event, MediaPart) and event.media.kind == "image":
            image = {**whole.image_object(event.media), "index": self._next(at, "images")}
            out.append(self._chunk(at, {"images": [image]}))
        elif isinstance(event, MediaPart) and event.media.kind == "audio":
            sound = whole.audio_object(event.media, "", self._reply)
            out.append(self._chunk(at, {"audio": sound}))

    def _next(self, at: int, what: str) -> int:
        """The place in a list that a delta's entry has: OpenAI's SDK joins lists by it."""
        place = self._listed.get((at, what), 0)
        self._listed[at, what] = place + 1
        return place

    def _think(self, event: ThinkingDelta, out: list[bytes]) -> None:
        at = event.choice
        if event.text:
            self._thought.setdefault(at, []).append(event.text)
            if at == 0:
                out.append(b'%b%b},"finish_reason":null}]}\n\n' % (self._thoughts, _encode(event.text)))
            else:
                out.append(self._chunk(at, {"reasoning_content": event.text}))
        if event.signature or event.hidden:
            words = "" if event.hidden else "".join(self._thought.pop(at, ()))
            block = whole.thinking_block(words, event.signature, event.hidden, event.origin)
            out.append(self._chunk(at, {"thinking_blocks": [{**block, "index": self._next(at, "thinking_blocks")}]}))

    def _call(self, event: CallStarted) -> dict[str, Any]:
        if self._legacy:
            return {"function_call": {"name": event.name, "arguments": ""}}
        said: dict[str, Any] = {
            "index": event.call,
            "id": event.id or whole.call_id(self._reply, event.choice, event.call),
            "type": "function",
        }
        if event.custom:
            self._custom.add((event.choice, event.call))
            said["type"], said["custom"] = "custom", {"name": event.name, "input": ""}
        else:
            said["function"] = {"name": event.name, "arguments": ""}
        if event.signature:
            said["extra_content"] = whole.extra_content(event.signature, event.origin)
        return {"tool_calls": [said]}

    def _piece(self, event: CallDelta) -> dict[str, Any]:
        if self._legacy:
            return {"function_call": {"arguments": event.arguments}}
        if (event.choice, event.call) in self._custom:
            return {"tool_calls": [{"index": event.call, "custom": {"input": event.arguments}}]}
        return {"tool_calls": [{"index": event.call, "function": {"arguments": event.arguments}}]}
