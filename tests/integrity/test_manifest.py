"""What a folder has that its manifest does not say, and the other way round."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aigw.integrity import manifest
from aigw.integrity.manifest import Flaw

ME = frozenset((0, os.getuid()))
FILES = {"bin/python3": b"\x7fELF", "lib/a.py": b"a = 1\n", "lib/__pycache__/a.cpython-311.pyc": b"code", "lib/empty": b""}


def written(folder: Path, **changes: Any) -> bytes:
    """A tree on the disk, and its manifest."""
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o755 if name.startswith("bin/") else 0o644)
    rows = {
        name: [hashlib.sha256(data).hexdigest(), (folder / name).stat().st_mode & 0o777, "aigw"] for name, data in FILES.items()
    }
    said = {
        "format": 1,
        "version": "1.2.3",
        "os": "linux",
        "arch": "x86_64",
        "python": "3.11.2",
        "lock": "0" * 64,
        "files": rows,
    }
    content = json.dumps(said | changes).encode()
    (folder / manifest.NAME).write_bytes(content)
    return content


def test_as_released(tmp_path: Path) -> None:
    wanted = manifest.read(written(tmp_path))
    assert (wanted.version, wanted.files["lib/a.py"].origin) == ("1.2.3", "aigw")
    assert manifest.flaws(tmp_path, wanted, ME) == []


def add(root: Path) -> None:
    (root / "lib/evil.pth").write_text("import os")


def add_folder(root: Path) -> None:
    (root / "lib/new").mkdir()
    (root / "lib/new/x.so").write_bytes(b"")


def link(root: Path) -> None:
    (root / "lib/a.py").unlink()
    (root / "lib/a.py").symlink_to("/etc/hostname")


def grow(root: Path) -> None:
    with (root / "bin/python3").open("ab") as file:
        file.write(b"\0")


CHANGES: dict[str, tuple[Callable[[Path], Any], list[tuple[str, str]]]] = {
    "changed": (lambda root: (root / "lib/a.py").write_bytes(b"a = 2\n"), [("lib/a.py", "was changed")]),
    "a compiled file": (
        lambda root: (root / "lib/__pycache__/a.cpython-311.pyc").write_bytes(b"CODE"),
        [("lib/__pycache__/a.cpython-311.pyc", "was changed")],
    ),
    "longer": (grow, [("bin/python3", "was changed")]),
    "missing": (lambda root: (root / "lib/empty").unlink(), [("lib/empty", "is missing")]),
    "added": (add, [("lib/evil.pth", "was added")]),
    "added in a folder": (add_folder, [("lib/new/x.so", "was added")]),
    "a link": (
        link,
        [("lib/a.py", "is a link or no file, which a release does not have"), ("lib/a.py", "is missing")],
    ),
    "not executable": (
        lambda root: (root / "bin/python3").chmod(0o644),
        [("bin/python3", "has the mode 0644 in place of 0755")],
    ),
    "writable by all": (
        lambda root: (root / "lib/a.py").chmod(0o646),
        [("lib/a.py", "may be changed by others (mode 0646)")],
    ),
    "set-user-id": (
        lambda root: (root / "bin/python3").chmod(0o4755),
        [("bin/python3", "has the set-user-id or set-group-id bit (4755)")],
    ),
    "a folder writable by all": (lambda root: (root / "lib").chmod(0o777), [("lib", "may be changed by others (mode 0777)")]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_difference_is_found(tmp_path: Path, name: str) -> None:
    change, expected = CHANGES[name]
    wanted = manifest.read(written(tmp_path))
    change(tmp_path)
    assert [(flaw.path, flaw.what) for flaw in manifest.flaws(tmp_path, wanted, ME)] == expected


def test_each_single_file(tmp_path: Path) -> None:
    """Whichever byte of whichever file is another: exactly that file is named."""
    wanted = manifest.read(written(tmp_path))
    for name, content in FILES.items():
        for at in range(len(content)):
            (tmp_path / name).write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
            assert manifest.flaws(tmp_path, wanted, ME) == [Flaw(name, "was changed")]
        (tmp_path / name).write_bytes(content)
    assert manifest.flaws(tmp_path, wanted, ME) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another user's files")
def test_another_users_file(tmp_path: Path) -> None:
    wanted = manifest.read(written(tmp_path))
    os.chown(tmp_path / "lib/a.py", 12345, -1)
    assert [flaw.what for flaw in manifest.flaws(tmp_path, wanted, ME)] == ["belongs to user 12345, who could change it"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "Expecting value"),
        (b"[]", "it is no manifest"),
        (b"[" * 100_000, "it is no manifest"),
        (b'{"format": 2}', "its format is 2"),
        (b'{"format": 1}', "it is no manifest"),
        (b'{"format": 1, "files": {"a": 1}}', "it is no manifest"),
        (b"x" * (manifest.LARGEST + 1), "too large"),
    ],
)
def test_no_manifest(content: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        manifest.read(content)


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", ""])
def test_a_path_out_of_the_tree(tmp_path: Path, path: str) -> None:
    content = written(tmp_path, files={path: ["0" * 64, 0o644, "aigw"]})
    with pytest.raises(ValueError, match="outside of the tree"):
        manifest.read(content)
