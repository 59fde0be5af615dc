"""A TOML file becomes a Config, or complaints that name file, line and key."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from aigw.config import load
from aigw.config.load import ConfigErrors, parse
from aigw.config.schema import Config
from aigw.errors import ConfigError


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)


def complaints(text: str) -> list[str]:
    with pytest.raises(ConfigErrors) as caught:
        parse(text)
    assert str(caught.value).split("\n") == [str(problem) for problem in caught.value.problems]
    return [str(problem) for problem in caught.value.problems]


def written(tmp_path: Path, content: bytes, mode: int = 0o600) -> Path:
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    path.chmod(mode)
    return path


EXAMPLE = """
[server]
host = "127.0.0.1"
port = 8080
workers = 1
[auth]
required = true
[admin]
host = "127.0.0.1"
port = 8081
[providers.openai]
keys = ["env:OPENAI_API_KEY", "file:~/.keys/openai-2", "sk-literal"]
[providers.local]
kind = "vllm"
base_url = "http://127.0.0.1:8000/v1"
connect_timeout = 2
[providers.dashscope]
[providers.deepseek]
[routes."deepseek-chat"]
targets = [ {provider = "deepseek", weight = 90}, {provider = "openai", model = "gpt-6-luna", weight = 10} ]
fallback = [ {provider = "dashscope", model = "qwen-max"} ]
[upstream]
proxy = "env:HTTPS_PROXY"
no_proxy = "127.0.0.1,.internal"
ca_file = "/etc/ssl/corp.pem"
[limits]
rpm = 600
[consumers.ci]
key = "env:CI_KEY"
tags = {team = "build"}
[prices."dashscope/qwen-max"]
input = 2.4
output = 9.6
currency = "CNY"
[storage]
url = "sqlite:"
counters = "memory"
"""


def test_the_example_of_the_documentation() -> None:
    """All tables arrive with their values, whole numbers where seconds are asked for too."""
    config = parse(EXAMPLE)
    assert (config.server.port, config.admin.port, config.limits.rpm) == (8080, 8081, 600)
    assert config.providers["openai"].keys == ("env:OPENAI_API_KEY", "file:~/.keys/openai-2", "sk-literal")
    assert config.providers["local"].connect_timeout == 2
    assert [(target.provider, target.weight) for target in config.routes["deepseek-chat"].targets] == [
        ("deepseek", 90),
        ("openai", 10),
    ]
    assert config.consumers["ci"].tags == {"team": "build"}
    assert (config.prices["dashscope/qwen-max"].output, config.prices["dashscope/qwen-max"].currency) == (9.6, "CNY")


def test_an_empty_text_is_all_defaults() -> None:
    """Nothing is required."""
    assert parse("") == parse("# nothing\n") == Config()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[server]\nprot = 1", 'config.toml:2: server.prot: unknown key; did you mean "port"?'),
        ("[sever]\nport = 1", 'config.toml:1: sever: unknown key; did you mean "server"?'),
        ("port = 1", "config.toml:1: port: unknown key; it belongs into [server] or [admin]"),
        ('[providers.a]\napi_key = "sk-x"', 'config.toml:2: providers.a.api_key: unknown key; did you mean "keys"?'),
        ('[providers.a]\nurl = "x"', 'config.toml:2: providers.a.url: unknown key; did you mean "base_url"?'),
        (
            "[limits]\nfoo = 1",
            (
                "config.toml:2: limits.foo: unknown key; expected one of rpm, tpm, concurrency, max_output, budgets, tz, hard, "
                "unpriced, on_budget, priority, queue"
            ),
        ),
        ('[server]\nport = "80"', "config.toml:2: server.port: expected a whole number, got a string"),
        ("[server]\nport = 80.0", "config.toml:2: server.port: expected a whole number, got a number"),
        ("[server]\nport = true", "config.toml:2: server.port: expected a whole number, got true"),
        ("[server]\ntimeout = false", "config.toml:2: server.timeout: expected a number, got false"),
        ("[server]\nhost = 1979-05-27", "config.toml:2: server.host: expected a string, got a date or time"),
        ("[auth]\nrequired = 1", "config.toml:2: auth.required: expected true or false, got a whole number"),
        ("server = 1", "config.toml:1: server: expected a table, got a whole number"),
        ("[[server]]", "config.toml:1: server: expected a table, got a list"),
        ("providers = []", "config.toml:1: providers: expected a table, got a list"),
        ('[providers.a]\nkeys = "env:A"', "config.toml:2: providers.a.keys: expected a list of strings, got a string"),
        ('[providers.a]\nkeys = [\n"env:A",\n5]', "config.toml:4: providers.a.keys[1]: expected a string, got a whole number"),
        ("[routes.a]", "config.toml:1: routes.a: has no targets; expected targets = a list of tables"),
        ('[routes.a]\ntargets = ["openai"]', "config.toml:2: routes.a.targets[0]: expected a table, got a string"),
        ("[consumers.a]", "config.toml:1: consumers.a: has no key; expected key = a string"),
        ('[log]\nformat = "loud"', 'config.toml:2: log.format: expected one of "text", "json", got a string'),
        ("[log]\nformat = []", 'config.toml:2: log.format: expected one of "text", "json", got a list'),
        (
            '[auth]\n"a\\u001b[2J" = 1',
            'config.toml:2: auth."a\\x1b[2J": unknown key; expected one of required, failures_per_minute, jwt',
        ),
    ],
)
def test_one_mistake(text: str, expected: str) -> None:
    """Unknown keys and wrong types: line, key, what was expected, what was probably meant; never the value."""
    assert complaints(text) == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a]\n[b]\n[a]", "config.toml:3: a: is written twice (first in line 1); expected once"),
        ("[server]\nport = 1\n\nport = 2", "config.toml:4: server.port: is written twice (first in line 2); expected once"),
        (
            '[routes.x]\ntargets = []\n[routes."x"]',
            "config.toml:3: routes.x: is written twice (first in line 1); expected once",
        ),
        ("a = yes", "config.toml:1: not TOML, column 5: invalid value; strings need quotes, true and false are lower-case"),
        ("[a]\nb = [1,\n2", "config.toml:3: not TOML: unclosed array; the file ends too early"),
        ("a = 1\n\x00", "config.toml:2: not TOML, column 1: invalid statement"),
        ("a = " + "[" * 100_000, "config.toml: arrays or tables are nested too deeply"),
    ],
)
def test_what_is_not_toml(text: str, expected: str) -> None:
    """Line and column, and both lines of what stands twice."""
    assert complaints(text) == [expected]


def test_all_mistakes_at_once_in_the_order_of_the_file() -> None:
    """One run of `serve` shows them all; one mistake does not hide or cause another."""
    assert complaints(
        """
        [server]
        prot = 1
        port = "x"
        workers = 300
        [providers.openai]
        keys = [1]
        timeout = -1
        [routes."re:("]
        targets = [
          {provider = "opnai"},
          {provider = "openai", weight = -1},
        ]
        """
    ) == [
        'config.toml:3: server.prot: unknown key; did you mean "port"?',
        "config.toml:4: server.port: expected a whole number, got a string",
        'config.toml:5: server.workers: expected 1 to 64, or "auto" (one for each processor)',
        "config.toml:7: providers.openai.keys[0]: expected a string, got a whole number",
        "config.toml:8: providers.openai.timeout: expected a number of seconds above 0",
        'config.toml:9: routes."re:(": not a regular expression: missing ), unterminated subpattern at position 0',
        'config.toml:11: routes."re:(".targets[0].provider: no provider "opnai" is configured; did you mean "openai"?',
        'config.toml:12: routes."re:(".targets[1].weight: expected 0 or more',
    ]


def test_a_flood_of_mistakes_is_cut() -> None:
    """Fifty lines are enough for one reading."""
    with pytest.raises(ConfigErrors) as caught:
        parse("\n".join(f"k{number} = 1" for number in range(200)))
    assert len(caught.value.problems) == 200
    assert str(caught.value).split("\n")[50:] == ["and 150 more problems"]


@settings(max_examples=100, deadline=None)
@given(st.text("[]{}=.\"'#\n\\ab1, ", max_size=60))
def test_any_text_is_a_config_or_a_complaint(text: str) -> None:
    """No other exception, ever."""
    try:
        parse(text)
    except ConfigError as error:
        assert str(error)  # noqa: PT017 - either way is right


def test_no_value_is_ever_repeated() -> None:
    """A secret in a wrong place does not reach the terminal or a log."""
    for text in (
        'keys = "S3CR3T"',
        'providers = "S3CR3T"',
        '[providers]\nopenai = "S3CR3T"',
        '[providers.a]\nkeys = "S3CR3T"',
        '[providers.a]\nbase_url = "https://u:S3CR3T@h/v1"',
        '[providers.a]\nproxy = "socks5://u:S3CR3T@h"',
        '[providers.a]\nkeys = ["S3CR3T", "S3CR3T"]',
        '[providers.a]\nheaders = {authorization = "S3CR3T\\n"}',
        '[consumers.a]\nkey = "sha256:S3CR3T"',
        '[consumers.a]\nkey = "S3CR3T"\n[consumers.b]\nkey = "S3CR3T"',
        "[providers.a]\nkeys = [S3CR3T]",
        '[storage]\nurl = "redis://:S3CR3T@h"',
        '[storage]\ncounters = "memcached://:S3CR3T@h"',
        '[log]\nlevel = "S3CR3T"',
    ):
        assert "S3CR3T" not in "\n".join(complaints(text))


def test_a_missing_file(tmp_path: Path) -> None:
    """At the default place that means defaults; one that was named is an error."""
    default = load.default_config_path()
    assert not default.exists()
    assert load.load(default) == Config()
    assert load.load_with_notes(default).exists is False
    with pytest.raises(ConfigError, match=r"/no\.toml: no such file"):
        load.load(tmp_path / "no.toml")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'[server]\nhost = "\xff"', ":2: is not UTF-8 text; save it as UTF-8"),
        ("[server]".encode("utf-16"), ": is UTF-16 text; save it as UTF-8"),
        (b"#" * 10_000_000, ": is larger than 4 MB; is this the config file?"),
    ],
)
def test_files_that_are_no_text(tmp_path: Path, content: bytes, expected: str) -> None:
    """Another encoding, the wrong file."""
    path = written(tmp_path, content)
    with pytest.raises(ConfigErrors) as caught:
        load.load(path)
    assert str(caught.value) == f"{path}{expected}"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A directory, a loop of links, a name with a NUL: complaints, no tracebacks."""
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path, expected in (
        (tmp_path, "is a directory; expected a TOML file"),
        (loop, "cannot be read: Too many levels of symbolic links"),
        (Path("a\0b"), "cannot be read: embedded null byte"),
        (written(tmp_path, b"") / "below", "cannot be read: Not a directory"),
    ):
        with pytest.raises(ConfigErrors) as caught:
            load.load(path)
        assert caught.value.message == expected


