"""`PYTHON tree.py TREE WHEELS [--signers FILE]`: whether each file of an unpacked release comes from where its manifest says.

To be run with the Python that was packed, so on the build machine or one like it. It does not trust the build: our files are
compared with this checkout, a wheel's with the wheel that the lock's hash names, the interpreter's with the interpreter, and
what is compiled is compiled again. What then still differs, or was added, has no reason to be there. Links, set-user-id bits,
`.pth` files, secrets and strings of known miners and stealers are told besides. Exits with 1 and a line for each fault.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import py_compile
import re
import stat
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "packaging"))

import fetch_wheels  # noqa: E402 - beside us
import make_tree  # noqa: E402
import make_wheel  # noqa: E402
from elf_path import set_path  # noqa: E402

ELF = b"\x7fELF"

SECRETS = {
    "a private key": rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----\s+[A-Za-z0-9+/=]{40}",
    "a key of GitHub": rb"\bgh[pousr]_[A-Za-z0-9]{36}\b",
    "a key of AWS": rb"\bAKIA[0-9A-Z]{16}\b",
    "a key of OpenAI or Anthropic": rb"\bsk-(?:proj-|ant-)?[A-Za-z0-9_-]{40,}\b",
    "a token of PyPI": rb"\bpypi-AgEI[A-Za-z0-9_-]{50,}",
    "a token of Slack": rb"\bxox[abprs]-[0-9A-Za-z-]{20,}",
}
MALICE = {
    "a miner's protocol": rb"stratum\+(?:tcp|ssl)://",
    "a miner": rb"\b(?:xmrig|minerd|cryptonight|randomx_create_vm)\b",
    "a place where stolen things are sent": rb"discord(?:app)?\.com/api/webhooks/|api\.telegram\.org/bot[0-9]{6}",
    "code in disguise": rb"exec\(\s*(?:base64\.b64decode|zlib\.decompress|marshal\.loads|bytes\.fromhex)\(",
}


class Sources:
    """Where files may come from, by their origin in the manifest: content by path in the tree."""

    def __init__(self, wheels: Path, signers: Path | None) -> None:
        lock = fetch_wheels.select("all")
        self._wheels = {path.name: path for path in fetch_wheels.check(lock, wheels)}  # raises SystemExit for a wrong hash
        self._open: dict[str, dict[str, bytes]] = {}
        self._signers = signers
        self._work = Path(tempfile.mkdtemp(prefix="aigw-gate."))
        self._stdlib = Path(sysconfig.get_path("stdlib"))
        self._modules = Path(sysconfig.get_config_var("DESTSHARED") or self._stdlib / "lib-dynload")
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        self.library, self.site = f"lib/{version}/", f"lib/{version}/site-packages/"

    def expected(self, name: str, origin: str) -> bytes | None:
        """What the file *name* of the tree has to hold; None where that origin has no such file."""
        if origin == "python":
            return self._python(name)
        if not name.startswith(self.site):
            return None
        return self._files(origin).get(name.removeprefix(self.site))

    def _files(self, origin: str) -> dict[str, bytes]:
        if origin not in self._open:
            if origin == "aigw":
                folder = self._work / "own"
                folder.mkdir()
                project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
                wheel = make_wheel.wheel(folder, project, make_wheel.own_files(self._signers))
            elif origin in self._wheels:
                wheel = self._wheels[origin]
            else:
                return {}
            self._open[origin] = dict(self._members(wheel))
        return self._open[origin]

    def _members(self, wheel: Path) -> Iterator[tuple[str, bytes]]:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                place = None if name.endswith("/") else make_tree.destination(name)
                if place is not None:
                    content = archive.read(name)
                    yield str(place), self._stripped(content) if ".so" in PurePosixPath(name).suffixes else content

    def _stripped(self, content: bytes) -> bytes:
        path = self._work / "one.so"
        path.write_bytes(content)
        make_tree.strip(path)
        return path.read_bytes()

    def _python(self, name: str) -> bytes | None:
        version = self.library
        if name == "bin/python3":
            path = self._work / "python3"
            path.write_bytes(Path(getattr(sys, "_base_executable", sys.executable)).resolve().read_bytes())
            set_path(path, "$ORIGIN/../lib/shared")
            return path.read_bytes()
        if name == "bin/python3._pth":
            return "".join(f"../{version.rstrip('/')}{part}\n" for part in ("", "/lib-dynload", "/site-packages")).encode()
        if name.startswith("lib/shared/"):
            return self._shared(name.removeprefix("lib/shared/"))
        if name.startswith(f"{version}lib-dynload/"):
            return content_of(self._modules / name.removeprefix(f"{version}lib-dynload/"))
        if name.startswith(version):
            return content_of(self._stdlib / name.removeprefix(version))
        return None

    def _shared(self, name: str) -> bytes | None:
        """A library of the system, by the path that the linker finds it at."""
        said = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
        paths = re.findall(rf"^\s*{re.escape(name)} .*=> (\S+)$", said, re.MULTILINE)
        return content_of(Path(paths[0])) if paths else None


def content_of(path: Path) -> bytes | None:
    """None where there is none."""
    return path.read_bytes() if path.is_file() else None


def compiled(source: bytes, name: str, work: Path) -> bytes:
    """What *source*, called *name*, compiles to. (A set of texts in it needs PYTHONHASHSEED=0, as at the build.)"""
    path, out = work / "source.py", work / "out.pyc"
    path.write_bytes(source)
    py_compile.compile(str(path), str(out), name, doraise=True, invalidation_mode=make_tree.UNCHECKED)
    return out.read_bytes()


def faults(tree: Path, sources: Sources) -> Iterator[str]:
    """What is wrong with *tree*."""
    said: dict[str, Any] = json.loads((tree / "manifest.json").read_text())
    listed = said["files"]
    present = {}
    for path in sorted(tree.rglob("*")):
        name, status = path.relative_to(tree).as_posix(), path.lstat()
        if stat.S_ISLNK(status.st_mode) or not (path.is_file() or path.is_dir()):
            yield f"{name} is a link, or no file"
        elif status.st_mode & 0o6022:
            yield f"{name} has the mode {stat.S_IMODE(status.st_mode):04o}"
        elif path.is_file() and name != "manifest.json":
            present[name] = path
    yield from (f"{name} is missing" for name in sorted(listed.keys() - present.keys()))
    with tempfile.TemporaryDirectory() as work:
        for name, path in present.items():
            yield from _file(name, path.read_bytes(), listed.get(name), sources, Path(work))


def _file(name: str, content: bytes, row: list[Any] | None, sources: Sources, work: Path) -> Iterator[str]:
    if name.endswith(".pth"):
        yield f"{name} would run code in every Python"
    if row is None:
        yield f"{name} is in no manifest{', and is executable code' if content.startswith(ELF) else ''}"
        return
    if hashlib.sha256(content).hexdigest() != row[0]:
        yield f"{name} is not what the manifest says"
    origin = str(row[2])
    if name.endswith(".pyc") and "__pycache__/" in name:
        source_name = f"{name.partition('__pycache__/')[0]}{PurePosixPath(name).name.split('.')[0]}.py"
        source = sources.expected(source_name, origin)
        expected = None if source is None else compiled(source, source_name, work)
    else:
        expected = sources.expected(name, origin)
    if expected is None:
        yield f"{name} is not part of {origin}"
    elif expected != content:
        yield f"{name} is not what {origin} has there"
    for kind, table in (("holds", SECRETS), ("looks like", MALICE)):
        for what, pattern in table.items():
            if re.search(pattern, content) and expected is not None and not _known(name):
                yield f"{name} {kind} {what}"


def _known(name: str) -> bool:
    """Files that speak of such things: lists of what to look for."""
    return any(part in name for part in ("pygments/", "/aigw/plugins/", "/aigw/config/scrub", "/aigw/cli/wizard/", "test_"))


def main(arguments: list[str]) -> int:
    """Print faults; 1 when there are any."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("tree", type=Path)
    parser.add_argument("wheels", type=Path)
    parser.add_argument("--signers", type=Path)
    said = parser.parse_args(arguments)
    found = list(faults(said.tree, Sources(said.wheels, said.signers)))
    for one in found:
        print(one, file=sys.stderr)
    if not found:
        number = len(json.loads((said.tree / "manifest.json").read_text())["files"])
        print(f"tree: {number} files, each from where its manifest says, none else")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
