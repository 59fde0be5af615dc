from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from aigw.cli import output, screen
from aigw.cli.screen import BOLD, RED, Screen, Span, crop, pad, plain
from tests.terminal import Terminal


class Pipe(io.StringIO):
    """A terminal that only remembers."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Pipe:
    pipe = Pipe()
    for module in (output, screen):  # pytest puts its own into `sys` again and again
        monkeypatch.setattr(module, "sys", SimpleNamespace(stdout=pipe, stdin=io.StringIO()))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("LANG", "C.UTF-8")
    monkeypatch.delenv("LC_ALL", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    return pipe


def taken(pipe: Pipe) -> str:
    """What was sent since the last time."""
    text = pipe.getvalue()
    pipe.seek(0)
    pipe.truncate()
    return text


def test_only_what_changed_is_sent(sent: Pipe) -> None:
    """A line that is the same costs nothing; one that is shorter leaves nothing of itself behind."""
    terminal = Terminal(20, 4)
    with Screen() as shown:
        shown.draw([[Span("one"), Span(" two", RED)], [Span("a long line")], [Span("last")]], 20, 4)
        terminal.feed(taken(sent))
        assert terminal.lines == ["one two", "a long line", "last", ""]
        assert shown.draw([[Span("one"), Span(" two", RED)], [Span("short")]], 20, 4) < 30
        text = taken(sent)
        assert "one" not in text
        terminal.feed(text)
        assert terminal.lines == ["one two", "short", "", ""]
        assert shown.draw([[Span("one"), Span(" two", RED)], [Span("short")]], 20, 4) == 0


def test_it_is_left_as_it_was_found(sent: Pipe) -> None:
    """The other screen, the cursor and wrapping: given back also when something fails, and twice does no harm."""
    terminal = Terminal()

    def fail() -> None:
        with Screen() as shown:
            terminal.feed(taken(sent))
            assert terminal.modes == {"1049"}
            shown.leave()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    terminal.feed(taken(sent))
    assert terminal.modes == {"7", "25"}


def test_a_resize_draws_everything_again(sent: Pipe) -> None:
    """Whatever the terminal made of the old lines."""
    with Screen() as shown:
        shown.draw([[Span("x" * 30)]], 30, 3)
        taken(sent)
        shown.draw([[Span("x" * 30)]], 10, 2)
        terminal = Terminal(10, 2)
        terminal.feed(taken(sent))
        assert terminal.lines == ["xxxxxxxxx…", ""]
        assert terminal.strange == []


def test_a_full_line_keeps_its_last_character(sent: Pipe) -> None:
    """Erasing the rest of a full line would take it: the cursor still stands on it."""
    terminal = Terminal(10, 2)
    with Screen() as shown:
        shown.draw([[Span("0123456789")], [Span("中文中文中", BOLD)]], 10, 2)
    terminal.feed(taken(sent))
    assert terminal.lines == ["0123456789", "中文中文中"]


def test_no_colour(sent: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR: the same text, no style at all."""
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal(20, 1)
    with Screen() as shown:
        shown.draw([[Span("red", RED), Span(" bold", BOLD)]], 20, 1)
        terminal.feed(taken(sent))
    assert terminal.lines == ["red bold"]
    assert terminal.styles == set()


def test_text_in_so_many_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wide characters count twice; what is missing is marked, in ASCII where the locale wants it."""
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    assert (crop("abcdef", 6), crop("abcdef", 4), crop("中文字", 5), crop("abc", 0)) == ("abcdef", "abc…", "中文…", "")
    assert (pad("ab", 4), pad("ab", 4, right=True), pad("中文字", 5)) == ("ab  ", "  ab", "中文…")
    monkeypatch.setenv("LC_ALL", "C")
    assert crop("abcdef", 4) == "abc~"
    assert plain([Span("a", RED), Span(" b  ")]) == "a b"
