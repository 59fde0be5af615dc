"""What shells are told: in a real bash, and by the variables that zsh and fish ask with."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import pexpect
import pytest

if TYPE_CHECKING:
    from conftest import CommandLine

HOSTILE = [  # what a shell would run, expand or take for something else
    "x$(touch pwned)",
    "`touch pwned`",
    "a b",
    "a;b",
    "a'b",
    'a"b',
    "x\\$(touch pwned)",
    "\x1b[2J",
    "-rf",
    "a\nb",
    "~root",
    "a*",
]

WRITTEN = """
[providers.openai]
keys = ["env:NOT_HERE"]
[providers.ollama]
models = ["qwen3:8b", "qwen3:30b", "模型"]
[routes.quick]
targets = [{provider = "openai", model = "gpt-5"}]
[routes."gpt-*"]
targets = [{provider = "openai"}]
[consumers.ci]
key = "env:NOT_HERE"
"""


@pytest.fixture
def written(aigw: CommandLine) -> CommandLine:
    aigw.config.write_text(WRITTEN)
    (aigw.data_dir / "models").mkdir(parents=True)
    kept = {"url": "u", "at": 0.0, "models": ["gpt-5", "gpt-5-mini", *HOSTILE]}
    (aigw.data_dir / "models" / "openai.json").write_text(json.dumps(kept))
    return aigw


def bash_words(line: str) -> list[str]:
    """As bash cuts a line: at blanks, and around ":" and "="."""
    return line.replace(":", " : ").replace("=", " = ").split() + ([""] if line.endswith(" ") else [])


def asked(aigw: CommandLine, line: str, **environment: str) -> list[str]:
    """What bash is told for *line* with the cursor at its end. Nothing but names is ever said."""
    words = bash_words(line)
    done = aigw(_AIGW_COMPLETE="complete_bash", COMP_WORDS="\n".join(words), COMP_CWORD=str(len(words) - 1), **environment)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("aigw conf", ["config"]),
        ("aigw keys re", ["revoke"]),
        ("aigw keys --js", ["--json"]),
        ("aigw keys list --d", ["--data-dir"]),
        ("aigw stats --by con", ["consumer"]),
        ("aigw models --provider ", ["openai", "ollama"]),
        ("aigw models --provider=op", ["openai"]),
        ("aigw models show g", ["gpt-5", "gpt-5-mini"]),
        ("aigw models show qwen3", ["qwen3:8b", "qwen3:30b"]),
        ("aigw models show qwen3:", ["8b", "30b"]),
        ("aigw models show qwen3:3", ["30b"]),
        ("aigw models show 模", ["模型"]),
        ("aigw routes show ", ["quick"]),
        ("aigw routes set new --to ollama/q", ["ollama/qwen3:8b", "ollama/qwen3:30b"]),
        ("aigw routes set new --to=ollama/qwen3:8", ["8b"]),
        ("aigw routes set new --to openai --fallback openai/g", ["openai/gpt-5", "openai/gpt-5-mini"]),
        ("aigw models show nothing", []),
    ],
)
def test_names(written: CommandLine, line: str, expected: list[str]) -> None:
    """Commands, options, choices, and the names of this config; of a word that bash cuts, the rest."""
    assert asked(written, line) == expected


def test_commands_are_those_of_the_help(aigw: CommandLine) -> None:
    """Without a letter typed: all commands, and none of them is imported for it."""
    from aigw.cli.main import COMMANDS

    assert asked(aigw, "aigw ") == list(COMMANDS)


def test_consumers(written: CommandLine) -> None:
    """Those of the store and of the config. Where there is no store none is made for the question."""
    assert asked(written, "aigw keys show ", AIGW_DATA_DIR=str(written.folder / "none")) == ["ci"]
    assert not (written.folder / "none").exists()
    assert written("keys", "create", "alice").returncode == 0
    assert written("keys", "create", "a b").returncode == 0
    for verb in ("show", "revoke", "create"):
        assert asked(written, f"aigw keys {verb} a") == ["alice"]


def test_locations_on_the_line_count(written: CommandLine) -> None:
    """--config and --data-dir that were typed already are obeyed."""
    other = written.folder / "other.toml"
    other.write_text("[routes.slow]\ntargets = []\n")
    assert asked(written, f"aigw routes show --config {other} ") == ["slow"]
    assert asked(written, f"aigw --config {other} routes show ") == ["slow"]


@pytest.mark.parametrize("content", [b"[providers", b"\xff\xfe", b"providers = 1\nroutes = []\n", None])
def test_never_an_error_into_a_shell(written: CommandLine, content: bytes | None) -> None:
    """A broken config, a broken store, nonsense on the line: no name, no message."""
    if content is None:
        written.config.unlink()
    else:
        written.config.write_bytes(content)
    (written.data_dir / "aigw.db").write_bytes(b"this is no database" * 1000)
    for line in (
        "aigw models show ",
        "aigw keys show ",
        "aigw routes set x --to ",
        "aigw --config ",
        "aigw keys list --nope x",
    ):
        assert asked(written, line) == []
    for environment in (
        {"COMP_CWORD": "x", "COMP_WORDS": "aigw"},
        {"COMP_CWORD": "9"},
        {"COMP_WORDS": 'aigw "', "COMP_CWORD": "1"},
    ):
        assert written(_AIGW_COMPLETE="complete_bash", **environment).stderr == ""
    assert written(_AIGW_COMPLETE="nonsense").stderr == ""


def test_other_shells(written: CommandLine) -> None:
    """zsh and fish ask in their own way, and get descriptions too."""
    zsh = {"_AIGW_COMPLETE": "complete_zsh"}
    done = written(**zsh, _TYPER_COMPLETE_ARGS="aigw models show g")
    assert (done.stdout, done.stderr) == ('_arguments \'*: :(("gpt-5"\n"gpt-5-mini"))\'\n', "")
    done = written(**zsh, _TYPER_COMPLETE_ARGS="aigw routes s")
    assert done.stdout.startswith('_arguments \'*: :(("show":"One route with all its settings')
    fish = {"_AIGW_COMPLETE": "complete_fish"}
    done = written(**fish, _TYPER_COMPLETE_FISH_ACTION="get-args", _TYPER_COMPLETE_ARGS="aigw conf")
    assert done.stdout.startswith("config\tThe config file")
    for line, code in (("aigw models show g", 0), ("aigw models show nothing", 1)):
        done = written(**fish, _TYPER_COMPLETE_FISH_ACTION="is-args", _TYPER_COMPLETE_ARGS=line)
        assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_in_a_real_bash(written: CommandLine) -> None:
    """The script that --show-completion prints, sourced by bash: Tab completes, and what strangers call their models is never
    run."""
    command = written.folder / "bin" / "aigw"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m aigw "$@"\n')
    command.chmod(0o700)
    script = written("--show-completion", "bash").stdout
    (written.folder / "completion.sh").write_text(script)
    world = written.environment | {"PATH": f"{command.parent}:{os.environ['PATH']}", "TERM": "dumb", "INPUTRC": "/dev/null"}
    bash = pexpect.spawn(
        "bash",
        ["--norc", "--noprofile", "-i"],
        env=world,  # type: ignore[arg-type] # typed for os.environ only
        cwd=str(written.folder),
        dimensions=(40, 200),
        encoding="utf-8",
        timeout=20,
    )
    try:
        bash.sendline("PS1='<READY>'; bind 'set bell-style none'; bind 'set enable-bracketed-paste off'; source completion.sh")
        bash.expect_exact("<READY>")
        for typed, completed in (
            ("aigw conf", "aigw config "),
            ("aigw keys rev", "aigw keys revoke "),
            ("aigw models show qwen3:8", "aigw models show qwen3:8b "),
            ("aigw models --provider=ope", "aigw models --provider=openai "),
            ("aigw routes set x --to ollama/qwen3:3", "aigw routes set x --to ollama/qwen3:30b "),
            ("aigw models show gp", "aigw models show gpt-5"),
        ):
            bash.send("\x15" + typed + "\t")
            bash.expect_exact(completed)
        bash.send("\x15aigw models show \t\t")
        bash.expect_exact("gpt-5-mini")
        bash.send("\x15exit\r")
        bash.expect(pexpect.EOF)
    finally:
        bash.close(force=True)
    assert not (written.folder / "pwned").exists()


def test_install(aigw: CommandLine) -> None:
    """--install-completion writes what --show-completion shows where the shell looks, twice without harm."""
    for _ in range(2):
        done = aigw("--install-completion", "bash")
        assert done.returncode == 0
    assert (aigw.folder / ".bashrc").read_text().count("aigw.sh") == 1
    shown = aigw("--show-completion", "bash").stdout
    assert (aigw.folder / ".bash_completions" / "aigw.sh").read_text().strip() == shown.strip()
    assert aigw("--install-completion", "fish").returncode == 0
    assert (aigw.folder / ".config/fish/completions/aigw.fish").is_file()
    assert aigw("--install-completion", "zsh").returncode == 0
    assert (aigw.folder / ".zfunc/_aigw").is_file()
