"""A real release over loopback, from the one line to the last trace: installed, answering, updated, rolled back, taken away."""

from __future__ import annotations

import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.packaging.released import Place, Served, piped
from tests.packaging.test_build import build, checkout  # noqa: F401 - a fixture
from tests.packaging.test_install_release import SHELLS

pytestmark = pytest.mark.long

ASK = b'{"model":"demo","messages":[{"role":"user","content":"hello"}]}'


@pytest.fixture(scope="module")
def place(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:  # noqa: F811
    """Two versions that were built and signed."""
    place = Place(tmp_path_factory.mktemp("place"))
    place.publish("0.1.0", build(checkout, tmp_path_factory.mktemp("one") / "dist", "--signers", str(place.signers)))
    newer = tmp_path_factory.mktemp("newer") / "checkout"
    shutil.copytree(checkout, newer)
    for name in ("pyproject.toml", "aigw/__init__.py"):
        text = (newer / name).read_text()
        assert '"0.1.0"' in text
        (newer / name).write_text(text.replace('"0.1.0"', '"0.2.0"', 1))
    place.publish("0.2.0", build(newer, tmp_path_factory.mktemp("two") / "dist", "--signers", str(place.signers)))
    return place


class Home:
    """Where it is installed."""

    def __init__(self, folder: Path, base: str) -> None:
        self.path = folder
        self.environment = {"HOME": str(folder), "PATH": "/usr/bin:/bin", "AIGW_DOWNLOAD_BASE": base, "PYTHONWARNINGS": "error"}
        self.aigw = folder / ".local/bin/aigw"

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.aigw, *arguments], env=self.environment, capture_output=True, text=True, timeout=120, check=False
        )

    @contextmanager
    def serving(self) -> Iterator[tuple[subprocess.Popen[str], str]]:
        """The server and its address."""
        with subprocess.Popen([self.aigw, "serve"], env=self.environment, stderr=subprocess.PIPE, text=True) as server:
            try:
                line = next(line for line in server.stderr or () if "listening on" in line)
                yield server, line.strip().rpartition(" ")[2]
            finally:
                server.terminate()
                server.wait(30)


def answer(base: str, key: str) -> int:
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    request = urllib.request.Request(f"{base}/v1/chat/completions", ASK, headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as said:
        return int(said.status)


@pytest.mark.parametrize("shell", SHELLS)
def test_from_the_one_line_to_the_first_answer(place: Place, tmp_path: Path, shell: str) -> None:
    if shutil.which(SHELLS[shell][0]) is None:
        pytest.skip(f"{shell} is not here")
    with Served(place.folder) as served:
        ran = piped(
            SHELLS[shell],
            place.installer.read_bytes(),
            tmp_path / "home",
            "--demo",
            "--port",
            "0",
            AIGW_DOWNLOAD_BASE=served.base,
        )
        assert ran.returncode == 0, ran.stderr
        keys = set(re.findall(r"sk-aigw-[\w-]+", ran.stdout))
        home = Home(tmp_path / "home", served.base)
        with home.serving() as (_, base):
            assert answer(base, keys.pop()) == 200
        done = home.run("verify", "--require-signature")
        assert done.returncode == 0, done.stdout
        ran = piped(
            SHELLS[shell],
            place.installer.read_bytes(),
            tmp_path / "home",
            "--uninstall",
            "--purge",
            "--yes",
            AIGW_DOWNLOAD_BASE=served.base,
        )
        assert ran.returncode == 0, ran.stderr
        assert [path for path in (tmp_path / "home").rglob("*") if path.is_file()] == []


def test_update_and_back(place: Place, tmp_path: Path) -> None:
    """From 0.1.0 to 0.2.0 beside a running server, which goes on; back; and then withdrawn."""
    with Served(place.folder) as served:
        home = Home(tmp_path / "home", served.base)
        options = ("--demo", "--port", "0", "--version", "0.1.0")
        ran = piped(["dash"], place.installer.read_bytes(), home.path, *options, AIGW_DOWNLOAD_BASE=served.base)
        assert ran.returncode == 0, ran.stderr
        (key,) = set(re.findall(r"sk-aigw-[\w-]+", ran.stdout))
        assert home.run("--version").stdout == "aigw 0.1.0\n"
        done = home.run("update", "--check")
        assert (done.returncode, done.stdout) == (1, "aigw 0.2.0 is there (this is 0.1.0); next: aigw update\n")
        done = home.run("update", "--dry-run")
        assert "The database stays as it is: no migrations" in done.stderr, done.stderr
        with home.serving() as (_, base):
            done = home.run("update")
            assert done.returncode == 0, done.stderr
            assert "is still aigw 0.1.0: start it again to have 0.2.0" in done.stderr
            assert home.run("--version").stdout == "aigw 0.2.0\n"
            assert answer(base, key) == 200
        with home.serving() as (_, base):
            assert answer(base, key) == 200
            assert '"version": "0.2.0"' in home.run("status", "--json").stdout
            assert home.run("verify", "--require-signature").returncode == 0
            done = home.run("verify", "--runtime")
            assert done.returncode == 0, done.stdout
        done = home.run("update", "--rollback")
        assert done.returncode == 0, done.stderr
        assert home.run("--version").stdout == "aigw 0.1.0\n"
        assert home.run("verify", "--require-signature").returncode == 0
        with home.serving() as (_, base):
            assert answer(base, key) == 200
        place.revoke("0.1.0", "it sends keys away")
        try:
            assert home.run("update", "--check").returncode == 1
            done = home.run("verify")
            assert done.returncode == 1
            assert "aigw 0.1.0 was withdrawn: it sends keys away; run: aigw update" in done.stdout
            doctor = home.run("doctor", "--offline").stdout
            assert "was withdrawn" in doctor
        finally:
            for name in ("revoked.json", "revoked.json.sig"):
                (place.channel / name).unlink()


def test_first_starts_at_once(place: Place, tmp_path: Path) -> None:
    """Eight of them unpack one runtime; it is whole."""
    with Served(place.folder) as served:
        home = Home(tmp_path / "home", served.base)
        piped(["dash"], place.installer.read_bytes(), home.path, AIGW_DOWNLOAD_BASE=served.base)
        shutil.rmtree(home.path / ".local/share/aigw/rt")
        running = [subprocess.Popen([home.aigw, "--version"], env=home.environment, stdout=subprocess.PIPE) for _ in range(8)]
        assert {one.communicate(timeout=60)[0] for one in running} == {b"aigw 0.2.0\n"}
        assert home.run("verify").returncode == 0
