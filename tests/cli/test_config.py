"""`aigw config check`, as a person and as a program sees it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import CommandLine

FINE = """
[providers.moonshot]
keys = ["env:KIMI_KEY"]
[providers.moonshot-intl]
keys = ["env:KIMI_KEY", "sk-S3CR3T"]
[providers.local]
kind = "vllm"
base_url = "http://127.0.0.1:8000/v1"
[routes.fast]
targets = [{provider = "moonshot", weight = 90}, {provider = "local", model = "qwen", weight = 10}]
fallback = [{provider = "moonshot-intl", model = "kimi-k3"}]
"""


def test_a_config_that_is_fine(aigw: CommandLine) -> None:
    """Providers, routes and shadowed claims; exit 0; no secret."""
    aigw.config.write_text(FINE)
    aigw.config.chmod(0o600)
    done = aigw("config", "check", KIMI_KEY="sk-S3CR3T-2")
    assert done.stdout == (
        "provider       kind           base url                    keys\n"
        "moonshot       moonshot       https://api.moonshot.cn/v1     1\n"
        "moonshot-intl  moonshot-intl  https://api.moonshot.ai/v1     2\n"
        "local          vllm           http://127.0.0.1:8000/v1       0\n"
        "\n"
        "route  targets                        fallback\n"
        "fast   moonshot 90%, local/qwen 10%  moonshot-intl/kimi-k3\n".replace(
            "                        fall", "                       fall"
        )
    )
    assert done.stderr == (
        "kimi-*, moonshot-*: goes to moonshot, not to moonshot-intl; the first one in the file wins\n"
        f"{aigw.config} is fine: 3 providers, 1 route\n"
    )
    assert done.returncode == 0


def test_the_same_for_programs(aigw: CommandLine) -> None:
    """JSON says it all, and no secret."""
    aigw.config.write_text(FINE)
    aigw.config.chmod(0o644)
    done = aigw("config", "check", "--json", KIMI_KEY="sk-S3CR3T-2")
    found = json.loads(done.stdout)
    assert "S3CR3T" not in done.stdout
    assert len(found.pop("hash")) == 12
    assert "others may read the secrets in this file (mode 0644)" in found.pop("warnings")[0]
    assert found == {
        "ok": True,
        "file": str(aigw.config),
        "exists": True,
        "providers": [
            {"name": "moonshot", "kind": "moonshot", "base_url": "https://api.moonshot.cn/v1", "keys": 1},
            {"name": "moonshot-intl", "kind": "moonshot-intl", "base_url": "https://api.moonshot.ai/v1", "keys": 2},
            {"name": "local", "kind": "vllm", "base_url": "http://127.0.0.1:8000/v1", "keys": 0},
        ],
        "routes": [
            {
                "name": "fast",
                "targets": [{"target": "moonshot", "weight": 90}, {"target": "local/qwen", "weight": 10}],
                "fallback": ["moonshot-intl/kimi-k3"],
            }
        ],
        "shadowed": [{"winner": "moonshot", "loser": "moonshot-intl", "claims": ["kimi-*", "moonshot-*"]}],
    }
    assert (done.returncode, done.stderr) == (0, "")


def test_a_config_that_is_wrong(aigw: CommandLine) -> None:
    """Every problem on a line of its own, with file and line; exit 2; nothing on stdout."""
    aigw.config.write_text('[server]\nprot = 1\n\n[routes."re:("]\ntargets = [{provider = "x"}]\n')
    file, route = aigw.config, 'routes."re:("'
    done = aigw("config", "check")
    assert done.stderr == (
        f'error: {file}:2: server.prot: unknown key; did you mean "port"?\n'
        f"error: {file}:4: {route}: not a regular expression: missing ), unterminated subpattern at position 0\n"
        f'error: {file}:5: {route}.targets[0].provider: no provider "x" is configured; add a table [providers.NAME]\n'
    )
    assert (done.returncode, done.stdout) == (2, "")
    found = json.loads(aigw("config", "check", "--json").stdout)
    assert (found["ok"], [problem["line"] for problem in found["problems"]]) == (False, [2, 4, 5])


def test_secrets_that_are_missing(aigw: CommandLine) -> None:
    """Each missing variable and file by its place, once; what a literal holds is never shown."""
    aigw.config.write_text(
        '[providers.openai]\nkeys = [\n  "env:NO_KEY",\n  "file:/no/file",\n]\n[consumers."a b"]\nkey = "sk-S3CR3T x"\n'
    )
    done = aigw("config", "check")
    assert done.stderr == (
        f"error: {aigw.config}:3: providers.openai.keys[0]: the environment variable NO_KEY is not set\n"
        f'error: {aigw.config}:4: providers.openai.keys[1]: cannot read "/no/file": No such file or directory\n'
        f"error: {aigw.config}:7: consumers.a b.key: the value holds white space (character 10 of 11); "
        "was it copied whole and alone?\n"
    )
    assert done.returncode == 2


def test_a_kind_that_nobody_knows(aigw: CommandLine) -> None:
    """The catalog's complaints have a line too."""
    aigw.config.write_text("\n[providers.a]\nkind = 'opnai'\n")
    done = aigw("config", "check")
    assert done.stderr.startswith(f"error: {aigw.config}:3: providers.a.kind: unknown kind 'opnai'; did you mean 'openai'")
    assert done.returncode == 2


def test_no_file(aigw: CommandLine) -> None:
    """A missing file that was named is wrong; at the default place it means defaults, and the place is said."""
    done = aigw("config", "check", "--config", "missing.toml")
    assert (done.returncode, done.stderr) == (2, "error: missing.toml: no such file (--config or $AIGW_CONFIG names it)\n")
    done = aigw("config", "check", AIGW_CONFIG="")
    place = aigw.folder / ".config/aigw/config.toml"
    assert done.stderr == f"no config file at {place}: the defaults hold, and no provider is configured\n"
    assert (done.returncode, done.stdout) == (0, "")


def test_models_that_were_heard_of_count(aigw: CommandLine) -> None:
    """What a server remembered from its providers' lists takes part in who shadows whom."""
    from aigw.config.load import parse
    from aigw.gateway import models_url
    from aigw.providers import compatible
    from aigw.routing.live_models import LiveModels

    text = """
    [providers.one]
    kind = "openai-compatible"
    base_url = "http://127.0.0.1:1/v1"
    [providers.two]
    kind = "openai-compatible"
    base_url = "http://127.0.0.1:2/v1"
    models = ["m"]
    """
    aigw.config.write_text(text)
    config = parse(text)
    url = models_url(compatible.build("one", config.providers["one"], config.upstream, []))
    LiveModels(aigw.data_dir / "models").save("one", url, ["m"], 0.0)
    assert "m: goes to one, not to two; the first one in the file wins\n" in aigw("config", "check").stderr
