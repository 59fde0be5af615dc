"""`aigw prices` on real files: what is known, what is said, and what nobody knows."""

from __future__ import annotations

import json
import tomllib

import pytest

from tests.cli.conftest import CommandLine

CONFIG = """\
# contracts
[providers.openai]
keys = ["sk-test"]
models = ["gpt-5", "gpt-unheard-of"]
[providers.demo]
[prices."openai/contract"]
input = 1.5
output = 2
currency = "CNY"
"""


@pytest.fixture
def priced(aigw: CommandLine) -> CommandLine:
    aigw.config.write_text(CONFIG)
    return aigw


def listed(aigw: CommandLine, *options: str) -> dict[str, dict[str, object]]:
    done = aigw("prices", "list", "--json", *options)
    assert done.returncode == 0, done.stderr
    return {f"{one['provider']}/{one['model']}": one for one in json.loads(done.stdout)}


def test_the_list(priced: CommandLine) -> None:
    """Models that work by name and prices of the config, each with who says so; one that nobody knows is unknown, not free."""
    found = listed(priced)
    assert found["openai/gpt-5"]["source"] == "genai-prices"
    assert found["openai/contract"] == {
        "provider": "openai",
        "model": "contract",
        "input": 1.5,
        "cached": 1.5,
        "output": 2.0,
        "currency": "CNY",
        "source": "config",
        "requests": 0,
    }
    assert (found["openai/gpt-unheard-of"]["input"], found["openai/gpt-unheard-of"]["source"]) == (None, None)
    assert "openai/gpt-unheard-of" in listed(priced, "--unknown")
    assert "openai/gpt-5" not in listed(priced, "--unknown")
    assert all(one.startswith("demo/") for one in listed(priced, "--provider", "demo"))
    table = priced("prices")
    assert "unknown" in table.stdout
    assert "genai-prices" in table.stdout
    typo = priced("prices", "--provider", "opnai")
    assert typo.returncode == 1
    assert "did you mean openai?" in typo.stderr


def test_one(priced: CommandLine) -> None:
    """Exit code 1 for what nobody knows, with the command that helps."""
    assert "CNY" in priced("prices", "show", "openai/contract").stdout
    unknown = priced("prices", "show", "openai/gpt-unheard-of")
    assert unknown.returncode == 1
    assert "aigw prices set openai/gpt-unheard-of" in unknown.stderr
    assert priced("prices", "show", "openai").returncode == 2


def test_set_change_remove(priced: CommandLine) -> None:
    """What is not given stays; comments stay; the list says the new figures at once."""
    assert priced("prices", "set", "openai/gpt-unheard-of", "--input", "3", "--output", "4").returncode == 0
    assert priced("prices", "set", "openai/gpt-unheard-of", "--cached", "0.5").returncode == 0
    written = tomllib.loads(priced.config.read_text())["prices"]["openai/gpt-unheard-of"]
    assert written == {"input": 3.0, "output": 4.0, "cache_read": 0.5}
    assert priced.config.read_text().startswith("# contracts\n")
    found = listed(priced)["openai/gpt-unheard-of"]
    assert (found["input"], found["cached"], found["output"], found["source"]) == (3.0, 0.5, 4.0, "config")
    assert priced("prices", "set", "openai/*", "--input", "9").returncode == 0
    assert listed(priced)["openai/gpt-5"]["input"] == 9.0
    assert listed(priced)["openai/gpt-unheard-of"]["input"] == 3.0
    assert priced("prices", "remove", "openai/*").returncode == 0
    assert listed(priced)["openai/gpt-5"]["source"] == "genai-prices"
    gone = priced("prices", "remove", "openai/contrakt")
    assert gone.returncode == 1
    assert "did you mean openai/contract?" in gone.stderr


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["openai/x"], "nothing to change"),
        (["openai/x", "--output", "1"], "a new price needs at least what input costs"),
        (["openai", "--input", "1"], 'expected "PROVIDER/MODEL"'),
        (["openai/x", "--input", "-1"], "not in the range"),
        (["openai/x", "--input", "free"], "not a valid float"),
        (["openai/x", "--input", "1", "--currency", "GOLD"], "expected one of USD, CNY, EUR"),
    ],
)
def test_wrong_input(priced: CommandLine, arguments: list[str], why: str) -> None:
    """Usage, and the file as it was."""
    done = priced("prices", "set", *arguments)
    assert done.returncode == 2
    assert why in " ".join(done.stderr.split())
    assert priced.config.read_text() == CONFIG


def test_what_cannot_be_a_price(priced: CommandLine) -> None:
    """Infinity and a price that is no number are refused as the config would refuse them."""
    for amount in ("inf", "nan"):
        done = priced("prices", "set", "openai/x", "--input", amount)
        assert done.returncode == 2
        assert priced.config.read_text() == CONFIG
