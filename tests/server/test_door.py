"""How many connections callers may have."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from aigw.config.schema import Server as Settings
from aigw.errors import GatewayError
from aigw.server.door import Door, party_of
from tests.data_port import DEMO, HELLO, Running, request, serving

CHAT = "/v1/chat/completions"


class Held:
    """A connection."""

    def __init__(self, *, idle: bool = True, asked: bool = False) -> None:
        self.idle, self.asked, self.closed = idle, asked, False

    def force_close(self) -> None:
        self.closed, self.idle = True, False


def door(held: list[Held], **settings: object) -> Door:
    return Door(Settings(**settings), lambda: held)  # type: ignore[arg-type]


def refused(at: Door, address: str, now: float = 0.0) -> str:
    with pytest.raises(GatewayError) as caught:
        at.enter(address, now)
    assert caught.value.retry_after
    return caught.value.code


def test_a_full_house() -> None:
    """When all places are taken and nobody is idle, a new one is refused; whoever leaves makes room."""
    at = door([Held(idle=False)] * 2, max_connections=2)
    parties = [at.enter("10.0.0.1", 0), at.enter("10.0.0.2", 0)]
    assert refused(at, "10.0.0.3") == "gateway_overloaded"
    assert at.refused == 1
    at.leave(parties[0])
    assert at.enter("10.0.0.3", 0) == "10.0.0.3"


def test_the_idle_make_room() -> None:
    """First those that never asked for anything, the oldest of them; one for each that comes."""
    held = [Held(asked=True), Held(idle=False), Held(), Held()]
    at = door(held, max_connections=4)
    at.open = 4
    closed = []
    for second in range(3):
        at.enter("10.0.0.1", second)
        at.leave("10.0.0.1")  # the one that was closed
        closed.append([one.closed for one in held])
    assert closed == [[False, False, True, False], [False, False, True, True], [True, False, True, True]]
    assert refused(at, "10.0.0.1", 9) == "gateway_overloaded"


def test_one_address() -> None:
    """Has its own limit, which nobody else feels; counts go back to nothing."""
    at = door([], max_connections_per_address=2)
    parties = [at.enter("10.0.0.1", 0) for _ in range(2)]
    assert refused(at, "10.0.0.1") == "policy_concurrency_limited"
    at.enter("10.0.0.2", 0)
    for _ in range(5):
        assert at.enter("127.0.0.1", 0) == ""
    for party in parties:
        at.leave(party)
    assert "10.0.0.1" not in at._by_party
    assert at.enter("10.0.0.1", 0)


@pytest.mark.parametrize(
    ("address", "party"),
    [
        ("127.0.0.1", ""),
        ("::1", ""),
        ("::ffff:127.0.0.1", ""),
        ("", ""),
        ("10.1.2.3", ""),
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_whom_it_counts_for(address: str, party: str) -> None:
    """An IPv6 machine has a /64 for itself; this machine and trusted proxies are not counted."""
    assert party_of(address, ("10.0.0.0/8",)) == party


def test_said_seldom(caplog: pytest.LogCaptureFixture) -> None:
    """Callers cannot fill the log: one line of a kind in ten seconds, and how many were left out."""
    at = door([])
    with caplog.at_level(logging.WARNING, "aigw.server"):
        for now in (0, 1, 2, 11):
            at.say("kind", "it happened", now)
    assert caplog.messages == ["it happened", "it happened (and 2 times since it was last said)"]


async def test_one_too_many(tmp_path: Path) -> None:
    """The refusal arrives although the caller has sent its request already, and the next one is served again."""
    config = DEMO.replace("[server]", "[server]\nmax_connections = 2")
    async with serving(tmp_path, config) as port:
        held = await busy(port, 2)
        late = await port.call()
        await late.send(request("POST", CHAT, HELLO))
        answer = await late.answer()
        assert (answer.status, answer.json()["error"]["aigw_code"]) == (503, "gateway_overloaded")
        assert await late.is_closed()
        for caller in held:
            caller.close()
        await port.idle()
        await asyncio.sleep(0.05)
        assert (await port.ask("POST", CHAT, HELLO)).status == 200


async def busy(port: Running, count: int) -> list:  # type: ignore[type-arg]
    """Callers in the middle of an upload."""
    found = []
    for _ in range(count):
        caller = await port.call()
        await caller.send(request("POST", CHAT, HELLO)[:-5])
        found.append(caller)
    async with asyncio.timeout(5):
        while port.server.services.active < count:
            await asyncio.sleep(0.01)
    return found


async def test_requests_of_one_connection(tmp_path: Path) -> None:
    """The last one that is allowed says so; nothing is cut."""
    async with serving(tmp_path, DEMO.replace("[server]", "[server]\nkeep_alive_requests = 3")) as port:
        caller = await port.call()
        ends = [(await caller.ask("POST", CHAT, HELLO)).headers.get("connection") for _ in range(3)]
        assert ends == [None, None, "close"]
        assert await caller.is_closed()
