"""From the name a caller asks for to a route.

The first of these that knows the name answers:

1. a route of exactly that name;
2. `provider/model` of a configured provider: the provider's name is cut off, the rest is the model, slashes and all;
3. the most specific pattern route (`config/patterns.py` says which that is);
4. the provider that lists the name: its live models, and `models = [...]` in its table;
5. the provider whose catalog prefix fits, the longest one, whatever the case; of a name like `qwen3:8b` (a local server's way
   to write a tag) the first local provider. Names that only look like a vendor's (`UNOWNED`) fit nobody's prefix.

Two claimants in one step: the first in the config wins.

**Adding a provider (at the end of the config) never moves a name that works.** Steps 2, 4 and 5 look at different things, so
order alone would break that; where they disagree, the provider that stands first keeps the name:
- a name with a slash that an earlier provider lists stays there ("openai/gpt-6" of openrouter when openai comes after it), and
  a provider that lists its own name in front gets it whole ("openrouter/auto");
- a pattern that spells a provider's name out ("openai/*") beats that provider's step 2;
- a prefix of an earlier provider beats a later one's list, unless the earlier one's own list is known and lacks the name.
What is only a guess still gives way: a weak prefix or a tag to a list, a shorter prefix to a longer one, a prefix to a tag; and
a name that begins with the new provider's own name, where nobody lists it and no route spells it out, is the new provider's.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice
from typing import NamedTuple, NoReturn

import msgspec

from aigw.config import patterns, schema
from aigw.config.lines import quoted
from aigw.deployment import Deployment, Hedge, Route, SlowStart
from aigw.errors import CallerError
from aigw.routing.conditions import Conditions

MAX_NAME = patterns.MAX_LENGTH
"""Characters of a model's name. The longest in use, ARNs of Bedrock, have about 150."""
MAX_LISTED = 20_000
"""Models taken from one provider's list; openrouter, the longest, lists some hundreds."""
UNOWNED = ("gpt-oss",)
"""Beginnings under a vendor's prefix that the vendor does not serve: open weights that many hosts have."""

_MEMO = 2048  # names remembered; callers choose them, so there must be an end
_MISSES = 256
_NEAREST = 2000  # names looked at for "did you mean": the index of them is built in about 10 ms
_POSTINGS = 1500  # and counted for one question, all its runs of characters together
# one colon, and a tag that is not a bare number: Bedrock writes versions so ("anthropic.claude-3-v1:0")
_TAGGED = re.compile(r"[^:/]+:(?![0-9]+\Z)[^:/]+\Z")


class Claimant(msgspec.Struct, frozen=True, kw_only=True):
    """What one configured provider says is its own. Plain values: whoever knows the catalog fills them in.

    `prefixes` are beginnings of model names, from its row and from its row's international twin; `weak_prefixes` are those that
    others use as well. `namespaces` are prefixes that are an address and no part of the model's name ("together_ai/"): they are
    cut off; the kind's own ("openai/" for a provider called "work") always is. `local`: it runs on the operator's machines and
    takes names with a tag. `models` are those of the config; live lists come by `Table.set_live`.
    """

    name: str
    kind: str = ""
    prefixes: tuple[str, ...] = ()
    weak_prefixes: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    local: bool = False
    models: tuple[str, ...] = ()


class Named(NamedTuple):
    """A name worth listing. `owner` is the provider it goes to first; `source` as in `Route`."""

    id: str
    owner: str
    source: str


class Shadowed(NamedTuple):
    """A claim that never wins: `claim` of `loser` goes to `winner`. `kind` is "model", "prefix" or "provider/model"."""

    claim: str
    kind: str
    winner: str
    loser: str


class _Pattern(NamedTuple):
    expression: re.Pattern[str]
    head: str
    route: Route


class _Claim(NamedTuple):
    """Somebody's catalog prefix. `cut` characters of the name are an address."""

    place: int  # of the provider in the config
    weak: bool
    cut: int


