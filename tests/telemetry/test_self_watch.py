"""What a process finds out about itself: real children and sockets of this test."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from aigw.hooks import Event
from aigw.integrity import process, release
from aigw.integrity.installed import Check, State
from aigw.integrity.manifest import Flaw
from aigw.telemetry import self_watch
from aigw.telemetry.self_watch import SelfWatch
from tests.packaging.released import Place

pytestmark = pytest.mark.skipif(not process.available(), reason="Linux only")


class World:
    """What the watched process says that it expects."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(self_watch, "SETTLE", 0.01)
        self.children = set(process.children(os.getpid()))  # other tests' databases
        self.peers: set[str] = set()
        self.hosts: set[str] = set()
        self.requests = 0
        self.active = 0
        self.told: list[Event] = []
        mine = {one.local[1] for one in process.sockets(os.getpid())}
        self.watch = SelfWatch(
            self.told.append,
            work=lambda: (self.requests, self.active),
            children=lambda: self.children,
            ports=lambda: mine,
            peers=lambda: self.peers,
            hosts=lambda: self.hosts,
        )
        self.watch._roots = (*self.watch._roots, str(Path(os.__file__).parents[1]))

    def readings(self) -> dict[str, float]:
        return {reading.name + reading.labels.get("kind", ""): reading.value for reading in self.watch.readings()}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


@pytest.fixture
def elsewhere() -> Iterator[socket.socket]:
    """A connection to somebody whom no config names."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        with socket.create_connection(listening.getsockname()) as connection:
            yield connection


async def test_a_child_is_told_once(world: World) -> None:
    await world.watch.look()
    assert world.told == []
    with subprocess.Popen(["sleep", "30"]) as child:
        await world.watch.look()
        await world.watch.look()
        assert [event.kind for event in world.told] == ["integrity"]
        assert "that the gateway did not start" in world.told[0].text
        assert f"ps -fp {child.pid}" in world.told[0].text
        assert world.readings()["oddities" + "child"] == 1
        child.kill()
    await world.watch.look()
    assert world.readings()["oddities" + "child"] == 0


async def test_a_connection_to_nobody_configured(world: World, elsewhere: socket.socket) -> None:
    """Told, unless it was we who connected, or a configured host means that address just now."""
    await world.watch.look()
    (peer, port) = elsewhere.getpeername()
    listening = f"socket {peer}:{port}"
    assert listening in [event.subject for event in world.told]
    world.told.clear()
    world.hosts = {"localhost"}
    await world.watch.look()
    assert not [one for one in world.watch.oddities if one.path == listening]
    world.hosts, world.peers = set(), {peer}
    await world.watch.look()
    assert not [one for one in world.watch.oddities if one.path == listening]


async def test_work_while_nobody_asks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three looks in a row without a request; one request, and it begins anew."""
    used = [0.0]
    clock = [0.0]

    def cpu(pid: int) -> float:
        clock[0] += 60.0
        return used[0]

    monkeypatch.setattr(process, "cpu", cpu)
    monkeypatch.setattr(self_watch.time, "monotonic", lambda: clock[0])
    await world.watch.look()
    for _ in range(2):
        used[0] += 6.0
        await world.watch.look()
        assert world.told == []
    world.requests += 1
    used[0] += 6.0
    await world.watch.look()
    for _ in range(3):
        used[0] += 6.0
        assert world.told == []
        await world.watch.look()
    assert [event.subject for event in world.told] == ["processor"]
    assert world.watch.idle_cpu == pytest.approx(0.1)
    assert world.readings()["oddities" + "processor"] == 1
    used[0] += 0.1
    await world.watch.look()
    assert world.readings()["oddities" + "processor"] == 0
    world.active = 1
    used[0] += 60
    await world.watch.look()
    assert world.readings()["oddities" + "processor"] == 0


def test_what_was_found_in_the_files(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "aigw.integrity")
    world.watch.found(
        [Check("signature", State.NOTE, "unsigned"), Check("runtime", State.OK, "12 files as released, none else")]
    )
    assert world.watch.intact is True
    assert caplog.messages == ["integrity: unsigned; 12 files as released, none else"]
    assert world.readings()["integrity_ok"] == 1
    world.watch.found([Check("signature", State.UNKNOWN, "it runs from a checkout")])
    assert world.watch.intact is None
    assert "integrity_ok" not in world.readings()
    world.watch.found([Check("runtime", State.FLAW, "2 flaws", (Flaw("lib/a.py", "was changed"), Flaw("x.pth", "was added")))])
    assert world.watch.intact is False
    assert world.readings()["integrity_ok"] == 0
    assert "integrity: lib/a.py was changed" in caplog.messages
    assert world.told[0].text == "2 flaws. Run: aigw verify"


async def test_a_version_that_was_withdrawn(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Asked once a day, of a place with signatures; told as an alert, and kept for `aigw verify`. A place that is away ends
    nothing."""
    caplog.set_level("INFO", "aigw.integrity")
    place = Place(tmp_path)
    place.publish("9.0.0")
    known = release.signers(place.signers)
    monkeypatch.setattr(release, "signers", lambda: known)
    monkeypatch.setattr(self_watch, "FIRST_ASKED", 0.0)
    monkeypatch.setattr(self_watch, "DAY", 0.02)
    monkeypatch.setenv("AIGW_DOWNLOAD_BASE", str(tmp_path / "nowhere"))
    task = asyncio.create_task(world.watch.follow_releases(tmp_path / "data"))
    async with asyncio.timeout(10):
        while "could not be asked" not in caplog.text:
            await asyncio.sleep(0.01)
        monkeypatch.setenv("AIGW_DOWNLOAD_BASE", f"{tmp_path / 'nowhere'} {place.folder}")
        while "aigw 9.0.0 is there; this is 0.1.0" not in caplog.text:
            await asyncio.sleep(0.01)
        assert world.readings()["version_withdrawn"] == 0
        place.revoke("0.1.0", "it mines coins")
        while not world.told:
            await asyncio.sleep(0.01)
    task.cancel()
    assert "aigw 0.1.0, which serves here, was withdrawn: it mines coins" in world.told[0].text
    assert world.readings()["version_withdrawn"] == 1
    assert (tmp_path / "data/releases/revoked.json.sig").exists()


async def test_a_look_that_fails_ends_nothing(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/proc is not there, or says something else one day."""
    looked = threading.Event()

    async def broken() -> None:
        looked.set()
        raise OSError("gone")

    monkeypatch.setattr(world.watch, "look", broken)
    monkeypatch.setattr(self_watch, "examined", lambda data_dir: 1 / 0)
    monkeypatch.setattr(self_watch, "SERVING", 0.0)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(world.watch.run(tmp_path, 0.01, files=True), 0.3)
    assert looked.is_set()
