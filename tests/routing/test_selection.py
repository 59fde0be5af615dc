"""Which deployment next: shares as the weights say, each once, fallbacks last and in order."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, strategies as st

from aigw.deployment import Deployment, Route
from aigw.routing.selection import candidates


def deployments(*weights: int) -> tuple[Deployment, ...]:
    return tuple(Deployment(provider=chr(ord("a") + index), weight=weight) for index, weight in enumerate(weights))


def order(route: Route, seed: random.Random) -> str:
    return "".join(deployment.provider for deployment in candidates(route, seed.random))


def shares(*weights: int, place: int = 0, draws: int = 20_000) -> dict[str, float]:
    """How often each target came at *place*, over seeded draws."""
    route, seed = Route(name="r", targets=deployments(*weights)), random.Random(20261123)
    counted = Counter(order(route, seed)[place] for _ in range(draws))
    return {provider: number / draws for provider, number in counted.items()}


def test_traffic_is_shared_by_weight() -> None:
    """90 to 10 means 90 % to 10 % (within four standard deviations of 20,000 draws: 0.9 %)."""
    assert shares(90, 10) == {"a": pytest.approx(0.9, abs=0.009), "b": pytest.approx(0.1, abs=0.009)}
    assert shares(1, 2, 1) == {
        name: pytest.approx(share, abs=0.015) for name, share in zip("abc", (0.25, 0.5, 0.25), strict=True)
    }


def test_a_failed_targets_share_is_spread_by_weight() -> None:
    """When a (80) is down, b (15) and c (5) get its traffic three to one."""
    route, seed = Route(name="r", targets=deployments(80, 15, 5)), random.Random(7)
    second = Counter(text[1] for text in (order(route, seed) for _ in range(20_000)) if text[0] == "a")
    assert second["b"] / second.total() == pytest.approx(0.75, abs=0.015)


def test_weight_0_gets_nothing_while_others_stand() -> None:
    """But it is tried when they fail, before the fallbacks."""
    route, seed = Route(name="r", targets=deployments(0, 1, 0), fallback=(Deployment(provider="z"),)), random.Random(3)
    orders = Counter(order(route, seed) for _ in range(500))
    assert set(orders) <= {"bacz", "bcaz"}


def test_only_weights_of_0_still_serve() -> None:
    """In the order they were written: a route that an operator turned down is no reason to refuse."""
    assert order(Route(name="r", targets=deployments(0, 0, 0)), random.Random(1)) == "abc"


def test_one_target_draws_no_lot() -> None:
    """The usual route costs nothing."""

    def draw() -> float:
        raise AssertionError("nothing to draw")

    assert list(candidates(Route(name="r", targets=deployments(0)), draw)) == list(deployments(0))


@pytest.mark.parametrize("drawn", [0.0, 0.5, 1.0 - 2**-53])
def test_the_edges_of_the_draw(drawn: float) -> None:
    """The smallest and the largest number that random() gives find a target with weight."""
    first = next(candidates(Route(name="r", targets=deployments(0, 3, 7, 0)), lambda: drawn))
    assert first.weight > 0


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=8), st.integers(0, 3), st.randoms(use_true_random=False))
def test_everyone_once(weights: list[int], fallbacks: int, seed: random.Random) -> None:
    """Each deployment is tried at most once in one exchange, fallbacks after all targets and in their order."""
    fallback = tuple(Deployment(provider=f"f{index}") for index in range(fallbacks))
    targets = deployments(*weights)
    found = list(candidates(Route(name="r", targets=targets, fallback=fallback), seed.random))
    assert sorted(found[: len(targets)], key=lambda one: one.provider) == list(targets)
    assert tuple(found[len(targets) :]) == fallback
