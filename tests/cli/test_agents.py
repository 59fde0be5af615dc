"""What each agent is told. That the agents take it so is tried with the agents themselves: tests/e2e/test_agents.py."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from aigw.cli.agents import AGENTS, Launch, Situation
from aigw.cli.offers import Offers
from tests.cli.test_offers import offers

CLAUDE = '[providers.anthropic]\nkeys = ["env:NOT_HERE"]\n'
OPENAI = '[providers.openai]\nkeys = ["env:NOT_HERE"]\n'
URL, KEY = "http://127.0.0.1:8080", "sk-aigw-key"


def launch(agent: str, found: Offers, chosen: str | None = None) -> Launch:
    situation = Situation(URL, KEY, chosen, found)
    return AGENTS[agent].launch(situation, AGENTS[agent].model(situation))


def test_claude_code_keeps_its_own_models_where_they_are_served(tmp_path: Path) -> None:
    """Address and key; what would lead elsewhere is taken away; no model is named."""
    variables, arguments = launch("claude", offers(tmp_path, CLAUDE))
    assert {name: value for name, value in variables.items() if value is not None} == {
        "ANTHROPIC_BASE_URL": URL,
        "ANTHROPIC_AUTH_TOKEN": KEY,
    }
    assert {"ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX"} <= set(
        variables
    )
    assert list(arguments) == []


def test_claude_code_with_another_model(tmp_path: Path) -> None:
    """Every tier is that model: asked for by -m, or because nobody serves Anthropic's own names."""
    deepseek = '[providers.deepseek]\nkeys = ["env:NOT_HERE"]\n'
    for found, chosen in ((offers(tmp_path, CLAUDE), "claude-opus-4-8"), (offers(tmp_path, deepseek), None)):
        variables = launch("claude", found, chosen).variables
        model = chosen or found.choice("messages")
        tiers = [name for name, value in variables.items() if value == model]
        assert tiers == ["ANTHROPIC_MODEL"] + [f"ANTHROPIC_DEFAULT_{one}_MODEL" for one in ("OPUS", "SONNET", "HAIKU", "FABLE")]
        assert variables["ANTHROPIC_SMALL_FAST_MODEL"] is None


@pytest.mark.parametrize(
    "place", ["home/.claude/settings.json", "work/.claude/settings.json", "work/.claude/settings.local.json"]
)
def test_claude_code_settings_that_beat_the_environment(tmp_path: Path, place: str) -> None:
    """They are named, with what they set: the operator's key must not go to another address. Others are nobody's business."""
    home, work, file = tmp_path / "home", tmp_path / "work", tmp_path / place
    file.parent.mkdir(parents=True)
    started = launch("claude", offers(tmp_path, CLAUDE))
    obstacles = AGENTS["claude"].obstacles
    assert obstacles(home, work, started) == []
    file.write_text(json.dumps({"env": {"ANTHROPIC_BASE_URL": "https://elsewhere", "FOO": "1"}, "apiKeyHelper": "cat key"}))
    assert obstacles(home, work, started) == [
        f"{file} sets ANTHROPIC_BASE_URL, apiKeyHelper, which beats the environment; take it out of there"
    ]
    for harmless in ('{"env": {"FOO": "1"}}', json.dumps({"env": {"ANTHROPIC_BASE_URL": URL}}), "{}", "[]", "not json"):
        file.write_text(harmless)
        assert obstacles(home, work, started) == []


def test_codex(tmp_path: Path) -> None:
    """A provider of its own by flags in TOML, whose key is in a variable: not one argument holds it."""
    variables, arguments = launch("codex", offers(tmp_path, OPENAI), 'odd "name"')
    assert variables == {"AIGW_API_KEY": KEY}
    assert set(arguments[::2]) == {"-c"}
    settings = tomllib.loads("\n".join(arguments[1::2]))
    assert settings["model_providers"]["aigw"] == {
        "name": "aigw",
        "base_url": f"{URL}/v1",
        "env_key": "AIGW_API_KEY",
        "wire_api": "responses",
    }
    assert (settings["model_provider"], settings["model"]) == ("aigw", 'odd "name"')
    assert KEY not in " ".join(arguments)


