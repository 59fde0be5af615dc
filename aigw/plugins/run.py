"""The plugins of one exchange: who of them it concerns, and what each says at its hook.

On requests they speak in the order of their phases, on answers in the opposite one. What a plugin raises never ends an exchange
by accident: it is counted, named in the log, and then its `fail` decides.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from aigw import canonical
from aigw.canonical import Answer, Event
from aigw.deployment import Route
from aigw.errors import GatewayError, InternalError, PolicyError
from aigw.exchange import Attempt, Exchange, Headers, Record
from aigw.hooks import AskAgain, EndStream, Reads, Reply, View
from aigw.plugins.entry import Entry, started, watched
from aigw.protocols import DIALECTS
from aigw.protocols.operations import Operation
from aigw.protocols.translation import translator
from aigw.protocols.translation.assembly import Assembly, events_of
from aigw.protocols.translation.contract import Reply as Replied

if TYPE_CHECKING:
    from aigw.plugins.manager import Manager

log = logging.getLogger("aigw.plugins")

PRIVATE = frozenset(
    {"authorization", "proxy-authorization", "x-api-key", "x-goog-api-key", "api-key", "cookie", "sec-websocket-protocol"}
)
"""Headers of the caller's that may hold its key."""

_ALL: frozenset[Reads] = frozenset({"request", "answer", "stream"})


