"""`python guarddog.py WHEEL ...`: GuardDog over our own wheel and each dependency's. Exits with 1 and a line for each fault.

Its score is of no use by itself: it takes a command that writes shell completion for 8.2 of 10. So each kind of threat that it
finds has to have been looked at by a person, who wrote down why it is none (known.toml).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

KNOWN = Path(__file__).with_name("known.toml")


def name_of(wheel: Path) -> str:
    """The package's, as known.toml spells it."""
    return re.sub(r"[-_.]+", "-", wheel.name.partition("-")[0]).lower()


def faults(wheel: Path, said: dict[str, Any], known: dict[str, dict[str, str]]) -> Iterator[str]:
    """What nobody has explained in GuardDog's JSON about *wheel*, and explanations of what is no longer there."""
    explained = known.get(name_of(wheel), {})
    found = {rule: findings for rule, findings in said["results"].items() if findings and rule.startswith("threat")}
    for rule, findings in found.items():
        if rule not in explained:
            where = ", ".join(sorted({str(one.get("location", "?")) for one in findings if isinstance(one, dict)})[:3])
            yield f"{wheel.name}: {rule} ({where or 'no place is told'})"
    for rule in explained.keys() - found.keys():
        yield f"{wheel.name}: {rule} is explained in {KNOWN.name} and was not found: remove the line, or ask why"
    for rule, error in dict(said.get("errors", {})).items():
        yield f"{wheel.name}: {rule} could not be looked for: {str(error)[:100]}"


def scanned(wheel: Path) -> dict[str, Any]:
    """GuardDog's JSON. Raises SystemExit when it says nothing."""
    command = ["guarddog", "pypi", "scan", str(wheel), "-x", "typosquatting", "--output-format", "json"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    try:
        return dict(json.loads(ran.stdout))
    except ValueError:
        raise SystemExit(f"error: guarddog said nothing of {wheel.name}: {ran.stderr.strip()[-200:]}") from None


def main(wheels: list[str]) -> int:
    """Print faults; 1 when there are any."""
    if not wheels:
        raise SystemExit("usage: guarddog.py WHEEL ...")
    known = tomllib.loads(KNOWN.read_text("utf-8"))
    found = [fault for one in sorted(map(Path, wheels)) for fault in faults(one, scanned(one), known)]
    for fault in found:
        print(fault, file=sys.stderr)
    if not found:
        print(f"guarddog: {len(wheels)} wheels, nothing that was not looked at")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
