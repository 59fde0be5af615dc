"""`aigw doctor` as people and programs use it: a healthy set-up has nothing wrong, and what is wrong is said everywhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

from aigw.cli import control
from tests.cli.conftest import CommandLine
from tests.cli.findings import network
from tests.e2e.world import eventually


@pytest.fixture
def set_up(aigw: CommandLine) -> Iterator[CommandLine]:
    """A good one: the command on PATH, a provider with a good key, a consumer key, private files."""
    folder = aigw.folder / "bin"
    folder.mkdir()
    (folder / "aigw").write_text(f'#!/bin/sh\nexec {sys.executable} -m aigw "$@"\n')
    (folder / "aigw").chmod(0o755)
    aigw.environment |= {"PATH": f"{folder}:/usr/bin:/bin", "LANG": "C.UTF-8", "WORK_KEY": "sk-good"}
    aigw.folder.chmod(0o700)
    with network.provider() as server:
        write(aigw, server.server_port)
        assert aigw("keys", "create", "alice").returncode == 0
        yield aigw


def write(aigw: CommandLine, port: int, more: str = "") -> None:
    aigw.config.write_text(
        f"[server]\nport = {network.closed()}\n[admin]\nport = 0\n"
        f'[providers.work]\nbase_url = "http://127.0.0.1:{port}/v1"\nkeys = ["env:WORK_KEY"]\n{more}'
    )
    aigw.config.chmod(0o600)


def told(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Code -> level, of --json."""
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["ok"] == (done.returncode == 0)
    return {one["code"]: one["level"] for one in answer["findings"]}


