"""A command line in a world of its own: real processes, a home directory that nobody else has."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest


class CommandLine:
    """Call it with arguments: runs `aigw` there. `data_dir` and `config` are where it keeps things."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.config = folder / "config.toml"
        self.config.write_text("")
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "AIGW_DATA_DIR": str(self.data_dir),
            "AIGW_CONFIG": str(self.config),
            "COLUMNS": "80",
            "TZ": "UTC",
            "PYTHONWARNINGS": "error",
        }
        self._terminals: list[Any] = []

    def __call__(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "aigw", *arguments],
            env=self.environment | environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def terminal(self, *arguments: str, columns: int = 120, **environment: str) -> Any:
        """The same in a real pseudo-terminal; a pexpect.spawn."""
        world = {name: value for name, value in self.environment.items() if name != "COLUMNS"}
        terminal = pexpect.spawn(
            sys.executable,
            ["-m", "aigw", *arguments],
            env=world | {"TERM": "xterm-256color"} | environment,  # type: ignore[arg-type] # typed for os.environ only
            cwd=str(self.folder),
            dimensions=(40, columns),
            encoding="utf-8",
            timeout=30,
        )
        self._terminals.append(terminal)
        return terminal

    def close(self) -> None:
        for terminal in self._terminals:
            terminal.close(force=True)


@pytest.fixture
def aigw(tmp_path: Path) -> Iterator[CommandLine]:
    command_line = CommandLine(tmp_path)
    yield command_line
    command_line.close()
