"""Texts with places for variables, as `prompt_template` and `prompt_decorator` have them: "Hello {{name}}".

What is put in is put in once, as it is: a value that looks like a variable stays a text, so no caller can reach another's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from aigw.hooks import View

_PLACE = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_.-]{0,99})\s*\}\}")

BUILT_IN = ("consumer", "group", "model", "route", "date", "time", "end_user")
"""What is known of every request; `header.NAME` and `tag.NAME` besides."""


def variables(text: str) -> list[str]:
    """The variables of *text*, each once, in their order."""
    return list(dict.fromkeys(_PLACE.findall(text)))


def filled(text: str, values: Mapping[str, str]) -> str:
    """*text* with its variables filled in. Raises KeyError with the name of one that has no value."""
    return _PLACE.sub(lambda match: values[match[1]], text)


class Known(dict[str, str]):
    """What is known of a request, looked up when it is asked for."""

    def __init__(self, view: View) -> None:
        super().__init__()
        self._view = view

    def __missing__(self, name: str) -> str:
        view = self._view
        if name.startswith("header."):
            return view.headers.get(name[7:].lower(), "")
        if name.startswith("tag."):
            return view.tags.get(name[4:], "")
        if name in ("date", "time"):
            moment = datetime.fromtimestamp(view.at, UTC)
            return moment.strftime("%Y-%m-%d" if name == "date" else "%H:%M UTC")
        if name in BUILT_IN:
            found: str = getattr(view, name)
            return found
        raise KeyError(name)


def is_known(name: str) -> bool:
    """Whether `Known` has something for *name*."""
    return name in BUILT_IN or name.startswith(("header.", "tag."))
