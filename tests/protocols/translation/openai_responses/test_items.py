"""Words that both halves share."""

from __future__ import annotations

import pytest

from aigw.canonical import Media, Reasoning, Thinking
from aigw.protocols.translation.openai_responses import items


def test_an_own_signature_keeps_the_id_of_its_item() -> None:
    assert items.unpack(items.pack("rs_1", "gAAA==")) == ("rs_1", "gAAA==")
    assert items.unpack("gAAA==") == ("", "gAAA==")


def test_a_foreign_thought_is_sealed_and_only_its_maker_named() -> None:
    text = items.encrypted_content(Thinking("x", "sig", "hid", "gemini"))
    assert items.opened(text) == ("gemini", items.Signed("sig", "hid"))
    assert items.opened("gAAA") == (items.OWN, items.Signed("gAAA"))
    assert items.encrypted_content(Thinking("plain", origin="openai_chat")) == ""


@pytest.mark.parametrize(
    ("reasoning", "effort"),
    [
        (Reasoning(False), "none"),
        (Reasoning(effort="xhigh"), "xhigh"),
        (Reasoning(True, budget=1024), "low"),
        (Reasoning(True, budget=4000), "medium"),
        (Reasoning(True, budget=10_000), "high"),
        (Reasoning(True, budget=32_000), "xhigh"),
        (Reasoning(True, budget=0), "none"),
        (Reasoning(True), ""),
    ],
)
def test_budgets_become_efforts(reasoning: Reasoning, effort: str) -> None:
    assert items.effort_of(reasoning) == effort


def test_media_find_their_words() -> None:
    assert items.media_out(Media("image", url="http://i", detail="low")) == {
        "type": "input_image", "detail": "low", "image_url": "http://i",
    }  # fmt: skip
    assert items.media_out(Media("document", data="aGk=", type="application/pdf", name="a.pdf")) == {
        "type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,aGk=",
    }  # fmt: skip
    assert items.media_out(Media("video", url="http://v")) is None


def test_free_text_is_found_in_its_object() -> None:
    assert items.free_text('{"input":"a"}') == "a"
    assert items.free_text('{"a":1,"b":2}') == '{"a":1,"b":2}'
    assert items.free_text("not json") == "not json"
