"""What a list of choices is, and how it is searched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Choice(NamedTuple):
    """One thing to choose. `value` is the answer, `title` and the fainter `note` are shown, `words` are found as well.
    Title and note are safe to show."""

    value: str
    title: str
    note: str = ""
    words: str = ""


def matching(choices: Sequence[Choice], text: str) -> list[Choice]:
    """The choices that have all words of *text*, whatever the case: those that begin so first, else in their order."""
    wanted = text.casefold().split()
    if not wanted:
        return list(choices)
    found = []
    for place, choice in enumerate(choices):
        names = " ".join((choice.title, choice.value, choice.words)).casefold()
        if all(word in names or word in choice.note.casefold() for word in wanted):
            begins = choice.title.casefold().startswith(wanted[0]) or choice.value.casefold().startswith(wanted[0])
            starts_word = f" {wanted[0]}" in f" {names}"
            found.append((0 if begins else 1 if starts_word else 2, place, choice))
    return [choice for _, _, choice in sorted(found)]
