"""install.sh's way out: an index of one's own, a proxy, a company's certificate. Each is real, on loopback, and seen in use."""

from __future__ import annotations

import hashlib
import os
import re
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import trustme

from tests.cli.findings import network
from tests.packaging.home import ROOT, Home, without_ensurepip


class Bare(Home):
    """A home that knows of no index, proxy or certificate but those that a test names."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.environment = {
            "HOME": str(self.path),
            "PATH": "/usr/bin:/bin",
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_RETRIES": "0",
            "PIP_DEFAULT_TIMEOUT": "5",
        }


@pytest.fixture
def bare(tmp_path: Path) -> Bare:
    return Bare(tmp_path)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "the company's.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


class _Index(SimpleHTTPRequestHandler):
    """A static package index."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        self.server.seen.append(self.path)  # type: ignore[attr-defined]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever refuses our certificate is no error of ours."""


@contextmanager
def index(folder: Path, tls: ssl.SSLContext | None = None) -> Iterator[Any]:
    server: Any = _Server(("127.0.0.1", 0), partial(_Index, directory=str(folder)))
    server.seen = []
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def context(authority: trustme.CA, name: str) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(made)
    return made


@pytest.mark.parametrize(
    ("said", "brings_pip"), [("option", False), ("variable", False), pytest.param("variable", True, marks=pytest.mark.long)]
)
def test_an_index_of_ones_own(bare: Bare, tmp_path: Path, said: str, brings_pip: bool) -> None:
    """pip, or curl where Python brings no pip, asks there and nowhere else; an empty index is an error that changes nothing."""
    with index(tmp_path) as server:
        url = f"http://127.0.0.1:{server.server_port}/simple"
        variables = {} if brings_pip else {"AIGW_PYTHON": without_ensurepip(tmp_path)}
        if said == "option":
            ran = bare.install("--index-url", url, **variables, PIP_INDEX_URL="http://127.0.0.1:9/never")
        else:
            ran = bare.install(**variables, PIP_INDEX_URL=url)
    assert ran.returncode == 1
    assert server.seen[0].startswith("/simple/")
    assert "nothing was changed" in ran.stderr
    assert "127.0.0.1:9" not in ran.stderr
    assert not bare.aigw.exists()
    assert bare.installed == []


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "HTTP_PROXY", "https_proxy"])
def test_a_proxy(bare: Bare, tmp_path: Path, variable: str) -> None:
    """It is asked for the index's host; one that refuses is named by its status; NO_PROXY goes round it."""
    scheme = "http" if variable == "HTTP_PROXY" else "https"
    python = without_ensurepip(tmp_path)
    with network.proxy(answer=407) as proxy:
        settings = {variable: f"http://127.0.0.1:{proxy.server_port}", "PIP_INDEX_URL": f"{scheme}://index.invalid/simple"}
        ran = bare.install(AIGW_PYTHON=python, **settings)
        assert proxy.seen, ran.stderr
        assert "index.invalid" in proxy.seen[0]
        assert "407" in ran.stderr
        assert "HTTPS_PROXY=" in ran.stderr or "nothing was changed" in ran.stderr
        proxy.seen.clear()
        assert bare.install(AIGW_PYTHON=python, **settings, NO_PROXY="index.invalid").returncode == 1
        assert proxy.seen == []


@pytest.mark.parametrize("way", ["--ca-file", "PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", ""])
def test_a_companys_certificate(bare: Bare, tmp_path: Path, authority: trustme.CA, ca_file: Path, way: str) -> None:
    """Named in whichever way, the index is trusted and asked; not named, nothing is sent to it."""
    python = without_ensurepip(tmp_path)
    with index(tmp_path, context(authority, "127.0.0.1")) as server:
        url = f"https://127.0.0.1:{server.server_port}/simple"
        if way == "--ca-file":
            ran = bare.install("--index-url", url, "--ca-file", str(ca_file), AIGW_PYTHON=python)
        else:
            ran = bare.install("--index-url", url, AIGW_PYTHON=python, **({way: str(ca_file)} if way else {}))
    assert ran.returncode == 1
    assert (server.seen != []) == bool(way)
    if not way:
        assert "certificate" in ran.stderr


