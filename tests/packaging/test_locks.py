"""The locks agree: what pip installs is what uv.lock names, file by file, and every package of it is explained."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCK: dict[str, Any] = {package["name"]: package for package in tomllib.loads((ROOT / "uv.lock").read_text("utf-8"))["package"]}


def pip_lock(name: str) -> dict[str, tuple[str, set[str]]]:
    """Package -> (version, SHA-256 of its files) of a pip lock."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "packaging" / name).read_text("utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        requirement, *hashes = line.split("--hash=sha256:")
        package, version = requirement.split(";")[0].strip().split("==")
        assert package not in found
        found[package] = (version, {sha256.strip() for sha256 in hashes})
    return found


def reachable(names: list[str]) -> set[str]:
    """These packages of uv.lock and all that they bring."""
    seen: set[str] = set()
    waiting = list(names)
    while waiting:
        if (name := waiting.pop()) not in seen:
            seen.add(name)
            waiting += [dependency["name"] for dependency in LOCK[name].get("dependencies", [])]
    return seen


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-full.lock", "requirements-dev.lock"])
def test_pip_locks_agree_with_uv_lock(name: str) -> None:
    """Same packages, same versions, same files."""
    wanted = [dependency["name"] for dependency in LOCK["aigw"]["dependencies"]]
    if name != "requirements.lock":
        wanted += [one["name"] for extra in LOCK["aigw"]["optional-dependencies"].values() for one in extra]
    if "dev" in name:
        wanted += [dependency["name"] for dependency in LOCK["aigw"]["dev-dependencies"]["dev"] if dependency["name"] != "aigw"]
    expected = {}
    for package in reachable(wanted):
        files = [*LOCK[package].get("wheels", []), *([LOCK[package]["sdist"]] if "sdist" in LOCK[package] else [])]
        expected[package] = (LOCK[package]["version"], {file["hash"].removeprefix("sha256:") for file in files})
    assert len(expected) > 20
    assert pip_lock(name) == expected


def test_uv_lock_agrees_with_pyproject() -> None:
    """The lock was made from the dependencies that pyproject.toml asks for now."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))

    def asked(requirements: list[str]) -> set[tuple[str, str]]:
        parts = [re.fullmatch(r"([\w-]+)([^;]*)(;.*)?", requirement) for requirement in requirements]
        return {(part[1], "".join(sorted(part[2].strip()))) for part in parts if part}

    def locked(requirements: list[dict[str, str]]) -> set[tuple[str, str]]:
        return {(one["name"], "".join(sorted(one.get("specifier", "")))) for one in requirements}

    metadata = LOCK["aigw"]["metadata"]
    extras = project["project"]["optional-dependencies"]
    assert asked([*project["project"]["dependencies"], *(one for extra in extras.values() for one in extra)]) == locked(
        metadata["requires-dist"]
    )
    assert [f"aigw[{','.join(sorted(extras))}]"] == [one for one in project["dependency-groups"]["dev"] if "[" in one]
    developers = [one for one in project["dependency-groups"]["dev"] if "[" not in one]
    assert asked(developers) == {one for one in locked(metadata["requires-dev"]["dev"]) if one[0] != "aigw"}


def test_every_runtime_package_has_wheels_for_the_pythons_we_take() -> None:
    """With wheels only, a package without one for a supported Python could not be installed."""
    for package in pip_lock("requirements-full.lock"):
        wheels = " ".join(file["url"].rpartition("/")[2] for file in LOCK[package]["wheels"])
        if "-none-any.whl" in wheels:
            continue
        for python in ("cp311", "cp312", "cp313", "cp314"):
            for machine in (r"manylinux\S*x86_64", r"manylinux\S*aarch64", r"macosx\S*(arm64|universal2)"):
                assert re.search(rf"({python}-{python}|abi3)-{machine}", wheels), (package, python, machine)


def test_every_locked_package_is_explained() -> None:
    """docs/dependencies.md names each package of both locks, and gives each runtime one a row of its own."""
    page = (ROOT / "docs/dependencies.md").read_text("utf-8")
    assert [name for name in pip_lock("requirements-full.lock") if f"\n| {name} |" not in page] == []
    words = set(re.findall(r"[\w.-]*\w", page))
    assert [name for name in pip_lock("requirements-dev.lock") if name not in words] == []


def test_what_each_could_do_is_said() -> None:
    """Each runtime package has a row that says its size, when it is loaded, whose it is and what it sees."""
    section = (
        (ROOT / "docs/dependencies.md").read_text("utf-8").partition("## What each could do to us")[2].partition("\n## ")[0]
    )
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("| ")]
    assert {row[0] for row in rows} - {"Package"} == set(pip_lock("requirements-full.lock"))
    assert all(len(row) == 5 and all(row) for row in rows)


def test_no_row_outlives_its_package() -> None:
    """A package that left the lock leaves the page."""
    page = (ROOT / "docs/dependencies.md").read_text("utf-8").partition("## Data taken in")[0]
    assert set(re.findall(r"^\| ([\w.-]+) \|", page, re.MULTILINE)) - {"Package"} == set(pip_lock("requirements-full.lock"))
