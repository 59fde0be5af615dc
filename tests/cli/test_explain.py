"""`aigw explain` as it is typed. That it agrees with the server is tested in tests/e2e/test_explain.py."""

from __future__ import annotations

import json

import pexpect
import pytest

from aigw.cli.explain import SAMPLES, _looks_like
from tests.cli.conftest import CommandLine

CONFIG = """
[providers.demo]
[providers.openai]
keys = ["env:NOT_SET_HERE"]
list_models = false
[routes.fast]
strategy = "priority"
targets = [{provider = "openai", model = "gpt-5"}]
fallback = [{provider = "demo", model = "demo"}]
"""


@pytest.fixture
def told(aigw: CommandLine) -> CommandLine:
    aigw.config.write_text(CONFIG)
    return aigw


def test_a_name(told: CommandLine) -> None:
    """Where it goes, and what without a server is not known; no key need be here."""
    done = told("explain", "-m", "fast")
    assert done.returncode == 0, done.stderr
    assert "1. openai/gpt-5 with openai#1" in done.stdout
    assert "2. demo/demo with demo" in done.stdout
    assert "No server runs here" in done.stderr
    assert "NOT_SET_HERE" in done.stderr
    assert not told.data_dir.exists()


def test_a_file(told: CommandLine) -> None:
    """The request as it would be sent: its dialect is told by its looks, its model may be replaced."""
    file = told.folder / "request.json"
    file.write_text(
        json.dumps({"model": "demo", "system": "x", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]})
    )
    facts = json.loads(told("explain", "-f", str(file), "--json").stdout)
    assert (facts["operation"], facts["model"], facts["max_tokens"]) == ("messages", "demo", 9)
    facts = json.loads(told("explain", "-f", str(file), "-m", "fast", "--down", "openai", "--json").stdout)
    assert facts["first"] == "demo/demo"
    file.write_text("{")
    broken = told("explain", "-f", str(file))
    assert broken.returncode == 1
    assert "caller_invalid_json" in broken.stderr


def test_wrong_usage(told: CommandLine) -> None:
    """Said in a line; what was meant is guessed."""
    for flags, said in (
        ([], "name a model"),
        (["req_1", "-m", "x"], "stands alone"),
        (["-m", "fast", "--as", "chta"], "did you mean chat"),
        (["-m", "fast", "--at", "25:61"], "no time"),
        (["-m", "fast", "--header", "x"], "NAME=VALUE"),
        (["-m", "fast", "--down", "opnai"], "did you mean openai"),
        (["-f", "x.json", "--as", "generate"], "x.json"),
    ):
        done = told("explain", *flags)
        assert done.returncode in (1, 2), flags
        assert said in " ".join(done.stderr.split()), (flags, done.stderr)
        assert "Traceback" not in done.stderr
    assert told("explain", "-m", "nope\x1b[2J").returncode == 1
    assert "\x1b" not in told("explain", "-m", "nope\x1b[2J").stderr
    unknown = told("explain", "req_nothing")
    assert unknown.returncode == 1
    assert "aigw logs" in unknown.stderr


def test_everything_down(told: CommandLine) -> None:
    """Is a failure, and said so."""
    done = told("explain", "-m", "fast", "--down", "openai", "--down", "demo")
    assert done.returncode == 1
    assert "would fail" in done.stderr


@pytest.mark.parametrize("operation", SAMPLES)
def test_every_sample_is_a_request(told: CommandLine, operation: str) -> None:
    """Of its own API: never refused as one that cannot be read."""
    done = told("explain", "-m", "demo", "--as", operation, "--json")
    refusal = json.loads(done.stdout)["refusal"]
    assert refusal is None or refusal["code"] == "caller_unsupported"


def test_looks() -> None:
    """By the members that only one API has."""
    for operation, members in SAMPLES.items():
        if operation in ("count_tokens", "images", "moderations", "embeddings", "messages"):
            continue
        assert _looks_like(json.dumps(members).encode()) == operation
    assert _looks_like(b'{"model": "text-embedding-3-small", "input": "x"}') == "embeddings"
    assert _looks_like(b"[]") == _looks_like(b"\xff") == "chat"


def test_a_narrow_terminal(told: CommandLine) -> None:
    """40 columns, ASCII alone: nothing breaks over the edge but single words."""
    terminal = told.terminal("explain", "-m", "fast", columns=40, LANG="C", NO_COLOR="1")
    terminal.expect(pexpect.EOF)
    for line in terminal.before.splitlines():
        if not line.startswith(("No server", "not here")):
            assert len(line) <= 40 or " " not in line.strip(), line


def test_what_a_consumer_may_and_how_much(aigw: CommandLine) -> None:
    """Permissions leave places out or refuse, limits and budgets of consumer and group are told."""
    aigw.config.write_text(
        """
[providers.demo]
[providers.far]
kind = "demo"
residency = "us"
[routes.fast]
targets = [{provider = "far", model = "demo"}]
fallback = [{provider = "demo", model = "demo"}]
[routes.secret-plan]
targets = [{provider = "demo", model = "demo"}]
[groups.eng]
residency = ["local"]
tpm = 1000
budgets = ["5 usd/day"]
max_output = 300
[consumers.ci]
key = "the-key-of-ci-0123456789"
group = "eng"
deny = ["secret-*"]
endpoints = ["chat"]
rpm = 7
"""
    )
    told = aigw("explain", "-m", "fast", "--consumer", "ci")
    assert told.returncode == 0, told.stderr
    said = " ".join(told.stdout.split())
    assert "7 requests a minute" in said
    assert "1,000 tokens a minute for eng" in said
    assert "$5.00 a day of the group 'eng'" in said
    assert "of at most 300 tokens" in said
    assert "not allowed: far/demo" in said
    facts = json.loads(aigw("explain", "-m", "fast", "--consumer", "ci", "--json").stdout)
    assert facts["forbidden"] == ["far/demo"]
    assert facts["first"] == "demo/demo"
    for words, code in (
        (("-m", "secret-plan"), "policy_forbidden"),
        (("-m", "fast", "--as", "embeddings"), "policy_forbidden"),
    ):
        refused = aigw("explain", *words, "--consumer", "ci")
        assert (refused.returncode, code in refused.stderr) == (1, True), refused.stderr + refused.stdout
