"""Coding agents as `aigw run` starts them: which API each speaks, and how it is told where the gateway is.

One function for each, from what is known of the gateway to a `Launch`. The variables are those of the agents' own
documentation, tried with the versions that docs/agents.md names. A key is only ever in a variable: arguments are seen by
everybody on a machine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from aigw.cli.offers import Offers

KEY = "AIGW_API_KEY"
"""The variable with the consumer key, for agents that let their config name one."""


class Launch(NamedTuple):
    """What differs from a plain start: variables to set (None: to take away), and arguments in front of the user's."""

    variables: Mapping[str, str | None]
    arguments: Sequence[str] = ()


class Situation(NamedTuple):
    """The gateway as an agent will see it. `url` is without /v1; `chosen` the model that the user asked for, None when none."""

    url: str
    key: str
    chosen: str | None
    offers: Offers


def _no_obstacles(home: Path, folder: Path, launch: Launch) -> list[str]:
    return []


class Agent(NamedTuple):
    """`operations`: one of these must be served, the first that is decides. `install` makes `program` appear. `obstacles` says
    what, in the home and the working directory, would keep a launch from being what it says. `minds_no_proxy`: it reaches
    what NO_PROXY names directly."""

    name: str
    title: str
    program: str
    operations: tuple[str, ...]
    install: str
    launch: Callable[[Situation, str], Launch]
    obstacles: Callable[[Path, Path, Launch], list[str]] = _no_obstacles
    minds_no_proxy: bool = True

    def model(self, situation: Situation) -> str:
        """The model to begin with: the user's, else what is configured for those who name none. "" when there is none."""
        if situation.chosen is not None:
            return situation.chosen
        return next((found for one in self.operations if (found := situation.offers.choice(one))), "")


CLAUDE_TIERS = ("OPUS", "SONNET", "HAIKU", "FABLE")
"""Claude Code picks a tier by the work; each is a variable. Without one it asks for Anthropic's own names."""

# What would send Claude Code past the gateway, or argue with our key.
_CLAUDE_ELSEWHERE = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_UNIX_SOCKET",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CLAUDE_CODE_USE_ANTHROPIC_AWS",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_FOUNDRY",
    "CLAUDE_CODE_USE_GATEWAY",
    "CLAUDE_CODE_USE_MANTLE",
    "CLAUDE_CODE_USE_VERTEX",
)


def _claude(situation: Situation, model: str) -> Launch:
    variables: dict[str, str | None] = dict.fromkeys(_CLAUDE_ELSEWHERE)
    variables["ANTHROPIC_BASE_URL"] = situation.url
    variables["ANTHROPIC_AUTH_TOKEN"] = situation.key
    if situation.chosen is None and _has_claude(situation.offers):
        return Launch(variables)  # its own names are served as they are
    for name in ("ANTHROPIC_MODEL", *(f"ANTHROPIC_DEFAULT_{tier}_MODEL" for tier in CLAUDE_TIERS)):
        variables[name] = model
    variables["ANTHROPIC_SMALL_FAST_MODEL"] = None  # the old name of the haiku tier
    return Launch(variables)


def _claude_obstacles(home: Path, folder: Path, launch: Launch) -> list[str]:
    """Its settings files can hold variables, and those beat the environment: our key must not go to somebody else's address."""
    found = []
    for file in (home / ".claude/settings.json", folder / ".claude/settings.json", folder / ".claude/settings.local.json"):
        try:
            settings = json.loads(file.read_text(encoding="utf-8"))
            variables = settings.get("env") or {}
            names = [name for name, value in variables.items() if name in launch.variables and value != launch.variables[name]]
        except (OSError, ValueError, AttributeError):  # none, or none that it could read either
            continue
        names += ["apiKeyHelper"] if settings.get("apiKeyHelper") else []
        if names:
            found.append(f"{file} sets {', '.join(names)}, which beats the environment; take it out of there")
    return found


def _has_claude(offers: Offers) -> bool:
    """Whether the names that Claude Code asks for by itself are served, as far as that can be told from here."""
    from aigw.providers import catalog

    return all(offers.serves(name, "messages") for name in catalog.row("anthropic").models[:3])


def _codex(situation: Situation, model: str) -> Launch:
    # Its flags take TOML; JSON strings are TOML strings.
    provider = {"name": "aigw", "base_url": f"{situation.url}/v1", "env_key": KEY, "wire_api": "responses"}
    settings = {f"model_providers.aigw.{name}": value for name, value in provider.items()}
    settings |= {"model_provider": "aigw", "model": model}
    arguments = [word for name, value in settings.items() for word in ("-c", f"{name}={json.dumps(value)}")]
    return Launch({KEY: situation.key}, arguments)


