"""Replicate's predictions: inputs in, outputs of any kind out."""

from __future__ import annotations

import json

import pytest

from aigw.canonical import Losses, Message, Request, Spent, Text
from aigw.protocols.translation.contract import Toward
from aigw.protocols.translation.replicate import Replicate


def test_the_input() -> None:
    """The system's words have a place of their own; OpenAI's models have another name for tokens; inputs may be given."""
    talk = [Message("system", [Text("s")]), Message("user", [Text("u")])]
    asked = Request(dialect="openai_chat", model="m", messages=talk, max_tokens=5, extras={"input": {"image": "x"}})
    for model, name in (("openai/gpt-5", "max_completion_tokens"), ("meta/llama", "max_tokens")):
        losses = Losses()
        said = json.loads(Replicate().render_request(asked, Toward(model=model), losses))
        assert said == {"input": {"prompt": "u", "system_prompt": "s", name: 5, "image": "x"}}
        assert not losses


@pytest.mark.parametrize(("output", "text"), [('["a","b"]', "ab"), ('"ab"', "ab"), ("null", ""), ('{"a":1}', '{"a":1}')])
def test_the_output(output: str, text: str) -> None:
    """Pieces, a text, nothing, or what the model makes."""
    body = f'{{"id":"p","status":"succeeded","output":{output},"metrics":{{"input_token_count":3,"output_token_count":2}}}}'
    answer, _ = Replicate().parse_answer(body.encode())
    assert answer.choices[0].parts == [Text(text)]
    assert answer.spent == Spent(input=3, output=2)


def test_what_did_not_succeed_is_no_answer() -> None:
    """A prediction that failed, or still runs."""
    for status in ("failed", "canceled", "processing"):
        with pytest.raises(ValueError):
            Replicate().parse_answer(f'{{"id":"p","status":"{status}","output":null}}'.encode())
