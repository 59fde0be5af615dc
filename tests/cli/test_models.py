"""`aigw models`: which names work, where each goes and why."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from aigw.cli.names import understood
from aigw.config.load import load_text
from aigw.gateway import models_url
from aigw.routing.live_models import LiveModels

if TYPE_CHECKING:
    from conftest import CommandLine

WRITTEN = """
[providers.moonshot]
keys = ["env:NOT_HERE"]
[providers.moonshot-intl]
keys = ["env:NOT_HERE"]
[providers.gpu]
kind = "vllm"
base_url = "http://127.0.0.1:8000/v1"
models = ["kimi-k2", "own"]
[routes.fast]
targets = [{provider = "gpu", model = "own", weight = 3}, {provider = "moonshot", model = "kimi-k2"}]
fallback = [{provider = "moonshot-intl", model = "kimi-k2"}]
[routes."own-*"]
targets = [{provider = "gpu"}]
[prices."gpu/own"]
input = 0.5
output = 2.25
currency = "CNY"
"""


@pytest.fixture
def written(aigw: CommandLine) -> CommandLine:
    """With what a server would have heard from two of the providers."""
    aigw.config.write_text(WRITTEN)
    providers = understood(load_text(WRITTEN, aigw.config), aigw.data_dir).providers
    for name in ("moonshot", "moonshot-intl"):
        LiveModels(aigw.data_dir / "models").save(name, models_url(providers[name]), ["kimi-k9", f"{name}-x"], 0.0)
    return aigw


def test_list(written: CommandLine) -> None:
    """Routes, listed models, patterns, beginnings; with the way each was found, who lost, and the price; no secret needed."""
    rows = {row["name"]: row for row in json.loads(written("models", "--json").stdout)}
    assert list(rows) == ["fast", "kimi-k9", "moonshot-x", "moonshot-intl-x", "kimi-k2", "own", "own-*", "kimi-*", "moonshot-*"]
    seen = {name: (row["kind"], row["goes_to"], row["source"], row["also_claimed_by"]) for name, row in rows.items()}
    assert seen == {
        "fast": ("name", "gpu/own 75%, moonshot/kimi-k2 25%", "route", []),
        "kimi-k9": ("name", "moonshot", "live", ["moonshot-intl"]),
        "moonshot-x": ("name", "moonshot", "live", []),
        "moonshot-intl-x": ("name", "moonshot-intl", "live", []),
        "kimi-k2": ("name", "gpu", "live", []),
        "own": ("name", "gpu", "live", []),
        "own-*": ("pattern", "gpu", "pattern", []),
        "kimi-*": ("prefix", "moonshot", "catalog", ["moonshot-intl"]),
        "moonshot-*": ("prefix", "moonshot", "catalog", ["moonshot-intl"]),
    }
    assert rows["own"]["targets"] == [
        {
            "provider": "gpu",
            "model": "own",
            "weight": 1,
            "price": {"input": 0.5, "output": 2.25, "cached": 0.5, "currency": "CNY", "source": "config"},
        }
    ]
    assert rows["own-*"]["targets"][0] == {"provider": "gpu", "model": None, "weight": 1, "price": None}


def test_table(written: CommandLine) -> None:
    """A line for each name; what stands for many, and who was not asked yet, is said beside it."""
    done = written("models", "--provider", "gpu")
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["name", "goes", "to", "why", "not", "to", "in", "/M", "out", "/M"],
        ["fast", "gpu/own", "75%,", "moonshot/kimi-k2", "25%", "route", "¥0.5", "¥2.25"],
        ["kimi-k2", "gpu", "live", "-", "-"],
        ["own", "gpu", "live", "¥0.5", "¥2.25"],
        ["own-*", "gpu", "pattern", "-", "-"],
    ]
    assert done.stderr == 'A name with "*" stands for all that begin so and are not listed above.\n'
    done = written("models", "--data-dir", "elsewhere")
    assert "Not asked yet for their models: moonshot, moonshot-intl." in done.stderr
    assert not (written.folder / "elsewhere").exists()


def test_csv(written: CommandLine) -> None:
    """The same for spreadsheets; an unknown price is empty, never 0."""
    rows = written("models", "list", "--csv").stdout.splitlines()
    assert rows[0] == "name,kind,goes_to,fallback,source,also_claimed_by,input,output,cached,currency"
    assert rows[1] == 'fast,name,"gpu/own 75%, moonshot/kimi-k2 25%",moonshot-intl/kimi-k2,route,,0.5,2.25,0.5,CNY'
    assert "own-*,pattern,gpu,,pattern,,,,," in rows


def test_show(written: CommandLine) -> None:
    """One name, also one that is not listed: where it goes, what each step of the search finds, which one decided."""
    done = written("models", "show", "kimi-k9")
    assert (done.returncode, done.stderr) == (0, "")
    assert "goes to:         moonshot\n" in done.stdout
    assert "also claimed by: moonshot-intl\n" in done.stdout
    assert '[prices."moonshot/kimi-k9"]\n' in done.stdout
    assert done.stdout.endswith(
        "looked for, in this order:\n"
        "  1. a route of that name:            -\n"
        "  2. a provider's name in front:      -\n"
        "  3. pattern routes:                  -\n"
        "  4. providers that list it:          moonshot, moonshot-intl  <- this one\n"
        "  5. the beginning of the name:       moonshot (kimi-*)\n"
    )
    found = json.loads(written("models", "show", "gpu/own", "--json").stdout)
    assert (found["goes_to"], found["source"], found["steps"]["provider/model"]) == ("gpu/own", "provider/model", "gpu")
    assert "pattern routes:                  own-*  <- this one" in written("models", "show", "own-x").stdout


def test_what_is_not_there(written: CommandLine) -> None:
    """A model or a provider that nobody knows, with the nearest; nothing on stdout; no escape gets through."""
    done = written("models", "show", "own1\x1b")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: no model 'own1\\x1b': did you mean own? ('aigw models' lists what works)\n"
    done = written("models", "--provider", "gpuu")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "error: no provider 'gpuu': did you mean gpu?\n")


def test_no_provider(aigw: CommandLine) -> None:
    """Nothing is data, the next step is talk."""
    done = aigw("models")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "No provider is configured: 'aigw init' sets one up.\n"
