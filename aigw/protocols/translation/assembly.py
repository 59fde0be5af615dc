"""From the pieces of a stream to a whole answer, and back: for a caller who wants one and a provider who gives the other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from aigw.canonical import (
    Answer,
    CallDelta,
    CallStarted,
    Choice,
    CitationDelta,
    Event,
    Finished,
    Foreign,
    ForeignPart,
    Media,
    MediaPart,
    Part,
    Refusal,
    RefusalDelta,
    SpentSoFar,
    Started,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolCall,
)

P = TypeVar("P", Text, Thinking, Refusal)


class Assembly:
    """A whole answer, made of a stream's events as they come."""

    def __init__(self) -> None:
        self.answer = Answer(choices=[])
        self._choices: dict[int, Choice] = {}
        self._calls: dict[tuple[int, int], ToolCall] = {}
        self._pieces: dict[int, list[str]] = {}  # of a part that grows, by its identity: text is joined once

    def add(self, events: Iterable[Event]) -> None:
        for event in events:
            self._add(event)

    def done(self) -> Answer:
        """The answer; call it once."""
        for choice in self._choices.values():
            for part in choice.parts:
                pieces = self._pieces.get(id(part))
                if pieces is None:
                    continue
                if isinstance(part, ToolCall):
                    part.arguments = "".join(pieces) or ("" if part.custom else "{}")
                elif isinstance(part, (Text, Thinking, Refusal)):
                    part.text = "".join(pieces)
        self.answer.choices = [self._choices[index] for index in sorted(self._choices)]
        return self.answer

    def _add(self, event: Event) -> None:
        answer = self.answer
        if isinstance(event, Started):
            answer.id, answer.model = event.id or answer.id, event.model or answer.model
            answer.created = event.created or answer.created
            answer.spent = event.spent or answer.spent
            answer.service_tier = event.service_tier or answer.service_tier
            return
        if isinstance(event, SpentSoFar):
            answer.spent = event.spent
            answer.service_tier = event.service_tier or answer.service_tier
            return
        choice = self._choices.get(event.choice)
        if choice is None:
            choice = self._choices[event.choice] = Choice([], index=event.choice)
        if isinstance(event, Finished):
            choice.finish, choice.stop = event.finish, event.stop
        elif isinstance(event, TextDelta):
            self._text(choice, event)
        elif isinstance(event, ThinkingDelta):
            self._thinking(choice, event)
        elif isinstance(event, RefusalDelta):
            last = choice.parts[-1] if choice.parts else None
            self._grow(choice, last if isinstance(last, Refusal) else None, Refusal(""), event.text)
        elif isinstance(event, CallStarted):
            call = ToolCall(event.id, event.name, "", event.custom, event.signature, event.origin)
            self._calls[event.choice, event.call] = call
            self._pieces[id(call)] = []
            choice.parts.append(call)
        elif isinstance(event, CallDelta):
            known = self._calls.get((event.choice, event.call))
            if known is not None:
                self._pieces[id(known)].append(event.arguments)
        elif isinstance(event, CitationDelta):
            last = choice.parts[-1] if choice.parts else None
            if isinstance(last, Text):
                last.citations = [*last.citations, event.citation]
        elif isinstance(event, MediaPart):
            choice.parts.append(event.media)
        else:
            choice.parts.append(event.foreign)

    def _text(self, choice: Choice, event: TextDelta) -> None:
        last = choice.parts[-1] if choice.parts else None
        text = self._grow(choice, last if isinstance(last, Text) else None, Text(""), event.text)
        if event.signature:
            text.signature, text.origin = event.signature, event.origin
        if event.logprobs is not None:
            if choice.logprobs is None:
                choice.logprobs = {"content": []}
            choice.logprobs["content"] += (event.logprobs or {}).get("content") or []

    def _thinking(self, choice: Choice, event: ThinkingDelta) -> None:
        last = choice.parts[-1] if choice.parts else None
        if event.hidden:
            choice.parts.append(Thinking(hidden=event.hidden, origin=event.origin, id=event.id, signature=event.signature))
            return
        open_one = last if isinstance(last, Thinking) and not last.hidden and not (last.signature and event.text) else None
        thought = self._grow(choice, open_one, Thinking(), event.text)
        thought.signature = event.signature or thought.signature
        thought.origin, thought.id = event.origin or thought.origin, event.id or thought.id

    def _grow(self, choice: Choice, part: P | None, fresh: P, text: str) -> P:
        if part is None:
            part = fresh
            choice.parts.append(part)
        self._pieces.setdefault(id(part), []).append(text)
        return part


def events_of(answer: Answer) -> list[Event]:
    """A whole answer as the events of a stream."""
    events: list[Event] = [Started(answer.id, answer.model, answer.created, None, answer.service_tier)]
    for choice in answer.choices:
        calls = 0
        for part in choice.parts:
            events += _of_part(part, choice, calls)
            calls += isinstance(part, ToolCall)
        events.append(Finished(choice.finish, choice.stop, choice.index))
    if answer.spent is not None:
        events.append(SpentSoFar(answer.spent, answer.service_tier))
    return events


def _of_part(part: Part, choice: Choice, call: int) -> list[Event]:
    at = choice.index
    if isinstance(part, Text):
        logprobs = choice.logprobs if call == 0 else None
        found: list[Event] = [TextDelta(part.text, at, logprobs, part.signature, part.origin)]
        return found + [CitationDelta(citation, at) for citation in part.citations]
    if isinstance(part, Thinking):
        return [ThinkingDelta(part.text, part.signature, part.hidden, part.origin, part.id, at)]
    if isinstance(part, ToolCall):
        return [
            CallStarted(call, part.id, part.name, part.custom, part.signature, part.origin, at),
            CallDelta(call, part.arguments, at),
        ]
    if isinstance(part, Refusal):
        return [RefusalDelta(part.text, at)]
    if isinstance(part, Media):
        return [MediaPart(part, at)]
    if isinstance(part, Foreign):
        return [ForeignPart(part, at)]
    return []  # a tool's result is no part of an answer
