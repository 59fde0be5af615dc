"""What a search finds, and in which order."""

from __future__ import annotations

import pytest

from aigw.cli.wizard.choices import Choice, matching

DEEPINFRA = Choice("deepinfra", "DeepInfra")
DEEPSEEK = Choice("deepseek", "DeepSeek", "DEEPSEEK_API_KEY is set", "深度求索 DEEPSEEK_API_KEY")
OPENAI = Choice("openai", "OpenAI")
ANY = Choice("openai-compatible", "Any OpenAI-compatible endpoint")
ALL = [ANY, DEEPINFRA, DEEPSEEK, OPENAI]


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("", ALL),
        ("  ", ALL),
        ("deep", [DEEPINFRA, DEEPSEEK]),
        ("DEEPSEEK_API", [DEEPSEEK]),
        ("深度", [DEEPSEEK]),
        ("seek deep", [DEEPSEEK]),
        ("is set", [DEEPSEEK]),
        ("openai", [ANY, OPENAI]),
        ("endpoint", [ANY]),
        ("nobody", []),
    ],
)
def test_all_words_must_be_there(typed: str, found: list[Choice]) -> None:
    """In any order, in any case, in both scripts."""
    assert matching(ALL, typed) == found


def test_what_begins_so_comes_first() -> None:
    """Then what has a word that begins so, then the rest."""
    inside, word, start = Choice("a", "xpert"), Choice("b", "my pert"), Choice("c", "pert")
    assert matching([inside, word, start], "pert") == [start, word, inside]
