"""Which deployment next: the targets of a route by weight, then its fallbacks in the order they were written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import random

from aigw.deployment import Deployment, Route


def candidates(route: Route, draw: Callable[[], float] = random) -> Iterator[Deployment]:
    """Every deployment of *route* once, in the order to try them.

    The first target is drawn by weight; when it fails the next is drawn from the rest, so that a broken target's share is
    spread as the weights say. A weight of 0 gets no traffic of its own but is still tried before the fallbacks.
    """
    targets = route.targets
    if len(targets) == 1:
        yield targets[0]
    else:
        left = list(targets)
        while left:
            at = draw() * sum(target.weight for target in left)
            chosen = left[0] if at <= 0 else left[-1]
            for target in left:
                at -= target.weight
                if at < 0:
                    chosen = target
                    break
            left.remove(chosen)
            yield chosen
    yield from route.fallback
