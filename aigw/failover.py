"""Which deployment and which key next, until one answers or the rules say stop: another key, another target, the fallbacks."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Coroutine, Mapping, Sequence
from time import perf_counter, time
from typing import Any

import msgspec

from aigw.attempt import Attempter, Prices
from aigw.deployment import Deployment, Hedge, ProviderKey, Route, SlowStart
from aigw.errors import CallerError, GatewayError, InternalError, UpstreamError
from aigw.exchange import Exchange, Sink, Usage
from aigw.metering import usage as metering
from aigw.metering.currencies import Currencies
from aigw.protocols.operations import Operation
from aigw.providers.base import Provider
from aigw.relay import Relay
from aigw.routing import retry, stateful
from aigw.routing.health import Board, Health
from aigw.routing.hedge import Gate, Race, may_hedge
from aigw.routing.key_pool import KeyPool
from aigw.routing.selection import Candidate, Selection
from aigw.routing.slow_start import Held
from aigw.routing.strategies import affinity

MIX = Usage(input=3000, output=1000)
"""What prices are compared by: three tokens read for each one written."""

TOLD = (
    "provider",
    "residency",
    "model",
    "status",
    "usage",
    "answer_model",
    "finish_reason",
    "first_token_at",
    "sample",
    "bytes_out",
    "streaming",
    "upstream_id",
    "loss",
)
"""What an attempt writes into its exchange."""

NOT_THERE = frozenset({404, 405, 501})
"""What servers answer that speak a dialect but do not count tokens in it."""

Places = Sequence[tuple[Deployment, Health | None]]
"""In the order to try them. Without health: the only place of a route, where there is nothing to choose."""


class Failover:
    """One config's deployments and key pools. What it learns of them is in *board* and *budget*, which outlive a reload."""

    def __init__(
        self,
        providers: Mapping[str, Provider],
        pools: Mapping[str, KeyPool],
        attempter: Attempter,
        *,
        board: Board | None = None,
        rules: retry.Rules | None = None,
        budget: retry.Budget | None = None,
    ) -> None:
        self.providers, self.pools, self.attempter = providers, pools, attempter
        self.rules = rules = rules or retry.Rules()
        self.budget = budget or retry.Budget(rules.budget, rules.budget_floor)
        self.budget.share, self.budget.floor = rules.budget, rules.budget_floor
        self._hedges: dict[Hedge, retry.Budget] = {}
        self.selection = Selection(board or Board(), estimate=prompt_tokens, price=Costs(attempter.prices))

    def serve(self, exchange: Exchange, sink: Sink, route: Route, operation: Operation) -> Coroutine[Any, Any, Relay]:
        """Try deployments and their keys until one answers or the rules say stop: another key, another target, the
        fallbacks, and at last the one that failed, when it was the only one."""
        self.budget.asked += 1
        if route.plain:
            return self._serve(exchange, sink, route, operation, ((route.targets[0], None),))
        return self._serve_one_of(exchange, sink, route, operation)

    def _serve_one_of(
        self, exchange: Exchange, sink: Sink, route: Route, operation: Operation, purpose: str = ""
    ) -> Coroutine[Any, Any, Relay]:
        places: list[tuple[Deployment, Health | None]] = []
        passed: list[Candidate] = []
        for one in self.selection.ranked(route, exchange, perf_counter(), purpose):
            if one.dropped:
                break  # so are all that follow
            places.append((one.deployment, one.health))
            if one.note:
                passed.append(one)
        return self._serve(exchange, sink, route, operation, places, passed, purpose)

    async def _serve(
        self,
        exchange: Exchange,
        sink: Sink,
        route: Route,
        operation: Operation,
        places: Places,
        passed: Sequence[Candidate] = (),
        purpose: str = "",
    ) -> Relay:
        allowed = self.rules.attempts if route.retries is None else route.retries + 1
        last: GatewayError | None = None
        again: Deployment | None = None
        tried: list[Deployment] = []
        timeouts = 0
        for deployment, health in places:
            provider = self.providers[deployment.provider]
            model = deployment.model or exchange.requested_model
            if provider.serving(operation, model) is None:
                if operation.family == "count":
                    return self.attempter.counted(exchange, sink, operation, deployment, provider)
                last = last or _not_spoken(provider, operation)
                continue
            if tried and any(one.id == deployment.id and one.params == deployment.params for one in tried):
                continue
            pool = self.pools[deployment.provider]
            refused = [] if exchange.owner is None else stateful.others(pool.keys, exchange.owner)
            while len(exchange.chain) < allowed:
                if exchange.chain and not self._may_go_on(last, health, deployment, tried):
                    raise last or InternalError("gateway_internal", "An attempt failed for no reason.")
                now = perf_counter()
                tokens = len(exchange.body) // 4 if pool.counts_tokens else 0
                liked = affinity(exchange) if route.strategy == "prefix-affinity" and len(pool.keys) > 1 else ""
                key = pool.pick(now, refused, model, liked, tokens)
                if key is None:
                    exchange.provider = exchange.provider or provider.name
                    last = last or pool.refusal(provider.name, now, model)
                    break
                if health is not None:
                    health.began(now)
                relay: Relay | None
                try:
                    own = True
                    if route.slow_start is not None and exchange.stream:
                        place = (deployment, provider, key)
                        relay, error = await self._held(exchange, sink, operation, route.slow_start, place)
                    elif route.hedge is None or health is None:
                        relay, error = await self.attempter.attempt(exchange, sink, operation, deployment, provider, key)
                    else:
                        first = (deployment, health, provider, key)
                        relay, error, own = await self._hedged(exchange, sink, operation, route.hedge, first, places, tried)
                except CallerError as unsaid:
                    if unsaid.code != "caller_unsupported":
                        raise
                    last = last or unsaid  # its dialect cannot say this; another's may
                    break
                finally:
                    pool.let_go(key)
                    if health is not None:
                        health.ended()
                if tokens:
                    pool.settle(key, (_used(exchange) if own else 0) - tokens, perf_counter())
                if not own:  # the other place's, which has been told
                    if error is None and relay is not None:
                        return relay
                    raise error or _nowhere(exchange)
                if health is not None:
                    _tell(health, exchange, error, now)
                    if passed:
                        _note(exchange, passed, health)
                        passed = ()
                if error is None:
                    assert relay is not None
                    pool.succeeded(key, relay.upstream_headers, perf_counter(), model)
                    return relay
                if error.upstream_status in NOT_THERE and operation.family == "count":
                    return self.attempter.counted(exchange, sink, operation, deployment, provider)
                last = error
                pool.failed(key, error, perf_counter())
                if sink.started:
                    raise error
                if error.kind and not purpose and error.kind in route.purposes and len(exchange.chain) < allowed:
                    return await self._elsewhere(exchange, sink, route, operation, error)
                timeouts += error.sent and error.code == "provider_timeout"
                if not retry.may_retry(error, safe=operation.safe, timeouts=timeouts) or self._too_late(exchange):
                    raise error
                refused.append(key.label)
                if error.fault == "deployment":
                    again = again or deployment
                    break
            tried.append(deployment)
        if again is not None and len(exchange.chain) == 1 and allowed > 1 and not purpose:
            return await self._again(exchange, sink, route, operation, again, last)
        raise last or _nowhere(exchange)

    async def _held(
        self,
        exchange: Exchange,
        sink: Sink,
        operation: Operation,
        least: SlowStart,
        place: tuple[Deployment, Provider, ProviderKey],
    ) -> tuple[Relay | None, UpstreamError | None]:
        """One try whose stream is held back for its first seconds: one that only drips counts as failed, and so does one that
        breaks off meanwhile, while nobody has seen it."""
        if not may_hedge(exchange, operation, prompt_tokens):
            return await self.attempter.attempt(exchange, sink, operation, *place)
        held = Held(sink)
        number = len(exchange.chain)
        one = asyncio.ensure_future(self.attempter.attempt(exchange, held, operation, *place))
        try:
            either: set[asyncio.Future[Any]] = {one, held.begun}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not one.done():
                await asyncio.wait({one}, timeout=least.seconds)
            if one.done():
                relay, error = one.result()
                if error is None:
                    held.open()
                else:
                    _forget(exchange)
                return relay, error
            tokens = metering.estimate(exchange.operation, b"", exchange.sample, exchange.bytes_out).output
            if tokens >= least.tokens_per_second * least.seconds or exchange.finish_reason:
                held.open()
                return await one
        finally:
            if not one.done():
                await self._give_up(one)
        attempt = exchange.chain[number]
        attempt.error, attempt.cost = "provider_timeout", self._prompt_cost(exchange)
        attempt.detail = f"about {tokens} tokens in its first {least.seconds:g} s"
        _forget(exchange)
        slow = UpstreamError(
            "provider_timeout", f"The provider {place[1].name!r} answers too slowly.", fault="deployment", may_retry=True
        )
        return None, slow

    async def _hedged(
        self,
        exchange: Exchange,
        sink: Sink,
        operation: Operation,
        hedge: Hedge,
        first: tuple[Deployment, Health, Provider, ProviderKey],
        places: Places,
        tried: list[Deployment],
    ) -> tuple[Relay, UpstreamError | None, bool]:
        """One try at *first*; when it takes unusually long to begin, another place is asked as well, and whoever begins first
        is heard. True at the end: it is the first's outcome."""
        deployment, health, provider, key = first
        delay = hedge.after if hedge.after is not None else health.p95(stream=exchange.stream)
        budget = self._hedges.setdefault(hedge, retry.Budget(hedge.extra, 1))
        budget.asked += 1
        if delay is None or not may_hedge(exchange, operation, prompt_tokens):
            return *await self.attempter.attempt(exchange, sink, operation, deployment, provider, key), True
        race = Race()
        gate = Gate(sink, race)
        number = len(exchange.chain)
        began = perf_counter()
        one = asyncio.ensure_future(self.attempter.attempt(exchange, gate, operation, deployment, provider, key))
        two: asyncio.Future[None] | None = None
        try:
            waiting: set[asyncio.Future[Any]] = {one}
            await asyncio.wait({*waiting, race.decided}, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
            if not one.done() and not race.decided.done():
                other = self._second_place(exchange, operation, places, [*tried, deployment])
                if other is not None and budget.take(perf_counter()):
                    outcome: list[tuple[Relay, UpstreamError | None]] = []
                    second = Gate(sink, race)
                    copy = msgspec.structs.replace(exchange)
                    two = asyncio.ensure_future(self._second(copy, second, operation, other, outcome))
                    two.add_done_callback(functools.partial(self._let_go, other))  # also when it never began
                    tried.append(other[0])
                    waiting.add(two)
                    while waiting and not race.decided.done():
                        done, _ = await asyncio.wait({*waiting, race.decided}, return_when=asyncio.FIRST_COMPLETED)
                        waiting -= done
                        if one in done and not one.cancelled() and one.exception() is None and one.result()[1] is None:
                            race.claim(gate)
                        elif two in done and outcome and outcome[0][1] is None:
                            race.claim(second)
                    if race.winner is second:
                        await self._give_up(one)
                        exchange.chain[number].error, exchange.chain[number].cost = (
                            "provider_timeout",
                            self._prompt_cost(exchange),
                        )
                        exchange.chain[number].detail = f"given up for {other[0].id}, which began first"
                        health.overtaken(perf_counter() - began, perf_counter(), stream=exchange.stream)
                        try:
                            await two
                        finally:
                            _take_over(exchange, copy)
                        return *outcome[0], False
                    if not two.done():
                        await self._give_up(two)
                        lost = exchange.chain[number + 1]
                        lost.error, lost.cost = "provider_timeout", self._prompt_cost(copy)
                        lost.detail = f"given up for {deployment.id}, which began first"
            return *await one, True
        finally:
            for task in (one, two):
                if task is not None and not task.done():
                    await self._give_up(task)

    def _let_go(self, place: tuple[Deployment, Health, Provider, ProviderKey], task: asyncio.Future[None]) -> None:
        self.pools[place[0].provider].let_go(place[3])

    async def _second(
        self,
        copy: Exchange,
        gate: Gate,
        operation: Operation,
        place: tuple[Deployment, Health, Provider, ProviderKey],
        outcome: list[tuple[Relay, UpstreamError | None]],
    ) -> None:
        """The other attempt, whose place and key are told by itself."""
        deployment, health, provider, key = place
        pool, began = self.pools[deployment.provider], perf_counter()
        health.began(began)
        try:
            relay, error = await self.attempter.attempt(copy, gate, operation, deployment, provider, key)
        except GatewayError:
            return
        finally:
            health.ended()
        _tell(health, copy, error, began)
        if error is None:
            pool.succeeded(key, relay.upstream_headers, perf_counter(), copy.model)
        else:
            pool.failed(key, error, perf_counter())
        outcome.append((relay, error))

    def _second_place(
        self, exchange: Exchange, operation: Operation, places: Places, but: list[Deployment]
    ) -> tuple[Deployment, Health, Provider, ProviderKey] | None:
        """The next place that is well, and a key of its own."""
        for deployment, health in places:
            model = deployment.model or exchange.requested_model
            provider = self.providers[deployment.provider]
            if deployment in but or health is None or not health.closed or provider.serving(operation, model) is None:
                continue
            key = self.pools[deployment.provider].pick(perf_counter(), (), model)
            if key is not None:
                return deployment, health, provider, key
        return None

    @staticmethod
    async def _give_up(task: asyncio.Future[Any]) -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def _prompt_cost(self, exchange: Exchange) -> int | None:
        """What an attempt may cost that was given up: its prompt, as far as we can tell."""
        usage = metering.estimate(exchange.operation, exchange.body)
        cost = self.attempter.prices.price(exchange.provider, (exchange.model,), usage, exchange.at)
        return None if cost is None else cost.nano

    async def _elsewhere(
        self, exchange: Exchange, sink: Sink, route: Route, operation: Operation, error: UpstreamError
    ) -> Relay:
        """What this place refused for its length or its content may be fine at those that are marked for it; when none of them
        takes it either, the first refusal stands."""
        try:
            return await self._serve_one_of(exchange, sink, route, operation, error.kind)
        except GatewayError as failed:
            if isinstance(failed, UpstreamError) and exchange.chain[-1].error == failed.code and len(exchange.chain) > 1:
                raise
            raise error from None

    def _may_go_on(self, last: GatewayError | None, health: Health | None, place: Deployment, tried: list[Deployment]) -> bool:
        """Whether a further try fits the budget. Free of charge: a key's failure, which its pool has learned from, and going to
        a place that is well. Only what meets trouble again and again is limited, so that an outage is not multiplied."""
        if isinstance(last, UpstreamError) and last.fault in ("key", "account"):
            return True
        if health is not None and health.closed and place not in tried:
            return True
        return self.budget.take(perf_counter())

    def _too_late(self, exchange: Exchange) -> bool:
        now = perf_counter()
        return now >= exchange.deadline or (self.rules.time is not None and now >= exchange.started + self.rules.time)

    async def _again(
        self,
        exchange: Exchange,
        sink: Sink,
        route: Route,
        operation: Operation,
        deployment: Deployment,
        last: GatewayError | None,
    ) -> Relay:
        """There was only one deployment and it failed in a way that often passes: once more after a moment, or as often as the
        route says, each time after a longer one."""
        provider, pool = self.providers[deployment.provider], self.pools[deployment.provider]
        model = deployment.model or exchange.requested_model
        health = (
            None if route.plain else self.selection.board.of(deployment.id if deployment.model else f"{deployment.id}/{model}")
        )
        rounds = 1 if route.retries is None else route.retries
        timeouts = 0
        for number in range(1, rounds + 1):
            pause = retry.pause(self.rules, number)
            now = perf_counter()
            out_of_time = self.rules.time is not None and now + pause >= exchange.started + self.rules.time
            if now + pause >= exchange.deadline or out_of_time or not self.budget.take(now):
                break
            await asyncio.sleep(pause)
            now = perf_counter()
            key = pool.pick(now, (), model)
            if key is None:
                raise pool.refusal(provider.name, now, model)
            if health is not None:
                health.began(now)
            try:
                relay, error = await self.attempter.attempt(exchange, sink, operation, deployment, provider, key)
            finally:
                pool.let_go(key)
                if health is not None:
                    health.ended()
            if pool.counts_tokens:
                pool.settle(key, _used(exchange), perf_counter())
            if health is not None:
                _tell(health, exchange, error, now)
            if error is None:
                pool.succeeded(key, relay.upstream_headers, perf_counter(), model)
                return relay
            last = error
            pool.failed(key, error, perf_counter())
            timeouts += error.sent and error.code == "provider_timeout"
            if relay.started or not retry.may_retry(error, safe=operation.safe, timeouts=timeouts):
                break
        raise last or _nowhere(exchange)


class Costs:
    """What places cost, to compare them; remembered for a minute, for prices may depend on the hour."""

    def __init__(self, prices: Prices) -> None:
        self._prices, self._usd = prices, Currencies().usd
        self._minute = 0
        self._known: dict[tuple[str, str], float | None] = {}

    def __call__(self, provider: str, model: str) -> float | None:
        now = time()
        if int(now // 60) != self._minute or len(self._known) > 4096:
            self._minute = int(now // 60)
            self._known.clear()
        place = (provider, model)
        if place not in self._known:
            cost = self._prices.price(provider, (model,), MIX, now)
            self._known[place] = None if cost is None else self._usd(cost.nano, cost.currency)
        return self._known[place]


def prompt_tokens(operation: str, body: bytes) -> int:
    """Tokens of a request's prompt, by estimate."""
    return metering.estimate(operation, body).input


def _take_over(exchange: Exchange, copy: Exchange) -> None:
    """What became of the attempt that won, for the record."""
    for name in TOLD:
        setattr(exchange, name, getattr(copy, name))


def _forget(exchange: Exchange) -> None:
    """What an attempt has told that the caller never saw."""
    exchange.streaming, exchange.bytes_out, exchange.sample, exchange.first_token_at = False, 0, b"", 0.0
    exchange.usage = None


def _tell(health: Health, exchange: Exchange, error: UpstreamError | None, began: float) -> None:
    """What an attempt teaches about its place. A limit is the account's matter, a refusal the request's."""
    now = perf_counter()
    if error is None:
        first = exchange.first_token_at if exchange.stream and exchange.first_token_at else now
        health.succeeded(first - began, now, stream=exchange.stream)
    elif error.fault == "deployment":
        health.failed(error.code, now - began, now, stream=exchange.stream)
    elif error.upstream_status is not None and not error.fault:
        health.alive(now)


def _note(exchange: Exchange, passed: Sequence[Candidate], taken: Health) -> None:
    """The chain says which places were passed over because they fail just now."""
    said = "; ".join(f"{one.deployment.id}: {one.note} ({one.health.reason})" for one in passed if one.health is not taken)
    attempt = exchange.chain[0]
    if said:
        attempt.detail = (f"{attempt.detail}; passed over: {said}" if attempt.detail else f"passed over: {said}")[:600]


def _nowhere(exchange: Exchange) -> GatewayError:
    return InternalError(
        "gateway_no_provider",
        "No place of this model's route takes this request: its conditions exclude it. The gateway's operator can see why "
        "with: aigw routes show",
    )


def _not_spoken(provider: Provider, operation: Operation) -> CallerError:
    return CallerError(
        "caller_unsupported",
        f"The provider {provider.name!r} does not serve {operation.path!r}. Use a model of another provider for it, "
        "or another endpoint for this model.",
    )


def _used(exchange: Exchange) -> int:
    """Tokens of the attempt that just ended, as its provider counted them."""
    usage = exchange.usage
    return 0 if usage is None else usage.input + usage.output
