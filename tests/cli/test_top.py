"""`aigw top` in a real pseudo-terminal, beside a real server under load."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

from tests.e2e.world import DEMO, HELLO, Gateway, eventually
from tests.terminal import Terminal

DEAD = """
[routes.broken]
targets = [{provider = "dead", model = "x"}]
[providers.dead]
kind = "openai-compatible"
base_url = "http://127.0.0.1:9/v1"
keys = ["sk-nothing"]
list_models = false
"""

HOSTILE = "\x1b[2J\x1b]0;owned\x07[red]\u202egpt"


class Top:
    """`aigw top` on a terminal of its own."""

    def __init__(self, gateway: Gateway, *arguments: str, columns: int = 80, rows: int = 24, **environment: str) -> None:
        world = {name: value for name, value in gateway.environment.items() if name != "COLUMNS"}
        self.child: Any = pexpect.spawn(
            sys.executable,
            ["-m", "aigw", "top", "--interval", "0.3", *arguments],
            env=world | {"TERM": "xterm-256color", "LANG": "C.UTF-8"} | environment,  # type: ignore[arg-type]
            cwd=str(gateway.folder),
            dimensions=(rows, columns),
            encoding="utf-8",
            timeout=10,
        )
        self.terminal = Terminal(columns, rows)
        self.raw = ""

    def look(self, seconds: float = 0.0) -> str:
        """Read for so long; what stands on the screen then."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                text = self.child.read_nonblocking(65536, timeout=0.05)
                self.raw += text
                self.terminal.feed(text)
            except pexpect.TIMEOUT:
                pass
            except pexpect.EOF:
                return self.terminal.text
            if time.monotonic() >= deadline:
                return self.terminal.text

    def until(self, seen: Callable[[str], object], within: float = 10.0) -> str:
        """What stands on the screen once *seen* is true of it."""
        deadline = time.monotonic() + within
        while not seen(text := self.look()):
            assert self.child.isalive(), text
            assert time.monotonic() < deadline, text
        return text

    def resize(self, columns: int, rows: int) -> None:
        self.terminal.resize(columns, rows)
        self.child.setwinsize(rows, columns)

    def end(self) -> int:
        """The exit code."""
        with contextlib.suppress(pexpect.EOF):
            self.look(0.1)
            self.child.expect(pexpect.EOF)
        self.terminal.feed(self.child.before or "")
        self.child.close()
        return int(self.child.exitstatus if self.child.exitstatus is not None else -self.child.signalstatus)


Start = Callable[..., Top]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[Top] = []

    def one(gateway: Gateway, *arguments: str, **settings: Any) -> Top:
        started.append(Top(gateway, *arguments, **settings))
        return started[-1]

    yield one
    for top in started:
        top.child.close(force=True)


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A server with two consumers: good answers, streams, errors, and names that want to harm a terminal."""
    gateway = Gateway(tmp_path_factory.mktemp("busy"), DEMO + DEAD)
    gateway.key = gateway.create_key("alice")["key"]
    other = gateway.create_key("张伟")["key"]
    gateway.start()
    over = threading.Event()

    def load(key: str) -> None:
        for number in range(100_000):
            if over.wait(0.01):
                return
            long = HELLO | {"stream": True, "messages": [{"role": "user", "content": "word " * 100}]}
            body = (long, HELLO, HELLO | {"model": "broken"}, HELLO | {"model": HOSTILE})[number % 9 % 4]
            gateway.ask(body, key=key)

    threads = [threading.Thread(target=load, args=(key,)) for key in (gateway.key, other)]
    for thread in threads:
        thread.start()
    yield gateway
    over.set()
    for thread in threads:
        thread.join()
    gateway.close()


def whole(text: str) -> bool:
    return all(word in text for word in ("alice", "张伟", "demo", "recent errors", "provider_unreachable", "model_not_found"))


def test_under_load(busy: Gateway, start: Start) -> None:
    """80 columns and 24 lines: what passes, who and which models, what went wrong; figures that move."""
    top = start(busy)
    text = top.until(lambda text: whole(text) and all(re.search(rf"{kind}/s .*[▁-█]", text) for kind in ("tokens", "errors")))
    lines = text.splitlines()
    assert re.match(rf"aigw up <?\d+m  http://127\.0\.0\.1:{busy.port} +\d+ in flight, \d+ streaming$", lines[0])
    assert re.match(r"requests/s +[0-9.]+ .*[▁▂▃▄▅▆▇█]$", lines[2])
    assert re.match(r"tokens/s +[0-9.,]+ .*[▁▂▃▄▅▆▇█]$", lines[3])
    assert re.match(r"first token p50 [0-9.]+ ms p95 [0-9.]+ ms   whole p50 [0-9.]+ ms p95 [0-9.]+ (ms|s)   cost \$0", lines[5])
    assert re.match(r"model +live +reqs err % +tok/s   consumer +live +reqs err % +tok/s$", lines[7])
    assert lines[-1] == "last 5m, every 0.3 s; q leaves"
    top.until(lambda text: re.search(r"[1-9]\d* in flight, [1-9]\d* streaming", text))
    before = top.look()
    top.until(lambda text: text != before)
    assert top.terminal.strange == []
    top.child.send("q")
    assert top.end() == 0
    assert top.terminal.modes == {"7", "25"}


def test_names_have_no_power_over_the_terminal(busy: Gateway, start: Start) -> None:
    """Escapes, markup and bidirectional marks in a model's name are shown, not obeyed."""
    top = start(busy, columns=150, rows=40)
    text = top.until(lambda text: "owned" in text)
    assert r"\x1b[2J\x1b]0;owned\x07[red]\u202egpt" in text
    assert top.terminal.strange == []
    assert not set(top.raw) & {"\x07", "\u202e"}
    assert "\x1b]" not in top.raw


