"""A sliding minute."""

from __future__ import annotations

from hypothesis import given, strategies as st

from aigw.routing.window import SPAN, Window


def test_a_minute_and_no_less() -> None:
    """What happened counts for at least a minute, and for a second more at most."""
    window = Window(10)
    window.add(4, 100.9)
    window.add(6, 130.0)
    assert window.wait(4, 150.0) == 11.0
    assert window.wait(10, 150.0) == 41.0
    assert window.wait(99, 150.0) == 41.0, "more than the limit: when nothing else is there"
    assert window.left(160.9) == 0
    assert window.left(162.0) == 4


def test_what_was_counted_too_much_is_taken_back() -> None:
    """Never below nothing."""
    window = Window(10)
    window.add(8, 1.0)
    window.add(-5, 2.0)
    assert window.left(2.0) == 7
    window.add(-50, 3.0)
    assert window.left(3.0) == 10


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 5)), max_size=60))
def test_never_more_than_the_limit_in_any_minute(asked: list[tuple[float, int]]) -> None:
    """Whatever the rhythm."""
    window, now, taken = Window(10), 1000.0, []
    for pause, amount in asked:
        now += pause
        if window.left(now) >= amount:
            window.add(amount, now)
            taken.append((now, amount))
        assert sum(one for at, one in taken if at > now - SPAN) <= 10
