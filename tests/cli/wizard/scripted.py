"""Somebody who answers the wizard's questions from a list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from aigw.cli.wizard.choices import Choice
from aigw.cli.wizard.prompts import Complaint, fine

T = TypeVar("T")

SKIP = "(skip)"
"""As the answer to a wait: Esc is pressed."""


class Scripted:
    """Implements `Prompts`. Each answer is for the next question, whose words must begin with the script's; a class of
    exception is raised. What is waited for is done, unless the script says SKIP for it."""

    def __init__(self, *script: tuple[str, Any]) -> None:
        self.script = list(script)
        self.asked: list[str] = []
        self.choices: dict[str, list[Choice]] = {}
        self.complaints: list[str] = []

    def _next(self, question: str) -> Any:
        self.asked.append(question)
        assert self.script, f"nobody expected {question!r}; asked so far: {self.asked}"
        expected, answer = self.script.pop(0)
        assert question.startswith(expected), (question, expected)
        if isinstance(answer, type) and issubclass(answer, BaseException):
            raise answer
        return answer

    def pick(self, question: str, choices: Sequence[Choice], *, at: str | None = None, free: bool = False) -> str:
        self.choices[question] = list(choices)
        answer = self._next(question)
        if answer is None:
            return at if at is not None else choices[0].value
        assert free or answer in {choice.value for choice in choices}, (answer, choices)
        return str(answer)

    def pick_many(self, question: str, choices: Sequence[Choice]) -> list[str]:
        self.choices[question] = list(choices)
        answer = self._next(question)
        return [choices[0].value] if answer is None else list(answer)

    def text(self, question: str, default: str = "", complaint: Complaint = fine) -> str:
        while True:
            answer = self._next(question)
            text = default if answer is None else str(answer)
            if not (wrong := complaint(text)):
                return text
            self.complaints.append(wrong)

    def secret(self, question: str, complaint: Complaint = fine) -> str:
        while True:
            text = str(self._next(question))
            if not (wrong := complaint(text)):
                return text
            self.complaints.append(wrong)

    def confirm(self, question: str, *, default: bool) -> bool:
        answer = self._next(question)
        return default if answer is None else bool(answer)

    def waiting(self, text: str, work: Callable[[], T]) -> T | None:
        if self.script and self.script[0] == (text, SKIP):
            self.script.pop(0)
            return None
        return work()
