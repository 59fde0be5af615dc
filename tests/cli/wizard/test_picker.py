"""The list, driven by keys as a terminal sends them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput
from prompt_toolkit.styles import Style

from aigw.cli.wizard.choices import Choice
from aigw.cli.wizard.picker import Picker

CHOICES = [Choice("openai", "OpenAI"), Choice("deepseek", "DeepSeek", words="深度求索"), Choice("zhipu", "Zhipu", "智谱")]
UP, DOWN, END, ENTER, ESCAPE = "\x1b[A", "\x1b[B", "\x1b[F", "\r", "\x1b"


@contextmanager
def keyboard(keys: str) -> Iterator[PipeInput]:
    with create_pipe_input() as pipe:
        pipe.send_text(keys)
        yield pipe


def pressed(picker: Picker, keys: str) -> list[str]:
    with keyboard(keys) as pipe:
        return picker.run(input=pipe, output=DummyOutput(), style=Style([]))


@pytest.mark.parametrize(
    ("keys", "answer"),
    [
        (ENTER, "openai"),
        (DOWN + ENTER, "deepseek"),
        (UP + ENTER, "zhipu"),
        (END + ENTER, "zhipu"),
        ("deep" + ENTER, "deepseek"),
        ("深度" + ENTER, "deepseek"),
        ("智" + ENTER, "zhipu"),
        ("xx" + ENTER + "\x7f\x7f" + ENTER, "openai"),
        ("xx\x15" + ENTER, "openai"),
        ("\x1b[200~zhi\npu\x1b[201~" + ENTER, "zhipu"),
    ],
)
def test_one_answer(keys: str, answer: str) -> None:
    """Arrows, or what is typed, pasted or taken back; Enter on nothing that fits does nothing."""
    assert pressed(Picker("Which?", CHOICES), keys) == [answer]


def test_a_bare_enter_takes_what_was_there() -> None:
    """The pointer begins at what the caller says."""
    assert pressed(Picker("Which?", CHOICES, at="zhipu"), ENTER) == ["zhipu"]


@pytest.mark.parametrize(
    ("keys", "answer"),
    [
        (ENTER, ["openai"]),
        (" " + DOWN + " " + ENTER, ["openai", "deepseek"]),
        ("zhi zz\x7f\x7fopen " + ENTER, ["zhipu", "openai"]),
        ("  " + DOWN + ENTER, ["deepseek"]),
        ("deep zhi" + ENTER, ["deepseek", "zhipu"]),
        (DOWN + "\t" + ENTER, ["deepseek"]),
        ("deep deep" + ENTER, ["deepseek"]),
    ],
)
def test_several_answers(keys: str, answer: list[str]) -> None:
    """Space ticks and unticks, and ends a search; Enter takes what is ticked and what was just searched for."""
    assert pressed(Picker("Which?", CHOICES, many=True), keys) == answer


def test_an_answer_of_ones_own() -> None:
    """Where it may be, what was typed is one of the choices: the last, and not beside one of that name."""
    assert pressed(Picker("Which?", CHOICES, free=True), "gpt-7 turbo" + ENTER) == ["gpt-7 turbo"]
    assert pressed(Picker("Which?", CHOICES, free=True), "deep" + ENTER) == ["deepseek"]
    assert pressed(Picker("Which?", CHOICES, free=True), "deep" + DOWN + ENTER) == ["deep"]
    assert [one.value for one in typed("deepseek", free=True).shown] == ["deepseek"]


def typed(text: str, **how: bool) -> Picker:
    picker = Picker("Which?", CHOICES, **how)
    picker.search(text)
    return picker


@pytest.mark.parametrize(("key", "end"), [("\x03", KeyboardInterrupt), ("\x04", EOFError)])
def test_it_can_be_ended(key: str, end: type[BaseException]) -> None:
    """Ctrl-C and Ctrl-D, whatever was typed."""
    with pytest.raises(end):
        pressed(Picker("Which?", CHOICES, many=True), "deep" + key)


def test_terminal_escapes_do_not_become_an_answer() -> None:
    """What is typed is shown safely."""
    picker = typed("a\x9b31mb", free=True)
    assert picker.shown[-1].title == "a\\x9b31mb"
