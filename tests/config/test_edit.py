"""Editing a config: one value changes, everything else stays byte for byte."""

from __future__ import annotations

import difflib
import errno
import os
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies

from aigw.config.edit import ConfigFile
from aigw.config.load import ConfigErrors
from aigw.errors import ConfigError

WRITTEN = """\
# The gateway of the search team.

[server]
port = 9000  # 8080 is taken

# the good one
[providers.openai]
keys = [
    "env:OPENAI_1",  # ann's account
    'env:OPENAI_2',  # ben's account
]
# base_url = "https://later.example/v1"

# for the night
[providers.deepseek]
keys = ['env:DEEPSEEK']
timeout = 60

[routes."gpt-*"]   # Claude Code asks for these
targets = [{provider = "openai"}]
# the end
"""


def edited(text: str) -> ConfigFile:
    return ConfigFile(Path("config.toml"), text.encode())


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def changes(before: str, after: str) -> tuple[list[str], list[str]]:
    """The lines that went, and those that came, without blank ones; all others kept their place."""
    found = [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[2:]]
    return [line[2:] for line in found if line.startswith("- ")], [line[2:] for line in found if line.startswith("+ ")]


@pytest.mark.parametrize(
    ("keys", "value", "gone", "came"),
    [
        (("server", "port"), 9001, ["port = 9000  # 8080 is taken"], ["port = 9001  # 8080 is taken"]),
        (("server", "host"), "0.0.0.0", [], ['host = "0.0.0.0"']),
        (("providers", "openai", "keys"), ["env:OPENAI_1", "env:OPENAI_2", "env:NEW"], [], ['    "env:NEW",']),
        (("providers", "openai", "keys"), ["env:OPENAI_2"], ['    "env:OPENAI_1",  # ann\'s account'], []),
        (
            ("providers", "openai", "keys"),
            ["env:X", "env:OPENAI_2"],
            ['    "env:OPENAI_1",  # ann\'s account'],
            ['    "env:X",  # ann\'s account'],
        ),
        (("providers", "deepseek", "timeout"), 2.5, ["timeout = 60"], ["timeout = 2.5"]),
        (("providers", "deepseek", "settings", "a.b"), 'q"\\', [], [r'settings = {"a.b" = "q\"\\"}']),
        (("limits", "rpm"), 60, [], ["[limits]", "rpm = 60"]),
        (("providers", "x"), {"kind": "vllm", "keys": ()}, [], ["[providers.x]", 'kind = "vllm"', "keys = []"]),
        (
            ("routes", "gpt-4.1"),
            {"targets": [{"provider": "openai", "model": None, "weight": 9}, {"provider": "deepseek"}]},
            [],
            ['[routes."gpt-4.1"]', "targets = [", '  {provider = "openai", weight = 9},', '  {provider = "deepseek"},', "]"],
        ),
    ],
)
def test_set_changes_those_lines_alone(keys: tuple[str, ...], value: Any, gone: list[str], came: list[str]) -> None:
    """Comments, order, quotes and indents of everything else survive, and the result can be read."""
    file = edited(WRITTEN)
    file.set(value, *keys)
    assert changes(WRITTEN, file.text()) == (gone, came)
    file.check()


def test_where_new_things_go() -> None:
    """A new table stands behind its siblings with its comment; a new key at the end of its table, before what belongs to the
    next one."""
    file = edited(WRITTEN)
    file.set({"keys": ["env:A"]}, "providers", "anthropic", comment="for agents\nby ann\x1b[2J")
    file.set(3, "providers", "openai", "connect_timeout", comment="it is near")
    text = file.text()
    assert "\n# for agents\n# by ann[2J\n[providers.anthropic]\n" in text
    order = ["[providers.openai]", "# it is near\nconnect_timeout = 3\n\n# for the night\n[providers.deepseek]"]
    order += ["[providers.anthropic]", '[routes."gpt-*"]', "# the end"]
    places = [text.index(piece) for piece in order]
    assert places == sorted(places)


