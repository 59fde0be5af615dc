"""Questions drawn on a real pseudo-terminal: text, hidden text, yes or no."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pexpect
import pytest

Asks = Callable[..., Any]


@pytest.fixture
def asks() -> Iterator[Asks]:
    """Runs one question in a process of its own; prints its answer."""
    terminals: list[Any] = []

    def one(question: str, columns: int = 80, **environment: str) -> Any:
        code = (
            f"from aigw.cli.wizard.prompts import prompts\nask = prompts()\nanswer = {question}\nprint('answer:', repr(answer))"
        )
        terminal = pexpect.spawn(
            sys.executable,
            ["-c", code],
            env={"TERM": "xterm-256color", "PATH": "/usr/bin:/bin", "PYTHONWARNINGS": "error", **environment},  # type: ignore[arg-type]
            dimensions=(24, columns),
            encoding="utf-8",
            timeout=20,
        )
        terminals.append(terminal)
        return terminal

    yield one
    for terminal in terminals:
        terminal.close(force=True)


def test_text(asks: Asks) -> None:
    """The default can be edited; a complaint is shown and clears away."""
    terminal = asks("ask.text('Port', '8080', lambda text: '' if text.isdigit() else 'a number, please')")
    terminal.expect("8080")
    terminal.send("x\r")
    terminal.expect("a number, please")
    terminal.send("\x7f1\r")
    terminal.expect("answer: '80801'")


def test_a_secret_is_not_shown(asks: Asks) -> None:
    """Neither while it is typed nor after; a paste of several lines is one answer, and answers nothing else."""
    terminal = asks("ask.secret('Key'), ask.text('Next', 'default')")
    terminal.expect("Key")
    terminal.send("\x1b[200~sk-hush\nsk-more\n\x1b[201~\r")
    terminal.expect("Next")
    assert "hush" not in terminal.before
    terminal.send("\r")
    terminal.expect(r"answer: \('sk-hush\\nsk-more\\n', 'default'\)")


@pytest.mark.parametrize(("keys", "answer"), [("\r", "False"), ("y\r", "True"), ("yn\r", "False")])
def test_confirm(asks: Asks, keys: str, answer: str) -> None:
    """A letter, then Enter; Enter alone is the default."""
    terminal = asks("ask.confirm('Sure?', default=False)")
    terminal.expect("y/N")
    terminal.send(keys)
    terminal.expect(f"answer: {answer}")


@pytest.mark.parametrize(
    "question",
    [
        "ask.text('Q?', 'typed')",
        "ask.secret('Q?')",
        "ask.confirm('Q?', default=True)",
        "ask.pick('Q?', [__import__('aigw.cli.wizard.choices', fromlist=['x']).Choice('a', 'A')])",
    ],
)
@pytest.mark.parametrize(("key", "error"), [("\x03", "KeyboardInterrupt"), ("\x04", "EOFError")])
def test_ctrl_c_and_ctrl_d(asks: Asks, question: str, key: str, error: str) -> None:
    """End every kind of question."""
    terminal = asks(question)
    terminal.expect(r"Q\?")
    terminal.send(key)
    terminal.expect(error)


def test_waiting_is_skipped_by_escape(asks: Asks) -> None:
    """With something that turns meanwhile."""
    terminal = asks("ask.waiting('Asking somebody', lambda: __import__('time').sleep(20))", LANG="C.UTF-8")
    terminal.expect("Asking somebody")
    terminal.send("\x1b")
    terminal.expect("answer: None", timeout=5)
