"""Claude Code, headless, in front of a model that speaks OpenAI's dialect: its requests hold all that is Anthropic's own
(betas, adaptive thinking, context management, server tools), and none of it may stand in its way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Make
from tests.e2e.node import CLAUDE_CODE, Emulator, emulator, install
from tests.e2e.test_claude_code import FIXTURES, claude
from tests.e2e.world import Gateway, eventually

pytestmark = pytest.mark.long  # its program is 240 MB


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    install(CLAUDE_CODE)
    with emulator(tmp_path_factory.mktemp("emulator"), FIXTURES) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(make: Make, far: Emulator) -> Gateway:
    return make(
        f'[providers.openai]\nbase_url = "http://127.0.0.1:{far.port}/v1"\nkeys = ["sk-far"]\n'
        '[routes."claude-*"]\ntargets = [{provider = "openai", model = "gpt-5-mini"}]\n'
    )


def chats(far: Emulator) -> list[dict[str, Any]]:
    """What it was asked in OpenAI's dialect, oldest first."""
    return [entry for entry in far.journal() if entry["path"].startswith("/v1/chat/completions")]


def test_it_answers(gateway: Gateway, far: Emulator, tmp_path: Path) -> None:
    """The question reaches a chat provider, the answer comes back as Anthropic's; what was left out is in the record."""
    said = claude(gateway, tmp_path, "-p", "say hello", ANTHROPIC_AUTH_TOKEN=gateway.key)
    assert said.strip() == "Hello from the emulator."
    record = eventually(lambda: gateway.records("operation = 'messages'"))[-1]
    assert (record.outcome, record.stream, record.provider, record.model) == ("ok", True, "openai", "gpt-5-mini")
    assert (record.input, record.output, record.estimated) == (1200, 9, False)
    assert record.first_token is not None
    assert "context_management" in record.loss
    asked = chats(far)[-1]
    assert asked["body"]["originalByteSize"] > 64 * 1024  # more than the emulator remembers
    assert gateway.key not in json.dumps(asked)


def test_it_uses_tools(gateway: Gateway, tmp_path: Path) -> None:
    """A call streams to it, it runs the tool, sends the result back (the emulator knows it as one)
    and reads the end."""
    flags = ("--allowedTools", "Bash(echo:*)", "--output-format", "stream-json", "--verbose")
    lines = claude(gateway, tmp_path, "-p", "use a tool", *flags, ANTHROPIC_API_KEY=gateway.key).splitlines()
    events = [json.loads(line) for line in lines if line.startswith("{")]
    results = [part for event in events if event["type"] == "user" for part in event["message"]["content"]]
    assert [part["content"] for part in results] == ["the-tool-ran"]
    assert events[-1]["result"] == "It has run."
    assert eventually(lambda: [one.finish_reason for one in gateway.records()][-2:] == ["tool_calls", "stop"])


def test_a_server_tool_does_not_wedge_it(gateway: Gateway, tmp_path: Path) -> None:
    """With web search allowed, and thinking as much as it can."""
    flags = ("--allowedTools", "WebSearch", "--effort", "high")
    said = claude(gateway, tmp_path, "-p", "say hello", *flags, ANTHROPIC_AUTH_TOKEN=gateway.key, MAX_THINKING_TOKENS="31999")
    assert said.strip() == "Hello from the emulator."