def test_get() -> None:
    """Values are plain Python, None where there is nothing, and copies."""
    file = edited(WRITTEN)
    assert file.get("server", "port") == 9000
    assert file.get("server", "port", "more") is file.get("nothing", "there") is None
    keys = file.get("providers", "openai", "keys")
    assert type(keys) is list
    keys.append("x")
    assert file.get("providers", "openai", "keys") == ["env:OPENAI_1", "env:OPENAI_2"]
    assert list(file.get("providers")) == ["openai", "deepseek"]


def test_what_is_equal_is_not_touched() -> None:
    """Setting what is there already changes nothing, not even an odd layout; 1 and true are not the same."""
    text = "[auth]\nrequired   =true\n[server]\nport=1\n"
    file = edited(text)
    file.set(True, "auth", "required")
    file.set({"port": 1}, "server")
    assert file.text() == text
    file.set(1, "auth", "required")
    assert file.text() == "[auth]\nrequired   =1\n[server]\nport=1\n"
    with pytest.raises(ConfigErrors, match=r"config\.toml:2: auth\.required: expected true or false"):
        file.check()


def test_a_table_is_replaced_key_by_key() -> None:
    """A dict is the whole table: what is not in it goes, what is equal keeps its comment."""
    file = edited(WRITTEN)
    file.set({"keys": ["env:OPENAI_1", "env:OPENAI_2"], "timeout": 5}, "providers", "openai")
    file.set({"keys": ["env:NEW"]}, "providers", "deepseek")
    assert changes(WRITTEN, file.text()) == (["keys = ['env:DEEPSEEK']", "timeout = 60"], ["timeout = 5", 'keys = ["env:NEW"]'])
    assert file.get("providers", "deepseek") == {"keys": ["env:NEW"]}
    file.set(None, "providers", "deepseek", "keys")
    assert file.get("providers", "deepseek") == {}


def test_remove() -> None:
    """A table goes with its own comment and what is below it; the comments of its neighbours stay."""
    file = edited(WRITTEN + "\n[providers.openai.settings]\nregion = 'x'\n")
    assert file.remove("providers", "openai") is True
    gone, came = changes(WRITTEN, file.text())
    assert came == []
    assert gone[0] == "# the good one"
    assert gone[-1] == '# base_url = "https://later.example/v1"'
    assert "# for the night" in file.text()
    assert "settings" not in file.text()
    assert file.remove("providers", "openai") is False
    assert file.remove("providers", "deepseek", "timeout") is True
    assert file.remove("routes", "gpt-*") is True
    assert "\n\n\n" not in file.text()
    assert file.get() == {"server": {"port": 9000}, "providers": {"deepseek": {"keys": ["env:DEEPSEEK"]}}}


def test_removing_the_first_table_keeps_the_head_of_the_file() -> None:
    """What is written at the top is about the whole file."""
    file = edited("# mine\n[server]\nport = 1\n\n[limits]\nrpm = 1\n")
    file.remove("server")
    assert file.text() == "# mine\n\n[limits]\nrpm = 1\n"
    file.remove("limits")
    assert file.text() == "# mine\n"


