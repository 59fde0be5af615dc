from __future__ import annotations

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