def test_any_size_and_resized(busy: Gateway, start: Start) -> None:
    """40 columns, a strip of 4 lines, and large: nothing beyond the edge, the most important first."""
    top = start(busy, columns=40, rows=20)
    text = top.until(
        lambda text: whole(text.replace("provider_unr…", "provider_unreachable model_not_found")) or "recent" in text
    )
    assert "alice" in text
    for columns, rows in ((30, 4), (200, 50), (80, 24), (12, 3), (40, 12)):
        top.resize(columns, rows)
        text = top.until(lambda text: "aigw up" in text)
        top.look(0.4)
        assert top.terminal.strange == []
        if rows > 10:
            assert "requests/s" in text
    top.child.sendintr()
    assert top.end() == 0


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, *(pytest.param(other, marks=pytest.mark.long) for other in (signal.SIGHUP, signal.SIGINT))]
)
def test_signals_leave_the_terminal_as_it_was(busy: Gateway, start: Start, number: signal.Signals) -> None:
    """Ctrl-C, a kill, a lost line: out of the other screen, with a cursor."""
    top = start(busy)
    top.until(lambda text: "requests/s" in text)
    assert top.terminal.modes == {"1049"}
    top.child.kill(number)
    assert top.end() == 0
    assert top.terminal.modes == {"7", "25"}


def test_suspended_and_back(busy: Gateway, start: Start) -> None:
    """Ctrl-Z gives the terminal back; fg draws it all again."""
    top = start(busy)
    top.until(lambda text: "requests/s" in text)
    top.child.send("\x1a")
    stat = Path(f"/proc/{top.child.pid}/stat")
    deadline = time.monotonic() + 5
    while stat.read_text().rpartition(")")[2].split()[0] != "T":
        top.look()
        assert time.monotonic() < deadline
    top.look(0.1)
    assert top.terminal.modes == {"7", "25"}
    top.child.kill(signal.SIGCONT)
    top.until(lambda _: top.terminal.modes == {"1049"} and "requests/s" in top.terminal.text)


def test_without_colour(busy: Gateway, start: Start) -> None:
    """NO_COLOR: no style, the same figures; in colour there is some."""
    top = start(busy, NO_COLOR="1")
    top.until(whole)
    assert top.terminal.styles <= {"0"}  # leaving
    top = start(busy)
    top.until(whole)
    assert {"36", "31", "2"} <= top.terminal.styles


def test_ascii(busy: Gateway, start: Start) -> None:
    """LANG=C: nothing of ours needs more; people's names stay what they are."""
    top = start(busy, LANG="C", columns=60)
    text = top.until(whole)
    assert text.replace("张伟", "").isascii()