def test_a_file_without_permission(tmp_path: Path) -> None:
    """Unreadable is said as such."""
    path = written(tmp_path, b"", 0o000)
    user = os.geteuid()
    os.seteuid(user or 65534)  # root may read everything; nobody may not
    try:
        with pytest.raises(ConfigErrors, match="cannot be read: Permission denied"):
            load.load(path)
    finally:
        os.seteuid(user)


def test_marks_and_line_ends_of_other_systems(tmp_path: Path) -> None:
    """A byte order mark and CRLF are fine, and lines count the same."""
    assert load.load(written(tmp_path, b"\xef\xbb\xbf[server]\r\nport = 1\r\n")).server.port == 1
    with pytest.raises(ConfigErrors, match=r"config\.toml:3: server\.prot"):
        load.load(written(tmp_path, b"\xef\xbb\xbf[server]\r\n\r\nprot = 1\r\n"))


def test_a_config_from_a_pipe() -> None:
    """`--config <(generate)` works."""
    reading, writing = os.pipe()
    os.write(writing, b"[server]\nport = 7\n")
    os.close(writing)
    try:
        assert load.load(Path(f"/dev/fd/{reading}")).server.port == 7
    finally:
        os.close(reading)


def test_who_may_read_the_file(tmp_path: Path) -> None:
    """Literal secrets in a file that others can read are a warning, and so is a file that others can change."""
    literal = (
        b'[providers.a]\nkeys = ["env:A", "sk-literal"]\n[upstream]\nproxy = "http://u:p@h:1"\n[consumers.c]\nkey = "sk-c"\n'
    )
    reference = b'[providers.a]\nkeys = ["env:A"]\n[consumers.c]\nkey = "sha256:' + b"a" * 64 + b'"\n'
    path = written(tmp_path, literal, 0o644)
    (warning,) = load.load_with_notes(path).warnings
    places = "providers.a.keys, consumers.c.key, upstream.proxy"
    assert warning == f"{path}: others may read the secrets in this file (mode 0644): {places}; run: chmod 600 {path}"
    assert load.load_with_notes(written(tmp_path, literal)).warnings == ()
    assert load.load_with_notes(written(tmp_path, reference, 0o644)).warnings == ()
    assert load.load_with_notes(written(tmp_path, reference, 0o666)).warnings == (
        f"{path}: others may change this file (mode 0666); run: chmod 600 {path}",
    )


