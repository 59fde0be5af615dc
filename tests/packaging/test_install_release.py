"""install.sh of a release, through a pipe, in each shell: what it installs, and each way in which it is kept from it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.packaging.home import ROOT
from tests.packaging.released import SYSTEM, Cut, Place, Served, piped, stand_in

SHELLS = {
    "bash": ["bash"],
    "dash": ["dash"],
    "busybox": ["busybox", "ash"],
    "zsh": ["zsh"],
    "ksh": ["ksh"],
    "mksh": ["mksh"],
    "bash as sh": ["bash", "--posix"],
}
PROGRAM = f"/1.1.0/aigw-1.1.0-{SYSTEM}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("place"))
    place.publish("1.0.0")
    place.publish("1.1.0")
    return place


@pytest.fixture
def place(made: Place, tmp_path: Path) -> Place:
    """One of one's own, to be changed."""
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


def install(place: Place, base: str, home: Path, *options: str, shell: str = "dash", **variables: str) -> Any:
    return piped(SHELLS[shell], place.installer.read_bytes(), home, *options, AIGW_DOWNLOAD_BASE=base, **variables)


def contents(home: Path) -> set[str]:
    return {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}


@pytest.mark.parametrize("shell", SHELLS)
def test_one_line(place: Place, served: Served, tmp_path: Path, shell: str) -> None:
    """In each shell: the newest version, its hash and who signed it; run again it stays; taken away nothing is left."""
    if shutil.which(SHELLS[shell][0]) is None:
        pytest.skip(f"{SHELLS[shell][0]} is not here")
    home = tmp_path / "my home"
    ran = install(place, served.base, home, shell=shell)
    assert ran.returncode == 0, ran.stderr
    digest = hashlib.sha256(stand_in("1.1.0")).hexdigest()
    assert f"aigw 1.1.0 is {home}/.local/bin/aigw (sha256 {digest})" in ran.stderr
    assert "signed by release@aigw" in ran.stderr
    assert (home / ".local/bin/aigw").read_bytes() == stand_in("1.1.0")
    assert os.access(home / ".local/bin/aigw", os.X_OK)
    kept = ".local/share/aigw/releases/1.1.0/SHA256SUMS"
    assert contents(home) == {".local/bin/aigw", kept, f"{kept}.sig"}
    assert install(place, served.base, home, shell=shell).returncode == 0
    assert install(place, served.base, home, "--uninstall", shell=shell).returncode == 0
    assert contents(home) == set()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("aigw.")]


