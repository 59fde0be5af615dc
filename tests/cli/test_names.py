"""Names as a server with that config would have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from aigw.cli.names import Names, per_million, understood
from aigw.config.load import ConfigErrors, load_text
from aigw.gateway import models_url
from aigw.routing.live_models import LiveModels

TEXT = """
[upstream]
proxy = "env:NO_PROXY_HERE"
[providers.openai]
keys = ["env:NO_KEY", "file:/no/file"]
[providers.local]
kind = "openai-compatible"
base_url = "http://127.0.0.1:1/v1"
models = ["gpt-5", "own"]
proxy = ""
[routes."own-*"]
targets = [{provider = "local", model = "own"}]
[consumers.ci]
key = "file:/no/key"
[prices."local/own"]
input = 2
output = 0.5
currency = "CNY"
"""


def names(text: str, data_dir: Path, **environment: str) -> Names:
    return understood(load_text(text, Path("c.toml")), data_dir, environment)


def test_missing_secrets_are_no_reason(tmp_path: Path) -> None:
    """The table is there without any of the secrets; each missing one is listed with its line."""
    found = names(TEXT, tmp_path)
    assert found.table.resolve("gpt-5").targets[0].provider == "openai"
    assert found.table.resolve("own-x").name == "own-*"
    assert [(problem.line, problem.key) for problem in found.missing] == [
        (3, "upstream.proxy"),
        (5, "providers.openai.keys[0]"),
        (5, "providers.openai.keys[1]"),
        (14, "consumers.ci.key"),
    ]
    assert "c.toml:5: providers.openai.keys[0]: the environment variable NO_KEY is not set" in map(str, found.missing)
    key = tmp_path / "key"
    key.write_text("sk-1")
    key.chmod(0o600)
    text = TEXT.replace("/no/file", str(key)).replace("/no/key", str(key))
    assert names(text, tmp_path, NO_KEY="x", NO_PROXY_HERE="http://127.0.0.1:1").missing == []


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ('keys = ["env:NO-NAME"]', "what follows env: is not the name of a variable"),
        ('keys = ["file:relative"]', "expected a path that begins with / or ~/"),
        ('keys = ["sk-with space"]', "holds white space"),
        ("keys = []", "needs a key"),
        ('keys = ["env:NO_KEY"]\nkind = "opnai"', "unknown kind"),
    ],
)
def test_what_is_wrong_everywhere_is_an_error(tmp_path: Path, wrong: str, complaint: str) -> None:
    """Only what another machine may have is missing; what no machine can mend is wrong."""
    with pytest.raises(ConfigErrors, match=complaint):
        names(f"[providers.openai]\n{wrong}\n", tmp_path)


def test_models_heard_of(tmp_path: Path) -> None:
    """What a server remembered counts, beside the models of the config; who lists a name and does not get it is told."""
    found = names(TEXT, tmp_path)
    url = models_url(found.providers["local"])
    LiveModels(tmp_path / "models").save("local", url, ["own", "heard"], 0.0)
    found = names(TEXT, tmp_path)
    assert found.listed == {"openai": [], "local": ["gpt-5", "own", "heard"]}
    assert found.table.resolve("heard").source == "live"
    assert found.others("gpt-5", found.table.resolve("gpt-5")) == ["local"]
    assert found.others("heard", found.table.resolve("heard")) == []


def test_prices(tmp_path: Path) -> None:
    """Per million tokens in whole units: from the config, from the price data, and None where nothing is known."""
    book = names(TEXT, tmp_path).prices
    assert per_million(book, "local", "own", 0.0) == {
        "input": 2.0,
        "output": 0.5,
        "cached": 2.0,
        "currency": "CNY",
        "source": "config",
    }
    listed = per_million(book, "openai", "gpt-4o-mini", 1.8e9)
    assert listed is not None
    assert (listed["input"], listed["output"], listed["currency"]) == (0.15, 0.6, "USD")
    assert per_million(book, "local", "unheard-of", 0.0) is None
