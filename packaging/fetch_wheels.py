"""Which wheels a build takes, and whether they are the locked ones.

    python fetch_wheels.py select all|none|NAME,... LOCK   write the part of requirements-full.lock that these extras need
    python fetch_wheels.py check LOCK FOLDER               print the wheels in FOLDER that LOCK names for this Python

`check` fails when one is missing or no hash of the lock is its own; what else lies in the folder is left alone.
"""

from __future__ import annotations

import hashlib
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_PACKAGE = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)( ; .*)?$")


def normal(name: str) -> str:
    """A package's name as PEP 503 spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def blocks(text: str) -> dict[str, str]:
    """Package -> its lines (requirement and hashes) in a pip lock."""
    found: dict[str, str] = {}
    for block in re.split(r"\n(?=\S)", text.strip()):
        if block.startswith("#"):
            continue
        found[normal(block.split("==")[0])] = block
    return found


def select(extras: str) -> str:
    """The lock for the project with *extras*. Raises SystemExit for one it does not have."""
    lock: dict[str, Any] = {one["name"]: one for one in tomllib.loads((ROOT / "uv.lock").read_text("utf-8"))["package"]}
    optional = lock["aigw"].get("optional-dependencies", {})
    names = sorted(optional) if extras == "all" else [] if extras == "none" else extras.split(",")
    if unknown := [name for name in names if name not in optional]:
        raise SystemExit(f"error: there is no extra {unknown[0]!r}; there are {', '.join(sorted(optional))}")
    waiting = [one["name"] for group in [lock["aigw"]["dependencies"], *(optional[name] for name in names)] for one in group]
    seen: set[str] = set()
    while waiting:
        if (name := waiting.pop()) not in seen:
            seen.add(name)
            waiting += [one["name"] for one in lock[name].get("dependencies", [])]
    full = blocks((ROOT / "packaging/requirements-full.lock").read_text("utf-8"))
    return "\n".join(full[name] for name in sorted(seen)) + "\n"


def applies(marker: str) -> bool:
    """Whether a requirement's marker is true for this Python; the few forms that our locks use."""
    full = ".".join(str(part) for part in sys.version_info[:3])
    values = {"python_full_version": full, "sys_platform": sys.platform, "implementation_name": sys.implementation.name}

    def one(comparison: str) -> bool:
        match = re.fullmatch(r"(\w+) (==|!=|<|>=) '([^']+)'", comparison.strip())
        if not match or match[1] not in values:
            raise SystemExit(f"error: a marker of the lock is not understood: {marker}")
        left, right = values[match[1]], match[3]
        if match[2] in ("==", "!="):
            return (left == right) == (match[2] == "==")
        numbers = [[int(part) for part in side.split(".")] for side in (left, right)]
        return (numbers[0] < numbers[1]) == (match[2] == "<")

    return any(all(one(part) for part in side.split(" and ")) for side in marker.split(" or "))


def check(lock: str, folder: Path) -> list[Path]:
    """The wheels that *lock* names for this Python, in the order of their names. Raises SystemExit when one is not there."""
    there: dict[tuple[str, str], list[Path]] = {}
    for wheel in sorted(folder.glob("*.whl")):
        name, version, *_ = wheel.name.split("-")
        there.setdefault((normal(name), version), []).append(wheel)
    found = []
    for name, block in sorted(blocks(lock).items()):
        head = block.splitlines()[0].removesuffix("\\").strip()
        match = _PACKAGE.match(head)
        if not match:
            raise SystemExit(f"error: a line of the lock is not understood: {head}")
        if match[3] and not applies(match[3].removeprefix(" ; ")):
            continue
        hashes = set(re.findall(r"--hash=sha256:([0-9a-f]{64})", block))
        good = [
            one
            for one in there.get((name, match[2]), [])
            if hashlib.sha256(one.read_bytes()).hexdigest() in hashes and _fits(one)
        ]
        if not good:
            raise SystemExit(f"error: {folder} has no wheel of {name} {match[2]} of the lock for this Python")
        found.append(good[0])
    return found


def _fits(wheel: Path) -> bool:
    """Whether a wheel is for this version of Python. (pip chose it for this platform when it was fetched.)"""
    tags = wheel.stem.split("-")[-3]
    here = f"{sys.version_info[0]}{sys.version_info[1]}"
    return any(
        tag in ("py3", f"cp{here}", f"py{here}") or (tag.startswith("cp3") and "abi3" in wheel.stem) for tag in tags.split(".")
    )


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["select", extras, path]:
            Path(path).write_text(select(extras), encoding="utf-8")
        case ["check", path, folder]:
            print("\n".join(str(wheel) for wheel in check(Path(path).read_text("utf-8"), Path(folder))))
        case _:
            raise SystemExit(__doc__)
