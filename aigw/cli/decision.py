"""What would become of a request: decided by the very code that serves it, with nothing sent.

The parts of a gateway are built from the config and the store, and brought to the state that the running server tells of.
Then the request walks to its attempts, in front of a transport that refuses every one of them: so all attempts are seen that
would be made, in their order, each written in its provider's dialect.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from aigw.config import terms
from aigw.errors import ConfigError, GatewayError, StoreError, UpstreamError
from aigw.exchange import Exchange, Receiver, UpstreamRequest, Usage

if TYPE_CHECKING:
    from aigw.access.quota import Window
    from aigw.cli.locations import Locations
    from aigw.cli.names import Names
    from aigw.consumer import Caller
    from aigw.deployment import Deployment, Route
    from aigw.failover import Failover
    from aigw.protocols.operations import Operation
    from aigw.routing.selection import Candidate
    from aigw.storage.base import Store

PASSED_OVER = 60.0
"""Seconds that a provider is taken to be passed over which is said to be down."""

PATIENCE = 600.0
"""Seconds the imagined caller waits: nothing here takes long."""

THOUSAND = Usage(output=1000)

LIMITS = {"rpm": "requests a minute", "tpm": "tokens a minute", "concurrency": "requests at once"}
"""What limits are called, by the beginning of their counters' keys."""


class Question(NamedTuple):
    """A request that is not sent. `body` is that of `operation`; `headers` have lower-case names; `at` is seconds since the
    epoch, None: now. `consumer` "": nobody in particular. `down` are providers that are taken to fail."""

    operation: Operation
    model: str
    body: bytes
    consumer: str = ""
    headers: Mapping[str, str] = {}
    down: Sequence[str] = ()
    at: float | None = None


class Sent(NamedTuple):
    """What would have gone out: where to, how much, and what of the request would have been lost on the way."""

    number: int
    address: str
    size: int
    loss: str


