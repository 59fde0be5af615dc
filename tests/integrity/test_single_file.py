"""A single file, read without running it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from aigw.integrity import single_file
from tests.packaging.home import ROOT


@pytest.fixture
def made(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "a").mkdir(parents=True)
    (tree / "a/first").write_text("sorted before the manifest")
    (tree / "manifest.json").write_bytes(b'{"files": {}}' * 100_000)  # several blocks of zlib
    launcher = tmp_path / "launcher"
    launcher.write_bytes(b"\x7fELF launcher")
    subprocess.run([sys.executable, ROOT / "packaging/join.py", launcher, tree, tmp_path / "aigw"], check=True)
    return tmp_path / "aigw"


def test_what_it_says(made: Path) -> None:
    found = single_file.read(made)
    content = made.read_bytes()
    assert found.manifest == b'{"files": {}}' * 100_000
    assert found.sha256 == hashlib.sha256(content).hexdigest()
    assert found.launcher == hashlib.sha256(b"\x7fELF launcher").hexdigest()
    assert found.payload == hashlib.sha256(content[13:-56]).hexdigest()
    assert found.folder == found.payload[:32]


def test_cut_or_changed_anywhere(made: Path) -> None:
    """At each of many places: refused, or (in the launcher, which only the hash of the whole covers) another hash."""
    content, whole = made.read_bytes(), single_file.read(made).sha256
    for at in [*range(40), *range(40, len(content), max(1, len(content) // 200)), *range(len(content) - 60, len(content))]:
        made.write_bytes(content[:at])
        with pytest.raises(ValueError, match=r"it is no single file|is missing|damaged or changed"):
            single_file.read(made)
        made.write_bytes(content[:at] + bytes([content[at] ^ 0x80]) + content[at + 1 :])
        try:
            assert single_file.read(made).sha256 != whole
        except ValueError:
            continue


def test_something_else(tmp_path: Path) -> None:
    for content in (b"", b"#!/bin/sh\n", b"\0" * 1000):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(ValueError, match="no single file"):
            single_file.read(tmp_path / "x")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "only").write_text("a file, and no manifest")
    (tmp_path / "launcher").write_bytes(b"x")
    subprocess.run([sys.executable, ROOT / "packaging/join.py", tmp_path / "launcher", tree, tmp_path / "aigw"], check=True)
    with pytest.raises(ValueError, match="no manifest"):
        single_file.read(tmp_path / "aigw")
