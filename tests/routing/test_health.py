"""When a deployment is passed over, and how it comes back."""

from __future__ import annotations

import pytest

from aigw.routing.health import IN_A_ROW, LEARNED, LOOK, MANY_IN_A_ROW, MOST, Board, Health, Settings


def health(**settings: float) -> Health:
    return Health("a/m", Settings(**settings))  # type: ignore[arg-type]


def fails(one: Health, now: float, times: int = 1) -> None:
    for _ in range(times):
        one.failed("provider_error", 0.1, now, stream=False)


def works(one: Health, now: float, times: int = 1) -> None:
    for _ in range(times):
        one.succeeded(0.1, now, stream=False)


def test_it_opens_by_share_not_by_one() -> None:
    """Half of at least five; one failure among few says nothing."""
    one = health()
    works(one, 0, 2)
    fails(one, 0, 2)
    assert one.closed
    fails(one, 0)
    assert one.state(0.1) == "open"


def test_many_in_a_row_are_enough_whatever_was_before() -> None:
    """A busy place that dies is passed over at once, not when its failures outnumber the good answers of ten seconds."""
    one = health()
    works(one, 0, 50_000)
    fails(one, 0.1, MANY_IN_A_ROW - 1)
    works(one, 0.1)
    fails(one, 0.2, MANY_IN_A_ROW - 1)
    assert one.closed
    fails(one, 0.2)
    assert not one.allows(0.3)


def test_three_failures_and_nothing_else_are_enough() -> None:
    """Where little is asked five answers would take all day."""
    one = health()
    fails(one, 0, IN_A_ROW - 1)
    assert one.closed
    fails(one, 0)
    assert not one.allows(0.1)


def test_the_window_slides() -> None:
    """What was longer ago than the window counts no more."""
    one = health()
    works(one, 0, 100)
    assert one.counts(9) == (100, 0)
    assert one.counts(10.5) == (0, 0)
    works(one, 20, 3)
    fails(one, 21, 2)
    assert one.counts(21) == (3, 2)


def test_one_looks_at_a_time() -> None:
    """Half-open: the first goes, the next ones do not, until it was heard or is not waited for any longer."""
    one = health()
    fails(one, 0, 3)
    assert not one.allows(0.5)
    assert one.allows(1.0)
    assert one.state(1.0) == "half-open"
    one.began(1.0)
    assert not one.allows(1.1)
    assert one.allows(1.0 + LOOK)
    works(one, 1.5)
    assert one.closed
    assert one.allows(1.5)


def test_recovery_is_noticed_within_five_seconds() -> None:
    """However long it was away: the pause doubles to four seconds and no further."""
    one = health()
    fails(one, 0, 3)
    now = 0.0
    for _ in range(20):
        assert one.until - now <= 4.0
        now = one.until
        assert one.allows(now)
        one.began(now)
        fails(one, now)


def test_failures_from_before_it_opened_teach_nothing_new() -> None:
    """Fifty that were under way fail together: that is one reason to pause."""
    one = health()
    fails(one, 0, 50)
    assert one.until <= 1.0
    works(one, 2)
    fails(one, 2)
    assert one.closed, "what was before it came back does not count"


def test_slow_answers_count_as_failures_where_told_so() -> None:
    """`slow`: seconds to the first byte."""
    one = health(slow=2.0)
    for _ in range(5):
        one.succeeded(3.0, 0, stream=True)
    assert one.state(0) == "open"
    assert one.reason == "slow"


def test_latency_remembers_peaks_and_forgets() -> None:
    """A slow answer counts at once; quick ones bring it down little by little."""
    one = health()
    one.succeeded(0.1, 0, stream=True)
    one.succeeded(2.0, 1, stream=True)
    assert one.latency(1, stream=True) == 2.0
    one.succeeded(0.1, 2, stream=True)
    assert 1.5 < one.latency(2, stream=True) < 2.0
    assert one.latency(60, stream=True) < 0.01
    assert one.latency(1, stream=False) == 0.0, "whole answers are another matter"
    one.began(1)
    assert one.load(2, stream=True) == pytest.approx(2 * one.latency(2, stream=True))


def test_the_unusual_is_learned() -> None:
    """Nothing is unusual before some are known."""
    one = health()
    for number in range(LEARNED - 1):
        one.succeeded(number / 100, 0, stream=True)
    assert one.p95(stream=True) is None
    for number in range(200):
        one.succeeded(number / 100, 0, stream=True)
    assert one.p95(stream=True) == pytest.approx(1.93, abs=0.15)


def test_names_of_callers_do_not_fill_the_memory() -> None:
    """What is open or under way is kept."""
    board = Board()
    fails(board.of("bad"), 0, 3)
    for number in range(MOST + 10):
        board.of(f"p/{number}")
    assert len(board.view(0)) < MOST
    assert not board.of("bad").closed


def test_what_one_board_shows_another_can_resume() -> None:
    """All that choices depend on: open or not, how busy, how fast."""
    board = Board(Settings(pause=60.0, longest_pause=60.0))
    fails(board.of("bad/m"), 0, IN_A_ROW)
    works(board.of("good/m"), 0, 2)
    board.of("good/m").began(0.0)
    board.of("good/m").succeeded(0.25, 0.0, stream=True)
    again = Board(board.settings)
    again.resume(board.view(1.0), 101.0)
    bad, good = again.of("bad/m"), again.of("good/m")
    assert (bad.state(101.0), bad.reason, bad.row) == ("open", "provider_error", IN_A_ROW)
    assert bad.until - 101.0 == pytest.approx(board.of("bad/m").until - 1.0, abs=0.06)
    assert good.closed
    assert good.in_flight == 1
    assert good.load(101.0, stream=True) == pytest.approx(board.of("good/m").load(1.0, stream=True), abs=1e-3)


def test_what_others_hear_of_a_circuit() -> None:
    """One that opens or closes is told, and whoever hears it does the same; what is heard is not told on."""
    told: list[tuple[str, float, int, str]] = []
    one, other = Board(), Board()
    one.tell = lambda *what: told.append(what)
    other.tell = lambda *what: pytest.fail("told on")
    here, there = one.of("p/m"), other.of("p/m")
    for _ in range(3):
        here.failed("provider_timeout", 0.1, 10.0, stream=False)
    assert [(what[0], what[2], what[3]) for what in told] == [("p/m", 1, "provider_timeout")]
    there.hear(*told[0][1:], 500.0)
    assert not there.allows(500.0)
    assert there.allows(500.0 + told[0][1])
    here.alive(12.0)
    there.hear(*told[1][1:], 501.0)
    assert there.closed
    assert there.allows(501.0)
