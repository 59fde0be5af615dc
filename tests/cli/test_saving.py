"""What every command says at the end that changed the config."""

from __future__ import annotations

from tests.cli.conftest import CommandLine


def test_a_dry_run_changes_nothing(aigw: CommandLine) -> None:
    """The difference on standard output, and the file as it was."""
    aigw.config.write_text("[providers.demo]\n")
    shown = aigw("prices", "set", "demo/demo", "--input", "1", "--dry-run")
    assert shown.returncode == 0
    assert '+[prices."demo/demo"]' in shown.stdout
    assert "Nothing was changed." in shown.stderr
    assert aigw.config.read_text() == "[providers.demo]\n"


def test_saved_and_said(aigw: CommandLine) -> None:
    """The file has it, and the line says which file that is."""
    aigw.config.write_text("# mine\n[providers.demo]\n")
    done = aigw("routes", "set", "fast", "--to", "demo/demo")
    assert done.returncode == 0
    assert f"Made the route fast in {aigw.config}" in done.stderr
    assert aigw.config.read_text().startswith("# mine\n")
    assert "[routes.fast]" in aigw.config.read_text()
