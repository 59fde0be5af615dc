"""The config loader: any text is a config, or complaints that say where; never a traceback, a hang or a secret."""

from __future__ import annotations

from typing import Any

from aigw.config import load
from aigw.config.schema import Config
from tests.fuzz.inputs import fuzzed

WORDS = [
    b"[server]",
    b"[providers.x]",
    b'kind = "vllm"',
    b'base_url = "http://h/v1"',
    b'keys = ["sk-planted-0123"]',
    b"[[",
    b"]]",
]
WORDS += [
    b"[routes.r]",
    b'targets = [{provider = "x"}]',
    b"fallback = []",
    b'"re:^a+$"',
    b'"re:(((((a+)+)+)+)+$"',
    b'"*"',
    b"= ",
]
WORDS += [
    b'"""',
    b"'''",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b"#",
    b"\n",
    b"\r\n",
    b".",
    b"inf",
    b"nan",
    b"-1",
    b"1e400",
    b"99999999999999999999",
]
WORDS += [
    b"1979-05-27T07:32:00Z",
    b"true",
    b"\xef\xbb\xbf",
    b"\xff",
    b"\\u0000",
    b"[prices.'a/*']",
    b"input = 1",
    b"[limits]",
    b"rpm = 0",
]
WORDS += [
    b"[consumers.c]",
    b'key = "sk-planted-4567"',
    b'proxy = "http://u:planted-pw@h:1"',
    b"port = 70000",
    b"[storage]",
    b'url = "x"',
]


def planted(value: Any) -> bool:
    return "planted" in str(value)


@fuzzed("config", WORDS, 300)
def test_config(data: bytes) -> None:
    """Each complaint has its line, or there is nothing it could point at; a secret is in none, and in no public form."""
    try:
        text = load.decode(data, "config.toml")
        tables = load.tables(text, "config.toml")
    except load.ConfigErrors as error:
        for problem in error.problems:
            assert problem.line is None or 1 <= problem.line <= data.count(b"\n") + 1
            assert problem.message.isprintable()
            assert "planted" not in str(problem) or planted(problem.key)
        return
    try:
        config = load.parse(text)
    except load.ConfigErrors as error:
        for problem in error.problems:
            assert problem.line is not None, problem
            assert 1 <= problem.line <= text.count("\n") + 1
            assert str(problem).isprintable(), problem
        said = str(error)
        for name in ("providers", "consumers"):
            for table in tables[name].values() if isinstance(tables.get(name), dict) else ():
                for field in ("keys", "key") if isinstance(table, dict) else ():
                    entries = table.get(field) if isinstance(table.get(field), list) else [table.get(field)]
                    for entry in entries:
                        assert not (isinstance(entry, str) and entry.startswith("sk-planted-")) or entry not in said
        return
    assert isinstance(config, Config)
    shown = load.public(config)
    assert not any(planted(provider["keys"]) for provider in shown["providers"].values())
    assert not planted(shown["upstream"]["proxy"])
    assert len(load.config_hash(config)) == 12
