"""Every point where someone may speak, in the order an exchange meets them.

    received    the head of a request is here                     may refuse
    body        its body is here, and nobody has read it          may replace it
    request     who calls, which model and which route are known  may edit, answer, or refuse
    failed      an attempt failed                                 listens
    head        the answer's head is ours to write                may add headers
    event       a piece of a streamed answer                      may edit, hold back, add
    answer      a whole answer                                    may replace it, refuse it, or have it asked for again
    complete    the answer has ended well                         listens
    recorded    the exchange has its record                       listens

and of the server's life: `startup`, `inherit` (a reload put this one in place of another), `shutdown`.

A plugin is a class with some of these methods (`Plugin`). On requests they are called in the order of their phases, on answers
in the opposite one, so that whoever changes a request last sees its answer first. The rest of this file is for those who only
listen: `Listener` (metrics, the log) and `Watcher` (alerts).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, NoReturn, Protocol

import msgspec

from aigw import canonical
from aigw.errors import PolicyError
from aigw.exchange import Attempt, Exchange, Headers, Record

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


# --- plugins ---

Phase = Literal["access", "prompt", "mask", "guard", "cache", "record"]

PHASES: tuple[Phase, ...] = ("access", "prompt", "mask", "guard", "cache", "record")
"""The order in which plugins see a request: who may not come in at all, what is asked, what of it nobody may see, what is not
allowed, what is known already, what is kept. Within a phase the config's order counts."""

Reads = Literal["request", "answer", "stream"]


class NoConfig(msgspec.Struct, forbid_unknown_fields=True):
    """The config of a plugin that has none."""


class Fetched(NamedTuple):
    """What another server answered. Header names are lower-case."""

    status: int
    headers: dict[str, str]
    body: bytes


class KeyValue(Protocol):
    """Bytes that outlive the process, shared by all nodes of this gateway. Keys are a plugin's own. All raise StoreError."""

    async def get(self, key: str) -> bytes | None: ...

    async def put(self, key: str, value: bytes, ttl: float | None = None) -> None:
        """*ttl* in seconds; None: until it is deleted."""

    async def delete(self, key: str) -> None: ...


class Host(Protocol):
    """What a plugin may ask the gateway for. `name` is its table in the config (`[plugins.NAME]`), `folder` a place of its own
    for files (made when it is first asked for), `config_folder` where the config lies, `log` its own logger."""

    name: str
    log: logging.Logger
    kv: KeyValue

    @property
    def folder(self) -> Path: ...

    @property
    def config_folder(self) -> Path: ...

    def secret(self, reference: str) -> str:
        """What `env:NAME` or `file:PATH` refers to; from then on kept out of logs, records and errors. For `__init__` only.
        Raises ConfigError."""

    async def fetch(
        self,
        url: str,
        *,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        within: float = 10.0,
    ) -> Fetched:
        """Ask another server, by the proxy and with the trust of `[upstream]`. Redirects are not followed. Raises OSError."""

    async def complete(self, model: str, request: canonical.Request, *, within: float = 60.0) -> canonical.Answer:
        """Ask a model that this gateway serves, as a request of its own (it is recorded, with this plugin as its consumer;
        no plugin sees it). Raises GatewayError."""

    async def embed(self, model: str, texts: Sequence[str], *, within: float = 30.0) -> list[list[float]]:
        """Vectors for *texts*, from a model that this gateway serves. Raises GatewayError."""

    def count(self, what: str, number: int = 1) -> None:
        """Add to the metric `aigw_plugin_counts{plugin=..., what=...}`. *what* is a word of the plugin's, never a value."""


class Reply(msgspec.Struct, frozen=True):
    """An answer that a plugin gives in a provider's place. `answer` is a canonical one for conversations, else the bytes of an
    answer of the caller's own dialect (for a conversation that is `View.write`, and only where the plugin is `View.alone`).
    `headers` go to the caller. `cost_saved` and `currency`: what the provider would have taken for it, in nano-units, where
    that is known; `provider` and `model`: who said it first."""

    answer: canonical.Answer | bytes
    headers: tuple[tuple[str, str], ...] = ()
    cost_saved: int = 0
    currency: str = "USD"
    provider: str = ""
    model: str = ""