def test_opencode(tmp_path: Path) -> None:
    """Models by the API that they are served by; its config holds the variable's name, not the key."""
    both = CLAUDE + OPENAI + '[routes.a]\ntargets = [{provider = "openai"}]\n[routes.b]\ntargets = [{provider = "anthropic"}]\n'
    variables, arguments = launch("opencode", offers(tmp_path, both), "a")
    assert arguments == ()
    content = json.loads(variables["OPENCODE_CONFIG_CONTENT"] or "")
    assert (content["model"], content["small_model"]) == ("aigw/a", "aigw/a")
    assert {name: (one["npm"], list(one["models"])) for name, one in content["provider"].items()} == {
        "aigw": ("@ai-sdk/openai-compatible", ["a"]),
        "aigw-anthropic": ("@ai-sdk/anthropic", ["b"]),
    }
    assert content["provider"]["aigw"]["options"] == {"baseURL": f"{URL}/v1", "apiKey": "{env:AIGW_API_KEY}"}
    assert KEY not in (variables["OPENCODE_CONFIG_CONTENT"] or "")
    by_messages = json.loads(launch("opencode", offers(tmp_path, both), "b").variables["OPENCODE_CONFIG_CONTENT"] or "")
    assert by_messages["model"] == "aigw-anthropic/b"


def test_qwen_code(tmp_path: Path) -> None:
    """OpenAI's variables, and the kind of account by a flag: else the one it is logged in with is used."""
    variables, arguments = launch("qwen", offers(tmp_path, OPENAI))
    assert {name: value for name, value in variables.items() if value is not None} == {
        "OPENAI_BASE_URL": f"{URL}/v1",
        "OPENAI_API_KEY": KEY,
        "OPENAI_MODEL": offers(tmp_path, OPENAI).choice("chat"),
    }
    assert list(arguments) == ["--auth-type", "openai"]


def test_gemini_cli(tmp_path: Path) -> None:
    """Address, key and model by its variables; whatever leads to Google is taken away; the settings that choose the kind of
    account are a file of ours that is there."""
    variables, arguments = launch("gemini", offers(tmp_path, OPENAI))
    assert {name: value for name, value in variables.items() if value is not None} == {
        "GOOGLE_GEMINI_BASE_URL": URL,
        "GEMINI_API_KEY": KEY,
        "GEMINI_MODEL": offers(tmp_path, OPENAI).choice("generate"),
        "GEMINI_CLI_SYSTEM_SETTINGS_PATH": variables["GEMINI_CLI_SYSTEM_SETTINGS_PATH"],
    }
    settings = json.loads(Path(variables["GEMINI_CLI_SYSTEM_SETTINGS_PATH"] or "").read_text())
    assert settings == {"security": {"auth": {"selectedType": "gemini-api-key"}}}
    assert {"GOOGLE_API_KEY", "GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_GENAI_USE_GCA"} <= variables.keys()
    assert not arguments


def test_an_env_file_that_leads_gemini_cli_elsewhere_is_named(tmp_path: Path) -> None:
    """It would set again what was taken away."""
    agent = AGENTS["gemini"]
    there = launch("gemini", offers(tmp_path, OPENAI))
    assert agent.obstacles(tmp_path, tmp_path, there) == []
    (tmp_path / ".env").write_text("GEMINI_API_KEY=x\nexport GOOGLE_GENAI_USE_VERTEXAI=true\n")
    (found,) = set(agent.obstacles(tmp_path, tmp_path, there))
    assert "GOOGLE_GENAI_USE_VERTEXAI" in found
    assert "GEMINI_API_KEY" not in found


def test_every_agent_says_how_it_is_installed() -> None:
    """And none is promised that cannot be started."""
    assert set(AGENTS) == {"claude", "codex", "opencode", "qwen", "gemini"}
    for agent in AGENTS.values():
        assert agent.install.startswith("npm install -g ")
