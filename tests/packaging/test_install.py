"""install.sh, for real: into an empty home with an empty environment, from the package index, once per run of this file."""

from __future__ import annotations

import base64
import csv
import hashlib
import re
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path

import httpx2
import openai
import pytest

from aigw import __version__
from tests.packaging.home import ROOT, Home, copy_checkout, without_ensurepip


def test_the_command_works(demo: tuple[Home, str, str], tmp_path: Path) -> None:
    """`aigw` runs, from anywhere, and a file of that name in the working directory does not run in its place."""
    home, _, _ = demo
    (tmp_path / "aigw.py").write_text("raise SystemExit('not me')")
    ran = home.run("--version", cwd=str(tmp_path))
    assert (ran.returncode, ran.stdout) == (0, f"aigw {__version__}\n"), ran.stderr


def test_what_is_installed_is_what_is_recorded(demo: tuple[Home, str, str]) -> None:
    """Every file of the package has its SHA-256 in RECORD; the environment has no pip and no scripts of others."""
    (environment,) = demo[0].installed
    site = next(environment.glob("lib/python3.*/site-packages"))
    (record,) = site.glob("aigw-*.dist-info/RECORD")
    recorded = {row[0]: row[1] for row in csv.reader(record.read_text().splitlines())}
    for name, digest in recorded.items():
        if digest:
            content = base64.urlsafe_b64encode(hashlib.sha256((site / name).read_bytes()).digest()).rstrip(b"=").decode()
            assert digest == f"sha256={content}", name
    installed = {path.relative_to(site).as_posix() for path in (site / "aigw").rglob("*") if path.is_file()}
    sources = {name for name in installed if "__pycache__" not in name}
    assert sources == {name for name in recorded if name.startswith("aigw/")}
    assert {"aigw/__main__.py", "aigw/providers/catalog.toml"} <= sources
    assert not list(site.glob("pip*"))
    assert [path.name for path in (environment / "bin").iterdir() if not path.name.startswith("python")] == []


def test_the_demo_config(demo: tuple[Home, str, str]) -> None:
    """It has the demo provider, is the user's alone, and does not hold the key."""
    home, _, key = demo
    assert stat.S_IMODE(home.config.stat().st_mode) == 0o600
    assert "[providers.demo]" in home.config.read_text()
    assert key not in home.config.read_text()
    assert stat.S_IMODE(home.environments.parent.stat().st_mode) == 0o700


def test_again(demo: tuple[Home, str, str]) -> None:
    """Running it again changes nothing, makes no further key, and says how to make one."""
    home, _, _ = demo
    before = home.config.read_text()
    ran = home.install("--demo")
    assert ran.returncode == 0, ran.stderr
    assert "sk-aigw" not in ran.stdout + ran.stderr
    assert "aigw keys create NAME" in ran.stderr
    assert home.config.read_text() == before
    assert len(home.installed) == 1
    assert "installed in" in ran.stderr