class Refusing:
    """A way out that leads nowhere: every request is noted, and fails as one does that nobody could be asked."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.sent: list[Sent] = []

    async def close(self) -> None:
        """Nothing to let go of."""

    async def send(self, request: UpstreamRequest, receiver: Receiver) -> None:
        target = request.target
        port = "" if target.origin.port in (0, 80, 443) else f":{target.origin.port}"
        path = target.path.partition("?")[0]  # some keys travel in the query
        address = f"{target.method} {target.origin.scheme}://{target.origin.host}{port}{path}"
        self.sent.append(Sent(len(self._exchange.chain), address, len(request.body), self._exchange.loss))
        raise UpstreamError("provider_unreachable", "was not asked", fault="deployment", sent=False, may_retry=True)


async def explain(where: Locations, names: Names, question: Question, state: Mapping[str, Any] | None) -> dict[str, Any]:
    """What would become of the request, for programs. *state* is the running server's answer, None without one. Raises
    StoreError, and ConfigError for a consumer or provider that does not exist."""
    from aigw.cli.suggest import unknown

    for provider in question.down:
        if provider not in names.providers:
            raise ConfigError(unknown("provider", provider, names.providers), key="--down")
    async with AsyncExitStack() as stack:
        store: Store | None = None
        if where.data_path().is_dir():  # to look is no reason to make a store
            store = await stack.enter_async_context(where.store(names.loaded.config))
        return await _Walk(names, question, state, store).walk()


class _Walk:
    """One request's, as far as it gets."""

    def __init__(self, names: Names, question: Question, state: Mapping[str, Any] | None, store: Store | None) -> None:
        from aigw.attempt import Attempter
        from aigw.config.scrub import Scrubber
        from aigw.failover import Failover
        from aigw.gateway import circuits, retries
        from aigw.providers.rate_headers import allowance
        from aigw.routing.health import Board
        from aigw.routing.key_pool import KeyPool

        config = names.loaded.config
        self.names, self.question, self.state, self.store, self.config = names, question, state, store, config
        self.operation = question.operation
        at = time.time() if question.at is None else question.at
        self.exchange = exchange = Exchange(
            "explanation",
            at,
            operation=self.operation.name,
            dialect=self.operation.dialect,
            headers=question.headers,
            requested_model=question.model,
            started=perf_counter(),
            body=question.body,
        )
        exchange.deadline = exchange.started + PATIENCE
        now = perf_counter()
        board = Board(circuits(config.circuit))
        self.pools = {name: KeyPool(keys, read=allowance) for name, keys in names.keys.items()}
        if state is not None:
            board.resume(state.get("deployments", ()), now)
            for one in state.get("providers", ()):
                if one["name"] in self.pools:
                    self.pools[one["name"]].resume(one.get("pool", ()), now)
        self.transport = Refusing(exchange)
        attempter = Attempter(self.transport, names.prices, Scrubber(), lossless=config.server.lossy == "deny")
        rules = retries(config.retry)
        self.failover: Failover = Failover(
            names.providers, self.pools, attempter, board=board, rules=_without_pause(rules), budget=None
        )
        self.failover.selection.draw = lambda: 0.5  # of what is drawn by lot, the most likely first
        self.facts: dict[str, Any] = {
            "model": question.model,
            "operation": self.operation.name,
            "dialect": self.operation.dialect,
            "at": at,
            "server": None if state is None else self._server(state),
            "consumer": None,
            "limits": [],
            "budgets": [],
            "forbidden": [],
            "max_output": None,
            "route": None,
            "canary": None,
            "prompt_tokens": 0,
            "max_tokens": None,
            "stream": False,
            "down": list(question.down),
            "strategy": "",
            "candidates": [],
            "attempts": [],
            "first": None,
            "refusal": None,
        }

    async def walk(self) -> dict[str, Any]:
        facts = self.facts
        try:
            caller = await self._caller()
            self._read()
            route = await self._route(caller)
            route = self.exchange.chosen = self._permitted(caller, route)
            await self._go(route)
        except UpstreamError as error:
            if not self.exchange.chain:
                facts["refusal"] = _refusal(error)
        except GatewayError as error:
            if not self.exchange.chain or error.code.startswith("caller_"):
                facts["refusal"] = _refusal(error)
        return facts

    def _server(self, state: Mapping[str, Any]) -> dict[str, Any]:
        used = state.get("config", {}).get("hash", "")
        return {"pid": state.get("pid"), "same_config": used == self.names.loaded.hash}

    # who asks

    async def _caller(self) -> Caller | None:
        """Who asks, as far as the question says. Raises PolicyError for one that would not be let in, ConfigError for a name
        that nobody has."""
        from aigw.access.authenticate import ANONYMOUS, Directory
        from aigw.access.quota import Quota
        from aigw.cli.suggest import unknown
        from aigw.storage.counters import MemoryCounters

        name, config = self.question.consumer, self.config
        if not name:
            caller = ANONYMOUS if not config.auth.required else None
        else:
            directory = Directory(required=config.auth.required, configured=self.names.consumers)
            known = {one.consumer.name: one for one in self.names.consumers}
            everyone = list(known)
            found = known.get(name)
            if found is None and self.store is not None:
                consumers, keys, seq = await self.store.consumers()
                directory.load(consumers, keys, seq)
                everyone += [one.name for one in consumers]
                found = _best(name, consumers, keys)
            if found is None:
                raise ConfigError(unknown("consumer", name, everyone), key="--consumer")
            self.exchange.caller = caller = found
            consumer = found.consumer
            self.facts["consumer"] = {"name": consumer.name, "id": consumer.id, "group": consumer.group, "key": found.key.id}
            objection = directory.objection(found)
            if objection is not None:
                raise objection
        if caller is not None:
            self.exchange.caller = caller
            defaults = terms.terms(config.limits)
            groups = {group: terms.terms(table) for group, table in config.groups.items()}
            plan = Quota(defaults, groups, MemoryCounters()).plan(caller.consumer, self.exchange.at)
            if plan is not None:
                claims = [(claim.key, claim.limit) for claim in (*plan.requests, *plan.places)] + list(plan.tokens)
                self.facts["limits"] = [await self._limit(key, limit, caller) for key, limit in claims]
                self.facts["budgets"] = [await self._budget(window) for window in plan.budgets]
        return caller

    async def _limit(self, key: str, limit: int, caller: Caller) -> dict[str, Any]:
        """A limit (*key*: "rpm:ID", of a group "rpm:g:NAME"), and what of it is used as far as records and the server tell."""
        kind, _, holder = key.partition(":")
        group = holder.removeprefix("g:") if holder.startswith("g:") else ""
        used: int | None = None
        if kind == "concurrency":
            if self.state is not None and not group:
                used = self.state.get("in_flight", {}).get("by_consumer", {}).get(caller.consumer.name, 0)
        elif self.store is not None:
            records = await self.store.records(since=time.time() - 60, limit=100_000)
            of_it = [one for one in records if (one.group == group if group else one.consumer_id == caller.consumer.id)]
            used = len(of_it) if kind == "rpm" else sum(one.input + one.output for one in of_it)
        found = {"kind": LIMITS[kind], "limit": limit, "used": used}
        return found | {"group": group} if group else found

    async def _budget(self, window: Window) -> dict[str, Any]:
        """A budget, and what of it is used as far as the ledger tells."""
        used: int | None = None
        if self.store is not None:
            spent = await self.store.spent([window.holder], window.starts)
            used = spent.get(window.holder, (0, 0))[not window.money]
        scale = 1e9 if window.money else 1
        return {
            "whose": window.whose,
            "unit": "usd" if window.money else "tokens",
            "window": window.name,
            "limit": window.limit / scale,
            "used": None if used is None else used / scale,
        }

    def _permitted(self, caller: Caller | None, route: Route) -> Route:
        """*route* less the places that the consumer may not use. Raises PolicyError."""
        from aigw.access.permissions import Permissions
        from aigw.gateway import output_price
        from aigw.metering.currencies import Currencies

        if caller is None:
            return route
        config = self.config
        providers, defaults = self.names.providers, terms.terms(config.limits)
        permissions = Permissions(
            {group: terms.terms(table) for group, table in config.groups.items()},
            config.model_groups,
            residency=lambda name: one.residency if (one := providers.get(name)) is not None else "",
            priced=output_price(self.names.prices, Currencies(config.currencies).usd),
            most_output=defaults.max_output or 0,
        )
        rule = permissions.rule(caller.consumer)
        if rule is None:
            return route
        rule.asks(self.exchange.operation)
        narrowed = permissions.route(rule, self.exchange, route, self.operation)
        left = {_id(place, self.exchange.requested_model) for place in narrowed.places}
        every = [_id(place, self.exchange.requested_model) for place in route.places]
        self.facts["forbidden"] = [place for place in every if place not in left]
        self.facts["max_output"] = rule.max_output or None
        return narrowed

    # what is asked, and where it goes

    def _read(self) -> None:
        from aigw.metering import usage as metering
        from aigw.pipeline import Pipeline
        from aigw.protocols import DIALECTS, splice

        exchange = self.exchange
        asked = DIALECTS[exchange.dialect].read_request(exchange.body)
        exchange.model_at = splice.only(exchange.body, "model")
        Pipeline.note(exchange, asked)
        self.facts["model"] = exchange.requested_model
        self.facts["stream"], self.facts["max_tokens"] = exchange.stream, exchange.max_tokens
        self.facts["prompt_tokens"] = metering.estimate(exchange.operation, exchange.body).input

    async def _route(self, caller: Caller | None) -> Route:
        from aigw.cli.names import REASONS
        from aigw.routing.stateful import Stateful, narrowed

        exchange, facts = self.exchange, self.facts
        route = self.names.table.resolve(exchange.requested_model)
        facts["route"] = {"name": route.name, "source": route.source, "why": REASONS.get(route.source, route.source)}
        if self.operation.object and caller is not None:
            keyless = not self.config.auth.required
            kept = Stateful(self.store) if self.store is not None else Stateful()
            owner = exchange.owner = await kept.continued(caller.consumer.id, exchange.body, keyless=keyless)
            if owner is not None:
                route = narrowed(route, owner)
                facts["route"]["kept_by"] = owner.provider
        if self.store is not None and exchange.owner is None:
            route = await self._canary(route)
        exchange.chosen = route
        facts["strategy"] = route.strategy if len(route.targets) > 1 else ""
        return route

    async def _canary(self, route: Route) -> Route:
        from aigw.routing.canaries import Canaries

        assert self.store is not None
        canaries = Canaries(self.store)
        await canaries.load()
        routes = {name: one.targets for name, one in self.config.routes.items()}
        canaries.reconfigure(routes, self.names.providers)
        watch = canaries.active.get(route.name)
        if watch is None:
            return route
        moved = canaries.route(self.exchange, route)
        canary = watch.canary
        self.facts["canary"] = {
            "id": canary.id,
            "to": canary.place,
            "status": canary.status,
            "percent": canary.shadow or 100 * canary.share,
            "shadow": bool(canary.shadow),
            "arm": self.exchange.arm,
            "sticky": canary.sticky,
        }
        return moved

    # where it is sent

    async def _go(self, route: Route) -> None:
        """Order the places, then have every attempt made and refused."""
        from aigw.routing.shadow import Nowhere

        exchange, name = self.exchange, self.exchange.requested_model
        board, now = self.failover.selection.board, perf_counter()
        await self._remembered_rests()
        for place in route.places:
            if place.provider in self.question.down:
                gone = {"circuit": "open", "seconds": PASSED_OVER, "reason": "provider_unreachable", "row": 3, "in_flight": 0}
                board.of(_id(place, name)).resume({**gone, "first_byte": None, "first_token": None}, now)
        ranked = self.failover.selection.ranked(route, exchange, now)
        health = {_id(place, name): board.of(_id(place, name)).view(now) for place in route.places}
        keys = {provider: pool.view(now) for provider, pool in self.pools.items()}
        problem: GatewayError | None = None
        try:
            await self.failover.serve(exchange, Nowhere(), route, self.operation)
        except GatewayError as error:
            problem = error
        attempts = self._attempts()
        self.facts["attempts"] = attempts
        answering = [one for one in attempts if one["provider"] not in self.question.down]
        self.facts["first"] = answering[0]["deployment"] if answering else None
        total = sum(one.deployment.weight for one in ranked if not one.dropped and not one.note and _is_target(route, one))
        for one in ranked:
            self.facts["candidates"].append(self._candidate(route, one, health, keys, total))
        if not attempts and exchange.status == 200:  # an estimate of ours: nobody is asked
            self.facts["first"] = "aigw"
        elif problem is not None and not attempts:
            raise problem

    async def _remembered_rests(self) -> None:
        """Without a server: the long rests that the last one wrote down."""
        from aigw.routing.rests import Rests

        if self.state is None and self.store is not None:
            await Rests(self.store, self.pools).restore()

    def _attempts(self) -> list[dict[str, Any]]:
        sent = {one.number: one for one in self.transport.sent}
        found = []
        for number, attempt in enumerate(self.exchange.chain, 1):
            provider = self.names.providers[attempt.provider]
            via = provider.serving(self.operation, attempt.model) or self.operation
            out = sent.get(number)
            found.append(
                {
                    "deployment": f"{attempt.provider}/{attempt.model}",
                    "provider": attempt.provider,
                    "model": attempt.model,
                    "key": attempt.key,
                    "dialect": via.dialect,
                    "translated": via is not self.operation,
                    "losses": [one.strip() for one in out.loss.split(",")] if out is not None and out.loss else [],
                    "request": "" if out is None else out.address,
                    "bytes": 0 if out is None else out.size,
                    "problem": "" if out is not None else attempt.error,
                    **self._cost(attempt.provider, attempt.model),
                }
            )
        return found

    def _cost(self, provider: str, model: str) -> dict[str, Any]:
        """Of the prompt and of a thousand tokens of the answer, in nano-units; None where nobody knows."""
        prompt = Usage(input=self.facts["prompt_tokens"])
        base, told = (
            self.names.prices.price(provider, (model,), usage, self.exchange.at) for usage in (prompt, _both(prompt, THOUSAND))
        )
        return {
            "prompt_cost": None if base is None else base.nano,
            "cost_per_1000_output": None if base is None or told is None else told.nano - base.nano,
            "currency": "USD" if base is None else base.currency,
        }

    def _candidate(
        self,
        route: Route,
        candidate: Candidate,
        health: Mapping[str, Mapping[str, Any]],
        keys: Mapping[str, list[dict[str, Any]]],
        total: int,
    ) -> dict[str, Any]:
        place, name = candidate.deployment, self.exchange.requested_model
        model = place.model or name
        seen = health[_id(place, name)]
        by_lot = route.strategy == "weighted" and not candidate.dropped and not candidate.note and _is_target(route, candidate)
        number = next(
            (
                at
                for at, one in enumerate(self.facts["attempts"], 1)
                if (one["provider"], one["model"]) == (place.provider, model)
            ),
            None,
        )
        return {
            "deployment": f"{place.provider}/{model}",
            "provider": place.provider,
            "model": model,
            "role": "target" if _is_target(route, candidate) else "fallback",
            "attempt": number,
            "score": candidate.score,
            "share": place.weight / total if by_lot and total else None,
            "circuit": seen["circuit"],
            "reason": seen["reason"],
            "in_flight": seen["in_flight"],
            "first_byte": seen["first_token"] if self.exchange.stream else seen["first_byte"],
            "keys": [
                {field: one[field] for field in ("key", "state", "seconds", "reason", "in_flight")}
                for one in keys[place.provider]
            ],
            "last_because": candidate.note,
            "not_tried": candidate.dropped or ("" if number else self._why_not(place, model)),
        }

    def _why_not(self, place: Deployment, model: str) -> str:
        """Why a place that may have the request would not be asked for it."""
        provider = self.names.providers[place.provider]
        if provider.serving(self.operation, model) is None:
            return f"{place.provider} does not serve {self.operation.path}"
        pool, now = self.pools[place.provider], perf_counter()
        key = pool.pick(now, (), model)
        if key is None:
            return pool.refusal(place.provider, now, model).message
        pool.let_go(key)
        if self.exchange.owner is not None:
            return "only the key that made what this goes on from"
        return "no attempt is left for it" if self.exchange.chain else "the request cannot be said in its API"


