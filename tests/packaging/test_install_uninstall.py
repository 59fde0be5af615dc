"""install.sh --uninstall: the program goes, what people made stays; --purge takes that too, after a yes; nothing of others."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pexpect
import pytest

from tests.packaging.home import Home


@pytest.fixture
def used(furnished: Home) -> Home:
    """A home where aigw was installed and used: a config, a provider key beside it, a consumer key, a journal, models."""
    assert furnished.install("--demo").returncode == 0
    keys = furnished.config.parent / "keys"
    keys.mkdir(mode=0o700)
    (keys / "openai").write_text("sk-provider")
    data = furnished.environments.parent
    for name in (
        "journal/00000000000000000001-77-0a1b2c3d.journal",
        "journal/damaged.lines",
        "models/openai.json",
        "operator.key",
    ):
        (data / name).parent.mkdir(exist_ok=True)
        (data / name).touch()
    return furnished


def test_it_leaves_what_people_made(used: Home) -> None:
    """Config, keys and records stay, and are named, with the command that removes them too."""
    before = used.contents()
    ran = used.install("--uninstall")
    assert ran.returncode == 0, ran.stderr
    assert before - used.contents() == {".local/bin/aigw"}
    assert not used.environments.exists()
    assert f"kept your config: {used.config}" in ran.stderr
    assert "--uninstall --purge" in ran.stderr


def test_purge(used: Home) -> None:
    """Every file that aigw made goes, each is named, and so do its folders. A second time there is nothing."""
    made = {name for name in used.contents() if (used.path / name).is_file()}
    ran = used.install("--uninstall", "--purge", "--yes")
    assert ran.returncode == 0, ran.stderr
    assert used.contents() == {".config", ".local", ".local/bin", ".local/share"}
    for name in made:
        assert f"removed {used.path / name}\n" in ran.stderr
    assert "not installed" in used.install("--uninstall", "--purge", "--yes").stderr


def test_purge_later(used: Home) -> None:
    """Config and records can go when the program has gone already."""
    assert used.install("--uninstall").returncode == 0
    assert used.install("--uninstall", "--purge", "--yes").returncode == 0
    assert used.contents() == {".config", ".local", ".local/bin", ".local/share"}


def test_dry_run_purge(used: Home) -> None:
    """It names what would go, and removes nothing."""
    before = used.contents()
    ran = used.install("--uninstall", "--purge", "--dry-run")
    assert ran.returncode == 0
    assert f"would remove {used.config}\n" in ran.stderr
    assert used.contents() == before
    assert used.run("--version").returncode == 0


def test_purge_needs_a_yes(used: Home) -> None:
    """Without a terminal and without --yes nothing goes, not even the program; the exit code is 2."""
    before = used.contents()
    ran = used.install("--uninstall", "--purge")
    assert (ran.returncode, "--yes" in ran.stderr) == (2, True)
    assert f"  {used.config}\n" in ran.stderr
    assert used.contents() == before
    assert used.run("--version").returncode == 0


@pytest.mark.parametrize("way", ["bash install.sh --uninstall --purge", "cat install.sh | bash -s -- --uninstall --purge"])
@pytest.mark.parametrize(("answer", "gone"), [("y\r", True), ("\r", False), ("\x04", False)])
def test_purge_asks(used: Home, way: str, answer: str, gone: bool) -> None:
    """On a terminal it lists and asks, also when the script itself came through a pipe; only a yes is one."""
    terminal = used.terminal(way, columns=200)
    terminal.expect("These are removed for good")
    terminal.expect(r"Remove them\? \[y/N\] ")
    assert str(used.config) in terminal.before
    terminal.send(answer)
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert (terminal.exitstatus, used.config.exists()) == ((0, False) if gone else (1, True))
    assert ("Nothing was removed" in terminal.before) != gone


def test_nothing_of_others(used: Home) -> None:
    """What aigw did not make stays, with the folders it lies in, and is named."""
    data = used.environments.parent
    others = [
        data / "notes.txt",
        used.config.parent / "mine.toml",
        used.environments / "venv/bin/python",
        data / "journal/diary.txt",
    ]
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    ran = used.install("--uninstall", "--purge", "--yes")
    assert ran.returncode == 0
    assert all(path.read_text() == "mine" for path in others)
    assert f"not ours, so it stays: {data / 'notes.txt'}\n" in ran.stderr
    assert f"not ours, so it stays: {used.config.parent / 'mine.toml'}\n" in ran.stderr
    assert not used.config.exists()


def test_links_are_not_followed(used: Home, tmp_path: Path) -> None:
    """A link in place of a file goes without its target; a link in place of a folder is not entered."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    used.config.rename(elsewhere / "dotfile.toml")
    used.config.symlink_to(elsewhere / "dotfile.toml")
    journal = used.environments.parent / "journal"
    journal.rename(elsewhere / "journal")
    journal.symlink_to(elsewhere / "journal")
    keys = used.config.parent / "keys"
    keys.rename(elsewhere / "keys")
    keys.symlink_to(elsewhere / "keys")
    before = sorted(elsewhere.rglob("*"))
    ran = used.install("--uninstall", "--purge", "--yes")
    assert ran.returncode == 0, ran.stderr
    assert sorted(elsewhere.rglob("*")) == before
    assert not used.config.is_symlink()
    assert journal.is_symlink()
    assert f"what the link {used.config} points to" in ran.stderr


def test_folders_of_the_users_own(used: Home, tmp_path: Path) -> None:
    """AIGW_HOME, AIGW_CONFIG and AIGW_DATA_DIR in folders that hold other things: only our files go, and no folder but ours."""
    project = tmp_path / "project"
    (project / "env/bin").mkdir(parents=True)
    (project / "keys").mkdir()
    for name in ("env/bin/python", "keys/private", "README"):
        (project / name).write_text("mine")
    (project / "keys/openai").write_text("sk-provider")
    (project / "config.toml").write_text('[providers.openai]\nkeys = ["file:~/project/keys/openai"]\n')
    variables = {name: str(project) for name in ("AIGW_HOME", "AIGW_DATA_DIR")} | {"AIGW_CONFIG": str(project / "config.toml")}
    (installed,) = used.installed
    subprocess.run(["cp", "-al", installed, project / "env"], check=True)
    assert used.install("--no-init", **variables).returncode == 0
    assert (project / "env/bin/python").exists()
    (project / "aigw.db").touch()
    ran = used.install("--uninstall", "--purge", "--yes", **variables)
    assert ran.returncode == 0, ran.stderr
    left = {path.relative_to(project).as_posix() for path in project.rglob("*")}
    assert left == {"env", "env/bin", "env/bin/python", "keys", "keys/private", "README"}


def test_not_under_a_running_server(used: Home) -> None:
    """A server writes there: nothing is removed until it has been stopped."""
    used.config.write_text("[server]\nport = 0\n[admin]\nport = 0\n[providers.demo]\n")
    with subprocess.Popen([used.aigw, "serve"], env=used.environment, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        assert any("metrics at" in line for line in server.stderr)
        ran = used.install("--uninstall", "--purge", "--yes")
        server.terminate()
        server.communicate(timeout=30)
    assert (ran.returncode, "stop it first" in ran.stderr) == (1, True), ran.stderr
    assert used.config.exists()
    assert used.install("--uninstall", "--purge", "--yes").returncode == 0
    assert used.contents() == {".config", ".local", ".local/bin", ".local/share"}


def test_purge_goes_with_uninstall(home: Home) -> None:
    """Alone it is a mistake, not half a wish."""
    ran = home.install("--purge")
    assert (ran.returncode, "--uninstall" in ran.stderr) == (2, True)