@pytest.mark.parametrize(
    ("before", "keys", "value", "after"),
    [
        ("", ("server", "port"), 1, "[server]\nport = 1\n"),
        ("[server]\nport=1", ("server", "host"), "h", '[server]\nport=1\nhost = "h"'),
        ("[server]\r\nport=1\r\n", ("limits", "rpm"), 1, "[server]\r\nport=1\r\n\r\n[limits]\r\nrpm = 1\r\n"),
        ("[server]\r\nport=1 # a\r\n", ("server", "port"), 2, "[server]\r\nport=2 # a\r\n"),
        ("[a]\nx=1\r\n", ("a", "y"), 2, "[a]\nx=1\r\ny = 2\n"),
        ("\ufeff[a]\nx=1\n", ("a", "x"), 2, "[a]\nx=2\n"),
        ("[a]\nx='\u2028 \x85'\n[b]\n", ("a", "y"), 2, "[a]\nx='\u2028 \x85'\ny = 2\n[b]\n"),
        ("server.port = 1\n", ("server", "host"), "h", 'server.port = 1\nserver.host = "h"\n'),
        ("server = {port = 1}\n", ("server", "port"), 2, "server = {port = 2}\n"),
        ("[providers]\na.kind = 'q'\n", ("providers", "b"), {}, "[providers]\na.kind = 'q'\n\n[providers.b]\n"),
        ("[providers]\na = {}\n", ("providers", "a", "kind"), "vllm", '[providers]\na = {kind = "vllm"}\n'),
        ("providers = {a = {}}\n", ("providers", "b", "kind"), "q", 'providers = {a = {},b = {kind = "q"}}\n'),
        ("server.port = 1\n", ("providers", "b", "kind"), "q", 'server.port = 1\n\n[providers.b]\nkind = "q"\n'),
        ("[a]\nx=1\n[b]\n[a.c]\nz=1\n", ("a", "y"), 2, "[a]\nx=1\ny = 2\n[b]\n[a.c]\nz=1\n"),
        ("[a]\nx=1\n[b]\n[a.c]\nz=1\n", ("a", "c", "z"), 2, "[a]\nx=1\n[b]\n[a.c]\nz=2\n"),
        (
            "[[routes.x.targets]]\nprovider='a'\n[[routes.x.targets]]\nprovider='b'\n[log]\n",
            ("routes", "x", "targets"),
            [{"provider": "c"}],
            '[routes.x]\ntargets = [{provider = "c"}]\n[log]\n',
        ),
        (
            "[routes.x]\nretries = 1\n\n[[routes.x.targets]]\nprovider='a'\n\n[log]\n",
            ("routes", "x", "targets"),
            [{"provider": "c"}],
            '[routes.x]\nretries = 1\ntargets = [{provider = "c"}]\n\n[log]\n',
        ),
        ("[a]\nx = [\n  1,\n  2 # two\n]\n", ("a", "x"), [1, 2, 3], "[a]\nx = [\n  1,\n  2, # two\n  3\n]\n"),
        ("[a]\ns = '''\n# no comment\n\n[b]\n'''\n", ("a", "t"), 1, "[a]\ns = '''\n# no comment\n\n[b]\n'''\nt = 1\n"),
    ],
)
def test_layouts(before: str, keys: tuple[str, ...], value: Any, after: str) -> None:
    """Every way to write the same thing, line ends of every kind, a file that ends without one."""
    file = edited(before)
    file.set(value, *keys)
    assert file.text() == after
    assert file.get(*keys) == value
    assert tomllib.loads(after)


NAMES = strategies.sampled_from(["a", "b", "gpt-*", "x.y", "re:^q", "模型"])
TABLES = strategies.fixed_dictionaries(
    {},
    optional={
        "keys": strategies.lists(strategies.text(alphabet="ab\"'\\#\n é", max_size=5), max_size=3),
        "timeout": strategies.one_of(strategies.integers(0, 9), strategies.floats(0, 9)),
        "list_models": strategies.booleans(),
        "headers": strategies.dictionaries(NAMES, strategies.text(alphabet="a=[]{}\t", max_size=4), max_size=2),
    },
)
EDITS = strategies.lists(strategies.tuples(strategies.sampled_from(["set", "remove"]), NAMES, TABLES), max_size=6)
LAYOUTS = (
    WRITTEN,
    "",
    "# one line",
    "[providers]\n# a\na = {keys = []}  # inline\n\n[server] # s\n",
    "providers.a.timeout = 1 # dotted\n[log]\n",
    "[providers.a]\nkeys = [\n # none\n]\n[log]\n[providers.a.headers]\nx = '1'\n# tail\n[providers.b]\n",
)


