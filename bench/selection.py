"""What choosing costs: the whole selection of a request, in microseconds, with nothing sent.

`python -m bench.selection` prints the best of several rounds for each case. The large case is ten targets with ten keys each,
every condition on every target, and a pick from the pool of the first one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from aigw.config import schema
from aigw.consumer import Caller, Consumer, ConsumerKey
from aigw.deployment import Deployment, ProviderKey, Route
from aigw.exchange import Exchange
from aigw.routing.conditions import Conditions
from aigw.routing.health import Board
from aigw.routing.key_pool import KeyPool
from aigw.routing.selection import Selection
from aigw.routing.strategies import STRATEGIES

ROUNDS, TIMES = 7, 5000

ALL = schema.When(
    consumer="ci-*",
    group="build",
    tags={"team": "core"},
    tools=False,
    images=False,
    audio=False,
    prompt_tokens="<=8000",
    header={"x-tier": "gold"},
    time="00:00-24:00",
)


def exchange() -> Exchange:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "why is the sky blue? " * 10}]}).encode()
    consumer = Consumer(id="c", name="ci-1", group="build", tags='{"team": "core"}')
    caller = Caller(consumer, ConsumerKey(id="k", consumer_id="c", digest=b""))
    headers = {"x-tier": "gold"}
    return Exchange("r", time.time(), operation="chat", requested_model="m", headers=headers, body=body, caller=caller)


def best(work: Callable[[], object]) -> float:
    """Microseconds of one call."""
    rounds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(TIMES):
            work()
        rounds.append((time.perf_counter() - began) / TIMES * 1e6)
    return min(rounds)


def main() -> None:
    conditions, asked = Conditions(), exchange()
    pools = [
        KeyPool([ProviderKey(f"p{place}#{number}", f"secret-{place}-{number}") for number in range(10)]) for place in range(10)
    ]
    for name in STRATEGIES:
        for when in (None, ALL):
            places = tuple(
                Deployment(provider=f"p{place}", model="m", weight=place + 1, when=conditions.of(when)) for place in range(10)
            )
            route = Route(name="m", targets=places, strategy=name)
            selection = Selection(Board())

            def choose(selection: Selection = selection, route: Route = route) -> None:
                now = time.perf_counter()
                first = selection.ranked(route, asked, now)[0]
                pool = pools[int(first.deployment.provider[1:])]
                key = pool.pick(now, (), "m")
                if key is not None:
                    pool.let_go(key)

            told = "all conditions" if when is not None else "no conditions"
            print(f"{name:<16} 10 targets, 10 keys each, {told:<15} {best(choose):6.2f} us")


if __name__ == "__main__":
    main()
