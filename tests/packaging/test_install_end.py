"""How install.sh ends: in the set-up where somebody can answer, with the next command where not; half of it does nothing."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pexpect
import pytest

from tests.packaging.home import ROOT, Home

WAYS = {
    "a file": "bash install.sh",
    "standard input": "bash < install.sh",
    "a pipe": "cat install.sh | bash",
    "an argument": 'bash -c "$(cat install.sh)"',
}


def end(terminal: Any) -> tuple[int, str]:
    """The exit code, and what was said from here on."""
    terminal.expect(pexpect.EOF)
    terminal.close()
    return terminal.exitstatus, terminal.before


@pytest.mark.parametrize("way", WAYS)
def test_it_ends_in_the_set_up(furnished: Home, way: str) -> None:
    """On a terminal, however the script came there, the wizard asks and is heard; who leaves it has the program, and the
    command that asks again."""
    terminal = furnished.terminal(WAYS[way])
    terminal.expect("aigw is .*/.local/bin/aigw")
    terminal.expect(r"\?")
    terminal.send("\x03")
    code, said = end(terminal)
    assert code == 130
    assert "not set up" in said
    assert "aigw' init" in said
    assert furnished.run("--version").returncode == 0
    assert not furnished.config.exists()


def test_nobody_to_ask(furnished: Home) -> None:
    """Without a terminal: no question, exit code 0, and what to type next (the whole path, as it is not on PATH)."""
    ran = furnished.install()
    assert ran.returncode == 0
    whole = shlex.quote(str(furnished.aigw)).replace("'\"'\"'", "'\\''")
    assert f"next: {whole} init " in ran.stderr
    assert f"then: {whole} serve" in ran.stderr
    assert "--install-completion" in ran.stderr
    assert furnished.contents() == {
        ".local", ".local/bin", ".local/bin/aigw", ".local/share", ".local/share/aigw",
    }  # fmt: skip


@pytest.mark.parametrize("redirection", ["</dev/null", ">talk", "2>talk"])
def test_half_a_terminal_is_none(furnished: Home, redirection: str) -> None:
    """Answers from nowhere, or questions that nobody would see: nothing is asked."""
    code, _ = end(
        furnished.terminal(f"bash install.sh {redirection.replace('talk', shlex.quote(str(furnished.path / 'talk')))}")
    )
    assert code == 0
    assert not furnished.config.exists()


def test_not_wanted(furnished: Home) -> None:
    """--no-init on a terminal: no question."""
    terminal = furnished.terminal("bash install.sh --no-init")
    code, said = end(terminal)
    assert (code, "next: " in said) == (0, True)


def test_a_second_run_keeps_everything(furnished: Home) -> None:
    """On a terminal too: config, keys and records stay byte for byte, it is said, and nothing is asked."""
    assert furnished.install("--demo").returncode == 0
    keys = furnished.config.parent / "keys"
    keys.mkdir()
    (keys / "openai").write_text("sk-provider")
    before = {name: (furnished.path / name).read_bytes() for name in furnished.contents() if (furnished.path / name).is_file()}
    code, said = end(furnished.terminal("bash install.sh", PATH=f"{furnished.bin}:/usr/bin:/bin"))
    assert code == 0
    flat = " ".join(said.split())
    assert "kept as they are: your config" in flat
    assert "start it: aigw serve change the set-up: aigw init" in flat
    after = {name: (furnished.path / name).read_bytes() for name in furnished.contents() if (furnished.path / name).is_file()}
    assert after == before


def test_another_aigw_comes_first(furnished: Home, tmp_path: Path) -> None:
    """It is said which one the word `aigw` means."""
    other = tmp_path / "other/aigw"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    ran = furnished.install("--no-init", PATH=f"{other.parent}:{furnished.bin}:/usr/bin:/bin")
    assert f"another aigw comes first on your PATH: {other}" in ran.stderr


def test_not_with_the_home_of_another(home: Home) -> None:
    """`sudo bash install.sh` would leave root's files in a user's home: it is refused, with what to do instead."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    os.chown(home.path, 65534, 65534)
    ran = home.install(SUDO_USER="nobody")
    assert (ran.returncode, "without sudo" in ran.stderr) == (1, True)
    assert list(home.path.iterdir()) == []


def test_not_a_checkout(home: Home, tmp_path: Path) -> None:
    """A script that came through a pipe, in a folder with no checkout: it says what it needs."""
    script = (ROOT / "install.sh").read_bytes()
    ran = subprocess.run(["bash"], input=script, env=home.environment, cwd=tmp_path, capture_output=True, check=False)
    assert ran.returncode == 1
    assert b"from a checkout" in ran.stderr
    assert list(home.path.iterdir()) == []


def test_half_a_script_does_nothing(home: Home) -> None:
    """A download may end anywhere: no beginning of the script, up to its last byte but the newline, does anything."""
    script = (ROOT / "install.sh").read_bytes().rstrip()
    ends = [at for at, byte in enumerate(script) if byte == ord("\n")][::6] + list(range(len(script) - 48, len(script)))
    for at in ends:
        ran = subprocess.run(
            ["bash"], input=script[:at], env=home.environment, cwd=home.checkout, capture_output=True, timeout=10, check=False
        )
        assert ran.stdout == b"", at
        assert b"install" not in ran.stderr.replace(b"bash: ", b""), (at, ran.stderr)
        assert list(home.path.iterdir()) == [], at