def _opencode(situation: Situation, model: str) -> Launch:
    options = {"baseURL": f"{situation.url}/v1", "apiKey": f"{{env:{KEY}}}"}
    chat = dict.fromkeys(situation.offers.names("chat"))
    messages = dict.fromkeys(name for name in situation.offers.names("messages") if name not in chat)
    by_messages = not situation.offers.serves(model, "chat")
    (messages if by_messages else chat)[model] = None
    providers = {
        "aigw": ("@ai-sdk/openai-compatible", "aigw", chat),
        "aigw-anthropic": ("@ai-sdk/anthropic", "aigw (Anthropic API)", messages),
    }
    first = f"{'aigw-anthropic' if by_messages else 'aigw'}/{model}"
    content = {
        "provider": {
            name: {"npm": package, "name": title, "options": options, "models": {one: {"name": one} for one in models}}
            for name, (package, title, models) in providers.items()
            if models
        },
        "model": first,
        "small_model": first,
    }
    return Launch({"OPENCODE_CONFIG_CONTENT": json.dumps(content, ensure_ascii=False), KEY: situation.key})


def _qwen(situation: Situation, model: str) -> Launch:
    variables: dict[str, str | None] = {
        "OPENAI_BASE_URL": f"{situation.url}/v1",
        "OPENAI_API_KEY": situation.key,
        "OPENAI_MODEL": model,
        "QWEN_OAUTH": None,
        "QWEN_MODEL": None,
    }
    return Launch(variables, ["--auth-type", "openai"])  # else the account it was logged in with is used


GEMINI_SETTINGS = Path(__file__).with_name("gemini_settings.json")

# What would send Gemini CLI to Google, or argue with our key.
_GEMINI_ELSEWHERE = (
    "CODE_ASSIST_ENDPOINT",
    "GOOGLE_API_KEY",
    "GOOGLE_CLOUD_ACCESS_TOKEN",
    "GOOGLE_GENAI_USE_GCA",
    "GOOGLE_GENAI_USE_VERTEXAI",
    "GOOGLE_VERTEX_BASE_URL",
)


def _gemini(situation: Situation, model: str) -> Launch:
    variables: dict[str, str | None] = dict.fromkeys(_GEMINI_ELSEWHERE)
    variables["GOOGLE_GEMINI_BASE_URL"] = situation.url
    variables["GEMINI_API_KEY"] = situation.key
    variables["GEMINI_MODEL"] = model
    variables["GEMINI_API_KEY_AUTH_MECHANISM"] = None  # x-goog-api-key, which is its default
    # With an address alone it takes a kind of account that it then calls invalid (0.61). The system's settings say which it is,
    # and win over an account it was logged in with.
    variables["GEMINI_CLI_SYSTEM_SETTINGS_PATH"] = str(GEMINI_SETTINGS)
    return Launch(variables)


def _gemini_obstacles(home: Path, folder: Path, launch: Launch) -> list[str]:
    """Its .env files are read where a variable is not set: what is taken away here would come back from there."""
    found = []
    for file in (folder / ".gemini/.env", folder / ".env", home / ".gemini/.env", home / ".env"):
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            continue
        said = {line.removeprefix("export ").partition("=")[0].strip() for line in lines}
        names = sorted(said.intersection(_GEMINI_ELSEWHERE))
        if names:
            found.append(f"{file} sets {', '.join(names)}, which leads Gemini CLI elsewhere; take it out of there")
    return found


AGENTS = {
    agent.name: agent
    for agent in (
        Agent(
            "claude",
            "Claude Code",
            "claude",
            ("messages",),
            "npm install -g @anthropic-ai/claude-code",
            _claude,
            _claude_obstacles,
        ),
        Agent("codex", "Codex", "codex", ("responses",), "npm install -g @openai/codex", _codex),
        Agent("opencode", "opencode", "opencode", ("chat", "messages"), "npm install -g opencode-ai", _opencode),
        Agent("qwen", "Qwen Code", "qwen", ("chat",), "npm install -g @qwen-code/qwen-code", _qwen, minds_no_proxy=False),
        Agent("gemini", "Gemini CLI", "gemini", ("generate",), "npm install -g @google/gemini-cli", _gemini, _gemini_obstacles),
    )
}
