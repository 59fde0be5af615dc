"""`python make_wheel.py DIR [SIGNERS]`: aigw's own wheel and sdist, written with the standard library alone.

The same checkout gives the same bytes: sorted names, one date, fixed modes. No build backend runs. (Who installs from the sdist
uses the backend that pyproject.toml names.) SIGNERS takes the place of aigw/integrity/allowed_signers.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import place
from place import ROOT

SIGNERS = "aigw/integrity/allowed_signers"
DATE = (1980, 1, 1, 0, 0, 0)  # the oldest that a zip can hold


def metadata(project: dict[str, Any]) -> str:
    """METADATA and PKG-INFO (core metadata 2.4)."""
    lines = [
        "Metadata-Version: 2.4",
        f"Name: {project['name']}",
        f"Version: {project['version']}",
        f"Summary: {project['description']}",
        f"License-Expression: {project['license']}",
        *(f"License-File: {name}" for name, _ in licences(project)),
        *(f"Classifier: {one}" for one in project["classifiers"]),
        *(f"Project-URL: {name}, {url}" for name, url in project["urls"].items()),
        f"Requires-Python: {project['requires-python']}",
        *(f"Requires-Dist: {one}" for one in project["dependencies"]),
    ]
    for extra, needs in sorted(project.get("optional-dependencies", {}).items()):
        lines.append(f"Provides-Extra: {extra}")
        for one in needs:
            requirement, _, marker = one.partition(";")
            marker = f"({marker.strip()}) and extra == '{extra}'" if marker else f"extra == '{extra}'"
            lines.append(f"Requires-Dist: {requirement.strip()} ; {marker}")
    lines += ["Description-Content-Type: text/markdown", "", (ROOT / project["readme"]).read_text("utf-8")]
    return "\n".join(lines)


def licences(project: dict[str, Any]) -> list[tuple[str, bytes]]:
    """Name and text of each licence file."""
    files = sorted(path for pattern in project["license-files"] for path in ROOT.glob(pattern))
    return [(path.relative_to(ROOT).as_posix(), path.read_bytes()) for path in files]


def own_files(signers: Path | None) -> dict[str, bytes]:
    """Path -> content of the package's files."""
    files = {name: path.read_bytes() for name, path in place.package().items()}
    if signers:
        files[SIGNERS] = signers.read_bytes()
    return files


def wheel(folder: Path, project: dict[str, Any], files: dict[str, bytes]) -> Path:
    """Write the wheel into *folder*; returns its path."""
    info = f"aigw-{project['version']}.dist-info"
    scripts = "".join(f"{name} = {target}\n" for name, target in project["scripts"].items())
    files = files | {
        f"{info}/METADATA": metadata(project).encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: packaging/build\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{scripts}".encode(),
        **{f"{info}/licenses/{name}": text for name, text in licences(project)},
    }
    order = sorted(files, key=lambda name: (name.startswith(info), name))  # the metadata comes last, as PEP 427 recommends
    record = "".join(f"{name},sha256={digest(files[name])},{len(files[name])}\n" for name in order) + f"{info}/RECORD,,\n"
    path = folder / f"aigw-{project['version']}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in [*order, f"{info}/RECORD"]:
            entry = zipfile.ZipInfo(name, DATE)
            entry.external_attr = 0o100644 << 16
            entry.create_system = 3  # Unix, wherever it is built
            archive.writestr(entry, record.encode() if name.endswith("/RECORD") else files[name], zipfile.ZIP_DEFLATED, 9)
    return path


def sdist(folder: Path, project: dict[str, Any], files: dict[str, bytes]) -> Path:
    """Write the sdist into *folder*; returns its path."""
    top = f"aigw-{project['version']}"
    files = files | {name: (ROOT / name).read_bytes() for name in ("README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml")}
    files["PKG-INFO"] = metadata(project).encode()
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(files):
            entry = tarfile.TarInfo(f"{top}/{name}")
            entry.size, entry.mode = len(files[name]), 0o644
            archive.addfile(entry, io.BytesIO(files[name]))
    path = folder / f"{top}.tar.gz"
    with path.open("wb") as out, gzip.GzipFile("", "wb", 9, out, mtime=0) as packed:
        packed.write(plain.getvalue())
    return path


def digest(content: bytes) -> str:
    """SHA-256 as RECORD writes it."""
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def main(folder: Path, signers: Path | None) -> None:
    """Both, into *folder*."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    files = own_files(signers)
    wheel(folder, project, files)
    sdist(folder, project, files)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
