"""Questions line by line."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import pytest

from aigw.cli.wizard.choices import Choice
from aigw.cli.wizard.typed import TypedPrompts

Types = Callable[..., TypedPrompts]
CHOICES = [Choice(f"p{number}", f"Provider {number}") for number in range(1, 21)]
FEW = CHOICES[:3]


@pytest.fixture
def types(monkeypatch: pytest.MonkeyPatch) -> Types:
    def lines(*answers: str) -> TypedPrompts:
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{answer}\n" for answer in answers)))
        return TypedPrompts()

    return lines


@pytest.mark.parametrize(
    ("answers", "value"),
    [([""], "p1"), (["2"], "p2"), (["p3"], "p3"), (["PROVIDER 2"], "p2"), (["9", "nobody", "p2"], "p2"), ([" 3 "], "p3")],
)
def test_one_of_a_list(types: Types, answers: list[str], value: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By number or name; what is neither is asked again."""
    assert types(*answers).pick("Which?", FEW) == value
    assert "  2  Provider 2" in capsys.readouterr().err


def test_several_of_a_list(types: Types) -> None:
    """With commas between, Chinese ones too."""
    assert types("p2, 20，p3,p2").pick_many("Which?", CHOICES) == ["p2", "p20", "p3"]


def test_a_long_list_is_shown_when_asked_for(types: Types, capsys: pytest.CaptureFixture[str]) -> None:
    """Not before."""
    assert types("?", "p7").pick("Which?", CHOICES) == "p7"
    before, _, after = capsys.readouterr().err.partition("number or name")
    assert "Provider 20" not in before
    assert "20 in all" in before
    assert "Provider 20" in after


def test_a_word_that_fits_several_shows_them(types: Types, capsys: pytest.CaptureFixture[str]) -> None:
    """With the numbers of the whole list, one of which is the answer then."""
    assert types("provider 1", "provider", "12").pick("Which?", CHOICES) == "p1"
    assert types("provider", "12").pick("Which?", CHOICES) == "p12"
    assert "Which one?" in capsys.readouterr().err


def test_a_text_of_ones_own(types: Types) -> None:
    """Where it may be."""
    assert types("gpt-7").pick("Which?", FEW, free=True, at="p2") == "gpt-7"
    assert types("").pick("Which?", FEW, free=True, at="p2") == "p2"


def test_text(types: Types, capsys: pytest.CaptureFixture[str]) -> None:
    """A bare Enter is the default; a complaint is said, and it is asked again."""
    assert types("").text("Port", "8080") == "8080"
    assert types("x", "9").text("Port", "8080", lambda text: "" if text.isdigit() else "a number") == "9"
    assert "a number" in capsys.readouterr().err


@pytest.mark.parametrize(("answers", "meant"), [(["y"], True), (["N"], False), ([""], True), (["what", "no"], False)])
def test_confirm(types: Types, answers: list[str], meant: bool) -> None:
    """Yes, no, or the default; anything else is asked again."""
    assert types(*answers).confirm("Sure?", default=True) is meant


def test_the_end_of_input(types: Types) -> None:
    """Is the end of the questions."""
    with pytest.raises(EOFError):
        types().text("Port")


def test_waiting(types: Types) -> None:
    """A line instead of something that turns."""
    assert types().waiting("asking", lambda: 7) == 7
