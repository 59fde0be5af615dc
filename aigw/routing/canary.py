"""A canary: a share of a route's traffic goes to another place, is compared with the rest, and grows, waits or goes back.

Here is what is decided, without a clock or a store of its own: who belongs to which arm (`Canary.picks`), what is counted of
each (`Counts`), and what follows from the counts (`judge`). `aigw/routing/canaries.py` runs it in a server.

The arms are called "old" (the route as the config has it) and "new"; what a shadow mirrors is the arm "shadow". Failures are
the provider's and empty answers, never the caller's; an arm that had to be replaced by a fallback has failed, although its
caller got an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from math import log
from typing import NamedTuple, Protocol

import msgspec

from aigw.deployment import Deployment, Route
from aigw.routing.sequential import Logs, lower, merge as merge_logs, strength, upper
from aigw.storage import histogram

OLD, NEW, SHADOW = "old", "new", "shadow"

LIVE = ("running", "paused", "complete")
"""States in which traffic goes to the new place. Ended: rolled_back, aborted, stopped (the config no longer fits), done (the
config has it now), spent (a shadow's money)."""

REASONS = ("errors", "empty", "latency", "cost", "refusals", "rejections")
"""What may speak against the new arm. The first two always roll back, the others pause, unless `--rollback-on` names them."""

RATES = {"errors": "errors", "empty": "empty answers", "refusals": "refusals", "rejections": "rejected requests"}
SHIFTS = {
    "first_token": ("latency", "the median time to the first token"),
    "whole": ("latency", "the median time of whole answers"),
    "speed": ("latency", "the median of tokens per second"),
    "cost": ("cost", "the median cost of a request"),
}
"""Measures whose median is compared: the reason each belongs to, and its name."""

SLOWER = 1.5
"""Times the old arm's median at which time or money become a reason to pause: models differ by nature."""

ALPHA = 0.003
"""Chance, for each measure, that a new arm which is no worse is ever held to be so. Errors and empty answers are two."""

THRESHOLD = -log(ALPHA)

BOUND_ALPHA = 0.05
"""Chance, for each arm, that its failure rate ever leaves the bounds on which a step is taken."""

TOLERANCE = 0.01
"""Difference of two rates, and `FAILURES` the failures, below which nothing follows however certain it is: of a million
requests a difference of a millionth is certain, and one bad request that was sent twice is no sign of anything."""

FAILURES = 3


class Event(msgspec.Struct, frozen=True):
    """Something that happened to a canary. `at` is seconds since the epoch, for people."""

    at: float
    what: str  # a state, or "step"
    detail: str = ""


class Canary(msgspec.Struct, kw_only=True):
    """One canary as the store keeps it: what was asked for, and how far it is. Shares are percent, spans seconds."""

    id: str
    route: str  # the name in the config, or the model's where no route is written
    provider: str
    model: str | None = None  # None: the requested name
    before: tuple[str, ...] = ()  # the places of the route when it began; it ends when they change
    configured: bool = True  # the config has a route of that name
    steps: tuple[float, ...] = (1.0, 5.0, 25.0, 50.0, 100.0)
    every: float = 1800.0
    sticky: str = "consumer"  # or "conversation", "header:NAME"
    min_samples: int = 200  # requests of the new arm before the next step
    rollback_on: tuple[str, ...] = ("errors", "empty")
    margin: float = 5.0  # points: a step is taken when the new arm surely fails no more often than the old one, and this
    shadow: float = 0.0  # share that is mirrored; 0: no shadow
    spend: int = 0  # nano-units that a shadow may cost
    currency: str = "USD"
    status: str = "running"
    reason: str = ""  # of the status, in words
    cause: str = ""  # one of REASONS, when that was it
    step: int = 0
    at_step: int = 0  # requests of the new arm when the step began
    held: float = 0.0  # seconds of this step that have passed while a server ran, by clocks that do not jump
    accepted: tuple[str, ...] = ()  # reasons that it was resumed in spite of
    started: float = 0.0  # seconds since the epoch, for people; nothing waits for it
    nodes: tuple[str, ...] = ()  # processes that count for it
    history: tuple[Event, ...] = ()

    @property
    def live(self) -> bool:
        return self.status in LIVE

    @property
    def place(self) -> str:
        return Deployment(provider=self.provider, model=self.model).id

    @property
    def share(self) -> float:
        """Of the traffic that goes to the new place, between 0 and 1."""
        return 0.0 if self.shadow or not self.live else self.steps[self.step] / 100

    @property
    def arm(self) -> str:
        """The name of its own arm."""
        return SHADOW if self.shadow else NEW

    def picks(self, key: bytes) -> bool:
        """Whether whoever has *key* belongs to the new arm. Each has a place between 0 and 1 for the canary's whole life, and
        is in when the share reaches it: a share that grows moves only who is added."""
        return point(self.id, key) < self.share

    def note(self, at: float, what: str, detail: str = "") -> None:
        """Put it into the history, of which the last fifty are kept."""
        self.history = (*self.history, Event(at, what, detail))[-50:]


def point(canary_id: str, key: bytes) -> float:
    """The place of *key* between 0 and 1, another one for each canary."""
    digest = blake2b(key, key=canary_id.encode()[:64], digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def moved(route: Route, canary: Canary) -> Route:
    """The route of the new arm: its place first, and what there was before as fallbacks, so that no caller pays for a trial."""
    place = Deployment(provider=canary.provider, model=canary.model)
    rest = [one for one in (*route.targets, *route.fallback) if (one.provider, one.model) != (place.provider, place.model)]
    return msgspec.structs.replace(route, targets=(place,), fallback=tuple(rest))


class Tally(msgspec.Struct):
    """What is counted of one arm. Money is nano-units, times are histograms of microseconds."""

    requests: int = 0
    errors: int = 0
    empty: int = 0
    refusals: int = 0
    rejections: int = 0
    priced: int = 0
    unpriced: int = 0
    cost: int = 0
    output: int = 0  # of streams, with `stream_took` from their first token to their end
    stream_took: int = 0
    first_token: histogram.Histogram = {}
    whole: histogram.Histogram = {}

    def add(self, other: Tally) -> None:
        for name in (
            "requests",
            "errors",
            "empty",
            "refusals",
            "rejections",
            "priced",
            "unpriced",
            "cost",
            "output",
            "stream_took",
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        histogram.merge(self.first_token, other.first_token)
        histogram.merge(self.whole, other.whole)

    def rate(self, reason: str) -> float:
        number: int = getattr(self, reason)
        return number / self.requests if self.requests else 0.0

    @property
    def failed(self) -> int:
        """Never more than there were requests: what failed had no answer to be empty."""
        return self.errors + self.empty


class Counts(msgspec.Struct):
    """What one process has counted for a canary, or several together. `logs` is the evidence, by measure."""

    old: Tally = msgspec.field(default_factory=Tally)
    new: Tally = msgspec.field(default_factory=Tally)
    logs: dict[str, Logs] = {}

    def add(self, other: Counts) -> None:
        self.old.add(other.old)
        self.new.add(other.new)
        for measure, logs in other.logs.items():
            merge_logs(self.logs.setdefault(measure, {}), logs)


class Verdict(NamedTuple):
    """What should become of a canary: `what` is "step" or a new status."""

    what: str
    reason: str
    cause: str = ""  # one of REASONS


def judge(canary: Canary, counts: Counts, held: float) -> Verdict | None:
    """What follows from *counts*, when its step has lasted *held* seconds; None: nothing yet."""
    if canary.shadow and canary.spend and counts.new.cost >= canary.spend:
        return Verdict("spent", f"its mirrored requests have cost {money(counts.new.cost, canary.currency)}")
    if canary.shadow and canary.spend and counts.new.unpriced:
        return Verdict("stopped", f"what its requests cost is not known in {canary.currency}, so the cap could not hold")
    if canary.status not in ("running", "paused"):
        return None
    against = _against(canary, counts)
    for cause, why in against.items():
        if cause in canary.rollback_on:
            return Verdict("rolled_back", why, cause)
    if canary.status == "paused" or canary.shadow:
        return None
    for cause, why in against.items():
        if cause not in canary.accepted:
            return Verdict("paused", why, cause)
    if canary.step + 1 >= len(canary.steps) or waits_for(canary, counts, held):
        return None
    share = canary.steps[canary.step + 1]
    return Verdict("step", f"{canary.steps[canary.step]:g} % -> {share:g} %")


def waits_for(canary: Canary, counts: Counts, held: float) -> list[str]:
    """What the next step still waits for, in words; nothing: it may be taken."""
    waits = []
    samples = counts.new.requests - canary.at_step
    if samples < canary.min_samples:
        waits.append(f"{canary.min_samples - samples} more requests")
    if held < canary.every:
        waits.append(f"{span(canary.every - held)} more")
    worse = 100 * surely_worse_by(counts)
    if worse > canary.margin:
        waits.append(f"more certainty (it may fail {worse:.1f} points more often; {canary.margin:g} are allowed)")
    return waits


def surely_worse_by(counts: Counts) -> float:
    """The most by which the new arm's rate of failures may be above the old one's: between 0 and 1, at a confidence that holds
    at all times together."""
    most = upper(counts.new.requests, counts.new.failed, BOUND_ALPHA)
    return max(0.0, most - lower(counts.old.requests, counts.old.failed, BOUND_ALPHA))


def _against(canary: Canary, counts: Counts) -> dict[str, str]:
    """What is certain to be worse: reason -> words, in the order of REASONS."""
    found: dict[str, str] = {}
    steps = len(canary.steps)
    for reason, name in RATES.items():
        if strength(counts.logs.get(reason, {}), steps) < THRESHOLD:
            continue
        new, old = counts.new.rate(reason), counts.old.rate(reason)
        if new - old >= TOLERANCE and getattr(counts.new, reason) >= FAILURES:
            arms = (new, counts.new.requests), (old, counts.old.requests)
            found[reason] = f"{name}: " + ", against ".join(f"{100 * rate:.1f} % of {number:,}" for rate, number in arms)
    for measure, (reason, name) in SHIFTS.items():
        if reason not in found and strength(counts.logs.get(measure, {}), steps) >= THRESHOLD:
            found[reason] = (
                f"{reason}: {name} is {'less than two thirds of' if measure == 'speed' else 'more than 1.5 times'} the old one"
            )
            if shown := _medians(measure, counts, canary.currency):
                found[reason] += f" ({shown})"
    return {reason: found[reason] for reason in REASONS if reason in found}


def _medians(measure: str, counts: Counts, currency: str) -> str:
    if measure in ("first_token", "whole"):
        pair = [histogram.percentile(getattr(tally, measure), 0.5) for tally in (counts.new, counts.old)]
        return " against ".join(milliseconds(one) for one in pair if one is not None) if None not in pair else ""
    if measure == "cost":
        return " against ".join(money(mean_cost(tally), currency) for tally in (counts.new, counts.old)) + " on average"
    return " against ".join(f"{speed(tally):.0f}" for tally in (counts.new, counts.old)) + " on average"


def mean_cost(tally: Tally) -> float:
    return tally.cost / tally.priced if tally.priced else 0.0


def speed(tally: Tally) -> float:
    """Tokens per second of its streams."""
    return tally.output * 1e6 / tally.stream_took if tally.stream_took else 0.0


# words


def milliseconds(micro: float) -> str:
    return f"{micro / 1e6:.3g} s" if micro >= 1e6 else f"{micro / 1e3:.3g} ms"


def money(nano: float, currency: str) -> str:
    return f"{nano / 1e9:.4g} {currency}"


def span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


# the document

KEY = "canaries"
"""Where the store keeps them all, as one JSON list: there are few, and one value can be replaced as a whole or not at all."""

KEPT = 30
"""Canaries that are kept after their end."""


def read(value: bytes | None) -> list[Canary]:
    """The canaries of what stands in the store. Raises msgspec.DecodeError."""
    return [] if not value else msgspec.json.decode(value, type=list[Canary])


def written(canaries: list[Canary]) -> bytes:
    ended = [one for one in canaries if not one.live]
    forgotten = {id(one) for one in ended[:-KEPT]}
    return msgspec.json.encode([one for one in canaries if id(one) not in forgotten])


def counts_key(canary_id: str, node: str) -> str:
    """Where one process keeps what it has counted."""
    return f"canary/{canary_id}/{node}"


class Place(Protocol):
    """A target of a route, as the config or the table has it."""

    @property
    def provider(self) -> str: ...

    @property
    def model(self) -> str | None: ...

    @property
    def weight(self) -> int: ...


def places(targets: Sequence[Place]) -> tuple[str, ...]:
    """What makes two routes the same for a canary."""
    return tuple(f"{one.provider}/{one.model or ''} {one.weight}" for one in targets)
