"""The server's life: keys that come and go, reloads, stops, deaths, and callers who leave. Nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import random
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.conftest import Make
from tests.e2e.far_side import DONE, END, STREAM_HEAD, FarSide, Script, chunk, delta
from tests.e2e.world import DEMO, HELLO, Answer, Gateway, ask, eventually
from tests.loopback import Peer, Request

Own = Callable[..., Gateway]

ASK = {"messages": [{"role": "user", "content": "hello"}]}


def far(far_side: FarSide, *names: str) -> str:
    """A config with the far side's *names* as providers and models."""
    tables = []
    for name in names:
        tables.append(
            f'[providers."{name}"]\nkind = "openai-compatible"\nbase_url = "{far_side.url(name)}"\nlist_models = false\n'
        )
        tables.append(f'[routes."{name}"]\ntargets = [{{provider = "{name}"}}]\n')
    return "".join(tables)


# --- keys ------------------------------------------------------------------------------------------------------------------


def test_keys_come_and_go_within_a_second(make: Make) -> None:
    """A key made before the first start works at once; a new one works, and a revoked one stops, within a second of the
    command's end, on the running server and on a connection that is open."""
    gateway = make()
    assert gateway.ask(HELLO).status == 200
    created = gateway.create_key("new")
    eventually(lambda: gateway.ask(HELLO, key=created["key"]).status == 200, within=1.0)
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    headers = gateway.headers(key=created["key"])
    assert ask(connection, HELLO, headers=headers).status == 200
    assert gateway.aigw("keys", "revoke", created["id"], "--yes").returncode == 0
    eventually(lambda: ask(connection, HELLO, headers=headers).status == 401, within=1.0)
    connection.close()
    assert gateway.ask(HELLO, key=created["key"]).headers["x-aigw-error"] == "policy_key_revoked"
    assert gateway.ask(HELLO).status == 200


def test_a_consumer_of_the_config(make: Make) -> None:
    """A key in the config is live with the reload, and gone with the next; the store's keys stay."""
    gateway = make()
    gateway.write_config(DEMO + '[consumers.ci]\nkey = "ci-key-of-twenty-letters"\n')
    eventually(lambda: gateway.ask(HELLO, key="ci-key-of-twenty-letters").status == 200)
    gateway.write_config(DEMO)
    gateway.signal(signal.SIGHUP)
    eventually(lambda: gateway.ask(HELLO, key="ci-key-of-twenty-letters").status == 401)
    assert gateway.ask(HELLO).status == 200


# --- reload ----------------------------------------------------------------------------------------------------------------

PIECES = [delta(f"piece {number} é") for number in range(120)] + [DONE]


def streaming(pause: float, pieces: list[bytes] | None = None) -> Script:
    """A stream of PIECES, one every *pause* seconds."""

    async def script(peer: Peer, request: Request, number: int) -> None:
        await peer.send(STREAM_HEAD)
        for piece in pieces or PIECES:
            await peer.send(chunk(piece), pause)
        await peer.send(END)

    return script


def test_reloads_drop_no_stream(make: Make, far_side: FarSide) -> None:
    """Twenty streams run through a SIGHUP, a changed file, a broken file and their provider's disappearance, byte for byte."""
    far_side.scripts["steady"] = streaming(0.03)
    gateway = make(far(far_side, "steady") + DEMO)
    with ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(gateway.ask, ASK | {"model": "steady", "stream": True}) for _ in range(20)]
        eventually(lambda: len(far_side.seen["steady"]) == 20)
        begin = len(gateway.lines)
        gateway.signal(signal.SIGHUP)
        gateway.said("reloaded from", begin)
        begin = len(gateway.lines)
        gateway.write_config(DEMO + "[colour]\nred = 1\n")
        gateway.signal(signal.SIGHUP)
        gateway.said("config not reloaded", begin)
        assert gateway.ask(HELLO).status == 200
        begin = len(gateway.lines)
        gateway.write_config(DEMO)  # the streams' provider is no longer there
        gateway.said("reloaded from", begin)
        assert gateway.ask(ASK | {"model": "steady"}).status == 404
        assert not any(answer.done() for answer in answers)
        got = [answer.result(20) for answer in answers]
    assert all(not answer.cut and answer.body == b"".join(PIECES) for answer in got)
    records = [gateway.record(answer.id) for answer in got]
    assert {record.outcome for record in records} == {"ok"}
    assert {record.provider for record in records} == {"steady"}