def serve(aigw: CommandLine, *flags: str, **environment: str) -> subprocess.Popen[str]:
    server = subprocess.Popen(
        [sys.executable, "-m", "aigw", "serve", *flags],
        env=aigw.environment | environment,
        cwd=aigw.folder,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr is not None
    assert "listening" in server.stderr.readline()
    assert "metrics" in server.stderr.readline()
    return server


def served(aigw: CommandLine) -> dict[str, Any]:
    """What the running server says of its config."""
    state = control.ask(aigw.data_dir)
    assert state is not None
    return dict(state["config"])


def test_a_healthy_set_up(set_up: CommandLine) -> None:
    """No server runs: nothing is wrong, exit code 0, findings on stdout and the sum on stderr."""
    done = set_up("doctor")
    assert done.returncode == 0, done.stdout
    assert done.stderr.splitlines()[-1] == "Nothing is wrong."
    lines = done.stdout.splitlines()
    assert len(lines) == 11
    assert all(line.startswith("ok       ") for line in lines)
    assert "ok       work: 1 key is good, 2 models" in lines
    assert set(told(set_up("doctor", "--json")).values()) == {"ok"}


def test_a_healthy_server(set_up: CommandLine) -> None:
    """With a server running it is the same, and the server is recognised at its port."""
    server = serve(set_up)
    try:
        found = told(set_up("doctor", "--json"))
        assert set(found.values()) == {"ok"}
        assert "server_ok" in found
        assert "port_held" not in found
    finally:
        server.terminate()
        server.communicate(timeout=20)


def test_a_server_with_an_older_config(set_up: CommandLine) -> None:
    """A file with a mistake is not taken over; a variable that only the server has is no mistake; another port needs a restart;
    from a second data directory the port is held by an aigw."""
    server = serve(set_up)
    try:
        good = set_up.config.read_text()
        assert told(set_up("doctor", "--json", "--offline", WORK_KEY=""))["config_doubtful"] == "warning"
        set_up.config.write_text(good + "[wrong]\n")
        eventually(lambda: served(set_up)["problem"])
        found = told(set_up("doctor", "--json", "--offline"))
        assert (found["config_wrong"], found["server_old_config"]) == ("problem", "warning")
        before = served(set_up)["hash"]
        set_up.config.write_text(re.sub(r"port = \d\d+", f"port = {network.closed()}", good))
        eventually(lambda: served(set_up)["hash"] != before)
        assert told(set_up("doctor", "--json", "--offline"))["port_changed"] == "warning"
        set_up.config.write_text(good)
        elsewhere = set_up("doctor", "--offline", "--data-dir", str(set_up.folder / "second"))
        assert "held by aigw serve" in elsewhere.stdout
        assert elsewhere.returncode == 1
    finally:
        server.terminate()
        server.communicate(timeout=20)


def test_nothing_is_there(aigw: CommandLine) -> None:
    """Right after the installation: it says what comes first, and makes nothing."""
    aigw.environment.pop("AIGW_CONFIG")
    aigw.config.unlink()
    before = sorted(aigw.folder.rglob("*"))
    done = aigw("doctor", LANG="C.UTF-8")
    assert done.returncode == 1
    assert "next: aigw init" in done.stdout.replace("next:  ", "next: ")
    assert "Traceback" not in done.stderr
    assert sorted(aigw.folder.rglob("*")) == before


def test_what_is_wrong_is_said(set_up: CommandLine) -> None:
    """A bad key: the exit code is 1, the level, the meaning and the next command are there, the key is not; nor in --json."""
    for form in ((), ("--json",)):
        done = set_up("doctor", *form, WORK_KEY="sk-of-somebody")
        assert done.returncode == 1
        assert "work#1 (env:WORK_KEY): the provider refuses this key" in done.stdout
        assert "aigw providers keys rotate work work#1" in done.stdout
        assert "sk-of-somebody" not in done.stdout + done.stderr
    assert told(done)["key_wrong"] == "problem"


def test_a_proxy_that_wants_a_login(set_up: CommandLine) -> None:
    """407 is told from a provider that is down; the proxy's password is not shown."""
    with network.proxy(login="Basic xxx") as proxy:
        write(set_up, 9, f'proxy = "http://me:geheim@127.0.0.1:{proxy.server_port}"\n')
        done = set_up("doctor")
    assert "the proxy 127.0.0.1:" in done.stdout
    assert "407" in done.stdout
    assert "geheim" not in done.stdout + done.stderr
    write(set_up, network.closed())
    assert told(set_up("doctor", "--json"))["provider_down"] == "problem"


def test_offline(set_up: CommandLine) -> None:
    """Nobody is asked, so nothing is found out about it."""
    with network.provider() as server:
        write(set_up, server.server_port)
        found = told(set_up("doctor", "--json", "--offline", WORK_KEY="sk-of-somebody"))
        assert server.seen == []
    assert set(found.values()) == {"ok"}
    assert "provider_unchecked" in found


def test_chinese(set_up: CommandLine) -> None:
    """People read their language; codes and JSON stay English."""
    done = set_up("doctor", LC_ALL="zh_CN.UTF-8", WORK_KEY="sk-x", PYTHONUTF8="1")
    assert "问题     work#1 (env:WORK_KEY)：服务商不接受此密钥" in done.stdout
    assert "下一步：aigw providers keys rotate" in done.stdout
    assert "个问题" in done.stderr
    assert set_up("doctor", "--json", LC_ALL="zh_CN.UTF-8", PYTHONUTF8="1").stdout.isascii()


def test_an_ascii_terminal(set_up: CommandLine) -> None:
    """LANG=C, and a terminal that has only ASCII: plain words."""
    done = set_up("doctor", LANG="", LC_ALL="C", PYTHONIOENCODING="ascii", WORK_KEY="sk-x")
    assert done.stdout.isascii()
    assert "work#1" in done.stdout


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("language", ["C.UTF-8", "zh_CN.UTF-8"])
def test_on_a_terminal(set_up: CommandLine, columns: int, language: str) -> None:
    """No line is wider than the terminal, but the commands, which are there to be copied; progress is shown and taken away; no
    colour with NO_COLOR."""
    environment = {"LC_ALL": language, "PYTHONUTF8": "1", "WORK_KEY": "sk-x", "NO_COLOR": "1"}
    terminal = set_up.terminal("doctor", columns=columns, **environment)
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 1
    assert re.search(r"asking providers: 0 of 1|正在询问服务商：0/1", terminal.before)
    shown = [line.rpartition("\x1b[K")[2] for line in terminal.before.split("\r\n")]
    assert not any("asking" in line or "正在询问" in line for line in shown)
    from aigw.cli.output import width

    for line in shown:
        assert "\x1b" not in line
        assert width(line) <= columns or "next: " in line or "下一步：" in line, line
        assert not line.strip().startswith(("。", "，")), line
    assert "\x1b[3" in _coloured(set_up)


def _coloured(set_up: CommandLine) -> str:
    terminal = set_up.terminal("doctor", "--offline")
    terminal.expect(pexpect.EOF)
    terminal.close()
    return str(terminal.before)


def test_interrupted(set_up: CommandLine) -> None:
    """Ctrl-C while a provider is silent: it ends at once, with 130."""
    with network.deaf() as port:
        write(set_up, port)
        terminal = set_up.terminal("doctor")
        terminal.expect("asking providers")
        began = time.monotonic()
        terminal.sendintr()
        terminal.expect(pexpect.EOF)
        terminal.close()
    assert terminal.exitstatus == 130
    assert time.monotonic() - began < 2


def test_it_is_quick(set_up: CommandLine) -> None:
    """Asking nobody, it imports no web framework, and takes under half a second of CPU."""
    program = (
        "import sys\nfrom aigw.cli.main import main\nmain(['doctor', '--offline'])\n"
        "sys.exit(int('aiohttp' in sys.modules or 'rich' in sys.modules))"
    )
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-c", program], env=set_up.environment, cwd=set_up.folder, capture_output=True, check=False
    )
    after = os.times()
    assert done.returncode == 0, done.stderr
    assert after.children_user + after.children_system - before.children_user - before.children_system < 1.0


def test_the_page_has_what_it_says() -> None:
    """The `--json` line of docs/troubleshooting.md is about fields that are there."""
    page = (Path(__file__).resolve().parents[2] / "docs/troubleshooting.md").read_text()
    assert ".findings[] | select(.level" in page
    assert "aigw doctor --offline --json" in page
