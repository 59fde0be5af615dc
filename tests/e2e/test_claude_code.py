"""Claude Code, headless, through a real server to an emulator: the agent that most people will point at us."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Make
from tests.e2e.node import CLAUDE_CODE, Emulator, emulator, install
from tests.e2e.world import Gateway, eventually

pytestmark = pytest.mark.long  # its program is 240 MB

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
    {"match": {}, "response": {"content": "Anything else.", "usage": USAGE}},
]


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    install(CLAUDE_CODE)
    with emulator(tmp_path_factory.mktemp("emulator"), FIXTURES) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(make: Make, far: Emulator) -> Gateway:
    return make(f'[providers.anthropic]\nbase_url = "http://127.0.0.1:{far.port}/v1"\nkeys = ["sk-ant-far"]\n')


def claude(gateway: Gateway, home: Path, *arguments: str, **environment: str) -> str:
    """Its standard output; a home of its own, and nothing of it but what the gateway serves."""
    work = home / "work"
    work.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["node", str(CLAUDE_CODE), *arguments],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "ANTHROPIC_BASE_URL": gateway.url,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_TELEMETRY": "1",
            "DISABLE_ERROR_REPORTING": "1",
            "DISABLE_AUTOUPDATER": "1",
        }
        | environment,
        cwd=work,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_answers(gateway: Gateway, far: Emulator, tmp_path: Path) -> None:
    """One question: its words reach the provider as it wrote them (path, betas, a body of tens of KB), with our provider key;
    the record has who asked and what it took."""
    said = claude(gateway, tmp_path, "-p", "say hello", ANTHROPIC_AUTH_TOKEN=gateway.key)
    assert said.strip() == "Hello from the emulator."
    record = eventually(lambda: gateway.records("operation = 'messages'"))[-1]
    assert (record.outcome, record.stream, record.consumer, record.provider) == ("ok", True, "me", "anthropic")
    assert (record.input, record.output, record.estimated) == (1200, 9, False)
    assert record.client_agent.startswith("claude-cli/")
    assert record.bytes_in > 10_000
    assert record.first_token is not None
    asked = [entry for entry in far.journal() if entry["path"].startswith("/v1/messages")][-1]
    headers: dict[str, Any] = {name.lower(): value for name, value in asked["headers"].items()}
    assert "claude-code" in headers["anthropic-beta"]
    assert headers["anthropic-version"] == "2023-06-01"
    assert gateway.key not in json.dumps(asked)


def test_it_uses_tools(gateway: Gateway, tmp_path: Path) -> None:
    """A tool call streams to it, it runs the tool, sends the result back and reads the end."""
    flags = ("--allowedTools", "Bash(echo:*)", "--output-format", "stream-json", "--verbose")
    lines = claude(gateway, tmp_path, "-p", "use a tool", *flags, ANTHROPIC_API_KEY=gateway.key).splitlines()
    events = [json.loads(line) for line in lines if line.startswith("{")]
    results = [part for event in events if event["type"] == "user" for part in event["message"]["content"]]
    assert [part["content"] for part in results] == ["the-tool-ran"]
    assert events[-1]["result"] == "It has run."
    finished = eventually(lambda: [one.finish_reason for one in gateway.records()][-2:] == ["tool_use", "end_turn"])
    assert finished


def test_a_wrong_key_is_said(gateway: Gateway, tmp_path: Path) -> None:
    """It shows what we answered, at once, instead of trying again for minutes."""
    with pytest.raises(AssertionError) as failed:
        claude(gateway, tmp_path, "-p", "say hello", ANTHROPIC_AUTH_TOKEN="sk-aigw-wrong")
    assert "401" in str(failed.value)
    assert "mistyped" in str(failed.value)
