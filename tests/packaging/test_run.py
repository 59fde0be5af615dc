"""tests/run makes its own environment on a machine that has none."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.long
def test_a_fresh_clone(tmp_path: Path) -> None:
    """With nothing but python3, bash and curl: the environment is made once, from the lock, and the result is pytest's."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(tmp_path / "clone")], check=True)
    (tmp_path / "home").mkdir()
    environment = {"HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"}
    environment |= {name: os.environ[name] for name in ("PIP_INDEX_URL", "PIP_CERT", "HTTPS_PROXY") if name in os.environ}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", str(tmp_path / "clone/tests/run"), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)

    first = run("tests/packaging/test_twins.py")
    assert "making .venv" in first.stderr
    assert "1 passed" in first.stdout
    assert first.returncode == ("failed before the tests" in first.stderr)
    again = run("tests/packaging/test_twins.py")
    assert "making .venv" not in again.stderr
    assert "1 passed" in again.stdout
    assert run("tests/no_such_file.py").returncode != 0
