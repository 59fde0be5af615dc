"""Coding agents as people start them, `aigw run AGENT`: headless, through a real server, to an emulator of providers."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Make
from tests.e2e.node import CLAUDE_CODE, CODEX, GEMINI_CLI, QWEN_CODE, Emulator, emulator, install
from tests.e2e.world import Gateway, eventually

pytestmark = pytest.mark.long  # the programs are 700 MB

USAGE = {"input_tokens": 1200, "output_tokens": 9}

FIXTURES = [
    {"match": {"userMessage": "say hello"}, "response": {"content": "Hello from the emulator.", "usage": USAGE}},
    {
        "match": {"userMessage": "use a tool", "hasToolResult": False},
        "response": {
            "toolCalls": [{"name": "Bash", "arguments": {"command": "echo the-tool-ran", "description": "say it"}}],
            "usage": USAGE,
        },
    },
    {"match": {"userMessage": "use a tool", "hasToolResult": True}, "response": {"content": "It has run.", "usage": USAGE}},
    {
        "match": {"userMessage": "let codex run it", "hasToolResult": False},
        "response": {"toolCalls": [{"name": "exec_command", "arguments": {"cmd": "echo the-tool-ran"}}], "usage": USAGE},
    },
    {
        "match": {"userMessage": "let codex run it", "hasToolResult": True},
        "response": {"content": "Codex ran it.", "usage": USAGE},
    },
    {
        "match": {"userMessage": "let gemini list it", "hasToolResult": False},
        "response": {"toolCalls": [{"name": "list_directory", "arguments": {"dir_path": "."}}], "usage": USAGE},
    },
    {
        "match": {"userMessage": "let gemini list it", "hasToolResult": True},
        "response": {"content": "Gemini listed it.", "usage": USAGE},
    },
    {"match": {}, "response": {"content": "Anything else.", "usage": USAGE}},
]


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    for program in (CLAUDE_CODE, CODEX, QWEN_CODE, GEMINI_CLI):
        install(program)
    with emulator(tmp_path_factory.mktemp("emulator"), FIXTURES) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(make: Make, far: Emulator) -> Gateway:
    """Nobody made a key: `run` has its own."""
    url = f"http://127.0.0.1:{far.port}/v1"
    config = f'[providers.openai]\nbase_url = "{url}"\nkeys = ["sk-far"]\n'
    config += f'[providers.anthropic]\nbase_url = "{url}"\nkeys = ["sk-ant-far"]\n'
    return make(config, key=False)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the PATH with the agents by the names that people know them by."""
    folder = tmp_path_factory.mktemp("bin")
    node = shutil.which("node")
    for name, program in (("claude", CLAUDE_CODE), ("codex", CODEX), ("qwen", QWEN_CODE), ("gemini", GEMINI_CLI)):
        start = folder / name
        start.write_text(f'#!/bin/sh\nexec "{node}" "{program}" "$@"\n')
        start.chmod(stat.S_IRWXU)
    return folder


