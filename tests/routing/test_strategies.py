"""Each strategy's order."""

from __future__ import annotations

import json
import random
import time
from collections import Counter

import pytest

from aigw.deployment import Deployment, Route
from aigw.exchange import Exchange
from aigw.routing.health import Board
from aigw.routing.selection import Selection
from aigw.routing.strategies import affinity

NOW = 50.0


def talk(first: str, *more: str, stream: bool = False) -> Exchange:
    messages = [{"role": "user", "content": text} for text in (first, *more)]
    body = json.dumps({"model": "m", "messages": messages}).encode()
    return Exchange("req_1", time.time(), operation="chat", requested_model="m", headers={}, body=body, stream=stream)


def route(strategy: str, *weights: int) -> Route:
    targets = tuple(Deployment(provider="abcdefghij"[index], weight=weight) for index, weight in enumerate(weights))
    return Route(name="r", targets=targets, strategy=strategy)


def first(selection: Selection, one: Route, exchange: Exchange) -> str:
    return selection.ranked(one, exchange, NOW)[0].deployment.provider


def test_least_busy_by_weight() -> None:
    """Who has least under way, for its weight."""
    board = Board()
    selection = Selection(board, draw=random.Random(1).random)
    for _ in range(4):
        board.of("a/m").began(NOW)
    for _ in range(3):
        board.of("b/m").began(NOW)
    assert first(selection, route("least-busy", 1, 1), talk("hi")) == "b"
    assert first(selection, route("least-busy", 2, 1), talk("hi")) == "a"


def test_lowest_latency_draws_two() -> None:
    """The slowest of three is never first, and the quickest is not everybody's."""
    board = Board()
    for name, seconds in (("a/m", 0.1), ("b/m", 0.2), ("c/m", 5.0)):
        board.of(name).succeeded(seconds, NOW, stream=True)
    selection = Selection(board, draw=random.Random(2).random)
    found = Counter(first(selection, route("lowest-latency", 1, 1, 1), talk("hi", stream=True)) for _ in range(3000))
    assert set(found) == {"a", "b"}
    assert found["a"] / 3000 == pytest.approx(2 / 3, abs=0.04)


def test_cheapest_and_unknown_prices_last() -> None:
    """Unknown is not free."""
    prices = {"a": None, "b": 3.0, "c": 2.0}
    selection = Selection(Board(), price=lambda provider, model: prices[provider])
    found = selection.ranked(route("cheapest", 1, 1, 1), talk("hi"), NOW)
    assert [one.deployment.provider for one in found] == ["c", "b", "a"]


def test_priority_is_the_order_of_the_file() -> None:
    """Weights do not matter."""
    found = Selection(Board()).ranked(route("priority", 1, 99, 5), talk("hi"), NOW)
    assert [one.deployment.provider for one in found] == ["a", "b", "c"]


def test_a_conversation_stays_where_it_began() -> None:
    """All its turns go to one target; other conversations are spread by weight; one that goes away moves only its own."""
    selection = Selection(Board())
    one = route("prefix-affinity", 1, 1, 2)
    home = {f"talk {number}": first(selection, one, talk(f"talk {number}")) for number in range(2000)}
    for name, place in list(home.items())[:50]:
        assert first(selection, one, talk(name, "and then?", "and then?")) == place
    assert Counter(home.values())["c"] / 2000 == pytest.approx(0.5, abs=0.05)
    without = Route(name="r", targets=one.targets[1:], strategy="prefix-affinity")
    moved = [name for name, place in home.items() if first(selection, without, talk(name)) != place]
    assert {home[name] for name in moved} == {"a"}


def test_no_conversation_no_affinity() -> None:
    """What cannot be told apart is spread by lot."""
    exchange = Exchange("req_1", time.time(), operation="chat", requested_model="m", headers={}, body=b"{}")
    assert affinity(exchange) == ""
    selection = Selection(Board(), draw=random.Random(4).random)
    assert len({first(selection, route("prefix-affinity", 1, 1), exchange) for _ in range(50)}) == 2
