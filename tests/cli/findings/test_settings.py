"""What the doctor says about the config."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aigw.cli.findings.settings import look


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "config"
    folder.mkdir(mode=0o700)
    file = folder / "config.toml"
    file.touch(mode=0o600)
    return file


def codes(path: Path, environ: dict[str, str] | None = None, serving: str = "") -> list[str]:
    return [finding.code for finding in look(path, environ or {}, serving).findings]


def test_a_good_one(path: Path) -> None:
    """One line of good news."""
    path.write_text("[providers.demo]\n")
    found = look(path, {})
    assert [finding.code for finding in found.findings] == ["config_ok"]
    assert "1 provider, 0 routes" in found.findings[0].what.english
    assert found.loaded is not None


def test_no_provider(path: Path) -> None:
    """Nothing can be answered: that is a problem, and the wizard is the way out."""
    problem = look(path, {}).findings[-1]
    assert (problem.code, problem.level, problem.next) == ("no_provider", "problem", "aigw init")


def test_mistakes(path: Path) -> None:
    """Each with its line; there is no config to go on with."""
    path.write_text('[server]\nport = "x"\nhots = "y"\n')
    found = look(path, {})
    assert [finding.code for finding in found.findings] == ["config_wrong"] * 2
    assert f"{path}:2" in found.findings[0].what.english
    assert f"{path}:3" in found.findings[1].what.english
    assert found.loaded is None
    path.write_text("[server\n")
    assert codes(path) == ["config_wrong"]


def test_references(path: Path, tmp_path: Path) -> None:
    """A variable that is not set and a file that is missing; a server that has this config could resolve them."""
    path.write_text(f'[providers.openai]\nkeys = ["env:NOPE", "file:{tmp_path}/nope", "env:YES"]\n')
    assert codes(path, {"YES": "sk-1"}) == ["config_wrong", "config_wrong"]
    found = look(path, {"YES": "sk-1"})
    assert found.loaded is not None
    assert "sk-1" not in str(found.findings)
    again = look(path, {"YES": "sk-1"}, serving=found.loaded.hash).findings
    assert [finding.code for finding in again] == ["config_ok", "config_doubtful", "config_doubtful"]
    assert all(finding.level != "problem" for finding in again)


def test_who_may_read_and_change_it(path: Path, tmp_path: Path) -> None:
    """A literal key in a file for everybody, a key's file for everybody, a folder that others write to: each with a chmod that
    helps."""
    secret = tmp_path / "a key"
    secret.write_text("sk-1")
    secret.chmod(0o644)
    path.write_text(f'[providers.openai]\nkeys = ["sk-literal", "file:{secret}"]\n')
    path.chmod(0o644)
    path.parent.chmod(0o777)
    found = look(path, {}).findings
    assert [finding.code for finding in found] == ["config_ok", "config_open", "config_open", "key_file_open"]
    assert "sk-" not in str(found)
    for finding in found[1:]:
        assert os.system(finding.next) == 0
    assert codes(path) == ["config_ok"]