class Table:
    """All names and their routes. Not thread-safe; made anew for each config."""

    def __init__(
        self,
        routes: Mapping[str, schema.Route],
        providers: Sequence[Claimant],
        *,
        fallback: Sequence[schema.RouteTarget] = (),
        unowned: Iterable[str] = UNOWNED,
    ) -> None:
        """*routes* as in a checked config; *providers* in the config's order; *fallback* are the places behind all
        others. Raises ValueError for a pattern or a condition that cannot be used and for two providers of one name."""
        self._providers = tuple(providers)
        self._local = frozenset(provider.name for provider in self._providers if provider.local)
        conditions = Conditions()
        self._everywhere = tuple(_place(target, conditions) for target in fallback)
        self._exact = {
            name: self._built(name, route, "route", conditions)
            for name, route in routes.items()
            if not patterns.is_pattern(name)
        }
        self._patterns = [
            _Pattern(
                patterns.compiled(name), patterns.literal_head(name), self._built(name, routes[name], "pattern", conditions)
            )
            for name in sorted(filter(patterns.is_pattern, routes), key=patterns.specificity)
        ]
        self._index = {provider.name: index for index, provider in enumerate(self._providers)}
        if len(self._index) < len(self._providers):
            raise ValueError("two providers have the same name")
        self._prefixes: dict[str, list[_Claim]] = {prefix.lower(): [] for prefix in unowned}
        for index, provider in enumerate(self._providers):
            self._claim_prefixes(index, provider)
        self._longest = max(map(len, self._prefixes), default=0)
        self._first_local = next((index for index, provider in enumerate(self._providers) if provider.local), None)
        self._live: list[frozenset[str] | None] = [None] * len(self._providers)  # None: not known
        self._memo: dict[str, Route] = {}
        self._misses: dict[str, str] = {}
        self._listed: dict[str, int] = {}
        self._names: list[Named] | None = None
        self._nearest: _Nearest | None = None
        self._relist()

    def resolve(self, model: str) -> Route:
        """The route for the requested name *model*. Raises CallerError (caller_model_not_found) with the nearest names."""
        route = self._memo.get(model)
        return route if route is not None else self._look_up(model)

    def set_live(self, provider: str, models: Iterable[str]) -> None:
        """*provider* says that it has *models*. An empty list says nothing: it counts as not known. Names that no caller could
        ask for are left out, and so is what exceeds MAX_LISTED. Raises KeyError for a provider that is not in the table."""
        index = self._index[provider]
        names = frozenset(islice(filter(_is_name, models), MAX_LISTED))
        if self._live[index] != (names or None):
            self._live[index] = names or None
            self._relist()

    def names(self) -> list[Named]:
        """What can be asked for by name: exact routes, then the models that providers list, in the config's order, each once.
        What patterns and prefixes would take besides is without end and not listed."""
        if self._names is None:
            ids = dict.fromkeys(chain(self._exact, *map(self._listing, range(len(self._providers)))))
            self._names = [
                Named(name, route.targets[0].provider, route.source) for name in ids if (route := self._find(name)) is not None
            ]
        return list(self._names)

    def prefixes(self) -> list[Named]:
        """Beginnings of names that the catalog gives to somebody, as globs ("gpt-*"), in the config's order."""
        first = [(prefix, claims[0]) for prefix, claims in self._prefixes.items() if claims]
        first.sort(key=lambda item: item[1].place)
        return [Named(f"{prefix}*", self._providers[claim.place].name, "catalog") for prefix, claim in first if not claim.cut]

    def shadowed(self) -> list[Shadowed]:
        """Claims of providers that lost to another provider: models that both list, prefixes that both have, and names with a
        slash that one lists and the other's name begins. What a route takes was written so and is not reported."""
        lost: list[Shadowed] = []
        for index, provider in enumerate(self._providers):
            for model in self._listing(index):
                route = self._find(model)
                if route is None or route.source in ("route", "pattern"):
                    continue
                winner = route.targets[0].provider
                if winner != provider.name:
                    lost.append(Shadowed(model, "model", winner, provider.name))
                elif (named := self._named(model)) is not None and named != index:
                    lost.append(Shadowed(model, "provider/model", winner, self._providers[named].name))
        for prefix, claims in self._prefixes.items():
            lost += [
                Shadowed(f"{prefix}*", "prefix", self._providers[claims[0].place].name, self._providers[claim.place].name)
                for claim in claims[1:]
                if not claim.cut  # an address: its provider has a better one, its own name
            ]
        return lost

    # --- finding ---

    def _look_up(self, model: str) -> Route:
        route = self._find(model) if _is_name(model) else None
        if route is None:
            self._refuse(model)
        if len(self._memo) >= _MEMO:  # a flood of made-up names that a pattern takes: start over, names in use are back at once
            self._memo.clear()
        self._memo[model] = route
        return route

    def _find(self, model: str) -> Route | None:
        route = self._exact.get(model)
        if route is not None:
            return route
        holder = self._listed.get(model)
        named = self._named(model)
        if named is not None and (holder is None or holder >= named):
            head, _, rest = model.partition("/")
            for pattern in self._patterns:
                if pattern.head.startswith(f"{head}/") and pattern.expression.search(model):
                    return pattern.route
            return self._single(model, head, None if holder == named else rest, "provider/model")
        for pattern in self._patterns:
            if pattern.expression.search(model):
                return pattern.route
        # A list beats whoever comes after it, so what they claim decides nothing: not even between the list and those before.
        claim = self._claim(model, len(self._providers) if holder is None else holder)
        if holder is not None and (claim is None or claim.weak or claim.place == holder or self._lacks(claim.place, model)):
            return self._single(model, self._providers[holder].name, None, "live")
        if claim is None:
            return None
        return self._single(model, self._providers[claim.place].name, model[claim.cut :] if claim.cut else None, "catalog")

    def _named(self, model: str) -> int | None:
        """The provider whose name stands before the first slash of *model*."""
        head, _, rest = model.partition("/")
        return self._index.get(head) if rest else None

    def _claim(self, model: str, last: int) -> _Claim | None:
        """Who has *model* by the catalog, of the providers up to place *last*."""
        folded = model.lower()
        claims: list[_Claim] = []
        prefix = ""
        for end in range(min(len(folded), self._longest), 0, -1):
            prefix = folded[:end]
            found = self._prefixes.get(prefix)
            if found is not None and (not found or any(claim.place <= last for claim in found)):
                claims = [claim for claim in found if claim.cut < len(model) and claim.place <= last]
                break
        else:
            prefix = ""
        if self._first_local is not None and self._first_local <= last and ":" not in prefix and _TAGGED.match(model):
            return _Claim(self._first_local, weak=True, cut=0)
        return claims[0] if claims else None

    def _lacks(self, index: int, model: str) -> bool:
        live = self._live[index]
        return live is not None and model not in live

    # --- building ---

    def _built(self, name: str, route: schema.Route, source: str, conditions: Conditions) -> Route:
        targets = tuple(_place(target, conditions) for target in route.targets)
        own = tuple(_place(target, conditions) for target in route.fallback)
        return Route(
            name=name,
            targets=targets,
            fallback=(*own, *self._behind((*targets, *own))) if route.global_fallback else own,
            strategy=route.strategy,
            source=source,
            retries=route.retries,
            response_model=route.response_model,
            connect_timeout=route.connect_timeout,
            first_byte_timeout=route.first_byte_timeout,
            stream_idle_timeout=route.stream_idle_timeout,
            timeout=route.timeout,
            hedge=_hedge(route.hedge),
            slow_start=_slow_start(route.slow_start),
        )

    def _single(self, model: str, provider: str, upstream_model: str | None, source: str) -> Route:
        targets = (Deployment(provider=provider, model=upstream_model),)
        return Route(name=model, targets=targets, fallback=self._behind(targets), source=source)

    def _behind(self, places: Sequence[Deployment]) -> tuple[Deployment, ...]:
        """The places of [fallback] that are not among *places*. What runs on the operator's machines stays there: from local
        to elsewhere only when a route says so itself."""
        if not self._everywhere:
            return ()
        known = {place.id for place in places}
        stays = any(place.provider in self._local for place in places)
        return tuple(
            place for place in self._everywhere if place.id not in known and not (stays and place.provider not in self._local)
        )

    def _claim_prefixes(self, index: int, provider: Claimant) -> None:
        own: dict[str, _Claim] = {prefix.lower(): _Claim(index, weak=True, cut=0) for prefix in provider.weak_prefixes}
        own |= {prefix.lower(): _Claim(index, weak=False, cut=0) for prefix in provider.prefixes}
        spaces = (*provider.namespaces, f"{provider.kind}/") if provider.kind else provider.namespaces
        own |= {prefix.lower(): _Claim(index, weak=False, cut=len(prefix)) for prefix in spaces}
        for prefix, claim in own.items():
            if prefix:
                self._prefixes.setdefault(prefix, []).append(claim)

    def _listing(self, index: int) -> list[str]:
        """What the provider says it has, its own order first, live names sorted."""
        return [*self._providers[index].models, *sorted(self._live[index] or ())]

    def _relist(self) -> None:
        """Who lists what has changed: forget all that followed from it."""
        self._listed = {}
        for index, provider in enumerate(self._providers):
            for name in self._listing(index):
                self._listed.setdefault(name, index)
                if provider.local and name.endswith(":latest"):  # local servers know it without the tag as well
                    self._listed.setdefault(name.removesuffix(":latest"), index)
        self._memo.clear()
        self._misses.clear()
        self._names = None
        self._nearest = None

    # --- refusing ---

    def _refuse(self, model: str) -> NoReturn:
        message = self._misses.get(model) if len(model) <= MAX_NAME else None
        if message is None:
            message = self._complaint(model)
            if len(model) <= MAX_NAME:
                if len(self._misses) >= _MISSES:
                    self._misses.clear()
                self._misses[model] = message
        raise CallerError("caller_model_not_found", message, param="model")

    def _complaint(self, model: str) -> str:
        if not model:
            return "the model's name is empty; GET /v1/models lists what can be asked for"
        if not self._exact and not self._patterns and not self._providers:
            return f"no model {quoted(model)}: no provider is configured yet"
        near: list[str] = []
        if _is_name(model):
            self._nearest = self._nearest or _Nearest(islice(chain(self._exact, self._listed), _NEAREST))
            near = self._nearest.to(model)
        hint = f"did you mean {' or '.join(map(quoted, near))}?" if near else "GET /v1/models lists what can be asked for"
        return f"no route or provider has a model {quoted(model)}; {hint}"


