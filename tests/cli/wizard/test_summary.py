"""What is shown before and after."""

from __future__ import annotations

from pathlib import Path

import pytest

from aigw.cli.locations import Locations
from aigw.cli.wizard import summary
from aigw.cli.wizard.carry_out import Done
from aigw.cli.wizard.flags import Checked
from aigw.cli.wizard.plan import Key, Model, Plan, Provider, meaning, scratch
from aigw.cli.wizard.snippets import PLACEHOLDER
from aigw.config import load
from aigw.config.edit import ConfigFile
from aigw.providers.key_check import Verdict

SECRET = "sk-test-0123456789abcdef"


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LC_ALL", "C")
    provider = Provider("openai", keys=[Key(secret=SECRET), Key("env:OPENAI_API_KEY")])
    demo = Provider("demo")
    return Plan(tmp_path / "config.toml", [provider, demo], Model("openai", "gpt-6-sol"), Model("demo", "demo"), consumer="me")


def test_the_plan(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    """References, never secrets."""
    summary.show_plan(plan, ConfigFile.read(plan.path))
    assert capsys.readouterr().err == (
        "\n"
        "  openai         file:~/keys/openai, env:OPENAI_API_KEY\n"
        "  demo           no key needed\n"
        "  default model  openai/gpt-6-sol\n"
        "  fallback       demo/demo\n"
        "  port           8080\n"
        "  key for        me\n"
        "  config         ~/config.toml (new)\n"
        "\n"
    )


def test_the_plan_in_chinese(plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In columns: a character takes two."""
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    summary.show_plan(plan, ConfigFile.read(plan.path))
    said = capsys.readouterr().err
    assert "  默认模型  openai/gpt-6-sol\n" in said
    assert "  demo      无需密钥\n" in said


def test_what_was_done(plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files, the key, the calls, the next command with the flags of this one."""
    names = meaning(plan, ConfigFile.read(plan.path), tmp_path)
    done = Done(names.loaded.config, ("file:~/keys/openai",), "sk-aigw-secret", "k1")
    calls = summary.first_calls(names, done, "http://127.0.0.1:8080/v1")
    where = Locations()
    where.config, where.data_dir = "my.toml", str(tmp_path)
    summary.show_done(plan, scratch(plan, ConfigFile.read(plan.path)), done, calls, where)
    out, err = capsys.readouterr()
    assert out.startswith("# curl\ncurl http://127.0.0.1:8080/v1/chat/completions")
    assert out.count("sk-aigw-secret") == 3
    assert "sk-aigw-secret" not in err
    assert "+ Wrote ~/config.toml\n+ Wrote ~/keys/openai\n+ A key for me." in err
    assert f"-- Next: aigw serve --config my.toml --data-dir {tmp_path}\n" in err


def test_without_a_new_key(plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The calls hold a place for it, and it is said how to get one."""
    names = meaning(plan, ConfigFile.read(plan.path), tmp_path)
    done = Done(names.loaded.config, ())
    calls = summary.first_calls(names, done, "http://127.0.0.1:8080/v1")
    where = Locations()
    where.data_dir = str(tmp_path)
    summary.show_done(plan, ConfigFile.read(plan.path), done, calls, where)
    out, err = capsys.readouterr()
    assert PLACEHOLDER in out
    assert "aigw keys create NAME" in err


def test_nothing_can_be_called(plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a provider there is nothing to show."""
    where = Locations()
    where.data_dir = str(tmp_path)
    summary.show_done(plan, ConfigFile.read(plan.path), Done(load.parse(""), ()), [], where)
    out, err = capsys.readouterr()
    assert out == ""
    assert "No provider can be called yet" in err


def test_json(plan: Plan) -> None:
    """For programs: a dry run has no key, what was done has."""
    file = scratch(plan, ConfigFile.read(plan.path))
    checked = [Checked("openai", "env:OPENAI_API_KEY", Verdict("good", "2 models", ("a", "b")))]
    url = "http://127.0.0.1:8080/v1"
    dry = summary.as_json(plan, file, checked, None, [], url)
    assert dry["providers"][0]["keys"] == ["file:~/keys/openai", "env:OPENAI_API_KEY"]
    assert (dry["dry_run"], dry["key"], dry["default_model"], dry["fallback"]) == (True, None, "openai/gpt-6-sol", "demo/demo")
    assert dry["checks"] == [{"provider": "openai", "key": "env:OPENAI_API_KEY", "verdict": "good", "detail": "2 models"}]
    assert SECRET not in str(dry)
    done = Done(load.parse(file.text()), ("file:~/keys/openai-7",), "sk-aigw-x", "x")
    wet = summary.as_json(plan, file, checked, done, [], url)
    assert wet["providers"][0]["keys"] == ["file:~/keys/openai-7", "env:OPENAI_API_KEY"]
    assert (wet["dry_run"], wet["key"], wet["key_id"], wet["consumer"]) == (False, "sk-aigw-x", "x", "me")
