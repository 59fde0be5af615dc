"""The plugins of a config, from their start to their end."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

from aigw.errors import ConfigError
from aigw.exchange import Exchange
from aigw.hooks import Plugin
from aigw.plugins.manager import Manager, Watchdog
from tests.plugged import entry, manager

LIFE: list[str] = []


def lives(called: str, wrong: str = "") -> type[Plugin]:
    class One(Plugin):
        name = called

        async def startup(self) -> None:
            LIFE.append(f"{called} starts")
            if wrong == "startup":
                raise OSError("no such list")
            if wrong == "config":
                raise ConfigError("is wrong", key="plugins.x.y")

        def inherit(self, previous: Plugin) -> None:
            LIFE.append(f"{called} inherits")
            if wrong == "inherit":
                raise ValueError

        async def shutdown(self) -> None:
            LIFE.append(f"{called} ends")
            if wrong == "shutdown":
                raise ValueError

    return One


@pytest.fixture(autouse=True)
def nothing_yet() -> None:
    LIFE.clear()


async def test_they_start_and_end() -> None:
    """The last to start is the first to end, and nobody's failure keeps another from ending."""
    both = manager(lives("a"), lives("b", "shutdown"))
    await both.startup()
    await both.shutdown()
    await both.shutdown()
    assert LIFE == ["a starts", "b starts", "b ends", "a ends"]


@pytest.mark.parametrize(
    ("wrong", "said"), [("startup", "plugins.b: could not start: OSError: no such list"), ("config", "plugins.x.y: is wrong")]
)
async def test_one_that_does_not_start(wrong: str, said: str) -> None:
    """It is named; those before it end again, those behind it never start."""
    three = manager(lives("a"), lives("b", wrong), lives("c"))
    with pytest.raises(ConfigError) as caught:
        await three.startup()
    assert str(caught.value) == said
    assert LIFE == ["a starts", "b starts", "a ends"]


async def test_the_end_waits_for_exchanges() -> None:
    one = manager(lives("a"))
    await one.startup()
    run = one.run(Exchange("x", 0.0, headers={}))
    ending = asyncio.ensure_future(one.shutdown())
    await asyncio.sleep(0.02)
    assert LIFE == ["a starts"]
    run.recorded(None)
    await ending
    assert LIFE == ["a starts", "a ends"]


async def test_the_end_may_be_impatient() -> None:
    one = manager(lives("a"))
    await one.startup()
    one.run(Exchange("x", 0.0, headers={}))
    await one.shutdown(0.01)
    assert LIFE == ["a starts", "a ends"]


def test_taking_over_by_name() -> None:
    old, new = manager(lives("a"), lives("b")), manager(lives("a", "inherit"), lives("c"))
    new.inherit(old)
    assert LIFE == ["a inherits"]


def test_none_is_nothing() -> None:
    assert not Manager([], {})
    assert manager(lives("a"))


def test_who_never_gives_back_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """While it happens: nobody could say it afterwards."""

    class Hangs(Plugin):
        name = "hangs"

    made = entry(Hangs)
    made.busy_since = time.perf_counter() - 60
    dog = Watchdog()
    with caplog.at_level(logging.ERROR):
        dog.watch(manager(made))
        deadline = time.monotonic() + 5
        while not caplog.records and time.monotonic() < deadline:
            time.sleep(0.02)
        dog.close()
    assert "the plugin 'hangs' has kept every request waiting for 6" in caplog.text
    assert len(caplog.records) == 1
