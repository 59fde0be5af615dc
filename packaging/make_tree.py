"""`python make_tree.py TREE WHEELS OWN OS ARCH`: the Python that runs this, and wheels, as a folder that runs wherever it lies.

    bin/python3, bin/python3._pth    the interpreter, and all of its sys.path: no environment, no site, no .pth can add to it
    lib/python3.X                    the standard library, without what a server has no use for
    lib/python3.X/site-packages      the wheels, file by file as their RECORDs say
    lib/shared                       the shared libraries of the interpreter that are not the C library's
    manifest.json                    every file: SHA-256, mode, where it comes from

WHEELS is a file with the path of a wheel on each line; OWN is aigw's. Compiled files do not depend on dates (PEP 552, unchecked
hashes: `aigw verify` is who checks).
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import platform
import py_compile
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path, PurePosixPath

from elf_path import set_path

ROOT = Path(__file__).resolve().parent.parent

LEFT_OUT = frozenset(
    (
        *("test", "tests", "idlelib", "tkinter", "turtle.py", "turtledemo", "lib2to3", "ensurepip", "venv", "pydoc_data"),
        *("distutils", "curses", "dbm", "unittest", "msilib", "EXTERNALLY-MANAGED", "__phello__", "__pycache__"),
        *("lib-dynload", "site-packages", "dist-packages", "sitecustomize.py", "usercustomize.py"),
    )
)
"""Of the standard library: tests, windows on a desktop, what installs packages, and what this machine put there."""

LEFT_OUT_MODULES = (
    *("readline", "nis", "ossaudiodev", "audioop", "spwd", "xx", "_test", "_xx", "_ctypes_test", "_tkinter", "_curses"),
    *("_dbm", "_gdbm", "_crypt", "_uuid", "_lsprof"),
)
"""Beginnings of extension modules' names. readline is the GPL's; the others are old, for tests, or have a twin in Python."""

SOURCES = frozenset((".pyi", ".pyx", ".pxd", ".pxi", ".c", ".h", ".a"))
"""Files of wheels that nothing reads at run time."""

LEFT_OUT_OF_WHEELS = ("frozenlist/_frozenlist.",)
"""Beginnings of paths. This one has a twin in Python, and is the only one that would need the C++ library."""

NOT_COMPILED = ("pygments/lexers/",)
"""Many files of which a start reads one at most: they stay sources."""

C_LIBRARY = ("libc.", "libm.", "libdl.", "libpthread.", "librt.", "libutil.", "libresolv.", "ld-linux", "linux-vdso")

UNCHECKED = py_compile.PycInvalidationMode.UNCHECKED_HASH

Origins = dict[str, str]
"""Path in the tree -> where it comes from."""


def python(tree: Path, origins: Origins) -> Path:
    """The interpreter and its library; returns site-packages."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    library = tree / "lib" / version
    (tree / "bin").mkdir(parents=True)
    binary = tree / "bin/python3"
    shutil.copyfile(Path(getattr(sys, "_base_executable", sys.executable)).resolve(), binary)
    binary.chmod(0o755)
    stdlib = Path(sysconfig.get_path("stdlib"))
    for path in sorted(stdlib.rglob("*")):
        name = path.relative_to(stdlib)
        if (
            LEFT_OUT.isdisjoint(name.parts)
            and not name.parts[0].startswith("config-")
            and path.is_file()
            and name.suffix not in (".a", ".o", ".exe")
        ):
            put(library / name, path.read_bytes())
    modules = Path(sysconfig.get_config_var("DESTSHARED") or stdlib / "lib-dynload")
    for path in sorted(modules.glob("*.so")):
        if not path.name.startswith(LEFT_OUT_MODULES):
            put(library / "lib-dynload" / path.name, path.read_bytes())
    (tree / "bin/python3._pth").write_text(
        "".join(f"../lib/{version}{part}\n" for part in ("", "/lib-dynload", "/site-packages"))
    )
    for path in sorted(tree.rglob("*")):
        if path.is_file():
            origins[path.relative_to(tree).as_posix()] = "python"
    return library / "site-packages"


def shared(tree: Path, origins: Origins) -> None:
    """Bring the shared libraries along that are not part of the C library, and let the interpreter find them."""
    if sys.platform != "linux":
        return
    binary = tree / "bin/python3"
    needed: dict[str, str] = {}
    for file in [binary, *sorted(tree.rglob("*.so"))]:
        for line in subprocess.run(["ldd", str(file)], capture_output=True, text=True, check=False).stdout.splitlines():
            name, arrow, rest = line.strip().partition(" => ")
            if rest.startswith("not found"):
                raise SystemExit(f"error: {file.name} needs {name}, which is not on this machine")
            if arrow and not name.startswith(C_LIBRARY):
                needed[name] = rest.split(" (")[0]
    for name, path in sorted(needed.items()):
        put(tree / "lib/shared" / name, Path(path).read_bytes())
        origins[f"lib/shared/{name}"] = "python"
    if needed:
        set_path(binary, "$ORIGIN/../lib/shared")


