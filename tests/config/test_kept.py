"""What served is found again by its hash."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aigw.config import kept
from aigw.errors import ConfigError


def test_kept_and_found(tmp_path: Path) -> None:
    assert kept.history(tmp_path) == []
    for number, digest in enumerate(("aa11", "ab22", "aa11")):
        kept.keep(tmp_path, digest, f"# {number} ü\r\n")
        os.utime(tmp_path / "configs" / f"{digest}.toml", (number, number))
    assert [(one.hash, one.at, one.text()) for one in kept.history(tmp_path)] == [
        ("aa11", 2, "# 2 ü\r\n"),
        ("ab22", 1, "# 1 ü\r\n"),
    ]
    assert kept.find(tmp_path, "AB").hash == "ab22"
    assert (tmp_path / "configs" / "aa11.toml").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "configs").stat().st_mode & 0o777 == 0o700
    for beginning, said in (("a", "several"), ("x", "no config"), ("", "no config")):
        with pytest.raises(ConfigError, match=said):
            kept.find(tmp_path, beginning)


def test_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST", 3)
    for number in range(6):
        kept.keep(tmp_path, f"{number}", "")
        os.utime(tmp_path / "configs" / f"{number}.toml", (number + 1, number + 1))
    kept.keep(tmp_path, "6", "")
    assert [one.hash for one in kept.history(tmp_path)] == ["6", "5", "4"]


def test_strangers_are_let_be(tmp_path: Path) -> None:
    kept.keep(tmp_path, "aa", "")
    (tmp_path / "configs" / "notes.txt").write_text("mine")
    (tmp_path / "configs" / ".aa.123").write_text("half")
    assert [one.hash for one in kept.history(tmp_path)] == ["aa"]
