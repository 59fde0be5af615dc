"""`python sbom.py TREE WHEELS OUT`: what is in a release, as CycloneDX 1.6 JSON: every package with version, licence and the
SHA-256 of its wheel, and the interpreter. The same release gives the same bytes. A licence that is not on the list is a fault.
"""

from __future__ import annotations

import email.parser
import hashlib
import json
import re
import sys
import uuid
import zipfile
from pathlib import Path
from typing import Any

PERMISSIVE = re.compile(
    r"MIT(?: License)?|MIT-0|Apache(?:-2\.0| 2(?:\.0)?| License,? (?:Version )?2\.0| Software License)?|"
    r"BSD(?:-[23]-Clause| License| 3-Clause)?|(?:New|Modified) BSD(?: License)?|ISC(?: License)?|0BSD|Unlicense|"
    r"PSF(?:-2\.0)?|Python-2\.0|Python Software Foundation License|CNRI-Python|"
    r"MPL-2\.0|Mozilla Public License 2\.0 \(MPL 2\.0\)",
    re.IGNORECASE,
)
"""Licences that ask for no more than their text to be kept (MPL: and changes to its own files to be shown)."""


def metadata(wheel: Path) -> Any:
    """The METADATA of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(one for one in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", one))
        return email.parser.Parser().parsestr(archive.read(name).decode())


def licence(said: Any) -> str:
    """As an expression, or as the package's own words."""
    if found := said["License-Expression"]:
        return str(found)
    classified = [
        one.rpartition(" :: ")[2] for one in said.get_all("Classifier", []) if one.startswith("License :: OSI Approved ::")
    ]
    words = (said["License"] or "").strip()
    if words and "\n" not in words and len(words) < 60:
        return words
    return " AND ".join(classified) or "unknown"


def permissive(expression: str) -> bool:
    """Whether each part of *expression* is on the list."""
    return all(PERMISSIVE.fullmatch(part.strip(" ()")) for part in re.split(r"\s+(?:AND|OR|and|or)\s+|;|/", expression))


def component(wheel: Path) -> dict[str, Any]:
    """One package."""
    said = metadata(wheel)
    name = re.sub(r"[-_.]+", "-", said["Name"]).lower()
    return {
        "type": "library",
        "bom-ref": f"pkg:pypi/{name}@{said['Version']}",
        "purl": f"pkg:pypi/{name}@{said['Version']}",
        "name": name,
        "version": said["Version"],
        "description": said["Summary"] or "",
        "licenses": [{"license": {"name": licence(said)}}],
        "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(wheel.read_bytes()).hexdigest()}],
        "properties": [{"name": "aigw:file", "value": wheel.name}],
    }


def bom(tree: Path, wheels: Path) -> dict[str, Any]:
    """All of it. Raises SystemExit when a wheel of the tree is not in *wheels*."""
    said = json.loads((tree / "manifest.json").read_text())
    origins = sorted({row[2] for row in said["files"].values()} - {"python", "aigw"})
    missing = [one for one in origins if not (wheels / one).is_file()]
    if missing:
        raise SystemExit(f"error: {wheels} does not hold {', '.join(missing)}")
    digest = hashlib.sha256((tree / "manifest.json").read_bytes()).hexdigest()
    shared = sorted(name.rpartition("/")[2] for name in said["files"] if name.startswith("lib/shared/"))
    python = {
        "type": "framework",
        "bom-ref": f"pkg:generic/cpython@{said['python']}",
        "purl": f"pkg:generic/cpython@{said['python']}",
        "name": "cpython",
        "version": said["python"],
        "licenses": [{"license": {"name": "PSF-2.0"}}],
        "properties": [{"name": "aigw:shared-libraries", "value": " ".join(shared)}],
    }
    own = {"type": "application", "name": "aigw", "version": said["version"], "licenses": [{"license": {"id": "Apache-2.0"}}]}
    own |= {"bom-ref": "aigw", "hashes": [{"alg": "SHA-256", "content": digest}]}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, digest)}",
        "version": 1,
        "metadata": {"component": own, "properties": [{"name": "aigw:lock", "value": said["lock"]}]},
        "components": [python, *(component(wheels / one) for one in origins)],
        "dependencies": [{"ref": "aigw", "dependsOn": sorted(f"pkg:pypi/{_ref(wheels / one)}" for one in origins)}],
    }


def _ref(wheel: Path) -> str:
    return str(component(wheel)["bom-ref"]).removeprefix("pkg:pypi/")


def main(arguments: list[str]) -> int:
    """Write it; 1 for a licence that is not on the list."""
    if len(arguments) != 3:
        raise SystemExit("usage: sbom.py TREE WHEELS OUT")
    tree, wheels, out = map(Path, arguments)
    said = bom(tree, wheels)
    out.write_text(json.dumps(said, indent=1, sort_keys=True) + "\n")
    faults = []
    for one in said["components"]:
        name = one["licenses"][0]["license"].get("name", "")
        if not permissive(name):
            faults.append(f"{one['name']} {one['version']} has a licence that is not on the list: {name}")
    for fault in faults:
        print(fault, file=sys.stderr)
    if not faults:
        print(f"sbom: {len(said['components'])} components, each with a licence that is on the list")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
