"""Servers that tests share."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.far_side import FarSide
from tests.e2e.world import DEMO, Gateway

Make = Callable[..., Gateway]


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """What a module's tests forgot to close is found at its end, not in somebody else's test."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    """Makes gateways in folders of their own; at the module's end they are stopped, and must have kept calm."""
    made: list[Gateway] = []

    def one(config: str = DEMO, *, server: str = "", started: bool = True, key: bool = True, **environment: str) -> Gateway:
        gateway = Gateway(tmp_path_factory.mktemp("gateway"), config, server=server, **environment)
        made.append(gateway)
        if key:
            gateway.key = gateway.create_key("me")["key"]
        return gateway.start() if started else gateway

    yield one
    problems = []
    for gateway in made:
        try:
            gateway.close()
        except AssertionError as error:
            problems.append(str(error))
    assert not problems, "\n\n".join(problems)


@pytest.fixture(scope="module")
def demo(make: Make) -> Gateway:
    """A gateway with the demo provider, shared by a module."""
    return make()


@pytest.fixture(scope="module")
def far_side() -> Iterator[FarSide]:
    with FarSide() as far:
        yield far


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """Makes gateways for one test, for it to stop, kill and start as it likes."""
    made: list[Gateway] = []

    def one(config: str = DEMO, *, server: str = "", **environment: str) -> Gateway:
        gateway = Gateway(tmp_path / f"gateway{len(made)}", config, server=server, **environment)
        made.append(gateway)
        return gateway

    yield one
    for gateway in made:
        gateway.close()