def run(gateway: Gateway, programs: Path, work: Path, *arguments: str, **environment: str) -> str:
    """The standard output of `aigw run ...` in *work*."""
    work.mkdir(parents=True, exist_ok=True)
    quiet = {"DISABLE_TELEMETRY": "1", "DISABLE_ERROR_REPORTING": "1", "DISABLE_AUTOUPDATER": "1"}
    quiet["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"] = "1"
    done = subprocess.run(
        [gateway.process.args[0], "-m", "aigw", "run", *arguments],  # type: ignore[index]
        env=gateway.environment | quiet | {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(work)} | environment,
        cwd=work,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_recorded(gateway: Gateway, operation: str, agent: str, model: str) -> None:
    found = eventually(lambda: gateway.records("operation = ? AND consumer = 'operator'", (operation,)))
    assert (found[-1].outcome, found[-1].stream, found[-1].requested_model) == ("ok", True, model)
    assert agent in found[-1].client_agent.lower()


def test_claude_code(gateway: Gateway, programs: Path, tmp_path: Path) -> None:
    """It asks for its own models where they are served; a key of Anthropic's in the shell, and the switch to another cloud,
    do not lead it past the gateway."""
    elsewhere = {"ANTHROPIC_API_KEY": "sk-ant-api03-mine", "CLAUDE_CODE_USE_BEDROCK": "1"}
    said = run(gateway, programs, tmp_path, "claude", "-p", "say hello", **elsewhere)
    assert said.strip() == "Hello from the emulator."
    found = eventually(lambda: gateway.records("operation = 'messages'"))[-1]
    assert found.requested_model.startswith("claude-")
    assert_recorded(gateway, "messages", "claude", found.requested_model)


def test_claude_code_with_a_model_and_tools(gateway: Gateway, programs: Path, tmp_path: Path) -> None:
    """-m stands for every tier that it picks from; its own arguments, and its tools, work as ever."""
    flags = ("--allowedTools", "Bash(echo:*)", "--output-format", "stream-json", "--verbose")
    lines = run(gateway, programs, tmp_path, "claude", "-m", "claude-opus-4-8", "-p", "use a tool", *flags).splitlines()
    events = [json.loads(line) for line in lines if line.startswith("{")]
    results = [part for event in events if event["type"] == "user" for part in event["message"]["content"]]
    assert [part["content"] for part in results] == ["the-tool-ran"]
    assert events[-1]["result"] == "It has run."
    assert_recorded(gateway, "messages", "claude", "claude-opus-4-8")


def test_claude_code_behind_a_proxy(gateway: Gateway, programs: Path, tmp_path: Path) -> None:
    """A proxy in the environment is for the world outside: the gateway is asked directly."""
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    said = run(gateway, programs, tmp_path, "claude", "-p", "say hello", **nowhere)
    assert said.strip() == "Hello from the emulator."


def test_codex(gateway: Gateway, programs: Path, tmp_path: Path) -> None:
    """By the Responses API, without a login, with a config file of another provider in its home."""
    home = tmp_path / ".codex"
    home.mkdir()
    (home / "config.toml").write_text('model = "gpt-5"\nmodel_provider = "openai"\n')
    said = run(gateway, programs, tmp_path, "codex", "-m", "gpt-4o", "exec", "--skip-git-repo-check", "say hello")
    assert said.strip() == "Hello from the emulator."
    assert_recorded(gateway, "responses", "codex", "gpt-4o")


def test_qwen_code(gateway: Gateway, programs: Path, tmp_path: Path) -> None:
    """By the chat API, although it is set to another kind of account, and behind a proxy that it knows no way around."""
    home = tmp_path / ".qwen"
    home.mkdir()
    (home / "settings.json").write_text('{"security": {"auth": {"selectedType": "qwen-oauth"}}}')
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    said = run(gateway, programs, tmp_path, "qwen", "-m", "gpt-4o", "say hello", **nowhere)
    assert said.strip() == "Hello from the emulator."
    assert_recorded(gateway, "chat", "qwen", "gpt-4o")


def test_gemini_cli_with_a_model_of_openais_dialect(gateway: Gateway, programs: Path, tmp_path: Path) -> None:
    """By Gemini's API, translated there and back: it calls a tool, and ends with what the model says then. Neither the account
    it was logged in with nor a proxy leads it elsewhere."""
    home = tmp_path / ".gemini"
    home.mkdir()
    (home / "settings.json").write_text('{"security": {"auth": {"selectedType": "oauth-personal"}}}')
    elsewhere = {"GOOGLE_GENAI_USE_VERTEXAI": "true", "GOOGLE_API_KEY": "AIzaMine", "HTTPS_PROXY": "http://127.0.0.1:9"}
    flags = ("--skip-trust", "--output-format", "json")
    said = run(gateway, programs, tmp_path, "gemini", "-m", "gpt-4o", *flags, "-p", "let gemini list it", **elsewhere)
    answer = json.loads(said[said.index("{") :])
    assert answer["response"] == "Gemini listed it."
    assert answer["stats"]["tools"]["byName"]["list_directory"]["success"] == 1
    assert_recorded(gateway, "generate", "gemini", "gpt-4o")


@pytest.fixture(scope="module")
def chat_only(make: Make, far: Emulator) -> Gateway:
    """A provider whose row knows of no Responses."""
    url = f"http://127.0.0.1:{far.port}/v1"
    config = f'[providers.own]\nkind = "deepseek"\nbase_url = "{url}"\nkeys = ["sk-far"]\nmodels = ["house-model"]\n'
    return make(config, key=False)


def test_codex_with_a_model_that_has_only_a_chat_api(chat_only: Gateway, far: Emulator, programs: Path, tmp_path: Path) -> None:
    """Its Responses are translated there and back: it calls a tool, and the tool's output reaches the model."""
    before = len(far.journal())
    flags = ("exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "--json")
    said = run(chat_only, programs, tmp_path, "codex", "-m", "house-model", *flags, "let codex run it")
    events = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    items = [event["item"] for event in events if event["type"] == "item.completed"]
    assert "the-tool-ran" in json.dumps([item for item in items if item["type"] == "command_execution"])
    assert items[-1]["text"] == "Codex ran it."
    assert_recorded(chat_only, "responses", "codex", "house-model")
    assert {entry["path"] for entry in far.journal()[before:] if entry["method"] == "POST"} == {"/v1/chat/completions"}
