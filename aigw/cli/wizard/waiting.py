"""Work that is waited for until somebody has had enough of waiting."""

from __future__ import annotations

import select
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

_LOOK = 0.05  # seconds between two looks at the keyboard


def until_skipped(work: Callable[[], T]) -> T | None:
    """What *work* returns, or raises; None when Ctrl-C or Esc was pressed before. Work that is skipped goes on by itself until
    its own time is over, or the process ends.

    Keys that are pressed meanwhile answer nothing: what follows a pasted secret must not answer the next question.
    """
    found: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:  # noqa: BLE001 - raised below, where somebody listens
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True, name="waiting")
    try:
        with _keys_at_once() as pressed:
            thread.start()
            while thread.is_alive():
                if pressed() == b"\x1b":
                    return None
    except KeyboardInterrupt:
        return None
    if failed:
        raise failed[0]
    return found[0]


@contextmanager
def _keys_at_once() -> Iterator[Callable[[], bytes]]:
    """Gives a function that waits a moment and returns what was pressed. Keys come one by one, and are not echoed."""
    try:
        terminal = sys.stdin.fileno()
        before = termios.tcgetattr(terminal)
    except (OSError, ValueError, termios.error):

        def nothing() -> bytes:
            time.sleep(_LOOK)
            return b""

        yield nothing
        return

    def pressed() -> bytes:
        ready, _, _ = select.select([terminal], [], [], _LOOK)
        if not ready:
            return b""
        keys = sys.stdin.buffer.raw.read(1024) if hasattr(sys.stdin.buffer, "raw") else b""
        if keys == b"":
            time.sleep(_LOOK)  # the end of input is always ready
        return keys or b""

    try:
        tty.setcbreak(terminal)
        yield pressed
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
