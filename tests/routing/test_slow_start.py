"""What is held back: nothing reaches the caller before it is opened, everything in order afterwards. (The whole of it is tried
in tests/test_failover.py.)"""

from __future__ import annotations

from aigw.routing.slow_start import Held
from tests.walk import Near


async def test_held_and_opened() -> None:
    near = Near()
    held = Held(near)
    held.begin(200, [(b"a", b"b")])
    held.write(b"one")
    held.write(bytearray(b"two"))
    assert held.begun.done()
    assert (near.status, near.body, held.started) == (0, b"", False)
    held.open()
    held.write(b"three")
    held.end()
    assert (near.status, near.body, near.ended, held.started) == (200, b"onetwothree", True, True)


async def test_thrown_away() -> None:
    """An attempt that is cut off while it is held was never seen."""
    near = Near()
    held = Held(near)
    held.begin(200, [])
    held.write(b"one")
    held.abort()
    assert (near.status, near.body, near.aborted) == (0, b"", False)


async def test_a_short_answer_is_opened_by_its_end() -> None:
    near = Near()
    held = Held(near)
    held.begin(200, [])
    held.write(b"all")
    held.end()
    assert (near.body, near.ended) == (b"all", True)


async def test_an_answer_in_one_piece_is_never_held() -> None:
    near = Near()
    Held(near).answer(429, [], b"no")
    assert (near.status, near.body) == (429, b"no")
