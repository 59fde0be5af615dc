"""docs/cli.md: every command there is, with every verb, and an example of each that works."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aigw.cli.commands import assemble
from aigw.cli.main import COMMANDS, app
from tests.docs.pages import ROOT, blocks, headings, spans

PAGE = (ROOT / "docs/cli.md").read_text(encoding="utf-8")

NOT_RUN = {
    "serve": "does not end by itself",
    "chat": "needs a server",
    "verify": "its exit code is about what is installed",
    "update": "needs releases",
    "doctor": "its exit code is about this machine",
    "top": "does not end by itself",
    "reload": "needs a server",
    "status": "its exit code says whether a server runs",
}


def section(command: str) -> str:
    """The page's part about *command*."""
    _, _, after = PAGE.partition(f"\n## `aigw {command}`\n")
    return after.partition("\n## ")[0]


def verbs(command: Any, name: str = "") -> list[str]:
    below = getattr(command, "commands", None)
    if below is None:
        return [name] if name else []
    return [verb for word in below for verb in verbs(below[word], f"{name} {word}".strip())]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command(name: str) -> None:
    """A section of its own, which names each verb and has an example of it."""
    text = section(name)
    assert text, f"docs/cli.md has no section '## `aigw {name}`'"
    examples = [line for block in blocks(text, "bash") for line in block.text.splitlines()]
    assert examples
    for verb in verbs(assemble(app, COMMANDS).commands[name]):
        assert verb in spans(text), f"`{verb}` is not named"
        assert any(f"{line} ".startswith(f"aigw {name} {verb} ") for line in examples), f"no example of {name} {verb}"


def test_no_other_command() -> None:
    """A section is about a command that exists; they stand in the order of the help."""
    named = [one.title.strip("`").removeprefix("aigw ") for one in headings(PAGE) if one.title.startswith("`aigw ")]
    assert named == list(COMMANDS)


def test_the_examples_work(tmp_path: Path) -> None:
    """All of them, one after the other, in an empty home directory."""
    for key in ("gpu-key", "gpu-key-2"):
        (tmp_path / key).write_text(f"sk-of-a-test-{key}")
        (tmp_path / key).chmod(0o600)
    (tmp_path / "people.csv").write_text("name,group,budget\nbob,search,5usd/day\ncarol,search,\n")
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "TZ": "UTC", "EDITOR": "true", "SHELL": "/bin/bash"}
    for block in blocks(PAGE, "bash"):
        for line in block.text.splitlines():
            words = shlex.split(line, comments=True)
            if words[1] in NOT_RUN:
                continue
            command = [sys.executable, "-m", "aigw", *words[1:]]
            done = subprocess.run(
                command, env=environment, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{line}\n{done.stderr}"
            assert "Traceback" not in done.stderr, line
