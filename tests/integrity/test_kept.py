"""What is kept of releases on this machine."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from aigw.integrity import kept, release
from tests.signing import Key, signers


def test_a_file_and_its_signatures(tmp_path: Path) -> None:
    assert kept.signed(tmp_path, "SHA256SUMS") is None
    kept.keep(tmp_path / "new", {"SHA256SUMS": b"sums", "SHA256SUMS.sig": b"one", "SHA256SUMS.sig.2": b"two"})
    assert kept.signed(tmp_path / "new", "SHA256SUMS") == (b"sums", [b"one", b"two"])
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"SHA256SUMS", "SHA256SUMS.sig", "SHA256SUMS.sig.2"}
    assert (tmp_path / "new/SHA256SUMS").stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    (tmp_path / "SHA256SUMS").write_bytes(b"x" * (release.LARGEST + 1))
    with pytest.raises(OSError, match="too large"):
        kept.signed(tmp_path, "SHA256SUMS")


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    """Somebody puts a link where a file goes: the link is replaced, what it points to is not."""
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "place").mkdir()
    (tmp_path / "place/SHA256SUMS").symlink_to(tmp_path / "mine")
    kept.keep(tmp_path / "place", {"SHA256SUMS": b"sums"})
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "place/SHA256SUMS").is_symlink()


def test_versions(tmp_path: Path) -> None:
    """Those with a program, the newest first; what is no version is passed over."""
    assert kept.versions(tmp_path) == []
    for name in ("0.9.0", "0.10.0", "0.10.0rc1", "notes", "1.0.0"):
        (tmp_path / "releases" / name).mkdir(parents=True)
        if name != "1.0.0":
            (tmp_path / "releases" / name / "aigw").touch()
    assert kept.versions(tmp_path) == ["0.10.0", "0.10.0rc1", "0.9.0"]


def test_the_list_of_withdrawn_versions(tmp_path: Path) -> None:
    """Only once its signature was checked; anything else is as good as none."""
    key = Key(tmp_path, "key")
    known = signers(key)
    said = {"format": 1, "date": "2026-01-01T00:00:00Z", "expires": "2027-01-01T00:00:00Z", "versions": {"1.0.0": "why"}}
    content = json.dumps(said).encode()
    place = kept.folder(tmp_path)
    assert kept.revoked(tmp_path, known, time.time()) is None
    kept.keep(place, {"revoked.json": content})
    assert kept.revoked(tmp_path, known, time.time()) is None
    kept.keep(place, {"revoked.json.sig": key.sign(content, release.REVOCATION)})
    found = kept.revoked(tmp_path, known, time.time())
    assert found is not None
    assert found.reason("1.0.0") == "why"
    kept.keep(place, {"revoked.json": content + b" "})
    assert kept.revoked(tmp_path, known, time.time()) is None
    kept.keep(place, {"revoked.json": b"{}", "revoked.json.sig": key.sign(b"{}", release.REVOCATION)})
    assert kept.revoked(tmp_path, known, time.time()) is None
