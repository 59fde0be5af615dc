"""The workflows: they parse, everything of others is pinned, and no job that may do something runs anybody else's code."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.packaging.home import ROOT

FILES = sorted((ROOT / ".github/workflows").glob("*.yml"))
WRITES = "write"

STRANGERS = re.compile(
    r"\b(?:pip3?|pipx|uvx?|npm|npx|apt|apt-get|brew|cargo|go|gem|curl|wget|git clone|docker (?:run|pull|compose)|bash <|sh <|"
    r"make|tests/run|packaging/(?:build|release)|\.ci/run)\b"
)
"""Commands that would bring or run what is not GitHub's, nor a file of ours that uses the standard library alone."""

OURS = re.compile(r"/usr/bin/python3 -I (packaging/\S+\.py)")


def jobs() -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    for path in FILES:
        said = yaml.safe_load(path.read_text())
        for name, job in said["jobs"].items():
            yield path.name, name, job, said


JOBS = [pytest.param(job, said, id=f"{file}-{name}") for file, name, job, said in jobs()]


def may_do_something(job: dict[str, Any], said: dict[str, Any]) -> bool:
    """Whether it has a right to write, an identity to show, or a secret."""
    rights = job.get("permissions", said.get("permissions"))
    return (
        "environment" in job
        or "secrets." in yaml.safe_dump(job)
        or rights == "write-all"
        or WRITES in dict(rights or {}).values()
    )


def steps(job: dict[str, Any], key: str) -> list[str]:
    return [step[key] for step in job["steps"] if key in step]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_workflow(path: Path) -> None:
    """No rights by default, no event that hands ours to a stranger's branch, no secret that somebody could steal."""
    text = path.read_text()
    said = yaml.safe_load(text)
    assert said["permissions"] == {}
    events = said.get("on", said.get(True))
    assert "pull_request_target" not in events
    assert "workflow_run" not in events
    assert "secrets." not in text
    assert "actions/cache" not in text


@pytest.mark.parametrize(("job", "said"), JOBS)
def test_a_job(job: dict[str, Any], said: dict[str, Any]) -> None:
    """Its rights are named; what it uses is pinned by commit; a checkout leaves no token behind; it ends in time."""
    assert "permissions" in job
    assert "timeout-minutes" in job
    for used in steps(job, "uses"):
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", used), used
    for step in job["steps"]:
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
        # what strangers choose (a branch's name, a title) gets into a script as a variable only
        assert "${{" not in step.get("run", "").replace("${{ matrix.", "")
    for image in re.findall(r"docker run [^\n]*", "\n".join(steps(job, "run"))):
        assert "$DEBIAN" in image
    if "$DEBIAN" in str(job):
        assert re.fullmatch(r"debian:bookworm@sha256:[0-9a-f]{64}", said["env"]["DEBIAN"])


@pytest.mark.parametrize(("job", "said"), JOBS)
def test_who_may_do_something_runs_nobody_elses_code(job: dict[str, Any], said: dict[str, Any]) -> None:
    """GitHub's own actions and tools, and files of ours that import nothing but the standard library and each other."""
    if not may_do_something(job, said):
        return
    assert all(used.startswith("actions/") for used in steps(job, "uses"))
    for script in steps(job, "run"):
        found = STRANGERS.search(re.sub(r"aigw-\S+", "", script))
        assert found is None, found
        for ours in OURS.findall(script):
            ran = subprocess.run(
                ["/usr/bin/python3", "-I", "-S", "-c", f"import runpy; runpy.run_path({str(ROOT / ours)!r}, run_name='x')"],
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
            assert ran.returncode == 0, ran.stderr  # -S: no site-packages, so nothing of others could be imported


def test_there_are_such_jobs() -> None:
    """The test above looks at something: these five, and no others."""
    found = {f"{file}/{name}" for file, name, job, said in jobs() if may_do_something(job, said)}
    assert found == {
        "release.yml/attest",
        "release.yml/draft",
        "release.yml/publish",
        "release.yml/image",
        "published.yml/withdraw",
    }


def test_each_step_of_the_gate_is_called() -> None:
    """What `packaging/release` does here, the workflow does, too."""
    text = (ROOT / ".github/workflows/release.yml").read_text()
    called = {word for line in re.findall(r"packaging/release ([a-z ]+)", text) for word in line.split()}
    assert called == {"lock", "tree", "sbom", "scan", "behave"}  # build and rebuild are jobs of their own
    assert text.count("packaging/build --python") == 2


def test_owners() -> None:
    """What decides what users run has owners, and each path of the list is there."""
    lines = [
        line.split() for line in (ROOT / ".github/CODEOWNERS").read_text().splitlines() if line and not line.startswith("#")
    ]
    for path, *owners in lines:
        assert owners
        assert path == "*" or (ROOT / path.strip("/")).exists(), path
    assert {"/packaging/", "/install.sh", "/aigw/integrity/", "/.github/"} <= {line[0] for line in lines}
