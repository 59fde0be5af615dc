"""Every point where someone may speak, in the order an exchange meets them.

Today there are two, for those who only listen: `recorded`, at the end of an exchange (metrics, the log), and `happened`, for
what an operator may want to hear of at once (alerts). Plugins that edit, answer or refuse a request get their points here.
"""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from aigw.exchange import Record

EventKind = Literal["budget", "keys", "canary", "errors", "storage", "integrity"]
"""What an event may be about: a budget that is nearly or wholly used, a provider none of whose keys can be used, a canary that
was rolled back or paused, many failing requests, records that cannot be stored, a process that does what it should not."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something happened that somebody may have to act on.

    `subject` is what it happened to ("alice", "openai", "gpt-5 -> azure"), `text` one sentence for a person, `facts` the same
    for programs. `step` tells apart what may follow on the same subject (0.8, then 1.0 of a budget): an event with the same
    kind, subject and step is told once an hour.
    """

    kind: EventKind
    subject: str
    text: str
    at: float  # epoch seconds
    step: str = ""
    facts: dict[str, str | int | float] = {}


class Listener(Protocol):
    """Hears of each exchange once, after its record was journalled. Must not block; what it raises is counted."""

    def recorded(self, record: Record) -> None: ...


class Watcher(Protocol):
    """Hears of events. Must not block."""

    def happened(self, event: Event) -> None: ...
