"""What packaging/build makes: the same bytes each time, a program that needs nothing of the machine but its C library."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from tests.packaging.home import PASSED_ON, ROOT, copy_checkout

NAME = f"aigw-0.1.0-{sys.platform}-{platform.machine()}"
ROOTLESS = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: chroot")


def module(name: str) -> ModuleType:
    """A file of packaging/, as the build loads it."""
    sys.path.insert(0, str(ROOT / "packaging"))
    try:
        spec = importlib.util.spec_from_file_location(name, ROOT / "packaging" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
    finally:
        sys.path.remove(str(ROOT / "packaging"))
    return loaded


def build(checkout: Path, output: Path, *options: str) -> Path:
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    environment |= {"PATH": os.environ["PATH"], "HOME": str(output.parent), "TMPDIR": str(output.parent)}
    command = [str(checkout / "packaging/build"), "--python", "/usr/bin/python3", "--output", str(output), *options]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=590, check=False)
    assert ran.returncode == 0, ran.stderr
    return output


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a build reads, where nobody edits it; with wheels that were fetched before, to be quick."""
    folder = copy_checkout(tmp_path_factory.mktemp("sources"))
    for name in ("README.md", "LICENSE", "CHANGELOG.md"):
        shutil.copy(ROOT / name, folder)
    if (ROOT / "build/wheels").is_dir():
        shutil.copytree(ROOT / "build/wheels", folder / "build/wheels")
    return folder


