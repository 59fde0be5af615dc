"""install.sh, for real: into an empty home with an empty environment, from the package index, once per run of this file."""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import time
from pathlib import Path

import httpx2
import openai
import pytest

from aigw import __version__

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


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, str, str]:
    """A home where `install.sh --demo` ran, what it printed, and the key in it."""
    home = Home(tmp_path_factory.mktemp("demo"), copy_checkout(tmp_path_factory.mktemp("checkout")))
    ran = home.install("--demo", "--port", str(home.port))
    assert ran.returncode == 0, ran.stderr
    keys = set(re.findall(r"sk-aigw-[\w-]+", ran.stdout))
    assert len(keys) == 1, ran.stdout
    return home, ran.stdout, keys.pop()


def test_the_command_works(demo: tuple[Home, str, str], tmp_path: Path) -> None:
    """`aigw` runs, from anywhere, and a file of that name in the working directory does not run in its place."""
    home, _, _ = demo
    (tmp_path / "aigw.py").write_text("raise SystemExit('not me')")
    ran = home.run("--version", cwd=str(tmp_path))
    assert (ran.returncode, ran.stdout) == (0, f"aigw {__version__}\n"), ran.stderr


def test_what_is_installed_is_what_is_recorded(demo: tuple[Home, str, str]) -> None:
    """Every file of the package has its SHA-256 in RECORD; the environment has no pip and no scripts of others."""
    (environment,) = demo[0].environments.iterdir()
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
    assert len(list(home.environments.iterdir())) == 1
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


def test_upgrade_without_ensurepip(demo: tuple[Home, str, str], tmp_path: Path) -> None:
    """A changed checkout replaces the launcher's target, with a Python that brings no pip; the last environment stays for
    servers that still run from it, older ones go; uninstalling then keeps config and records."""
    home, _, _ = demo
    (before,) = home.environments.iterdir()
    (home.environments / "0.0.1-older").mkdir()
    checkout = copy_checkout(tmp_path / "checkout")
    main = checkout / "aigw/__init__.py"
    main.write_text(main.read_text().replace(__version__, "9.9.9"))
    ran = home.install(checkout=checkout, AIGW_PYTHON=without_ensurepip(tmp_path))
    assert ran.returncode == 0, ran.stderr
    assert "fetching the pinned one" in ran.stderr
    assert home.run("--version").stdout == "aigw 9.9.9\n"
    environments = set(home.environments.iterdir())
    assert len(environments) == 2
    assert before in environments

    removed = home.install("--uninstall")
    assert removed.returncode == 0, removed.stderr
    assert not home.aigw.exists()
    assert not home.environments.exists()
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
    assert list(home.environments.iterdir()) == []
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
