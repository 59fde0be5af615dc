"""`aigw service`: units that systemd itself finds good, written and taken away with care."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from aigw.cli import service
from tests.cli.conftest import CommandLine

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def quiet(aigw: CommandLine, tmp_path: Path) -> CommandLine:
    """A PATH with a systemctl that notes what it was asked and says yes."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "systemctl").write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/asked\n')
    (folder / "systemctl").chmod(0o755)
    aigw.environment["PATH"] = f"{folder}:{os.environ['PATH']}"
    return aigw


def units(aigw: CommandLine) -> Path:
    return aigw.folder / ".config/systemd/user"


def test_install_and_uninstall(quiet: CommandLine, tmp_path: Path) -> None:
    """The units lie where systemd looks, are started, listed, and gone in the end; --dry-run does nothing of it."""
    aigw = quiet
    assert aigw("service", "install", "--socket", "--dry-run").returncode == 0
    assert not units(aigw).exists()
    installed = aigw("service", "install", "--socket")
    assert installed.returncode == 0, installed.stderr
    assert (tmp_path / "asked").read_text().splitlines() == ["--user daemon-reload", "--user enable --now aigw.socket"]
    text = (units(aigw) / "aigw.service").read_text()
    assert f"--config {aigw.config}" in text
    assert f"--data-dir {aigw.data_dir}" in text
    assert "ListenStream=127.0.0.1:8080" in (units(aigw) / "aigw.socket").read_text()
    listed = json.loads(aigw("service", "--json").stdout)
    assert [one["unit"] for one in listed if one["for"] == "user"] == ["aigw.service", "aigw.socket"]
    assert aigw("service", "--csv").stdout.splitlines()[0] == "for,unit,file"
    assert aigw("service", "install", "--socket").returncode == 0  # as it is: no question
    assert aigw("service", "uninstall", "--dry-run").returncode == 0
    assert (units(aigw) / "aigw.service").exists()
    assert aigw("service", "uninstall").returncode == 0
    assert list(units(aigw).iterdir()) == []
    assert "there is none" in aigw("service", "uninstall").stderr


def test_a_unit_changed_by_hand_is_not_overwritten(quiet: CommandLine) -> None:
    """Without a yes it stays, and the exit code says so."""
    units(quiet).mkdir(parents=True)
    (units(quiet) / "aigw.service").write_text("[Service]\nExecStart=/mine\n")
    refused = quiet("service", "install")
    assert refused.returncode == 1
    assert "--yes" in refused.stderr
    assert "/mine" in (units(quiet) / "aigw.service").read_text()
    assert quiet("service", "install", "--yes", "--no-start").returncode == 0
    assert "/mine" not in (units(quiet) / "aigw.service").read_text()


def test_words_of_a_command_line() -> None:
    """Blanks, quotes, percents and dollars arrive as they are."""
    assert service.quoted("/usr/bin/aigw") == "/usr/bin/aigw"
    assert service.quoted("/home/it's me/100%") == '"/home/it\'s me/100%%"'
    assert service.quoted('a"$b\\') == '"a\\"$$b\\\\"'


def test_the_socket_follows_the_config(aigw: CommandLine) -> None:
    """Address and port of [server]; the stop is given the drain and more."""
    aigw.config.write_text('[server]\nhost = "::"\nport = 9000\ndrain_timeout = 100\n')
    shown = aigw("service", "show", "--socket").stdout
    assert "ListenStream=[::]:9000" in shown
    assert "TimeoutStopSec=115" in shown


@pytest.mark.parametrize("system", [True, False])
def test_systemd_finds_nothing_wrong(system: bool, tmp_path: Path) -> None:
    """systemd-analyze reads both units without a complaint, and counts the machine's among the well guarded ones."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze here")
    command = ["/bin/true", "serve", "--config", "/home/it's me/100%/config.toml"]
    text = service.service_unit(system=system, command=command, drain=30, socket=True)
    (tmp_path / "aigw.service").write_text(text)
    (tmp_path / "aigw.socket").write_text(service.socket_unit("127.0.0.1", 8080))
    files = [str(tmp_path / name) for name in ("aigw.service", "aigw.socket")]
    checked = subprocess.run(["systemd-analyze", "verify", "--man=no", *files], capture_output=True, text=True, check=False)
    about_us = [line for line in (checked.stdout + checked.stderr).splitlines() if "aigw" in line]
    assert about_us == []
    if system:
        grade = ["systemd-analyze", "security", "--offline=true", "--threshold=20", files[0]]
        assert subprocess.run(grade, capture_output=True, text=True, check=False).returncode == 0


def test_the_units_for_packagers_are_ours(aigw: CommandLine) -> None:
    """packaging/systemd has what `aigw service show --system --socket` shows."""
    shown = aigw("service", "show", "--system", "--socket").stdout
    _, first, second = shown.split("# /etc/systemd/system/")
    assert first.partition("\n")[2] == (ROOT / "packaging/systemd/aigw.service").read_text()
    assert second.partition("\n")[2] == (ROOT / "packaging/systemd/aigw.socket").read_text()
