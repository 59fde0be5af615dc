"""People's language for questions and messages: English, or Chinese where the locale says so. Codes and JSON stay English."""

from __future__ import annotations

import os
import sys


def say(english: str, chinese: str) -> str:
    """The one of the two that the person in front of the terminal reads."""
    return chinese if is_chinese() else english


def is_chinese() -> bool:
    """Whether the locale is a Chinese one, and the terminal's encoding has the characters."""
    name = _locale().lower()
    if name.partition(".")[0].partition("_")[0].partition("-")[0] != "zh":
        return False
    try:
        "选择".encode(sys.stderr.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def is_ascii() -> bool:
    """Whether to draw in nothing but ASCII: LANG=C, no locale at all, or one that does not promise UTF-8."""
    return "utf" not in _locale().lower() and not is_chinese()


def _locale() -> str:
    """The locale of messages, as POSIX looks for it: the first of the three that is set and not empty."""
    return next((value for name in ("LC_ALL", "LC_MESSAGES", "LANG") if (value := os.environ.get(name))), "")
