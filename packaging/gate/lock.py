"""`python lock.py [--now DATE]`: whether the lock is one that may be shipped. Offline; exits with 1 and a line for each fault.

Every package comes from an index, with the hash of each file, at least seven days old, no older than packaging/gate/floors.toml
says; the pip locks say what uv.lock says.
"""

from __future__ import annotations

import re
import sys
import time
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

COOLDOWN = timedelta(days=7)
"""Most poisoned packages are found within hours of their release."""


def faults(lock: dict[str, Any], floors: dict[str, Any], now: datetime) -> Iterator[str]:
    """What is wrong with a uv.lock."""
    for package in lock["package"]:
        name, version, source = package["name"], package.get("version", "?"), package["source"]
        if "editable" in source or "virtual" in source:
            continue  # ourselves
        if "registry" not in source:
            yield f"{name} {version} comes from {', '.join(source)}, not from an index"
            continue
        files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
        if not package.get("wheels"):
            yield f"{name} {version} has no wheel: installing it would run its code"
        for file in files:
            if not re.fullmatch("sha256:[0-9a-f]{64}", file.get("hash", "")):
                yield f"{name} {version}: {file.get('url', '?').rpartition('/')[2]} has no SHA-256"
            uploaded = file.get("upload-time")
            if uploaded and datetime.fromisoformat(uploaded) > now - COOLDOWN:
                yield f"{name} {version} was uploaded on {uploaded[:10]}, less than {COOLDOWN.days} days ago"
                break
        floor = floors.get(name)
        if floor is None:
            continue
        if number(version) < number(floor["minimum"]):
            why = ", ".join(floor["advisories"]) or floor["reason"]
            yield f"{name} {version} is older than {floor['minimum']}: {why}"
        if "below" in floor and number(version) >= number(floor["below"]):
            yield f"{name} {version} is not below {floor['below']}: {floor['reason']}"


def number(version: str) -> tuple[int, ...]:
    """The release part of a version, for comparing."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else ()


def unpinned(text: str) -> Iterator[str]:
    """Lines of a pip lock that name a package without an exact version and hashes."""
    for block in re.split(r"\n(?=\S)", text.strip()):
        if not block or block.startswith("#"):
            continue
        if not re.match(r"[A-Za-z0-9._-]+(?:\[[a-z,]+\])?==\S+", block) or "--hash=sha256:" not in block:
            yield f"not pinned by version and hash: {block.splitlines()[0][:80]}"


def main(arguments: list[str]) -> int:
    """Print faults; 1 when there are any."""
    at = arguments[1] if arguments[:1] == ["--now"] else time.strftime("%Y-%m-%d", time.gmtime())
    now = datetime.fromisoformat(at).replace(tzinfo=UTC) + timedelta(days=1)
    lock = tomllib.loads((ROOT / "uv.lock").read_text("utf-8"))
    floors = tomllib.loads((ROOT / "packaging/gate/floors.toml").read_text("utf-8"))
    found = list(faults(lock, floors, now))
    for path in sorted((ROOT / "packaging").glob("*.lock")):
        found += [f"{path.name}: {one}" for one in unpinned(path.read_text("utf-8"))]
    for one in found:
        print(one, file=sys.stderr)
    if not found:
        print(f"lock: {len(lock['package'])} packages, each from an index, hashed, a week old, above its floor")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
