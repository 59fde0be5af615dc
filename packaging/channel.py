"""What says which version is the newest, and which were withdrawn; and the installer with a release's hashes in it.

    python channel.py latest DIST OUT [--days N] [--minimum X.Y.Z]      OUT/latest.json out of DIST/SHA256SUMS
    python channel.py revoke OUT VERSION|SHA256 REASON [--days N]       add to OUT/revoked.json (made when missing)
    python channel.py installer DIST SIGNERS OUT                        OUT/install.sh: install.sh with hashes and keys pinned

None of it is signed here: that is done by people, with `packaging/sign`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

PROGRAM = re.compile(r"aigw-(\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?)-([a-z0-9]+)-([a-z0-9_]+)")


def sums(dist: Path) -> dict[str, str]:
    """File name -> SHA-256, as SHA256SUMS has them."""
    lines = (dist / "SHA256SUMS").read_text("ascii").splitlines()
    return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}


def programs(dist: Path) -> dict[str, str]:
    """The single files, and their SHA-256."""
    return {name: digest for name, digest in sums(dist).items() if PROGRAM.fullmatch(name)}


def version_of(dist: Path) -> str:
    """The one version of all single files. Raises SystemExit for none or several."""
    found = {match[1] for name in programs(dist) if (match := PROGRAM.fullmatch(name))}
    if len(found) != 1:
        raise SystemExit(f"error: {dist}/SHA256SUMS names single files of {', '.join(sorted(found)) or 'no version'}")
    return found.pop()


def moment(seconds: float) -> str:
    """As the files write times."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def write(path: Path, said: dict[str, Any]) -> None:
    """As JSON, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(said, indent=1) + "\n")
    fresh.replace(path)
    print(path)


def latest(dist: Path, out: Path, days: int, minimum: str, now: float) -> None:
    """Write latest.json."""
    said = {
        "format": 1,
        "version": version_of(dist),
        "date": moment(now),
        "expires": moment(now + days * 86400),
        "min_version": minimum,
        "sha256": programs(dist),
    }
    write(out / "latest.json", said)


def revoke(out: Path, what: str, reason: str, days: int, now: float) -> None:
    """Add a version, or the hash of a file, to revoked.json."""
    path = out / "revoked.json"
    said = json.loads(path.read_text()) if path.exists() else {"format": 1, "versions": {}, "sha256": {}}
    if re.fullmatch("[0-9a-f]{64}", what):
        said["sha256"][what] = reason
    elif re.fullmatch(r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?", what):
        said["versions"][what] = reason
    else:
        raise SystemExit(f"error: {what} is neither a version nor a SHA-256")
    write(path, said | {"date": moment(now), "expires": moment(now + days * 86400)})


def installer(dist: Path, signers: Path, out: Path) -> None:
    """Write the install.sh that is published: it knows one version, its hashes and the keys."""
    text = (ROOT / "install.sh").read_text()
    keys = [line for line in signers.read_text().splitlines() if line.strip() and not line.startswith("#")]
    pins = [f"{digest}  {name}" for name, digest in sorted(programs(dist).items())]
    for name, value in (("version", version_of(dist)), ("pins", "\n".join(pins)), ("signers", "\n".join(keys))):
        if "'" in value:
            raise SystemExit(f"error: the {name} hold a quotation mark")
        lines = text.splitlines(keepends=True)
        found = [number for number, line in enumerate(lines) if line == f"pinned_{name}=''\n"]
        if len(found) != 1:
            raise SystemExit(f"error: install.sh has no line pinned_{name}=''")
        lines[found[0]] = f"pinned_{name}='{value}'\n"
        text = "".join(lines)
    out.mkdir(parents=True, exist_ok=True)
    (out / "install.sh").write_text(text)
    print(out / "install.sh")


def main(arguments: list[str]) -> None:
    """One of the three."""
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="channel.py", description=__doc__, formatter_class=shape)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("latest")
    one.add_argument("dist", type=Path)
    one.add_argument("out", type=Path)
    one.add_argument("--days", type=int, default=45)
    one.add_argument("--minimum", default="0.0.0")
    one = commands.add_parser("revoke")
    one.add_argument("out", type=Path)
    one.add_argument("what")
    one.add_argument("reason")
    one.add_argument("--days", type=int, default=400)
    one = commands.add_parser("installer")
    one.add_argument("dist", type=Path)
    one.add_argument("signers", type=Path)
    one.add_argument("out", type=Path)
    said = parser.parse_args(arguments)
    match said.command:
        case "latest":
            latest(said.dist, said.out, said.days, said.minimum, time.time())
        case "revoke":
            revoke(said.out, said.what, said.reason, said.days, time.time())
        case _:
            installer(said.dist, said.signers, said.out)


if __name__ == "__main__":
    main(sys.argv[1:])
