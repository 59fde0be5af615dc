"""Models that are proposed, understood, and shadowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from aigw.cli.names import Names
from aigw.cli.wizard import models
from aigw.cli.wizard.models import candidates, dialogue, proposed, shadows, talks, understood
from aigw.cli.wizard.plan import Key, Model, Plan, Provider, meaning
from aigw.config.edit import ConfigFile
from aigw.providers import catalog

OPENAI = Provider("openai", keys=[Key("env:NOT_SET_HERE")])
ANTHROPIC = Provider("anthropic", keys=[Key("env:NOT_SET_HERE_EITHER")])
GPU = Provider("gpu", "openai-compatible", "http://127.0.0.1:1/v1", models=("whisper-9", "own-1", "openai/own-2"))


def names(folder: Path, *providers: Provider) -> Names:
    path = folder / "config.toml"
    return meaning(Plan(path, list(providers)), ConfigFile.read(path), folder)


def test_the_usual_model_comes_first() -> None:
    """Of what the provider lists, where it does; for conversations."""
    row = catalog.row("openai")
    assert proposed(row, [])[0] == row.default_model
    listed = ["text-embedding-3-small", "zzz", row.default_model, "dall-e-3"]
    assert proposed(row, listed) == [row.default_model, "zzz"]
    assert proposed(row, ["tts-1"]) == ["tts-1"]
    assert proposed(catalog.row("openai-compatible"), []) == []


@pytest.mark.parametrize(
    ("model", "is_talk"), [("gpt-6-sol", True), ("qwen3-vl-plus", True), ("bge-m3", False), ("gpt-image-2", False)]
)
def test_what_is_for_conversations(model: str, is_talk: bool) -> None:
    """By its name."""
    assert talks(model) is is_talk


def test_candidates(tmp_path: Path) -> None:
    """Of every provider, in the config's order."""
    found = candidates(names(tmp_path, GPU, ANTHROPIC))
    assert found[:2] == [Model("gpu", "own-1"), Model("gpu", "openai/own-2")]
    assert found[2] == Model("anthropic", catalog.row("anthropic").default_model)


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("openai/gpt-6-sol", Model("openai", "gpt-6-sol")),
        ("gpt-6-sol", Model("openai", "gpt-6-sol")),
        ("own-1", Model("gpu", "own-1")),
        ("gpu/openai/own-2", Model("gpu", "openai/own-2")),
    ],
)
def test_a_model_in_words(tmp_path: Path, text: str, model: Model) -> None:
    """With its provider in front, or where its name goes by itself."""
    assert understood(names(tmp_path, OPENAI, GPU), text) == model


def test_a_model_that_nobody_has(tmp_path: Path) -> None:
    """Of two providers it must be said whose it is; of one it is clear."""
    with pytest.raises(ValueError, match="PROVIDER/MODEL"):
        understood(names(tmp_path, OPENAI, GPU), "nobody-knows")
    assert understood(names(tmp_path, GPU), "nobody-knows") == Model("gpu", "nobody-knows")


def test_which_apis(tmp_path: Path) -> None:
    """OpenAI's, Anthropic's."""
    found = names(tmp_path, OPENAI, ANTHROPIC)
    assert [dialogue(found, name) for name in ("openai", "anthropic", "nobody")] == [{"chat"}, {"messages"}, set()]


def test_shadows(tmp_path: Path) -> None:
    """Both ways: what the new one loses, and what it takes from another; once for each pair."""
    both = names(tmp_path, ANTHROPIC, Provider("claude-code"))
    (line,) = shadows(both, ["claude-code"])
    assert line.startswith("claude-*")
    assert "anthropic answers" in line
    assert "claude-code/MODEL" in line
    assert shadows(both, ["anthropic"]) == [line]
    assert shadows(both, ["gpu"]) == []
    assert models.shadows(names(tmp_path, OPENAI, ANTHROPIC), ["anthropic"]) == []
