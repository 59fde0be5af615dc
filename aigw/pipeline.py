"""The walk of an exchange, readable top to bottom:

    authenticate -> read -> route -> hold -> attempts (provider, upstream, relay) -> meter -> record, settle -> the last byte

Whatever happens on the way - refusal, upstream failure, caller gone, cancellation, shutdown - what was held is settled and
exactly one record is journalled, before the caller can see its answer's end. Both only enqueue: nothing is awaited there.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import perf_counter, time
from typing import Protocol

import msgspec
from msgspec.structs import replace

from aigw.access.authenticate import REFUSAL, Directory
from aigw.access.cap import Capped, CapReachedError
from aigw.access.permissions import Permissions, Rule
from aigw.access.quota import Plan, Quota
from aigw.access.throttle import ThrottledError
from aigw.attempt import Attempter, Prices
from aigw.config.scrub import Scrubber
from aigw.consumer import Caller
from aigw.deployment import Deployment, Route
from aigw.errors import CallerError, GatewayError, InternalError, PolicyError, UpstreamError
from aigw.exchange import Attempt, Exchange, Headers, Record, Sink, Upload, Usage
from aigw.failover import Failover
from aigw.hooks import AskAgain, Listener
from aigw.metering import usage as metering
from aigw.metering.currencies import Currencies
from aigw.plugins.manager import Manager
from aigw.plugins.run import Run
from aigw.protocols import DIALECTS, listed, output_limit, raw, splice
from aigw.protocols.closing import closing
from aigw.protocols.dialect import Asked
from aigw.protocols.operations import OPERATIONS, RAW, Operation
from aigw.providers import catalog, placing
from aigw.providers.base import Provider
from aigw.relay import Relay
from aigw.routing.canaries import Canaries
from aigw.routing.key_pool import KeyPool
from aigw.routing.shadow import Nowhere
from aigw.routing.stateful import Owner, Stateful, narrowed, told_of
from aigw.routing.table import Table
from aigw.transform import Given

log = logging.getLogger("aigw.pipeline")

NAME = 256
"""Characters of a model's name that a record keeps; the longest real ones (cloud resource names) have about 150."""

STRANGE = (
    "requested_model",
    "route",
    "model",
    "answer_model",
    "end_user",
    "client_agent",
    "finish_reason",
    "service_tier",
)
"""Fields of a record that callers and providers fill in as they like."""

CLEAN = 4096
"""Combinations of such names that are known to hold no secret."""

BIG_BODY = 1024 * 1024
"""Bytes of a request that take about a millisecond to look through, of which no other exchange should wait for many."""

_KEEPS_NOT = re.compile(rb'"store"\s*:\s*false').search
"""A request that says so leaves nothing to be asked for."""

_UNDER_WAY = frozenset({"queued", "in_progress"})
"""What a response is that is made in the background."""

_BATCH_ENDS = frozenset({"completed", "expired", "cancelled", "failed"})
"""What a batch is of which nothing more will come."""

PAGES = 20
"""Pages of a provider's list that are looked through for one of the consumer's own."""

_encode_attempts = msgspec.json.Encoder().encode


class Journal(Protocol):
    """Where records go: one synchronous write, no waiting. `refusing`: it has no room, and the operator wants no exchange that
    is not recorded."""

    refusing: bool

    def write(self, *records: Record) -> None: ...


def _no_room() -> InternalError:
    return InternalError(
        "gateway_overloaded",
        "the gateway cannot record requests at present: its database is away and its journal is full; try again later",
        retry_after=5,
    )


