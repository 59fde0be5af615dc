from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pexpect
import pytest
import typer

from aigw.access.consumer_keys import PATTERN, digest, looks_valid
from aigw.cli import keys as keys_command
from aigw.consumer import Consumer, ConsumerKey
from aigw.storage.open import open_store

if TYPE_CHECKING:
    from conftest import CommandLine

    Done = subprocess.CompletedProcess[str]


async def stored(data_dir: Path) -> tuple[list[Consumer], list[ConsumerKey]]:
    store = open_store("sqlite:", data_dir)
    try:
        consumers, keys, _ = await store.consumers()
        return consumers, keys
    finally:
        await store.close()


def created(done: Done) -> str:
    """The key that `keys create` printed."""
    assert done.returncode == 0, done.stderr
    return done.stdout.removesuffix("\n")


def id_of(key: str) -> str:
    return key.split("-")[2]


async def test_create(aigw: CommandLine) -> None:
    """Before any server ever ran: the key alone on stdout, what to do with it on stderr, only its digest in the store."""
    done = aigw("keys", "create", "alice")
    key = created(done)
    assert looks_valid(key)
    assert done.stderr == (
        f"Created alice with its first key, {id_of(key)}.\n"
        "The key is shown this once; aigw keeps only its digest.\n"
        "Use it:\n"
        "  export OPENAI_BASE_URL=http://127.0.0.1:8080/v1\n"
        "  export OPENAI_API_KEY=(the key)\n"
    )
    consumers, keys = await stored(aigw.data_dir)
    assert [consumer.name for consumer in consumers] == ["alice"]
    assert [(one.id, one.consumer_id, one.digest) for one in keys] == [(id_of(key), consumers[0].id, digest(key))]
    secret = key.split("-")[3].encode()
    assert not any(secret in path.read_bytes() for path in aigw.data_dir.rglob("*") if path.is_file())


async def test_create_again(aigw: CommandLine) -> None:
    """A consumer that exists gets a further key, and what was changed about it is said."""
    first = created(aigw("keys", "create", "alice", "--tag", "team=core"))
    done = aigw("keys", "create", "alice", "--group", "研发", "--tag", "site=Aachen", "--rpm", "0", "--expires", "30d")
    second = created(done)
    assert done.stderr.startswith(
        f"alice exists already: added a key, {id_of(second)}. Live keys now: 2.\n"
        'Changed alice: group - -> 研发, tags {"team":"core"} -> {"site":"Aachen","team":"core"}, rpm - -> 0.\n'
    )
    (alice,), keys = await stored(aigw.data_dir)
    assert (alice.group, json.loads(alice.tags), alice.terms.rpm) == ("研发", {"site": "Aachen", "team": "core"}, 0)
    assert [one.id for one in keys] == [id_of(first), id_of(second)]
    assert keys[0].expires is None
    assert keys[1].expires == pytest.approx(keys[1].created + 30 * 86400)


def test_create_json(aigw: CommandLine) -> None:
    """For programs: one object, nothing else on either stream."""
    done = aigw("keys", "create", "ci bot/1", "--group", "build", "--tag", "a=b", "--expires", "2099-12-31", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert re.fullmatch(PATTERN, answer["key"])
    assert datetime.now(UTC) - datetime.fromisoformat(answer["created"]) < timedelta(minutes=2)
    assert re.fullmatch("[0-9a-z]{10}", answer["id"])
    assert answer == {
        "key": answer["key"],
        "name": "ci bot/1",
        "id": answer["id"],
        "key_id": id_of(answer["key"]),
        "state": "live",
        "group": "build",
        "tags": {"a": "b"},
        "created": answer["created"],
        "expires": "2099-12-31T00:00:00Z",
        "revoked": None,
        "source": "store",
        "consumer_created": True,
    }


def test_create_follows_the_config(aigw: CommandLine) -> None:
    """The lines to copy name the address of the configured data port."""
    aigw.config.write_text('[server]\nhost = "0.0.0.0"\nport = 9000\n')
    assert "export OPENAI_BASE_URL=http://127.0.0.1:9000/v1\n" in aigw("keys", "create", "a").stderr


async def test_create_dry_run(aigw: CommandLine) -> None:
    """A dry run says what would be, and nothing is."""
    done = aigw("keys", "create", "alice", "--dry-run")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "would create alice; nothing was changed\n")
    assert await stored(aigw.data_dir) == ([], [])