@settings(max_examples=150, deadline=None)
@given(layout=strategies.sampled_from(LAYOUTS), edits=EDITS)
def test_any_edits_mean_what_they_say(layout: str, edits: list[tuple[str, str, dict[str, Any]]]) -> None:
    """After any edits of any layout the text means exactly the values that were set, in the order in which they came."""
    file = edited(layout)
    expected: dict[str, Any] = file.get("providers") or {}
    for deed, name, table in edits:
        if deed == "set":
            try:
                file.set(table, "providers", name)
            except ConfigError:
                assert layout.startswith("providers.a.timeout")  # dotted keys cannot spell an empty table
                assert table == {}
            else:
                expected[name] = table
        else:
            assert file.remove("providers", name) is (expected.pop(name, None) is not None)
        meant = tomllib.loads(file.text()).get("providers", {})
        assert meant == expected
        assert list(meant) == list(expected)
    assert {line for line in layout.splitlines() if line.startswith("[server]")} <= set(file.text().splitlines())


def test_what_cannot_be_edited_is_refused() -> None:
    """A layout in which a change has no place is said to be one, with its line; nothing has changed then."""
    file = edited("[server]\nport = 1\n")
    with pytest.raises(ConfigError, match=r"config\.toml:2: server\.port\.x: cannot be changed in the way this file is laid"):
        file.set(1, "server", "port", "x")
    assert file.text() == "[server]\nport = 1\n"


# --- the disk ---


def test_read_what_is_no_config(tmp_path: Path) -> None:
    """What cannot be read is said with file and line; a missing file is a new one."""
    path = tmp_path / "config.toml"
    file = ConfigFile.read(path)
    assert (file.exists, file.text(), file.get("server")) == (False, "", None)
    path.write_text("[server]\nport = 1\nport = 2\n")
    with pytest.raises(ConfigErrors, match=rf"{path}:3: server\.port: is written twice"):
        ConfigFile.read(path)
    path.write_bytes(b"[server]\nhost = '\xff'\n")
    with pytest.raises(ConfigError, match=f"{path}:2: is not UTF-8"):
        ConfigFile.read(path)
    with pytest.raises(ConfigError, match="is a directory"):
        ConfigFile.read(tmp_path)


def test_save(tmp_path: Path) -> None:
    """A new file is 0600 in a 0700 directory, one that is there becomes 0600; saving twice works; nothing is left beside it."""
    path = tmp_path / "new" / "config.toml"
    file = ConfigFile.read(path)
    file.set(9000, "server", "port")
    file.save()
    assert file.exists
    assert path.read_text() == "[server]\nport = 9000\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.chmod(0o644)
    file.set(9001, "server", "port")
    file.save()
    assert path.read_text() == "[server]\nport = 9001\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert names_in(path.parent) == ["config.toml"]


def test_bytes_survive(tmp_path: Path) -> None:
    """The mark of Windows editors, CRLF and a missing last newline are saved as they were."""
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xef\xbb\xbf# a\r\n[server]\r\nport = 1")
    file = ConfigFile.read(path)
    file.set(2, "server", "port")
    file.save()
    assert path.read_bytes() == b"\xef\xbb\xbf# a\r\n[server]\r\nport = 2"


def test_a_config_that_cannot_be_served_is_not_saved(tmp_path: Path) -> None:
    """The check comes first, and says where; references need not resolve."""
    path = tmp_path / "config.toml"
    path.write_text('[providers.openai]\nkeys = ["env:NOT_SET"]\n')
    file = ConfigFile.read(path)
    file.set("file:/nowhere", "providers", "openai", "proxy")
    file.save()
    before = path.read_bytes()
    file.set(0, "server", "workers")
    with pytest.raises(ConfigErrors, match=rf"{path}:6: server\.workers: "):
        file.save()
    assert path.read_bytes() == before


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """The file behind it is replaced, where it lies; so is one that does not exist yet."""
    target = tmp_path / "dotfiles" / "aigw.toml"
    target.parent.mkdir()
    link = tmp_path / "config.toml"
    link.symlink_to("dotfiles/aigw.toml")
    for port in (1, 2):
        file = ConfigFile.read(link)
        file.set(port, "server", "port")
        file.save()
        assert link.is_symlink()
        assert target.read_text() == f"[server]\nport = {port}\n"


