"""Which deployment comes next, and why others do not."""

from __future__ import annotations

import random
import time
from collections import Counter
from typing import Any

import pytest

from aigw.config import schema
from aigw.deployment import Deployment, Route
from aigw.exchange import Exchange
from aigw.routing.conditions import Conditions
from aigw.routing.health import Board
from aigw.routing.selection import Selection, in_words

NOW = 1000.0


def exchange(body: bytes = b"{}", operation: str = "chat", model: str = "asked") -> Exchange:
    return Exchange("req_1", time.time(), operation=operation, requested_model=model, headers={}, body=body)


def deployments(*weights: int, **more: Any) -> tuple[Deployment, ...]:
    return tuple(Deployment(provider="abcdefghij"[index], weight=weight, **more) for index, weight in enumerate(weights))


def order(route: Route, seed: random.Random | None = None, board: Board | None = None, **fields: Any) -> str:
    """The providers in the order to try them."""
    selection = Selection(board or Board(), draw=(seed or random.Random(1)).random)
    return "".join(one.deployment.provider for one in selection.ranked(route, exchange(**fields), NOW) if not one.dropped)


def test_weights_within_three_sigma() -> None:
    """90/10 over 10,000 requests: 3 sigma are 90."""
    route, seed = Route(name="r", targets=deployments(90, 10)), random.Random(5)
    first = Counter(order(route, seed)[0] for _ in range(10_000))
    assert abs(first["a"] - 9000) <= 90


def test_a_failed_targets_share_is_spread_by_weight() -> None:
    """When a (80) fails, b (15) and c (5) get its traffic three to one."""
    route, seed = Route(name="r", targets=deployments(80, 15, 5)), random.Random(7)
    second = Counter(text[1] for text in (order(route, seed) for _ in range(10_000)) if text[0] == "a")
    assert second["b"] / second.total() == pytest.approx(0.75, abs=0.02)


def test_weight_0_gets_nothing_while_others_stand() -> None:
    """But it is tried when they fail, before the fallbacks."""
    route, seed = Route(name="r", targets=deployments(0, 1, 0), fallback=(Deployment(provider="z"),)), random.Random(3)
    assert {order(route, seed) for _ in range(300)} == {"bacz"}


def test_open_circuits_come_last_and_never_not_at_all() -> None:
    """With every circuit open the least bad place is tried anyway."""
    board, route = (
        Board(),
        Route(name="r", targets=deployments(1, 1), fallback=(Deployment(provider="z"),), strategy="priority"),
    )
    fail(board, "a/asked", 5)
    assert order(route, board=board) == "bza"
    fail(board, "b/asked", 3)
    assert order(route, board=board) == "zba"
    fail(board, "z/asked", 4)
    assert order(route, board=board) == "bza"
    found = Selection(board).ranked(route, exchange(), NOW)
    assert in_words(found) == "b: circuit open; z: circuit open; a: circuit open"


def fail(board: Board, name: str, times: int) -> None:
    for _ in range(times):
        board.of(name).failed("provider_error", 0.1, NOW, stream=False)


def test_whoever_may_look_goes_first() -> None:
    """Else nobody would ever see that it is back; while one looks the others go elsewhere."""
    board = Board()
    route = Route(name="r", targets=deployments(1), fallback=(Deployment(provider="z"),))
    fail(board, "a/asked", 3)
    selection = Selection(board)
    later = NOW + 1.1
    assert selection.ranked(route, exchange(), later)[0].deployment.provider == "a"
    board.of("a/asked").began(later)
    assert selection.ranked(route, exchange(), later)[0].deployment.provider == "z"
    assert selection.ranked(route, exchange(), later + 2.1)[0].deployment.provider == "a", "the one who looked hears nothing"


def test_conditions_drop_and_say_why() -> None:
    """A target whose `when` does not hold is not tried at all."""
    when = Conditions().of(schema.When(tools=True))
    route = Route(name="r", targets=(Deployment(provider="t", when=when), Deployment(provider="u")), strategy="priority")
    assert order(route, body=b'{"tools": [{"type": "function"}]}') == "tu"
    assert order(route, body=b'{"tools": []}') == "u"
    found = Selection(Board()).ranked(route, exchange(b"{}"), NOW)
    assert [(one.deployment.provider, one.dropped) for one in found] == [("u", ""), ("t", "when: tools")]


def test_marked_places_are_for_their_purpose_only() -> None:
    """`for = "context"`: nobody else gets there, and what was too long goes nowhere else."""
    long = Deployment(provider="l", purpose="context")
    route = Route(name="r", targets=deployments(1), fallback=(long,))
    selection = Selection(Board())
    assert order(route) == "a"
    assert [one.deployment.provider for one in selection.ranked(route, exchange(), NOW, "context") if not one.dropped] == ["l"]


def test_embeddings_never_change_their_model() -> None:
    """Whoever wrote the route; hosts that put an owner in front of the name mean the same model."""
    targets = (Deployment(provider="a", model="bge-m3"), Deployment(provider="b", model="qwen-max"))
    route = Route(name="r", targets=targets, fallback=(Deployment(provider="c", model="BAAI/bge-m3"),), strategy="priority")
    assert order(route, operation="embeddings") == "ac"
    assert order(route, operation="chat") == "abc"
