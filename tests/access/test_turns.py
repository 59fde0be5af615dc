"""Whose turn it is."""

from __future__ import annotations

import asyncio

from aigw.access.turns import Turns


async def test_interactive_before_batch_each_in_its_order() -> None:
    """And a newcomer waits behind those before it."""
    turns = Turns()
    order: list[str] = []

    async def wait(name: str, *, batch: bool) -> None:
        await turns.wait("g", 60.0, batch=batch)
        order.append(name)

    waiting = []
    for name, batch in (("b1", True), ("i1", False), ("b2", True), ("i2", False)):
        waiting.append(asyncio.ensure_future(wait(name, batch=batch)))
        await asyncio.sleep(0)
    assert len(turns) == 4
    assert turns.taken("g", batch=False)
    assert not turns.taken("other", batch=True)
    for expected in (["i1"], ["i1", "i2"], ["i1", "i2", "b1"]):
        turns.free("g")
        for _ in range(5):
            await asyncio.sleep(0)
        assert order == expected
    assert not turns.taken("g", batch=False)
    assert turns.taken("g", batch=True)
    turns.free("g")
    await asyncio.gather(*waiting)
    assert not turns
    turns.free("g")


async def test_nobody_waits_for_ever() -> None:
    """Who is not woken looks again by itself; who goes away leaves nothing behind."""
    turns = Turns()
    await turns.wait("g", 0.01, batch=False)
    gone = asyncio.ensure_future(turns.wait("g", 60.0, batch=True))
    await asyncio.sleep(0)
    assert turns
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert not turns
    assert len(turns) == 0
