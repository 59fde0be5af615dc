"""Put aigw itself into an environment, without a build: a copy of the package and the metadata pip would write.

    python place.py id                 a short name for what would be installed: version and a hash of everything in it
    ENV/bin/python place.py copy       into the environment this Python runs in
    ENV/bin/python place.py link       the same for developers: the checkout stays where it is and is linked

No build backend is downloaded, so there is nothing between the checkout and the installed files that would have to be trusted.
"""

from __future__ import annotations

import base64
import compileall
import hashlib
import shutil
import sys
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def sources() -> list[Path]:
    """The package's files, relative to the checkout."""
    found = (path for path in (ROOT / "aigw").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return sorted(path.relative_to(ROOT) for path in found)


LOCK = "aigw/integrity/requirements.lock"
"""Where the lock lies in the installed package, so that `aigw verify` can compare versions."""


def package() -> dict[str, Path]:
    """Path in the package -> file, of everything that is installed."""
    return {path.as_posix(): ROOT / path for path in sources()} | {LOCK: ROOT / "packaging/requirements.lock"}


def identity() -> str:
    """`VERSION-HASH`: the same for the same files, locked dependencies and Python."""
    python = f"{sys.version_info[0]}.{sys.version_info[1]} {Path(sys.executable).resolve()}"
    digest = hashlib.sha256(python.encode())
    for path in [
        Path("packaging/requirements.lock"),
        Path("packaging/place.py"),
        Path("install.sh"),
        Path("packaging/from_source.sh"),
        *sources(),
    ]:
        content = (ROOT / path).read_bytes()
        digest.update(f"\0{path.as_posix()}\0{len(content)}\0".encode() + content)
    return f"{_project()['version']}-{digest.hexdigest()[:12]}"


def copy(site: Path) -> None:
    """Copy and compile the package, and write its metadata."""
    for name, path in package().items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, site / name)
    compileall.compile_dir(site / "aigw", quiet=1)
    _write_metadata(site, [site / name for name in package()])


def link(site: Path) -> None:
    """Let this environment find the checkout; `bin/aigw` starts it."""
    if any(site.glob("aigw-*.dist-info")):
        return  # linked already, by us or by `uv sync`
    pth = site / "aigw-checkout.pth"
    pth.write_text(f"{ROOT}\n", encoding="utf-8")
    script = Path(sys.executable).parent / "aigw"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m aigw "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    _write_metadata(site, [pth])


def _project() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return project


def _write_metadata(site: Path, files: list[Path]) -> None:
    """What `importlib.metadata` and `aigw verify` read; RECORD has the SHA-256 of every file."""
    project = _project()
    folder = site / f"aigw-{project['version']}.dist-info"
    folder.mkdir()
    requires = [f"Requires-Dist: {requirement}" for requirement in project["dependencies"]]
    head = ["Metadata-Version: 2.4", "Name: aigw", f"Version: {project['version']}", f"Summary: {project['description']}"]
    lines = [*head, f"License-Expression: {project['license']}", f"Requires-Python: {project['requires-python']}", *requires]
    points = []
    for group, names in {"console_scripts": project["scripts"], **project.get("entry-points", {})}.items():
        points += [f"[{group}]", *(f"{name} = {target}" for name, target in names.items())]
    content = {"METADATA": lines, "INSTALLER": ["install.sh"], "entry_points.txt": points}
    for name, text in content.items():
        (folder / name).write_text("\n".join(text) + "\n", encoding="utf-8")
    files = [*files, *(folder / name for name in content)]
    record = [f"{path.relative_to(site).as_posix()},sha256={_digest(path)},{path.stat().st_size}" for path in files]
    record.append(f"{folder.name}/RECORD,,")
    (folder / "RECORD").write_text("\n".join(record) + "\n", encoding="utf-8")


def _digest(path: Path) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).rstrip(b"=").decode()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["id"]:
            print(identity())
        case ["copy"]:
            copy(Path(sysconfig.get_path("purelib")))
        case ["link"]:
            link(Path(sysconfig.get_path("purelib")))
        case _:
            raise SystemExit("usage: place.py id|copy|link")