BAD_NAMES = [
    "",
    " ",
    "-",
    ".a",
    "a.",
    " a",
    "a  b",
    "a\nb",
    "a\x1b[31mb",
    "a\u202eb",
    "a" * 65,
    "a:b",
    "a\u200bb",
    "😀",
    "\udc80",
]
GOOD_NAMES = ["a", "Alice Smith", "a@b.example", "team/ci_bot-2+x", "张伟", "e\u0301t", "a" * 64, "हिन्दी"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names(name: str) -> None:
    """A name that could play tricks, or that nobody could type again, is refused with what is expected."""
    with pytest.raises(typer.BadParameter) as caught:
        keys_command.valid_name(name)
    assert str(caught.value).isprintable()
    assert str(caught.value).endswith(
        "is no name; expected 1 to 64 letters and digits, with . _ - @ / + or single spaces between them"
    )


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_good_names(name: str) -> None:
    """Names of people, machines and addresses, in any script; those that look equal are equal."""
    assert keys_command.valid_name(name) == unicodedata.normalize("NFC", name)


def test_bad_name(aigw: CommandLine) -> None:
    """A bad name is wrong usage, shown without its tricks, before anything is made."""
    done = aigw("keys", "create", "a\x1b[31mb")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Error: Invalid value for NAME: 'a\\\\x1b[31mb' is no name" in done.stderr
    assert not aigw.data_dir.exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--tag", "novalue"], "Invalid value for --tag: 'novalue': expected KEY=VALUE"),
        (["--tag", f"a={'b' * 5000}"], "all together are longer than 4096 characters"),
        (["--expires", "soon"], "Invalid value for --expires: 'soon' is no time"),
        (["--expires", "2001-01-01"], "'2001-01-01' is in the past"),
        (["--rpm", "-1"], "Invalid value for '--rpm': -1 is not in the range x>=0."),
        (["--group", "\x1b"], "Invalid value for --group: '\\\\x1b' is no name"),
    ],
)
def test_bad_options(aigw: CommandLine, arguments: list[str], complaint: str) -> None:
    """Wrong options are wrong usage (2), and say which."""
    done = aigw("keys", "create", "alice", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr
    assert not aigw.data_dir.exists()


async def test_two_at_once(aigw: CommandLine) -> None:
    """Commands that run at the same moment make one consumer, with a key each."""
    with ThreadPoolExecutor(4) as pool:
        keys = {created(done) for done in pool.map(lambda _: aigw("keys", "create", "alice"), range(4))}
    assert len(keys) == 4
    consumers, found = await stored(aigw.data_dir)
    assert len(consumers) == 1
    assert {one.id for one in found} == {id_of(key) for key in keys}


def test_list(aigw: CommandLine) -> None:
    """A bare noun lists; live keys by name, those of the config too; the rest is counted and comes with --all."""
    empty = aigw("keys")
    assert (empty.returncode, empty.stdout, empty.stderr) == (0, "", "No keys yet. Make one: aigw keys create NAME\n")

    bob, alice = (
        created(aigw("keys", "create", "bob", "--group", "ml")),
        created(aigw("keys", "create", "Alice", "--tag", "a=b")),
    )
    gone = created(aigw("keys", "create", "Alice"))
    assert aigw("keys", "revoke", id_of(gone), "--yes").returncode == 0
    aigw.config.write_text('[consumers.gitops]\nkey = "sha256:' + "0" * 64 + '"\n')

    listed = aigw("keys")
    today = r"\d{4}-\d\d-\d\d \d\d:\d\d"
    assert re.fullmatch(
        r"name    key id         state  group  tags  created \(UTC\)     expires \(UTC\)\n"
        rf"Alice   {id_of(alice)}     live   -      a=b   {today}  -\n"
        rf"bob     {id_of(bob)}     live   ml     -     {today}  -\n"
        r"gitops  config:gitops  live   -      -     -                 -\n",
        listed.stdout,
    )
    assert listed.stderr == "Not shown: 1 revoked or expired (--all).\n"
    assert aigw("keys", "list").stdout == listed.stdout
    everything = aigw("keys", "--all")
    assert everything.stderr == ""
    assert [line.split()[:3] for line in everything.stdout.splitlines()[1:]] == [
        ["Alice", id_of(alice), "live"],
        ["Alice", id_of(gone), "revoked"],
        ["bob", id_of(bob), "live"],
        ["gitops", "config:gitops", "live"],
    ]
    as_json = json.loads(aigw("keys", "--json", "--all").stdout)
    assert [(one["name"], one["key_id"], one["state"], one["source"]) for one in as_json] == [
        ("Alice", id_of(alice), "live", "store"),
        ("Alice", id_of(gone), "revoked", "store"),
        ("bob", id_of(bob), "live", "store"),
        ("gitops", "config:gitops", "live", "config"),
    ]
    as_csv = list(csv.DictReader(io.StringIO(aigw("keys", "--csv", "--all").stdout)))
    assert [json.loads(one["tags"]) for one in as_csv] == [one["tags"] for one in as_json]
    assert [one["revoked"] for one in as_csv] == [one["revoked"] or "" for one in as_json]
    shown = listed.stdout + everything.stdout + json.dumps(as_json)
    assert not any(key.split("-")[3] in shown for key in (bob, alice, gone))


def test_show(aigw: CommandLine) -> None:
    """One consumer, by its name, a key id, or a key that somebody pastes."""
    key = created(aigw("keys", "create", "alice", "--group", "ml", "--rpm", "5", "--concurrency", "0"))
    done = aigw("keys", "show", "alice")
    assert done.returncode == 0
    (alice,) = json.loads(aigw("keys", "--json").stdout)
    assert done.stdout.startswith(
        "name:        alice\n"
        f"id:          {alice['id']}\n"
        "group:       ml\n"
        "tags:        -\n"
        "rpm:         5\n"
        "concurrency: no limit\n"
        "disabled:    no\n"
        "\n"
        "name   key id "
    )
    assert done.stdout == aigw("keys", "show", id_of(key)).stdout == aigw("keys", "show", key).stdout
    assert json.loads(aigw("keys", "show", "alice", "--json").stdout) == {
        "name": "alice",
        "id": alice["id"],
        "group": "ml",
        "tags": {},
        "rpm": 5,
        "concurrency": 0,
        "disabled": False,
        "lead": False,
        "terms": {"rpm": 5, "concurrency": 0},
        "metadata": {},
        "keys": [{"key_id": id_of(key), "state": "live", "created": alice["created"], "expires": None, "revoked": None}],
    }


async def test_revoke(aigw: CommandLine) -> None:
    """By name while that is one key, by id, or all; doing it twice is no failure."""
    first = created(aigw("keys", "create", "alice"))
    done = aigw("keys", "revoke", "alice", "--dry-run")
    assert (done.returncode, done.stderr) == (0, f"would revoke {id_of(first)} of alice; nothing was changed\n")
    done = aigw("keys", "revoke", "alice")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == (
        f"Revoked {id_of(first)} of alice. A running server refuses it within a second.\n"
        "alice has no live key left; 'aigw keys create alice' makes a new one.\n"
    )
    again = aigw("keys", "revoke", id_of(first))
    assert again.returncode == 0
    assert re.fullmatch(rf"{id_of(first)} of alice was revoked already, on \d{{4}}-\d\d-\d\d \d\d:\d\d UTC\.\n", again.stderr)
    assert aigw("keys", "revoke", "alice").stderr == "alice has no live key.\n"

    second, third = created(aigw("keys", "create", "alice")), created(aigw("keys", "create", "alice"))
    unclear = aigw("keys", "revoke", "alice")
    assert (unclear.returncode, unclear.stderr) == (
        1,
        f"error: alice has 2 live keys: {id_of(second)}, {id_of(third)}; name one of them, or add --all\n",
    )
    assert aigw("keys", "revoke", second).returncode == 0
    assert aigw("keys", "revoke", "alice", "--all").stderr.startswith(f"Revoked {id_of(third)} of alice.")
    _, keys = await stored(aigw.data_dir)
    assert [one.revoked is not None for one in keys] == [True, True, True]


@pytest.mark.parametrize("verb", ["show", "revoke"])
def test_unknown_names(aigw: CommandLine, verb: str) -> None:
    """A name that is not there: failed, with the nearest ones; one of the config says where it is written."""
    assert aigw("keys", "create", "alice").returncode == 0
    done = aigw("keys", verb, "alcie")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: there is no consumer and no key id 'alcie'; did you mean alice?\n"
    done = aigw("keys", verb, "\x1b[2J")
    assert "\x1b" not in done.stderr
    assert done.stderr.endswith("'aigw keys list --all' shows all\n")
    aigw.config.write_text('[consumers.gitops]\nkey = "sha256:' + "0" * 64 + '"\n')
    done = aigw("keys", verb, "gitops")
    assert done.returncode == 1
    assert done.stderr == (f"error: gitops is written in the config: its key is that of [consumers.gitops] in {aigw.config}\n")


async def test_revoke_asks_on_a_terminal(aigw: CommandLine) -> None:
    """Where somebody is there to answer, revoking asks; anything but yes changes nothing."""
    key = created(aigw("keys", "create", "alice"))
    for answer in ("n\r", "\r", "\x04"):
        terminal = aigw.terminal("keys", "revoke", "alice")
        terminal.expect_exact(f"Revoke {id_of(key)} of alice? [y/N] ")
        terminal.send(answer)
        terminal.expect_exact("Nothing was changed.")
        terminal.expect(pexpect.EOF)
        terminal.close()
        assert terminal.exitstatus == 1
    _, keys = await stored(aigw.data_dir)
    assert keys[0].revoked is None

    terminal = aigw.terminal("keys", "revoke", "alice")
    terminal.expect_exact("[y/N] ")
    terminal.sendline("y")
    terminal.expect_exact(f"Revoked {id_of(key)} of alice.")
    terminal.expect(pexpect.EOF)
    _, keys = await stored(aigw.data_dir)
    assert keys[0].revoked is not None


def test_interrupt_at_the_question(aigw: CommandLine) -> None:
    """Ctrl-C at the question: nothing happens, no traceback, 130."""
    assert aigw("keys", "create", "alice").returncode == 0
    terminal = aigw.terminal("keys", "revoke", "alice")
    terminal.expect_exact("[y/N] ")
    terminal.sendintr()
    rest = terminal.read()
    terminal.close()
    assert "Traceback" not in rest
    assert terminal.exitstatus == 130


def test_create_on_a_terminal(aigw: CommandLine) -> None:
    """On a terminal the lines to copy hold the key; it is there for the one who asked, and nowhere else."""
    terminal = aigw.terminal("keys", "create", "alice")
    shown = terminal.read()
    keys = re.findall(PATTERN, shown)
    assert len(keys) == 2
    assert f"export OPENAI_API_KEY={keys[0]}" in shown
    assert looks_valid(keys[0])


def test_table_on_a_terminal(aigw: CommandLine) -> None:
    """On a terminal the list is drawn in colour; NO_COLOR and dumb terminals get none; a narrow one loses columns, says so,
    and never cuts a key id."""
    key = created(aigw("keys", "create", "alice"))
    assert "\x1b[36malice" in aigw.terminal("keys").read()
    assert "\x1b[36m" not in aigw.terminal("keys", NO_COLOR="1").read()
    assert "\x1b" not in aigw.terminal("keys", TERM="dumb").read()
    narrow = aigw.terminal("keys", columns=20, NO_COLOR="1").read()
    assert id_of(key) in narrow
    assert "not shown for want of width: state, group, tags, created (UTC), expires (UTC)" in narrow


def test_the_database_is_private(aigw: CommandLine) -> None:
    """What keys leave behind is for the owner's eyes."""
    assert aigw("keys", "create", "alice").returncode == 0
    assert aigw.data_dir.stat().st_mode & 0o77 == 0
    assert all(path.stat().st_mode & 0o77 == 0 for path in aigw.data_dir.rglob("*"))


def test_light(aigw: CommandLine) -> None:
    """Listing keys into a pipe imports nothing that draws, asks or serves."""
    script = (
        "import sys; sys.argv = ['aigw', 'keys']; from aigw.__main__ import main; main(); "
        "print(sorted({m.partition('.')[0] for m in sys.modules} & {'rich', 'questionary', 'aiohttp', 'tomlkit'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=aigw.environment, cwd=aigw.folder, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