def test_the_hash_names_a_config_and_tells_no_secret() -> None:
    """Same values, same hash, whatever the spelling and the secrets; another value or order, another hash."""
    one = parse('[providers.a]\nkeys = ["sk-1"]\n[providers.b]\n')
    assert load.config_hash(one) == load.config_hash(parse('providers = {a = {keys = ["sk-2"]}, b = {}} # same'))
    others = [
        parse(""),
        parse("[providers.b]\n[providers.a]\nkeys = ['sk-1']\n"),
        parse('[providers.a]\nkeys = ["env:A"]\n[providers.b]\n'),
        parse('[providers.a]\nkeys = ["sk-1", "sk-2"]\n[providers.b]\n'),
        parse('[providers.a]\nkeys = ["sk-1"]\n[providers.b]\n[server]\nport = 1'),
    ]
    assert len({load.config_hash(config) for config in [one, *others]}) == 6
    assert len(load.config_hash(one)) == 12


def test_what_may_be_shown_holds_no_secret() -> None:
    """Literal keys, header values, passwords in addresses and secret settings are masked; references stay."""
    shown = str(
        load.public(
            parse(
                """
                [providers.a]
                keys = ["S3CR3T", "env:A"]
                headers = {authorization = "S3CR3T"}
                settings = {api_secret = "S3CR3T", region = "eu"}
                proxy = "http://u:S3CR3T@h:1"
                [upstream]
                proxy = "http://u:S3CR3T@h:1"
                [consumers.c]
                key = "S3CR3T"
                """
            )
        )
    )
    assert "S3CR3T" not in shown
    assert all(word in shown for word in ("env:A", "authorization", "'region': 'eu'", "http://***@h:1"))


def test_reading_a_config_is_quick() -> None:
    """Importing the loader pulls in neither asyncio nor anything that serves or prints."""
    script = "import sys, aigw.config.load; print(sorted({'asyncio', 'aiohttp', 'typer', 'rich', 'ssl'} & set(sys.modules)))"
    from sys import executable

    assert subprocess.run([executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"
