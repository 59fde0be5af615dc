"""`aigw providers add`: what comes into the config, what is refused, what is found out."""

from __future__ import annotations

import resource
import subprocess
import sys
import tomllib
from typing import Any

import pytest

from tests.cli.conftest import CommandLine
from tests.cli.emulated import KEY, MODELS, PAGE, Emulated, Reply, guarded

REFUSED = Reply(400, {"error": {"message": "model is required"}})
WORD = b'data: {"choices":[{"delta":{"content":"hi"}}],"usage":{"prompt_tokens":5}}\n\ndata: [DONE]\n\n'


def server() -> dict[str, Any]:
    def chat(asked: Any) -> Reply:
        return Reply(200, WORD, {"content-type": "text/event-stream"}) if "model" in asked.json else REFUSED

    return {"GET /v1/models": guarded(MODELS), "POST /v1/chat/completions": guarded(chat)}


def read(aigw: CommandLine) -> dict[str, Any]:
    return tomllib.loads(aigw.config.read_text())


def typed(aigw: CommandLine, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command with *text* on its standard input."""
    return subprocess.run(
        [sys.executable, "-m", "aigw", *arguments],
        env=aigw.environment,
        cwd=aigw.folder,
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_row_of_the_catalog_with_a_piped_key(aigw: CommandLine) -> None:
    """The key is peeled, checked, kept in a 0600 file beside the config; the config has a reference; its models are known."""
    aigw.config.write_text("# mine\n")
    answers = {"GET /models": guarded(MODELS), "GET /user/balance": guarded(Reply(200, {"is_available": True}))}
    with Emulated(answers) as far:
        done = typed(aigw, f' export K="{KEY}"\n', "providers", "add", "deepseek", "--base-url", far.root, "--key", "-")
    assert done.returncode == 0, done.stderr
    assert read(aigw) == {"providers": {"deepseek": {"base_url": far.root, "keys": ["file:~/keys/deepseek"]}}}
    assert aigw.config.read_text().startswith("# mine\n")
    kept = aigw.folder / "keys" / "deepseek"
    assert kept.read_text() == f"{KEY}\n"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert "deepseek lists 2 models: small-1, large-1" in done.stderr
    assert KEY not in done.stdout + done.stderr
    assert aigw("providers", "list", "--csv").stdout.splitlines()[1].split(",")[5] == "2"
    assert aigw("config", "check").returncode == 0


def test_a_wrong_key_changes_nothing(aigw: CommandLine) -> None:
    """No table, no file; --no-check writes it all the same."""
    with Emulated({"GET /v1/models": guarded(MODELS)}) as far:
        arguments = ("providers", "add", "gpu", "--kind", "vllm", "--base-url", far.url, "--key", "-")
        done = typed(aigw, "sk-wrong-0123456789", *arguments)
        assert done.returncode == 1
        assert "wrong key" in done.stderr
        assert read(aigw) == {}
        assert not (aigw.folder / "keys").exists()
        assert typed(aigw, "sk-wrong-0123456789", *arguments, "--no-check").returncode == 0
    assert read(aigw)["providers"]["gpu"]["keys"] == ["file:~/keys/gpu"]


def test_an_unknown_server_is_looked_at(aigw: CommandLine) -> None:
    """Without /v1, without a kind: what was found is said and written."""
    with Emulated(server()) as far:
        done = aigw("providers", "add", "gpu", "--base-url", far.root, "--key", "env:GPU_KEY", GPU_KEY=KEY)
    assert done.returncode == 0, done.stderr
    assert read(aigw)["providers"]["gpu"] == {"kind": "openai-compatible", "base_url": far.url, "keys": ["env:GPU_KEY"]}
    for words in ("speaks:  OpenAI", f"address: {far.url}", "models:  small-1, large-1", "usage:   reported in streams"):
        assert words in done.stderr


@pytest.mark.parametrize(
    ("url", "why"), [("{root}", "web page"), ("http://127.0.0.1:9", "nothing listens"), ("gpu", "expected a URL")]
)
def test_a_bad_address_is_explained(aigw: CommandLine, url: str, why: str) -> None:
    """A web page, a closed port, no URL: nothing is written."""
    with Emulated(otherwise=PAGE) as far:
        done = aigw("providers", "add", "gpu", "--base-url", url.format(root=far.root), "--key", "env:GPU_KEY", GPU_KEY=KEY)
    assert done.returncode in (1, 2)
    assert why in done.stderr
    assert read(aigw) == {}


def test_from_env_and_dry_run(aigw: CommandLine) -> None:
    """The row's variable becomes a reference; --dry-run shows the change and sends and writes nothing."""
    assert "is set" in aigw("providers", "add", "openai", "--from-env").stderr
    done = aigw("providers", "add", "openai", "--from-env", "--dry-run", OPENAI_API_KEY=KEY)
    assert done.returncode == 0, done.stderr
    assert '+keys = ["env:OPENAI_API_KEY"]' in done.stdout
    assert aigw.config.read_text() == ""
    done = typed(aigw, KEY, "providers", "add", "openai", "--key", "-", "--dry-run")
    assert done.returncode == 0
    assert KEY not in done.stdout
    assert not (aigw.folder / "keys").exists()


def test_what_the_new_one_takes_and_does_not_take(aigw: CommandLine) -> None:
    """A name that works does not move; the new provider says which names it does not get."""
    aigw.config.write_text('[providers.moonshot]\nkeys = ["env:A"]\n')
    done = aigw("providers", "add", "moonshot-intl", "--key", "env:B", "--no-check", A="sk-a", B="sk-b")
    assert done.returncode == 0, done.stderr
    assert "kimi-" in done.stderr
    assert "still goes to moonshot" in done.stderr


def test_another_vendors_key_is_noticed(aigw: CommandLine) -> None:
    """It is a warning; the check decides. The key is not shown, and a literal becomes a file."""
    done = aigw("providers", "add", "openai", "--no-check", "--key", "sk-ant-0123456789abcdefwxyz")
    assert done.returncode == 0
    assert "looks like a key of anthropic" in done.stderr
    assert "shell's history" in done.stderr
    assert "0123456789" not in done.stdout + done.stderr
    assert read(aigw)["providers"]["openai"]["keys"] == ["file:~/keys/openai"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("opnai",), "did you mean openai"),
        (("openai",), "needs one: --key env:OPENAI_API_KEY"),
        (("azure", "--key", "env:K"), "--set resource="),
        (("openai", "--key", "env:sk-abc"), "not the name of a variable"),
        (("openai", "--key", "file:nowhere.txt"), "cannot read"),
        (("openai", "--key", "-"), "empty"),
        (("openai", "--key", "sk-ab...yz"), "shortened"),
        (("openai", "--key", "-", "--key", "-"), "has one key"),
        (("azure", "--key", "env:K", "--set", "resource"), "NAME=VALUE"),
    ],
)
def test_wrong_usage(aigw: CommandLine, arguments: tuple[str, ...], why: str) -> None:
    """Exit code 2, a reason, and nothing written."""
    done = aigw("providers", "add", *arguments, K=KEY)
    assert done.returncode == 2
    assert why in " ".join(done.stderr.split())
    assert read(aigw) == {}
    assert "Traceback" not in done.stderr


