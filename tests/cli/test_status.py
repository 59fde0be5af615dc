"""`aigw status` beside real servers, well and ill, and beside none."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.far_side import FarSide, answer, plays, provider, route
from tests.e2e.world import DEMO, HELLO, Gateway, eventually

Make = Callable[..., Gateway]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Gateway] = []

    def one(config: str = DEMO, *, key: bool = True, **environment: str) -> Gateway:
        made.append(Gateway(tmp_path / f"g{len(made)}", config, **environment))
        if key:
            made[-1].key = made[-1].create_key("me")["key"]
        return made[-1]

    yield one
    for gateway in made:
        gateway.close()


@pytest.fixture
def far_side() -> Iterator[FarSide]:
    with FarSide() as far:
        yield far


def status(gateway: Gateway, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "aigw", "status", *arguments],
        env=gateway.environment,
        cwd=gateway.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def told(gateway: Gateway) -> dict[str, Any]:
    return json.loads(status(gateway, "--json").stdout)  # type: ignore[no-any-return]


def test_running_and_ready(make: Make) -> None:
    """Who, since when, where, with what; how today went; exit 0. Nothing of it is a secret."""
    gateway = make().start()
    assert gateway.ask(HELLO).status == 200
    refused = gateway.ask(HELLO | {"model": "nobody"})
    eventually(lambda: len(gateway.records()) == 2)
    done = status(gateway)
    assert (done.returncode, done.stderr) == (0, "")
    pattern = rf"""aigw \S+ is running since \d\d:\d\d:\d\d \(process {gateway.process.pid}\)
  ready       yes
  addresses   http://127\.0\.0\.1:{gateway.port}(  http://\[::1\]:{gateway.port})?
  metrics     http://127\.0\.0\.1:{gateway.admin_port}/metrics
  config      {re.escape(str(gateway.config))} \(loaded \d\d:\d\d:\d\d\)
  providers   demo: 1 key
  in flight   0 requests, 0 streaming
  today       2 requests, 1 error \(50 %\), \$0
  last error  \d\d:\d\d:\d\d caller_model_not_found
              me  nobody  {refused.id}
"""
    assert re.fullmatch(pattern, done.stdout), done.stdout
    found = told(gateway)
    assert (found["running"], found["ready"], found["reason"], found["pid"]) == (True, True, "", gateway.process.pid)
    assert found["addresses"]["data"][0] == f"http://127.0.0.1:{gateway.port}"
    assert (found["today"]["requests"], found["today"]["errors"], found["today"]["costs"]) == (2, 1, {"USD": "0"})
    assert (found["last_error"]["id"], found["last_error"]["code"]) == (refused.id, "caller_model_not_found")
    assert gateway.key not in status(gateway, "--json").stdout


def test_nothing_runs(make: Make) -> None:
    """Said, with the command that starts it, and what is known all the same; looking makes no files. Exit 1."""
    gateway = make(key=False)
    done = status(gateway)
    assert done.returncode == 1
    assert done.stdout == f"aigw is not running for {gateway.data_dir}\n  config      {gateway.config} can be served\n"
    assert done.stderr == "Start it: aigw serve\n"
    assert not gateway.data_dir.exists()
    found = told(gateway)
    assert (found["running"], found["ready"], found["reason"], found["today"]) == (False, False, "not running", None)
    gateway.key = gateway.create_key("me")["key"]
    gateway.start()
    assert gateway.ask(HELLO).status == 200
    assert gateway.stop() == 0
    assert "\n  today       1 request, no errors, $0\n" in status(gateway).stdout
    gateway.config.write_text("[server\n")
    broken = status(gateway)
    assert broken.returncode == 1
    assert re.search(rf"\n  config      {re.escape(str(gateway.config))}:1", broken.stdout)
    gateway.config.unlink()
    assert "'aigw init' makes one" in status(gateway).stdout


def test_not_ready(make: Make) -> None:
    """It runs, and serves nothing: why, and exit 1."""
    gateway = make("").start()
    done = status(gateway)
    assert done.returncode == 1
    assert "\n  ready       no: no provider is configured\n" in done.stdout
    found = told(gateway)
    assert (found["running"], found["ready"], found["reason"]) == (True, False, "no provider is configured")


def test_a_config_that_cannot_be_served(make: Make) -> None:
    """The file on the disk is not what serves: what is wrong with it, until it is mended."""
    gateway = make().start()
    gateway.write_config(DEMO + "[routes.x]\ntarget = 1\n")
    gateway.said("config not reloaded")
    done = status(gateway)
    assert done.returncode == 0
    assert "\n              the file was changed and cannot be served; the one before serves on:\n" in done.stdout
    assert re.search(r"\n {16}.*config\.toml:\d+: routes\.x", done.stdout)
    assert told(gateway)["config"]["changed"] is True
    gateway.write_config(DEMO + "[limits]\nrpm = 5\n")
    eventually(lambda: not told(gateway)["config"]["changed"])
    assert "cannot be served" not in status(gateway).stdout


def test_resting_keys(make: Make, far_side: FarSide) -> None:
    """By label, how long, and why; never the key."""
    far_side.scripts["far"] = plays(answer(401, {"error": {"message": "bad key"}}))
    gateway = make(provider("far", far_side.url("far")) + route("far")).start()
    assert gateway.ask(HELLO | {"model": "far"}).status >= 500
    text = status(gateway).stdout
    assert re.search(
        r"\n  providers   far: 1 key, 1 resting: far#1 for (9m \d\ds|10m 00s) \(provider_credentials_invalid\)\n", text
    )


@pytest.mark.long
def test_a_server_that_hangs(make: Make) -> None:
    """It is there and does not answer: neither running well nor not there."""
    gateway = make().start()
    gateway.process.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        done = status(gateway)
        assert time.monotonic() - began < 8
        assert done.returncode == 1
        assert done.stdout.startswith("aigw hangs: the server did not answer within 2 s\n")
        assert "Start it" not in done.stderr
        assert told(gateway)["reason"] == "the server did not answer within 2 s"
    finally:
        gateway.process.send_signal(signal.SIGCONT)


def test_a_killed_server(make: Make) -> None:
    """Its socket is left behind, and nobody is there."""
    gateway = make().start()
    gateway.kill()
    assert status(gateway).stdout.startswith("aigw is not running for ")


def test_hostile_names(make: Make) -> None:
    """A model's name in the last error has no power over the terminal."""
    gateway = make().start()
    assert gateway.ask(HELLO | {"model": "\x1b[2J\u202e"}).status == 404
    eventually(gateway.records)
    out = status(gateway).stdout
    assert r"me  \x1b[2J\u202e  req_" in out
    assert not set(out) & {"\x1b", "\u202e"}
