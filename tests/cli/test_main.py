from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aigw import __version__
from aigw.cli.main import COMMANDS

if TYPE_CHECKING:
    from conftest import CommandLine


def modules_after(aigw: CommandLine, *arguments: str) -> set[str]:
    """The top-level modules that a command imported."""
    script = (
        "import sys; sys.argv = ['aigw', *sys.argv[1:]]\n"
        "from aigw.__main__ import main\n"
        "code = main()\n"
        "print(code, *sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, env=aigw.environment, cwd=aigw.folder, capture_output=True, text=True, check=True)
    code, *modules = done.stderr.splitlines()[-1].split()
    assert code == "0"
    return set(modules)


HELP = """\
Usage: aigw [OPTIONS] COMMAND [ARGS]...

  aigw: one address in front of every model provider.

Options:
  -V, --version         Show the version.
  --install-completion  Have this shell complete commands and names; or name
                        one: bash, zsh, fish.
  --show-completion     Print what that would install.
  --config FILE         Config file. Default: $AIGW_CONFIG, else the user's
                        config directory.
  --data-dir DIR        Database and journal. Default: $AIGW_DATA_DIR, else
                        the user's data directory.
  -h, --help            Show this message and exit.

Commands:
"""


def test_version(aigw: CommandLine) -> None:
    """The version, at once: neither the command line's libraries nor asyncio nor TLS are imported for it."""
    for flag in ("--version", "-V"):
        done = aigw(flag)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"aigw {__version__}\n", "")
    assert not modules_after(aigw, "--version") & {"typer", "rich", "asyncio", "ssl", "aiohttp", "msgspec", "inspect"}
    assert aigw("--data-dir", "x", "--version").stdout == f"aigw {__version__}\n"


