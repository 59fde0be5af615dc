"""Questions line by line, for terminals that cannot draw (TERM=dumb) and for people who read with their ears."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from aigw.cli import output
from aigw.cli.language import say
from aigw.cli.wizard.choices import Choice, matching
from aigw.cli.wizard.prompts import Complaint, fine
from aigw.cli.wizard.waiting import until_skipped

T = TypeVar("T")

_FEW = 12
"""Choices that are shown at once; longer lists are shown when asked for."""


class TypedPrompts:
    """Implements `Prompts`."""

    def pick(self, question: str, choices: Sequence[Choice], *, at: str | None = None, free: bool = False) -> str:
        first = next((choice for choice in choices if choice.value == at), choices[0])
        return self._chosen(question, choices, first, free=free, many=False)[0]

    def pick_many(self, question: str, choices: Sequence[Choice]) -> list[str]:
        return self._chosen(question, choices, choices[0], free=False, many=True)

    def _chosen(self, question: str, choices: Sequence[Choice], first: Choice, *, free: bool, many: bool) -> list[str]:
        output.note(question)
        if len(choices) <= _FEW:
            _show(choices)
        else:
            _show(choices[:5])
            output.note(say(f"  ... {len(choices)} in all; ? shows them", f"  ... 共 {len(choices)} 项；输入 ? 全部列出"))
        names = (
            say("numbers or names, commas between", "编号或名称，用逗号分隔") if many else say("number or name", "编号或名称")
        )
        while True:
            typed = output.line(f"{names} [{first.title}]: ")
            if typed == "?":
                _show(choices)
                continue
            if not typed:
                return [first.value]
            parts = [part.strip() for part in typed.replace("，", ",").split(",") if part.strip()] if many else [typed]
            found = [_one(choices, part, free=free) for part in parts]
            if found and None not in found:
                return list(dict.fromkeys(str(value) for value in found))
            for part in (part for part, value in zip(parts, found, strict=True) if value is None):
                near = matching(choices, part)[:5]
                output.note(say(f"'{part}' is not one of them.", f"没有“{part}”。"))
                if near:
                    output.note(say("Which one?", "是其中哪一个？"))
                    _show(near, choices)

    def text(self, question: str, default: str = "", complaint: Complaint = fine) -> str:
        while True:
            typed = output.line(f"{question}{f' [{default}]' if default else ''}: ") or default
            wrong = complaint(typed)
            if not wrong:
                return typed
            output.note(wrong)

    def secret(self, question: str, complaint: Complaint = fine) -> str:
        while True:
            typed = getpass.getpass(f"{question}: ", stream=sys.stderr)
            wrong = complaint(typed)
            if not wrong:
                return typed
            output.note(wrong)

    def confirm(self, question: str, *, default: bool) -> bool:
        while True:
            typed = output.line(f"{question} [{'Y/n' if default else 'y/N'}] ").lower()
            if not typed or typed in ("y", "yes", "n", "no", "是", "否"):
                return default if not typed else typed in ("y", "yes", "是")

    def waiting(self, text: str, work: Callable[[], T]) -> T | None:
        with output.working(f"{text} {say('(Ctrl-C skips)', '（按 Ctrl-C 跳过）')}"):
            return until_skipped(work)


def _show(some: Sequence[Choice], everything: Sequence[Choice] | None = None) -> None:
    numbers = {choice.value: number for number, choice in enumerate(everything or some, 1)}
    for choice in some:
        note = f"  ({choice.note})" if choice.note else ""
        output.note(f"  {numbers[choice.value]:>3}  {choice.title}{note}")


def _one(choices: Sequence[Choice], typed: str, *, free: bool) -> str | None:
    """The value that was meant: a number of the list, an exact name, or the only choice that fits."""
    if typed.isascii() and typed.isdigit() and 1 <= int(typed) <= len(choices):
        return choices[int(typed) - 1].value
    exact = [choice for choice in choices if typed.casefold() in (choice.value.casefold(), choice.title.casefold())]
    found = exact or ([] if free else matching(choices, typed))
    if len(found) == 1:
        return found[0].value
    return typed if free else None