def test_a_broken_reload_names_file_line_and_key(make: Make) -> None:
    """The old config serves on, as often as it takes; a file that can be used again is taken."""
    gateway = make()
    for _ in range(2):
        begin = len(gateway.lines)
        gateway.write_config(DEMO + '[routes."re:("]\ntargets = [{provider = "demo"}]\n')
        gateway.signal(signal.SIGHUP)
        line = next(index for index, text in enumerate(gateway.config.read_text().splitlines(), 1) if "re:(" in text)
        gateway.said(
            f'config not reloaded, the old one serves on: {gateway.config}:{line}: routes."re:\\("'.replace(".", r"\."), begin
        )
        assert gateway.ask(HELLO).status == 200
    begin = len(gateway.lines)
    gateway.config.unlink()
    gateway.signal(signal.SIGHUP)
    gateway.said("config not reloaded", begin)
    assert gateway.ask(HELLO).status == 200
    begin = len(gateway.lines)
    gateway.write_config(DEMO + '[routes.other]\ntargets = [{provider = "demo"}]\n')
    gateway.said("reloaded from", begin)
    assert gateway.ask(HELLO | {"model": "other"}).status == 200


def test_what_needs_a_restart_says_so(make: Make) -> None:
    """And the rest of the file is taken all the same."""
    gateway = make()
    begin = len(gateway.lines)
    text = gateway.config.read_text().replace("port = 0", "port = 1", 1) + '[routes.other]\ntargets = [{provider = "demo"}]\n'
    gateway.config.write_text(text)
    gateway.signal(signal.SIGHUP)
    gateway.said(r"\[server\] port changed: takes effect at the next start", begin)
    eventually(lambda: gateway.ask(HELLO | {"model": "other"}).status == 200)


# --- stop ------------------------------------------------------------------------------------------------------------------


def test_sigterm_lets_streams_finish(own: Own, far_side: FarSide) -> None:
    """What began ends, whole and recorded; nobody new comes in; the exit code is 0."""
    far_side.scripts["drained"] = streaming(0.02)
    gateway = own(far(far_side, "drained"))
    gateway.key = gateway.create_key("me")["key"]
    gateway.start()
    idle = gateway.connect()
    with ThreadPoolExecutor(10) as pool:
        answers = [pool.submit(gateway.ask, ASK | {"model": "drained", "stream": True}) for _ in range(10)]
        eventually(lambda: len(far_side.seen["drained"]) == 10)
        gateway.signal(signal.SIGTERM)
        gateway.said("finishing 10 requests; stop again to cut them off")
        with pytest.raises(ConnectionRefusedError):
            gateway.connect()
        assert idle.recv(10) == b""  # an idle connection is closed at once
        idle.close()
        got = [answer.result(20) for answer in answers]
    assert all(not answer.cut and answer.body == b"".join(PIECES) for answer in got)
    assert gateway.wait() == 0
    assert {record.outcome for record in gateway.records()} == {"ok"}
    assert len(gateway.records()) == 10
    assert not list((gateway.data_dir / "journal").glob("*.journal"))


