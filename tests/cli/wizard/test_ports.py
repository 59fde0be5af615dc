"""Ports that are free, and those that are not."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from aigw.cli.wizard import ports


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_that_is_taken(taken: int) -> None:
    """It is not free, and the next free one is another."""
    assert not ports.is_free(taken)
    free = ports.next_free(taken)
    assert free > taken or free == 0
    assert ports.is_free(free)


def test_a_port_that_is_free_again(taken: int) -> None:
    """As soon as nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert ports.is_free(port)


def test_the_other_loopback_counts_too() -> None:
    """serve takes ::1 beside 127.0.0.1."""
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        assert not ports.is_free(server.getsockname()[1])


def test_the_operators_port_is_not_proposed() -> None:
    """8081 is where metrics go."""
    assert ports.next_free(ports.ADMIN - 1) != ports.ADMIN


def test_privileged_ports_and_the_end() -> None:
    """A host that is not of this machine says nothing; behind the last port there is none."""
    assert ports.is_free(50123, "203.0.113.7")
    assert ports.next_free(65535) == 0
