"""An empty home directory, and the installer in it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pexpect

ROOT = Path(__file__).resolve().parents[2]
PASSED_ON = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CERT", "SSL_CERT_FILE", "CURL_CA_BUNDLE", "HTTPS_PROXY", "NO_PROXY")


def copy_checkout(folder: Path) -> Path:
    """What the installer reads of this checkout, in a place where nobody edits it."""
    shutil.copytree(ROOT / "aigw", folder / "aigw", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "packaging", folder / "packaging", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("install.sh", "pyproject.toml", "uv.lock"):
        shutil.copy(ROOT / name, folder)
    return folder


def without_ensurepip(folder: Path) -> str:
    """A Python that brings no pip, as Debian's without python3-venv."""
    (folder / "stub").mkdir()
    (folder / "stub/ensurepip.py").write_text("raise ImportError('not here')")
    python = folder / "python3"
    python.write_text(f'#!/bin/sh\nexec env PYTHONPATH={folder}/stub /usr/bin/python3 "$@"\n')
    python.chmod(0o755)
    return str(python)


class Home:
    """An empty home directory, whose name would break careless quoting, and the installer in it."""

    def __init__(self, folder: Path, checkout: Path = ROOT) -> None:
        self.checkout = checkout
        self.path = folder / "it's my home"
        self.path.mkdir(parents=True)
        self.bin = self.path / ".local/bin"
        self.aigw = self.bin / "aigw"
        self.environments = self.path / ".local/share/aigw/env"
        self.config = self.path / ".config/aigw/config.toml"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        self.environment |= {"HOME": str(self.path), "PATH": "/usr/bin:/bin"}

    def install(self, *options: str, checkout: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", str((checkout or self.checkout) / "install.sh"), *options]
        environment = self.environment | variables
        return subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=300, check=False)

    def run(self, *arguments: str, cwd: str = "/") -> subprocess.CompletedProcess[str]:
        command = [str(self.aigw), *arguments]
        return subprocess.run(command, env=self.environment, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)

    def terminal(self, command: str, *, columns: int = 80, **variables: str) -> Any:
        """A shell command in a real pseudo-terminal, started in the checkout; a pexpect.spawn."""
        environment = self.environment | {"TERM": "xterm-256color"} | variables
        return pexpect.spawn(
            "bash",
            ["-c", command],
            env=environment,  # type: ignore[arg-type] # typed for os.environ only
            cwd=str(self.checkout),
            dimensions=(24, columns),
            encoding="utf-8",
            timeout=30,
        )

    @property
    def installed(self) -> list[Path]:
        """The environments."""
        return sorted(path for path in self.environments.iterdir() if not path.name.startswith("."))

    def contents(self) -> set[str]:
        """Every file and folder in it but those of the environments, relative to it."""
        found = (path.relative_to(self.path) for path in self.path.rglob("*"))
        return {str(path) for path in found if not path.is_relative_to(".local/share/aigw/env")}
