"""Which deployment next: the targets of a route that may have a request, as its strategy orders them, then the fallbacks as
they were written; behind all of them those that fail just now, the least bad one first: trying is better than refusing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from random import random

import msgspec

from aigw.config import embedding
from aigw.deployment import Deployment, Route
from aigw.exchange import Exchange
from aigw.routing.conditions import Estimate, Facts, quarter
from aigw.routing.health import Board, Health
from aigw.routing.strategies import STRATEGIES, Moment, Price


class Candidate(msgspec.Struct, gc=False):
    """A place, and what speaks for and against it. `score`: the lower the earlier, among those of its kind. `dropped` says why
    it is not tried at all, `note` why it comes last."""

    deployment: Deployment
    health: Health
    score: float = 0.0
    dropped: str = ""
    note: str = ""


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

    def ranked(self, route: Route, exchange: Exchange, now: float, purpose: str = "") -> list[Candidate]:
        """All places of *route*, in the order to try them; those that are `dropped` at the end. *purpose*: only those that are
        marked for it ("context", "content-filter"). *now*: monotonic seconds."""
        facts: Facts | None = None
        anchor = ""
        if exchange.operation == "embeddings":
            anchor = embedding.same(route.targets[0].model or exchange.requested_model)
        kept: list[Candidate] = []
        last: list[Candidate] = []
        dropped: list[Candidate] = []
        known, name = self.board.known, exchange.requested_model
        verdicts: dict[int, str] = {}  # of places with the same conditions there is one
        boundary = len(route.targets)
        usable, looking = 0, False
        for index, place in enumerate(route.places):
            id_ = place.id if place.model else f"{place.id}/{name}"
            health = known.get(id_) or self.board.of(id_)
            why = ""
            if place.purpose != purpose:
                why = f"only for: {place.purpose}" if place.purpose else f"not for: {purpose}"
            elif anchor and embedding.same(place.model or name) != anchor:
                why = "embeddings stay with one model"
            elif place.when:
                verdict = verdicts.get(id(place.when))
                if verdict is None:
                    if facts is None:
                        facts = Facts(exchange, self.estimate)
                    verdict = verdicts[id(place.when)] = _unmet(place, facts)
                why = verdict
            if why:
                dropped.append(Candidate(place, health, 0.0, why))
            elif health.until and not health.allows(now):
                last.append(Candidate(place, health, health.until, "", "circuit open"))
            else:
                looking = looking or health.until > 0
                kept.append(Candidate(place, health))
                usable += index < boundary
        if usable > 1:
            self._order(route, exchange, now, kept, usable, looking=looking)
        if last:
            last.sort(key=_least_bad)
            kept += last
        return kept + dropped

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


def _unmet(place: Deployment, facts: Facts) -> str:
    """The first condition that does not hold; "" when all do."""
    for condition in place.when:
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
