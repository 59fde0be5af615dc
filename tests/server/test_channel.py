"""Two ends of a channel over a real pair of sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from aigw.server.channel import Channel, GoneError, Message


class Ends:
    def __init__(self) -> None:
        self.heard: list[Message] = []
        self.one, self.other = Channel(self._hear), Channel(self._hear)
        self.gone = asyncio.Event()

    async def _hear(self, message: Message) -> Message | None:
        self.heard.append(message)
        if message["what"] == "slow":
            await asyncio.sleep(60)
        if message["what"] == "broken":
            raise KeyError("x")
        return {"twice": message["value"] * 2} if message["what"] == "double" else None


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    both = Ends()
    one, other = socket.socketpair()
    await both.one.open(one)
    await both.other.open(other)
    running = [asyncio.create_task(both.one.run()), asyncio.create_task(both.other.run())]
    yield both
    await both.one.close()
    await both.other.close()
    await asyncio.gather(*running)


async def test_questions_are_answered_in_any_order(ends: Ends) -> None:
    """Both ways, many at once, with a message that needs no answer in between."""
    ends.one.tell("news", text="snow\n❄")
    answers = await asyncio.gather(
        *(ends.one.ask("double", 5, value=n) for n in range(50)), *(ends.other.ask("double", 5, value=-n) for n in range(50))
    )
    assert [answer["twice"] for answer in answers] == [2 * n for n in range(50)] + [-2 * n for n in range(50)]
    assert {"what": "news", "text": "snow\n❄"} in ends.heard


@pytest.mark.parametrize("what", ["slow", "broken"])
async def test_who_does_not_answer_is_gone(ends: Ends, what: str) -> None:
    """Too late, or failed at it: GoneError, and the channel works on."""
    with pytest.raises(GoneError):
        await ends.one.ask(what, 0.1)
    assert (await ends.one.ask("double", 5, value=4))["twice"] == 8


async def test_the_end_of_one_is_the_end_of_the_other(ends: Ends) -> None:
    """Questions under way end, later ones too, and what is told goes nowhere."""
    asked: asyncio.Task[Any] = asyncio.create_task(ends.one.ask("slow", 60))
    while not ends.heard:
        await asyncio.sleep(0.01)
    await ends.other.close()
    with pytest.raises(GoneError):
        await asked
    await ends.one.close()
    ends.one.tell("news")
    with pytest.raises(GoneError):
        await ends.one.ask("double", 5, value=1)


async def test_a_large_message(ends: Ends) -> None:
    """A config of 4 MB, metrics of many models."""
    assert len((await ends.one.ask("double", 20, value="x" * 5_000_000))["twice"]) == 10_000_000
