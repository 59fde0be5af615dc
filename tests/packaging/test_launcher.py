"""The launcher, compiled and joined to a small tree: what it unpacks, what it refuses, and how it says so."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = '#!/bin/sh\necho "$0|$AIGW_LAUNCHER|$AIGW_RUNTIME|$*"\n'
ROOTLESS = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts, other users")


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("launcher") / "launcher"
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-s"]
    subprocess.run(["cc", *flags, "-o", program, ROOT / "packaging/launcher.c", "-lz"], check=True)
    return program


def joined(launcher: Path, folder: Path, name: str = "aigw", **files: str) -> Path:
    """The single file of a tree whose `python3` prints how it was started; *files* lie in lib/."""
    tree = folder / f"{name}.tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "lib").mkdir()
    (tree / "bin/python3").write_text(PYTHON)
    (tree / "bin/python3").chmod(0o755)
    for path, text in ({"name": name} | files).items():
        (tree / "lib" / path).write_text(text)
    file = folder / name
    subprocess.run([sys.executable, ROOT / "packaging/join.py", launcher, tree, file], check=True)
    return file


@pytest.fixture
def file(launcher: Path, tmp_path: Path) -> Path:
    return joined(launcher, tmp_path)


def run(file: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Nothing is in the environment but what is given."""
    return subprocess.run([file, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_a_start(file: Path, tmp_path: Path) -> None:
    """The tree is unpacked below the data directory, the interpreter started isolated, with the arguments as they were."""
    home = tmp_path / "a home"
    home.mkdir()
    ran = run(file, "keys", "create", "a b", "", HOME=str(home))
    python, launched, runtime, arguments = ran.stdout.rstrip("\n").split("|")
    assert ran.returncode == 0
    assert arguments == "-I -S -B -m aigw keys create a b "
    assert launched == str(file)
    assert Path(runtime).parent == home / ".local/share/aigw/rt"
    assert len(Path(runtime).name) == 32
    assert python == f"{runtime}/bin/python3"
    assert {path.name: path.stat().st_mode & 0o777 for path in Path(runtime).rglob("*") if path.is_file()} == {
        "python3": 0o755,
        "name": 0o644,
    }
    assert (home / ".local/share/aigw").stat().st_mode & 0o777 == 0o700
    again = run(file, HOME=str(home))
    assert again.stdout.startswith(python)
    assert [path.name for path in Path(runtime).parent.iterdir()] == [Path(runtime).name]


def test_where_it_unpacks(file: Path, tmp_path: Path) -> None:
    """AIGW_RUNTIME_DIR, else XDG_DATA_HOME, else HOME; relative ones are refused or passed over."""
    named = run(file, AIGW_RUNTIME_DIR=str(tmp_path / "x/y"), XDG_DATA_HOME=str(tmp_path / "data"), HOME=str(tmp_path))
    assert named.stdout.startswith(f"{tmp_path}/x/y/")
    assert run(file, XDG_DATA_HOME=str(tmp_path / "data"), HOME=str(tmp_path)).stdout.startswith(f"{tmp_path}/data/aigw/rt/")
    assert run(file, XDG_DATA_HOME="data", HOME=str(tmp_path)).stdout.startswith(f"{tmp_path}/.local/share/aigw/rt/")
    relative = run(file, AIGW_RUNTIME_DIR="here")
    assert (relative.returncode, relative.stdout) == (1, "")
    assert "it takes an absolute path" in relative.stderr


def test_without_a_home(file: Path, tmp_path: Path) -> None:
    """A private folder in TMPDIR is used, and that is said once; one that others may write to is refused."""
    ran = run(file, TMPDIR=str(tmp_path))
    private = tmp_path / f"aigw-{os.getuid()}"
    assert ran.stdout.startswith(f"{private}/")
    assert "HOME is not set" in ran.stderr
    assert private.stat().st_mode & 0o777 == 0o700
    assert run(file, TMPDIR=str(tmp_path)).stderr == ""
    private.chmod(0o777)
    refused = run(file, TMPDIR=str(tmp_path))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "may be written to by others" in refused.stderr
    shutil.rmtree(private)
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    private.symlink_to(tmp_path / "elsewhere")
    linked = run(file, TMPDIR=str(tmp_path))
    assert linked.returncode == 1
    assert "is not a folder" in linked.stderr


def test_a_damaged_file_starts_nothing(file: Path, tmp_path: Path) -> None:
    """Cut anywhere, or a byte changed anywhere in the payload: it says so, or the system refuses it; nothing is unpacked."""
    whole = file.read_bytes()
    trailer = len(whole) - 56
    payload = trailer - int.from_bytes(whole[trailer + 8 : trailer + 16], "little")
    broken = tmp_path / "broken"
    cuts = [int(len(whole) * part / 50) for part in range(50)]
    for content in [
        *(whole[:cut] for cut in cuts),
        *(
            whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
            for at in (payload, payload + 40, *range(trailer - 1, len(whole)))
        ),
        whole + b"x",
    ]:
        broken.write_bytes(content)
        broken.chmod(0o755)
        try:
            ran = run(broken, AIGW_RUNTIME_DIR=str(tmp_path / "rt"))
        except OSError:  # no program at all: the kernel says so
            continue
        assert ran.returncode != 0
        assert ran.stdout == ""
        assert "download it again" in ran.stderr or ran.returncode < 0, (len(content), ran)
    left = list((tmp_path / "rt").rglob("*")) if (tmp_path / "rt").exists() else []
    assert left == []


def test_a_folder_that_others_may_change_is_refused(file: Path, tmp_path: Path) -> None:
    """A tree, or the folder of trees, that others may write to; a link in the tree's place."""
    base = tmp_path / "rt"
    runtime = Path(run(file, AIGW_RUNTIME_DIR=str(base)).stdout.split("|")[2])
    runtime.chmod(0o777)
    assert "may be written to by others" in run(file, AIGW_RUNTIME_DIR=str(base)).stderr
    runtime.chmod(0o755)
    base.chmod(0o770)
    assert "may be written to by others" in run(file, AIGW_RUNTIME_DIR=str(base)).stderr
    base.chmod(0o700)
    runtime.rename(tmp_path / "moved")
    runtime.symlink_to(tmp_path / "moved")
    linked = run(file, AIGW_RUNTIME_DIR=str(base))
    assert (linked.returncode, linked.stdout) == (1, "")
    assert "is not a folder" in linked.stderr


@ROOTLESS
def test_another_users_folder_is_refused(file: Path, tmp_path: Path) -> None:
    """Who owns the folder could change what runs."""
    base = tmp_path / "rt"
    runtime = Path(run(file, AIGW_RUNTIME_DIR=str(base)).stdout.split("|")[2])
    os.chown(runtime, 12345, 12345)
    assert "belongs to another user (12345" in run(file, AIGW_RUNTIME_DIR=str(base)).stderr
    os.chown(runtime, 0, 0)
    os.chown(base, 12345, 12345)
    refused = run(file, AIGW_RUNTIME_DIR=str(base))
    assert refused.stdout == ""
    assert "belongs to another user (12345" in refused.stderr


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@ROOTLESS
def test_disks_that_cannot_hold_it(launcher: Path, file: Path, tmp_path: Path) -> None:
    """Full, noexec, read-only: said when the folder was named; from a home it goes to TMPDIR instead. Nothing is left."""
    large = joined(launcher, tmp_path, "large", filler=os.urandom(1_500_000).hex())
    with mounted(tmp_path / "full", "size=1m,mode=0755") as disk:
        ran = run(large, AIGW_RUNTIME_DIR=f"{disk}/rt")
        assert (ran.returncode, ran.stdout) == (1, "")
        assert "no space left" in ran.stderr
        assert "AIGW_RUNTIME_DIR" in ran.stderr
        assert list((disk / "rt").iterdir()) == []
    with mounted(tmp_path / "noexec", "noexec,mode=0755") as disk:
        assert "mounted noexec" in run(file, AIGW_RUNTIME_DIR=f"{disk}/rt").stderr
        home = run(file, HOME=str(disk), TMPDIR=str(tmp_path))
        assert home.stdout.startswith(str(tmp_path / "aigw-0"))
        assert "cannot be used" in home.stderr
    shutil.rmtree(tmp_path / "aigw-0")
    with mounted(tmp_path / "readonly", "ro,mode=0755") as disk:
        ran = run(file, AIGW_RUNTIME_DIR=f"{disk}/rt")
        assert (ran.returncode, ran.stdout) == (1, "")
        assert "cannot write" in ran.stderr
        assert run(file, HOME=str(disk), TMPDIR=str(tmp_path)).returncode == 0


def test_first_starts_at_once(launcher: Path, tmp_path: Path) -> None:
    """Eight at once: all run, one tree is left."""
    file = joined(launcher, tmp_path, filler="x" * 3_000_000)
    environment = {"AIGW_RUNTIME_DIR": str(tmp_path / "rt")}
    started = [subprocess.Popen([file], env=environment, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    said = {process.communicate(timeout=60)[0] for process in started}
    assert len(said) == 1
    assert {process.returncode for process in started} == {0}
    assert len(list((tmp_path / "rt").iterdir())) == 1


def test_old_versions_go(launcher: Path, tmp_path: Path) -> None:
    """The one used before stays, for a rollback; one that runs stays, too; others and what a killed start left are removed."""
    base = tmp_path / "rt"
    files = [joined(launcher, tmp_path, f"v{number}") for number in range(4)]
    trees = []
    for file in files[:2]:
        trees.append(Path(run(file, AIGW_RUNTIME_DIR=str(base)).stdout.split("|")[2]))
        time.sleep(0.02)
    python = trees[0] / "bin/python3"
    python.write_text("#!/bin/sh\necho up; exec sleep 60\n")
    with subprocess.Popen([files[0]], env={"AIGW_RUNTIME_DIR": str(base)}, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"up\n"
        for tree, age in zip(trees, (300, 200), strict=True):
            os.utime(tree, (time.time() - age,) * 2)
        (base / ".new.abandoned/bin").mkdir(parents=True)
        os.utime(base / ".new.abandoned", (0, 0))
        (base / "mine").mkdir()
        trees.append(Path(run(files[2], AIGW_RUNTIME_DIR=str(base)).stdout.split("|")[2]))
        assert {path.name for path in base.iterdir()} == {*(tree.name for tree in trees), "mine"}  # v0 runs
        running.kill()
    os.utime(trees[2], (time.time() - 100,) * 2)
    newest = Path(run(files[3], AIGW_RUNTIME_DIR=str(base)).stdout.split("|")[2])
    assert {path.name for path in base.iterdir()} == {trees[2].name, newest.name, "mine"}


def test_a_link_to_it(file: Path, tmp_path: Path) -> None:
    """AIGW_LAUNCHER is the file itself, also through a link."""
    (tmp_path / "link").symlink_to(file)
    assert run(tmp_path / "link", AIGW_RUNTIME_DIR=str(tmp_path / "rt")).stdout.split("|")[1] == str(file)


def test_the_same_tree_gives_the_same_file(launcher: Path, tmp_path: Path) -> None:
    """Dates and order of the files do not matter; a link in the tree is refused."""
    one = joined(launcher, tmp_path, "one", a="1", b="2")
    (tmp_path / "other").mkdir()
    shutil.copytree(tmp_path / "one.tree", tmp_path / "other/tree", copy_function=shutil.copy)
    join = [sys.executable, str(ROOT / "packaging/join.py")]
    subprocess.run([*join, launcher, tmp_path / "other/tree", tmp_path / "other/one"], check=True)
    assert one.read_bytes() == (tmp_path / "other/one").read_bytes()
    (tmp_path / "other/tree/link").symlink_to("/etc/passwd")
    command = [*join, launcher, tmp_path / "other/tree", tmp_path / "x"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "no regular file" in refused.stderr
