"""All pages: links lead somewhere, paths exist, every command and every example of a config works."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aigw.cli.commands import assemble
from aigw.cli.main import COMMANDS, app
from aigw.config.load import parse
from tests.docs.pages import PAGES, ROOT, anchors, blocks, links, prose, spans

TOML = [(page, number, block.text) for page in PAGES for number, block in enumerate(blocks(page.read_text(), "toml"), 1)]


def shown(value: object) -> str:
    return value.name if isinstance(value, Path) else str(value) if isinstance(value, int) else ""


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_links(page: Path) -> None:
    """A relative link leads to a file of the repository, and its anchor to a heading there."""
    for link in links(page.read_text(encoding="utf-8")):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_paths(page: Path) -> None:
    """A path of the repository that a page names is there."""
    for word in spans(page.read_text(encoding="utf-8")):
        if re.match(r"(aigw|bench|docs|packaging|tests)/[\w./-]*$", word) and not word.startswith("aigw/cli/NAME"):
            assert (ROOT / word).exists(), word


@pytest.mark.parametrize(("page", "number", "text"), TOML, ids=shown)
def test_examples_of_a_config(page: Path, number: int, text: str, tmp_path: Path) -> None:
    """Each is a whole config: it parses, and with its secrets in place `aigw config check` says that it is fine, without a
    warning."""
    parse(text, f"{page.name}, example {number}")
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "TZ": "UTC"}
    environment |= dict.fromkeys(re.findall(r'"env:(\w+)"', text), "sk-secret-of-a-test")
    for name in re.findall(r'"file:~/([^"]+)"', text):
        secret = tmp_path / name
        secret.parent.mkdir(parents=True, exist_ok=True)
        secret.write_text("sk-another-secret")
        secret.chmod(0o600)
    config = tmp_path / "config.toml"
    config.write_text(text)
    config.chmod(0o600)
    command = [sys.executable, "-m", "aigw", "config", "check", "--config", str(config), "--data-dir", str(tmp_path)]
    ran = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "is fine" in ran.stderr
    assert "warning" not in ran.stderr


def _without_arguments(words: list[str]) -> tuple[str, ...]:
    """*words* up to the first that stands behind a whole command. A word that should be a command and is none stays."""
    command: Any = assemble(app, COMMANDS)
    for at, word in enumerate(words):
        below = getattr(command, "commands", None)
        if below is None:
            return tuple(words[:at])
        if word not in below:
            return tuple(words[: at + 1])
        command = below[word]
    return tuple(words)


def commands() -> dict[tuple[str, ...], set[str]]:
    """Every command of ours that a page shows, in a block or in running text, with the flags it is shown with."""
    found: dict[tuple[str, ...], set[str]] = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        lines = [line for block in blocks(text, "bash") for line in block.text.splitlines()]
        lines += re.findall(r"^    (aigw .*)$", prose(text), re.MULTILINE) + spans(text)
        for line in lines:
            match = re.match(r"aigw ((?:[a-z]+(?: |$))*)(.*)", line.partition("#")[0].strip())
            if match is None:
                continue
            found.setdefault(_without_arguments(match[1].split()), set()).update(re.findall(r"(--[\w-]+)", match[2]))
    return found


def test_commands() -> None:
    """Each is there, and takes the flags it is shown with."""
    found = commands()
    assert ("stats",) in found
    assert ("keys", "create") in found
    for words, flags in found.items():
        if "|" in " ".join(words):
            continue
        command = [sys.executable, "-m", "aigw", *words, "--help"]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert ran.returncode == 0, (words, ran.stderr)
        if words:
            assert f"Usage: aigw {' '.join(words)}" in ran.stdout, words  # not the help of what stands above it
        for flag in flags:
            assert re.search(rf"{flag}\b", ran.stdout), (words, flag)


def test_scripts() -> None:
    """`bash SCRIPT --flag`: the script is there and knows the flag."""
    found: dict[str, set[str]] = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for line in [line for block in blocks(text) for line in block.text.splitlines()] + spans(text):
            match = re.match(r"bash ([\w./]+)(.*)", line)
            if match:
                found.setdefault(match[1], set()).update(re.findall(r"--[\w-]+", match[2].partition("#")[0]))
    assert {"install.sh", "tests/run", "bench/run"} <= set(found)
    for script, flags in found.items():
        source = (ROOT / script).read_text(encoding="utf-8")
        if script == "bench/run":
            source += (ROOT / "bench/__main__.py").read_text(encoding="utf-8") + "--help"
        for flag in flags:
            assert flag in source, (script, flag)


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "dependencies.md"], ids=shown)
def test_lines_end(page: Path) -> None:
    """No page has blanks at the end of a line or tabs, which editors fight over; each ends with one line break."""
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"[ \t]+$|\t", text, re.MULTILINE)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
