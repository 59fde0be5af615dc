"""`aigw verify` in a checkout, and beside a real server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aigw.integrity import process
from tests.e2e.world import DEMO, Gateway

Make = Callable[..., Gateway]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Gateway] = []

    def one(config: str = DEMO, server: str = "") -> Gateway:
        made.append(Gateway(tmp_path / f"g{len(made)}", config, server=server))
        return made[-1]

    yield one
    for gateway in made:
        gateway.close()


def flaws(gateway: Gateway) -> list[dict[str, str]]:
    """But for those of packages: whoever made this environment may have added to the list of certifi, which is found."""
    told = json.loads(gateway.aigw("verify", "--json").stdout)
    return [one for one in told["flaws"] if "site-packages" not in one["path"]]


def test_a_checkout(make: Make) -> None:
    """Its packages can be checked; that it cannot vouch for itself is exit code 2 (or 1, where a package was changed)."""
    gateway = make()
    done = gateway.aigw("verify")
    told = json.loads(gateway.aigw("verify", "--json").stdout)
    assert done.returncode == (1 if told["flaws"] else 2), done.stdout
    assert "runs from the checkout" in done.stdout
    assert "packages" in done.stdout
    assert told["ok"] is False
    states = {one["name"]: one["state"] for one in told["checks"]}
    assert states.pop("packages") == ("flaw" if told["flaws"] else "ok")
    assert states == {"signature": "unknown", "lock": "ok", "access": "ok"}
    assert flaws(gateway) == []
    assert gateway.aigw("verify", "--require-signature").returncode == 1


@pytest.mark.parametrize("name", ["config", "a plugin", "a key", "the database"])
def test_what_others_may_change_or_read(make: Make, name: str) -> None:
    gateway = make()
    gateway.aigw("keys", "create", "alice")
    path = {
        "config": gateway.config,
        "a plugin": gateway.config.parent / "plugins/mine.py",
        "a key": gateway.config.parent / "keys/openai",
        "the database": gateway.data_dir / "aigw.db",
    }[name]
    path.parent.mkdir(exist_ok=True)
    path.touch()
    path.chmod(0o644 if name in ("a key", "the database") else 0o666)
    assert [one["path"] for one in flaws(gateway)] == [str(path)]
    assert flaws(gateway)[0]["next"].startswith("chmod ")


def test_no_server(make: Make) -> None:
    done = make().aigw("verify", "--runtime")
    assert done.returncode == 2
    assert "aigw is not running" in done.stdout


@pytest.mark.skipif(not process.available(), reason="Linux only")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_running_server(make: Make, workers: int) -> None:
    """One that idles is as it should be, however many processes it has; a connection of nobody's is told."""
    gateway = make()
    gateway.start("--workers", str(workers))
    done = gateway.aigw("verify", "--runtime")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("listens at") == (1 if workers == 1 else workers + 1)
    assert "without a request" in done.stdout


@pytest.mark.skipif(not process.available(), reason="Linux only")
def test_a_plugin_that_does_what_it_should_not(make: Make) -> None:
    """An implant as a plugin: it dials out on its own and starts a program. Seen from outside, and by the server itself."""
    gateway = make(server="self_check = 0.2")
    plugin = gateway.config.parent / "plugins/helper.py"
    plugin.parent.mkdir()
    plugin.write_text(
        "import os, socket\n"
        "from aigw.hooks import Plugin\n"
        "class Helper(Plugin):\n"
        '    """Helps itself."""\n'
        "    async def startup(self):\n"
        "        self.away = socket.socket(); self.away.bind(('127.0.0.1', 0)); self.away.listen(); self.away.detach()\n"
        "        os.posix_spawn('/bin/sleep', ['sleep', '60'], {})\n"
    )
    assert gateway.aigw("plugins", "trust", str(plugin)).returncode == 0
    gateway.config.write_text(gateway.config.read_text() + '\n[plugins.helper]\nfile = "helper.py"\n')
    gateway.start()
    gateway.said("that the gateway did not start")
    gateway.said("listens where nothing was configured")
    done = gateway.aigw("verify", "--runtime")
    assert done.returncode == 1
    assert "is a child that the gateway did not start (sleep)" in done.stdout
    state = json.loads(gateway.aigw("status", "--json").stdout)
    assert {one[0].split()[0] for one in state["integrity"]["oddities"]} >= {"process", "socket"}
    subprocess.run(["pkill", "-P", str(state["pid"]), "sleep"], check=False)
