"""Fetching pip where Python brings none: from a real index on a loopback socket, and only the file that the lock names."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def index(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A package index with one fake pip: its folder and its address."""
    folder = tmp_path / "index"
    (folder / "simple/pip").mkdir(parents=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    yield folder, f"http://127.0.0.1:{server.server_port}/simple/"
    server.shutdown()
    serving.join()
    server.server_close()


@pytest.fixture
def fetch(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the script beside a lock that wants the wheel b"good"."""
    (tmp_path / "packaging").mkdir()
    shutil.copy(ROOT / "packaging/pinned_pip.py", tmp_path / "packaging")
    shutil.copy(ROOT / "uv.lock", tmp_path)
    (tmp_path / "packaging/pip.lock").write_text(f"# why\npip==1.0 --hash=sha256:{hashlib.sha256(b'good').hexdigest()}\n")

    def run(**environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(tmp_path / "packaging/pinned_pip.py"), str(tmp_path)]
        clean = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)} | environment
        return subprocess.run(command, env=clean, capture_output=True, text=True, timeout=30, check=False)

    return run


def serve_wheel(folder: Path, content: bytes) -> None:
    (folder / "pip-1.0-py3-none-any.whl").write_bytes(content)
    links = '<a href="../../pip-0.9-py3-none-any.whl">old</a><a href="../../pip-1.0-py3-none-any.whl#sha256=0">pip</a>'
    (folder / "simple/pip/index.html").write_text(f"<!doctype html><body>{links}")


def test_the_named_wheel_is_fetched(index: tuple[Path, str], fetch: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """From where PIP_INDEX_URL points; its path is printed."""
    serve_wheel(index[0], b"good")
    ran = fetch(PIP_INDEX_URL=index[1])
    assert ran.returncode == 0, ran.stderr
    assert Path(ran.stdout.strip()).read_bytes() == b"good"


def test_another_file_of_that_name_is_refused(
    index: tuple[Path, str], fetch: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """An index that serves something else under the name gets nowhere, whatever hash it claims itself."""
    serve_wheel(index[0], b"evil")
    ran = fetch(PIP_INDEX_URL=index[1])
    assert ran.returncode == 1
    assert "SHA-256 differs" in ran.stderr
    assert not list(tmp_path.glob("*.whl"))


def test_pip_conf_and_further_indexes_are_honoured(
    index: tuple[Path, str], fetch: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """The user's pip.conf names the index; one that lacks the file is passed over."""
    serve_wheel(index[0], b"good")
    config = tmp_path / ".config/pip/pip.conf"
    config.parent.mkdir(parents=True)
    config.write_text(f"[global]\nindex-url = {index[1]}none/\nextra-index-url = {index[1]}\n")
    ran = fetch()
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip().endswith("pip-1.0-py3-none-any.whl")


def test_nothing_to_be_had(index: tuple[Path, str], fetch: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """The message says where it looked, and shows no password of the address."""
    ran = fetch(PIP_INDEX_URL=index[1].replace("127", "me:secret@127"))
    assert ran.returncode == 1
    assert "127.0.0.1" in ran.stderr
    assert "secret" not in ran.stderr
    assert "Traceback" not in ran.stderr
