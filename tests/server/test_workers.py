"""A worker's own part; what several do together is in tests/e2e/test_workers.py."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import msgspec

from aigw.config.load import load_text
from aigw.server.channel import Message
from aigw.server.workers import Task, shared_out
from aigw.storage.shared import make

CONFIG = """
[auth]
failures_per_minute = 10
[providers.openai]
keys = ["sk-0123456789-one", {key = "sk-0123456789-two", rpm = 7, tpm = 1}]
[providers.demo]
"""


def test_what_cannot_be_counted_together_is_shared_out() -> None:
    """Rounded up: four workers with 7 a minute have 2 each; nothing that is not limited becomes so."""
    config = shared_out(load_text(CONFIG, Path("config.toml")), 4).config
    assert config.auth.failures_per_minute == 3
    one, two = config.providers["openai"].keys
    assert one == "sk-0123456789-one"
    assert not isinstance(two, str)
    assert (two.rpm, two.tpm) == (2, 1)
    unlimited = shared_out(load_text("[auth]\nfailures_per_minute = 0\n", Path("config.toml")), 4).config
    assert unlimited.auth.failures_per_minute == 0


def started(tmp_path: Path, text: str | None, end: socket.socket, table: int) -> tuple[subprocess.Popen[bytes], Task]:
    listening = socket.create_server(("127.0.0.1", 0))
    with listening:
        task = Task(
            number=0,
            workers=2,
            data_dir=str(tmp_path / "data"),
            path=str(tmp_path / "config.toml"),
            text=text,
            flags={},
            sockets=[listening.fileno()],
            counters=table,
            bound={"data": [f"127.0.0.1:{listening.getsockname()[1]}"], "admin": ["127.0.0.1:1"]},
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "aigw", "--worker", str(end.fileno())],
            pass_fds=[end.fileno(), listening.fileno(), table],
            stderr=subprocess.PIPE,
        )
    return process, task


def test_a_worker_serves_and_ends_with_its_supervisor(tmp_path: Path) -> None:
    """It says when it is ready, answers for itself, and is gone when the other end is."""
    ours, theirs = socket.socketpair()
    table = make(2)
    with theirs:
        process, task = started(tmp_path, "[providers.demo]\n", theirs, table)
    with ours, ours.makefile("rwb") as file:
        ours.settimeout(30)
        file.write(msgspec.json.encode(task) + b"\n")
        file.flush()
        assert msgspec.json.decode(file.readline()) == {"what": "ready", "pid": process.pid}
        file.write(b'{"what": "state", "number": 1}\n{"what": "prepare", "number": 2, "text": "x ="}\n')
        file.flush()
        answers: dict[int, Message] = {}
        while len(answers) < 2:  # besides, it tells what it learnt of models
            message = msgspec.json.decode(file.readline())
            answers[message.get("answer", 0)] = message
            answers.pop(0, None)
        assert answers[1]["state"]["pid"] == process.pid
        assert answers[1]["state"]["addresses"]["admin"] == ["http://127.0.0.1:1"]
        assert "config.toml:1" in answers[2]["problems"][0]
    _, said = process.communicate(timeout=30)
    os.close(table)
    assert process.returncode == 0
    assert b"the supervisor is gone: worker 0 ends" in said
    assert b"Traceback" not in said


def test_what_keeps_a_worker_from_serving_is_told(tmp_path: Path) -> None:
    """To the supervisor, who says it once for all."""
    ours, theirs = socket.socketpair()
    table = make(2)
    with theirs:
        process, task = started(tmp_path, '[providers.openai]\nkeys = ["env:NOT_THERE"]\n', theirs, table)
    with ours, ours.makefile("rwb") as file:
        ours.settimeout(30)
        file.write(msgspec.json.encode(task) + b"\n")
        file.flush()
        told = msgspec.json.decode(file.readline())
    assert (told["what"], told["kind"]) == ("failed", "config")
    assert "NOT_THERE" in told["message"]
    _, said = process.communicate(timeout=30)
    os.close(table)
    assert (process.returncode, said) == (1, b"")


def test_nobody_there_is_no_reason_to_stay(tmp_path: Path) -> None:
    """A supervisor that died before it said what to do."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen([sys.executable, "-m", "aigw", "--worker", str(theirs.fileno())], pass_fds=[theirs.fileno()])
    ours.close()
    assert process.wait(30) == 1