def test_from_a_folder(place: Place, tmp_path: Path) -> None:
    """With nothing but file://, and by the script as a file."""
    ran = install(place, f"file://{place.folder}", tmp_path / "home")
    assert ran.returncode == 0, ran.stderr
    environment = {"HOME": str(tmp_path / "two"), "PATH": os.environ["PATH"], "AIGW_DOWNLOAD_BASE": str(place.folder)}
    (tmp_path / "two").mkdir()
    ran = subprocess.run(["sh", place.installer], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr


def test_a_checkout_where_it_is_run_is_not_looked_at(place: Place, served: Served, tmp_path: Path) -> None:
    """Whoever pipes it into a shell in somebody else's folder runs nothing of that folder."""
    home = tmp_path / "home"
    (home / "packaging").mkdir(parents=True)
    (home / "packaging/environment.sh").write_text("touch ../hacked\n")
    (home / "aigw").mkdir()
    (home / "aigw/__main__.py").write_text("")
    assert install(place, served.base, home, shell="bash").returncode == 0
    assert not (tmp_path / "hacked").exists()
    assert not (home / "hacked").exists()


def test_dry_run(place: Place, served: Served, tmp_path: Path) -> None:
    ran = install(place, served.base, tmp_path / "home", "--dry-run", "--demo", "--serve")
    assert ran.returncode == 0, ran.stderr
    assert f"would fetch  {served.base}{PROGRAM}" in ran.stderr
    assert contents(tmp_path / "home") == set()


def test_another_version(place: Place, served: Served, tmp_path: Path) -> None:
    """One that is not pinned is installed by its signature; an older one than what is there is refused."""
    home = tmp_path / "home"
    assert install(place, served.base, home, "--version", "1.0.0").returncode == 0
    assert (home / ".local/bin/aigw").read_bytes() == stand_in("1.0.0")
    assert install(place, served.base, home).returncode == 0
    ran = install(place, served.base, home, "--version=1.0.0")
    assert ran.returncode == 1
    assert "aigw 1.0.0 is older than the 1.1.0 that is installed: refused" in ran.stderr
    assert (home / ".local/bin/aigw").read_bytes() == stand_in("1.1.0")
    ran = install(place, served.base, home, "--version", "9.9.9")
    assert "aigw 9.9.9 is not at" in ran.stderr
    for wrong in ("1", "1.2", "latest", "1.0.0/../x", "1.0.0;id"):
        assert install(place, served.base, home, "--version", wrong).returncode == 2


def without(tmp_path: Path, *programs: str) -> str:
    """A PATH on which these are not."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for one in ("/usr/bin", "/bin"):
        for path in Path(one).iterdir():
            if path.name not in programs and not (folder / path.name).exists():
                (folder / path.name).symlink_to(path)
    return str(folder)


def test_without_ssh_keygen(place: Place, served: Served, tmp_path: Path) -> None:
    """The pinned hash is enough for the pinned version, and said; not for another one, nor where a signature is required."""
    path = without(tmp_path, "ssh-keygen")
    home = tmp_path / "home"
    ran = install(place, served.base, home, PATH=path)
    assert ran.returncode == 0, ran.stderr
    assert "signature not checked; the hash is the one in this installer" in ran.stderr
    ran = install(place, served.base, tmp_path / "two", "--version", "1.0.0", PATH=path)
    assert (ran.returncode, contents(tmp_path / "two")) == (1, set())
    assert "no signature could be checked" in ran.stderr
    ran = install(place, served.base, tmp_path / "two", PATH=path, AIGW_REQUIRE_SIGNATURE="1")
    assert (ran.returncode, contents(tmp_path / "two")) == (1, set())
    assert "AIGW_REQUIRE_SIGNATURE=1: there is no ssh-keygen here" in ran.stderr


def test_with_wget(place: Place, served: Served, tmp_path: Path) -> None:
    if shutil.which("wget") is None:
        pytest.skip("wget is not here")
    ran = install(place, served.base, tmp_path / "home", PATH=without(tmp_path, "curl"))
    assert ran.returncode == 0, ran.stderr


def test_nothing_to_fetch_with(place: Place, served: Served, tmp_path: Path) -> None:
    ran = install(place, served.base, tmp_path / "home", PATH=without(tmp_path, "curl", "wget"))
    assert (ran.returncode, "neither curl nor wget is here" in ran.stderr) == (1, True)


# ---- tampering: each is stopped, says why, and leaves what was there


def flip(content: bytes) -> bytes:
    return content[:50] + bytes([content[50] ^ 1]) + content[51:]


def evil(path: str, content: bytes) -> bytes:
    """The program is another one."""
    return stand_in("1.1.0").replace(b"exit 0", b"exit 1") if path == PROGRAM else content


def evil_with_sums(path: str, content: bytes) -> bytes:
    """The program and its list of hashes are others."""
    if path == "/1.1.0/SHA256SUMS":
        digest = hashlib.sha256(evil(PROGRAM, b"")).hexdigest()
        return f"{digest}  aigw-1.1.0-{SYSTEM}\n".encode()
    return evil(path, content)


def at(where: str, change: Callable[[bytes], bytes | None]) -> Callable[[str, bytes], bytes | None]:
    return lambda path, content: change(content) if path == where else content


def said(**changes: str) -> Callable[[bytes], bytes]:
    return lambda content: json.dumps(json.loads(content) | changes, indent=1).encode()


SPOILT: dict[str, tuple[Callable[[str, bytes], bytes | None], str]] = {
    "the program": (evil, "what came is not aigw 1.1.0: its SHA-256 is"),
    "one byte of it": (at(PROGRAM, flip), "what came is not aigw 1.1.0"),
    "the program and its hash": (evil_with_sums, "the signature of release@aigw is not good"),
    "an error page for the program": (at(PROGRAM, lambda _: b"<html>busy</html>" * 50), "what came is not aigw 1.1.0"),
    "an error page for everything": (lambda path, content: b"<html>busy</html>", "the signature of release@aigw is not good"),
    "no program": (at(PROGRAM, lambda _: None), "could not be fetched whole"),
    "half of it": (at(PROGRAM, lambda content: Cut(content[:100])), "could not be fetched whole"),
    "no list of hashes": (at("/1.1.0/SHA256SUMS", lambda _: None), "aigw 1.1.0 is not at"),
    "no signature": (at("/1.1.0/SHA256SUMS.sig", lambda _: None), "has no signature of release@aigw"),
    "a signature of something else": (
        at("/1.1.0/SHA256SUMS.sig", flip),
        "the signature of release@aigw is not good. Nothing was changed",
    ),
    "the newest version": (
        at("/channel/latest.json", said(version="9.9.9")),
        "latest.json: the signature of release@aigw is not good",
    ),
    "until when it holds": (at("/channel/latest.json", said(expires="2099-01-01T00:00:00Z")), "is not good"),
    "nothing at all": (lambda path, content: None, "no release could be reached"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_tampering(place: Place, served: Served, tmp_path: Path, name: str) -> None:
    """On an empty home nothing appears; what was installed before is still there, and is not run."""
    served.spoil, why = SPOILT[name]
    home = tmp_path / "home"
    ran = install(place, served.base, home)
    assert (ran.returncode, contents(home)) == (1, set()), ran.stderr
    assert why in ran.stderr
    (home / ".local/bin").mkdir(parents=True, exist_ok=True)
    (home / ".local/bin/aigw").write_bytes(stand_in("1.0.0"))
    (home / ".local/bin/aigw").chmod(0o755)
    assert install(place, served.base, home).returncode == 1
    assert (home / ".local/bin/aigw").read_bytes() == stand_in("1.0.0")
    assert contents(home) == {".local/bin/aigw"}


def test_signed_by_a_stranger(place: Place, served: Served, tmp_path: Path) -> None:
    """A good signature of a key that nobody trusts."""
    place.sign(place.folder / "1.1.0/SHA256SUMS", keys=[place.stranger])
    ran = install(place, served.base, tmp_path / "home")
    assert (ran.returncode, contents(tmp_path / "home")) == (1, set())
    assert "the signature of release@aigw is not good" in ran.stderr


def test_swapped_artefact_sums_and_key(place: Place, served: Served, tmp_path: Path) -> None:
    """Whoever has the mirror and a key of the project's signs other bytes: the hash in the installer stops it."""
    program = place.folder / f"1.1.0/aigw-1.1.0-{SYSTEM}"
    program.write_bytes(evil(PROGRAM, b""))
    (place.folder / "1.1.0/SHA256SUMS").write_text(f"{hashlib.sha256(program.read_bytes()).hexdigest()}  {program.name}\n")
    place.sign(place.folder / "1.1.0/SHA256SUMS")
    ran = install(place, served.base, tmp_path / "home")
    assert (ran.returncode, contents(tmp_path / "home")) == (1, set())
    assert "lists another SHA-256" in ran.stderr


def test_out_of_date(place: Place, served: Served, tmp_path: Path) -> None:
    """A mirror that shows an old state: everything is signed, and too old."""
    place.tool("latest", place.folder / "1.1.0", place.channel, "--days", "-1")
    place.sign(place.channel / "latest.json")
    ran = install(place, served.base, tmp_path / "home")
    assert (ran.returncode, contents(tmp_path / "home")) == (1, set())
    assert "the mirror is out of date, or keeps newer versions back" in ran.stderr


@pytest.mark.parametrize("what", ["1.1.0", "hash"])
def test_withdrawn(place: Place, served: Served, tmp_path: Path, what: str) -> None:
    digest = hashlib.sha256(stand_in("1.1.0")).hexdigest()
    place.revoke(digest if what == "hash" else what, "it mines coins")
    ran = install(place, served.base, tmp_path / "home")
    assert (ran.returncode, contents(tmp_path / "home")) == (1, set())
    assert "aigw 1.1.0 was withdrawn: it mines coins. Nothing was changed" in ran.stderr


def test_two_signers(tmp_path: Path) -> None:
    """Where two names stand in the list of keys, one signature is none."""
    place = Place(tmp_path / "place", second=True)
    place.publish("1.1.0")
    with Served(place.folder) as served:
        ran = install(place, served.base, tmp_path / "good")
        assert ran.returncode == 0, ran.stderr
        assert "signed by release@aigw and second@aigw" in ran.stderr
        (place.folder / "1.1.0/SHA256SUMS.sig.2").unlink()
        ran = install(place, served.base, tmp_path / "bad")
        assert (ran.returncode, contents(tmp_path / "bad")) == (1, set())
        assert "has no signature of second@aigw" in ran.stderr
        shutil.copy(place.folder / "1.1.0/SHA256SUMS.sig", place.folder / "1.1.0/SHA256SUMS.sig.2")
        assert "the signature of second@aigw is not good" in install(place, served.base, tmp_path / "bad").stderr


def test_a_program_that_does_not_start(place: Place, served: Served, tmp_path: Path) -> None:
    """It says something else than its version, or nothing: it does not take over."""
    place.publish("1.2.0")
    program = place.folder / f"1.2.0/aigw-1.2.0-{SYSTEM}"
    program.write_bytes(stand_in("7.7.7"))
    (place.folder / "1.2.0/SHA256SUMS").write_text(f"{hashlib.sha256(program.read_bytes()).hexdigest()}  {program.name}\n")
    place.sign(place.folder / "1.2.0/SHA256SUMS")
    place.tool("latest", place.folder / "1.2.0", place.channel)
    place.sign(place.channel / "latest.json")
    place.tool("installer", place.folder / "1.2.0", place.signers, place.channel)
    ran = install(place, served.base, tmp_path / "home")
    assert (ran.returncode, contents(tmp_path / "home")) == (1, set())
    assert "does not start here. Nothing was changed" in ran.stderr


@pytest.mark.parametrize("shell", ["dash", "bash", "ksh"])
def test_cut_anywhere(place: Place, served: Served, tmp_path: Path, shell: str) -> None:
    """The script ends after so many bytes: nothing is fetched, nothing is written."""
    if shutil.which(SHELLS[shell][0]) is None:
        pytest.skip(f"{shell} is not here")
    whole = place.installer.read_bytes()
    home = tmp_path / "home"
    for end in [*range(1, len(whole), len(whole) // 50), len(whole) - 2, len(whole) - 10]:
        piped(SHELLS[shell], whole[:end], home, AIGW_DOWNLOAD_BASE=served.base)
        assert (served.asked, contents(home)) == ([], set()), end


def test_two_at_once(place: Place, served: Served, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "AIGW_DOWNLOAD_BASE": served.base}
    running = [subprocess.Popen(["sh", place.installer], env=environment, stderr=subprocess.PIPE) for _ in range(6)]
    said = [one.communicate(timeout=60)[1] for one in running]
    assert [one.returncode for one in running] == [0] * 6, said
    assert (home / ".local/bin/aigw").read_bytes() == stand_in("1.1.0")
    assert {path.name for path in (home / ".local/bin").iterdir()} == {"aigw"}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a mount")
def test_no_space(place: Place, served: Served, tmp_path: Path) -> None:
    """A disk that is full while the program is written: nothing of it stays."""
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", small], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        (small / "filled").write_bytes(b"x" * 4096)
        ran = install(place, served.base, tmp_path / "home", AIGW_BIN_DIR=str(small))
        assert ran.returncode == 1
        assert [path.name for path in small.iterdir()] == ["filled"]
    finally:
        subprocess.run(["umount", small], check=True)


def test_no_home_and_no_permission(place: Place, served: Served, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "AIGW_DOWNLOAD_BASE": served.base}
    ran = subprocess.run(["sh", place.installer], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, "HOME is not set" in ran.stderr) == (1, True)
    (tmp_path / "file").write_text("in the way")
    ran = install(place, served.base, tmp_path / "home", AIGW_BIN_DIR=str(tmp_path / "file"))
    assert (ran.returncode, "cannot make" in ran.stderr) == (1, True)


def test_a_program_of_somebody_else(place: Place, served: Served, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".local/bin").mkdir(parents=True)
    (home / ".local/bin/aigw").write_text("#!/bin/sh\necho mine\n")
    ran = install(place, served.base, home)
    assert (ran.returncode, "exists and is not ours" in ran.stderr) == (1, True)
    assert install(place, served.base, home, "--uninstall").returncode == 0
    assert (home / ".local/bin/aigw").read_text() == "#!/bin/sh\necho mine\n"


@pytest.mark.parametrize("base", ["http://mirror.example", "ftp://x/y", "nonsense"])
def test_a_place_that_is_none(place: Place, tmp_path: Path, base: str) -> None:
    ran = install(place, base, tmp_path / "home")
    assert (ran.returncode, "is no place; expected https://" in ran.stderr) == (1, True)


def test_the_second_place(place: Place, served: Served, tmp_path: Path) -> None:
    """The first one is away: the next one serves. When all are, each says why."""
    ran = install(place, f"http://127.0.0.1:9 {served.base}", tmp_path / "home")
    assert ran.returncode == 0, ran.stderr
    ran = install(place, f"http://127.0.0.1:9 file://{tmp_path}/nowhere", tmp_path / "other")
    assert (ran.returncode, contents(tmp_path / "other")) == (1, set())
    assert "nothing at http://127.0.0.1:9 (" in ran.stderr
    assert f"nothing at file://{tmp_path}/nowhere (" in ran.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_the_quickest_place(place: Place, served: Served, tmp_path: Path, shell: str) -> None:
    """All are asked at once, and the first to answer serves, whichever is named first."""
    if shutil.which(SHELLS[shell][0]) is None:
        pytest.skip(f"{shell} is not here")

    def slow(path: str, content: bytes) -> bytes:
        time.sleep(3)
        return content

    with Served(place.folder) as far:
        far.spoil = slow
        ran = install(place, f"{far.base} {served.base}", tmp_path / "home", shell=shell)
        assert ran.returncode == 0, ran.stderr
        assert f"from {served.base}" in ran.stderr


def test_the_checkout_has_no_pins() -> None:
    """What is published is made by packaging/channel.py; in the sources nothing is pinned."""
    text = (ROOT / "install.sh").read_text()
    for name in ("version", "pins", "signers"):
        assert text.count(f"\npinned_{name}=''\n") == 1
    assert text.endswith('{ main "$0" "$@"; exit; }')
