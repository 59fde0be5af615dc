"""`aigw routes`, as a person and as a program sees it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pexpect
import pytest

if TYPE_CHECKING:
    from conftest import CommandLine

WRITTEN = """\
# ours
[providers.openai]
keys = ["env:NOT_HERE", "sk-S3CR3T"]

[providers.gpu]
kind = "vllm"
base_url = "http://127.0.0.1:8000/v1"
models = ["qwen3-32b", "gpt-5", "gpt-5-mini"]

[routes."gpt-5*"]  # all of them
targets = [{provider = "openai", weight = 9}, {provider = "gpu", model = "gpt-5"}]
fallback = [{provider = "gpu", model = "qwen3-32b"}]
timeout = 60

[routes.fast]
targets = [{provider = "gpu", model = "qwen3-32b"}]
"""


@pytest.fixture
def written(aigw: CommandLine) -> CommandLine:
    aigw.config.write_text(WRITTEN)
    aigw.config.chmod(0o600)
    return aigw


def test_list(written: CommandLine) -> None:
    """Targets with their shares, fallbacks, and the known models that a pattern catches: not those of an exact route. It needs
    no secret."""
    done = written("routes")
    assert done.stdout == (
        "route   targets                    fallback       catches\n"
        "gpt-5*  openai 90%, gpu/gpt-5 10%  gpu/qwen3-32b  2: gpt-5, gpt-5-mini\n"
        "fast    gpu/qwen3-32b\n"
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(written("routes", "--json").stdout)
    assert found[0] == {
        "name": "gpt-5*",
        "kind": "glob",
        "targets": [
            {"provider": "openai", "model": None, "weight": 9},
            {"provider": "gpu", "model": "gpt-5", "weight": 1},
        ],
        "fallback": [{"provider": "gpu", "model": "qwen3-32b"}],
        "health": {},
        "strategy": "weighted",
        "retries": None,
        "response_model": "upstream",
        "timeouts": {"timeout": 60.0},
        "catches": ["gpt-5", "gpt-5-mini"],
    }
    assert written("routes", "list", "--csv").stdout.splitlines() == [
        "name,kind,targets,fallback,catches",
        'gpt-5*,glob,"openai 90%, gpu/gpt-5 10%",gpu/qwen3-32b,gpt-5 gpt-5-mini',
        "fast,exact,gpu/qwen3-32b,,",
    ]


def test_no_routes(aigw: CommandLine) -> None:
    """Nothing is data, the next step is talk."""
    done = aigw("routes")
    assert (done.returncode, done.stdout) == (0, "")
    assert "aigw routes set NAME --to PROVIDER/MODEL" in done.stderr
    assert aigw("routes", "--json").stdout == "[]\n"


def test_show(written: CommandLine) -> None:
    """One route whole; a name that is none is told what it is instead."""
    done = written("routes", "show", "gpt-5*")
    assert (done.returncode, done.stderr) == (0, "")
    for line in ("kind: glob", "targets: openai 90%, gpu/gpt-5 10%", "timeout: 60 s", "catches: gpt-5, gpt-5-mini"):
        label, text = line.split(": ")
        assert f"\n{label + ':':<22}{text}\n" in done.stdout
    assert json.loads(written("routes", "show", "fast", "--json").stdout)["kind"] == "exact"
    done = written("routes", "show", "gpt-5")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: no route 'gpt-5': did you mean gpt-5*?\n"
        "The name works without one: it goes to openai (aigw models show gpt-5)\n"
    )


def test_set_makes_one(written: CommandLine) -> None:
    """A new route is written behind the others; all else stays as it was."""
    done = written(
        "routes", "set", "chat", "--to", "openai/gpt-5=90", "--to", "gpu/a/b:c=10", "--fallback", "gpu", "--retries", "3"
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"Made the route chat in {written.config}\nNo server runs here; 'aigw serve' will read it.\n"
    assert written.config.read_text() == WRITTEN + (
        "\n[routes.chat]\ntargets = [\n"
        '  {provider = "openai", model = "gpt-5", weight = 90},\n'
        '  {provider = "gpu", model = "a/b:c", weight = 10},\n'
        ']\nfallback = [{provider = "gpu"}]\nretries = 3\n'
    )


def test_set_changes_one(written: CommandLine) -> None:
    """What is not given stays: another target leaves fallback, timeout and comment alone."""
    assert written("routes", "set", "gpt-5*", "--to", "gpu/gpt-5").returncode == 0
    old = '[{provider = "openai", weight = 9}, {provider = "gpu", model = "gpt-5"}]'
    expected = WRITTEN.replace(old, '[{provider = "gpu", model = "gpt-5"}]')
    assert written.config.read_text() == expected
    assert written("routes", "set", "gpt-5*", "--fallback", "none").returncode == 0
    assert written.config.read_text() == expected.replace('fallback = [{provider = "gpu", model = "qwen3-32b"}]\n', "")


def test_a_target_without_a_model(written: CommandLine) -> None:
    """An exact name is asked of the provider as it is, which is rarely meant: said. Of a pattern it is the point."""
    done = written("routes", "set", "new", "--to", "gpu", "--dry-run")
    assert done.stderr == "gpu will be asked for 'new' itself; PROVIDER/MODEL names another model\nNothing was changed.\n"
    assert written("routes", "set", "new-*", "--to", "gpu", "--dry-run").stderr == "Nothing was changed.\n"


def test_dry_run(written: CommandLine) -> None:
    """The change of the file on stdout, without the secrets around it; nothing is written."""
    done = written("routes", "set", "fast", "--to", "openai/gpt-5", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "Nothing was changed.\n")
    rows = done.stdout.splitlines()
    assert rows[:2] == [f"--- {written.config}", f"+++ {written.config}"]
    assert [row for row in rows[2:] if row[0] in "+-"] == [
        '-targets = [{provider = "gpu", model = "qwen3-32b"}]',
        '+targets = [{provider = "openai", model = "gpt-5"}]',
    ]
    done = written("routes", "remove", "gpt-5*", "--dry-run")
    assert '-[routes."gpt-5*"]  # all of them' in done.stdout
    assert "S3CR3T" not in done.stdout
    assert written.config.read_text() == WRITTEN


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["new"], "Invalid value for --to: a new route needs at least one\n"),
        (["fast"], "nothing to change: give --to, --fallback or --retries\n"),
        (["new", "--to", "opnai/x"], "Invalid value for --to: no provider 'opnai': did you mean openai?\n"),
        (["new", "--to", "openai/"], "expected a model behind the slash\n"),
        (["new", "--to", "openai/x=a"], "expected a whole number behind '='\n"),
        (["new", "--to", "gpu", "--fallback", "xyz"], "Invalid value for --fallback: no provider 'xyz'\n"),
        (["re:(", "--to", "gpu"], "not a regular expression: missing ), unterminated subpattern at position 0\n"),
    ],
)
def test_what_cannot_be_set(written: CommandLine, arguments: list[str], message: str) -> None:
    """Named, with what may have been meant; exit code 2; the file untouched."""
    done = written("routes", "set", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith(message)
    assert written.config.read_text() == WRITTEN


def test_remove(written: CommandLine) -> None:
    """Asked on a terminal, not in a script; a name that is none is an error."""
    terminal = written.terminal("routes", "remove", "fast")
    terminal.expect_exact("Remove the route fast? [y/N] ")
    terminal.sendline("n")
    terminal.expect_exact("Nothing was changed.")
    terminal.expect(pexpect.EOF)
    assert written.config.read_text() == WRITTEN
    done = written("routes", "remove", "fast")
    assert done.stderr.startswith(f"Removed the route fast in {written.config}\n")
    assert written.config.read_text() == WRITTEN[: WRITTEN.index("\n[routes.fast]")]
    done = written("routes", "remove", "fst")
    assert (done.returncode, done.stderr) == (1, "error: no route 'fst'\n")
