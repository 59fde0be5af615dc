"""`aigw reload` beside a real server, and beside none."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.far_side import FarSide, provider
from tests.e2e.test_plugins import Streams
from tests.e2e.world import DEMO, HELLO, Answer, Gateway, eventually

Make = Callable[..., Gateway]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Gateway] = []

    def one(config: str = DEMO) -> Gateway:
        made.append(Gateway(tmp_path / f"g{len(made)}", config))
        return made[-1]

    yield one
    for gateway in made:
        gateway.close()


@pytest.fixture
def far_side() -> Iterator[FarSide]:
    with FarSide() as far:
        yield far


def test_what_is_wrong_is_said(make: Make) -> None:
    gateway = make()
    gateway.start()
    done = gateway.aigw("reload")
    assert done.returncode == 0
    assert done.stdout.startswith("reloaded: config ")
    good = gateway.config.read_text()
    gateway.config.write_text(good + "\n[plugins.guard]\n")
    done = gateway.aigw("reload")
    assert done.returncode == 1
    assert "what served before serves on" in done.stderr
    assert "plugins.guard: has nothing to go by" in done.stderr
    told = json.loads(gateway.aigw("reload", "--json").stdout)
    assert not told["reloaded"]
    assert len(told["problems"]) == 1
    gateway.config.write_text(good)
    assert json.loads(gateway.aigw("reload", "--json").stdout)["reloaded"]


def test_what_is_still_held(make: Make, far_side: FarSide) -> None:
    """A stream that began with the old config is told of until it ends."""
    streams = Streams()
    far_side.scripts["p"] = streams.play
    gateway = make(provider("p", far_side.url("p")) + "[auth]\nrequired = false\n")
    gateway.start()
    found: list[Answer] = []
    caller = threading.Thread(target=lambda: found.append(gateway.ask(HELLO | {"model": "p/m", "stream": True}, key="")))
    caller.start()
    eventually(lambda: far_side.seen["p"])
    done = gateway.aigw("reload")
    assert "1 under way end with the config they began with" in done.stderr
    lines = gateway.aigw("reload", "--status").stdout.splitlines()
    (newest,) = [line.split() for line in lines if line.endswith("serves")]
    assert (newest[0], newest[-2]) == ("2", "0")
    assert any("ends when they do" in line and line.split()[0] == "1" for line in lines)
    streams.end.set()
    caller.join(20)
    assert found[0].status == 200
    eventually(lambda: len(json.loads(gateway.aigw("reload", "--status", "--json").stdout)["generations"]) == 1)


def test_nothing_runs(make: Make) -> None:
    done = make().aigw("reload")
    assert done.returncode == 1
    assert "is not running" in done.stderr
    assert "aigw serve" in done.stderr
