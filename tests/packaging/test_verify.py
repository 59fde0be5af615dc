"""`aigw verify` of a real single file: each file of it changed, added or missing, a changed launcher, and signatures."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.packaging.test_build import NAME, built, checkout  # noqa: F401 - fixtures
from tests.signing import Key

pytestmark = pytest.mark.long


class Installed:
    """The single file in a home of its own."""

    def __init__(self, built: Path, home: Path) -> None:  # noqa: F811
        self.home = home
        self.program = home / "bin/aigw"
        self.program.parent.mkdir(parents=True)
        shutil.copy(built / NAME, self.program)
        assert self.run("--version").stdout == "aigw 0.1.0\n"
        (self.runtime,) = (home / ".local/share/aigw/rt").iterdir()
        self.release = home / ".local/share/aigw/releases/0.1.0"

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {"HOME": str(self.home), "PATH": os.environ["PATH"]}
        return subprocess.run(
            [self.program, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    def flaws(self, *arguments: str) -> list[str]:
        told = json.loads(self.run("verify", "--json", *arguments).stdout)
        return [f"{one['path'].removeprefix(str(self.home))} {one['what']}" for one in told["flaws"]]


@pytest.fixture
def here(built: Path, tmp_path: Path) -> Installed:  # noqa: F811
    return Installed(built, tmp_path / "home")


def test_a_build_of_ones_own(here: Installed) -> None:
    """Unsigned, and as its manifest says; in under half a second of work, several times over."""
    done = here.run("verify")
    assert done.returncode == 0, done.stdout
    assert "unsigned" in done.stdout
    assert "files as released, none else" in done.stdout
    assert here.run("verify", "--require-signature").returncode == 1


def test_each_single_change(here: Installed) -> None:
    """A sample of all files: changed, then missing; then one added in each folder. Exactly that is named."""
    names = sorted(json.loads((here.runtime / "manifest.json").read_text())["files"])
    untouched = [
        name for name in names if "/aigw/" not in name and "encodings" not in name and name.endswith((".py", ".so.1", ".txt"))
    ]
    for name in untouched[:: len(untouched) // 12]:
        path = here.runtime / name
        content = path.read_bytes()
        path.write_bytes(content + b"\n")
        assert here.flaws() == [f"{name} was changed"]
        path.unlink()
        assert here.flaws() == [f"{name} is missing"]
        path.write_bytes(content)
        path.chmod(0o644)
    for folder in ("lib", "lib/python3.11/site-packages", "lib/shared", "bin"):
        added = here.runtime / folder / "evil.pth"
        if added.parent.is_dir():
            added.write_text("import os")
            assert here.flaws() == [f"{folder}/evil.pth was added"]
            added.unlink()
    assert here.flaws() == []


def test_a_compiled_file_and_the_manifest(here: Installed) -> None:
    """An implant in a .pyc that also mends the manifest: the manifest inside of the single file is what counts."""
    name = next(path for path in (here.runtime / "lib").rglob("idna/__pycache__/core*.pyc")).relative_to(here.runtime)
    (here.runtime / name).write_bytes((here.runtime / name).read_bytes() + b"\0")
    assert here.flaws() == [f"{name} was changed"]
    import hashlib

    said = json.loads((here.runtime / "manifest.json").read_text())
    said["files"][str(name)][0] = hashlib.sha256((here.runtime / name).read_bytes()).hexdigest()
    (here.runtime / "manifest.json").write_text(json.dumps(said))
    assert here.flaws() == [f"{name} was changed", "manifest.json was changed"]


def test_signatures(here: Installed, built: Path, tmp_path: Path) -> None:  # noqa: F811
    """Signed by a key that is trusted, by one that is not, with another list, with a changed launcher."""
    keys = [Key(tmp_path, name) for name in ("ours", "theirs")]
    (tmp_path / "signers").write_text(f"release@aigw {keys[0].public}\n")
    trusting = ("--signers", str(tmp_path / "signers"), "--require-signature")
    here.release.mkdir(parents=True)
    sums = (built / "SHA256SUMS").read_bytes()

    def keep(content: bytes, signature: bytes) -> None:
        (here.release / "SHA256SUMS").write_bytes(content)
        (here.release / "SHA256SUMS.sig").write_bytes(signature)

    keep(sums, keys[0].sign(sums))
    done = here.run("verify", *trusting)
    assert done.returncode == 0, done.stdout
    assert "0.1.0 was signed by release@aigw (SHA256:" in done.stdout
    keep(sums, keys[1].sign(sums))
    assert here.flaws(*trusting) == [
        "/.local/share/aigw/releases/0.1.0/SHA256SUMS it was signed with a key that is not trusted here"
    ]
    keep(sums.replace(b"a", b"b"), keys[0].sign(sums))
    assert "does not belong to this content" in here.flaws(*trusting)[0]
    keep(sums, keys[0].sign(sums))
    content = bytearray(here.program.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "changed").write_bytes(content)
    os.replace(tmp_path / "changed", here.program)  # noqa: PTH105
    here.program.chmod(0o755)
    assert "it was damaged or changed" in here.flaws(*trusting)[0]
    content[len(content) // 2] ^= 1
    content[0x300] ^= 1  # in the launcher: nothing inside of the file covers it, the signed list does
    (tmp_path / "changed").write_bytes(content)
    (tmp_path / "changed").chmod(0o755)
    told = subprocess.run(
        [here.runtime / "bin/python3", "-I", "-S", "-m", "aigw", "verify", "--json", *trusting],
        env={"HOME": str(here.home), "AIGW_LAUNCHER": str(tmp_path / "changed"), "AIGW_RUNTIME": str(here.runtime)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert [one["what"] for one in json.loads(told.stdout)["flaws"]] == ["is not what was signed"]


def test_a_server_that_refuses(here: Installed) -> None:
    """[server] integrity = "refuse": nothing is served by files that are not the released ones."""
    config = here.home / ".config/aigw/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[server]\nport = 0\nintegrity = "refuse"\n[admin]\nport = 0\n[providers.demo]\n')
    config.chmod(0o600)
    (here.runtime / "lib/evil.pth").write_text("import os")
    done = here.run("serve")
    assert done.returncode == 1
    assert (
        'what is installed is not what was released, and [server] integrity = "refuse": lib/evil.pth was added' in done.stderr
    )