def test_the_first_call(demo: tuple[Home, str, str]) -> None:
    """`install.sh --serve --demo` serves; the printed curl line works as it stands, the SDK too; a stop is clean."""
    home, printed, key = demo
    command = ["bash", str(home.checkout / "install.sh"), "--serve", "--demo"]
    with subprocess.Popen(command, env=home.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            base = f"http://127.0.0.1:{home.port}"
            for _ in range(300):
                try:
                    if httpx2.get(f"{base}/readyz").status_code == 200:
                        break
                except httpx2.TransportError:
                    pass
                assert server.poll() is None, server.communicate()
                time.sleep(0.1)
            line = re.search(r"curl .*?\n.*?\}'", printed, re.DOTALL)
            assert line
            answer = subprocess.run(["bash", "-c", f"{line[0]} -si"], capture_output=True, text=True, timeout=30, check=True)
            assert "You said: Hello" in answer.stdout
            assert "x-aigw-demo: 1" in answer.stdout
            with openai.OpenAI(base_url=f"{base}/v1", api_key=key, max_retries=0) as client:
                said = client.chat.completions.create(
                    model="demo", messages=[{"role": "user", "content": "Hello"}], stream=True
                )
                assert "".join(chunk.choices[0].delta.content or "" for chunk in said).endswith("You said: Hello")
        finally:
            server.send_signal(signal.SIGTERM)
            out, talk = server.communicate(timeout=60)
    assert server.returncode == 0, talk
    assert key not in out + talk
    assert '"requests": 2' in re.sub(r"\s+", " ", home.run("stats", "--json").stdout)


def test_upgrade_without_ensurepip(furnished: Home, tmp_path: Path) -> None:
    """A changed checkout replaces the launcher's target, with a Python that brings no pip; the last environment stays for
    servers that still run from it, older ones go, what others put there stays; uninstalling then keeps config and records."""
    home = furnished
    assert home.install("--demo").returncode == 0
    (before,) = home.installed
    for name in ("0.0.1-older", "lib"):
        (home.environments / name).mkdir()
    (home.environments / "0.0.1-older/.made-by-aigw-install").touch()
    checkout = copy_checkout(tmp_path / "checkout")
    main = checkout / "aigw/__init__.py"
    main.write_text(main.read_text().replace(__version__, "9.9.9"))
    ran = home.install(checkout=checkout, AIGW_PYTHON=without_ensurepip(tmp_path))
    assert ran.returncode == 0, ran.stderr
    assert "fetching the pinned one" in ran.stderr
    assert home.run("--version").stdout == "aigw 9.9.9\n"
    environments = {path.name for path in home.installed}
    assert len(environments) == 3
    assert {before.name, "lib"} < environments  # lib is somebody else's

    removed = home.install("--uninstall")
    assert removed.returncode == 0, removed.stderr
    assert not home.aigw.exists()
    assert [path.name for path in home.environments.iterdir()] == ["lib"]
    assert home.config.exists()
    assert str(home.config) in removed.stderr
    assert list(home.environments.parent.glob("aigw.db"))
    assert "not installed" in home.install("--uninstall").stderr


def test_a_failed_installation_changes_nothing(home: Home, tmp_path: Path) -> None:
    """An index that cannot be reached: an error, and nothing left behind."""
    python = without_ensurepip(tmp_path)
    ran = home.install(AIGW_PYTHON=python, PIP_INDEX_URL="http://127.0.0.1:1/simple", PIP_CONFIG_FILE="/dev/null")
    assert ran.returncode == 1
    assert "could not fetch pip: 127.0.0.1" in ran.stderr
    assert "nothing was changed" in ran.stderr
    assert home.installed == []
    assert not home.aigw.exists()


def test_dry_run(home: Home) -> None:
    """It says what it would do, and does nothing."""
    ran = home.install("--dry-run", "--serve", "--demo")
    assert ran.returncode == 0, ran.stderr
    assert str(home.aigw) in ran.stderr
    assert list(home.path.iterdir()) == []


def test_a_command_of_others_is_left_alone(home: Home) -> None:
    """A program called aigw that we did not write is not replaced."""
    home.bin.mkdir(parents=True)
    home.aigw.write_text("#!/bin/sh\necho mine\n")
    ran = home.install()
    assert ran.returncode == 1
    assert "not ours" in ran.stderr
    assert "mine" in home.aigw.read_text()


@pytest.mark.parametrize(
    ("options", "variables", "code", "says"),
    [
        (["--wrong"], {}, 2, "unknown option"),
        (["--demo", "--port", "eighty"], {}, 2, "--port"),
        ([], {"HOME": ""}, 1, "HOME is not set"),
        ([], {"AIGW_HOME": "here"}, 1, "absolute"),
        ([], {"AIGW_PYTHON": "/nowhere/python"}, 1, "no such program"),
        ([], {"AIGW_PYTHON": "/bin/false"}, 1, "is not CPython 3.11"),
    ],
)
def test_wrong_usage(home: Home, options: list[str], variables: dict[str, str], code: int, says: str) -> None:
    """Each mistake is named, and nothing is made."""
    ran = home.install(*options, **variables)
    assert (ran.returncode, says in ran.stderr) == (code, True), ran.stderr
    assert list(home.path.iterdir()) == []


def test_no_python_and_no_uv(home: Home, tmp_path: Path) -> None:
    """Only a Python that is too old: the message names it and what to do. (The system's own is hidden by a changed copy.)"""
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "packaging", checkout / "packaging")
    (checkout / "aigw").mkdir()
    (checkout / "aigw/__main__.py").touch()
    shutil.copy(ROOT / "install.sh", checkout)
    script = checkout / "packaging/environment.sh"
    script.write_text(re.sub(r"/usr/(local/)?bin/python3|/opt/homebrew/bin/python3", "/nowhere/python3", script.read_text()))
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("bash", "dirname", "sed", "cat"):
        (programs / name).symlink_to(shutil.which(name) or name)
    (programs / "python3").write_text("#!/bin/sh\ncase $2 in *platform*) echo 3.9.2 ;; *) exit 1 ;; esac\n")
    (programs / "python3").chmod(0o755)
    ran = home.install(checkout=checkout, PATH=str(programs))
    assert ran.returncode == 1
    assert "python3 is 3.9.2" in ran.stderr
    assert "apt install python3" in ran.stderr