def test_a_quiet_gateway_sends_nothing(start: Start, tmp_path: Path) -> None:
    """Over a slow line: what did not change is not sent again."""
    gateway = Gateway(tmp_path)
    gateway.start()
    try:
        top = start(gateway)
        top.until(lambda text: "0 in flight" in text)
        top.look(0.5)
        sent = len(top.raw)
        top.look(1.5)
        assert len(top.raw) == sent
    finally:
        gateway.close()


def test_it_waits_for_a_server(start: Start, tmp_path: Path) -> None:
    """Not there, there, gone, there again: said each time, and no store is made by looking."""
    gateway = Gateway(tmp_path / "g")
    top = start(gateway)
    top.until(lambda text: "aigw is not running; waiting for it" in text)
    assert not gateway.data_dir.exists()
    gateway.key = gateway.create_key("me")["key"]
    gateway.start()
    try:
        assert gateway.ask(HELLO).status == 200
        top.until(lambda text: "aigw up" in text and "demo" in text)
        assert gateway.stop() == 0
        top.until(lambda text: "aigw is not running" in text and "demo" in text)
        gateway.start()
        top.until(lambda text: "aigw up" in text)
    finally:
        gateway.close()


def run(gateway: Gateway, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "aigw", *arguments],
        env=gateway.environment | {"LANG": "C.UTF-8"} | environment,
        cwd=gateway.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_once(busy: Gateway, start: Start) -> None:
    """One look as plain text, with its moment, and done."""
    start(busy).until(whole)  # by then there is something to see
    done = run(busy, "top", "--once")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+00:00\naigw up ", done.stdout)
    assert whole(done.stdout)
    assert "\x1b" not in done.stdout
    assert run(busy, "stats", "--watch", "--once").returncode == 2


@pytest.mark.parametrize("command", [["top", "--interval", "0.3"], ["stats", "--watch", "--since", "1m"]])
def test_in_a_pipe(busy: Gateway, command: list[str]) -> None:
    """Plain blocks with an empty line between them, until it is told to stop."""
    with subprocess.Popen(
        [sys.executable, "-m", "aigw", *command],
        env=busy.environment,
        stdout=subprocess.PIPE,
        text=True,
        stdin=subprocess.DEVNULL,
    ) as child:
        assert child.stdout is not None
        heads = 0
        for line in child.stdout:
            assert "\x1b" not in line
            heads += line.startswith("requests/s")
            if heads == 2:
                break
        child.send_signal(signal.SIGINT)
        child.stdout.read()
        assert child.wait(10) == 0


def test_a_dumb_terminal(busy: Gateway, start: Start) -> None:
    """TERM=dumb: plain blocks, no escape at all."""
    top = start(busy, TERM="dumb")
    deadline = time.monotonic() + 10
    while top.raw.count("requests/s") < 2:
        top.look()
        assert time.monotonic() < deadline
    assert "\x1b" not in top.raw
    top.child.sendintr()
    assert top.end() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--since", "2h"], "it looks back one hour at most; 'aigw stats --since' looks further"),
        (["--since", "soon"], "'soon' is not a span of time"),
        (["--interval", "0"], "0.0 is not in the range"),
    ],
)
def test_wrong_usage(tmp_path: Path, arguments: list[str], message: str) -> None:
    """Said before anything is drawn."""
    gateway = Gateway(tmp_path)
    done = run(gateway, "top", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


@pytest.mark.long
def test_a_server_that_hangs(start: Start, tmp_path: Path) -> None:
    """It listens and does not answer: said, and the store's figures go on."""
    gateway = Gateway(tmp_path)
    gateway.key = gateway.create_key("me")["key"]
    gateway.start()
    try:
        assert gateway.ask(HELLO).status == 200
        eventually(gateway.records)
        gateway.process.send_signal(signal.SIGSTOP)
        top = start(gateway)
        text = top.until(lambda text: "the server cannot be asked" in text)
        assert "did not answer within 2 s" in text
        top.until(lambda text: "demo" in text)
    finally:
        gateway.process.send_signal(signal.SIGCONT)
        gateway.close()


def test_what_it_needs() -> None:
    """No HTTP library and no drawing library is loaded for it."""
    script = "import sys, aigw.cli.top, aigw.cli.recent; print(json.dumps(sorted({'aiohttp', 'rich'} & set(sys.modules))))"
    done = subprocess.run([sys.executable, "-c", "import json; " + script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