def test_a_second_sigterm_cuts(own: Own, far_side: FarSide) -> None:
    """At once, with exit code 0; callers see that their answers are not whole, and each has its record, as our doing."""
    far_side.scripts["cut"] = streaming(0.02, PIECES * 50)
    gateway = own(far(far_side, "cut"))
    gateway.key = gateway.create_key("me")["key"]
    gateway.start()
    with ThreadPoolExecutor(10) as pool:
        answers = [pool.submit(gateway.ask, ASK | {"model": "cut", "stream": True}) for _ in range(10)]
        eventually(lambda: len(far_side.seen["cut"]) == 10)
        time.sleep(0.3)
        gateway.signal(signal.SIGTERM)
        gateway.said("finishing 10 requests")
        gateway.signal(signal.SIGTERM)
        began = time.monotonic()
        assert gateway.wait() == 0
        assert time.monotonic() < began + 4
        got = [answer.result(5) for answer in answers]
    assert all(answer.cut for answer in got)
    records = gateway.records()
    assert {record.id for record in records} == {answer.id for answer in got}
    assert {(record.outcome, record.error) for record in records} == {("gateway_error", "gateway_draining")}
    assert all(record.output > 0 for record in records)


def test_a_stop_waits_no_longer_than_drain_timeout(own: Own, far_side: FarSide) -> None:
    """[server] drain_timeout bounds it."""
    far_side.scripts["endless"] = streaming(0.02, PIECES * 50)
    gateway = own(far(far_side, "endless"), server="drain_timeout = 0.5")
    gateway.key = gateway.create_key("me")["key"]
    gateway.start()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(gateway.ask, ASK | {"model": "endless", "stream": True})
        eventually(lambda: far_side.seen["endless"])
        began = time.monotonic()
        assert gateway.stop() == 0
        assert 0.4 < time.monotonic() - began < 5
        assert answer.result(5).cut
    assert [record.error for record in gateway.records()] == ["gateway_draining"]


# --- callers who leave -----------------------------------------------------------------------------------------------------


async def _hold(peer: Peer, request: Request, number: int) -> None:
    await peer.gone()
    raise ConnectionResetError


async def _begin_and_hold(peer: Peer, request: Request, number: int) -> None:
    await peer.send(STREAM_HEAD + b"".join(chunk(piece) for piece in PIECES[:20]))
    await _hold(peer, request, number)


