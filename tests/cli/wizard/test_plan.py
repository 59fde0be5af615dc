"""What a plan becomes in a config, new or standing."""

from __future__ import annotations

from pathlib import Path

import pytest

from aigw.cli.wizard.plan import Key, Model, Plan, Provider, expected, meaning, schema_of, scratch
from aigw.config import load
from aigw.config.edit import ConfigFile
from aigw.errors import ConfigError

STANDING = """\
# mine
[server]
port = 9000   # not 8080

[providers.openai]
keys = ["env:ONE"]   # the company's

[routes.default]
targets = [{provider = "openai", model = "gpt-6-sol"}]
fallback = [{provider = "openai", model = "gpt-6-luna"}]
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / "config.toml"


def standing(path: Path) -> ConfigFile:
    path.write_text(STANDING)
    return ConfigFile.read(path)


def test_a_new_config(path: Path) -> None:
    """Commented, readable, and valid; a secret is in no line of it."""
    plan = Plan(
        path,
        [
            Provider("openai", keys=[Key("env:OPENAI_API_KEY"), Key(secret="sk-first"), Key(secret="sk-second")]),
            Provider("gpu", "openai-compatible", "http://10.0.0.7/v1", learned={"stream_usage": False}),
            Provider("azure", settings={"resource": "contoso"}, keys=[Key("env:AZURE_KEY")]),
        ],
        Model("openai", "gpt-6-sol"),
        Model("gpu", "small"),
        port=9000,
    )
    file = scratch(plan, ConfigFile.read(path))
    file.check()
    text = file.text()
    assert "sk-" not in text
    assert text.startswith("# ")
    assert "# OpenAI; https://" in text
    config = load.parse(text)
    assert config.server.port == 9000
    assert list(config.providers) == ["openai", "gpu", "azure"]
    assert config.providers["openai"].keys == ("env:OPENAI_API_KEY", "file:~/keys/openai", "file:~/keys/openai-2")
    assert config.providers["gpu"].stream_usage is False
    assert config.providers["azure"].settings == {"resource": "contoso"}
    route = config.routes["default"]
    assert [(one.provider, one.model) for one in (*route.targets, *route.fallback)] == [
        ("openai", "gpt-6-sol"),
        ("gpu", "small"),
    ]


def test_an_empty_plan_for_a_new_config(path: Path) -> None:
    """The port alone."""
    assert load.parse(scratch(Plan(path), ConfigFile.read(path)).text()).server.port == 8080


def test_nothing_to_do_changes_nothing(path: Path) -> None:
    """Not a byte."""
    assert scratch(Plan(path, port=9000), standing(path)).text() == STANDING


def test_a_standing_config_keeps_its_comments(path: Path) -> None:
    """Keys are added behind those there, what is new goes to the end, the route's target is exchanged."""
    plan = Plan(
        path,
        [Provider("openai", keys=[Key("env:TWO")], old=True), Provider("deepseek", keys=[Key("env:D")])],
        Model("deepseek", "deepseek-flash"),
        port=9001,
    )
    text = scratch(plan, standing(path)).text()
    for comment in ("# mine\n", "# not 8080\n", "# the company's\n"):
        assert comment in text
    config = load.parse(text)
    assert config.server.port == 9001
    assert config.providers["openai"].keys == ("env:ONE", "env:TWO")
    assert config.routes["default"].targets[0].provider == "deepseek"
    assert config.routes["default"].fallback[0].model == "gpt-6-luna"


def test_keys_are_replaced_and_a_fallback_is_dropped(path: Path) -> None:
    """When that was said."""
    plan = Plan(path, [Provider("openai", keys=[Key("env:TWO")], old=True, replace=True)], no_fallback=True)
    config = load.parse(scratch(plan, standing(path)).text())
    assert config.providers["openai"].keys == ("env:TWO",)
    assert config.routes["default"].fallback == ()


def test_references_avoid_files_that_exist(path: Path) -> None:
    """As they will be when the files are written."""
    keys = path.parent / "keys"
    keys.mkdir()
    (keys / "openai").touch()
    provider = Provider("openai", keys=[Key(secret="a"), Key(secret="b"), Key("env:X")])
    reference = expected(Plan(path, [provider]))
    found = [reference(provider, key) for key in provider.keys]
    assert found == ["file:~/keys/openai-2", "file:~/keys/openai-3", "env:X"]
    assert reference(provider, provider.keys[0]) == found[0]


def test_what_it_would_mean(path: Path, tmp_path: Path) -> None:
    """Names go where a server would send them, models that were just heard among them; no key file is needed for that."""
    plan = Plan(path, [Provider("gpu", "openai-compatible", "http://10.0.0.7/v1", keys=[Key(secret="x")], models=("own-1",))])
    names = meaning(plan, standing(path), tmp_path / "data")
    assert names.table.resolve("own-1").targets[0].provider == "gpu"
    assert names.table.resolve("gpt-6-sol").targets[0].provider == "openai"
    assert names.listed["gpu"] == ["own-1"]


def test_the_table_a_key_is_checked_with(path: Path) -> None:
    """What stands, with what is new, without keys."""
    file = standing(path)
    table = schema_of(Provider("openai", base_url="http://127.0.0.1:1/v1", old=True), file)
    assert (table.base_url, table.keys) == ("http://127.0.0.1:1/v1", ())
    with pytest.raises(ConfigError):
        schema_of(Provider("openai", settings={"project": 5}, old=True), file)  # type: ignore[dict-item]


def test_no_secret_in_a_repr() -> None:
    """Plans may be logged by mistake."""
    assert "sk-secret" not in repr(Plan(Path("x"), [Provider("openai", keys=[Key(secret="sk-secret")])]))
