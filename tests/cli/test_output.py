from __future__ import annotations

import io
import json
import sys
import unicodedata

import pytest
from hypothesis import given, strategies as st

from aigw.cli import output
from aigw.cli.output import Column


@given(st.text(alphabet=st.characters()))
def test_safe_has_no_power_over_a_terminal(text: str) -> None:
    """What is shown holds no control, direction-changing, invisible or unpaired character, whatever was stored; harmless
    text is shown as it is."""
    shown = output.safe(text)
    assert shown.isprintable()
    assert not any(unicodedata.category(one) in ("Cc", "Cf", "Cs", "Zl", "Zp") for one in shown)
    if text.isprintable():
        assert shown == text


def test_safe_examples() -> None:
    """Escapes are readable."""
    assert output.safe("a\x1b[2Jb\nc\u202ed\x9be") == "a\\x1b[2Jb\\nc\\u202ed\\x9be"
    assert output.safe("张伟 café") == "张伟 café"


@given(st.text(alphabet=st.characters(exclude_categories=("Cs",))))
def test_json_comes_back(text: str) -> None:
    """JSON says exactly what was stored, without any character that a terminal would obey."""
    written: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.stdout, "write", written.append)
        output.json({"name": text})
    assert json.loads("".join(written)) == {"name": text}
    assert not any((unicodedata.category(one) == "Cc" and one != "\n") or one in "\u202e\u2066" for one in "".join(written))


def test_csv(capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers stay numbers, None is empty, and no cell is a formula or a second line."""
    output.csv(["name", "n", "cost"], [['a,"b"', 1, None], ["=HYPERLINK(1)", -2, 0.5], ["-1+1", 0, ""], ["a\nb\x1b", 3, "@x"]])
    assert capsys.readouterr().out == (
        "name,n,cost\n"
        '"a,""b""",1,\n'
        "'=HYPERLINK(1),-2,0.5\n"
        "'-1+1,0,\n"
        "a\\nb\\x1b,3,'@x\n"
    )  # fmt: skip


def test_plain_table(capsys: pytest.CaptureFixture[str]) -> None:
    """In a pipe a table is aligned text, wide characters counted as two, long names shortened, no trailing blanks."""
    rows = [["alice", "1,234", "x"], ["张伟", "7", ""], ["m" * 100, "0", "\x1b[31m"]]
    output.table([Column("name"), Column("n", right=True), Column("note")], rows, ["total", "1,241", ""])
    out = capsys.readouterr().out
    wide = 60
    assert out == (
        f"{'name':<{wide}}      n  note\n"
        f"{'alice':<{wide}}  1,234  x\n"
        f"张伟{' ' * (wide - 4)}      7\n"
        f"{'m' * 59}…      0  \\x1b[31m\n"
        f"{'total':<{wide}}  1,241\n"
    )


def test_talk_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """Notes, warnings and errors are talk: on stderr, escaped, lines kept."""
    output.note("one\ntwo\x1b")
    output.warn("three")
    output.fail("four")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "one\ntwo\\x1b\nwarning: three\nerror: four\n"


@pytest.mark.parametrize(("text", "columns"), [("abc", 3), ("张伟", 4), ("e\u0301", 1), ("", 0)])
def test_width(text: str, columns: int) -> None:
    """Width is what the terminal uses, not the number of characters."""
    assert output.width(text) == columns


@pytest.mark.parametrize(
    ("text", "room", "lines"),
    [
        ("", 10, [""]),
        ("one two three", 7, ["one two", "three"]),
        ("unbreakable is longer", 5, ["unbreakable", "is", "longer"]),
        ("模型 名称 abc", 8, ["模型", "名称 abc"]),
    ],
)
def test_lines_end_between_words(text: str, room: int, lines: list[str]) -> None:
    """Counted in columns."""
    assert output.wrapped(text, room) == lines


def test_a_typed_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without its newline; the end of input is not an empty answer."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(" yes \nlast"))
    assert [output.line("Well? "), output.line("And? ")] == ["yes", "last"]
    with pytest.raises(EOFError):
        output.line("Still? ")
    assert capsys.readouterr().err == "Well? And? \nStill? \n"


def test_work_that_takes_time(capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing can be drawn, a line says what is done."""
    with output.working("asking \x1b[2J"):
        pass
    assert capsys.readouterr().err == "asking \\x1b[2J\n"


@given(st.text(alphabet=st.characters()))
def test_readable_text_keeps_its_lines_and_has_no_power(text: str) -> None:
    """Newlines and tabs stay, as does what joins letters; nothing moves the cursor, turns the text or cannot be written."""
    shown = output.readable(text)
    assert not any(unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") and one not in "\n\t" for one in shown)
    assert not any(one in "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u061c" for one in shown)
    shown.encode()


def test_readable_examples() -> None:
    """Emoji of several parts, Persian and new characters are shown as they are; a carriage return writes over nothing."""
    assert output.readable("a\x1b[2J\r\n\tb\x9b") == "a\\x1b[2J\n\tb\\x9b"
    for harmless in ("👩‍👩‍👧", "می‌خواهم", "e\u0301", "\U0001fae9"):
        assert output.readable(harmless) == harmless


def test_parts_and_asides(capsys: pytest.CaptureFixture[str]) -> None:
    """A part has no line break of ours; an aside is talk. Without a terminal neither has colour, and nothing waits."""
    output.waiting("thinking")
    output.part("a\x1b")
    output.part("b\n")
    output.waiting("")
    output.aside("c\x1b")
    assert capsys.readouterr() == ("a\\x1bb\n", "c\\x1b\n")


def test_typed_without_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With stdout elsewhere the prompt is talk; the end of input is an EOFError, not an empty line."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\n\nlast"))
    assert [output.typed("> ") for _ in range(3)] == ["one", "", "last"]
    with pytest.raises(EOFError):
        output.typed("> ")
    assert capsys.readouterr() == ("", "> > > > ")