class AskAgain(Exception):  # noqa: N818 - no error: a wish
    """Raised by an `answer` hook: the answer will not do; ask once more, with *request*. The plugin bounds how often."""

    def __init__(self, request: canonical.Request) -> None:
        super().__init__("ask again")
        self.request = request


class EndStream(Exception):  # noqa: N818 - no error: a wish
    """Raised by an `event` hook: send *events* in place of this one and of all that would follow, and have the provider stop.
    They should end with `Finished`."""

    def __init__(self, events: Sequence[canonical.Event]) -> None:
        super().__init__("end the stream")
        self.events = events


class View:
    """An exchange as one plugin sees it. Two places are the plugin's own, and begin as None: `state`, for the exchange, and
    `heard`, for one attempt's answer (an attempt that fails before the caller saw anything of it is made again elsewhere)."""

    __slots__ = ("_exchange", "_run", "heard", "state")

    def __init__(self, exchange: Exchange, run: Run) -> None:
        self._exchange, self._run = exchange, run
        self.state: Any = None
        self.heard: Any = None

    def __repr__(self) -> str:
        return f"View({self._exchange.id!r})"

    @property
    def id(self) -> str:
        return self._exchange.id

    @property
    def at(self) -> float:
        """When it began, in seconds since the epoch."""
        return self._exchange.at

    @property
    def operation(self) -> str:
        """What is asked for: chat, messages, responses, generate, embeddings, images ..."""
        return self._exchange.operation

    @property
    def dialect(self) -> str:
        """The caller's."""
        return self._exchange.dialect

    @property
    def conversation(self) -> bool:
        """Whether there is a canonical request and answer; else both are bytes."""
        return self._run.conversation

    @property
    def stream(self) -> bool:
        return self._exchange.stream

    @property
    def address(self) -> str:
        """The caller's, as far as trusted proxies tell."""
        return self._exchange.address

    @property
    def headers(self) -> Mapping[str, str]:
        """The caller's, but for those that may hold its key."""
        return self._run.headers

    @property
    def consumer(self) -> str:
        """Its name; "" before it is known, or where nobody has one."""
        caller = self._exchange.caller
        return "" if caller is None else caller.consumer.name

    @property
    def consumer_id(self) -> str:
        caller = self._exchange.caller
        return "" if caller is None else caller.consumer.id

    @property
    def group(self) -> str:
        caller = self._exchange.caller
        return "" if caller is None else caller.consumer.group

    @property
    def tags(self) -> Mapping[str, str]:
        return self._run.tags

    @property
    def end_user(self) -> str:
        """Whom the caller says that it asks for."""
        return self._exchange.end_user

    @property
    def model(self) -> str:
        """As the caller named it."""
        return self._exchange.requested_model

    @property
    def route(self) -> str:
        """By its name; "" before it is known."""
        chosen = self._exchange.chosen
        return "" if chosen is None else chosen.name

    @property
    def provider(self) -> str:
        """Of the latest attempt; "" before the first."""
        return self._exchange.provider

    @property
    def served_model(self) -> str:
        """What the provider was asked for in the latest attempt."""
        return self._exchange.model

    @property
    def request(self) -> canonical.Request:
        """The canonical request, read when it is first asked for. Return it from the hook `request` once you have changed it.
        Raises CallerError for one that cannot be read, RuntimeError in a plugin that does not declare that it reads it."""
        return self._run.read_request(self)

    @property
    def body(self) -> bytes:
        """The request as it came, or as plugins before this one made it."""
        self._run.must_read(self, "request")
        return self._exchange.body

    @property
    def untouched(self) -> bool:
        """Whether no plugin before this one has changed the request."""
        return not self._exchange.edited

    @property
    def alone(self) -> bool:
        """Whether no plugin before this one wants to see an answer that it gives."""
        return self._run.alone(self)

    def write(self, answer: canonical.Answer) -> bytes:
        """*answer* of a conversation in the caller's dialect, as events where it wants a stream. Raises GatewayError."""
        return self._run.write(answer)

    def header(self, name: str, value: str) -> None:
        """Add a header to the answer."""
        self._run.header(name, value)

    def refuse(self, message: str, *, code: str = "policy_plugin_refused", status: int | None = None) -> NoReturn:
        """End the exchange here, with *message* for the caller."""
        raise PolicyError(code, message, status=status)

    def done(self) -> None:
        """Nothing that follows of this exchange concerns this plugin. (Where this goes for all, the answer's bytes pass
        untouched.)"""
        self._run.leave(self)


