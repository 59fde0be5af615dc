"""Which target first: every strategy is a score, the lower the earlier.

weighted         by lot, each as often as its weight says
least-busy       fewest requests under way, by weight
lowest-latency   soonest to begin, and least to do (peak-EWMA), of two that are drawn; the others behind them
cheapest         the lower price; unknown prices last
prefix-affinity  the same conversation at the same target (rendezvous hashing), so that its prompt cache is of use
priority         as written
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from math import inf, log
from random import random
from typing import NamedTuple

from aigw.deployment import Deployment
from aigw.exchange import Exchange
from aigw.routing.conversation import conversation
from aigw.routing.health import Health

Price = Callable[[str, str], float | None]
"""What *provider* and *model* cost, in any unit that can be compared; None: nobody knows."""

_MASK = 2**64 - 1
_IDS = 4096


class Moment(NamedTuple):
    """What a score may depend on besides the target."""

    exchange: Exchange
    now: float
    draw: Callable[[], float] = random
    price: Price = lambda provider, model: None


Score = Callable[[Moment, Sequence[Deployment], Sequence[Health]], list[float]]


def weighted(moment: Moment, targets: Sequence[Deployment], healths: Sequence[Health]) -> list[float]:
    """Exponential clocks: the first to ring is each as often as its weight says, and so is the next of the rest
    (Efraimidis and Spirakis, 2006). A weight of 0 never rings before the others."""
    draw = moment.draw
    return [-log(1.0 - draw()) / target.weight if target.weight > 0 else inf for target in targets]


def least_busy(moment: Moment, targets: Sequence[Deployment], healths: Sequence[Health]) -> list[float]:
    """Ties by lot: in a quiet hour all are equally idle."""
    draw = moment.draw
    return [
        (health.in_flight + 1e-3 * draw()) / target.weight if target.weight > 0 else inf
        for target, health in zip(targets, healths, strict=True)
    ]


def lowest_latency(moment: Moment, targets: Sequence[Deployment], healths: Sequence[Health]) -> list[float]:
    """Of two drawn by lot the better one: the best of all would be everybody's, and drown. A target of which nothing is known
    is tried. The rest come behind the two, best first."""
    now, draw, stream = moment.now, moment.draw, moment.exchange.stream
    loads = [health.load(now, stream=stream) for health in healths]
    count = len(loads)
    if count > 2:
        first = int(draw() * count)
        second = (first + 1 + int(draw() * (count - 1))) % count
        loads = [load if index in (first, second) else load + 1e6 for index, load in enumerate(loads)]
    return [load if target.weight > 0 else inf for load, target in zip(loads, targets, strict=True)]


def cheapest(moment: Moment, targets: Sequence[Deployment], healths: Sequence[Health]) -> list[float]:
    name, price = moment.exchange.requested_model, moment.price
    costs = [price(target.provider, target.model or name) for target in targets]
    return [1e18 if cost is None else cost for cost in costs]


def prefix_affinity(moment: Moment, targets: Sequence[Deployment], healths: Sequence[Health]) -> list[float]:
    """When a target goes away only its own conversations move; weights are respected. Without a conversation: by lot."""
    key = affinity(moment.exchange)
    if not key:
        return weighted(moment, targets, healths)
    seed = int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big")
    name = moment.exchange.requested_model
    scores = []
    for target in targets:
        mixed = seed ^ _number(target.id if target.model else f"{target.id}/{name}")
        mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 & _MASK  # splitmix64's finish
        mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB & _MASK
        share = ((mixed ^ (mixed >> 31)) + 1) / (2**64 + 1)
        scores.append(-log(share) / target.weight if target.weight > 0 else inf)
    return scores


def priority(moment: Moment, targets: Sequence[Deployment], healths: Sequence[Health]) -> list[float]:
    return [float(index) for index in range(len(targets))]


STRATEGIES: dict[str, Score] = {
    "weighted": weighted,
    "least-busy": least_busy,
    "lowest-latency": lowest_latency,
    "cheapest": cheapest,
    "prefix-affinity": prefix_affinity,
    "priority": priority,
}


def affinity(exchange: Exchange) -> str:
    """Whose conversation this is: the consumer, and what all its turns begin with. "" when nothing tells."""
    prefix = conversation(exchange.body)
    if not prefix:
        return ""
    return f"{exchange.caller.consumer.id if exchange.caller is not None else ''}/{prefix.hex()}"


_numbers: dict[str, int] = {}


def _number(name: str) -> int:
    """The same in every process and after every restart, as `hash` is not."""
    number = _numbers.get(name)
    if number is None:
        if len(_numbers) >= _IDS:
            _numbers.clear()
        number = _numbers[name] = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")
    return number
