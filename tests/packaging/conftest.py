"""Installing takes ten seconds, so it is done once: `demo` is that home, `furnished` an own one with the same environment."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.packaging.home import Home, copy_checkout


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, str, str]:
    """A home where `install.sh --demo` ran, what it printed, and the key in it. Nobody changes it."""
    home = Home(tmp_path_factory.mktemp("demo"), copy_checkout(tmp_path_factory.mktemp("checkout")))
    ran = home.install("--demo", "--port", str(home.port))
    assert ran.returncode == 0, ran.stderr
    keys = set(re.findall(r"sk-aigw-[\w-]+", ran.stdout))
    assert len(keys) == 1, ran.stdout
    return home, ran.stdout, keys.pop()


@pytest.fixture
def furnished(demo: tuple[Home, str, str], tmp_path: Path) -> Home:
    """A home with the program's environment in it, and nothing else: the installer has only its last steps to do."""
    home = Home(tmp_path, demo[0].checkout)
    home.environments.parent.mkdir(parents=True, mode=0o700)
    subprocess.run(["cp", "-al", demo[0].environments, home.environments], check=True)
    return home
