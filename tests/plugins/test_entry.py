"""A plugin at work: what it has, and what its time is spent on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from aigw.canonical import Answer, Event
from aigw.hooks import Plugin, Reads, View
from aigw.plugins.entry import Entry, started, watched
from tests.plugged import entry


async def both(made: Entry, work: Coroutine[Any, Any, Any]) -> Any:
    return await watched(made, work, started(made, work))


ALL: frozenset[Reads] = frozenset({"request", "answer", "stream"})


class Quiet(Plugin):
    name = "quiet"


class Talks(Plugin):
    name, reads = "talks", ALL

    async def answer(self, view: View, answer: Answer) -> None: ...


class Hears(Plugin):
    name, reads = "hears", ALL

    def event(self, view: View, event: Event) -> None: ...


class Keeps(Plugin):
    name, reads = "keeps", ALL

    def complete(self, view: View, answer: Answer | bytes) -> None: ...


class Buffers(Talks):
    buffers = True


@pytest.mark.parametrize(
    ("plugin", "answers", "streams"),
    [(Quiet, False, False), (Talks, True, False), (Hears, True, True), (Keeps, True, True), (Buffers, True, True)],
)
def test_what_has_to_be_read_for_it(plugin: type[Plugin], answers: bool, streams: bool) -> None:
    """Hooks that are not written cost nothing."""
    made = entry(plugin)
    assert (made.reads_answer, made.reads_stream) == (answers, streams)


def test_strictness() -> None:
    class Guards(Plugin):
        name, phase, fail = "guards", "guard", "closed"

    assert entry(Guards).strict
    assert not entry(Guards, {"fail": "open"}).strict
    assert not entry(Guards, {"uncovered": "pass"}).strict
    assert not entry(Quiet, {"fail": "closed"}).strict


async def test_only_its_own_time_is_counted() -> None:
    """Not the time it waits; its value and what it raises come through, and so does what is thrown into it."""
    made = entry(Quiet)

    async def waits() -> int:
        await asyncio.sleep(0.05)
        return 3

    assert await both(made, waits()) == 3
    assert made.counts.seconds < 0.04

    async def works() -> None:
        time.sleep(0.02)
        raise KeyError("x")

    with pytest.raises(KeyError):
        await both(made, works())
    assert made.counts.seconds >= 0.02
    assert made.counts.worst >= 0.02

    caught = []

    async def is_cancelled() -> str:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            caught.append(1)
        return "went on"

    task = asyncio.ensure_future(both(made, is_cancelled()))
    await asyncio.sleep(0.01)
    task.cancel()
    assert await task == "went on"
    assert caught == [1]


def test_the_log_is_not_flooded() -> None:
    made = entry(Quiet)
    assert made.may_say("blocked")
    assert not made.may_say("blocked")
    assert made.may_say("request")
