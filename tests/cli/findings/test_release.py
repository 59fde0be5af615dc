"""What the doctor says about what is installed, and about what the running server noticed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aigw.cli.findings import release as findings
from aigw.integrity import installed, release
from aigw.integrity.installed import Installation, Kind
from aigw.integrity.sshsig import read_signers
from tests.integrity.test_manifest import written
from tests.signing import Key


def codes(data_dir: Path, state: dict[str, Any] | None = None) -> list[tuple[str, str]]:
    return [(one.code, one.level.value) for one in findings.look(data_dir, state)]


def test_a_checkout_says_nothing(tmp_path: Path) -> None:
    assert codes(tmp_path) == []


def test_a_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it was built, then with a file that was changed."""
    written(tmp_path / "tree")
    monkeypatch.setattr(installed, "find", lambda: Installation(Kind.TREE, None, tmp_path / "tree"))
    assert codes(tmp_path) == [("installed_ok", "ok")]
    (tmp_path / "tree/lib/a.py").write_text("a = 2\n")
    assert codes(tmp_path) == [("installed_changed", "problem")]
    (one,) = findings.look(tmp_path, None)
    assert "lib/a.py was changed" in str(one.what)


def test_withdrawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a list that was signed; one that was not says nothing."""
    key = Key(tmp_path, "key")
    known = read_signers(f"release@aigw {key.public}\n")
    monkeypatch.setattr(release, "signers", lambda: known)
    said = {"format": 1, "date": "2026-01-01T00:00:00Z", "expires": "2027-01-01T00:00:00Z", "versions": {"0.1.0": "it mines"}}
    content = json.dumps(said).encode()
    place = tmp_path / "releases"
    place.mkdir()
    (place / "revoked.json").write_bytes(content)
    (place / "revoked.json.sig").write_bytes(key.sign(content))
    assert codes(tmp_path) == []  # signed for another purpose
    (place / "revoked.json.sig").write_bytes(key.sign(content, release.REVOCATION))
    (one,) = findings.look(tmp_path, None)
    assert (one.code, one.level.value, one.next) == ("installed_withdrawn", "problem", "aigw update")
    assert "was withdrawn: it mines" in str(one.what)


def test_what_the_server_noticed(tmp_path: Path) -> None:
    state = {"integrity": {"oddities": [["process 7", "is a child that the gateway did not start (x)", "ps -fp 7"]]}}
    assert codes(tmp_path, state) == [("server_odd", "warning")]