def _id(place: Deployment, name: str) -> str:
    """The name under which its health is kept."""
    return place.id if place.model else f"{place.id}/{name}"


def _is_target(route: Route, candidate: Candidate) -> bool:
    return any(one is candidate.deployment for one in route.targets)


def _both(one: Usage, other: Usage) -> Usage:
    return Usage(input=one.input + other.input, output=one.output + other.output)


def _without_pause(rules: Any) -> Any:
    """*rules* for one who does not wait between two tries."""
    import msgspec

    return msgspec.structs.replace(rules, pause=0.0)


def _best(name: str, consumers: Sequence[Any], keys: Sequence[Any]) -> Caller | None:
    """The stored consumer of that name or id, with a key that opens when it has one. Raises StoreError when it has none."""
    from aigw.consumer import Caller

    consumer = next((one for one in consumers if name in (one.name, one.id)), None)
    if consumer is None:
        return None
    own = [key for key in keys if key.consumer_id == consumer.id]
    if not own:
        raise StoreError(f"the consumer {consumer.name!r} has no key: aigw keys create {consumer.name}")
    now = time.time()
    own.sort(key=lambda key: (key.revoked is not None, key.expires is not None and key.expires <= now, -key.created))
    return Caller(consumer, own[0])


def _refusal(error: GatewayError) -> dict[str, Any]:
    return {"status": error.status, "code": error.code, "message": error.message}
