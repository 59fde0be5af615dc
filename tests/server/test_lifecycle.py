"""The server's life: where it listens, how it reloads, how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aigw.config.load import load_with_notes
from aigw.errors import ConfigError, StoreError
from aigw.server import lifecycle
from aigw.server.lifecycle import CannotListenError
from aigw.storage.open import open_store
from tests.data_port import DEMO, HELLO, KEY, Caller, Running, request, serving
from tests.walk import EVENTS, NoFlow, Play, Scripted

CHAT = "/v1/chat/completions"
STREAM = HELLO.replace(b'"demo"', b'"demo","stream":true')
EVENT = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'

Said = Callable[[], str]


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another program holds."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def gated() -> tuple[Play, asyncio.Event]:
    """A stream that begins, and ends when it is told to."""
    gate = asyncio.Event()

    async def play(request: object, receiver: object) -> None:
        receiver.head(200, [EVENTS], NoFlow())  # type: ignore[attr-defined]
        receiver.feed(EVENT)  # type: ignore[attr-defined]
        await gate.wait()
        receiver.feed(b"data: [DONE]\n\n")  # type: ignore[attr-defined]

    return play, gate


async def begin_stream(port: Running, play: Play) -> Caller:
    """A caller in the middle of a stream."""
    port.server.gateway.pipeline.attempter.transport = Scripted(play)
    caller = await port.call()
    await caller.send(request("POST", CHAT, STREAM))
    while not port.server.gateway.active:
        await asyncio.sleep(0.001)
    async with asyncio.timeout(2):
        while not caller.reader._buffer:  # type: ignore[attr-defined] # something has arrived
            await asyncio.sleep(0.001)
    return caller


async def ended(port: Running, within: float = 5.0) -> None:
    async with asyncio.timeout(within):
        await port.task


# --- listening ----------------------------------------------------------------------------------------------------------


async def test_where_it_listens_is_said(tmp_path: Path) -> None:
    """With the real ports; IPv6's loopback is served besides IPv4's."""
    async with serving(tmp_path) as port:
        assert port.server.port
        assert port.server.admin_port
        assert port.said[0].endswith(f" listening on http://127.0.0.1:{port.server.port}")
        assert port.said[1] == f"metrics at http://127.0.0.1:{port.server.admin_port}/metrics"
        hosts = ["127.0.0.1", "::1"] if socket.has_ipv6 and Path("/proc/net/if_inet6").exists() else ["127.0.0.1"]
        for host in hosts:
            caller = await port.call(host=host)
            assert (await caller.ask("GET", "/healthz")).status == 200


@pytest.mark.parametrize(("table", "other"), [("[server]", "[admin]"), ("[admin]", "[server]")])
async def test_a_taken_port(tmp_path: Path, taken: int, table: str, other: str) -> None:
    """Said with what to do; nothing of us stays behind."""
    config = DEMO.replace(f"{table}\nport = 0", f"{table}\nport = {taken}")
    with pytest.raises(CannotListenError) as caught:
        async with serving(tmp_path, config):
            pass
    assert str(caught.value) == (f"127.0.0.1:{taken} is taken by another program; stop it, or choose another `port` in {table}")
    async with serving(tmp_path) as port:  # the data directory is free again
        assert (await port.ask("GET", "/healthz")).status == 200


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
async def test_an_address_that_is_not_here(tmp_path: Path, host: str) -> None:
    """The system's own words, and where to look."""
    with pytest.raises(CannotListenError, match=rf"cannot listen at {host}:0: .+; see `host` and `port` in \[server\]"):
        async with serving(tmp_path, DEMO.replace("[server]", f'[server]\nhost = "{host}"')):
            pass


