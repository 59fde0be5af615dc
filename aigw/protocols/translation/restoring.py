"""What a writer had to put otherwise for a provider, undone in its answer: names of tools that it would not take (`names.py`),
and tools of free text that it knows only as functions. Both are read from the request, for whoever wrote it wrote alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from aigw.canonical import Answer, CallDelta, CallStarted, Event, Finished, ToolCall
from aigw.protocols.translation.names import renamed


def restoring(request: Any) -> Restoring | None:
    """None for nearly every request: there is nothing to undo."""
    tools = getattr(request, "tools", ())
    if not tools:
        return None
    names = renamed(tools)
    custom = frozenset(tool.name for tool in tools if tool.custom)
    return Restoring(names, custom) if names or custom else None


class Restoring:
    """Of one answer."""

    def __init__(self, names: dict[str, str], custom: frozenset[str]) -> None:
        self._names, self._custom = names, custom
        self._free: dict[tuple[int, int], list[str]] = {}  # arguments around a text, by choice and call

    def events(self, events: Sequence[Event]) -> list[Event]:
        """The text of such a call is known when its choice has ended."""
        found: list[Event] = []
        for event in events:
            if isinstance(event, CallStarted):
                event.name = self._names.get(event.name, event.name)
                if event.name in self._custom and not event.custom:
                    event.custom = True
                    self._free[event.choice, event.call] = []
            elif isinstance(event, CallDelta) and (event.choice, event.call) in self._free:
                self._free[event.choice, event.call].append(event.arguments)
                continue
            elif isinstance(event, Finished):
                found += self._texts(event.choice)
            found.append(event)
        return found

    def _texts(self, choice: int) -> list[Event]:
        calls = sorted(call for at, call in self._free if at == choice)
        return [CallDelta(call, free_text("".join(self._free.pop((choice, call)))), choice) for call in calls]

    def answer(self, answer: Answer) -> None:
        for choice in answer.choices:
            for part in choice.parts:
                if isinstance(part, ToolCall):
                    part.name = self._names.get(part.name, part.name)
                    if part.name in self._custom and not part.custom:
                        part.custom, part.arguments = True, free_text(part.arguments)


def free_text(arguments: str) -> str:
    """The text inside the arguments of a function that stands for a tool of free text; as they are when it is not there."""
    try:
        value = msgspec.json.decode(arguments)
    except (ValueError, RecursionError):
        return arguments
    text = value.get("input") if isinstance(value, dict) else None
    return text if isinstance(text, str) else arguments
