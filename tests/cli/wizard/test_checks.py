"""Live checks in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from aigw.cli.wizard import checks
from aigw.cli.wizard.checks import Job
from aigw.cli.wizard.plan import Key, Provider
from aigw.config.edit import ConfigFile
from aigw.providers.key_check import Verdict
from tests.cli.emulated import BAD_KEY, KEY, MODELS, Emulated, Reply, guarded


@pytest.fixture
def file(tmp_path: Path) -> ConfigFile:
    return ConfigFile.read(tmp_path / "config.toml")


def test_a_row_of_the_catalog(file: ConfigFile) -> None:
    """A good key and a wrong one."""
    with Emulated({"GET /v1/models": guarded(MODELS)}) as far:
        provider = Provider("openai", base_url=far.url)
        good, wrong = checks.check_all([Job(provider, Key(secret=KEY)), Job(provider, Key(secret="sk-wrong-key"))], file)
    assert (good.verdict.kind, wrong.verdict.kind) == ("good", "wrong_key")
    good.learn(provider)
    assert provider.models == ("small-1", "large-1")


def test_a_server_that_no_catalog_knows(file: ConfigFile) -> None:
    """Is looked at: where /v1 is, and which APIs."""
    with Emulated({"GET /v1/models": guarded(MODELS)}) as far:
        provider = Provider("gpu", "openai-compatible", far.root)
        answer = checks.check(Job(provider, Key(secret=KEY)), file)
        answer.learn(provider)
        assert answer.verdict.kind == "good"
        assert provider.table()["base_url"] == far.url


def test_a_key_of_the_other_side_of_the_border(file: ConfigFile) -> None:
    """It is only looked for where the catalog's own address is asked, and there is another side."""
    with Emulated(otherwise=BAD_KEY) as far:
        assert checks.across_the_border(Provider("zhipu", base_url=far.url), Key(secret="x" * 20), file) is None
        assert checks.across_the_border(Provider("openai"), Key(secret="x" * 20), file) is None
        assert far.asked == []


def test_a_reference_that_does_not_resolve(file: ConfigFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Could not be checked, which is no fault of the key's."""
    monkeypatch.delenv("NOT_SET_HERE", raising=False)
    verdict = checks.check(Job(Provider("openai"), Key("env:NOT_SET_HERE")), file).verdict
    assert verdict.kind == "unknown"
    assert "NOT_SET_HERE" in verdict.detail


def test_the_way_out_of_the_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy is looked up where it is a reference."""
    path = tmp_path / "config.toml"
    path.write_text('[upstream]\nproxy = "env:MY_PROXY"\nca_file = "/etc/x.pem"\n')
    monkeypatch.setenv("MY_PROXY", "http://proxy:3128")
    upstream = checks.way_out(ConfigFile.read(path))
    assert (upstream.proxy, upstream.ca_file) == ("http://proxy:3128", "/etc/x.pem")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("good", "the key is good, 1 model"),
        ("limited", "the key is good, and is being rate limited: because"),
        ("wrong_key", "wrong key: because"),
        ("no_credit", "the key is good, but has no credit: because"),
        ("wrong_url", "wrong address: because"),
        ("unknown", "could not check: because"),
    ],
)
def test_every_verdict_has_words(kind: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its own, in both languages."""
    monkeypatch.setenv("LC_ALL", "C")
    verdict = Verdict(kind, "because", ("m",))
    assert checks.told(verdict) == words
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert not checks.told(verdict).isascii()


def test_escapes_of_a_provider_stay_text() -> None:
    """What it says goes to a terminal."""
    assert "\x1b" not in checks.told(Verdict("unknown", "\x1b[2J"))


def test_a_provider_without_keys(file: ConfigFile) -> None:
    """Whether it answers."""
    with Emulated({"GET /v1/models": MODELS}) as far:
        answer = checks.check(Job(Provider("vllm", base_url=far.url), None), file)
    assert checks.answers(answer.verdict) == "it answers, 2 models"
    with Emulated(otherwise=Reply(500, {})) as far:
        answer = checks.check(Job(Provider("vllm", base_url=far.url), None), file)
    assert checks.answers(answer.verdict).startswith("could not check")