@pytest.fixture(scope="session")
def built(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(checkout, tmp_path_factory.mktemp("first") / "dist")


def test_our_wheel(tmp_path: Path) -> None:
    """Made twice it is the same; pip's own reading of it finds every file, the extras and the licences."""
    maker = module("make_wheel")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        maker.main(tmp_path / name, None)
    wheels = [tmp_path / name / "aigw-0.1.0-py3-none-any.whl" for name in ("one", "two")]
    assert wheels[0].read_bytes() == wheels[1].read_bytes()
    sdists = [tmp_path / name / "aigw-0.1.0.tar.gz" for name in ("one", "two")]
    assert sdists[0].read_bytes() == sdists[1].read_bytes()
    with zipfile.ZipFile(wheels[0]) as archive:
        names = set(archive.namelist())
        metadata = archive.read("aigw-0.1.0.dist-info/METADATA").decode()
        recorded = {line.split(",")[0] for line in archive.read("aigw-0.1.0.dist-info/RECORD").decode().splitlines()}
        assert archive.testzip() is None
    assert recorded == names
    assert {"aigw/__main__.py", "aigw/providers/catalog.toml", "aigw-0.1.0.dist-info/licenses/LICENSE"} <= names
    assert "Requires-Dist: redis>=6.4,<8 ; extra == 'redis'" in metadata
    site = tmp_path / "site"
    with zipfile.ZipFile(wheels[0]) as archive:
        archive.extractall(site)
    script = "import importlib.metadata as m; d = m.distribution('aigw'); print(d.version, len(d.requires), len(d.files))"
    said = subprocess.run(
        [sys.executable, "-S", "-c", script], env={"PYTHONPATH": str(site)}, capture_output=True, text=True, check=True
    )
    assert said.stdout.startswith("0.1.0 "), said.stderr


def test_signers_of_ones_own(tmp_path: Path) -> None:
    """A build may be given its trusted keys; nothing else of the wheel changes."""
    maker = module("make_wheel")
    (tmp_path / "signers").write_text("release@aigw ssh-ed25519 AAAA\n")
    assert maker.own_files(tmp_path / "signers")[maker.SIGNERS] == b"release@aigw ssh-ed25519 AAAA\n"
    assert {**maker.own_files(tmp_path / "signers"), maker.SIGNERS: b""} == {**maker.own_files(None), maker.SIGNERS: b""}


def test_which_wheels_are_taken(tmp_path: Path) -> None:
    """What the extras need and no more; a wheel whose hash is not in the lock is as good as none."""
    maker = module("fetch_wheels")
    none, redis, everything = (set(maker.blocks(maker.select(extras))) for extras in ("none", "redis", "all"))
    assert redis - none == {"redis"} | (redis & {"async-timeout"}) - none
    assert {"asyncpg", "redis", "aiohttp"} <= everything
    with pytest.raises(SystemExit, match="no extra 'nonsense'"):
        maker.select("nonsense")
    (tmp_path / "idna-1-py3-none-any.whl").write_bytes(b"good")
    good = hashlib.sha256(b"good").hexdigest()
    assert maker.check(f"idna==1 \\\n    --hash=sha256:{good}\n", tmp_path) == [tmp_path / "idna-1-py3-none-any.whl"]
    assert maker.check(f"x==1 ; sys_platform == 'win32' \\\n    --hash=sha256:{good}\n", tmp_path) == []
    with pytest.raises(SystemExit, match="no wheel of idna 1"):
        maker.check(f"idna==1 \\\n    --hash=sha256:{'0' * 64}\n", tmp_path)


def test_what_a_wheel_may_bring(tmp_path: Path) -> None:
    """A .pth, a path out of the folder, a file that is not what its RECORD says: not packed."""
    maker = module("make_tree")

    def wheel(**files: str) -> Path:
        path = tmp_path / "x-1-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in files.items():
                archive.writestr(name, text)
            record = "".join(f"{name},sha256={module('make_wheel').digest(text.encode())},1\n" for name, text in files.items())
            archive.writestr("x-1.dist-info/RECORD", record.replace("tampered.py,sha256=", "tampered.py,sha256=x"))
        return path

    site = tmp_path / "tree/site"
    maker.install(
        site,
        wheel(**{"x.py": "", "x.pyx": "", "x-1.data/purelib/y.py": "", "x-1.data/scripts/z": ""}),
        "x",
        tmp_path / "tree",
        {},
    )
    assert {path.name for path in site.rglob("*") if path.is_file()} == {"x.py", "y.py", "RECORD"}
    for files, why in (
        ({"evil.pth": "import os"}, "would run code"),
        ({"../out.py": ""}, "outside of itself"),
        ({"tampered.py": ""}, "not what its RECORD says"),
        ({"x.py": "again"}, "there already"),
    ):
        with pytest.raises(SystemExit, match=why):
            maker.install(site, wheel(**files), "x", tmp_path / "tree", {})


@pytest.mark.skipif(sys.platform != "linux", reason="ELF is Linux's")
def test_a_program_finds_libraries_beside_itself(tmp_path: Path) -> None:
    """The library beside the program is loaded; a file that is no program, or has such a path already, is left alone."""
    (tmp_path / "lib.c").write_text("int answer(void) { return 42; }")
    (tmp_path / "main.c").write_text("int answer(void); int main(void) { return answer(); }")
    (tmp_path / "shared").mkdir()
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "shared/libanswer.so", tmp_path / "lib.c"], check=True)
    program = tmp_path / "bin/main"
    program.parent.mkdir()
    subprocess.run(
        ["cc", "-o", program, tmp_path / "main.c", tmp_path / "shared/libanswer.so", "-Wl,-soname,x"], check=True, cwd=tmp_path
    )
    text = program.read_bytes()
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-Wl,-soname,libanswer.so", "-o", tmp_path / "shared/libanswer.so", tmp_path / "lib.c"],
        check=True,
    )
    subprocess.run(["cc", "-o", program, tmp_path / "main.c", f"-L{tmp_path}/shared", "-lanswer"], check=True)
    assert program.read_bytes() != text
    assert subprocess.run([program], capture_output=True, check=False).returncode == 127
    setter = module("elf_path")
    setter.set_path(program, "$ORIGIN/../shared")
    assert subprocess.run([program], capture_output=True, check=False).returncode == 42
    with pytest.raises(ValueError, match="already"):
        setter.set_path(program, "$ORIGIN/../shared")
    with pytest.raises(ValueError, match="no 64-bit"):
        setter.set_path(tmp_path / "main.c", "$ORIGIN")