class Pipeline:
    """One config's walk. Built by the gateway; holds no state of its own, but for what is ending just now."""

    def __init__(
        self,
        *,
        directory: Directory,
        limits: Quota,
        table: Table,
        providers: Mapping[str, Provider],
        pools: Mapping[str, KeyPool],
        attempter: Attempter,
        prices: Prices,
        journal: Journal,
        listeners: Sequence[Listener],
        config_hash: str,
        patience: float,
        scrubber: Scrubber | None = None,
        canaries: Canaries | None = None,
        failover: Failover | None = None,
        stateful: Stateful | None = None,
        currencies: Currencies | None = None,
        permissions: Permissions | None = None,
        plugins: Manager | None = None,
    ) -> None:
        """*patience* is the longest an exchange may take before its first byte, in seconds; *scrubber* knows what nobody may
        read."""
        self.directory, self.limits, self.table = directory, limits, table
        self.attempter = attempter
        self.failover = failover or Failover(providers, pools, attempter)
        self.prices, self.journal, self.listeners = prices, journal, listeners
        self.config_hash, self.patience = config_hash, patience
        self._scrubber = scrubber or Scrubber()
        self.canaries = canaries
        self.stateful = stateful or Stateful()
        self.currencies = currencies or Currencies()
        self.permissions = permissions
        self.plugins = plugins or None
        self._clean: set[tuple[str, ...]] = set()
        self._endings: list[tuple[Exchange, Sink, Relay | Given | None]] = []
        self._ended: asyncio.Future[None] | None = None
        self.cutting = False  # the server stops now: what is cancelled from here on is our doing, not the caller's

    async def serve(self, exchange: Exchange, sink: Sink, receive: Callable[[], Awaitable[bytes]] | None = None) -> None:
        """Walk *exchange* to its answer. *receive* gives the request's body, when the exchange does not have it yet; it is
        asked once the caller is known to be welcome, and may raise CallerError."""
        plan: Plan | None = None
        cap: Capped | None = None
        relay: Relay | Given | None = None
        run: Run | None = None
        patience = exchange.patience
        operation = OPERATIONS.get(exchange.operation) or RAW
        exchange.deadline = exchange.started + (patience if 0 < patience < self.patience else self.patience)
        try:
            if self.journal.refusing:
                raise _no_room()
            if self.plugins is not None:
                run = exchange.run = self.plugins.run(exchange)
                if self.plugins.receives:
                    await run.received()
            exchange.caller = caller = self.directory.authenticate(exchange.headers, exchange.address)
            plan = self.limits.plan(caller.consumer, exchange.at)
            rule = None if self.permissions is None else self.permissions.rule(caller.consumer)
            if rule is not None:
                rule.enter(exchange)
            if receive is not None:
                exchange.body = await receive()
                exchange.deadline += perf_counter() - exchange.started  # nobody is impatient while it is still sending
            if run is not None:
                run.known()
                if exchange.body:
                    await run.body()
            if exchange.object_id:
                route = await self._to_owner(exchange, caller, operation)
            elif operation.placed or exchange.upload is not None:
                route = await self._apart(exchange, caller, operation)
            else:
                if len(exchange.body) > BIG_BODY:
                    await self._read_slowly(exchange)
                else:
                    asked = DIALECTS[exchange.dialect].read_request(exchange.body)
                    exchange.model_at = splice.only(exchange.body, "model")
                    self.note(exchange, asked)
                route = self.table.resolve(exchange.requested_model)
                if operation.object:
                    route = await self._continued(exchange, caller, route)
                if self.canaries is not None and self.canaries.active and exchange.owner is None:
                    route = self.canaries.route(exchange, route)
            if rule is not None:
                route = self._permitted(rule, exchange, route, operation)
            exchange.chosen = route
            to: Sink = sink
            if plan is not None and not self.limits.hold_at_once(exchange, plan, route, operation):
                exchange.chosen = held = await self.limits.hold(exchange, plan, route, operation)
                if rule is not None and held is not route and self.permissions is not None:
                    exchange.chosen = held = self.permissions.route(rule, exchange, held, operation)  # a cheaper one
                route = held
                if exchange.hold.cap and exchange.stream:
                    to = cap = self._capped(exchange, sink)
            if run is None:
                relay = await self.failover.serve(exchange, to, route, operation)
            else:
                relay = await self._plugged(run, rule, exchange, to, route, operation)
            if isinstance(relay, Given):
                pass
            elif operation.placed and operation.method == "GET" and self.directory.required:
                relay = await self._own(exchange, caller, sink, route, operation, relay)
        except ThrottledError as error:
            exchange.failure = error
            await self.directory.throttle.pause()
        except GatewayError as error:
            exchange.failure = error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if cap is None or not cap.reached or task is None or task.uncancel():
                exchange.failure = error
                raise
            exchange.failure = cap.error
        except Exception as error:  # noqa: BLE001 - the border: an exchange always ends with an answer
            # A traceback may hold a body or a key: say what and where, nothing more.
            exchange.failure = InternalError("gateway_internal", "The gateway failed on this request; this is a bug of ours.")
            log.error("request %s: %s at %s", exchange.id, type(error).__name__, _where(error))
        finally:
            if plan is not None and exchange.hold is None and not isinstance(exchange.failure, PolicyError):
                self.limits.count(exchange)
            if operation.object and exchange.chain:
                self._keep(exchange, operation)
            ended = self._end(exchange, sink, relay)
        await ended

    async def _plugged(
        self, run: Run, rule: Rule | None, exchange: Exchange, sink: Sink, route: Route, operation: Operation
    ) -> Relay | Given:
        """The answer to what plugins have to do with."""
        if exchange.upload is not None or exchange.object_id or operation.placed:
            run.refuse_unread(route, operation)
            return await self.failover.serve(exchange, sink, route, operation)
        reply = await run.request(route, operation)
        if reply is not None:
            given = Given(exchange, sink, [(name.lower().encode(), value.encode("latin-1")) for name, value in reply.headers])
            exchange.answer_model = reply.model
            try:
                await given.take(reply.answer, operation, run)
            except AskAgain as again:  # of a plugin that the given answer does not do for
                exchange.canonical, exchange.edited, exchange.status, exchange.cost = again.request, True, 0, None
                exchange.first_token_at, exchange.answer_model = 0.0, ""
            else:
                exchange.cache_saving, exchange.currency, exchange.price_source = reply.cost_saved, reply.currency, "plugin"
                return given
        if exchange.edited and exchange.canonical.model != exchange.requested_model:
            exchange.requested_model = exchange.canonical.model
            route = self.table.resolve(exchange.requested_model)
            if rule is not None:
                route = self._permitted(rule, exchange, route, operation)
            exchange.chosen = route
        before: list[Attempt] = []
        try:
            while True:
                try:
                    relay = await self.failover.serve(exchange, sink, route, operation)
                except AskAgain as again:
                    before += exchange.chain
                    exchange.chain, exchange.canonical, exchange.edited = [], again.request, True
                else:
                    run.completed(relay.body)
                    return relay
        finally:
            if before:
                exchange.chain = [*before, *exchange.chain]

    def _permitted(self, rule: Rule, exchange: Exchange, route: Route, operation: Operation) -> Route:
        """*route*, as far as the consumer may go it; and its answer no longer than it may be. Raises PolicyError."""
        assert self.permissions is not None
        route = self.permissions.route(rule, exchange, route, operation)
        if rule.max_output and exchange.body and operation.family == "conversation":
            provider = self.failover.providers.get(route.targets[0].provider)
            newer = provider is not None and "max-completion-tokens" in catalog.row(provider.kind).quirks
            try:
                body = output_limit.limited(operation.name, exchange.body, rule.max_output, newer=newer)
            except ValueError as error:
                raise CallerError("caller_invalid_request", f"The request cannot be read: {error}.") from None
            if body is not exchange.body:
                exchange.body, exchange.model_at = body, splice.only(body, "model")
            exchange.max_tokens = min(exchange.max_tokens or rule.max_output, rule.max_output)
        return route

    @staticmethod
    def _capped(exchange: Exchange, sink: Sink) -> Capped:
        """*sink*, for a stream that ends where its hold does: the walk is then cancelled, by us."""
        task = asyncio.current_task()
        assert task is not None
        return Capped(sink, exchange.hold.cap, metering.answer_tokens, task.cancel)

    # what providers keep

    async def _apart(self, exchange: Exchange, caller: Caller, operation: Operation) -> Route:
        """The way of what names its model in a form, or names none."""
        upload, keyless = exchange.upload, not self.directory.required
        if upload is not None:
            began = perf_counter()
            await upload.open()
            exchange.deadline += perf_counter() - began
        if exchange.raw is not None:
            provider, _, path = exchange.raw
            asked = raw.asked(path, b"" if upload is None else upload.held())
            exchange.requested_model, exchange.stream = asked.model[:NAME], asked.stream
            return _only(provider)
        if operation.placed:
            owner = exchange.owner = await self.stateful.used(caller.consumer.id, exchange.body, keyless=keyless)
            if operation.method == "GET" and not keyless:
                exchange.query = listed.bounded(exchange.query)
            wanted = exchange.headers.get(placing.HEADER, "")
            if owner is not None and owner.provider in self.failover.providers:
                wanted = owner.provider
            return _only(placing.place(self.failover.providers, operation, wanted).name)
        fields = {} if upload is None else upload.fields
        exchange.model_at = 0  # the form knows where; there is no body to look through
        self.note(
            exchange,
            Asked(fields.get("model", ""), fields.get("stream", "").lower() == "true", end_user=fields.get("user", "")),
        )
        return self.table.resolve(exchange.requested_model)

    async def _own(
        self, exchange: Exchange, caller: Caller, sink: Sink, route: Route, operation: Operation, relay: Relay
    ) -> Relay:
        """A provider's list, with what this consumer made in it and nothing else. Where a page has none of that, the pages
        behind it are asked for: clients take an empty one for the end."""
        consumer = caller.consumer.id
        for number in range(PAGES):
            page = listed.read(relay.body)
            if page is None:
                raise UpstreamError("provider_bad_response", f"The provider {exchange.provider!r} answered with no list.")
            mine = [one for one in page.items if one.id and await self.stateful.owner(consumer, one.id) is not None]
            if mine or not page.more or number + 1 == PAGES:
                relay.body = listed.write(page, mine)
                break
            exchange.query = listed.after(exchange.query, page.items[-1].id)
            exchange.chain = []
            relay = await self.failover.serve(exchange, sink, route, operation)
        exchange.bytes_out = len(relay.body)
        return relay

    async def _to_owner(self, exchange: Exchange, caller: Caller, operation: Operation) -> Route:
        """The way to whoever has what the path names."""
        if exchange.upload is not None:
            began = perf_counter()
            await exchange.upload.open()
            exchange.deadline += perf_counter() - began
        elif exchange.body and operation.object == "vector_store":
            await self.stateful.used(caller.consumer.id, exchange.body, keyless=not self.directory.required)
        route, owner = await self.stateful.route(caller.consumer.id, exchange.object_id)
        if owner.provider not in self.failover.providers:
            raise CallerError(
                "caller_object_not_found", f"This was made by the provider {owner.provider!r}, which is not configured now."
            )
        exchange.owner, exchange.requested_model = owner, owner.model
        exchange.stream = "stream=true" in exchange.query.lower().split("&")
        return route

    async def _continued(self, exchange: Exchange, caller: Caller, route: Route) -> Route:
        """*route*, or what of it leads to whoever has what the request goes on from."""
        keyless = not self.directory.required
        owner = exchange.owner = await self.stateful.continued(caller.consumer.id, exchange.body, keyless=keyless)
        return route if owner is None else narrowed(route, owner)

    def _keep(self, exchange: Exchange, operation: Operation) -> None:
        """Note what was made, and deleted; and that what was only looked at costs nothing again. Only enqueues."""
        provider = self.failover.providers.get(exchange.provider)
        if provider is None or exchange.caller is None or provider.serving(operation, exchange.model) is not operation:
            return  # what was translated, nobody keeps
        consumer_id, owner, usage = exchange.caller.consumer.id, exchange.owner, exchange.usage
        if exchange.object_id:
            ended = operation.object != "batch" or exchange.finish_reason in _BATCH_ENDS
            if owner.owed and usage is not None and exchange.failure is None and ended:
                self.stateful.made(consumer_id, exchange.object_id, replace(owner, owed=False))
                if operation.object == "batch":
                    usage.service_tier = "batch"
            elif usage is not None or exchange.failure is None:
                exchange.usage = Usage()
            if operation.method == "DELETE" and exchange.failure is None and not exchange.item:
                self.stateful.gone(consumer_id, exchange.object_id)
            if operation.makes and operation.object != "response" and exchange.failure is None:
                for made in told_of(exchange.sample):
                    if made != exchange.object_id:
                        self.stateful.made(consumer_id, made, replace(owner, owed=False, lasting=True))
            return
        if operation.below and exchange.failure is None and usage is None:
            exchange.usage = Usage()  # counting is free
        last = exchange.chain[-1]
        if operation.below or not exchange.sample or (last.error and not exchange.streaming):
            return
        if b'"store"' in exchange.body and _KEEPS_NOT(exchange.body):
            return
        owed = operation.name == "batches" or (usage is None and exchange.finish_reason in _UNDER_WAY)
        if owed:
            exchange.usage = Usage()  # told when it is asked for
        keys = self.failover.pools[exchange.provider].keys
        account = next((key.account for key in keys if key.label == last.key), "")
        if operation.placed and exchange.failure is None:
            exchange.usage = Usage()  # whatever it will take is not known yet, or nothing
        if operation.object == "response":
            self.stateful.note(consumer_id, Owner(exchange.provider, last.key, account, exchange.model, owed), exchange.sample)
            return
        made_by = Owner(exchange.provider, last.key, account, exchange.model, owed, lasting=True)
        for object_id in told_of(exchange.sample):
            self.stateful.made(consumer_id, object_id, made_by)

    async def host(self, exchange: Exchange, sink: Sink, session: Callable[[], Awaitable[None]]) -> None:
        """The walk of what is no request but a session: counted and recorded like any exchange; between that, *session* finds
        its route, has it `reserved` and lasts as long as it lasts. It may raise GatewayError."""
        exchange.deadline = exchange.started + self.patience
        try:
            if self.journal.refusing:
                raise _no_room()
            if self.plugins is not None:
                exchange.run = self.plugins.run(exchange)
                if self.plugins.receives:
                    await exchange.run.received()
            exchange.caller = self.directory.authenticate(exchange.headers, exchange.address)
            await session()
        except ThrottledError as error:
            exchange.failure = error
            await self.directory.throttle.pause()
        except GatewayError as error:
            exchange.failure = error
        except asyncio.CancelledError as error:
            exchange.failure = error
            raise
        except Exception as error:  # noqa: BLE001 - the border, as above
            exchange.failure = InternalError("gateway_internal", "The gateway failed on this session; this is a bug of ours.")
            log.error("session %s: %s at %s", exchange.id, type(error).__name__, _where(error))
        finally:
            if exchange.hold is None and exchange.caller is not None and not isinstance(exchange.failure, PolicyError):
                self.limits.count(exchange)
            ended = self._end(exchange, sink, None)
        await ended

    async def reserved(self, exchange: Exchange, route: Route, operation: Operation) -> Route:
        """*route*, once its consumer's limits and budgets hold what a session takes up. Raises PolicyError."""
        caller = exchange.caller
        rule = None if caller is None or self.permissions is None else self.permissions.rule(caller.consumer)
        if rule is not None:
            rule.enter(exchange)
            route = self._permitted(rule, exchange, route, operation)
        if exchange.run is not None:
            exchange.run.known()
            exchange.run.refuse_unread(route, operation)
        plan = None if caller is None else self.limits.plan(caller.consumer, exchange.at)
        return route if plan is None else await self.limits.hold(exchange, plan, route, operation)

    async def _read_slowly(self, exchange: Exchange) -> None:
        """The same three steps for a body that takes milliseconds: the others get their turn between them."""
        await asyncio.sleep(0)
        asked = DIALECTS[exchange.dialect].read_request(exchange.body)
        await asyncio.sleep(0)
        exchange.model_at = splice.only(exchange.body, "model")
        await asyncio.sleep(0)
        self.note(exchange, asked)

    @staticmethod
    def note(exchange: Exchange, asked: Asked) -> None:
        """Keep what we must know of the body; nothing else of it is decoded."""
        if asked.model:  # else the path named it, and said whether a stream is wanted
            exchange.requested_model = asked.model
            exchange.stream = asked.stream
        exchange.max_tokens = asked.max_tokens
        exchange.end_user = asked.end_user[:NAME]
        exchange.wants_usage = asked.wants_usage
        if exchange.model_at < 0 and splice.stands_twice(exchange.body, "model"):
            raise CallerError("caller_invalid_request", "The request names its `model` twice.", param="model")
        if not exchange.requested_model:
            raise CallerError("caller_invalid_request", "`model` is empty. Name the model to use.", param="model")

    def _meter(self, exchange: Exchange) -> Usage | None:
        """The provider's own numbers, made sane; ours, marked as estimated, where an answer came without."""
        if exchange.usage is not None:
            usage = metering.clean(exchange.usage)
            if exchange.failure is not None and exchange.streaming and not exchange.finish_reason:
                # Cut before the provider's last word: what was said at the stream's beginning is less than what has come.
                said = metering.estimate(exchange.operation, b"", exchange.sample, exchange.bytes_out).output
                if said > usage.output:
                    usage = replace(usage, output=said, estimated=True)
            return usage
        answered = exchange.failure is None or exchange.bytes_out
        if not answered:
            return None
        if exchange.upload is not None:
            return self._meter_upload(exchange, exchange.upload)
        return metering.estimate(exchange.operation, exchange.body, exchange.sample, exchange.bytes_out)

    @staticmethod
    def _meter_upload(exchange: Exchange, upload: Upload) -> Usage:
        """Ours, for a body that nobody kept. What names no model is nothing that costs."""
        if not exchange.requested_model or OPERATIONS.get(exchange.operation, RAW).placed:
            return Usage()
        if exchange.raw is not None:
            return metering.estimate(exchange.operation, upload.held(), exchange.sample, exchange.bytes_out)
        return metering.estimate_form(exchange.operation, upload.size, exchange.sample, exchange.bytes_out)

    def _end(self, exchange: Exchange, sink: Sink, relay: Relay | Given | None) -> asyncio.Future[None]:
        """The exchange is over but for its record and its answer's last bytes. Those wait, for the moment that the others need
        which this turn of the event loop has woken, and are then dealt with together: one write to the journal for all of
        them, and code and data that stay in the processor's cache; under load that is a quarter of a request. Runs once for
        each exchange, in a `finally`: only enqueues, never raises."""
        ended = self._ended
        if ended is None:
            loop = asyncio.get_running_loop()
            ended = self._ended = loop.create_future()
            loop.call_soon(self._end_all)
        self._endings.append((exchange, sink, relay))
        return ended

    def _end_all(self) -> None:
        """Meter, price and journal what has ended; then, and only then, the callers see their answers' ends."""
        endings, self._endings = self._endings, []
        ended, self._ended = self._ended, None
        records = [self._recorded(exchange, sink) for exchange, sink, _ in endings]
        self._record(records)
        if self.plugins is not None:
            for (exchange, _, _), record in zip(endings, records, strict=True):
                if exchange.run is not None:
                    exchange.run.recorded(record)
        for exchange, sink, relay in endings:
            try:
                self._finish(exchange, sink, relay)
            except Exception as error:  # noqa: BLE001 - the others' answers must not end here
                log.error("request %s was not finished: %s at %s", exchange.id, type(error).__name__, _where(error))
                sink.abort()
            if exchange.run is not None:
                exchange.run.over()
            if exchange.mirrored and self.canaries is not None:
                self.canaries.mirror(exchange, self._serve_shadow)
        if ended is not None and not ended.done():
            ended.set_result(None)

    async def ask(self, plugin: str, operation: str, model: str, body: bytes, within: float) -> bytes:
        """The answer to a request of a plugin's own, which takes at most *within* seconds. It leaves a record like any other,
        in which the plugin stands as the consumer; no plugin sees it. Raises GatewayError."""
        now = perf_counter()
        exchange = Exchange(
            id=f"plugin-{os.urandom(10).hex()}",
            at=time(),
            operation=operation,
            dialect=OPERATIONS[operation].dialect,
            consumer=f"plugin/{plugin}",
            headers={},
            started=now,
            deadline=now + within,
            body=body,
            requested_model=model,
            model_at=splice.only(body, "model"),
        )
        try:
            exchange.chosen = route = self.table.resolve(model)
            async with asyncio.timeout(within):
                relay = await self.failover.serve(exchange, Nowhere(), route, OPERATIONS[operation])
        except GatewayError as error:
            exchange.failure = error
            raise
        except TimeoutError:
            exchange.failure = UpstreamError("provider_timeout", f"{model!r} did not answer in time.", fault="deployment")
            raise exchange.failure from None
        except asyncio.CancelledError as error:
            exchange.failure = error
            raise
        finally:
            self._record([self._recorded(exchange, Nowhere())])
        return relay.body

    async def _serve_shadow(self, copy: Exchange, sink: Sink, route: Route) -> None:
        """A copy of an exchange on its way to an answer that nobody gets; it leaves a record like any other."""
        try:
            await self.failover.serve(copy, sink, route, OPERATIONS[copy.operation])
        except GatewayError as error:
            copy.failure = error
        except asyncio.CancelledError:
            copy.failure = InternalError("gateway_draining", "The server stopped before the copy had its answer.")
            raise
        except Exception as error:  # noqa: BLE001 - the border: nobody waits for this task
            copy.failure = InternalError("gateway_internal", "The gateway failed on this request; this is a bug of ours.")
            log.error("request %s: %s at %s", copy.id, type(error).__name__, _where(error))
        finally:
            self._record([self._recorded(copy, sink)])

    def _finish(self, exchange: Exchange, sink: Sink, relay: Relay | Given | None) -> None:
        if exchange.failure is None and relay is not None:
            relay.finish()
        elif isinstance(exchange.failure, GatewayError):
            self._answer_error(exchange, sink, exchange.failure)

    def _record(self, made: Sequence[Record | None]) -> None:
        records = [record for record in made if record is not None]
        try:
            self.journal.write(*records)
        except Exception as error:  # noqa: BLE001 - the callers' answers must not end here
            log.error("%d requests were not recorded: %s at %s", len(records), type(error).__name__, _where(error))
        for listener in self.listeners:
            try:
                for record in records:
                    listener.recorded(record)
            except Exception as error:  # noqa: BLE001 - a listener only listens
                log.error("a listener failed: %s at %s", type(error).__name__, _where(error))

    def _recorded(self, exchange: Exchange, sink: Sink) -> Record | None:
        if isinstance(exchange.failure, ThrottledError):
            return None  # never let in; else whoever tries keys would fill our disk
        try:
            return self._make_record(exchange, sink)
        except Exception as error:  # noqa: BLE001 - one that cannot be recorded must not hold up the others
            log.error("request %s has no record: %s at %s", exchange.id, type(error).__name__, _where(error))
            return None
        finally:
            if exchange.hold is not None:
                try:
                    self.limits.settle(exchange)
                except Exception as error:  # noqa: BLE001 - as above
                    log.error("request %s was not settled: %s at %s", exchange.id, type(error).__name__, _where(error))

    def _make_record(self, exchange: Exchange, sink: Sink) -> Record:
        started = exchange.started
        exchange.took = int((perf_counter() - started) * 1e6)
        if exchange.first_token_at and exchange.stream:
            exchange.first_token = int((exchange.first_token_at - started) * 1e6)
        exchange.error, exchange.outcome, exchange.status = _outcome(exchange, sink, cutting=self.cutting)
        exchange.usage = usage = self._meter(exchange)
        if usage is not None and exchange.provider:
            models = (exchange.answer_model, exchange.model) if exchange.answer_model else (exchange.model,)
            cost = self.prices.price(exchange.provider, models, usage, exchange.at)
            if cost is not None:
                exchange.cost, exchange.currency, exchange.cache_saving = cost.nano, cost.currency, cost.cache_saving
                exchange.price_source, exchange.price_version = cost.source, cost.version
        caller = exchange.caller
        if caller is not None:
            if exchange.cost:
                exchange.charged = self.currencies.usd(exchange.cost, exchange.currency)
            consumer = caller.consumer
            exchange.consumer, exchange.consumer_id, exchange.key_id = consumer.name, consumer.id, caller.key.id
            exchange.group, exchange.tags = consumer.group, consumer.tags
        if exchange.chosen is not None:
            exchange.route = exchange.chosen.name
        exchange.config_hash = self.config_hash
        exchange.bytes_in += len(exchange.body)
        if exchange.upload is not None:
            exchange.bytes_in += exchange.upload.size
        chain = exchange.chain
        if chain:
            exchange.attempts = _encode_attempts(chain).decode()
            if len(chain) > 1 or exchange.error:
                exchange.abandoned_cost = sum(attempt.cost or 0 for attempt in chain)
        if exchange.arm and self.canaries is not None:
            self.canaries.observe(exchange)
        record = exchange.record()
        if len(exchange.requested_model) > NAME or len(exchange.answer_model) > NAME:
            _shorten(record)
        names = (
            record.requested_model,
            record.answer_model,
            record.end_user,
            record.client_agent,
            record.finish_reason,
            record.service_tier,
        )
        if names not in self._clean or record.error:
            self._look_at(record, names)
        return record

    def _look_at(self, record: Record, names: tuple[str, ...]) -> None:
        """The one door by which what strangers call things gets into records, and from there into metrics, the log and the
        store. Those that came through unchanged are known the next time: an ordinary exchange pays one look-up."""
        scrub = self._scrubber.name
        is_clean = True
        for field in STRANGE:
            name = getattr(record, field)
            cleaned = scrub(name)
            if cleaned != name:
                setattr(record, field, cleaned)
                is_clean = False
        if not is_clean:
            record.attempts = self._scrubber.text(record.attempts)  # they name models, too
        record.upstream_id = self._scrubber.text(record.upstream_id)
        if is_clean and sum(map(len, names)) <= 4 * NAME:
            if len(self._clean) >= CLEAN:
                self._clean.clear()
            self._clean.add(names)

    # an answer of ours

    def _answer_error(self, exchange: Exchange, sink: Sink, error: GatewayError) -> None:
        """In the caller's dialect: an answer, or the last event of a stream that broke after its first byte. What is no event
        stream can then only be cut, so that the caller sees it is not whole."""
        dialect = DIALECTS[exchange.dialect]
        if sink.started:
            if exchange.streaming:
                if isinstance(error, CapReachedError):
                    usage = exchange.usage or Usage()
                    sink.write(closing(exchange.dialect, exchange.sample, usage, error.code, error.message, block=error.block))
                else:
                    sink.write(dialect.render_error_event(error, exchange.id))
                sink.end()
            else:
                sink.abort()
            return
        headers: Headers = [(b"content-type", b"application/json"), (b"x-aigw-error", error.code.encode())]
        if error.retry_after is not None:
            headers.append((b"retry-after", b"%d" % max(1, -(-error.retry_after // 1))))
        if exchange.wire is not None:
            headers += exchange.wire
        if error.status in (401, 403) or error.code == "policy_budget_exhausted":
            headers.append((b"x-should-retry", b"false"))  # Claude Code tries a 401 again for minutes, unless it is told
        if isinstance(error, UpstreamError):
            headers.append((b"x-aigw-provider", exchange.provider.encode()))
            if exchange.chain:
                headers.append((b"x-aigw-attempts", b"%d" % len(exchange.chain)))
            if (len(exchange.chain) > 1 or error.status != 429) and error.status not in (401, 403):
                headers.append((b"x-should-retry", b"false"))  # we have tried: an SDK's own retries would multiply ours
        body = dialect.render_error(error, exchange.id)
        sink.answer(error.status, headers, body.ljust(REFUSAL) if error.status == 401 else body)


def _only(provider: str) -> Route:
    """The way to one provider, for what names no model."""
    return Route(name=provider, targets=(Deployment(provider=provider),), source="object")


def _outcome(exchange: Exchange, sink: Sink, *, cutting: bool) -> tuple[str, str, int]:
    """Our code, whose fault, and the HTTP status the caller got."""
    error = exchange.failure
    if error is None:
        return "", "ok", exchange.status
    if isinstance(error, GatewayError):
        outcome = error.code.partition("_")[0] + "_error"
        return error.code, outcome, sink.status if sink.started else error.status
    if cutting:
        return "gateway_draining", "gateway_error", sink.status if sink.started else 503
    return "caller_closed", "client_closed", sink.status if sink.started else 499


def _shorten(record: Record) -> None:
    """Names that strangers chose are kept up to `NAME` characters."""
    for field in ("requested_model", "route", "model", "answer_model"):
        setattr(record, field, getattr(record, field)[:NAME])


def _where(error: BaseException) -> str:
    """File and line of an exception's origin: all that may be said of it in a log."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "?" if trace is None else f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
