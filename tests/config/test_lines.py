"""Where a key stands in a TOML text."""

from __future__ import annotations

import itertools
import json
import time
import tomllib
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from aigw.config.lines import Lines, Path, Repeated, dotted, quoted

KEYS = ["a", "b-1", "_", "with space", "dot.ted", "gpt-*", 'q"uote', "模型", "", "#no", "[x]", "a=b", "tab\t", "back\\slash"]
# what could be taken for structure: every number from 1000 on marks a place, so these hold smaller ones only
DISTRACTIONS = [
    '"# [x]"',
    "'a = 1'",
    '"""\n[table]\nkey = 1\n"""',
    "'''\n]\n}\n# '''",
    '"""a\\"""b\n"""""',
    "'''x'''''",
    '"\\"]"',
    "1979-05-27 07:32:00Z",
    "1_0.5e-3",
    "-inf",
    "true",
]


@st.composite
def documents(draw: st.DrawFn) -> str:
    """TOML with every kind of structure, in which each number from 1000 on stands once."""
    numbers = itertools.count(1000)
    pause = st.sampled_from(["", " ", "\t", "  "])
    gap = st.sampled_from(["", " ", "\n", " # ] } [x]\n", "\n\n\t"])

    def key(name: str) -> str:
        if name.isascii() and name.replace("-", "").replace("_", "x").isalnum() and draw(st.booleans()):
            return name
        literal = "'" not in name and name.isprintable() and draw(st.booleans())
        return f"'{name}'" if literal else json.dumps(name, ensure_ascii=draw(st.booleans()))

    def path(names: list[str]) -> str:
        return f"{draw(pause)}.{draw(pause)}".join(key(name) for name in names)

    def value(depth: int) -> str:
        kind = draw(st.sampled_from(["number", "number", "other", "list", "table"] if depth else ["number", "other"]))
        if kind == "number":
            return str(next(numbers))
        if kind == "other":
            return draw(st.sampled_from(DISTRACTIONS))
        if kind == "list":
            items = [f"{draw(gap)}{value(depth - 1)}{draw(gap)}" for _ in range(draw(st.integers(0, 3)))]
            return f"[{','.join(items)}{',' if items and draw(st.booleans()) else ''}{draw(gap)}]"
        return "{" + ",".join(f" {line}" for line in pairs(depth - 1)) + " }"

    def pairs(depth: int) -> list[str]:
        names = draw(st.lists(st.sampled_from(KEYS), max_size=3, unique=True))
        below = st.lists(st.sampled_from(KEYS), max_size=2)
        return [f"{path([name, *draw(below)])}{draw(pause)}={draw(pause)}{value(depth)}" for name in names]

    lines: list[str] = []
    tables = draw(st.lists(st.sampled_from(KEYS), max_size=4, unique=True))
    for name in ["", *tables]:
        heads = [""]
        if name:
            form = draw(st.sampled_from(["table", "below", "array"]))
            below = "" if form == "table" else "." + key("below")
            heads = [f"[[{key(name)}]]"] * draw(st.integers(1, 3)) if form == "array" else [f"[ {key(name)}{below} ]"]
        for head in heads:
            lines.append(draw(pause) + head + draw(st.sampled_from(["", " # [c] = {"])))
            # the root's keys are kept apart from the tables' names
            body = pairs(2) if head else [f"root.{line}" for line in pairs(2)]
            lines += [line + draw(st.sampled_from(["", "\t# x = 1", "\n"])) for line in body]
            if head.startswith("[[") and draw(st.booleans()):
                lines += [f"[{head.strip('[]')}.sub]", *[f"{line}" for line in pairs(1)]]
    return draw(st.sampled_from(["\n", "\r\n"])).join(lines)


def places(value: Any, path: Path = ()) -> list[tuple[Path, int]]:
    """Each number from 1000 on, with its path."""
    if isinstance(value, dict):
        return [found for key, entry in value.items() for found in places(entry, (*path, key))]
    if isinstance(value, list):
        return [found for index, entry in enumerate(value) for found in places(entry, (*path, index))]
    return [(path, value)] if type(value) is int and value >= 1000 else []


