"""For shapes that know less than a conversation: its words as one text, and what of a request is lost on the way."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aigw.canonical import (
    Event,
    Finish,
    Finished,
    Foreign,
    Losses,
    Media,
    Message,
    Refusal,
    Request,
    Started,
    Text,
    TextDelta,
    Thinking,
    ToolCall,
    ToolResult,
)
from aigw.protocols.dialect import Told
from aigw.protocols.framing import EventReader
from aigw.protocols.translation.reading import unsupported

ADVICE = frozenset({"store", "cache", "cache_key", "include_usage"})
"""Fields that ask for nothing in the answer: leaving them out loses nothing."""

_NEVER_LOST = ADVICE | {"dialect", "model", "messages", "stream", "tools", "tool_choice", "extras"}
_FIELDS = tuple(name for name in Request.__struct_fields__ if name not in _NEVER_LOST)
_NOTHING: tuple[Any, ...] = (None, "", [], {})


def lose_all_but(request: Request, losses: Losses, said: Iterable[str], *, taken: Iterable[str] = ()) -> None:
    """Name to *losses* each field that says something and is not in *said*, and the extras that are not *taken*. Tools are the
    writer's own."""
    known = frozenset(said)
    for name in _FIELDS:
        value = getattr(request, name)
        is_default = value in _NOTHING or (name == "n" and value == 1) or (name == "parallel" and value is True)
        if name not in known and not is_default:
            losses.add(name)
    for name in request.extras:
        if name not in taken:
            losses.add(name)


def refuse_tools(request: Request, losses: Losses, who: str) -> None:
    """For *who* calls no tools. A request that offers some wants them called: it is refused, not answered without. A provider's
    own server tools, which no other knows, are a loss."""
    for tool in request.tools:
        if tool.server:
            losses.add(f"tools.{tool.name}")
    offered = any(not tool.server for tool in request.tools)
    if offered and (request.tool_choice is None or request.tool_choice.mode != "none"):
        raise unsupported("tools", f"{who} calls no tools. Leave `tools` out, or use a model that calls them.")


def words(message: Message, losses: Losses, who: str) -> str:
    """The text of *message*, for *who* takes nothing else. Raises CallerError for what may not be left out."""
    found: list[str] = []
    if message.name:
        losses.add("messages.name")
    for part in message.parts:
        if isinstance(part, Text | Refusal):
            found.append(part.text)
        elif isinstance(part, Thinking):
            continue  # another's thoughts are nobody's business
        elif isinstance(part, Foreign):
            losses.add(f"messages.content.{part.type}")
        elif isinstance(part, ToolCall | ToolResult):
            raise unsupported(
                "messages", f"{who} knows no tools, and this conversation has calls of some. Use a model that does."
            )
        else:
            found.append(media_text(part, who))
    return "".join(found) if len(found) < 2 else "\n".join(found)


def media_text(part: Media, who: str) -> str:
    """A document that is text; everything else is refused."""
    if not part.text:
        raise unsupported("messages", f"{who} takes text only, no {part.kind}. Leave it out, or use a model that takes it.")
    return part.text


def transcript(request: Request, losses: Losses, who: str) -> str:
    """The whole conversation as one text: a single question as it is; of several, each with its speaker."""
    said = [(message.role, words(message, losses, who)) for message in request.messages]
    said = [(role, text) for role, text in said if text]
    if len(said) == 1:
        return said[0][1]
    return "\n\n".join(f"{'SYSTEM' if role == 'developer' else role.upper()}:\n{text}" for role, text in said)


def last_words(request: Request, losses: Losses, who: str) -> str:
    """What the user said last. Raises CallerError when the user said nothing."""
    for message in reversed(request.messages):
        if message.role == "user":
            return words(message, losses, who)
    raise unsupported("messages", f"{who} answers what a user says last, and no user says anything here.")


class EventParser:
    """The half of a `StreamParser` that is the same for every shape of server-sent events: `look` gets each event's data.
    `starts` makes the first event; a stream that only ends is finished by `ended` where nothing else says so."""

    def __init__(self, reader: EventReader | None = None) -> None:
        self.told = Told()
        self.failed = b""
        self.begun = False
        self.done = False
        self._events = EventReader() if reader is None else reader
        self._started = False

    def feed(self, block: bytes) -> list[Event]:
        return self._all(self._events.feed(block))

    def end(self) -> list[Event]:
        return self._all(self._events.end())

    def look(self, data: bytes, events: list[Event]) -> None:
        raise NotImplementedError

    def starts(self, events: list[Event], *, id: str = "", model: str = "", created: int = 0) -> None:  # noqa: A002
        if not self._started:
            self._started = True
            self.told.model = model
            events.append(Started(id, model, created))

    def says(self, text: str, events: list[Event]) -> None:
        if text:
            self.begun = True
            events.append(TextDelta(text))

    def finish(self, finish: Finish, events: list[Event]) -> None:
        if not self.told.finish_reason:
            self.told.finish_reason = finish
            events.append(Finished(finish))

    def _all(self, found: list[bytes]) -> list[Event]:
        events: list[Event] = []
        for data in found:
            if self.done or self.failed:
                break
            self.look(data, events)
        return events
