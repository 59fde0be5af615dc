"""A list that is searched while one types, for one answer or several; drawn by prompt_toolkit, which questionary stands on.

questionary's own list searches only what it shows, takes no Chinese characters, and answers Enter with nothing when nothing was
ticked.
"""

from __future__ import annotations

from collections.abc import Sequence

from prompt_toolkit.application import Application, get_app
from prompt_toolkit.filters import Condition, is_done
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout import ConditionalContainer, Dimension, FormattedTextControl, HSplit, Layout, Window
from prompt_toolkit.output import Output
from prompt_toolkit.styles import BaseStyle

from aigw.cli.language import is_ascii, say
from aigw.cli.output import safe, width
from aigw.cli.wizard.choices import Choice, matching

FEW = 6
"""Choices that one sees at a glance: searching is not offered for them, though it works."""

ROWS = 10
"""Of the list; with the question, the search line and the hint it fits into 16 lines."""


class Picker:
    """The state of one question, and its drawing. `run` asks it."""

    def __init__(
        self, question: str, choices: Sequence[Choice], *, many: bool = False, free: bool = False, at: str | None = None
    ) -> None:
        """*many*: several may be ticked. *free*: what was typed may be the answer itself. *at*: the value pointed at first."""
        self.question, self.choices, self.many, self.free = question, choices, many, free
        self.typed = ""
        self.ticked: list[str] = []
        self.at = next((place for place, choice in enumerate(choices) if choice.value == at), 0)
        self._answer: str | None = None

    # what is typed

    @property
    def shown(self) -> list[Choice]:
        """The choices that fit what was typed, and the typed text itself where it may be the answer."""
        found = matching(self.choices, self.typed)
        text = self.typed.strip()
        if self.free and text and all(choice.value != text for choice in found):
            found.append(Choice(text, safe(text), say("as typed", "按输入的内容")))
        return found

    def search(self, typed: str) -> None:
        self.typed, self.at = typed, 0

    def move(self, by: int, *, around: bool = False) -> None:
        count = len(self.shown)
        if count:
            self.at = (self.at + by) % count if around else max(0, min(count - 1, self.at + by))

    def tick(self) -> None:
        """Tick or untick what is pointed at; the whole list is there again, with the pointer where it was."""
        shown = self.shown
        if not shown:
            return
        value = shown[self.at].value
        if value in self.ticked:
            self.ticked.remove(value)
        else:
            self.ticked.append(value)
        if self.typed:
            self.typed = ""
            self.at = next(place for place, choice in enumerate(self.choices) if choice.value == value)

    def take(self) -> list[str] | None:
        """The answer: what is ticked, and what is pointed at where nothing is or where it was searched for; None while there is
        none."""
        shown = self.shown
        answer = list(self.ticked)
        if shown and (not answer or self.typed) and shown[self.at].value not in answer:
            answer.append(shown[self.at].value)
        if not answer or (self.typed and not shown):
            return None
        titles = {choice.value: choice.title for choice in self.choices}
        self._answer = ", ".join(titles.get(value, safe(value)) for value in answer)
        return answer

    # what is drawn

    def _question(self) -> StyleAndTextTuples:
        if self._answer is None:
            return [("class:qmark", "? "), ("class:question", self.question)]
        return [("class:qmark", "? "), ("class:question", self.question), ("class:answer", f" {self._answer}")]

    def _search(self) -> StyleAndTextTuples:
        if not self.typed:
            return [("class:instruction", "  / "), ("class:instruction", say("type to search", "输入文字可搜索"))]
        found = "class:search" if self.shown else "class:error"
        return [("class:instruction", "  / "), (found, safe(self.typed)), ("[SetCursorPosition]", "")]

    def _list(self) -> StyleAndTextTuples:
        shown = self.shown
        if not shown:
            return [("class:error", say("    nothing fits; Backspace", "    没有匹配项；按退格键"))]
        pointer, full, empty = (">", "[x]", "[ ]") if is_ascii() else ("❯", "◉", "○")
        # notes stand below each other where there is room for that
        wide = min(36, max(width(choice.title) for choice in shown)) if get_app().output.get_size().columns >= 70 else 0
        drawn: StyleAndTextTuples = []
        for place, choice in enumerate(shown):
            here, ticked = place == self.at, choice.value in self.ticked
            style = "class:highlighted" if here else "class:answer" if ticked else ""
            if here:
                drawn.append(("[SetCursorPosition]", ""))
            drawn.append(("class:pointer" if here else "", f"  {pointer if here else ' '} "))
            if self.many:
                drawn.append(("class:answer" if ticked else "", f"{full if ticked else empty} "))
            drawn.append((style, choice.title))
            if choice.note:
                drawn.append(("class:instruction", " " * (max(0, wide - width(choice.title)) + 2) + choice.note))
            drawn.append(("", "\n"))
        drawn.pop()
        return drawn

    def _hint(self) -> StyleAndTextTuples:
        if self.ticked:
            titles = {choice.value: choice.title for choice in self.choices}
            ticked = ", ".join(titles[value] for value in self.ticked)
            keys = say(f"Enter goes on with {ticked}", f"回车键继续：{ticked}")
        else:
            keys = (
                say("Space ticks, Enter goes on", "空格键勾选，回车键继续")
                if self.many
                else say("Enter takes it", "回车键选定")
            )
        count = len(self.shown)
        more = say(f"{count} in all; ", f"共 {count} 项；") if count > ROWS else ""
        return [("class:instruction", f"    {more}{keys}")]

    def _layout(self) -> Layout:
        def rows() -> Dimension:
            return Dimension.exact(max(1, min(ROWS, len(self.shown))))

        rest = HSplit(
            [
                ConditionalContainer(
                    Window(FormattedTextControl(self._search), height=1),
                    filter=Condition(lambda: bool(self.typed) or self.free or len(self.choices) > FEW),
                ),
                Window(FormattedTextControl(self._list, focusable=True, show_cursor=False), height=rows),
                Window(FormattedTextControl(self._hint), height=1),
            ]
        )
        question = Window(FormattedTextControl(self._question), wrap_lines=True, dont_extend_height=True)
        return Layout(HSplit([question, ConditionalContainer(rest, filter=~is_done)]), focused_element=rest.children[1])

    # asking

    def run(self, *, input: Input, output: Output, style: BaseStyle) -> list[str]:  # noqa: A002 - prompt_toolkit's word
        """The values chosen, at least one. Raises KeyboardInterrupt (Ctrl-C) and EOFError (Ctrl-D)."""
        application: Application[list[str]] = Application(
            layout=self._layout(), key_bindings=self._keys(), style=style, input=input, output=output, mouse_support=False
        )
        application.ttimeoutlen = 0.05
        return application.run()

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()
        for key, by, around in (
            ("up", -1, True),
            ("c-p", -1, True),
            ("down", 1, True),
            ("c-n", 1, True),
            ("pageup", -ROWS, False),
            ("pagedown", ROWS, False),
            ("home", -100_000, False),
            ("end", 100_000, False),
        ):

            @keys.add(key)
            def _(event: KeyPressEvent, by: int = by, around: bool = around) -> None:
                self.move(by, around=around)

        @keys.add("c-c")
        def _(event: KeyPressEvent) -> None:
            event.app.exit(exception=KeyboardInterrupt())

        @keys.add("c-d")
        def _(event: KeyPressEvent) -> None:
            event.app.exit(exception=EOFError())

        @keys.add("enter")
        def _(event: KeyPressEvent) -> None:
            answer = self.take()
            if answer is not None:
                event.app.exit(result=answer)

        @keys.add("backspace")
        def _(event: KeyPressEvent) -> None:
            self.search(self.typed[:-1])

        @keys.add("escape")
        @keys.add("c-u")
        def _(event: KeyPressEvent) -> None:
            self.search("")

        @keys.add("tab")
        def _(event: KeyPressEvent) -> None:
            if self.many:
                self.tick()

        @keys.add(Keys.Any)
        def _(event: KeyPressEvent) -> None:
            if event.data == " " and self.many:
                self.tick()
            elif event.data.isprintable():
                self.search(self.typed + event.data)

        @keys.add(Keys.BracketedPaste)
        def _(event: KeyPressEvent) -> None:
            self.search(self.typed + "".join(one for one in event.data if one.isprintable()))

        return keys
