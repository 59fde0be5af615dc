"""Every module has a twin among the tests: aigw/access/quota.py is tried by tests/access/test_quota.py. Run by tests/run.

`WITHOUT` lists the modules that have none, and why. It may only shrink: a name on it whose twin exists, or whose module has
gone, is an error, so that nobody forgets to take it off.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

WITHOUT = {
    # nothing but names and types: what they mean is tried wherever they are used
    "consumer.py": "structs",
    "deployment.py": "structs",
    "hooks.py": "a protocol",
    "storage/base.py": "protocols and structs, tried by tests/contracts",
    "upstream/transport.py": "a protocol",
}


def complaints(root: Path, without: dict[str, str]) -> list[str]:
    """What is wrong below *root*, one line each; empty when every module has its twin."""
    wrong = []
    modules = {
        path.relative_to(root / "aigw").as_posix(): path
        for path in sorted((root / "aigw").rglob("*.py"))
        if path.name not in ("__init__.py", "__main__.py") and "data" not in path.relative_to(root / "aigw").parts[:-1]
    }
    for name in modules:
        twin = root / "tests" / Path(name).parent / f"test_{Path(name).name}"
        if not twin.exists() and name not in without:
            wrong.append(f"aigw/{name} has no {twin.relative_to(root).as_posix()}")
        elif twin.exists() and name in without:
            wrong.append(f"aigw/{name} has its twin now: take it off WITHOUT in tests/twins.py")
    wrong += [f"aigw/{name} has gone: take it off WITHOUT in tests/twins.py" for name in without if name not in modules]
    return wrong


if __name__ == "__main__":
    found = complaints(ROOT, WITHOUT)
    print("\n".join(found) or "every module has its twin")
    sys.exit(bool(found))
