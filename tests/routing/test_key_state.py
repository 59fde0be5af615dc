"""What is known of one key."""

from __future__ import annotations

from aigw.deployment import Allowance, ProviderKey
from aigw.routing.key_state import MOST_MODELS, KeyState, Left


def test_the_tighter_limit_counts() -> None:
    """Requests or tokens, whichever is nearer its end, until that one is back."""
    left = Left(Allowance(50, 100, 5.0, 1000, 100_000, 60.0), 10.0)
    assert (left.share, left.until, left.spent) == (0.01, 70.0, False)
    left = Left(Allowance(requests=1, requests_limit=10), 10.0)
    left.take()
    assert (left.share, left.spent) == (0.0, True)


def test_models_do_not_pile_up() -> None:
    """Callers choose names."""
    state = KeyState()
    for number in range(3 * MOST_MODELS):
        state.remember(f"m{number}", Allowance(1, 2), 0.0)
    assert len(state.limits) == MOST_MODELS


def test_a_new_weight_keeps_what_is_under_way() -> None:
    """A reload changes the share, not the count."""
    state = KeyState()
    state.in_flight = 3
    state.configure(ProviderKey("a", "b", weight=3, rpm=5), 7.0, {})
    assert state.score == 3 * state.unit + 7.0
    window = state.requests
    assert window is not None
    window.add(2, 1.0)
    state.configure(ProviderKey("a", "b", rpm=9), 7.0, {})
    assert state.requests is window
    assert window.left(1.0) == 7
