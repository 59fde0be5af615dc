from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from aigw.access.consumer_keys import PATTERN
from aigw.cli.connect import apps
from tests.e2e.world import Gateway, eventually

if TYPE_CHECKING:
    from conftest import CommandLine


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = Gateway(tmp_path_factory.mktemp("gateway"))
    running.start()
    yield running
    running.close()


def test_the_list(aigw: CommandLine) -> None:
    """Without a name: what is known, for people, programs and spreadsheets."""
    done = aigw("connect")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == list(apps())
    assert {"open-webui", "cursor", "lobechat", "cherry-studio", "continue", "cline", "zed", "jetbrains", "n8n", "dify"} <= set(
        apps()
    )
    assert [one["app"] for one in json.loads(aigw("connect", "--json").stdout)] == list(apps())
    assert aigw("connect", "--csv").stdout.splitlines()[0] == "app,title,kind"


def test_every_entry_is_whole() -> None:
    """What to enter, and a page that says so; no placeholder but ours."""
    for name, app in apps().items():
        assert app.fields or app.text, name
        assert app.source.startswith("https://"), name
        everything = app.text + app.where + app.note + app.unsure + "".join(label + value for label, value in app.fields)
        assert set(re.findall(r"\{(\w+)\}", everything)) <= {"v1", "root", "key", "model", "text"}, (
            name
        )  # { text } is JavaScript
        assert any(place in everything for place in ("{v1}", "{root}", "YOUR-ADDRESS")), name


@pytest.mark.parametrize("name", list(apps()))
def test_each_has_the_real_address(aigw: CommandLine, name: str) -> None:
    """Nothing is left to fill in but the key, and that is said; containers get the address that they can reach."""
    aigw.config.write_text("[server]\nport = 4711\n[providers.demo]\n")
    done = aigw("connect", name)
    assert done.returncode == 0, done.stderr
    assert "YOUR_KEY" in done.stdout
    assert f"aigw connect {name} --key NAME" in done.stderr
    assert "demo" in done.stdout or name in ("open-webui", "n8n")  # which ask the gateway for its models
    assert not re.search(r"\{(v1|root|key|model)\}", done.stdout + done.stderr)
    if apps()[name].container:
        assert "http://host.docker.internal:4711" in done.stdout
        assert "--add-host" in done.stderr
    elif name != "cursor":  # whose servers are elsewhere
        assert "http://127.0.0.1:4711" in done.stdout
        assert "--add-host" not in done.stderr


def test_a_key_is_made_and_put_in(aigw: CommandLine) -> None:
    """A consumer of its own, so that its use is seen apart; once more adds a key to it."""
    done = aigw("connect", "curl", "--key", "my curl")
    found = re.search(PATTERN, done.stdout)
    assert found
    assert "Created my curl with its first key" in done.stderr
    assert found[0] not in done.stderr
    assert "Added a key to my curl" in aigw("connect", "curl", "--key", "my curl").stderr
    listed = json.loads(aigw("keys", "--json").stdout)
    assert [one["name"] for one in listed] == ["my curl", "my curl"]
    for wrong in (("curl", "--key", "operator"), ("curl", "--key", ""), ("--key", "x")):
        assert aigw("connect", *wrong).returncode == 2


def test_what_is_wrong_usage(aigw: CommandLine) -> None:
    """A typo gets the nearest name; a model's name that would mean something to a shell is refused, or left out."""
    done = aigw("connect", "curosr")
    assert done.returncode == 2
    assert "did you mean cursor" in done.stderr
    assert aigw("connect", "curl", "-m", "x'; rm -rf ~; '").returncode == 2
    assert aigw("connect", "curl", "--csv").returncode == 2
    assert aigw("connect", "curl", "--url", "nonsense").returncode == 2
    models = json.dumps(["$(touch here)"])
    aigw.config.write_text(
        f'[providers.far]\nkind = "openai-compatible"\nbase_url = "http://127.0.0.1:1/v1"\nmodels = {models}\n'
    )
    done = aigw("connect", "curl")
    assert "touch" not in done.stdout
    assert '"model": "MODEL"' in done.stdout
    assert "-m puts it in" in done.stderr


def test_another_address(aigw: CommandLine) -> None:
    """As the application reaches it: behind a proxy with TLS, for example."""
    done = aigw("connect", "dify", "--url", "https://ai.corp.example/v1", "-m", "x")
    assert "https://ai.corp.example/v1" in done.stdout
    assert "docker" not in done.stdout + done.stderr


def test_json(aigw: CommandLine) -> None:
    """The same for programs."""
    found = json.loads(aigw("connect", "cline", "--json").stdout)
    assert found["fields"]["Base URL"] == found["url"] == "http://127.0.0.1:8080/v1"
    assert found["source"] == apps()["cline"].source


def snippet(gateway: Gateway, name: str) -> str:
    done = gateway.aigw("connect", name, "--key", name)
    assert done.returncode == 0, done.stderr
    key = re.search(PATTERN, done.stdout)
    assert key
    eventually(lambda: gateway.ask(None, "/v1/models", method="GET", key=key[0]).status == 200)
    return done.stdout


def executed(*command: str, **more: Any) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **more)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_snippets_work_as_they_are(gateway: Gateway) -> None:
    """curl in a shell, and the two SDKs: printed, run, answered."""
    said = "You said: Hello"
    assert said in executed("sh", input=snippet(gateway, "curl"))
    assert said in executed(sys.executable, "-c", snippet(gateway, "openai-python"))
    assert said in executed(sys.executable, "-c", snippet(gateway, "anthropic-python"))
    assert {one.consumer for one in eventually(lambda: gateway.records() if len(gateway.records()) == 3 else [])} == {
        "curl",
        "openai-python",
        "anthropic-python",
    }


def test_data_files_are_what_they_seem(gateway: Gateway) -> None:
    """JSON for Zed and YAML for Continue have the shape that these read."""
    _, begin, rest = gateway.aigw("connect", "zed").stdout.partition('"language_models"')
    zed = json.loads("{" + begin + rest + "}")
    assert zed["language_models"]["openai_compatible"]["aigw"]["api_url"] == f"{gateway.url}/v1"
    lines = gateway.aigw("connect", "continue").stdout.splitlines()
    assert lines[0] == "models:"
    assert f"    apiBase: {gateway.url}/v1" in lines
