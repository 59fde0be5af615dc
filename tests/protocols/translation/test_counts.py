"""Counts of tokens between Anthropic's shape and Gemini's."""

from __future__ import annotations

import json

import pytest

from aigw.canonical import Losses
from aigw.protocols.translation import translator
from aigw.protocols.translation.contract import Reply, Toward

GEMINI, CLAUDE = translator("count_gemini"), translator("count_tokens")


def test_anthropics_callers_and_gemini() -> None:
    """The whole prompt is counted: system, tools, turns."""
    tool = {"name": "f", "input_schema": {"type": "object", "properties": {"a": {"type": "string"}}}}
    body = {"model": "m", "system": "s", "messages": [{"role": "user", "content": "hi"}], "tools": [tool]}
    request = CLAUDE.parse_request(json.dumps(body).encode(), "m", stream=False)
    said = json.loads(GEMINI.render_request(request, Toward(model="gemini-3.8-flash"), Losses()))["generateContentRequest"]
    assert said["model"] == "models/gemini-3.8-flash"
    assert (said["systemInstruction"], said["contents"]) == (
        {"parts": [{"text": "s"}]},
        [{"role": "user", "parts": [{"text": "hi"}]}],
    )
    assert said["tools"][0]["functionDeclarations"][0]["name"] == "f"
    answer, told = GEMINI.parse_answer(b'{"totalTokens":31}')
    assert told.usage is not None
    assert told.usage.input == 0
    assert CLAUDE.render_answer(answer, Reply(request=request, id="r", model="", now=0.0)) == b'{"input_tokens":31}'


def test_geminis_callers_and_anthropic() -> None:
    """Without what is no part of a prompt: Anthropic's count refuses it."""
    body = {"generateContentRequest": {"model": "models/m", "contents": "hi", "generationConfig": {"temperature": 0.5}}}
    request = GEMINI.parse_request(json.dumps(body).encode(), "m", stream=False)
    said = json.loads(CLAUDE.render_request(request, Toward(model="claude-haiku-4-5"), Losses()))
    assert said.keys() == {"model", "messages"}
    answer, _ = CLAUDE.parse_answer(b'{"input_tokens":8}')
    assert GEMINI.render_answer(answer, Reply(request=request, id="r", model="", now=0.0)) == b'{"totalTokens":8}'


@pytest.mark.parametrize("body", [b"{}", b'{"totalTokens":"7","input_tokens":"7"}', b'{"totalTokens":true}', b"[]"])
def test_no_count(body: bytes) -> None:
    """Is no answer."""
    for shape in (GEMINI, CLAUDE):
        with pytest.raises(ValueError, match=r"count|JSON"):
            shape.parse_answer(body)
