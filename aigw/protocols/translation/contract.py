"""What a wire shape must be able to do to be translated: read and write requests, answers and streams in canonical words.

A shape is an operation's (`operations.py`): "chat", "messages", "generate" ... Shapes of one family translate into each other.
All is sans-IO and stateless but for the stream's parser and renderer, of which each stream has its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import msgspec

from aigw.canonical import Answer, Event, Losses, Request
from aigw.protocols.dialect import Told


class Toward(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a request is written for. `model` is the upstream's name of it; `kind` and `quirks` are the provider's catalog
    row's; `dialect_version` is an API version the operator chose, "" for the usual; `stream_usage`: it may be asked for a
    stream's usage. `stream`: the answer shall come as a stream. `settings` are what the operator set of the row's."""

    model: str
    kind: str = ""
    quirks: frozenset[str] = frozenset()
    stream: bool = False
    stream_usage: bool = True
    dialect_version: str = ""
    settings: Mapping[str, str] = {}


class Reply(msgspec.Struct, kw_only=True):
    """For whom an answer is written. `request` is the canonical request it answers (Responses answers repeat much of it);
    `id` is our request id, to name an answer by that has no id of its own; `model` is what the answer calls the model;
    `now` is seconds since the epoch; `include_usage`: the caller of a stream wants its usage (only OpenAI chat asks)."""

    request: Any
    id: str
    model: str
    now: float
    include_usage: bool = True


class StreamParser(Protocol):
    """Reads one provider's stream: blocks of any size, cut anywhere.

    `told` is what is known for the record (usage in our normalised counts, model, finish reason). `failed`: the data of an
    error event (the provider's own JSON); nothing is fed after it. `done`: the stream has ended by the dialect's own word.
    `begun` turns true with the first event that carries content. Raises nothing: garbage between events is skipped; what makes
    the stream unreadable (a wrong checksum, say) is put into `failed` as a JSON error object.
    """

    told: Told
    failed: bytes
    begun: bool
    done: bool

    def feed(self, block: bytes) -> list[Event]: ...

    def end(self) -> list[Event]:
        """The connection has ended: what is left."""


class StreamRenderer(Protocol):
    """Writes one caller's stream. `render` gives the bytes for some events (b"" when there is nothing to send yet); `end` the
    last event(s), kept back until the exchange has its record: many callers hang up when they have read it."""

    def render(self, events: Sequence[Event]) -> bytes: ...

    def end(self) -> bytes: ...


class Shape(Protocol):
    """One shape, as providers are asked in it: all that there is of those which no caller speaks. `dialect` says whose thoughts
    and signatures it carries (`Thinking.origin`); `content_type` is that of its streams, `streams` that it has any."""

    name: str
    dialect: str
    content_type: bytes
    streams: bool

    def render_request(self, request: Any, toward: Toward, losses: Losses) -> bytes:
        """Its body for a provider. Tells *losses* what it leaves out; raises CallerError `caller_unsupported` for what may not
        be left out (a tool result, an image where only text is taken ...)."""

    def parse_answer(self, body: bytes) -> tuple[Any, Told]:
        """The canonical answer, and what the record wants to know. Raises ValueError when *body* is no such answer."""

    def parser(self) -> StreamParser: ...


@runtime_checkable
class Settled(Protocol):
    """A shape whose answers read differently by what the operator set (a workflow's output variable, say)."""

    def settled(self, settings: Mapping[str, str]) -> Shape: ...


class Translator(Shape, Protocol):
    """One shape, from both sides. `dialect` is the name under `DIALECTS` whose errors callers get; `spelling` names the
    fields of a canonical request as this shape writes them (for `Losses`)."""

    spelling: Mapping[str, str]

    def parse_request(self, body: bytes, model: str, *, stream: bool) -> Any:
        """The canonical request. *model* and *stream* are those of the exchange (some shapes have them in the URL). Raises
        CallerError: `caller_invalid_json`, `caller_invalid_request` (with `param`), or `caller_unsupported` for what may
        not be left out and has no canonical word (an unknown block or client tool)."""

    def render_answer(self, answer: Any, reply: Reply) -> bytes: ...

    def renderer(self, reply: Reply) -> StreamRenderer: ...


Conversation = tuple[Request, Answer]
"""What the family "conversation" is translated by; other families have structs of their own (see their modules)."""