async def test_the_admin_port_is_the_next_free_one(tmp_path: Path) -> None:
    """Where none is written: a second server on one machine starts all the same, and says which."""
    config = DEMO.replace("[admin]\nport = 0\n", "")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with serving(tmp_path / "a", config) as first, serving(tmp_path / "b", config) as second:
        one, two = first.server.admin_port, second.server.admin_port
        assert lifecycle.ADMIN_PORT <= one < two
        assert f":{two}/metrics" in second.said[1]
        assert (await second.operator("/healthz")).status == 200


async def test_a_data_directory_that_cannot_be_used(tmp_path: Path) -> None:
    """Said before anything listens."""
    (tmp_path / "data").write_text("a file")
    with pytest.raises(StoreError):
        async with serving(tmp_path):
            pass


# --- flags --------------------------------------------------------------------------------------------------------------


async def test_flags_win_over_the_file_after_a_reload_too(
    tmp_path: Path, taken: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """--port was given: the file's port is nobody's business, not even a warning's."""
    async with serving(tmp_path, DEMO.replace("port = 0", f"port = {taken}", 1), {"port": 0}) as port:
        assert port.server.port != taken
        port.config.write_text(port.config.read_text().replace(f"port = {taken}", "port = 9"))
        assert await port.server.reload()
        assert "takes effect at the next start" not in capsys.readouterr().err
        assert (await port.ask("GET", "/healthz")).status == 200


async def test_a_flag_cannot_open_the_door(tmp_path: Path) -> None:
    """Without keys only this machine may call, whatever the command line says; also when a reload takes the keys away."""
    with pytest.raises(ConfigError, match=r"only for this machine: --host must be 127\.0\.0\.1"):
        async with serving(tmp_path, DEMO + "[auth]\nrequired = false\n", {"host": "0.0.0.0"}):
            pass
    async with serving(tmp_path, DEMO, {"host": "0.0.0.0"}) as port:
        assert any("0.0.0.0 can be reached from other machines" in line and "clear text" in line for line in port.said)
        port.config.write_text(DEMO + "[auth]\nrequired = false\n")
        assert not await port.server.reload()
        assert (await port.ask("POST", CHAT, HELLO, {})).status == 401


# --- reload -------------------------------------------------------------------------------------------------------------


async def test_what_a_reload_cannot_change_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each key by its name; the rest takes effect."""
    async with serving(tmp_path) as port:
        changed = DEMO.replace("[server]\nport = 0", "[server]\nport = 9\ndrain_timeout = 3\nmax_body = 10")
        port.config.write_text(changed.replace("[admin]\nport = 0", "[admin]\nport = 10") + "[storage]\nrecords = 60\n")
        assert await port.server.reload()
        warned = [line.split(maxsplit=2)[2] for line in capsys.readouterr().err.splitlines() if "next start" in line]
        names = ["[server] port", "[server] drain_timeout", "[admin]", "[storage] records"]
        assert warned == [f"{name} changed: takes effect at the next start" for name in names]
        assert (await port.ask("POST", CHAT, HELLO)).status == 413


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ("[server]\nprot = 1\n", 'config.toml:2: server.prot: unknown key; did you mean "port"?'),
        ("[providers.opnai]\n", "config.toml:1: providers.opnai: no provider of this name is known"),
        ('[providers.openai]\nkeys = ["env:AIGW_NO_SUCH"]\n', "config.toml:2: providers.openai.keys[0]: "),
        ("[", "config.toml:1: not TOML"),
        (None, "no such file"),
    ],
)
async def test_a_config_that_is_wrong_changes_nothing(
    tmp_path: Path, config: str | None, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The old one serves on, and the log says what is wrong, with file, line and key."""
    async with serving(tmp_path) as port:
        before = port.server.gateway
        port.config.unlink() if config is None else port.config.write_text(config)
        assert not await port.server.reload()
        said = capsys.readouterr().err
        assert "config not reloaded, the old one serves on: " in said
        assert complaint in said
        assert port.server.gateway is before
        assert (await port.ask("POST", CHAT, HELLO)).status == 200


async def test_a_changed_file_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a signal; and a file that is replaced as a whole, as careful editors do."""
    monkeypatch.setattr(lifecycle, "WATCH", 0.02)
    async with serving(tmp_path) as port:
        for key in ("second-key", "third-key"):
            fresh = tmp_path / "fresh"
            fresh.write_text(DEMO.replace(KEY, key))
            fresh.replace(port.config)
            async with asyncio.timeout(3):
                while (await port.ask("POST", CHAT, HELLO, {"x-api-key": key})).status != 200:
                    await asyncio.sleep(0.01)
        assert (await port.ask("POST", CHAT, HELLO)).status == 401


async def test_sighup_reloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the file did not change: what it refers to may have."""
    monkeypatch.setenv("AIGW_TEST_KEY", "first-key")
    config = DEMO.replace(f'key = "{KEY}"', 'key = "env:AIGW_TEST_KEY"')
    async with serving(tmp_path, config) as port:
        assert (await port.ask("POST", CHAT, HELLO, {"x-api-key": "first-key"})).status == 200
        monkeypatch.setenv("AIGW_TEST_KEY", "second-key")
        os.kill(os.getpid(), signal.SIGHUP)
        async with asyncio.timeout(3):
            while (await port.ask("POST", CHAT, HELLO, {"x-api-key": "second-key"})).status != 200:
                await asyncio.sleep(0.01)


async def test_an_edit_before_anybody_watches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts is the file that was loaded, not the one that lay there when watching began."""
    monkeypatch.setattr(lifecycle, "WATCH", 0.02)
    path = tmp_path / "config.toml"
    path.write_text("a = 1")
    loaded = lifecycle.stamp_of(path)
    path.write_text("a = 12")
    changes = lifecycle.edits(path, asyncio.Event(), loaded)
    async with asyncio.timeout(3):
        await anext(changes)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(changes), 0.2)


async def test_a_bug_in_a_reload_is_not_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever goes wrong while building: the old config serves, the file is watched on."""
    monkeypatch.setattr(lifecycle, "WATCH", 0.02)
    async with serving(tmp_path) as port:
        real = lifecycle.Gateway

        def broken(*arguments: object) -> None:
            raise RuntimeError("sk-secret")

        monkeypatch.setattr(lifecycle, "Gateway", broken)
        os.kill(os.getpid(), signal.SIGHUP)
        said = ""
        async with asyncio.timeout(3):
            while "config not reloaded" not in said:
                said += capsys.readouterr().err
                await asyncio.sleep(0.01)
        assert "RuntimeError" in said
        assert "secret" not in said
        monkeypatch.setattr(lifecycle, "Gateway", real)
        port.config.write_text(DEMO.replace(KEY, "another"))
        async with asyncio.timeout(3):
            while (await port.ask("POST", CHAT, HELLO, {"x-api-key": "another"})).status != 200:
                await asyncio.sleep(0.01)


async def test_a_stream_outlives_reloads(tmp_path: Path) -> None:
    """It ends where it began, whole; the old gateway goes when it has nothing left to do."""
    play, gate = gated()
    async with serving(tmp_path) as port:
        old = port.server.gateway
        caller = await begin_stream(port, play)
        for _ in range(3):
            assert await port.server.reload()
        assert port.server.gateway is not old
        assert (await port.ask("POST", CHAT, HELLO)).status == 200, "new ones go to the new one"
        assert (old.active, port.server.services.active) == (1, 1)
        gate.set()
        answer = await caller.answer()
        assert (answer.whole, answer.body) == (True, EVENT + b"data: [DONE]\n\n")
        await port.idle()
        assert (old.active, port.server.gateway.active) == (0, 0)
        assert len(await port.records(2)) == 2


# --- the end ------------------------------------------------------------------------------------------------------------


async def test_a_stop_lets_everybody_finish(tmp_path: Path) -> None:
    """SIGTERM: idle connections are closed, no new ones are taken, the stream ends whole, and so does the server."""
    play, gate = gated()
    async with serving(tmp_path) as port:
        idle = await port.call()
        await idle.ask("GET", "/healthz")
        caller = await begin_stream(port, play)
        os.kill(os.getpid(), signal.SIGTERM)
        assert await idle.is_closed()
        assert port.said[-1] == "finishing 1 requests; stop again to cut them off"
        with pytest.raises(OSError):
            await port.call()
        assert not port.task.done()
        gate.set()
        answer = await caller.answer()
        assert (answer.whole, answer.body) == (True, EVENT + b"data: [DONE]\n\n")
        await ended(port)
        assert await caller.is_closed()
    assert await records_after(tmp_path) == [(200, "ok", "")]


async def records_after(tmp_path: Path) -> list[tuple[int, str, str]]:
    """What the store holds when the server is gone."""
    store = open_store("sqlite:", tmp_path / "data")
    try:
        return [(record.status, record.outcome, record.error) for record in await store.records()]
    finally:
        await store.close()


@pytest.mark.parametrize("how", ["second signal", "drain_timeout"])
@pytest.mark.parametrize("reloaded", [False, True], ids=["", "in a retired gateway"])
async def test_a_stop_that_cuts(tmp_path: Path, how: str, reloaded: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """A second signal, or patience at its end: streams are cut, seen to be, and recorded as our doing, once."""
    play, _ = gated()
    wait = 0.2 if how == "drain_timeout" else 30
    async with serving(tmp_path, DEMO.replace("[server]", f"[server]\ndrain_timeout = {wait}")) as port:
        caller = await begin_stream(port, play)
        if reloaded:
            assert await port.server.reload()
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0.05)
        assert not port.task.done()
        if how == "second signal":
            os.kill(os.getpid(), signal.SIGTERM)
        answer = await caller.answer()
        assert (answer.whole, answer.body) == (False, EVENT)
        await ended(port)
        assert "1 requests were cut off by the stop" in capsys.readouterr().err
    assert await records_after(tmp_path) == [(200, "gateway_error", "gateway_draining")]


async def test_a_stop_with_nothing_to_do(tmp_path: Path) -> None:
    """Is over at once, also with idle connections open."""
    async with serving(tmp_path) as port:
        caller = await port.call()
        assert (await caller.ask("POST", CHAT, HELLO)).status == 200
        os.kill(os.getpid(), signal.SIGTERM)
        await ended(port, 2.0)
        assert "finishing" not in port.said[-1]
    assert await records_after(tmp_path) == [(200, "ok", "")]


async def test_a_half_sent_body_may_be_finished(tmp_path: Path) -> None:
    """An upload that had begun when the stop came is an exchange like others."""
    async with serving(tmp_path) as port:
        caller = await port.call()
        body = HELLO[:-1] + b" " * 200_000 + HELLO[-1:]
        data = request("POST", CHAT, body)
        await caller.send(data[:100_000])
        while not port.server.services.active:
            await asyncio.sleep(0.001)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.1)
        await caller.send(data[100_000:])
        answer = await caller.answer()
        assert (answer.status, answer.whole) == (200, True)
        await ended(port)


async def test_warnings_are_said_at_the_start(tmp_path: Path) -> None:
    """What is doubtful about a config is for the person at the terminal."""
    async with serving(
        tmp_path, DEMO + '[providers.openai]\nbase_url = "http://api.example.com/v1"\nkeys = ["sk-a"]\n'
    ) as port:
        assert any(line.startswith("warning: ") for line in port.said), port.said


def test_it_runs_and_ends_by_itself(tmp_path: Path) -> None:
    """On the loop that it chooses; SIGTERM ends it well."""
    config = tmp_path / "config.toml"
    config.write_text(DEMO)
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if line.startswith("metrics at"):
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()

    lifecycle.serve(load_with_notes(config), tmp_path / "data", say)
    assert "listening on" in said[0]