class _Nearest:
    """Finds names like a given one, quickly: callers decide how often. Compares in full only those that share the most runs of
    three characters."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = list(names)
        self._places: dict[str, list[int]] = {}
        for place, name in enumerate(self._names):
            for run in _runs(name):
                self._places.setdefault(run, []).append(place)

    def to(self, name: str) -> list[str]:
        """At most three, nearest first."""
        shared: Counter[int] = Counter()
        looked_at = 0
        # rare runs tell most; the common ones ("-in" of instruct) would cost milliseconds
        for places in sorted((self._places[run] for run in _runs(name[:128]) if run in self._places), key=len):
            if looked_at and looked_at + len(places) > _POSTINGS:
                break
            looked_at += len(places)
            shared.update(places)
        best = sorted(shared, key=lambda place: (shared[place] / (len(self._names[place]) + len(name)), -place), reverse=True)[
            :8
        ]
        matcher = difflib.SequenceMatcher(None, b=name.lower()[:128])
        scored: list[tuple[float, int]] = []
        for place in best:
            matcher.set_seq1(self._names[place].lower())
            scored.append((matcher.ratio(), -place))
        return [self._names[-place] for ratio, place in sorted(scored, reverse=True)[:3] if ratio >= 0.6]


def _runs(name: str) -> set[str]:
    padded = f"  {name.lower()} "  # the beginning weighs more than the end
    return {padded[at : at + 3] for at in range(len(padded) - 2)}


def _is_name(name: str) -> bool:
    return 0 < len(name) <= MAX_NAME and name.isprintable()


def _place(target: schema.RouteTarget, conditions: Conditions) -> Deployment:
    return Deployment(
        provider=target.provider,
        model=target.model,
        weight=target.weight,
        when=conditions.of(target.when),
        purpose=target.purpose or "",
        params=tuple(target.params.items()),
        connect_timeout=target.connect_timeout,
        first_byte_timeout=target.first_byte_timeout,
        stream_idle_timeout=target.stream_idle_timeout,
        timeout=target.timeout,
    )


def _slow_start(asked: schema.SlowStart | None) -> SlowStart | None:
    return None if asked is None else SlowStart(tokens_per_second=asked.tokens_per_second, seconds=asked.seconds)


def _hedge(hedge: schema.Hedge | None) -> Hedge | None:
    if hedge is None:
        return None
    return Hedge(after=None if hedge.after == "p95" else float(hedge.after), extra=hedge.extra)
