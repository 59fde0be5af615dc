"""Questions on a terminal that can draw: questionary's lines, and lists that can be searched. All on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import questionary
from prompt_toolkit.input import create_input
from prompt_toolkit.input.typeahead import clear_typeahead
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent, merge_key_bindings
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.styles import Style
from questionary import Question

from aigw.cli import output
from aigw.cli.language import say
from aigw.cli.wizard.choices import Choice
from aigw.cli.wizard.picker import Picker
from aigw.cli.wizard.prompts import Complaint, fine
from aigw.cli.wizard.waiting import until_skipped

T = TypeVar("T")

STYLE = Style(
    [
        ("qmark", "fg:ansicyan"),
        ("question", "bold"),
        ("answer", "fg:ansigreen"),
        ("pointer", "fg:ansicyan bold"),
        ("highlighted", "fg:ansicyan bold"),
        ("instruction", "fg:ansibrightblack"),
        ("search", "bold"),
        ("error", "fg:ansired"),
        ("validation-toolbar", "noreverse fg:ansired bg:default"),
    ]
)


class DrawnPrompts:
    """Implements `Prompts`."""

    def __init__(self) -> None:
        self._input = create_input(sys.stdin)
        self._output = Vt100_Output.from_pty(sys.stderr)
        self._output.enable_cpr = False  # nothing needs to know where the cursor is, and some terminals never say

    def pick(self, question: str, choices: Sequence[Choice], *, at: str | None = None, free: bool = False) -> str:
        return self._run(Picker(question, choices, free=free, at=at))[0]

    def pick_many(self, question: str, choices: Sequence[Choice]) -> list[str]:
        return self._run(Picker(question, choices, many=True))

    def _run(self, picker: Picker) -> list[str]:
        return picker.run(input=self._input, output=self._output, style=STYLE)

    def text(self, question: str, default: str = "", complaint: Complaint = fine) -> str:
        asked = questionary.text(
            question,
            default=default,
            validate=_validator(lambda text: complaint(text.strip())),
            style=STYLE,
            qmark="?",
            input=self._input,
            output=self._output,
        )
        return str(_ended_by_ctrl_d(asked).unsafe_ask()).strip()

    def secret(self, question: str, complaint: Complaint = fine) -> str:
        asked = questionary.password(
            question,
            validate=_validator(complaint),
            style=STYLE,
            qmark="?",
            input=self._input,
            output=self._output,
            erase_when_done=True,  # hundreds of asterisks say nothing
        )
        answer = str(_ended_by_ctrl_d(asked).unsafe_ask())
        clear_typeahead(self._input)  # what a paste had behind its first line must not answer the next question
        return answer

    def confirm(self, question: str, *, default: bool) -> bool:
        asked = questionary.confirm(
            question,
            default=default,
            style=STYLE,
            qmark="?",
            auto_enter=False,
            instruction="(Y/n) " if default else "(y/N) ",
            input=self._input,
            output=self._output,
        )
        return bool(_ended_by_ctrl_d(asked).unsafe_ask())

    def waiting(self, text: str, work: Callable[[], T]) -> T | None:
        with output.working(f"{text} {say('(Esc skips)', '（按 Esc 跳过）')}"):
            return until_skipped(work)


def _validator(complaint: Complaint) -> Callable[[str], bool | str]:
    return lambda text: complaint(text) or True


def _ended_by_ctrl_d(question: Question) -> Question:
    """The same question; Ctrl-D ends it whatever was typed."""
    keys = KeyBindings()

    @keys.add("c-d", eager=True)
    def _(event: KeyPressEvent) -> None:
        event.app.exit(exception=EOFError())

    known = question.application.key_bindings
    question.application.key_bindings = merge_key_bindings([known, keys] if known is not None else [keys])
    return question
