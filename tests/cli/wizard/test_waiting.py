"""Waiting ends when the work does, or when somebody has had enough."""

from __future__ import annotations

import os
import pty
import signal
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aigw.cli.wizard.waiting import until_skipped


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """A pseudo-terminal as standard input: its two ends, the one where keys are pressed first."""
    far, near = pty.openpty()
    with os.fdopen(near, "r", closefd=False) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield far, near
    os.close(far)
    os.close(near)


def never() -> None:
    time.sleep(5)


def test_what_the_work_returns(keyboard: tuple[int, int]) -> None:
    """And the terminal is as it was."""
    before: Any = termios.tcgetattr(keyboard[1])
    assert until_skipped(lambda: 42) == 42
    assert termios.tcgetattr(keyboard[1]) == before


def test_what_the_work_raises(keyboard: tuple[int, int]) -> None:
    """It is not lost in its thread."""
    with pytest.raises(ZeroDivisionError):
        until_skipped(lambda: 1 // 0)


def test_escape_skips_it(keyboard: tuple[int, int]) -> None:
    """At once, and the terminal is as it was."""
    before: Any = termios.tcgetattr(keyboard[1])
    threading.Timer(0.2, lambda: os.write(keyboard[0], b"\x1b")).start()
    began = time.monotonic()
    assert until_skipped(never) is None
    assert time.monotonic() - began < 2
    assert termios.tcgetattr(keyboard[1]) == before


def test_ctrl_c_skips_it(keyboard: tuple[int, int]) -> None:
    """Only the waiting, not the program."""
    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    assert until_skipped(never) is None


def test_other_keys_answer_nothing(keyboard: tuple[int, int]) -> None:
    """What a paste had behind its first line is gone when the next question is asked."""
    os.write(keyboard[0], b"rest of a paste\n")
    assert until_skipped(lambda: time.sleep(0.3) or "done") == "done"
    os.set_blocking(keyboard[1], False)
    with pytest.raises(BlockingIOError):
        os.read(keyboard[1], 100)


def test_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for all the same."""
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        assert until_skipped(lambda: 42) == 42
