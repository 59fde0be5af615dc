"""How much may this consumer use: hold, settle, release.

One hold per request, once its route is known and so its price: requests and tokens a minute, requests at once, and all budgets
of the consumer and of its group together; one round trip to the counters, wherever they are. What is held is an estimate; when
the exchange is recorded, in the same step, it is settled to what was used. So N requests at once never spend more than the
budget plus what their own estimates missed.

The ledger is the records: a budget's window has used what the records that began in it were charged. Counters know it from the
moment they are primed with the ledger's sum.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from math import inf
from typing import Any, NamedTuple, Protocol

import msgspec
from msgspec.structs import replace

from aigw.access.periods import period, zone
from aigw.access.turns import Turns
from aigw.consumer import NANO, Budget, Caller, Consumer, OnBudget, Terms
from aigw.deployment import Deployment, Route
from aigw.errors import PolicyError, StoreError
from aigw.exchange import Cost, Exchange, Headers, Usage
from aigw.hooks import Event
from aigw.protocols.operations import Operation
from aigw.storage.base import Claim, Counters, Permit
from aigw.storage.counters import MONEY, PLACE, REQUESTS, TOKEN_WINDOW, TOKENS, MemoryCounters, Slot

_log = logging.getLogger("aigw.access")

MINUTE = 60

OUTPUT = 4000
"""Tokens that an answer is taken to have while nothing is known of its model."""

WORST = 16_384
"""Tokens that a hard budget holds for an answer whose request names no maximum."""

MOST_OUTPUT = 200_000
"""Tokens of an answer that anybody claims to want; no model gives more."""

ENOUGH = 16
"""Answers that must be known of a model before they are believed."""

SMALL = 4096
"""Bytes of a request whose tokens are told from its length alone: four bytes each."""

BATCH_SHARE = 0.9
"""Of a group's limits a minute and at once, what its batch consumers may fill; the rest is for those who wait for an answer."""

NEAR = 5
"""A budget is nearly used when less than one part in so many is left: 80 %."""

PRIMINGS = 3
"""Times that a budget's window is primed for one request: one that is forgotten again at once is no reason to refuse it."""

MOST_MODELS = 2000
"""Models whose answers are remembered; callers choose names."""

TALK = frozenset({"chat", "completions", "messages", "responses", "generate", "generate_array"})
"""Operations whose requests are taken by the quick way."""

MOST_PLANS = 50_000
"""Consumers whose limits are kept ready."""

NO_OUTPUT = frozenset({"embeddings", "embed_gemini", "embed_gemini_batch", "rerank", "speech"})
"""Operations whose answers hold no tokens that are billed as output."""

PICTURES = frozenset({"images", "image_edits", "image_variations"})

SESSION_TOKENS = 4000
"""Tokens that a realtime session holds at a time, for what it will say and hear next; and as many output tokens."""


class Prices(Protocol):
    """What a usage costs; None when nobody knows."""

    def price(self, provider: str, models: tuple[str, ...], usage: Usage, at: float) -> Cost | None: ...

    def flat(self, provider: str, model: str) -> tuple[int, int, int, int, str] | None:
        """Pico-units for a request, a token of the prompt, one of it from the cache, one of the answer; and their currency.
        None where the price depends on more than that, or is not known."""


Estimate = Callable[[str, bytes, bytes], Usage]
"""Tokens of an operation's request (and answer) by their bytes."""

Spent = Callable[[Iterable[str], float], Awaitable[Mapping[str, tuple[int, int]]]]
"""The ledger: nano-USD and tokens of each holder since a moment, all ended exchanges counted."""


class Window(NamedTuple):
    """One budget of one holder, in the period that runs now."""

    key: str
    limit: int
    ends: float
    starts: float
    money: bool
    holder: str  # a consumer's id, or "g:" and a group's name
    whose: str  # "consumer 'alice'"
    name: str  # day, month ...
    tz: str


class Plan:
    """What a request of one consumer takes up: made once, used until a period ends or the consumer changes."""

    __slots__ = (
        "batch",
        "binds",
        "budgets",
        "consumer",
        "counts",
        "first_budget",
        "floors",
        "gauges",
        "hard",
        "max_output",
        "metered",
        "money",
        "on_budget",
        "paid",
        "paired",
        "periods",
        "places",
        "requests",
        "share",
        "simple",
        "slots",
        "smallest",
        "tokens",
        "unpriced",
        "until",
        "whose",
        "wire",
    )

    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer
        self.requests: tuple[Claim, ...] = ()  # windows of requests
        self.places: tuple[Claim, ...] = ()  # gauges
        self.tokens: tuple[tuple[str, int], ...] = ()  # key and limit of windows of tokens
        self.budgets: tuple[Window, ...] = ()
        self.whose: dict[str, str] = {}  # whose limit, by key
        self.until = inf
        self.share = 0.0  # of the fullest budget, used or held, when we last looked
        self.batch = self.hard = False
        self.unpriced = "refuse"
        self.on_budget: OnBudget | None = None
        self.max_output: int | None = None
        self.money = self.counts = self.binds = False
        self.gauges: tuple[str, ...] = ()
        # What the quick way through needs: no special terms; `paired`: of two limits of a kind the tighter one is told.
        self.simple = self.paired = False
        self.slots: tuple[Slot, ...] = ()
        self.periods: tuple[tuple[str, int, float, bool], ...] = ()  # key, limit, end of each budget; whether of money
        self.metered: tuple[str, ...] = ()  # keys that are settled to tokens
        self.paid: tuple[str, ...] = ()  # and to money
        self.smallest = (0, 0)  # budget or window: of tokens, of nano-USD
        self.first_budget = 0  # its place among the claims
        self.floors: tuple[int, ...] = ()  # what is left of each budget when it is nearly used
        self.wire: tuple[tuple[bytes, bytes] | None, tuple[bytes, bytes] | None] = (None, None)


class Size(msgspec.Struct, frozen=True, gc=False):
    """What a request is taken to use."""

    tokens: int
    nano: int
    sure: int  # tokens that it will use for certain, whatever its answer
    sure_nano: int
    output: int