@pytest.mark.long
def test_two_builds_are_the_same(checkout: Path, built: Path, tmp_path: Path) -> None:
    """Every file that is released, in another folder and at another time; and the sums are those of the files."""
    second = build(checkout, tmp_path / "second")
    files = sorted(path.name for path in built.iterdir())
    assert files == sorted(path.name for path in second.iterdir())
    assert {NAME, f"{NAME}.tar.gz", f"{NAME}.manifest.json", "SHA256SUMS", "aigw-0.1.0-py3-none-any.whl"} <= set(files)
    for name in files:
        assert (built / name).read_bytes() == (second / name).read_bytes(), name
    for line in (built / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((built / name).read_bytes()).hexdigest() == digest


@pytest.mark.long
def test_the_tree_and_its_manifest(built: Path, tmp_path: Path) -> None:
    """Archive and single file hold what the manifest says: every byte, every mode, no .pth, no link, no setuid."""
    manifest = json.loads((built / f"{NAME}.manifest.json").read_text())
    with tarfile.open(built / f"{NAME}.tar.gz") as archive:
        archive.extractall(tmp_path)
    subprocess.run([built / NAME, "--version"], env={"AIGW_RUNTIME_DIR": str(tmp_path / "rt")}, check=True, capture_output=True)
    (unpacked,) = (tmp_path / "rt").iterdir()
    for tree in (tmp_path / NAME, unpacked):
        found = {
            path.relative_to(tree).as_posix(): [hashlib.sha256(path.read_bytes()).hexdigest(), path.lstat().st_mode & 0o7777]
            for path in tree.rglob("*")
            if not path.is_dir()
        }
        assert found.pop("manifest.json")[0] == hashlib.sha256((built / f"{NAME}.manifest.json").read_bytes()).hexdigest()
        assert found == {name: one[:2] for name, one in manifest["files"].items()}
    assert not [name for name in manifest["files"] if name.endswith(".pth")]
    assert {one[2] for one in manifest["files"].values()} > {"python", "aigw"}
    assert (built / NAME).stat().st_size <= 26e6


@pytest.mark.long
@ROOTLESS
def test_it_runs_where_there_is_no_python(built: Path, tmp_path: Path) -> None:
    """In a root directory with the C library and nothing else: a first start, a server, its first answer; one process."""
    root = tmp_path / "root"
    for folder in ("proc", "tmp", "dev", "home", "lib64"):
        (root / folder).mkdir(parents=True)
    for name in ("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libresolv.so.2", "libutil.so.1"):
        source = next(
            Path(folder) / name
            for folder in (f"/lib/{platform.machine()}-linux-gnu", "/lib64")
            if (Path(folder) / name).exists()
        )
        (root / source.parent.relative_to("/")).mkdir(parents=True, exist_ok=True)
        shutil.copy(source, root / source.relative_to("/"))
    for loader in Path("/lib64").glob("ld-linux*"):
        shutil.copy(loader, root / "lib64" / loader.name)
    shutil.copy(built / NAME, root / "aigw")
    (root / "home/config.toml").write_text(
        "[server]\nport = 0\n[admin]\nport = 0\n[providers.demo]\n[auth]\nrequired = false\n"
    )
    (root / "home/config.toml").chmod(0o600)
    if subprocess.run(["mount", "--bind", "/proc", root / "proc"], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        inside = ["env", "-i", "HOME=/home", "/usr/sbin/chroot", str(root), "/aigw"]
        version = subprocess.run([*inside, "--version"], capture_output=True, text=True, check=False)
        assert version.stdout == "aigw 0.1.0\n", version.stderr
        command = [*inside, "serve", "--config", "/home/config.toml"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
            try:
                line = next(line for line in server.stderr or () if "listening on" in line)
                port = re.search(r":(\d+)$", line.strip())
                assert port
                body = b'{"model":"demo","messages":[{"role":"user","content":"hello"}]}'
                call = urllib.request.Request(
                    f"http://127.0.0.1:{port[1]}/v1/chat/completions", body, {"content-type": "application/json"}
                )
                with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(call, timeout=30) as answer:
                    assert json.load(answer)["choices"]
                maps = Path(f"/proc/{server.pid}/maps").read_text()
                assert "/lib/shared/libssl.so" in maps  # its own
                assert not Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text()
            finally:
                server.send_signal(signal.SIGTERM)
            assert server.wait(60) == 0
    finally:
        subprocess.run(["umount", "-l", root / "proc"], check=True)


@pytest.mark.long
def test_nothing_of_the_machine_reaches_it(built: Path, tmp_path: Path) -> None:
    """PYTHONPATH, a user's site-packages, a .pth and LD_LIBRARY_PATH change nothing; no file appears in the tree."""
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil/sitecustomize.py").write_text("print('evil')")
    (tmp_path / "evil/aigw.py").write_text("print('evil')")
    environment = {
        "AIGW_RUNTIME_DIR": str(tmp_path / "rt"),
        "HOME": str(tmp_path),
        "PYTHONPATH": str(tmp_path / "evil"),
        "PYTHONSTARTUP": str(tmp_path / "evil/aigw.py"),
        "PYTHONHOME": str(tmp_path / "evil"),
        "LC_ALL": "C",
    }
    for arguments in (["--version"], ["--help"], ["config", "path"], ["doctor"]):
        ran = subprocess.run(
            [built / NAME, *arguments], env=environment, cwd=tmp_path / "evil", capture_output=True, text=True, check=False
        )
        assert "evil" not in ran.stdout.replace(str(tmp_path), "")
        assert "Traceback" not in ran.stderr
    (unpacked,) = (tmp_path / "rt").iterdir()
    listed = json.loads((unpacked / "manifest.json").read_text())["files"]
    assert {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()} == {
        *listed,
        "manifest.json",
    }
    script = "import sys; print([p for p in sys.path if not p.startswith(sys.argv[1])], sys.flags.isolated, sys.flags.no_site)"
    said = subprocess.run(
        [unpacked / "bin/python3", "-c", script, unpacked], env=environment, capture_output=True, text=True, check=False
    )
    assert said.stdout == "[] 1 1\n"
