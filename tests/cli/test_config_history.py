"""`aigw config history|diff|rollback` beside a real server."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.world import DEMO, HELLO, Gateway

Make = Callable[..., Gateway]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Gateway] = []

    def one(config: str = DEMO, **more: Any) -> Gateway:
        made.append(Gateway(tmp_path / f"g{len(made)}", config, **more))
        return made[-1]

    yield one
    for gateway in made:
        gateway.close()


def history(gateway: Gateway) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(gateway.aigw("config", "history", "--json").stdout)
    return found


def reload(gateway: Gateway, text: str) -> None:
    begin = len(gateway.lines)
    gateway.config.write_text(text)
    gateway.signal(signal.SIGHUP)
    gateway.said("reloaded", begin)


@pytest.mark.parametrize("workers", [1, 2])
def test_there_and_back(make: Make, workers: int) -> None:
    gateway = make(DEMO + "[auth]\nrequired = false\n", server=f"workers = {workers}\n")
    assert history(gateway) == []
    gateway.start()
    first = gateway.config.read_text()
    answer = gateway.ask(HELLO, key="")
    (served,) = history(gateway)
    assert gateway.record(answer.id).config_hash == served["hash"]
    assert served["file"]
    reload(gateway, first + '\n[providers.demo2]\nkind = "demo"\n')
    newest, oldest = history(gateway)
    assert (oldest["hash"], newest["file"], oldest["file"]) == (served["hash"], True, False)
    done = gateway.aigw("config", "diff")
    assert "+[providers.demo2]" in done.stdout
    assert "-[providers.demo2]" in gateway.aigw("config", "diff", newest["hash"], oldest["hash"][:6]).stdout
    assert "Nothing was changed" in gateway.aigw("config", "rollback", "--dry-run").stderr
    done = gateway.aigw("config", "rollback")
    assert done.returncode == 0, done.stderr
    assert gateway.config.read_text() == first
    assert [one["hash"] for one in history(gateway)] == [served["hash"], newest["hash"]]
    assert "Nothing to do" in gateway.aigw("config", "rollback", served["hash"]).stderr
    table = gateway.aigw("config", "history").stdout.splitlines()
    assert table[1].startswith(served["hash"])
    assert table[1].endswith("the file")


def test_a_file_that_never_served_is_kept(make: Make) -> None:
    gateway = make()
    gateway.start()
    first = gateway.config.read_text()
    gateway.config.write_text(first + "\n# half an idea\n[providers.x")
    done = gateway.aigw("config", "rollback")
    assert done.returncode == 0, done.stderr
    assert gateway.config.read_text() == first
    (beside,) = gateway.config.parent.glob("config.toml.before")
    assert beside.read_text().endswith("[providers.x")
    assert beside.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "more",
    [
        '[providers.x]\nkind = "openai"\nkeys = ["sk-S3CR3T-value"]\n',
        '[providers.x]\nkind = "vllm"\nbase_url = "http://127.0.0.1:1/v1"\nheaders = {x-own = "S3CR3T-value"}\n',
        '[plugins.guard]\nwebhook = {url = "http://127.0.0.1:1/", key = "S3CR3T-value"}\n',
    ],
)
def test_secrets_are_not_kept(make: Make, more: str) -> None:
    gateway = make(DEMO + "\n" + more)
    gateway.start()
    assert history(gateway) == []
    assert any("not kept" in line for line in gateway.lines)


def test_what_cannot_be(make: Make) -> None:
    gateway = make()
    done = gateway.aigw("config", "rollback")
    assert (done.returncode, "no other config has served" in done.stderr) == (1, True)
    done = gateway.aigw("config", "diff", "abc")
    assert done.returncode == 2
    assert "no config is kept whose hash begins with 'abc'" in done.stderr
    assert "Traceback" not in done.stderr
    folder = gateway.data_dir / "configs"
    folder.mkdir(parents=True, mode=0o700)
    (folder / "abc.toml").write_text("[of.the.future]\n")
    before = gateway.config.read_text()
    done = gateway.aigw("config", "rollback", "abc")
    assert done.returncode == 2
    assert gateway.config.read_text() == before