def test_help(aigw: CommandLine) -> None:
    """Help is plain text on stdout with every command and examples, and imports none of the commands."""
    done = aigw("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(HELP)
    listed = done.stdout.removeprefix(HELP).partition("\n\n")[0]
    assert [line.split(maxsplit=1) for line in listed.splitlines()] == [[name, text] for name, text in COMMANDS.items()]
    assert "\n  Examples:\n    aigw init " in done.stdout
    assert aigw().stdout == aigw("-h").stdout == done.stdout
    assert aigw().returncode == 0
    assert not modules_after(aigw, "--help") & {"rich", "asyncio", "ssl", "aiohttp", "msgspec", "platformdirs", "questionary"}


def test_one_short_look(aigw: CommandLine) -> None:
    """What people wait for while they type: neither the server's library nor what draws is imported for these, whatever their
    answer."""
    aigw.config.write_text('[providers.demo]\n[routes.a]\ntargets = [{provider = "demo"}]\n')
    for arguments in (
        ["keys"],
        ["keys", "create", "x"],
        ["stats"],
        ["config", "check"],
        ["config", "show"],
        ["routes"],
        ["models"],
    ):
        assert not modules_after(aigw, *arguments) & {"aiohttp", "rich", "questionary"}, arguments
    assert not modules_after(aigw, "config", "path") & {"asyncio", "ssl", "aiohttp", "rich", "msgspec", "tomlkit"}


def test_cpu(aigw: CommandLine) -> None:
    """--version takes less than 40 ms of CPU, --help less than 250 ms: the best of five, so that other work on this machine
    does not count."""
    for arguments, most in ((["--version"], 0.040), (["--help"], 0.250)):
        spent = []
        for _ in range(5):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            assert aigw(*arguments, PYTHONWARNINGS="").returncode == 0
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert min(spent) < most, (arguments, spent)


def test_serve_draws_and_asks_nothing(aigw: CommandLine) -> None:
    """A server needs neither tables nor questions: what they take is not imported for it."""
    assert not modules_after(aigw, "serve", "--help") & {"rich", "questionary", "prompt_toolkit", "pygments"}


@pytest.mark.parametrize(
    "arguments", [["keys"], ["keys", "create"], ["keys", "list"], ["keys", "revoke"], ["stats"], ["serve"]]
)
def test_help_of_commands(aigw: CommandLine, arguments: list[str]) -> None:
    """Every command explains itself, and takes the global options."""
    done = aigw(*arguments, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: aigw {' '.join(arguments)} ")
    for option in ("--config FILE", "--data-dir DIR", "-h, --help"):
        assert option in done.stdout
    assert "completion" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["kyes"], "Error: No such command 'kyes'. Did you mean 'keys'?\n"),
        (["frobnicate"], "Error: No such command 'frobnicate'.\n"),
        (["keys", "creat", "x"], "Error: No such command 'creat'. Did you mean 'create'?\n"),
        (["keys", "--jsn"], "Error: No such option: --jsn (Possible options: --csv, --json)\n"),
        (["keys", "create"], "Error: Missing argument 'NAME'.\n"),
        (["keys", "create", "a", "b"], "Error: Got unexpected extra argument(s) (b)\n"),
        (["--confg", "x", "keys"], "Error: No such option: --confg (Possible options: --config)\n"),
        (["keys", "--config"], "Error: Option '--config' requires an argument.\n"),
        (["keys", "--json", "--csv"], "Error: Invalid value: --json and --csv exclude each other\n"),
        (["stats", "--by", "modle"], "nothing to group by is called 'modle': did you mean model?\n"),
        (["\x1b[31m"], "Error: No such command '\\x1b[31m'.\n"),
    ],
)
def test_typing_errors(aigw: CommandLine, arguments: list[str], message: str) -> None:
    """What was mistyped is named, with the nearest thing that exists; exit code 2 and nothing on stdout."""
    done = aigw(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith(message)
    assert done.stderr.startswith(("Usage: aigw ", "Error: "))


def test_completion(aigw: CommandLine) -> None:
    """Shells complete verbs and options."""
    for words, expected in (("aigw keys re", ["revoke"]), ("aigw keys list --d", ["--data-dir"])):
        done = aigw(_AIGW_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(words.count(" ")))
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.split() == expected


def test_global_options_anywhere(aigw: CommandLine, tmp_path: Path) -> None:
    """--config and --data-dir may stand before or after any command, in both spellings; the last one holds; they beat the
    environment."""
    here = str(tmp_path / "here")
    assert aigw("keys", "create", "alice", "--data-dir", here).returncode == 0
    for arguments in (
        ["--data-dir", here, "keys"],
        ["keys", "--data-dir", here],
        ["keys", f"--data-dir={here}", "list"],
        ["keys", "list", f"--data-dir={here}"],
        ["--data-dir", "/nowhere", "keys", "list", "--data-dir", here],
    ):
        assert "alice" in aigw(*arguments).stdout
    assert aigw("keys").stdout == ""
    assert "alice" in aigw("keys", AIGW_DATA_DIR=here).stdout


def test_bad_config(aigw: CommandLine) -> None:
    """A config that is wrong is the operator's to mend: file, line and key on stderr, exit code 2."""
    aigw.config.write_text("[server]\nprot = 1\n")
    done = aigw("keys")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {aigw.config}:2: server.prot: ")
    done = aigw("keys", "--config", "/nowhere/config.toml")
    assert done.returncode == 2
    assert done.stderr.startswith("error: /nowhere/config.toml: ")
    aigw.config.write_text('[storage]\nurl = "mongodb://user:hunter2@host/"\n')
    done = aigw("stats")
    assert done.returncode == 2
    assert "storage.url" in done.stderr
    assert "hunter2" not in done.stderr


def test_unusable_store(aigw: CommandLine) -> None:
    """A data directory that is a file, a database that is none: said in words, exit code 1, no traceback."""
    aigw.data_dir.write_text("a file")
    done = aigw("keys", "create", "alice")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    aigw.data_dir.unlink()
    aigw.data_dir.mkdir()
    (aigw.data_dir / "aigw.db").write_bytes(b"this is no database" * 1000)
    done = aigw("stats")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_reader_that_leaves(aigw: CommandLine) -> None:
    """A pipe whose reader has seen enough is no reason to complain: not by the command, nor by the interpreter's exit."""
    for command in ("keys --help", "--version", "keys --json", "stats --json"):
        done = subprocess.run(
            ["bash", "-c", f"trap '' PIPE; {{ {sys.executable} -m aigw {command}; echo \"exit $?\" >&2; }} | true"],
            env=aigw.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr in ("exit 0\n", "exit 1\n"), command


def test_narrow_locale(aigw: CommandLine) -> None:
    """A terminal without Unicode shows escapes instead of failing."""
    assert aigw("keys", "create", "张伟").returncode == 0
    done = aigw("keys", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "\\u5f20\\u4f1f" in done.stdout


def test_narrow_terminal(aigw: CommandLine) -> None:
    """Help fits into any width."""
    assert aigw("keys", "create", "--help", COLUMNS="20").returncode == 0
    assert aigw("keys", "create", "--help", COLUMNS="1").returncode == 0


@pytest.mark.parametrize(
    "command", ["keys", "stats", "config path", "config check", "verify --json", "doctor --offline --json"]
)
def test_small_and_lazy(aigw: CommandLine, command: str) -> None:
    """What only asks and shows needs neither the server's libraries nor the wizard's."""
    script = (
        "import sys; from aigw.cli.main import main; main(sys.argv[1:]); "
        "print(*sorted({'aiohttp', 'uvloop', 'questionary', 'prompt_toolkit', 'asyncpg', 'redis'} & set(sys.modules)), 'only')"
    )
    started = [sys.executable, "-c", script, *command.split()]
    done = subprocess.run(started, env=aigw.environment, cwd=aigw.folder, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "only", done.stdout[-200:]


def test_the_server_is_no_terminal(aigw: CommandLine) -> None:
    """A server that is ready to serve has imported nothing that draws or asks, and nothing that fetches releases."""
    script = (
        "import sys\n"
        "from aigw.server import lifecycle\n"
        "heavy = {'questionary', 'rich', 'prompt_toolkit', 'typer.rich_utils', 'tomlkit', 'aigw.integrity.mirror'}\n"
        "def ready(*arguments):\n"
        "    lifecycle.Server(*arguments)\n"
        "    print(*sorted(heavy & set(sys.modules)), 'only', file=sys.stderr)\n"
        "lifecycle.serve = ready\n"
        "from aigw.cli.main import main\n"
        "sys.exit(main(['serve']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=aigw.environment, cwd=aigw.folder, capture_output=True, text=True, check=False
    )
    assert done.stderr.splitlines()[-1] == "only", done.stderr[-400:]


def test_interrupt(aigw: CommandLine, tmp_path: Path) -> None:
    """Ctrl-C while a command works ends it with 130 and no traceback."""
    script = tmp_path / "slow.py"
    script.write_text(
        "import sys, time\n"
        "from aigw.storage.sqlite import SqliteStore\n"
        "async def slow(self):\n"
        "    import asyncio\n"
        "    print('working', file=sys.stderr, flush=True)\n"
        "    await asyncio.sleep(30)\n"
        "SqliteStore.consumers = slow\n"
        "from aigw.cli.main import main\n"
        "sys.exit(main(['keys']))\n"
    )
    process = subprocess.Popen([sys.executable, str(script)], env=aigw.environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline() == "working\n"
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=20)
    assert (process.returncode, rest.strip()) == (130, "")
