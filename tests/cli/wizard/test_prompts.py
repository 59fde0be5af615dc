"""Which kind of questions a terminal gets."""

from __future__ import annotations

import sys

import pytest

from aigw.cli.wizard.drawn import DrawnPrompts
from aigw.cli.wizard.prompts import fine, prompts
from aigw.cli.wizard.typed import TypedPrompts


class Terminal:
    """As much of a stream as is asked for."""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2


@pytest.mark.parametrize(("term", "kind"), [("dumb", TypedPrompts), ("", TypedPrompts), ("xterm", DrawnPrompts)])
def test_what_cannot_draw_gets_lines(monkeypatch: pytest.MonkeyPatch, term: str, kind: type) -> None:
    """TERM=dumb, and none at all."""
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(DrawnPrompts, "__init__", lambda _: None)
    assert type(prompts()) is kind


def test_most_answers_are_fine() -> None:
    """The usual complaint is none."""
    assert fine("anything") == ""
