"""The canaries of a running server: which arm a request belongs to, what became of it, and what follows.

What they are and how far they have come stands in the store, in one value that is only ever replaced as a whole (`Store.swap`),
so the command line and any number of servers may change it. What is counted stands beside it, one value for each process, and
adds up: sums, and logs of e-values. Who holds the lease decides for all, once a second. When no canary is live, `active` is
empty, and a request pays one test of that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from aigw.config import embedding
from aigw.deployment import Route
from aigw.errors import StoreError
from aigw.exchange import Exchange
from aigw.hooks import Event
from aigw.protocols.operations import OPERATIONS
from aigw.routing import canary as canaries
from aigw.routing.canary import NEW, OLD, Canary, Counts, Place, Verdict
from aigw.routing.conversation import conversation
from aigw.routing.sequential import RateTest, ShiftTest
from aigw.routing.shadow import Serve, Shadows, copied
from aigw.storage import histogram

if TYPE_CHECKING:
    from aigw.storage.base import Store

log = logging.getLogger("aigw.canary")

EVERY = 0.5
"""Seconds between two looks at the store: an edit is live within a second."""

DECIDE = 1.0
"""Seconds between two decisions."""

FLUSH = 2.0
"""Seconds between two times that a process writes what it has counted: what a `kill -9` forgets."""

HELD = 10.0
"""Seconds of a step that a crash may forget."""

KEEP = 90 * 86400.0
"""Seconds that counts are kept, after the last of them was written."""

LEASE = 5.0
"""Seconds until another server decides, when the one that did is gone."""

TALKS = frozenset(one.name for one in OPERATIONS.values() if one.family == "conversation")
"""Operations whose answer is text: those are mirrored, may be empty, and have a pace."""

VECTORS = frozenset(one.name for one in OPERATIONS.values() if one.family == "embeddings")

UNCOUNTED = frozenset(one.name for one in OPERATIONS.values() if one.family == "count")

SAID = re.compile(
    rb'"(?:content|text|refusal|arguments|partial_json|delta)" ?: ?"[^"]|"(?:tool_use|tool_calls|function_call|functionCall)"'
)
"""What makes an answer one, as far as its user is concerned. Reasoning alone does not."""

REFUSED = re.compile(rb'"refusal" ?: ?"[^"]')

REFUSALS = frozenset({"content_filter", "refusal", "safety"})
"""Reasons to finish by which a model (or who watches it) says no."""


class Watch:
    """One live canary in this process: its arms, and what was counted of them here."""

    def __init__(self, canary: Canary) -> None:
        self.canary = canary
        self.counts = Counts()
        self.dirty = False
        self.flushed = 0.0  # monotonic
        self._rates = {reason: RateTest() for reason in canaries.RATES}
        self._shifts = {
            measure: ShiftTest(1 / canaries.SLOWER if measure == "speed" else canaries.SLOWER) for measure in canaries.SHIFTS
        }
        self._tests: dict[str, RateTest | ShiftTest] = {**self._rates, **self._shifts}
        self.counts.logs = {name: test.logs for name, test in self._tests.items()}
        self.spent_elsewhere = 0  # by other processes, as far as is known here
        self._moved: tuple[Route, Route] | None = None
        self.follow(canary)

    def follow(self, canary: Canary) -> None:
        """The same canary, as it stands in the store now."""
        self.canary = canary
        self._share = canary.share
        self._header = canary.sticky.partition(":")[2] if canary.sticky.startswith("header:") else ""
        self._by_conversation = canary.sticky == "conversation"
        for test in self._tests.values():
            test.begin(canary.step)

    def route(self, exchange: Exchange, route: Route) -> Route:
        """The route of the arm that *exchange* belongs to; noted in it."""
        canary = self.canary
        if exchange.operation in VECTORS and not same_model(route, canary, exchange.requested_model):
            return route  # vectors of two models in one index are worth nothing
        if exchange.owner is not None:
            return route  # it goes on from what a provider keeps
        exchange.canary = canary.id
        exchange.arm = OLD
        if canary.shadow:
            share = canary.shadow / 100
            exchange.mirrored = exchange.operation in TALKS and canaries.point(canary.id, exchange.id.encode()) < share
            return route
        if canaries.point(canary.id, self._key(exchange)) >= self._share:
            return route
        exchange.arm = NEW
        return self.moved(route)

    def moved(self, route: Route) -> Route:
        """*route* with the new place first; made once for each."""
        if self._moved is None or self._moved[0] is not route:
            self._moved = route, canaries.moved(route, self.canary)
        return self._moved[1]

    def mirrored(self, route: Route) -> Route:
        """Where the copies go: the new place alone, once."""
        if self._moved is None or self._moved[0] is not route:
            self._moved = route, msgspec.structs.replace(canaries.moved(route, self.canary), fallback=(), retries=0)
        return self._moved[1]

    def _key(self, exchange: Exchange) -> bytes:
        caller = exchange.caller
        who = caller.consumer.id if caller is not None else ""
        if self._header and (named := exchange.headers.get(self._header)):
            return named.encode("utf-8", "replace")
        if self._by_conversation and (talk := conversation(exchange.body)):
            return who.encode() + b"\0" + talk
        if caller is None or not caller.key.id:  # nobody has a name here: the next best thing
            who = exchange.end_user or exchange.address
        return who.encode("utf-8", "replace")

    def observe(self, exchange: Exchange) -> None:
        """What became of *exchange*: counted for its arm, unless it tells nothing about it (the caller's own mistakes, callers
        who left, our refusals)."""
        if exchange.operation in UNCOUNTED:
            return
        rejected = exchange.error == "provider_rejected"
        if exchange.outcome not in ("ok", "provider_error"):
            return
        new = exchange.arm != OLD
        tally = self.counts.new if new else self.counts.old
        failed = not rejected and (exchange.outcome != "ok" or not _served_by_its_own(exchange))
        well = not failed and not rejected
        talk = well and exchange.operation in TALKS
        empty = talk and is_empty(exchange)
        refused = talk and is_refusal(exchange)
        self.dirty = True
        tally.requests += 1
        tally.errors += failed
        tally.empty += empty
        tally.refusals += refused
        tally.rejections += rejected
        for reason, happened in (("errors", failed), ("empty", empty), ("refusals", refused), ("rejections", rejected)):
            self._rates[reason].add(new=new, failed=happened)
        if talk and not empty:
            self._pace(exchange, tally, new=new)
        if well and exchange.cost is not None and exchange.currency == self.canary.currency:
            tally.priced += 1
            tally.cost += exchange.cost + exchange.abandoned_cost
            self._shifts["cost"].add(new=new, value=exchange.cost)
        else:
            tally.unpriced += well
            tally.cost += exchange.abandoned_cost

    def _pace(self, exchange: Exchange, tally: canaries.Tally, *, new: bool) -> None:
        first = exchange.first_token
        if first is None:
            bucket = histogram.bucket(exchange.took)
            tally.whole[bucket] = tally.whole.get(bucket, 0) + 1
            self._shifts["whole"].add(new=new, value=exchange.took)
            return
        bucket = histogram.bucket(first)
        tally.first_token[bucket] = tally.first_token.get(bucket, 0) + 1
        self._shifts["first_token"].add(new=new, value=first)
        took, tokens = exchange.took - first, exchange.usage.output if exchange.usage is not None else 0
        if took > 0 and tokens >= FEW_TOKENS:
            tally.output += tokens
            tally.stream_took += took
            self._shifts["speed"].add(new=new, value=tokens / took)


FEW_TOKENS = 20
"""Tokens of a stream below which its pace says nothing."""


def _served_by_its_own(exchange: Exchange) -> bool:
    """Whether a target of its arm answered, and not a fallback."""
    route = exchange.chosen
    if route is None:
        return False
    for target in route.targets:
        if target.provider == exchange.provider and (target.model or exchange.requested_model) == exchange.model:
            return True
    return False


def is_empty(exchange: Exchange) -> bool:
    """A good answer in which nothing is said and nothing is called."""
    usage = exchange.usage
    nothing = usage is not None and (not usage.output or (usage.reasoning and usage.reasoning >= usage.output))
    if nothing and usage is not None and not usage.estimated:
        return True
    if exchange.bytes_out > len(exchange.sample):  # only its beginning is at hand, and reasoning comes first
        return False
    return SAID.search(exchange.sample) is None


def is_refusal(exchange: Exchange) -> bool:
    return exchange.finish_reason.lower() in REFUSALS or REFUSED.search(exchange.sample) is not None


def same_model(route: Route, canary: Canary, requested: str) -> bool:
    """Whether the new place serves the model of all the old ones."""
    wanted = embedding.same(canary.model or requested)
    return all(embedding.same(target.model or requested) == wanted for target in route.targets)


class Canaries:
    """All canaries of a process. Outlives reloads."""

    def __init__(self, store: Store, tell: Callable[[Event], None] | None = None) -> None:
        """*tell* hears of what was rolled back or paused here."""
        self.active: dict[str, Watch] = {}  # by route
        self.rolled_back = self.paused = 0  # since the start, decided here
        self.node = f"{secrets.token_hex(6)}"
        self._store, self._tell = store, tell
        self._known: list[Canary] = []
        self._watches: dict[str, Watch] = {}  # by id
        self._routes: Mapping[str, Sequence[Place]] = {}
        self._providers: frozenset[str] | None = None
        self._endings: dict[str, Verdict] = {}
        self._shadows = Shadows()
        self._seq = -1
        self._decided = time.monotonic()
        self._leads = False
        self._held: dict[tuple[str, int], float] = {}  # seconds that the store does not know of, by id and step

    # the walk's part

    def route(self, exchange: Exchange, route: Route) -> Route:
        """The route to take instead of *route*, which may be the same."""
        watch = self.active.get(route.name)
        return route if watch is None else watch.route(exchange, route)

    def observe(self, exchange: Exchange) -> None:
        """*exchange*, which has an arm, is over."""
        watch = self._watches.get(exchange.canary)
        if watch is not None:
            watch.observe(exchange)

    def mirror(self, exchange: Exchange, serve: Serve) -> None:
        """*exchange*, of which a shadow was wanted, has its answer: send it to the other place as well, if it went well and
        there is money left. Only begins it."""
        watch = self._watches.get(exchange.canary)
        if watch is None or exchange.failure is not None or exchange.chosen is None:
            return
        canary, counts = watch.canary, watch.counts.new
        under_way = self._shadows.under_way(canary.id)
        spent = watch.spent_elsewhere + counts.cost + (under_way + 1) * canaries.mean_cost(counts)
        if canary.spend and (spent > canary.spend or (not counts.priced and under_way)):
            return  # the first one shows what they cost
        self._shadows.begin(copied(exchange, watch.mirrored(exchange.chosen)), serve)

    # the gateway's part

    def reconfigure(self, routes: Mapping[str, Sequence[Place]], providers: Mapping[str, object]) -> None:
        """Another config serves: *routes* by name with their targets. Canaries that no longer fit it end, with the reason."""
        self._routes, self._providers = dict(routes), frozenset(providers)
        self._apply()

    def _misfit(self, canary: Canary) -> Verdict | None:
        """Why *canary* cannot go on with this config; None: it can."""
        if self._providers is None:
            return None
        targets = self._routes.get(canary.route)
        if targets is not None and [(one.provider, one.model) for one in targets] == [(canary.provider, canary.model)]:
            return Verdict("done", "the config has it now")
        if canary.provider not in self._providers:
            return Verdict("stopped", f"the config has no provider {canary.provider!r} any more")
        if canary.configured and targets is None:
            return Verdict("stopped", "the config has no route of this name any more")
        if not canary.configured and targets is not None:
            return Verdict("stopped", "the config has a route of this name now")
        if targets is not None and canaries.places(targets) != canary.before:
            return Verdict("stopped", "the targets of the route have changed in the config")
        return None

    def _apply(self) -> None:
        """Watch what is live and fits the config."""
        active: dict[str, Watch] = {}
        watches: dict[str, Watch] = {}
        for canary in self._known:
            if not canary.live:
                continue
            misfit = self._misfit(canary)
            if misfit is not None:
                self._endings[canary.id] = misfit
                continue
            self._endings.pop(canary.id, None)
            watch = self._watches.get(canary.id)
            if watch is None:
                watch = Watch(canary)
            else:
                watch.follow(canary)
            watches[canary.id] = active[canary.route] = watch
        self._watches, self.active = watches, active

    # its life

    async def load(self) -> None:
        """Read them from the store. Raises StoreError."""
        self._seq = await self._store.last_change()
        self._known = await read(self._store)
        self._apply()

    async def follow(self) -> None:
        """Keep up with the store, write what is counted and decide, until cancelled. A store that is out of reach is said once;
        traffic goes on as it was shared."""
        down = False
        while True:
            try:
                await self.tick()
                down = False
            except Exception as error:  # noqa: BLE001 - a border: with this loop dead nothing would ever be rolled back
                if not down:
                    what = str(error) if isinstance(error, StoreError) else type(error).__name__
                    log.warning("canaries: %s; traffic stays shared as it is", what)
                down = True
            await asyncio.sleep(EVERY)

    async def tick(self) -> None:
        """One turn of `follow`. Raises StoreError."""
        if await self._store.last_change() != self._seq:
            await self.load()
        if self._endings:
            await self._end()
        if not self._watches:
            self._decided = time.monotonic()
            return
        now = time.monotonic()
        for watch in self._watches.values():
            if watch.dirty and now - watch.flushed >= FLUSH:
                await self._flush(watch)
        if now - self._decided >= DECIDE:
            passed, self._decided = now - self._decided, now
            led, self._leads = self._leads, await self._store.lease("canaries", self.node, LEASE)
            if self._leads:
                if not led:
                    await self.load()  # how long the steps have lasted is no news to be told of
                for watch in list(self._watches.values()):
                    await self._decide(watch, passed)

    async def close(self) -> None:
        """Cut the shadows, write what is counted. Never raises: the store may be gone."""
        await self._shadows.close()
        with contextlib.suppress(Exception):
            for watch in self._watches.values():
                if watch.dirty:
                    await self._flush(watch)
                await self._keep_held(watch.canary)
            if self._watches:
                await self._store.lease("canaries", self.node, 0.0)  # the next one need not wait for its end

    async def _flush(self, watch: Watch) -> None:
        canary = watch.canary
        if self.node not in canary.nodes:

            def join(found: Canary) -> bool:
                found.nodes = (*[node for node in found.nodes if node != self.node], self.node)
                return True

            await edit(self._store, canary.id, join, change="canary")  # whoever decides must look there
            canary.nodes = (*canary.nodes, self.node)
        watch.dirty, watch.flushed = False, time.monotonic()
        try:
            await self._store.put(canaries.counts_key(canary.id, self.node), msgspec.json.encode(watch.counts), KEEP)
        except BaseException:
            watch.dirty = True
            raise

    async def _decide(self, watch: Watch, passed: float) -> None:
        canary = watch.canary
        clock = canary.id, canary.step
        counts = await collected(self._store, canary, but=self.node)
        watch.spent_elsewhere = counts.new.cost
        counts.add(watch.counts)
        if canary.status == "running":
            self._held[clock] = self._held.get(clock, 0.0) + passed
        held = self._held.get(clock, 0.0)
        verdict = canaries.judge(canary, counts, canary.held + held)
        if verdict is not None:
            await self._carry_out(canary, verdict, counts)
        elif held >= HELD:
            await self._keep_held(canary)

    async def _keep_held(self, canary: Canary) -> None:
        held = self._held.pop((canary.id, canary.step), 0.0)
        if not held:
            return

        def remember(found: Canary) -> bool:
            found.held += held if found.step == canary.step else 0.0
            return True

        await edit(self._store, canary.id, remember)
        canary.held += held

    async def _carry_out(self, canary: Canary, verdict: Verdict, counts: Counts) -> None:
        """Write *verdict* into the store, unless somebody was quicker."""

        def change(found: Canary) -> bool:
            if (found.status, found.step) != (canary.status, canary.step):
                return False
            follow_through(found, verdict, counts)
            return True

        if not await edit(self._store, canary.id, change, change="canary"):
            return
        self._held.clear()
        self.rolled_back += verdict.what == "rolled_back"
        self.paused += verdict.what == "paused"
        level = logging.WARNING if verdict.what in ("rolled_back", "paused") else logging.INFO
        what = verdict.what.replace("_", " ")
        log.log(level, "canary %s -> %s: %s: %s", canary.route, canary.place, what, verdict.reason)
        if level == logging.WARNING and self._tell is not None:
            subject = f"{canary.route} -> {canary.place}"
            text = f"The canary was {what}: {verdict.reason}"
            self._tell(Event(kind="canary", subject=subject, text=text, at=time.time(), step=f"{canary.id} {verdict.what}"))
        await self.load()

    async def _end(self) -> None:
        for canary_id, verdict in list(self._endings.items()):

            def change(found: Canary, verdict: Verdict = verdict) -> bool:
                if not found.live:
                    return False
                follow_through(found, verdict, None)
                return True

            if await edit(self._store, canary_id, change, change="canary"):
                log.warning("canary %s: %s: %s", canary_id, verdict.what, verdict.reason)
            self._endings.pop(canary_id, None)
        await self.load()


def follow_through(canary: Canary, verdict: Verdict, counts: Counts | None) -> None:
    """Change *canary* as *verdict* says."""
    if verdict.what == "step":
        canary.step += 1
        canary.held = 0.0
        canary.at_step = counts.new.requests if counts is not None else canary.at_step
        canary.reason = ""
        if canary.steps[canary.step] >= 100:
            canary.status, canary.reason = "complete", "all traffic goes there; write it into the config"
    else:
        canary.status, canary.reason, canary.cause = verdict.what, verdict.reason, verdict.cause
    canary.note(time.time(), verdict.what, verdict.reason)


# the document in the store


async def read(store: Store) -> list[Canary]:
    """All canaries, oldest first. Raises StoreError."""
    try:
        return canaries.read(await store.get(canaries.KEY))
    except msgspec.DecodeError as error:
        raise StoreError(
            f"the canaries in the store cannot be read ({error}); were they written by a newer version?"
        ) from error


async def edit(store: Store, canary_id: str, edited: Callable[[Canary], bool], *, change: str = "") -> bool:
    """Have *edited* change the canary of that id, as it stands in the store now; it says False when there is nothing to do.
    Returns whether it was done. With *change* running servers are told. Raises StoreError."""

    def among(found: list[Canary]) -> bool:
        return any(one.id == canary_id and edited(one) for one in found)

    return await edit_all(store, among, change=change)


async def edit_all(store: Store, edited: Callable[[list[Canary]], bool], *, change: str = "canary") -> bool:
    """As `edit`, for the whole list. Whoever came between is read, and the edit made again."""
    for _ in range(50):
        before = await store.get(canaries.KEY)
        found = canaries.read(before)
        if not edited(found):
            return False
        if await store.swap(canaries.KEY, canaries.written(found), expected=before, change=change):
            return True
        await asyncio.sleep(0.01)
    raise StoreError("the canaries are being changed by others all the time; try again")


async def collected(store: Store, canary: Canary, but: str = "") -> Counts:
    """What all processes have counted for *canary*, besides the one that is called *but*. Raises StoreError."""
    total = Counts()
    for node in canary.nodes:
        value = await store.get(canaries.counts_key(canary.id, node)) if node != but else None
        if value is not None:
            with contextlib.suppress(msgspec.DecodeError):  # of another version: its counts are not ours
                total.add(msgspec.json.decode(value, type=Counts))
    return total