async def _half_and_hold(peer: Peer, request: Request, number: int) -> None:
    await peer.send(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{"id": "x",')
    await _hold(peer, request, number)


async def _flood(peer: Peer, request: Request, number: int) -> None:
    """A stream without an end, as fast as it is taken."""
    await peer.send(STREAM_HEAD)
    while True:
        await peer.send(chunk(PIECES[0] * 50))
        await asyncio.sleep(0.001)


PHASES: dict[str, tuple[Script, bool, int]] = {
    # what the far side does, whether it is a stream, the record's status
    "gone-waiting": (_hold, False, 499),
    "gone-waiting-stream": (_hold, True, 499),
    "gone-mid-answer": (_half_and_hold, False, 499),
    "gone-mid-stream": (_begin_and_hold, True, 200),
    "gone-in-a-flood": (_flood, True, 200),
}


@pytest.fixture(scope="module")
def left(make: Make, far_side: FarSide) -> Gateway:
    for name, (script, _, _) in PHASES.items():
        far_side.scripts[name] = script
    return make(far(far_side, *PHASES))


@pytest.mark.parametrize("how", ["closes", "resets"])
@pytest.mark.parametrize("name", PHASES)
def test_a_caller_who_leaves_ends_the_call_upstream(left: Gateway, far_side: FarSide, name: str, how: str) -> None:
    """Within 100 ms the provider sees its connection closed, in whatever phase; settled on what was received, recorded. (A
    busy machine gets three chances to show it, and one second each.)"""
    delays = []
    while not delays or (min(delays) > 0.1 and len(delays) < 3):
        delays.append(leave(left, far_side, name, how))
    assert min(delays) < 0.1
    assert max(delays) < 1


def leave(left: Gateway, far_side: FarSide, name: str, how: str) -> float:
    """One caller who leaves; the seconds until the provider knows."""
    _, stream, status = PHASES[name]
    before = len(far_side.seen[name])
    closed = len(far_side.closed[name])
    body = json.dumps(ASK | {"model": name, "stream": stream}).encode()
    raw = left.connect()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {left.key}\r\n"
    raw.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    eventually(lambda: len(far_side.seen[name]) > before)
    if status == 200:
        seen = b""
        while seen.count(b"\n\n") < 20:
            seen += raw.recv(65536)
    else:
        time.sleep(0.1)
    if how == "resets":
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    left_at = time.monotonic()
    raw.close()
    eventually(lambda: len(far_side.closed[name]) > closed, every=0.005)
    found = eventually(lambda: [one for one in left.records("route = ?", (name,)) if one.at > time.time() - 30][before:])
    assert len(found) == 1
    record = found[0]
    assert (record.outcome, record.error, record.status) == ("client_closed", "caller_closed", status)
    if status == 200:
        assert record.estimated
        assert record.output > 20
        assert record.bytes_out >= len(b"".join(PIECES[:20]))
        assert record.first_token is not None
    else:
        assert record.output == 0
    assert '"error":"caller_closed"' in record.attempts
    return far_side.closed[name][-1] - left_at


# --- the store -------------------------------------------------------------------------------------------------------------


def test_a_locked_store_stops_nobody(make: Make) -> None:
    """Somebody holds the database for seconds: requests are served as quickly as before, and their records arrive later,
    each once."""
    gateway = make()
    gateway.record(gateway.ask(HELLO).id)
    with contextlib.closing(sqlite3.connect(gateway.database, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        answers = []
        while time.monotonic() < began + 2:
            asked = time.monotonic()
            answers.append(gateway.ask(HELLO))
            assert time.monotonic() - asked < 0.5
        assert {answer.status for answer in answers} == {200}
        connection.execute("ROLLBACK")
    ids = {answer.id for answer in answers}
    assert len(ids) == len(answers) > 20
    eventually(lambda: ids <= {record.id for record in gateway.records()}, within=20)
    assert len(gateway.records()) == len(answers) + 1
    assert gateway.stats()["total"]["requests"] == len(answers) + 1


# --- death -----------------------------------------------------------------------------------------------------------------


class Load:
    """Callers who ask without pause, and remember what was answered to them whole."""

    def __init__(self, gateway: Gateway, callers: int) -> None:
        self.gateway = gateway
        self.answered: list[Answer] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(callers)]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=10)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):  # it is killed
            turn = number
            while not self._stop.is_set():
                turn += 1
                answer = ask(connection, HELLO | {"stream": turn % 4 == 0}, headers=self.gateway.headers())
                if answer.cut:
                    return
                assert answer.status == 200
                self.answered.append(answer)

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)


@pytest.mark.parametrize("rounds", [pytest.param(3, id="3 rounds"), pytest.param(40, id="40 rounds", marks=pytest.mark.long)])
def test_kill_9_loses_no_record(own: Own, rounds: int) -> None:
    """Killed under load again and again: whoever got a whole answer finds exactly one record of it after the restart, and the
    roll-ups, the records and `aigw stats` agree."""
    gateway = own()
    gateway.key = gateway.create_key("me")["key"]
    answered: list[Answer] = []
    dice = random.Random(rounds)
    for _ in range(rounds):
        gateway.start()
        load = Load(gateway, 6)
        time.sleep(dice.uniform(0.2, 0.9))
        gateway.kill()
        load.end()
        answered += load.answered
    assert len(answered) > 30 * rounds
    gateway.start()
    ids = [answer.id for answer in answered]
    assert len(set(ids)) == len(ids)
    eventually(lambda: set(ids) <= {record.id for record in gateway.records()}, within=15)
    eventually(lambda: not [path for path in (gateway.data_dir / "journal").glob("*.journal") if path.stat().st_size])
    records = gateway.records()
    assert len({record.id for record in records}) == len(records)
    assert len(records) <= len(ids) + 6 * rounds  # besides those answered: the ones that were under way
    failed = [record for record in records if record.outcome not in ("ok", "client_closed")]
    total = gateway.stats()["total"]  # the hours before this one, and this one, come from the roll-ups
    assert (total["requests"], total["errors"], total["input_tokens"], total["output_tokens"]) == (
        len(records),
        len(failed),
        sum(record.input for record in records),
        sum(record.output for record in records),
    )
