"""Node programs that others wrote, installed from the locks beside their folders: checked by hash, no install scripts."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.world import eventually

HERE = Path(__file__).parent / "node"

EMULATOR = HERE / "node_modules/@copilotkit/aimock/dist/cli.js"

CLAUDE_CODE = HERE / "node_modules/@anthropic-ai/claude-code/cli-wrapper.cjs"

AGENTS = Path(__file__).parent / "node-agents"

CODEX = AGENTS / "node_modules/@openai/codex/bin/codex.js"

QWEN_CODE = AGENTS / "node_modules/@qwen-code/qwen-code/cli.js"

GEMINI_CLI = AGENTS / "node_modules/@google/gemini-cli/bundle/gemini.js"


def install(wanted: Path, *flags: str) -> Path:
    """*wanted* is there, by `npm ci` when the lock beside its node_modules has changed since the last time or it was not asked
    for before."""
    folder = next(parent.parent for parent in wanted.parents if parent.name == "node_modules")
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("needs node and npm (Debian: nodejs, npm)")
    done = folder / "node_modules" / ".made-from.json"
    lock = (folder / "package-lock.json").read_text()
    if not wanted.exists() or not done.exists() or done.read_text() != lock:
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", *flags]
        made = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
        assert made.returncode == 0, made.stderr
        done.write_text(lock)
    assert wanted.exists()
    return wanted


class Emulator:
    """A running aimock. `answers` and `journal` show what was asked of it."""

    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
            return json.load(response)

    def journal(self) -> list[dict[str, Any]]:
        """Every request it got, oldest first."""
        found = self.get("/__aimock/journal")
        entries = found if isinstance(found, list) else found["entries"]
        return list(entries)


@contextmanager
def emulator(folder: Path, fixtures: list[dict[str, Any]]) -> Iterator[Emulator]:
    """aimock, an emulator of many providers (npm @copilotkit/aimock), answering as *fixtures* say."""
    program = install(EMULATOR, "--omit=optional") if not CLAUDE_CODE.exists() else install(EMULATOR)
    file = folder / "fixtures.json"
    file.write_text(json.dumps({"fixtures": fixtures}))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (folder / "emulator.log").open("w") as log:
        process = subprocess.Popen(
            ["node", str(program), "--port", str(port), "--fixtures", str(file), "--log-level", "info"],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:

            def listening() -> bool:
                assert process.poll() is None, (folder / "emulator.log").read_text()
                with socket.socket() as probe:
                    return probe.connect_ex(("127.0.0.1", port)) == 0

            eventually(listening)
            yield Emulator(port)
        finally:
            process.terminate()
            process.wait(10)
