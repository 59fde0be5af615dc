"""`aigw plugins`, as somebody uses it who writes one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import CommandLine

BROKEN = '''
from aigw.hooks import Plugin


class Broken(Plugin):
    """Fails."""

    name = "broken"

    async def request(self, view):
        raise ValueError("secret words")
'''


def folder(aigw: CommandLine) -> Path:
    return aigw.config.parent / "plugins"


def test_nothing_yet(aigw: CommandLine) -> None:
    told = aigw("plugins")
    assert (told.returncode, told.stdout) == (0, "")
    assert "aigw plugins new NAME" in told.stderr


def test_from_nothing_to_a_plugin_that_runs(aigw: CommandLine) -> None:
    """Begun, tried, trusted, turned on; and no longer once it has changed."""
    begun = aigw("plugins", "new", "tidy")
    path = folder(aigw) / "tidy.py"
    assert begun.stdout == f"{path}\n"
    assert path.stat().st_mode & 0o777 == 0o600
    again = aigw("plugins", "new", "tidy")
    assert (again.returncode, "is there already" in again.stderr) == (1, True)

    tried = aigw("plugins", "test", "tidy", "--prompt", "Hello \u2014 you")
    assert tried.returncode == 0, tried.stderr
    assert "Hello - you" in tried.stdout
    assert "HTTP 200" in tried.stderr

    aigw.config.write_text("[plugins.tidy]\n")
    listed = json.loads(aigw("plugins", "--json").stdout)
    assert [(one["name"], one["state"]) for one in listed] == [("tidy", "wrong")]
    assert "is not trusted" in listed[0]["source"]
    trusted = aigw("plugins", "trust", "tidy")
    assert (trusted.returncode, "may run now" in trusted.stderr) == (0, True)
    (fact,) = json.loads(aigw("plugins", "--json").stdout)
    assert (fact["state"], fact["phase"], fact["reads"]) == ("on", "prompt", ["request", "stream"])

    path.write_text(path.read_text() + "# more\n")
    assert json.loads(aigw("plugins", "--json").stdout)[0]["state"] == "wrong"
    assert aigw("plugins", "trust", "--remove", "tidy.py").returncode == 0
    assert aigw("plugins", "trust", "--remove", "tidy.py").returncode == 1


def test_its_settings(aigw: CommandLine) -> None:
    """As they are and as they would be; what sounds like a secret is not shown."""
    aigw("plugins", "new", "tidy")
    path = folder(aigw) / "tidy.py"
    path.write_text(
        path.read_text().replace('greeting: str = "Be brief."', 'greeting: str = "Be brief."\n    api_key: str = ""')
    )
    aigw("plugins", "trust", "tidy")
    aigw.config.write_text('[plugins.tidy]\ngreeting = "Hi."\napi_key = "sk-very-secret-indeed"\n')
    shown = aigw("plugins", "show", "tidy")
    assert "Hi." in shown.stdout
    assert "Be brief." in shown.stdout
    assert "sk-very-secret" not in shown.stdout + aigw("plugins", "show", "tidy", "--json").stdout
    assert "sk-very-secret" not in aigw("config", "show").stdout
    wrong = aigw("plugins", "show", "tydi")
    assert wrong.returncode == 2
    assert "no plugin is called 'tydi'" in wrong.stderr


@pytest.mark.parametrize(
    ("spoken", "flags"),
    [("chat", ()), ("messages", ()), ("responses", ("--stream",)), ("generate", ("--stream",)), ("embeddings", ())],
)
def test_trying_in_every_dialect(aigw: CommandLine, spoken: str, flags: tuple[str, ...]) -> None:
    aigw("plugins", "new", "tidy")
    tried = aigw("plugins", "test", "tidy", "--as", spoken, *flags, "--json")
    assert tried.returncode == 0, tried.stderr
    found = json.loads(tried.stdout)
    assert (found["status"], found["error"], found["errors"]) == (200, "", 0)
    assert "Say hello." in found["sent"]


def test_trying_one_that_fails(aigw: CommandLine) -> None:
    """Exit code 1, with what the log would say."""
    path = aigw.config.parent / "broken.py"
    path.write_text(BROKEN)
    tried = aigw("plugins", "test", str(path))
    assert tried.returncode == 1
    assert "failed in 'request': ValueError at broken.py:11" in tried.stderr
    assert "secret words" not in tried.stderr + tried.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("new", "../x"), "expected letters"),
        (("new", "1x"), "expected letters"),
        (("test", "nosuch"), "no plugin is called 'nosuch'"),
        (("trust", "nosuch.py"), "cannot be read"),
        (("test", "x", "--as", "telepathy"), "expected one of chat"),
    ],
)
def test_wrong_words(aigw: CommandLine, words: tuple[str, ...], said: str) -> None:
    done = aigw("plugins", *words)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