def test_a_name_that_is_taken(aigw: CommandLine) -> None:
    """A second key is another command."""
    aigw.config.write_text('[providers.openai]\nkeys = ["env:A"]\n')
    done = aigw("providers", "add", "openai", "--key", "env:B", A=KEY, B=KEY)
    assert done.returncode == 1
    assert "providers keys add openai" in done.stderr


def test_a_local_server_needs_no_key_and_need_not_run(aigw: CommandLine) -> None:
    """It is added although nothing answers just now."""
    done = aigw("providers", "add", "vllm", "--base-url", "http://127.0.0.1:9/v1")
    assert done.returncode == 0, done.stderr
    assert "nothing listens at 127.0.0.1:9" in done.stderr
    assert read(aigw) == {"providers": {"vllm": {"base_url": "http://127.0.0.1:9/v1"}}}


def test_the_key_is_asked_for_on_a_terminal(aigw: CommandLine) -> None:
    """Hidden; Ctrl-C leaves nothing behind."""
    with Emulated({"GET /v1/models": guarded(MODELS)}) as far:
        arguments = ("providers", "add", "gpu", "--kind", "vllm", "--base-url", far.url, "--key", "-")
        terminal = aigw.terminal(*arguments)
        terminal.expect("Key for gpu")
        terminal.sendintr()
        terminal.wait()
        assert terminal.exitstatus == 130
        assert read(aigw) == {}
        terminal = aigw.terminal(*arguments)
        terminal.expect("Key for gpu")
        terminal.sendline(KEY)
        terminal.expect("Added gpu")
        terminal.wait()
        assert KEY not in terminal.before
    assert terminal.exitstatus == 0


def test_a_config_that_cannot_be_saved_leaves_no_key(aigw: CommandLine) -> None:
    """No room for the config (a limit on the size of files, as a full disk has it): the key's file goes again."""
    before = "# " + "x" * 400 + "\n"
    aigw.config.write_text(before)
    done = subprocess.run(
        [sys.executable, "-m", "aigw", "providers", "add", "openai", "--no-check", "--key", "-"],
        env=aigw.environment | {"PYTHONDONTWRITEBYTECODE": "1"},
        cwd=aigw.folder,
        input=KEY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200)),
    )
    assert done.returncode == 2, done.stderr
    assert "cannot be saved" in done.stderr
    assert aigw.config.read_text() == before
    assert not list((aigw.folder / "keys").iterdir())
