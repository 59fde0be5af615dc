"""With programs in the agents' places that tell what they were given."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.world import Gateway, eventually

PROGRAM = f"""#!{sys.executable}
import json, os, signal, sys
print(json.dumps({{"argv": sys.argv, "environment": dict(os.environ), "pid": os.getpid()
                  }}))
words = sys.argv[1:]
if "exit" in words:
    sys.exit(int(words[words.index("exit") + 1]))
if "die" in words:
    os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = Gateway(tmp_path_factory.mktemp("gateway"))
    programs = running.folder / "bin"
    programs.mkdir()
    for name in ("claude", "codex", "qwen"):
        (programs / name).write_text(PROGRAM)
        (programs / name).chmod(stat.S_IRWXU)
    running.environment["PATH"] = f"{programs}:{os.environ['PATH']}"
    running.start()
    yield running
    running.close()


Done = subprocess.CompletedProcess[str]


def run(gateway: Gateway, *arguments: str, **environment: str) -> Done:
    return subprocess.run(
        [sys.executable, "-m", "aigw", "run", *arguments],
        env=gateway.environment | environment,
        cwd=gateway.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def told(gateway: Gateway, *arguments: str, **environment: str) -> dict[str, Any]:
    done = run(gateway, *arguments, **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_the_agent_finds_the_gateway(gateway: Gateway) -> None:
    """Its variables have the address that the server really listens at, and a key that works, although nobody made one; a key
    of its vendor's is taken away, all else stays."""
    found = told(gateway, "claude", "-p", "Hi", ANTHROPIC_API_KEY="sk-ant-mine", CLAUDE_CODE_USE_VERTEX="1", MINE="stays")
    assert found["argv"][1:] == ["-p", "Hi"]
    variables = found["environment"]
    assert variables["ANTHROPIC_BASE_URL"] == gateway.url
    assert not {"ANTHROPIC_API_KEY", "CLAUDE_CODE_USE_VERTEX"} & set(variables)
    assert (variables["MINE"], variables["ANTHROPIC_MODEL"]) == ("stays", "demo")
    key = variables["ANTHROPIC_AUTH_TOKEN"]
    body = {"model": "demo", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
    assert gateway.ask(body, "/v1/messages", key=key).status == 200
    assert eventually(lambda: gateway.records("consumer = 'operator'"))
    assert key not in " ".join(found["argv"])


def test_a_key_of_ones_own(gateway: Gateway) -> None:
    """By reference; a literal warns and is not repeated."""
    mine = gateway.create_key("mine")["key"]
    eventually(lambda: gateway.ask(None, "/v1/models", method="GET", key=mine).status == 200)
    assert told(gateway, "--key", "env:MINE", "codex", MINE=mine)["environment"]["AIGW_API_KEY"] == mine
    done = run(gateway, "--key", mine, "codex")
    assert "env:NAME" in done.stderr
    assert mine not in done.stderr
    done = run(gateway, "--key", "env:MINE", "codex", MINE="sk-aigw-wrong")
    assert (done.returncode, done.stdout) == (1, "")
    assert "policy_key_invalid" in done.stderr


def test_what_stands_behind_the_name_is_the_agents(gateway: Gateway) -> None:
    """Except for a few flags of ours directly behind it; -- ends them."""
    assert told(gateway, "codex", "exec", "-m", "x", "--dry-run", "-h")["argv"][-5:] == ["exec", "-m", "x", "--dry-run", "-h"]
    argv = told(gateway, "codex", "-m", "demo", "--", "--key", "x")["argv"]
    assert argv[-2:] == ["--key", "x"]
    assert 'model="demo"' in argv
    assert told(gateway, "-m", "demo", "codex", "--help")["argv"][-1] == "--help"
    assert run(gateway, "codex", "-m").returncode == 2


def test_exit_codes_and_signals_are_the_agents(gateway: Gateway) -> None:
    """It takes the process's place: the same process id, its exit code, its death by a signal."""
    assert run(gateway, "codex", "exit", "7").returncode == 7
    assert run(gateway, "codex", "die").returncode == -signal.SIGTERM
    with subprocess.Popen(
        [sys.executable, "-m", "aigw", "run", "codex"], env=gateway.environment, stdout=subprocess.PIPE, text=True
    ) as child:
        said, _ = child.communicate(timeout=30)
        assert json.loads(said)["pid"] == child.pid


def test_past_a_proxy(gateway: Gateway) -> None:
    """NO_PROXY gets this machine besides what stands in it; an agent that minds none is started without the proxy, and it is
    said."""
    proxies = {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": ".corp"}
    variables = told(gateway, "codex", **proxies)["environment"]
    assert variables["HTTPS_PROXY"] == "http://proxy:3128"
    assert variables["NO_PROXY"] == variables["no_proxy"] == ".corp,127.0.0.1,localhost"
    done = run(gateway, "qwen", **proxies)
    assert "HTTPS_PROXY" not in json.loads(done.stdout)["environment"]
    assert "without HTTPS_PROXY" in done.stderr
    assert "NO_PROXY" not in told(gateway, "codex")["environment"]


def test_dry_run_shows_no_key_and_starts_nothing(gateway: Gateway) -> None:
    """The variables and the command, and what is taken away; a missing program is no obstacle."""
    done = run(gateway, "claude", "--dry-run", "-p", "two words", ANTHROPIC_API_KEY="sk-ant-mine")
    assert done.stdout.splitlines() == [
        "ANTHROPIC_API_KEY is taken away",
        f"ANTHROPIC_BASE_URL={gateway.url}",
        "ANTHROPIC_AUTH_TOKEN=sk-aigw-...",
        "ANTHROPIC_MODEL=demo",
        *(f"ANTHROPIC_DEFAULT_{tier}_MODEL=demo" for tier in ("OPUS", "SONNET", "HAIKU", "FABLE")),
        "claude -p 'two words'",
    ]
    assert "sk-ant-mine" not in done.stdout + done.stderr
    done = run(gateway, "--dry-run", "opencode")
    assert done.returncode == 0
    assert "npm install -g opencode-ai" in done.stderr


def test_dry_run_changes_nothing(tmp_path: Path) -> None:
    """No key is made, no server is needed."""
    gateway = Gateway(tmp_path, "[providers.demo]\n")
    gateway.config.write_text("[providers.demo]\n")
    done = run(gateway, "codex", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "http://127.0.0.1:8080/v1" in done.stdout
    assert not gateway.data_dir.exists()


def test_print_env_is_for_a_shell(gateway: Gateway) -> None:
    """`eval "$(aigw run --print-env codex)"`: the variables with the key, and what has no variable as an alias."""
    script = (
        'eval "$("$PYTHON" -m aigw run --print-env claude)"\n'
        'printf "%s\\n" "$ANTHROPIC_BASE_URL" "${ANTHROPIC_API_KEY-gone}" "$ANTHROPIC_AUTH_TOKEN"\n'
        "shopt -s expand_aliases\n"
        'eval "$("$PYTHON" -m aigw run --print-env codex)"\n'
        'eval "codex exec hi"\n'
    )
    environment = gateway.environment | {"PYTHON": sys.executable, "ANTHROPIC_API_KEY": "sk-ant-mine"}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=True)
    url, gone, key, agent = done.stdout.splitlines()
    assert (url, gone, key) == (gateway.url, "gone", (gateway.data_dir / "operator.key").read_text().strip())
    assert json.loads(agent)["argv"][-2:] == ["exec", "hi"]
    assert 'model_provider="aigw"' in json.loads(agent)["argv"]


def test_an_agent_that_is_not_here(gateway: Gateway) -> None:
    """How to get it; a typo gets the nearest."""
    done = run(gateway, "opencode")
    assert (done.returncode, done.stdout) == (1, "")
    assert "npm install -g opencode-ai" in done.stderr
    done = run(gateway, "cluade")
    assert done.returncode == 2
    assert "did you mean claude" in done.stderr
    done = run(gateway, "gemini")
    assert done.returncode == 1
    assert "npm install -g @google/gemini-cli" in done.stderr
    assert run(gateway).returncode == 2


def test_nobody_serves_its_api(gateway: Gateway, tmp_path: Path) -> None:
    """Which API it needs, which models would do, and else which providers; nothing is started."""
    far = Gateway(tmp_path / "one", "")
    far.config.write_text('[providers.voyage]\nkeys = ["env:NOT_HERE"]\n')
    far.environment["PATH"] = gateway.environment["PATH"]
    done = run(far, "codex")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Codex needs OpenAI's Responses API, which no configured provider serves; providers that do: openai," in done.stderr
    done = run(far, "-m", "voyage/voyage-3", "claude")
    assert "Claude Code needs Anthropic's API (/v1/messages), which no provider of voyage/voyage-3 serves" in done.stderr
    far.config.write_text('[providers.gpu]\nkind = "openai-compatible"\nbase_url = "http://127.0.0.1:1/v1"\n')
    done = run(far, "qwen")
    assert "which model? gpu would serve Qwen Code, but list none; name one: -m MODEL" in done.stderr
    done = run(far, "qwen", "-m", "x")
    assert 'no route or provider has a model "x"' in done.stderr
    assert not far.data_dir.exists()


def test_no_server(tmp_path: Path, gateway: Gateway) -> None:
    """The command that starts one; the agent is not started into nothing."""
    far = Gateway(tmp_path / "one", "[providers.demo]\n")
    far.environment["PATH"] = gateway.environment["PATH"]
    done = run(far, "codex")
    assert (done.returncode, done.stdout) == (1, "")
    assert "aigw serve" in done.stderr


def test_claude_settings_stop_it(gateway: Gateway) -> None:
    """What would send the key elsewhere is named, with its file."""
    file = gateway.folder / ".claude/settings.json"
    file.parent.mkdir()
    file.write_text('{"env": {"ANTHROPIC_BASE_URL": "https://elsewhere.example"}}')
    try:
        done = run(gateway, "claude")
    finally:
        file.unlink()
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{file} sets ANTHROPIC_BASE_URL" in done.stderr