class Run(Protocol):
    """The plugins of one exchange; `plugins/run.py` makes it."""

    conversation: bool

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def tags(self) -> Mapping[str, str]: ...

    def read_request(self, view: View) -> canonical.Request: ...

    def must_read(self, view: View, what: Reads) -> None: ...

    def alone(self, view: View) -> bool: ...

    def write(self, answer: canonical.Answer) -> bytes: ...

    def header(self, name: str, value: str) -> None: ...

    def leave(self, view: View) -> None: ...


class Plugin:
    """The base of plugins. Give it a `name`, say what it `reads`, write the hooks you need; those you leave out cost nothing.

    `reads`: "request" (its content), "answer" (whole answers), "stream" (the events of streamed ones). Without the last two an
    answer's bytes pass untouched; with them it is read into canonical words and written anew, whatever the dialects on either
    side. `buffers`: nobody sees a piece of an answer before `answer` has seen all of it; streams are then put together, and
    come in one go. `fail`: what an error of the plugin does to the exchange, unless the config says otherwise: "open" goes on
    without it, "closed" ends the exchange (where it only listens, and in `head`, it always goes on). `covers`: families and
    names of operations whose requests it can look into; with "closed", a plugin of the phases mask and guard lets no others
    pass (`uncovered = "pass"` in its table does). `timeout`: seconds for each asynchronous hook,
    unless the config says otherwise. `Config`: what may stand in its table, with defaults.

    The other hooks must return at once: they run on the event loop.
    """

    name: ClassVar[str] = ""
    phase: ClassVar[Phase] = "prompt"
    reads: ClassVar[frozenset[Reads]] = frozenset()
    buffers: ClassVar[bool] = False
    fail: ClassVar[Literal["open", "closed"]] = "open"
    covers: ClassVar[frozenset[str]] = frozenset({"conversation"})
    timeout: ClassVar[float] = 5.0
    Config: ClassVar[type[msgspec.Struct]] = NoConfig

    def __init__(self, config: Any, host: Host) -> None:
        """*config* is a `Config`. Raise ConfigError for what is wrong with it: then the server goes on with the old one."""
        self.config, self.host = config, host

    # the server's life

    async def startup(self) -> None:
        """Before the first request comes, and before a reload puts this one in another's place. What it raises stops both."""

    def inherit(self, previous: Plugin) -> None:
        """A reload puts this one in the place of *previous*, which may be of older code; its exchanges end with it."""

    async def shutdown(self) -> None:
        """The last exchange that this one saw has ended."""

    # an exchange

    async def received(self, view: View) -> None:
        """Nobody knows yet who calls; only headers and address are there."""

    async def body(self, view: View, body: bytes) -> bytes | None:
        """The consumer is known, the body not read. Return another one to go on with, or None."""

    async def request(self, view: View) -> canonical.Request | bytes | Reply | None:
        """Return the request you changed (bytes, where it is no conversation), a `Reply` in the provider's place, or None."""

    def failed(self, view: View, attempt: Attempt) -> None:
        """An attempt failed; another may follow."""

    def head(self, view: View, headers: Headers) -> Headers | None:
        """Return the headers to send to the caller, or None for these. Not called when a plugin answers itself."""

    def event(self, view: View, event: canonical.Event) -> Sequence[canonical.Event] | None:
        """Return the events to send in its place (none at all: hold it back), or None for it as it is. `Finished` is the last
        of its choice: what was held back must come before it. May raise `EndStream`."""

    async def events(self, view: View, events: Sequence[canonical.Event]) -> Sequence[canonical.Event]:
        """The same for plugins that have to wait for somebody (a moderation service): the stream waits with them. At the end it
        is called with what is left, `Finished` among it. Write this or `event`, not both."""
        raise NotImplementedError

    async def answer(self, view: View, answer: canonical.Answer) -> canonical.Answer | None:
        """A whole answer of a conversation. Return another one, or None for this one. May raise `AskAgain`."""

    def complete(self, view: View, answer: canonical.Answer | bytes) -> None:
        """The answer has ended well; streamed ones are put together for this. Called for plugins that read answers."""

    def recorded(self, view: View, record: Record) -> None:
        """Once for each exchange that this plugin was asked about, however it ended."""