def test_all_of_it_with_pip(bare: Bare, tmp_path: Path, authority: trustme.CA, ca_file: Path) -> None:
    """pip itself: through the proxy, to an index of one's own, with the company's certificate."""
    with index(tmp_path, context(authority, "index.invalid")) as server, network.proxy(to=server.server_address) as proxy:
        ran = bare.install(
            "--index-url=https://index.invalid/simple",
            f"--ca-file={ca_file}",
            HTTPS_PROXY=f"http://127.0.0.1:{proxy.server_port}",
        )
        assert proxy.seen[0] == "CONNECT index.invalid:443"
    assert server.seen[0].startswith("/simple/"), ran.stderr
    assert ran.returncode == 1  # the index is empty
    assert "--index-url" in ran.stderr  # what to do next


@pytest.mark.long
def test_a_whole_installation(bare: Bare, tmp_path: Path, authority: trustme.CA, ca_file: Path) -> None:
    """With a full index behind all three, aigw is installed, although nothing else can be reached."""
    wheels, tools = tmp_path / "index/files", tmp_path / "tools"
    subprocess.run(["/usr/bin/env", "python3", "-m", "venv", tools], check=True)
    lock = ROOT / "packaging/requirements.lock"
    command = [tools / "bin/python", "-m", "pip", "download", "-q", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    subprocess.run([*command, "-r", lock, "-d", wheels], check=True)
    for wheel in wheels.iterdir():
        name = re.sub(r"[-_.]+", "-", wheel.name.split("-")[0]).lower()
        page = tmp_path / "index/simple" / name / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        page.write_text(f'<a href="../../files/{wheel.name}#sha256={digest}">{wheel.name}</a>\n')
    with (
        index(tmp_path / "index", context(authority, "index.invalid")) as server,
        network.proxy(to=server.server_address) as proxy,
    ):
        ran = bare.install(
            "--no-init",
            "--index-url",
            "https://index.invalid/simple",
            "--ca-file",
            os.path.relpath(ca_file, "/"),  # relative to where it was started
            HTTPS_PROXY=f"http://127.0.0.1:{proxy.server_port}",
        )
    assert ran.returncode == 0, ran.stderr
    assert len([path for path in server.seen if path.startswith("/files/")]) == len(list(wheels.iterdir()))
    assert bare.run("--version").returncode == 0


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--ca-file", "/nowhere.pem"], 1, "no such file"),
        (["--ca-file", "/etc/passwd"], 1, "holds no certificate"),
        (["--ca-file"], 2, "takes a file"),
        (["--index-url", "pypi.example"], 2, "begins with https://"),
        (["--index-url"], 2, "takes a URL"),
    ],
)
def test_wrong_usage(home: Home, options: list[str], code: int, says: str) -> None:
    """Each mistake is named before anything is done."""
    ran = home.install(*options)
    assert (ran.returncode, says in ran.stderr) == (code, True), ran.stderr
    assert list(home.path.iterdir()) == []


def test_settings_are_for_the_download_alone(furnished: Home, ca_file: Path) -> None:
    """The aigw that is started at the end does not inherit them: it would work now, and not the next time."""
    command = ["bash", str(furnished.checkout / "install.sh"), "--serve", "--demo", "--port", str(furnished.port)]
    command += ["--index-url", "https://index.invalid/simple", "--ca-file", str(ca_file)]
    with subprocess.Popen(
        command, env=furnished.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stderr is not None
        assert any("listening on" in line for line in server.stderr)
        inherited = Path(f"/proc/{server.pid}/environ").read_text()
        server.terminate()
        server.communicate(timeout=30)
    assert server.returncode == 0
    assert "HOME=" in inherited
    assert str(ca_file) not in inherited
    assert "index.invalid" not in inherited