@settings(max_examples=200, deadline=None)
@given(documents())
def test_every_key_is_found_on_its_line(text: str) -> None:
    """In any TOML text, a key's line is the one its value begins on."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # two dotted keys that contradict each other: rare, see the next test
    lines = Lines(text)
    for path, number in places(data):
        line = lines.find(path)
        assert line is not None
        assert str(number) in text.split("\n")[line - 1], dotted(path)


def test_most_generated_texts_are_toml() -> None:
    """The test above tests something."""
    good: list[int] = []

    @settings(max_examples=60, deadline=None, database=None)
    @given(documents())
    def count(text: str) -> None:
        try:
            good.append(len(places(tomllib.loads(text))))
        except tomllib.TOMLDecodeError:
            good.append(-1)

    count()
    assert sum(number > 0 for number in good) > len(good) / 3


def test_a_text_of_all_kinds() -> None:
    """Headers, dotted keys, quoted keys, arrays over lines, arrays of tables, tables without a header."""
    lines = Lines(
        'a.b = 1\n[s]\nport = 1\n"p\\u006f" = """\n[x]\n"""\n[[t.u]]\nk = [\n 1, {z = [\n2]},\n]\n[t.u.v]\nw=1\n[[t.u]]\n'
    )
    expected: dict[Path, int] = {
        ("a",): 1, ("a", "b"): 1, ("s",): 2, ("s", "port"): 3, ("s", "po"): 4, ("t",): 7, ("t", "u"): 7, ("t", "u", 0): 7,
        ("t", "u", 0, "k"): 8, ("t", "u", 0, "k", 0): 9, ("t", "u", 0, "k", 1, "z"): 9, ("t", "u", 0, "k", 1, "z", 0): 10,
        ("t", "u", 0, "v"): 12, ("t", "u", 0, "v", "w"): 13, ("t", "u", 1): 14,
    }  # fmt: skip
    assert {path: lines.find(path) for path in expected} == expected


def test_a_key_that_is_not_there_has_its_tables_line() -> None:
    """A missing key is complained about where it should stand; in an empty text there is no line."""
    lines = Lines("\n[server]\nport = 1\n")
    assert lines.find(("server", "host")) == 2
    assert lines.find(("server", "port", "deeper")) == 3
    assert lines.find(("admin",)) is None
    assert Lines("").find(("a",)) is None


def test_a_header_beats_what_stood_below_it_before() -> None:
    """[a.b] before [a]: the table a is where its own header is."""
    assert Lines("[a.b]\nx = 1\n[a]\ny = 1\n").find(("a",)) == 3


def test_repeated_keys_and_tables() -> None:
    """What stands twice is known with both lines."""
    assert Lines("[a]\nx = 1\n[b]\n[a]\n").repeated == [Repeated(("a",), 4, 1)]
    assert Lines("[a]\nx = 1\n'x' = 2\n").repeated == [Repeated(("a", "x"), 3, 2)]
    assert Lines("[[a]]\nx = 1\n[[a]]\nx = 2\n").repeated == []


@pytest.mark.parametrize(
    "text", ["a = ", "[a", "= 1", "a = [1", 'a = "x', "a = {b", "\x00", "a = 1\nb ? 2", "a=" + "[" * 100_000]
)
def test_a_broken_text_is_no_trouble(text: str) -> None:
    """What came before the break is known, and nothing is raised."""
    assert Lines(f"ok = 1\n{text}").find(("ok",)) == 1


def test_a_large_text_is_read_in_time() -> None:
    """A megabyte costs seconds at most, also when it is one string or one comment."""
    start = time.perf_counter()
    table = "".join(f'[routes."r{number}"]\ntargets = [{{provider = "p"}}]\n' for number in range(10_000))
    assert Lines(table).find(("routes", "r9999", "targets", 0, "provider")) == 20_000
    assert Lines(f'a = """{"x" * 1_000_000}"""\n#{"y" * 1_000_000}\nb = 1').find(("b",)) == 3
    assert Lines(f"a = '''{chr(10) * 1_000_000}'''\nb = 1").find(("b",)) == 1_000_002
    assert time.perf_counter() - start < 10


def test_dotted_paths_read_as_toml() -> None:
    """Paths are shown as they would be written, unprintable characters escaped, long ones shortened."""
    assert dotted(("providers", "openai", "keys", 0)) == "providers.openai.keys[0]"
    assert dotted(("routes", "gpt-4.1", "targets", 1, "model")) == 'routes."gpt-4.1".targets[1].model'
    assert dotted(("a", "\x1b[2J\n", "")) == 'a."\\x1b[2J\\n".""'
    assert len(dotted(("x" * 10_000,))) < 100


@settings(max_examples=50)
@given(st.text())
def test_quoted_text_is_fit_to_print(text: str) -> None:
    """Whatever comes in, one printable line of bounded length comes out."""
    assert quoted(text).isprintable()
    assert len(quoted(text)) <= 80 * 10 + 2