@pytest.mark.parametrize("deed", ["change", "remove", "create"])
def test_somebody_else_was_faster(tmp_path: Path, deed: str) -> None:
    """What others did to the file since it was read is never overwritten."""
    path = tmp_path / "config.toml"
    if deed != "create":
        path.write_text("[server]\nport = 1\n")
    file = ConfigFile.read(path)
    file.set(2, "server", "port")
    if deed == "remove":
        path.unlink()
    else:
        path.write_text("[server]\nport = 3\n")
    with pytest.raises(ConfigError, match="was changed by somebody else in the meantime; nothing was saved"):
        file.save()
    assert not path.exists() if deed == "remove" else path.read_text() == "[server]\nport = 3\n"


def test_no_file_to_replace(tmp_path: Path) -> None:
    """A pipe or a directory is not replaced."""
    pipe = tmp_path / "pipe"
    file = ConfigFile.read(pipe)
    file.set(2, "server", "port")
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match="is no regular file"):
        file.save()
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_full_disk(tmp_path: Path) -> None:
    """When the disk takes no more, the old file is there, whole, and nothing is left beside it. A real limit: RLIMIT_FSIZE."""
    path = tmp_path / "config.toml"
    path.write_text("[server]\nport = 1\n")
    script = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from aigw.config.edit import ConfigFile\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "file = ConfigFile.read(Path(sys.argv[1]))\n"
        "file.set(['m' * 50] * 100, 'providers', 'openai', 'models')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    file.save()\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-B", "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == f"ConfigError {path}: cannot be saved: {os.strerror(errno.EFBIG)}; nothing was changed\n"
    assert path.read_text() == "[server]\nport = 1\n"
    assert names_in(tmp_path) == ["config.toml"]


def test_killed_while_saving(tmp_path: Path) -> None:
    """A process that dies between writing and replacing leaves the old file, and does not stand in the way of the next."""
    path = tmp_path / "config.toml"
    path.write_text("[server]\nport = 1\n")
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from aigw.config.edit import ConfigFile\n"
        "file = ConfigFile.read(Path(sys.argv[1]))\n"
        "file.set(2, 'server', 'port')\n"
        "Path.replace = lambda self, target: os.kill(os.getpid(), signal.SIGKILL)\n"
        "file.save()\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, check=False)
    assert done.returncode == -9
    assert path.read_text() == "[server]\nport = 1\n"
    assert len(names_in(tmp_path)) == 2
    file = ConfigFile.read(path)
    file.set(3, "server", "port")
    file.save()
    assert path.read_text() == "[server]\nport = 3\n"
    assert names_in(tmp_path) == ["config.toml"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_the_owner_stays(tmp_path: Path) -> None:
    """Root edits a service's config: the service can still read it."""
    path = tmp_path / "config.toml"
    path.write_text("[server]\nport = 1\n")
    os.chown(path, 12345, 12346)
    file = ConfigFile.read(path)
    file.set(2, "server", "port")
    file.save()
    assert (path.stat().st_uid, path.stat().st_gid, stat.S_IMODE(path.stat().st_mode)) == (12345, 12346, 0o600)


def test_diff(tmp_path: Path) -> None:
    """What would be saved, with a few lines around it; secrets that stand there are not shown."""
    path = tmp_path / "config.toml"
    path.write_text('[providers.a]\nkeys = ["sk-S3CR3T", "env:A"]\nheaders = {x = "hunter2"}\nproxy = "http://u:pass@h:1"\n')
    file = ConfigFile.read(path)
    assert file.diff() == ""
    file.set(["sk-S3CR3T", "env:A", "sk-N3W"], "providers", "a", "keys")
    assert file.diff() == (
        f"--- {path}\n+++ {path}\n@@ -1,4 +1,4 @@\n [providers.a]\n"
        '-keys = ["***", "env:A"]\n+keys = ["***", "env:A", "***"]\n'
        ' headers = {x = "***"}\n proxy = "http://***@h:1"'
    )
    file.save()
    assert file.diff() == ""
