"""Where the benchmark keeps what it installs, and which machine and interpreter it measured."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from bench.processes import BenchError

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("AIGW_BENCH_DIR", ROOT / ".bench")).resolve()


def private_venv(name: str, requirements: list[str]) -> Path:
    """A virtual environment of its own under the cache, made anew when *requirements* (pip's arguments) change."""
    folder = CACHE / name
    wanted = "\n".join(requirements)
    for word in requirements:
        if word.endswith(".lock"):
            wanted += hashlib.sha256(Path(word).read_bytes()).hexdigest()
    mark = folder / "requirements"
    if mark.exists() and mark.read_text() == wanted:
        return folder
    print(f"installing {name} into {folder} ...", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [str(folder / "bin" / "pip"), "install", "-q", "--disable-pip-version-check", "--only-binary=:all:", *requirements],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    mark.write_text(wanted)
    return folder


def machine() -> dict[str, str]:
    """What the figures depend on."""
    processor = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    executable = os.path.realpath(sys.executable)
    return {
        "processor": processor,
        "cores": str(os.cpu_count()),
        "kernel": platform.release(),
        "python": f"{platform.python_version()} ({executable})",
        "load before": f"{os.getloadavg()[0]:.2f}",
    }