class Shown(Mapping[str, str]):
    """Headers but for private ones, by names of any case; copies nothing."""

    __slots__ = ("_said",)

    def __init__(self, said: Mapping[str, str]) -> None:
        self._said = said

    def __getitem__(self, name: str) -> str:
        if name.lower() in PRIVATE:
            raise KeyError(name)
        return self._said[name]

    def get(self, name: str, default: Any = None) -> Any:
        return default if name.lower() in PRIVATE else self._said.get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name.lower() for name in self._said if name.lower() not in PRIVATE))

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Run:
    """Made for each exchange by the manager; holds what its plugins keep of it."""

    __slots__ = (
        "_answered",
        "_assemblies",
        "_exchange",
        "_headers",
        "_manager",
        "_tags",
        "_views",
        "conversation",
        "ended",
    )

    def __init__(self, manager: Manager, exchange: Exchange, entries: Sequence[Entry]) -> None:
        self._manager, self._exchange = manager, exchange
        self._views: list[tuple[Entry, View]] = [(entry, View(exchange, self)) for entry in entries]
        self._headers: Mapping[str, str] | None = None
        self._tags: Mapping[str, str] | None = None
        self._assemblies: dict[str, Assembly] = {}
        self._answered: dict[str, Answer] = {}
        self.conversation = False
        self.ended = False  # a plugin has ended the stream

    # what views ask for

    @property
    def headers(self) -> Mapping[str, str]:
        if self._headers is None:
            self._headers = Shown(self._exchange.headers)
        return self._headers

    @property
    def tags(self) -> Mapping[str, str]:
        if self._tags is None:
            caller = self._exchange.caller
            self._tags = _tags(caller.consumer.tags if caller is not None else "")
        return self._tags

    def read_request(self, view: View) -> canonical.Request:
        self.must_read(view, "request")
        exchange = self._exchange
        if not self.conversation:
            raise RuntimeError(f"{exchange.operation} is no conversation: read `body`")
        if exchange.canonical is None:
            front = translator(exchange.operation)
            exchange.canonical = front.parse_request(exchange.body, exchange.requested_model, stream=exchange.stream)
        found: canonical.Request = exchange.canonical
        return found

    def must_read(self, view: View, what: Reads) -> None:
        entry = next(entry for entry, known in self._views if known is view)
        if what not in entry.plugin.reads:
            raise RuntimeError(f"the plugin does not say that it reads the {what}: add it to `reads`")

    def alone(self, view: View) -> bool:
        for entry, known in self._views:
            if known is view:
                return True
            if entry.reads_stream or entry.reads_answer:
                return False
        return True

    def write(self, answer: Answer) -> bytes:
        exchange = self._exchange
        front = translator(exchange.operation)
        if exchange.canonical is None:
            exchange.canonical = front.parse_request(exchange.body, exchange.requested_model, stream=exchange.stream)
        reply = Replied(
            request=exchange.canonical,
            id=exchange.id,
            model="",
            now=exchange.at,
            include_usage=getattr(exchange.canonical, "include_usage", True),
        )
        if not exchange.stream:
            return front.render_answer(answer, reply)
        renderer = front.renderer(reply)
        return renderer.render(events_of(answer)) + renderer.end()

    def header(self, name: str, value: str) -> None:
        line = (name.lower().encode("ascii"), value.encode("latin-1"))
        if any(byte < 32 or byte == 127 for part in line for byte in part):
            raise ValueError("a control character in a header")
        self._exchange.wire = [*(self._exchange.wire or ()), line]

    def leave(self, view: View) -> None:
        self._views = [(entry, known) for entry, known in self._views if known is not view]

    # the request

    async def received(self) -> None:
        for entry, view in tuple(self._views):
            if "received" in entry.has:
                await self._ask(entry, view, "received", entry.plugin.received(view))

    def known(self) -> None:
        """Now is known who calls: those whom it does not concern leave."""
        caller = self._exchange.caller
        name, group = ("", "") if caller is None else (caller.consumer.name, caller.consumer.group)
        self._views = [
            pair for pair in self._views if pair[0].scope.everything or pair[0].scope.welcomes(name, group, self.tags)
        ]

    async def body(self) -> None:
        exchange = self._exchange
        for entry, view in tuple(self._views):
            if "body" not in entry.has or (entry.scope.models and not entry.scope.covers("", self._model_named())):
                continue
            made = await self._ask(entry, view, "body", entry.plugin.body(view, exchange.body))
            if isinstance(made, (bytes, bytearray)):
                exchange.body = bytes(made)
            elif made is not None:
                self._wrong(entry, view, "body", made)

    def _model_named(self) -> str:
        """What the body, which nobody has read, or else the path asks for."""
        exchange = self._exchange
        try:
            return DIALECTS[exchange.dialect].read_request(exchange.body).model or exchange.requested_model
        except GatewayError:
            return exchange.requested_model

    async def request(self, route: Route, operation: Operation) -> Reply | None:
        """What a plugin answers in a provider's place; None where one is to be asked. `exchange.edited` says whether the body
        is not what goes out. Raises GatewayError."""
        exchange = self._exchange
        self.conversation = operation.family == "conversation"
        kinds = {operation.family or operation.name, operation.name}
        found = []
        for entry, view in self._views:
            if not entry.scope.covers(route.name, exchange.requested_model):
                continue
            if kinds & entry.plugin.covers:
                found.append((entry, view))
            elif entry.strict:
                raise _uncovered(entry, operation)
        self._views = found
        for number, (entry, view) in enumerate(tuple(found)):
            if "request" not in entry.has:
                continue
            made = await self._ask(entry, view, "request", entry.plugin.request(view))
            if made is None:
                continue
            if isinstance(made, Reply):
                self._views = [pair for pair in self._views if pair in found[:number]]  # the others never saw an answer of it
                return made
            if isinstance(made, canonical.Request) and self.conversation:
                exchange.canonical, exchange.edited = made, True
            elif isinstance(made, bytes) and not self.conversation:
                exchange.body, exchange.canonical = made, None
            else:
                self._wrong(entry, view, "request", made)
        return None

    def refuse_unread(self, route: Route, operation: Operation) -> None:
        """For what no plugin can look into (sessions, uploads, paths of a provider's own). Raises PolicyError where one has
        to."""
        kinds = {operation.family or operation.name, operation.name}
        for entry, _ in self._views:
            if (
                entry.strict
                and not kinds & entry.plugin.covers
                and entry.scope.covers(route.name, self._exchange.requested_model)
            ):
                raise _uncovered(entry, operation)
        self._views = []

    # the answer

    @property
    def reads(self) -> bool:
        """Whether an answer has to be read into canonical words."""
        if not self.conversation:
            return False
        if self._exchange.stream:
            return any(entry.reads_stream for entry, _ in self._views)
        return any(entry.reads_answer for entry, _ in self._views)

    @property
    def buffers(self) -> bool:
        """Whether somebody must see all of it first."""
        return any(entry.plugin.buffers and "answer" in entry.has for entry, _ in self._views)

    @property
    def waits(self) -> bool:
        """Whether somebody on the stream has to wait for others."""
        return any("events" in entry.has for entry, _ in self._views)

    def begin(self) -> None:
        """Another attempt: what was heard of the one before counts no more."""
        self._assemblies, self._answered, self.ended = {}, {}, False
        for entry, view in self._views:
            view.heard = None
            if "complete" in entry.has and self.conversation and self._exchange.stream and not self.buffers:
                self._assemblies[entry.name] = Assembly()

    def failed(self, attempt: Attempt) -> None:
        for entry, view in tuple(self._views):
            if "failed" in entry.has:
                self._tell(entry, view, "failed", entry.plugin.failed, attempt)

    def head(self, headers: Headers) -> Headers:
        for entry, view in reversed(self._views):
            if "head" not in entry.has:
                continue
            made = self._tell(entry, view, "head", entry.plugin.head, headers)
            if isinstance(made, list):
                headers = made
        return headers

    def events(self, events: Sequence[Event]) -> Sequence[Event]:
        """What goes on to the caller in place of *events*. Raises GatewayError."""
        for entry, view in reversed(self._views):
            if "event" in entry.has:
                events = self._each(entry, view, events)
            if entry.name in self._assemblies:
                self._assemblies[entry.name].add(events)
            if not events:
                break
        return events

    async def events_waiting(self, events: Sequence[Event]) -> Sequence[Event]:
        """The same, where somebody has to wait."""
        for entry, view in reversed(self._views):
            if "events" in entry.has:
                try:
                    made = await self._ask(entry, view, "events", entry.plugin.events(view, events), events)
                except EndStream as end:
                    self.ended, made = True, end.events
                if isinstance(made, (list, tuple)):
                    events = made
                elif made is not None:
                    self._wrong(entry, view, "events", made)
            elif "event" in entry.has:
                events = self._each(entry, view, events)
            if entry.name in self._assemblies:
                self._assemblies[entry.name].add(events)
            if not events:
                break
        return events

    def _each(self, entry: Entry, view: View, events: Sequence[Event]) -> list[Event]:
        hook, found = entry.plugin.event, []
        began = entry.busy_since = perf_counter()
        try:
            for event in events:
                made = hook(view, event)
                if made is None:
                    found.append(event)
                elif isinstance(made, (list, tuple)):
                    found += made
                else:
                    raise TypeError(f"returned {type(made).__name__}, not a list of events")
        except EndStream as end:
            self.ended = True
            found += end.events
        except GatewayError:
            entry.counts.refused += 1
            raise
        except Exception as error:  # noqa: BLE001 - the border: a plugin is somebody else's code
            self._broken(entry, view, "event", error)
            found = [*found, *events[len(found) :]]
        finally:
            entry.busy_since = 0.0
            entry.counts.calls += 1
            entry.took(perf_counter() - began)
        return found

    async def answer(self, answer: Answer) -> Answer:
        """What goes to the caller in place of *answer*. Raises GatewayError, AskAgain."""
        for entry, view in reversed(self._views):
            if "answer" in entry.has:
                made = await self._ask(entry, view, "answer", entry.plugin.answer(view, answer))
                if isinstance(made, Answer):
                    answer = made
                elif made is not None:
                    self._wrong(entry, view, "answer", made)
            elif entry.has & {"event", "events"}:
                whole = Assembly()
                events: Sequence[Event] = events_of(answer)
                if "events" in entry.has:
                    try:
                        events = await self._ask(entry, view, "events", entry.plugin.events(view, events), events)
                    except EndStream as end:
                        events = end.events
                else:
                    events = self._each(entry, view, events)
                whole.add(events)
                made = whole.done()
                made.extras, made.spent = answer.extras, answer.spent
                answer = made
            if "complete" in entry.has:
                self._answered[entry.name] = answer
        return answer

    def completed(self, body: bytes) -> None:
        """The answer has ended well; *body* is that of what is no conversation."""
        for entry, view in reversed(self._views):
            if "complete" not in entry.has:
                continue
            whole: Answer | bytes | None
            if not self.conversation:
                whole = body
            elif entry.name in self._assemblies:
                whole = self._assemblies.pop(entry.name).done()
            else:
                whole = self._answered.get(entry.name)
            if whole is not None and not (self.ended and self.conversation):
                self._tell(entry, view, "complete", entry.plugin.complete, whole)

    def recorded(self, record: Record | None) -> None:
        for entry, view in self._views:
            if "recorded" in entry.has and record is not None:
                try:
                    entry.plugin.recorded(view, record)
                except Exception as error:  # noqa: BLE001 - as above; nothing can be refused any more
                    self._note(entry, "recorded", error)
        self._manager.ended()

    def over(self) -> None:
        """Nothing comes any more: let go of what refers to each other, or the garbage collector has to find it."""
        self._views = []
        self._exchange.run = None

    # asking

    async def _ask(self, entry: Entry, view: View, hook: str, work: Coroutine[Any, Any, Any], otherwise: Any = None) -> Any:
        """What the plugin says; *otherwise* when it failed and the exchange goes on without it."""
        entry.counts.calls += 1
        try:
            waits_for = started(entry, work)  # most have nothing to wait for, and need no clock
            async with asyncio.timeout(entry.timeout):
                return await watched(entry, work, waits_for)
        except StopIteration as end:
            return end.value
        except (AskAgain, EndStream):
            raise
        except GatewayError:
            entry.counts.refused += 1
            raise
        except TimeoutError as error:
            self._broken(entry, view, hook, error if error.args else TimeoutError(f"took longer than {entry.timeout:g} s"))
        except Exception as error:  # noqa: BLE001 - as above
            self._broken(entry, view, hook, error)
        return otherwise

    def _tell(self, entry: Entry, view: View, hook: str, call: Any, *more: Any) -> Any:
        began = entry.busy_since = perf_counter()
        entry.counts.calls += 1
        try:
            return call(view, *more)
        except Exception as error:  # noqa: BLE001 - as above; here nothing can be refused any more
            self._note(entry, hook, error)
            self.leave(view)
        finally:
            entry.busy_since = 0.0
            entry.took(perf_counter() - began)
        return None

    def _wrong(self, entry: Entry, view: View, hook: str, made: Any) -> None:
        self._broken(entry, view, hook, TypeError(f"returned {type(made).__name__}"))

    def _broken(self, entry: Entry, view: View, hook: str, error: Exception) -> None:
        """A plugin failed: the exchange goes on without it, or ends. Raises InternalError."""
        self._note(entry, hook, error)
        if entry.fail == "closed":
            _refuse(entry)
        self.leave(view)

    @staticmethod
    def _note(entry: Entry, hook: str, error: Exception) -> None:
        entry.counts.errors += 1
        if entry.may_say(hook):
            log.error("the plugin %r failed in %r: %s at %s", entry.name, hook, _said(error), _where(error))


def _refuse(entry: Entry) -> NoReturn:
    raise InternalError(
        "gateway_plugin_failed", f"The plugin {entry.name!r} failed, and nothing may pass without it. Try again later."
    )


def _uncovered(entry: Entry, operation: Operation) -> PolicyError:
    return PolicyError(
        "policy_plugin_refused",
        f"The plugin {entry.name!r} cannot look into {operation.name!r} requests, and lets none pass that it cannot look into.",
    )


def _tags(text: str) -> Mapping[str, str]:
    try:
        return msgspec.json.decode(text, type=dict[str, str]) if text else {}
    except msgspec.DecodeError:
        return {}


def _said(error: Exception) -> str:
    """What may be said of an exception of somebody else's code: its kind, for its text may hold a prompt or a key. Ours says
    what is wrong with the code, not with a request."""
    return (
        f"{type(error).__name__}: {error}"
        if isinstance(error, (TimeoutError, TypeError, RuntimeError, NotImplementedError))
        else type(error).__name__
    )


def _where(error: Exception) -> str:
    """File and line of its origin."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "?" if trace is None else f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
