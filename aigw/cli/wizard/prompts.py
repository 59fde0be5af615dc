"""How questions are asked: with lists and hidden input on a terminal that can draw, line by line on one that cannot.

Every question raises KeyboardInterrupt for Ctrl-C and EOFError for Ctrl-D (or the end of input); whoever asks has changed
nothing by then.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from aigw.cli import output
from aigw.cli.wizard.choices import Choice

T = TypeVar("T")
Complaint = Callable[[str], str]
"""What is wrong with an answer, for people; "" when nothing is."""


def fine(answer: str) -> str:
    return ""


class Prompts(Protocol):
    """Somebody who is asked."""

    def pick(self, question: str, choices: Sequence[Choice], *, at: str | None = None, free: bool = False) -> str:
        """The value of one choice; where *free*, or a text of one's own. *at* is what a bare Enter takes (else the first)."""
        ...

    def pick_many(self, question: str, choices: Sequence[Choice]) -> list[str]:
        """The values of one or more choices, in the order in which they were chosen. A bare Enter takes the first."""
        ...

    def text(self, question: str, default: str = "", complaint: Complaint = fine) -> str:
        """A line, without spaces around it; asked again while there is a *complaint*."""
        ...

    def secret(self, question: str, complaint: Complaint = fine) -> str:
        """A line that is not shown, as it was typed or pasted."""
        ...

    def confirm(self, question: str, *, default: bool) -> bool: ...

    def waiting(self, text: str, work: Callable[[], T]) -> T | None:
        """What *work* returns, with something that turns meanwhile; None when Ctrl-C or Esc stopped the waiting."""
        ...


def prompts() -> Prompts:
    """The kind that this terminal can take. Call it only where `output.interactive()`."""
    if output.drawn(sys.stderr):
        from aigw.cli.wizard.drawn import DrawnPrompts

        return DrawnPrompts()
    from aigw.cli.wizard.typed import TypedPrompts

    return TypedPrompts()
