"""`aigw update` against a place with releases: what it takes, keeps, puts back, and everything that it refuses."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import site
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aigw import __version__
from tests.packaging.released import SYSTEM, Cut, Place, Served, stand_in

NEW = f"/0.2.0/aigw-0.2.0-{SYSTEM}"


class Here:
    """This checkout, run as if it had been unpacked from a single file at `program`."""

    def __init__(self, folder: Path, place: Place, base: str) -> None:
        self.home = folder / "home"
        self.program = self.home / "bin/aigw"
        self.program.parent.mkdir(parents=True)
        self.program.write_bytes(stand_in(__version__))
        self.program.chmod(0o755)
        self.runtime = folder / "runtime"
        (self.runtime / "bin").mkdir(parents=True)
        (self.runtime / "bin/python3").symlink_to(sys.executable)
        self.data_dir = self.home / "data"
        self.releases = self.data_dir / "releases"
        self.place, self.base = place, base
        self.environment = {
            "HOME": str(self.home),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{Path(__file__).parents[2]}:{site.getsitepackages()[0]}",
            "AIGW_DATA_DIR": str(self.data_dir),
            "AIGW_RUNTIME": str(self.runtime),
            "AIGW_LAUNCHER": str(self.program),
        }

    def update(self, *options: str, signed_by: Path | None = None, base: str | None = None) -> subprocess.CompletedProcess[str]:
        signers = () if signed_by == Path("/") else ("--signers", str(signed_by or self.place.signers))
        command = [str(self.runtime / "bin/python3"), "-m", "aigw", "update", "--from", base or self.base, *signers, *options]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60, check=False)

    @property
    def untouched(self) -> bool:
        """The old program, and nothing beside it."""
        alone = [path.name for path in self.program.parent.iterdir()] == ["aigw"]
        return self.program.read_bytes() == stand_in(__version__) and alone


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("place"))
    place.publish(__version__)
    place.publish("0.2.0")
    return place


@pytest.fixture
def place(made: Place, tmp_path: Path) -> Place:
    copy = Place.__new__(Place)
    copy.__dict__.update(made.__dict__)
    copy.folder = tmp_path / "releases"
    copy.channel = copy.folder / "channel"
    shutil.copytree(made.folder, copy.folder)
    return copy


@pytest.fixture
def served(place: Place) -> Iterator[Served]:
    with Served(place.folder) as served:
        yield served


@pytest.fixture
def here(place: Place, served: Served, tmp_path: Path) -> Here:
    return Here(tmp_path, place, served.base)


def test_there_and_back(here: Here) -> None:
    """The new program in place, the old one kept; back again; the new one is then what is kept."""
    done = here.update()
    assert done.returncode == 0, done.stderr
    assert "0.1.0 -> 0.2.0, signed by release@aigw" in done.stderr
    assert hashlib.sha256(stand_in("0.2.0")).hexdigest() in done.stderr
    assert here.program.read_bytes() == stand_in("0.2.0")
    assert os.access(here.program, os.X_OK)
    assert (here.releases / "0.1.0/aigw").read_bytes() == stand_in("0.1.0")
    assert (here.releases / "0.2.0/SHA256SUMS").exists()
    assert (here.releases / "0.2.0/SHA256SUMS.sig").exists()
    assert [path.name for path in here.program.parent.iterdir()] == ["aigw"]


def test_back(here: Here) -> None:
    """What is kept of the version before takes its place, its signature checked again."""
    older = here.releases / "0.0.9"
    older.mkdir(parents=True)
    (older / "aigw").write_bytes(stand_in("0.0.9"))
    done = here.update("--rollback", "--dry-run")
    assert (done.returncode, here.untouched) == (0, True)
    assert "aigw 0.0.9 would be put in the place of 0.1.0" in done.stderr
    done = here.update("--rollback")
    assert done.returncode == 0, done.stderr
    assert "aigw 0.0.9 came without signatures" in done.stderr
    assert here.program.read_bytes() == stand_in("0.0.9")
    assert (here.releases / "0.1.0/aigw").read_bytes() == stand_in("0.1.0")


def test_back_to_what_was_tampered_with(here: Here, place: Place) -> None:
    """A kept program that is not the one that was signed, or was withdrawn since, is not put in place."""
    older = here.releases / "0.0.9"
    older.mkdir(parents=True)
    (older / "aigw").write_bytes(stand_in("0.0.9").replace(b"exit 0", b"exit 1"))
    digest = hashlib.sha256(stand_in("0.0.9")).hexdigest()
    (older / "SHA256SUMS").write_text(f"{digest}  aigw-0.0.9-{SYSTEM}\n")
    place.sign(older / "SHA256SUMS")
    done = here.update("--rollback")
    assert (done.returncode, here.untouched) == (1, True)
    assert "what is kept of 0.0.9 is not what was signed" in done.stderr
    (older / "aigw").write_bytes(stand_in("0.0.9")[:-1])
    assert here.update("--rollback").returncode == 1
    (older / "aigw").write_bytes(stand_in("0.0.9"))
    place.revoke("0.0.9", "a hole")
    assert here.update("--check").returncode == 1  # sees the list
    done = here.update("--rollback")
    assert (done.returncode, here.untouched) == (1, True)
    assert "aigw 0.0.9 was withdrawn: a hole" in done.stderr


def test_nothing_to_go_back_to(here: Here) -> None:
    done = here.update("--rollback")
    assert (done.returncode, "no version before 0.1.0 is kept" in done.stderr, here.untouched) == (1, True, True)


def test_check(here: Here, place: Place) -> None:
    """A newer one, a withdrawn one, the newest one."""
    done = here.update("--check")
    assert (done.returncode, done.stdout) == (1, "aigw 0.2.0 is there (this is 0.1.0); next: aigw update\n")
    place.revoke(__version__, "it sends keys away")
    done = here.update("--check")
    assert done.returncode == 1
    assert "aigw 0.1.0, which this is, was withdrawn: it sends keys away" in done.stderr
    assert "Change every key that it could read" in done.stderr
    assert (here.releases / "revoked.json").exists()
    for name in ("revoked.json", "revoked.json.sig"):
        (place.channel / name).unlink()
    assert "was withdrawn" in here.update("--check").stderr  # who has seen it does not forget
    place.tool("latest", place.folder / __version__, place.channel)
    place.sign(place.channel / "latest.json")
    shutil.rmtree(here.releases)
    done = here.update("--check")
    assert (done.returncode, done.stdout) == (0, "aigw 0.1.0 is the newest version.\n")
    assert "is the newest version" in here.update().stderr
    assert here.untouched


def test_dry_run_names_migrations(here: Here, place: Place) -> None:
    """From the signed manifest of the new version: steps of the schema that this one does not have."""
    done = here.update("--dry-run")
    assert (done.returncode, here.untouched) == (0, True)
    assert "Nothing was changed" in done.stderr
    site_packages = "lib/python3.11/site-packages/aigw/storage/migrations"
    files = {f"{site_packages}/{name}.py": ["0" * 64, 0o644, "aigw"] for name in ("m001_initial", "m002_tags", "p002_tags")}
    said = {"format": 1, "version": "0.2.0", "os": "linux", "arch": "x", "python": "3.11", "lock": "", "files": files}
    folder = place.folder / "0.2.0"
    (folder / f"aigw-0.2.0-{SYSTEM}.manifest.json").write_text(json.dumps(said))
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(folder.glob("aigw-*"))]
    (folder / "SHA256SUMS").write_text("".join(lines))
    place.sign(folder / "SHA256SUMS")
    done = here.update("--dry-run")
    assert done.returncode == 0, done.stderr
    assert "The database is changed at the next start, and copied before: m002_tags, p002_tags" in done.stderr
    (folder / f"aigw-0.2.0-{SYSTEM}.manifest.json").write_text("{}")
    done = here.update("--dry-run")
    assert (done.returncode, "is not what was signed" in done.stderr) == (1, True)


# ---- what it refuses


def flip(content: bytes) -> bytes:
    return content[:50] + bytes([content[50] ^ 1]) + content[51:]


def at(where: str, change: Callable[[bytes], bytes | None]) -> Callable[[str, bytes], bytes | None]:
    return lambda path, content: change(content) if path == where else content


SPOILT: dict[str, tuple[Callable[[str, bytes], bytes | None], str]] = {
    "the program": (at(NEW, flip), "is not what was signed: its SHA-256 is"),
    "half of it": (at(NEW, lambda content: Cut(content[:100])), "is not what was signed|broke off"),
    "an error page for it": (at(NEW, lambda _: b"<html>busy</html>"), "is not what was signed"),
    "no program": (at(NEW, lambda _: None), "it answered 404"),
    "the list of hashes": (at("/0.2.0/SHA256SUMS", flip), "does not belong to this content"),
    "no signature": (at("/0.2.0/SHA256SUMS.sig", lambda _: None), "there is no signature"),
    "a broken signature": (at("/0.2.0/SHA256SUMS.sig", flip), "is not believed"),
    "the newest version": (at("/channel/latest.json", flip), "does not belong to this content"),
    "an error page for everything": (lambda path, content: b"<html>busy</html>", "is not believed: this is no SSH signature"),
    "a page without end": (at("/channel/latest.json", lambda _: b"x" * 2_000_000), "larger than it can be"),
    "nothing": (lambda path, content: None, "it answered 404"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_tampering(here: Here, served: Served, name: str) -> None:
    served.spoil, why = SPOILT[name]
    done = here.update()
    assert (done.returncode, here.untouched) == (1, True), done.stderr
    assert any(one in done.stderr for one in why.split("|")), done.stderr
    assert "Traceback" not in done.stderr


def test_an_older_version(here: Here, place: Place) -> None:
    place.publish("0.0.9")
    done = here.update()
    assert (done.returncode, here.untouched) == (1, True)
    assert "0.0.9 is older than this one (0.1.0): refused" in done.stderr


def test_out_of_date(here: Here, place: Place) -> None:
    place.tool("latest", place.folder / "0.2.0", place.channel, "--days", "-1")
    place.sign(place.channel / "latest.json")
    done = here.update()
    assert (done.returncode, here.untouched) == (1, True)
    assert "keeps newer versions back" in done.stderr


def test_a_withdrawn_version(here: Here, place: Place) -> None:
    place.revoke("0.2.0", "it mines coins")
    done = here.update()
    assert (done.returncode, here.untouched) == (1, True)
    assert "aigw 0.2.0 was withdrawn: it mines coins" in done.stderr


def test_a_withdrawn_file(here: Here, place: Place) -> None:
    place.revoke(hashlib.sha256(stand_in("0.2.0")).hexdigest(), "planted on a mirror")
    done = here.update()
    assert (done.returncode, here.untouched) == (1, True)
    assert "was withdrawn: planted on a mirror" in done.stderr


def test_signed_by_a_stranger(here: Here, place: Place) -> None:
    place.sign(place.folder / "0.2.0/SHA256SUMS", keys=[place.stranger])
    done = here.update()
    assert (done.returncode, here.untouched) == (1, True)
    assert "signed with a key that is not trusted here" in done.stderr


def test_nobody_is_trusted(here: Here) -> None:
    """Until the project has keys, nothing is believed by itself."""
    done = here.update(signed_by=Path("/"))
    assert (done.returncode, here.untouched) == (1, True)
    assert "nobody is trusted to sign releases" in done.stderr


def test_another_two_lists(here: Here, place: Place) -> None:
    """The newest version's list and the version's own name different hashes, both signed."""
    program = place.folder / f"0.2.0/aigw-0.2.0-{SYSTEM}"
    program.write_bytes(stand_in("0.2.0") + b"x")
    (place.folder / "0.2.0/SHA256SUMS").write_text(f"{hashlib.sha256(program.read_bytes()).hexdigest()}  {program.name}\n")
    place.sign(place.folder / "0.2.0/SHA256SUMS")
    done = here.update()
    assert (done.returncode, here.untouched) == (1, True)
    assert "the two signed lists name different hashes" in done.stderr


def test_a_program_that_does_not_start(here: Here, place: Place) -> None:
    folder = place.folder / "0.2.0"
    (folder / f"aigw-0.2.0-{SYSTEM}").write_bytes(b"#!/bin/sh\necho 'no such library' >&2\nexit 127\n")
    digest = hashlib.sha256((folder / f"aigw-0.2.0-{SYSTEM}").read_bytes()).hexdigest()
    (folder / "SHA256SUMS").write_text(f"{digest}  aigw-0.2.0-{SYSTEM}\n")
    place.sign(folder / "SHA256SUMS")
    place.tool("latest", folder, place.channel)
    place.sign(place.channel / "latest.json")
    done = here.update()
    assert (done.returncode, here.untouched) == (1, True)
    assert "the new program does not start here (no such library)" in done.stderr


def test_another_update_is_under_way(here: Here) -> None:
    here.releases.mkdir(parents=True)
    with (here.releases / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = here.update()
    assert (done.returncode, here.untouched) == (1, True)
    assert "another update is under way" in done.stderr


def test_this_is_no_single_file(here: Here) -> None:
    """Whoever installed it otherwise is told how it is updated."""
    del here.environment["AIGW_LAUNCHER"]
    done = here.update()
    assert (done.returncode, "or the archive, of the new version" in done.stderr) == (1, True)


def test_places(here: Here, place: Place, served: Served) -> None:
    """A folder; several, of which the first is away; and what is none."""
    assert here.update("--check", base=str(place.folder)).stdout.startswith("aigw 0.2.0 is there")
    assert here.update("--check", base=f"http://127.0.0.1:9 {served.base}").stdout.startswith("aigw 0.2.0 is there")
    for wrong in ("http://mirror.example", "ftp://x", "nonsense"):
        done = here.update("--check", base=wrong)
        assert (done.returncode, "expected https://" in done.stderr) == (2, True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_disk_that_cannot_be_written(here: Here) -> None:
    here.program.parent.chmod(0o555)
    done = here.update()
    assert (done.returncode, "cannot be written to by this user" in done.stderr) == (1, True)