NOTHING = Size(0, 0, 0, 0, 0)


class Hold(msgspec.Struct, gc=False):
    """What one exchange holds, until it is settled. `near`: one of its budgets is nearly used. `cap` are the output tokens at
    which its stream ends (hard budgets)."""

    plan: Any
    permit: Permit | None
    size: Size
    near: bool = False
    cap: int = 0
    topped: tuple[tuple[Permit, Size], ...] = ()  # further holds of a session
    quick: tuple[float, list[Any], list[int]] | None = None  # in place of a permit: when, what, and what is left

    def short(self, tokens: int) -> bool:
        """Whether a session that has used *tokens* so far is to hold more: half of the last hold is gone."""
        held = self.size.tokens + sum([size.tokens for _, size in self.topped])
        counts: bool = self.plan.counts
        return counts and 2 * (held - tokens) < self.size.tokens


class Learned:
    """What answers of one model were like lately."""

    __slots__ = ("_outputs", "_taken", "cached", "p95", "seen")

    def __init__(self) -> None:
        self._outputs: deque[int] = deque(maxlen=128)
        self._taken = 0
        self.seen = 0  # answers in all; not all are taken
        self.p95 = OUTPUT
        self.cached = 0.0  # share of prompts that comes from the provider's cache

    def add(self, usage: Usage) -> None:
        self._outputs.append(usage.output)
        self._taken += 1
        if not self._taken % ENOUGH:
            self.p95 = max(1, sorted(self._outputs)[len(self._outputs) * 95 // 100])
        if usage.input and (usage.cached or self.cached):
            self.cached += (usage.cached / usage.input - self.cached) / 8


class Place:
    """What is known of one model at one provider: its price, where that is simple, and what its answers are like."""

    __slots__ = ("learned", "rates")

    def __init__(self, rates: tuple[int, int, int, int] | None, learned: Learned) -> None:
        self.rates, self.learned = rates, learned


class Lasting:
    """What outlives a reload: what was learned and told, who waits, which periods' past is being read, or is still owed."""

    def __init__(self) -> None:
        self.learned: dict[tuple[str, str], Learned] = {}
        self.told: dict[tuple[str, str], float] = {}
        self.turns = Turns()
        self.priming: dict[str, asyncio.Future[None]] = {}
        self.owed: dict[str, tuple[Window, int]] = {}
        self.refused = self.events = 0


class Quota:
    """The limits and budgets of one config. What it learned and told, and who waits, outlives a reload."""

    def __init__(
        self,
        defaults: Terms,
        groups: Mapping[str, Terms],
        counters: Counters,
        *,
        prices: Prices | None = None,
        usd: Callable[[int, str], int] = lambda nano, currency: nano,
        estimate: Estimate | None = None,
        spent: Spent | None = None,
        resolve: Callable[[str], Route] | None = None,
        tell: Callable[[Event], None] | None = None,
        queue: float = 0.0,
        previous: Quota | None = None,
    ) -> None:
        """*defaults* are the operator's `[limits]`; *queue* is how long (seconds) a request waits for a place; *tell* hears of
        budgets that are nearly or wholly used. Without *prices* money is not held, without *estimate* tokens are guessed by
        length, without *spent* every period begins at 0."""
        self._defaults, self._groups, self._counters = defaults, groups, counters
        self._prices, self._usd, self._estimate = prices, usd, estimate
        self._spent, self._resolve, self._tell, self._queue = spent, resolve, tell, queue
        self._memory = counters if isinstance(counters, MemoryCounters) and counters.at_once else None
        self._plans: dict[str, Plan] = {}
        self._places: dict[tuple[str, str], Place] = {}
        self._lasting = Lasting() if previous is None else previous.lasting
        self._tasks: set[asyncio.Task[None]] = set()
        self._down = False

    @property
    def lasting(self) -> Lasting:
        """What the quota of the next config takes over."""
        return self._lasting

    @property
    def refused(self) -> int:
        """Requests refused for a limit or a budget."""
        return self._lasting.refused

    @property
    def events(self) -> int:
        """Budgets that were nearly or wholly used."""
        return self._lasting.events

    @property
    def waiting(self) -> int:
        """Requests that wait for a place."""
        return len(self._lasting.turns)

    # what limits whom

    def plan(self, consumer: Consumer, at: float) -> Plan | None:
        """What limits *consumer* at *at* (epoch seconds); None where nothing does."""
        plan = self._plans.get(consumer.id)
        if plan is None or plan.consumer is not consumer or at >= plan.until:
            plan = self._made(consumer, at)
        return plan if plan.binds else None

    def _made(self, consumer: Consumer, at: float) -> Plan:
        before = self._plans.get(consumer.id)
        plan = Plan(consumer)
        own, group, defaults = consumer.terms, self._groups.get(consumer.group), self._defaults
        all_terms = [terms for terms in (own, group, defaults) if terms is not None]
        plan.batch = next((terms.priority for terms in all_terms if terms.priority), "") == "batch"
        plan.hard = next((terms.hard for terms in all_terms if terms.hard is not None), False)
        plan.unpriced = next((terms.unpriced for terms in all_terms if terms.unpriced), "refuse")
        plan.on_budget = next((terms.on_budget for terms in all_terms if terms.on_budget is not None), None)
        plan.max_output = min([terms.max_output for terms in all_terms if terms.max_output], default=None)
        holders = [(consumer.id, f"consumer {consumer.name!r}", _with(own, defaults), 1.0)]
        if group is not None:
            share = BATCH_SHARE if plan.batch else 1.0
            holders.append((f"g:{consumer.group}", f"group {consumer.group!r}", group, share))
        requests, places, tokens, budgets = [], [], [], budgets_of(consumer, group, defaults, at)
        for holder, whose, terms, share in holders:
            if terms.rpm:
                requests.append(Claim(f"rpm:{holder}", 1, max(1, int(terms.rpm * share)), MINUTE))
            if terms.concurrency:
                places.append(Claim(f"concurrency:{holder}", 1, max(1, int(terms.concurrency * share)), 0))
            if terms.tpm:
                tokens.append((f"tpm:{holder}", max(1, int(terms.tpm * share))))
            for kind in ("rpm", "tpm", "concurrency"):
                plan.whose[f"{kind}:{holder}"] = whose
        plan.requests, plan.places, plan.tokens, plan.budgets = tuple(requests), tuple(places), tuple(tokens), tuple(budgets)
        plan.gauges = tuple(claim.key for claim in places)
        plan.money = any(window.money for window in budgets)
        plan.counts = bool(tokens or budgets)
        plan.until = min((window.ends for window in budgets), default=inf)
        plan.binds = bool(requests or places or tokens or budgets)
        _prepare(plan, queue=self._queue)
        if before is not None and [window.key for window in before.budgets] == [window.key for window in budgets]:
            plan.share = before.share
        if len(self._plans) >= MOST_PLANS:
            self._plans.clear()
        self._plans[consumer.id] = plan
        return plan

    def claims(self, caller: Caller, at: float = 0.0) -> tuple[Claim, ...]:
        """What any request of *caller* takes up, whatever it asks: requests a minute, and at once."""
        plan = self.plan(caller.consumer, at)
        return () if plan is None else (*plan.requests, *plan.places)

    # what asks no model

    async def admit(self, caller: Caller, now: float) -> Permit | None:
        """Let in a request that uses no tokens. *now* is epoch seconds. Give the permit back with `release`; None needs none.
        Raises PolicyError."""
        plan = self.plan(caller.consumer, now)
        if plan is None or not (plan.requests or plan.places):
            return None
        permit = await self._ask((*plan.requests, *plan.places), now)
        if permit is not None and permit.refused is not None:
            raise self._refusal(plan, permit.refused, permit)
        return permit

    def release(self, permit: Permit | None) -> None:
        """The request ended. It stays counted in its minute; its place is free again."""
        if permit is not None:
            self._counters.settle(permit, {})
            if self._lasting.turns:
                for claim in permit.claims:
                    if not claim.window and not claim.ends:
                        self._lasting.turns.free(claim.key)

    def count(self, exchange: Exchange) -> None:
        """A request that failed before anything was held: it counts in its minute all the same. Only enqueues."""
        if exchange.caller is None:
            return
        plan = self.plan(exchange.caller.consumer, exchange.at)
        if plan is None or not plan.requests:
            return
        task = asyncio.get_running_loop().create_task(self._count(plan.requests), name="count")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _count(self, claims: Sequence[Claim]) -> None:
        permit = await self._ask(claims, time.time())
        if permit is not None:
            self._counters.settle(permit, {})

    # hold

    async def hold(self, exchange: Exchange, plan: Plan, route: Route, operation: Operation) -> Route:
        """Hold what *exchange* will take up, by estimate: the route to go (a cheaper one where the consumer's terms say so).
        Raises PolicyError; waits for a place where `[limits] queue` allows it. Counters that are out of reach refuse nobody."""
        places = route.places
        if plan.simple and len(places) == 1 and (size := self._quick(exchange, plan, places[0], operation.name)) is not None:
            permit = await self._known(plan, _claims(plan, size))
            if permit is not None and permit.refused is not None:
                raise self._refused(exchange, plan, permit)
            self._granted(exchange, plan, permit, size)
            return route
        return await self._hold_carefully(exchange, plan, route, operation)

    def hold_at_once(self, exchange: Exchange, plan: Plan, route: Route, operation: Operation) -> bool:
        """The same for most requests where the counters are in this process: without a wait. False where that is not so, or
        something stands in the way: then nothing was held, and `hold` is to be asked."""
        if self._memory is None or not plan.simple or len(route.places) != 1:
            return False
        size = self._quick(exchange, plan, route.places[0], operation.name)
        if size is None:
            return False
        now = time.time()
        taken = self._memory.take_slots(plan.slots, size.tokens, size.nano, now)
        if taken is None:
            return False
        held, left = taken
        if plan.paired:
            self._granted(exchange, plan, _permit(plan, size, now, held, left), size)
            return True
        exchange.hold = Hold(plan, None, size, quick=(now, held, left))
        exchange.wire = _quick_wire(plan, left)
        if size.nano or not plan.money:
            at = plan.first_budget
            for floor in plan.floors:
                if left[at] <= floor:
                    self._granted(exchange, plan, _permit(plan, size, now, held, left), size)  # with the budget told
                    break
                at += 1
        return True

    def _granted(self, exchange: Exchange, plan: Plan, permit: Permit | None, size: Size) -> None:
        """What is held is kept, and what is left is told."""
        exchange.hold = hold = Hold(plan, permit, size)
        if permit is None:
            return
        left = permit.left
        if plan.paired:
            exchange.wire, hold.near = _wire(plan, permit), True
            return
        exchange.wire = wire = _quick_wire(plan, left)
        if size.nano or not plan.money:
            at = plan.first_budget
            for floor in plan.floors:
                if left[at] <= floor:
                    hold.near = True
                    wire.append((b"x-aigw-budget", _budget_word(plan, permit.claims[at].key, left[at])))
                    break
                at += 1

    def _quick(self, exchange: Exchange, plan: Plan, place: Deployment, name: str) -> Size | None:
        """The size of a request that is like most: a short one of a conversation, at a place with a plain price. None when it
        is not, or when it may be larger than a whole limit."""
        if not plan.counts:
            return NOTHING
        body = exchange.body
        if name not in TALK or len(body) > SMALL or exchange.object_id or not body.isascii():
            return None
        key = (place.provider, place.model or exchange.requested_model)
        known = self._places.get(key) or self._known_place(key)
        learned = known.learned
        output, asked = learned.p95, exchange.max_tokens
        if asked is not None and 0 < asked < output:
            output = asked
        prompt = (len(body) + 3) // 4
        nano = 0
        if plan.money:
            if known.rates is None:
                return None
            request, fresh, cached, made = known.rates
            saved = int(prompt * learned.cached) * (fresh - cached) if learned.cached else 0
            nano = (request + prompt * fresh - saved + output * made + 500) // 1000
        tokens = prompt + output
        if tokens > plan.smallest[0] or nano > plan.smallest[1]:
            return None
        return Size(tokens, nano, prompt, 0, output)

    def _known_place(self, key: tuple[str, str]) -> Place:
        learned = self._lasting.learned.get(key)
        if learned is None:
            if len(self._lasting.learned) >= MOST_MODELS:
                self._lasting.learned.clear()
            learned = self._lasting.learned[key] = Learned()
        rates = None if self._prices is None else self._prices.flat(*key)
        plain = None if rates is None or rates[4] != "USD" else rates[:4]
        if len(self._places) >= MOST_MODELS:
            self._places.clear()
        place = self._places[key] = Place(plain, learned)
        return place

    def _refused(self, exchange: Exchange, plan: Plan, permit: Permit) -> PolicyError:
        """What is said, and told, of a refusal."""
        claim = permit.refused
        assert claim is not None
        self._lasting.refused += 1
        if claim.ends:
            self._used_up(plan, claim)
        exchange.wire = _refused_wire(permit)
        return self._refusal(plan, claim, permit)

    async def _hold_carefully(self, exchange: Exchange, plan: Plan, route: Route, operation: Operation) -> Route:
        """`hold`, for whatever is not simple."""
        switch = plan.on_budget if plan.on_budget is not None and _may_switch(exchange, operation) else None
        if switch is not None and plan.share >= switch.at:
            route, switch = self._cheaper(switch.use), None
        route, size = self._sized(exchange, plan, route, operation)
        shrinks = plan.hard and exchange.stream and size.output > 0
        if shrinks:
            size = _fitting(plan, {window.key: window.limit for window in plan.budgets}, size) or size
        permit = await self._held(exchange, plan, size)
        if switch is not None and permit is not None:
            plan.share = _share(permit, plan)
            refused = permit.refused
            if plan.share >= switch.at or (refused is not None and refused.ends):
                route, size = self._sized(exchange, plan, self._cheaper(switch.use), operation)
                if refused is not None:
                    permit = await self._held(exchange, plan, size)
        if shrinks and permit is not None and permit.refused is not None and permit.refused.ends:
            left = {claim.key: free for claim, free in zip(_claims(plan, size), permit.left, strict=False)}
            smaller = _fitting(plan, left, size)
            if smaller is not None:
                size = smaller
                permit = await self._held(exchange, plan, size)
        if permit is not None and permit.refused is not None:
            raise self._refused(exchange, plan, permit)
        exchange.hold = Hold(plan, permit, size, near=True, cap=size.output if shrinks else 0)
        if permit is not None:
            exchange.wire = _wire(plan, permit)
        return route

    async def _held(self, exchange: Exchange, plan: Plan, size: Size) -> Permit | None:
        """A permit, refused or not, after waiting for a place where that is allowed; None: the counters are out of reach."""
        claims = _claims(plan, size)
        patience = self._queue and min(self._queue, exchange.deadline - time.perf_counter())
        if not patience:
            return await self._known(plan, claims)
        until = time.perf_counter() + patience
        blocked = next((key for key in plan.gauges if self._lasting.turns.taken(key, batch=plan.batch)), "")
        if blocked:
            await self._lasting.turns.wait(blocked, patience, batch=plan.batch)
        while True:
            permit = await self._known(plan, claims)
            refused = None if permit is None else permit.refused
            left = until - time.perf_counter()
            if refused is None or refused.window or refused.ends or left <= 0:
                return permit
            await self._lasting.turns.wait(refused.key, left, batch=plan.batch)

    async def _known(self, plan: Plan, claims: Sequence[Claim]) -> Permit | None:
        """One hold; periods that nobody knows are primed from the ledger first."""
        permit = await self._ask(claims, time.time())
        for _ in range(PRIMINGS):
            if permit is None or not permit.unknown:
                return permit
            unknown = frozenset(permit.unknown)
            await self._prime([window for window in plan.budgets if window.key in unknown])
            permit = await self._ask(claims, time.time())
        return None if permit is not None and permit.unknown else permit

    async def _ask(self, claims: Sequence[Claim], now: float) -> Permit | None:
        try:
            permit = await self._counters.hold(claims, now)
        except StoreError as error:
            if not self._down:
                self._down = True
                _log.warning("limits: %s; requests are let in uncounted", error)
            return None
        if self._down:
            self._down = False
            _log.info("limits: the counters answer again")
        return permit

    async def _prime(self, windows: Sequence[Window]) -> None:
        """Tell the counters what the ledger knows of *windows*; however many ask, it is read once."""
        mine = [window for window in windows if window.key not in self._lasting.priming]
        others = [self._lasting.priming[window.key] for window in windows if window.key in self._lasting.priming]
        if mine:
            task = asyncio.get_running_loop().create_task(self._read_ledger(mine), name="ledger")
            for window in mine:
                self._lasting.priming[window.key] = task
            others.append(task)
        await asyncio.gather(*(asyncio.shield(other) for other in others))

    async def _read_ledger(self, windows: Sequence[Window]) -> None:
        try:
            for starts in {window.starts for window in windows}:
                same = [window for window in windows if window.starts == starts]
                known = await self._sums(same)
                await self._counters.prime({window.key: (known[window.key], window.ends) for window in same})
        except StoreError as error:
            _log.warning("budgets: %s", error)
        finally:
            for window in windows:
                self._lasting.priming.pop(window.key, None)

    async def _sums(self, windows: Sequence[Window]) -> dict[str, int]:
        """What each of *windows* (of one beginning) has used. A ledger that cannot be read stops nobody: what is used from now
        on counts, and what was used before is added when it can be read again (`catch_up`)."""
        if self._spent is None:
            return {window.key: 0 for window in windows}
        try:
            found = await self._spent({window.holder for window in windows}, windows[0].starts)
        except StoreError as error:
            _log.warning("budgets: the ledger cannot be read (%s); counting from now on until it can", error)
            for window in windows:
                self._lasting.owed[window.key] = (window, 0)
            return {window.key: 0 for window in windows}
        return {window.key: found.get(window.holder, (0, 0))[not window.money] for window in windows}

    async def used(self, consumer: Consumer, at: float) -> list[tuple[Window, int]]:
        """The budgets that hold for *consumer* at *at* (epoch seconds), each with what the ledger says: nano-USD or tokens."""
        windows = list(self._made(consumer, at).budgets)
        found: list[tuple[Window, int]] = []
        for starts in {window.starts for window in windows}:
            same = [window for window in windows if window.starts == starts]
            sums = await self._sums(same)
            found += [(window, sums[window.key]) for window in same]
        return sorted(found, key=lambda pair: windows.index(pair[0]))

    async def catch_up(self) -> None:
        """Add what periods had used before the ledger could be read. Called now and then."""
        for key, (window, _) in list(self._lasting.owed.items()):
            if self._spent is None or window.ends <= time.time():
                self._lasting.owed.pop(key, None)
                continue
            try:
                found = await self._spent([window.holder], window.starts)
            except StoreError:
                return
            _, counted = self._lasting.owed.pop(key)
            missing = found.get(window.holder, (0, 0))[not window.money] - counted
            if missing > 0:
                self._counters.add({key: missing})

    # how large

    def _sized(self, exchange: Exchange, plan: Plan, route: Route, operation: Operation) -> tuple[Route, Size]:
        """What the exchange may use, and the route less the places that a money budget cannot pay for. Raises PolicyError."""
        if not plan.counts or exchange.object_id or operation.placed or operation.below or operation.family == "count":
            return route, NOTHING
        name = operation.name
        if name == "moderations" or (name == "raw" and not exchange.requested_model):
            return route, NOTHING
        prompt, output = self._tokens(exchange, name)
        asked = exchange.max_tokens if exchange.max_tokens is not None and exchange.max_tokens > 0 else 0
        if plan.max_output is not None:
            asked = min(asked or plan.max_output, plan.max_output)
        nano = most = 0
        sure: int | None = None
        unpriced: list[Deployment] = []
        for place in route.places:
            model = place.model or exchange.requested_model
            learned = self._lasting.learned.get((place.provider, model))
            if output is not None:
                said = output
            elif plan.hard:
                said = min(asked or WORST, MOST_OUTPUT)
            else:
                said = OUTPUT if learned is None else learned.p95
                if 0 < asked < said:
                    said = asked
            most = max(most, said)
            if plan.money and self._prices is not None:
                cached = 0 if learned is None or plan.hard else int(prompt * learned.cached)
                usage = Usage(input=prompt, cached=cached, output=said)
                cost = self._prices.price(place.provider, (model,), usage, exchange.at)
                if cost is None:
                    unpriced.append(place)
                    continue
                nano = max(nano, self._usd(cost.nano, cost.currency))
                if plan.hard or _tight(plan, nano):
                    usage.output = said if plan.hard and not exchange.stream else 0
                    least = self._prices.price(place.provider, (model,), usage, exchange.at)
                    known = 0 if least is None else self._usd(least.nano, least.currency)
                    sure = known if sure is None else min(sure, known)
        if unpriced and plan.unpriced != "allow":
            route = _without(route, unpriced, exchange)
        certain = prompt if not plan.hard or exchange.stream else prompt + most
        size = Size(prompt + most, nano, certain, sure or 0, most)
        _refuse_giants(plan, size)
        return route, size

    def _tokens(self, exchange: Exchange, name: str) -> tuple[int, int | None]:
        """Tokens of the prompt; and of the answer, where its kind tells."""
        body = exchange.body
        if name == "realtime":
            return SESSION_TOKENS, SESSION_TOKENS
        if exchange.upload is not None:
            return exchange.upload.size // 4 + 1 if name == "raw" else 1000, None if name == "raw" else 1000
        if name in PICTURES and self._estimate is not None:
            usage = self._estimate(name, body, b" ")
            return usage.input, usage.output
        if self._estimate is None or (len(body) <= SMALL and body.isascii()):
            prompt = (len(body) + 3) // 4
        else:
            prompt = self._estimate(name, body, b"").input
        return prompt, 0 if name in NO_OUTPUT else None

    # settle

    def settle(self, exchange: Exchange) -> None:
        """The exchange is being recorded: what it held becomes what it used. Only enqueues; once."""
        hold: Hold = exchange.hold
        exchange.hold = None
        plan, permit = hold.plan, hold.permit
        usage = exchange.usage
        tokens = 0 if usage is None else usage.input + usage.output
        charged = exchange.charged
        if hold.topped:
            self._settle_session(hold, tokens, charged)
            return
        if hold.quick is not None:
            now, held, left = hold.quick
            size = hold.size
            if not self._lasting.owed:
                assert self._memory is not None
                self._memory.settle_slots(plan.slots, held, (size.tokens, size.nano), (tokens, charged), now)
                if plan.budgets and (charged > size.nano or tokens > size.tokens):
                    hold.permit = _permit(plan, size, now, held, left)
                    self._look_at(hold, dict.fromkeys(plan.metered, tokens) | dict.fromkeys(plan.paid, charged))
                self._learn(exchange, plan, usage)
                return
            permit = hold.permit = _permit(plan, size, now, held, left)
        used = dict.fromkeys(plan.metered, tokens)
        if plan.money:
            used.update(dict.fromkeys(plan.paid, charged))
        if permit is not None:
            self._counters.settle(permit, used)
        if plan.budgets:
            size = hold.size
            if hold.near or charged > size.nano or tokens > size.tokens or permit is None:
                self._look_at(hold, used)
            if self._lasting.owed:
                self._note_owed(used)
        if self._queue and self._lasting.turns:
            for key in plan.gauges:
                self._lasting.turns.free(key)
        self._learn(exchange, plan, usage)

    def _learn(self, exchange: Exchange, plan: Plan, usage: Usage | None) -> None:
        """How long answers of this model are, for the next estimate."""
        if usage is not None and usage.output and plan.counts and not usage.estimated and exchange.failure is None:
            key = (exchange.provider, exchange.model)
            learned = (self._places.get(key) or self._known_place(key)).learned
            learned.seen += 1
            if learned.seen <= ENOUGH or not learned.seen % 4:  # once it is known, a sample is enough
                learned.add(usage)

    def _look_at(self, hold: Hold, used: Mapping[str, int]) -> None:
        """Whether a budget is nearly used now; and what was used of one that was not held."""
        plan, permit, size = hold.plan, hold.permit, hold.size
        held = 0 if permit is None else len(permit.claims) - len(plan.places)
        at = len(plan.requests) + (len(plan.tokens) if size.tokens else 0)
        more: dict[str, int] = {}
        for window in plan.budgets:
            took = used[window.key]
            if at < held and permit is not None and permit.claims[at].key == window.key:
                left = permit.left[at] + permit.claims[at].amount - took
                at += 1
                if left * NEAR <= window.limit:
                    self._nearly(plan, window, left)
            elif took:
                more[window.key] = took
        if more:
            self._counters.add(more)

    def _note_owed(self, used: Mapping[str, int]) -> None:
        for key in used.keys() & self._lasting.owed.keys():
            window, before = self._lasting.owed[key]
            self._lasting.owed[key] = (window, before + used[key])

    # sessions

    async def more(self, exchange: Exchange, size: Size | None = None) -> None:
        """Hold as much again, for a session that goes on. Raises PolicyError when the budgets have no more."""
        hold: Hold | None = exchange.hold
        if hold is None or not hold.plan.counts or hold.permit is None:
            return
        plan = hold.plan
        size = size or hold.size
        claims = [claim for claim in _claims(plan, size) if claim.ends or claim.key.startswith("tpm:")]
        permit = await self._known(plan, claims)
        if permit is None:
            return
        if exchange.hold is not hold:  # it ended meanwhile
            self._counters.release(permit)
            return
        if permit.refused is not None:
            raise self._refused(exchange, plan, permit)
        hold.topped = (*hold.topped, (permit, size))

    def _settle_session(self, hold: Hold, tokens: int, charged: int) -> None:
        """Several holds of one session: each takes what it held, the last one the rest."""
        permits = [permit for permit in (hold.permit, *(permit for permit, _ in hold.topped)) if permit is not None]
        for number, permit in enumerate(permits):
            last = number + 1 == len(permits)
            size = hold.size if number == 0 else hold.topped[number - 1][1]
            some, money = (tokens, charged) if last else (min(tokens, size.tokens), min(charged, size.nano))
            tokens, charged = tokens - some, charged - money
            used = {key: some for key, _ in hold.plan.tokens}
            used |= {window.key: money if window.money else some for window in hold.plan.budgets}
            self._counters.settle(permit, used)
            if self._lasting.owed:
                self._note_owed(used)
        for key in hold.plan.gauges:
            self._lasting.turns.free(key)

    # what is said

    def _refusal(self, plan: Plan, claim: Claim, permit: Permit) -> PolicyError:
        if claim.ends:
            window = next(window for window in plan.budgets if window.key == claim.key)
            again = "it does not begin anew" if window.ends == inf else f"it begins anew {_moment(window)}"
            return PolicyError(
                "policy_budget_exhausted",
                f"the budget of {window.whose} is used up, or held by requests under way: {shown(window)}; {again}",
                retry_after=None if window.ends == inf else max(permit.retry_after, 1.0),
            )
        whose = plan.whose[claim.key]
        if claim.window:
            wait = max(permit.retry_after, 0.1)
            what = "tokens" if claim.key.startswith("tpm:") else "requests"
            return PolicyError(
                "policy_rate_limited",
                f"rate limit of {whose}: {claim.limit} {what} a minute; try again in {math.ceil(wait)} s",
                retry_after=wait,
            )
        return PolicyError(
            "policy_concurrency_limited",
            f"limit of {whose}: {claim.limit} requests at once; wait until one of them has ended",
            retry_after=permit.retry_after or 1.0,  # nobody knows when a request ends
        )

    def _used_up(self, plan: Plan, claim: Claim) -> None:
        window = next(window for window in plan.budgets if window.key == claim.key)
        self._event(window, "1.0", f"The budget of {window.whose} is used up: {shown(window)}. Requests are refused now.", 1.0)

    def _nearly(self, plan: Plan, window: Window, left: int) -> None:
        """*left* of a budget's window is little, or nothing."""
        share = 1.0 - left / window.limit
        plan.share = max(plan.share, share)
        if left <= 0:
            self._event(window, "1.0", f"The budget of {window.whose} is used up: {shown(window)}.", share)
            return
        ends = _forecast(window, share, time.time())
        when = f" At this pace it ends on {_day(ends, window.tz)}." if ends is not None else ""
        text = f"{share:.0%} of the budget of {window.whose} is used: {shown(window)}.{when}"
        self._event(window, "0.8", text, share, ends)

    def _event(self, window: Window, step: str, text: str, share: float, ends: float | None = None) -> None:
        """Told once for each window and step."""
        now = time.time()
        if (window.key, step) in self._lasting.told:
            return
        if len(self._lasting.told) > 10_000:
            self._lasting.told = {key: until for key, until in self._lasting.told.items() if until > now}
        self._lasting.told[window.key, step] = window.ends
        self._lasting.events += 1
        if self._tell is None:  # else who is told of it says so
            _log.warning("%s", text)
            return
        facts: dict[str, str | int | float] = {
            "holder": window.holder,
            "window": window.name,
            "unit": "usd" if window.money else "tokens",
            "limit": window.limit / NANO if window.money else window.limit,
            "used": round(share, 4),
        }
        if ends is not None:
            facts["ends"] = int(ends)
        self._tell(Event(kind="budget", subject=window.whose, text=text, at=now, step=f"{window.key} {step}", facts=facts))

    def _cheaper(self, name: str) -> Route:
        """The route that a nearly used budget leads to."""
        assert self._resolve is not None
        route = self._resolve(name)
        if all(place.model is not None for place in route.places):
            return route
        named = [tuple(_named(place, name) for place in places) for places in (route.targets, route.fallback)]
        return replace(route, targets=named[0], fallback=named[1])

    async def close(self) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _with(own: Terms, defaults: Terms) -> Terms:
    """A consumer's own limits, and the operator's where it has none."""
    return Terms(
        rpm=defaults.rpm if own.rpm is None else own.rpm,
        tpm=defaults.tpm if own.tpm is None else own.tpm,
        concurrency=defaults.concurrency if own.concurrency is None else own.concurrency,
        budgets=own.budgets or defaults.budgets,
    )


def budgets_of(consumer: Consumer, group: Terms | None, defaults: Terms, at: float) -> list[Window]:
    """The budgets that hold for *consumer* at *at* (epoch seconds), in their periods: its own, or the operator's, then those of
    its *group*."""
    terms = [one for one in (consumer.terms, group, defaults) if one is not None]
    tz = next((one.tz for one in terms if one.tz), "")
    found = _windows(consumer.id, f"consumer {consumer.name!r}", consumer.terms.budgets or defaults.budgets, tz, at)
    if group is not None:
        found += _windows(f"g:{consumer.group}", f"group {consumer.group!r}", group.budgets, group.tz or defaults.tz, at)
    return found


def _windows(holder: str, whose: str, budgets: Sequence[Budget], tz: str, at: float) -> list[Window]:
    """The periods of *budgets* that run at *at*; of two for one window the smaller."""
    found: dict[tuple[bool, str], Window] = {}
    for budget in budgets:
        money = budget.unit == "usd"
        runs = period(budget.window, tz, at)
        key = f"{'usd' if money else 'tokens'}:{holder}:{runs.label}"
        window = Window(key, budget.amount, runs.ends, runs.starts, money, holder, whose, budget.window, tz)
        other = found.get((money, budget.window))
        if other is None or window.limit < other.limit:
            found[money, budget.window] = window
    return list(found.values())


def _claims(plan: Plan, size: Size) -> list[Claim]:
    """Windows, budgets, and the places last: who waits for one has room in all the others."""
    claims = [*plan.requests]
    tokens, nano = size.tokens, size.nano
    if tokens:
        for key, limit in plan.tokens:
            claims.append(Claim(key, limit if tokens > limit else tokens, limit, MINUTE))  # noqa: FURB136 - a call less
    for key, limit, ends, money in plan.periods:
        amount = nano if money else tokens
        if amount:
            claims.append(Claim(key, limit if amount > limit else amount, limit, MINUTE, ends))  # noqa: FURB136 - a call less
    if plan.places:
        claims += plan.places
    return claims


def _permit(plan: Plan, size: Size, now: float, held: list[Any], left: list[int]) -> Permit:
    """What the quick way took, as if it had come the usual one."""
    return Permit(tuple(_claims(plan, size)), None, 0.0, (now, held), left)


def _tight(plan: Plan, nano: int) -> bool:
    """Whether *nano* is more than a whole budget."""
    return any(window.money and nano > window.limit for window in plan.budgets)


def _refuse_giants(plan: Plan, size: Size) -> None:
    """Raises PolicyError for what would not fit if nobody else came: waiting does not help it."""
    for key, limit in plan.tokens:
        if size.sure > limit:
            raise PolicyError(
                "policy_request_too_large",
                f"this request needs about {size.sure} tokens, more than {plan.whose[key]} may use in a minute ({limit})",
            )
    for window in plan.budgets:
        if (size.sure_nano if window.money else size.sure) > window.limit:
            needs = f"about {size.sure_nano / NANO:.4g} USD" if window.money else f"about {size.sure} tokens"
            raise PolicyError(
                "policy_request_too_large",
                f"this request needs {needs}, more than the whole budget of {window.whose}: {shown(window)}",
            )


def _fitting(plan: Plan, left: Mapping[str, int], size: Size) -> Size | None:
    """*size* with as many output tokens as the budgets have left; None where that is no answer."""
    output = size.output
    answer = size.nano - size.sure_nano
    for window in plan.budgets:
        free = left.get(window.key, window.limit)
        if not window.money:
            output = min(output, free - size.sure)
        elif size.nano > free and answer > 0:
            output = min(output, size.output * (free - size.sure_nano) // answer)
    if output < ENOUGH:
        return None
    nano = size.sure_nano + (size.nano - size.sure_nano) * output // size.output
    return Size(size.sure + output, nano, size.sure, size.sure_nano, output)


def _without(route: Route, unpriced: Sequence[Deployment], exchange: Exchange) -> Route:
    """*route* less the places whose price nobody knows. Raises PolicyError when none is left."""
    targets = tuple(place for place in route.targets if place not in unpriced)
    fallback = tuple(place for place in route.fallback if place not in unpriced)
    if targets:
        return replace(route, targets=targets, fallback=fallback)
    if fallback:
        return replace(route, targets=fallback, fallback=())
    place = unpriced[0]
    name = f"{place.provider}/{place.model or exchange.requested_model}"
    raise PolicyError(
        "policy_price_unknown",
        f"nobody knows what {name} costs, and this consumer has a budget in money; the gateway's operator says it with: "
        f"aigw prices set '{name}' --input USD --output USD (per million tokens), or lets it pass with unpriced = \"allow\"",
    )


def _may_switch(exchange: Exchange, operation: Operation) -> bool:
    """Only conversations go to another model: of the others the answers would not be the same thing."""
    return operation.family == "conversation" and exchange.owner is None


def _named(place: Deployment, model: str) -> Deployment:
    return place if place.model is not None else replace(place, model=model)


def _share(permit: Permit, plan: Plan) -> float:
    """Of the fullest budget, how much is used or held."""
    limits = {window.key: window.limit for window in plan.budgets}
    claims = permit.claims or ()
    if permit.refused is not None:
        return 1.0 if permit.refused.ends else plan.share
    shares = [1.0 - left / claim.limit for claim, left in zip(claims, permit.left, strict=False) if claim.key in limits]
    return max(shares, default=plan.share)


def _prepare(plan: Plan, *, queue: float) -> None:
    """What the quick way looks up."""
    plan.simple = not (plan.hard or plan.on_budget is not None or plan.max_output or (queue and plan.places))
    plan.metered = (*(key for key, _ in plan.tokens), *(window.key for window in plan.budgets if not window.money))
    plan.paid = tuple(window.key for window in plan.budgets if window.money)
    plan.smallest = (
        min([limit for _, limit in plan.tokens] + [window.limit for window in plan.budgets if not window.money], default=2**62),
        min([window.limit for window in plan.budgets if window.money], default=2**62),
    )
    plan.periods = tuple((window.key, window.limit, window.ends, window.money) for window in plan.budgets)
    plan.first_budget = len(plan.requests) + len(plan.tokens)
    plan.slots = (
        *((REQUESTS, claim.key, claim.limit) for claim in plan.requests),
        *((TOKEN_WINDOW, key, limit) for key, limit in plan.tokens),
        *((MONEY if window.money else TOKENS, window.key, window.limit) for window in plan.budgets),
        *((PLACE, claim.key, claim.limit) for claim in plan.places),
    )
    plan.floors = tuple(window.limit // NEAR for window in plan.budgets)
    requests = (b"x-ratelimit-limit-requests", b"%d" % plan.requests[0].limit) if plan.requests else None
    tokens = (b"x-ratelimit-limit-tokens", b"%d" % plan.tokens[0][1]) if plan.tokens else None
    plan.wire = (requests, tokens)
    plan.paired = len(plan.requests) > 1 or len(plan.tokens) > 1


def _quick_wire(plan: Plan, left: Sequence[int]) -> Headers:
    """What is left, where there is one limit of each kind."""
    requests, tokens = plan.wire
    wire: Headers = []
    if requests is not None:
        free, limit = left[0], plan.requests[0].limit
        wire += (
            requests,
            (b"x-ratelimit-remaining-requests", b"%d" % free),
            (b"x-ratelimit-reset-requests", b"%ds" % -(MINUTE * (free - limit) // limit)),
        )
    if tokens is not None and plan.counts and len(left) > (at := len(plan.requests)):
        free, limit = left[at], plan.tokens[0][1]
        wire += (
            tokens,
            (b"x-ratelimit-remaining-tokens", b"%d" % free),
            (b"x-ratelimit-reset-tokens", b"%ds" % -(MINUTE * (free - limit) // limit)),
        )
    return wire


def _wire(plan: Plan, permit: Permit) -> Headers:
    """What is left, for the caller: of requests and tokens a minute, of the tighter one where the group has a limit as well;
    and how full a budget is that is nearly used."""
    tight: dict[bytes, tuple[int, int]] = {}
    budget: list[tuple[bytes, bytes]] = []
    for claim, free in zip(permit.claims, permit.left, strict=False):
        if claim.ends:
            if free * NEAR <= claim.limit and not budget:
                budget.append((b"x-aigw-budget", _budget_word(plan, claim.key, free)))
        elif claim.window:
            kind = b"tokens" if claim.key.startswith("tpm:") else b"requests"
            if kind not in tight or free < tight[kind][1]:
                tight[kind] = (claim.limit, free)
    wire: Headers = []
    for kind, (limit, free) in tight.items():
        wire += _limit_wire(kind, limit, free)
    return wire + budget


def _limit_wire(kind: bytes, limit: int, left: int) -> Headers:
    return [
        (b"x-ratelimit-limit-" + kind, b"%d" % limit),
        (b"x-ratelimit-remaining-" + kind, b"%d" % left),
        (b"x-ratelimit-reset-" + kind, b"%ds" % -(MINUTE * (left - limit) // limit)),
    ]


def _refused_wire(permit: Permit) -> Headers:
    """For a refusal, what the caller meets next time."""
    claim = permit.refused
    if claim is None or claim.ends or not claim.window:
        return []
    kind = b"tokens" if claim.key.startswith("tpm:") else b"requests"
    return [
        (b"x-ratelimit-limit-" + kind, b"%d" % claim.limit),
        (b"x-ratelimit-remaining-" + kind, b"0"),
        (b"x-ratelimit-reset-" + kind, b"%ds" % max(1, math.ceil(permit.retry_after))),
    ]


def _budget_word(plan: Plan, key: str, left: int) -> bytes:
    window = next(window for window in plan.budgets if window.key == key)
    unit = "usd" if window.money else "tokens"
    return f"{window.name};unit={unit};used={1.0 - left / window.limit:.3f}".encode()


def shown(window: Window) -> str:
    """ "5 USD a day", "1000000 tokens in all"."""
    amount = f"{window.limit / NANO:.10g} USD" if window.money else f"{window.limit} tokens"
    return f"{amount} in all" if window.ends == inf else f"{amount} a{'n' if window.name == 'hour' else ''} {window.name}"


def _moment(window: Window) -> str:
    return datetime.fromtimestamp(window.ends, zone(window.tz)).strftime("on %Y-%m-%d at %H:%M %Z").rstrip()


def _day(at: float, tz: str) -> str:
    try:
        return datetime.fromtimestamp(at, zone(tz)).strftime("%Y-%m-%d %H:%M %Z").rstrip()
    except (ValueError, OSError, OverflowError):
        return datetime.fromtimestamp(0, UTC).strftime("%Y")


def _forecast(window: Window, share: float, now: float) -> float | None:
    """When a budget will be used up at the pace so far; None where its window ends before, or has no beginning."""
    if window.starts <= 0 or now <= window.starts or share <= 0:
        return None
    ends = window.starts + (now - window.starts) / share
    return ends if now < ends < window.ends else None