def install(site: Path, wheel: Path, origin: str, tree: Path, origins: Origins) -> None:
    """The files of *wheel*, each compared with its RECORD. Scripts are left out: aigw is the only program."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        record = next(name for name in names if name.endswith(".dist-info/RECORD"))
        expected = {row[0]: row[1] for row in csv.reader(io.StringIO(archive.read(record).decode()))}
        for name in sorted(names):
            if name.endswith("/"):
                continue
            content = archive.read(name)
            digest = "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            if name != record and expected.get(name) != digest:
                raise SystemExit(f"error: {wheel.name}: {name} is not what its RECORD says")
            place = destination(name)
            if place is None:
                continue
            if place.suffix == ".pth":
                raise SystemExit(f"error: {wheel.name} brings {place}, which would run code in every Python: not packed")
            path = site / place
            if path.exists():
                raise SystemExit(f"error: {wheel.name}: {place} is there already")
            put(path, content)
            if ".so" in path.suffixes:
                strip(path)
            origins[path.relative_to(tree).as_posix()] = origin


def destination(name: str) -> PurePosixPath | None:
    """Where a wheel's file goes below site-packages; None: nowhere. Raises SystemExit for one that would leave it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise SystemExit(f"error: a wheel names {name}, outside of itself")
    if path.parts[0].endswith(".data"):
        if path.parts[1] not in ("purelib", "platlib"):
            return None
        path = PurePosixPath(*path.parts[2:])
    unwanted = path.suffix in SOURCES or "__pycache__" in path.parts or str(path).startswith(LEFT_OUT_OF_WHEELS)
    return None if unwanted else path


def strip(path: Path) -> None:
    """Take names that only a debugger reads out of a shared library of a wheel: they are two thirds of it. The same file and
    the same binutils give the same bytes, so whoever has the wheel can do it again and compare."""
    if sys.platform == "linux":
        subprocess.run(["strip", "--strip-unneeded", str(path)], check=True)


def put(path: Path, content: bytes) -> None:
    """Write a file, with the folders above it, as everybody may read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o644)


def compile_all(tree: Path, origins: Origins) -> None:
    """A compiled file beside each source, since the launcher forbids Python to write any (-B). What Python cannot compile
    (templates of old syntax) stays a source."""
    for path in sorted((tree / "lib").rglob("*.py")):
        name = path.relative_to(tree).as_posix()
        if any(part in name for part in NOT_COMPILED):
            continue
        cached = path.parent / "__pycache__" / f"{path.stem}.{sys.implementation.cache_tag}.pyc"
        try:
            py_compile.compile(
                str(path), str(cached), name, doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
            )
        except (py_compile.PyCompileError, UnicodeDecodeError, ValueError):
            continue
        cached.chmod(0o644)
        origins[cached.relative_to(tree).as_posix()] = origins[name]


def manifest(tree: Path, origins: Origins, system: str, machine: str) -> None:
    """Write manifest.json."""
    files = {}
    for path in sorted(tree.rglob("*")):
        if path.is_file():
            name = path.relative_to(tree).as_posix()
            files[name] = [hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mode & 0o777, origins[name]]
    content = {
        "format": 1,
        "version": own_version(origins),
        "os": system,
        "arch": machine,
        "python": platform.python_version(),
        "lock": hashlib.sha256((ROOT / "packaging/requirements.lock").read_bytes()).hexdigest(),
        "files": dict(sorted(files.items())),
    }
    put(tree / "manifest.json", (json.dumps(content, indent=0, separators=(",", ":")) + "\n").encode())


def own_version(origins: Origins) -> str:
    """aigw's version, as its metadata in the tree spells it."""
    info = next(
        part for name in origins for part in name.split("/") if part.startswith("aigw-") and part.endswith(".dist-info")
    )
    return info.removeprefix("aigw-").removesuffix(".dist-info")


def main(tree: Path, wheels: list[Path], own: Path, system: str, machine: str) -> None:
    """The whole tree, in an empty folder."""
    os.umask(0o022)
    origins: Origins = {}
    site = python(tree, origins)
    for wheel in wheels:
        install(site, wheel, wheel.name, tree, origins)
    install(site, own, "aigw", tree, origins)
    shared(tree, origins)
    compile_all(tree, origins)
    manifest(tree, origins, system, machine)


if __name__ == "__main__":
    listed = Path(sys.argv[2]).read_text("utf-8").splitlines()
    main(Path(sys.argv[1]), [Path(line) for line in listed], Path(sys.argv[3]), sys.argv[4], sys.argv[5])
