"""DeepL as a chat: who says what language, and what is not translated."""

from __future__ import annotations

import json

import pytest

from aigw.canonical import Losses, Message, Request, Text
from aigw.errors import CallerError
from aigw.protocols.translation.contract import Toward
from aigw.protocols.translation.deepl import DeepL


@pytest.mark.parametrize(
    ("model", "language"), [("ZH", "ZH"), ("deepl-zh", "ZH"), ("en-gb", "EN-GB"), ("Pro", "FR"), ("zh-Hans", "ZH-HANS")]
)
def test_the_language(model: str, language: str) -> None:
    """The model's name when it is one, else the setting."""
    asked = Request(dialect="openai_chat", model="m", messages=[Message("user", [Text("hi")])])
    said = json.loads(DeepL().render_request(asked, Toward(model=model, settings={"target_lang": "fr"}), Losses()))
    assert said == {"text": ["hi"], "target_lang": language}
    with pytest.raises(CallerError, match="No language"):
        DeepL().render_request(asked, Toward(model="Pro"), Losses())


def test_what_was_said_before_is_named() -> None:
    """Only the last question is translated."""
    talk = [Message("system", [Text("s")]), Message("user", [Text("a")]), Message("assistant", [Text("b")])]
    asked = Request(dialect="openai_chat", model="m", messages=[*talk, Message("user", [Text("c")])])
    losses = Losses()
    assert json.loads(DeepL().render_request(asked, Toward(model="DE"), losses))["text"] == ["c"]
    assert list(losses) == ["messages", "messages.system"]
    answer, told = DeepL().parse_answer(b'{"translations":[{"text":"x"},{"text":"y"}]}')
    assert answer.choices[0].parts == [Text("x\ny")]
    assert told.usage is None
