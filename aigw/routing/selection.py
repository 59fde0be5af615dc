"""Which deployment next: the targets of a route that may have a request, as its strategy orders them, then the fallbacks as
they were written; behind all of them those that fail just now, the least bad one first: trying is better than refusing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from random import random
from typing import NamedTuple

import msgspec

from aigw.config import embedding
from aigw.deployment import Condition, Deployment, Route
from aigw.exchange import Exchange
from aigw.routing.conditions import Estimate, Facts, quarter
from aigw.routing.health import Board, Health
from aigw.routing.strategies import STRATEGIES, Moment, Price

ROWS = 1024
"""Names of models whose places are remembered; callers choose names."""


class Candidate(msgspec.Struct, gc=False):
    """A place, and what speaks for and against it. `score`: the lower the earlier, among those of its kind. `dropped` says why
    it is not tried at all, `note` why it comes last."""

    deployment: Deployment
    health: Health
    score: float = 0.0
    dropped: str = ""
    note: str = ""


class _Rows(NamedTuple):
    """A route's places for one name. `forgotten`: how often the board had forgotten healths by then. Of each place the
    number of its conditions among `conditions`, -1: none."""

    route: Route
    forgotten: int
    places: list[tuple[Deployment, Health, int]]
    conditions: list[tuple[Condition, ...]]


class Selection:
    """Orders places. Sends nothing and changes nothing, so that it can be asked what would happen."""

    def __init__(
        self,
        board: Board,
        *,
        estimate: Estimate = quarter,
        price: Price = lambda provider, model: None,
        draw: Callable[[], float] = random,
    ) -> None:
        """*estimate* counts the tokens of a prompt; *price* compares prices; *draw* gives numbers from 0 up to 1."""
        self.board, self.estimate, self.price, self.draw = board, estimate, price, draw
        self._rows: dict[tuple[int, str], _Rows] = {}

    def ranked(self, route: Route, exchange: Exchange, now: float, purpose: str = "") -> list[Candidate]:
        """All places of *route*, in the order to try them; those that are `dropped` at the end. *purpose*: only those that are
        marked for it ("context", "content-filter"). *now*: monotonic seconds."""
        name = exchange.requested_model
        rows = self._rows.get((id(route), name))
        if rows is None or rows.route is not route or rows.forgotten != self.board.forgotten:
            rows = self._looked_up(route, name)
        special = purpose != "" or exchange.operation == "embeddings" or bool(route.purposes)
        verdicts: list[str] | None = None  # of places with the same conditions there is one
        if rows.conditions:
            facts = Facts(exchange, self.estimate)
            if len(rows.conditions) == 1:
                verdicts = [next((f"when: {one.text}" for one in rows.conditions[0] if not one.check(facts)), "")]
            else:
                verdicts = [_unmet(when, facts) for when in rows.conditions]
        kept: list[Candidate] = []
        last: list[Candidate] = []
        dropped: list[Candidate] = []
        boundary = len(route.targets)
        usable, looking = 0, False
        for place, health, conditions in rows.places:
            why = verdicts[conditions] if verdicts is not None and conditions >= 0 else ""
            if special:
                why = self._elsewhere(route, place, exchange, purpose) or why
            if why:
                dropped.append(Candidate(place, health, 0.0, why))
            elif not health.until:
                kept.append(Candidate(place, health))
                usable += boundary > 0
            elif health.allows(now):
                looking = True
                kept.append(Candidate(place, health))
                usable += boundary > 0
            else:
                last.append(Candidate(place, health, health.until, "", "circuit open"))
            boundary -= 1
        if usable > 1:
            self._order(route, exchange, now, kept, usable, looking=looking)
        if last:
            last.sort(key=_least_bad)
            kept += last
        return kept + dropped

    @staticmethod
    def _elsewhere(route: Route, place: Deployment, exchange: Exchange, purpose: str) -> str:
        """Why *place* is not for what is asked, whoever asks."""
        if place.purpose != purpose:
            return f"only for: {place.purpose}" if place.purpose else f"not for: {purpose}"
        if exchange.operation == "embeddings":
            name = exchange.requested_model
            if embedding.same(place.model or name) != embedding.same(route.targets[0].model or name):
                return "embeddings stay with one model"
        return ""

    def _looked_up(self, route: Route, name: str) -> _Rows:
        """The places of *route* for the requested *name*, with their healths; remembered, for a bounded number of names."""
        whens: list[tuple[Condition, ...]] = []
        places = []
        for place in route.places:
            health = self.board.of(place.id if place.model else f"{place.id}/{name}")
            number = -1
            if place.when:
                number = next((at for at, when in enumerate(whens) if when is place.when), len(whens))
                if number == len(whens):
                    whens.append(place.when)
            places.append((place, health, number))
        if len(self._rows) >= ROWS:
            self._rows.clear()
        rows = self._rows[id(route), name] = _Rows(route, self.board.forgotten, places, whens)
        return rows

    def _order(
        self, route: Route, exchange: Exchange, now: float, kept: list[Candidate], usable: int, *, looking: bool
    ) -> None:
        """Put the first *usable* of *kept*, the targets, in the strategy's order."""
        targets = kept[:usable]
        moment = Moment(exchange, now, self.draw, self.price)
        scores = STRATEGIES[route.strategy](moment, [one.deployment for one in targets], [one.health for one in targets])
        for one, score in zip(targets, scores, strict=True):
            one.score = score
        targets.sort(key=_score)
        # whoever may look whether a place is back does it before all others, or nobody ever would
        if looking:
            targets.sort(key=_not_looking)
        kept[:usable] = targets


def _unmet(conditions: tuple[Condition, ...], facts: Facts) -> str:
    """The first condition that does not hold; "" when all do."""
    for condition in conditions:
        if not condition.holds(facts):
            return f"when: {condition.text}"
    return ""


_score = attrgetter("score")


def _least_bad(candidate: Candidate) -> tuple[int, float]:
    return candidate.health.row, candidate.health.until


def _not_looking(candidate: Candidate) -> bool:
    return not candidate.health.until


def in_words(candidates: Sequence[Candidate]) -> str:
    """Why those that come last or not at all do so, for an attempt's detail."""
    return "; ".join(f"{one.deployment.id}: {one.dropped or one.note}" for one in candidates if one.dropped or one.note)
