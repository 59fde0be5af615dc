"""Text completions in front of what only chats, and behind it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types import Completion

from aigw.canonical import (
    Answer,
    Choice,
    Finished,
    Losses,
    Media,
    Message,
    Request,
    Spent,
    SpentSoFar,
    Started,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
)
from aigw.errors import CallerError
from aigw.protocols.translation import translator
from aigw.protocols.translation.contract import Reply, Toward

SHAPE = translator("completions")
TOWARD = Toward(model="davinci", kind="vllm")


def asked(**fields: Any) -> Request:
    found: Request = SHAPE.parse_request(json.dumps({"model": "m", "prompt": "p"} | fields).encode(), "m", stream=False)
    return found


def reply() -> Reply:
    return Reply(request=asked(), id="req_7", model="", now=5.0)


def test_a_prompt_is_a_users_message() -> None:
    request = asked(max_tokens=5, logprobs=2, stop="x", n=2, best_of=2, echo=False, suffix="", min_p=0.1)
    assert request.messages == [Message("user", [Text("p")])]
    assert (request.max_tokens, request.logprobs, request.top_logprobs, request.stop, request.n) == (5, True, 2, ["x"], 2)
    assert request.extras == {"min_p": 0.1}
    assert asked(prompt=["one"]).messages == [Message("user", [Text("one")])]


@pytest.mark.parametrize(
    ("fields", "param"), [({"prompt": ["a", "b"]}, "prompt"), ({"prompt": [1, 2]}, "prompt"), ({"suffix": "s"}, "suffix")]
)
def test_what_chat_cannot_do_is_refused_with_its_remedy(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(CallerError) as refused:
        asked(**fields)
    assert (refused.value.code, refused.value.param) == ("caller_unsupported", param)


def test_echo_and_best_of_are_losses() -> None:
    losses = Losses()
    body = json.loads(translator("chat").render_request(asked(echo=True, best_of=3), TOWARD, losses))
    assert list(losses) == ["best_of", "echo"]
    assert body == {"model": "davinci", "messages": [{"role": "user", "content": "p"}]}


def test_there_and_back() -> None:
    body = {"model": "davinci", "prompt": "p", "max_tokens": 5, "logprobs": 2, "temperature": 0.5}
    losses = Losses()
    assert json.loads(SHAPE.render_request(asked(**body), TOWARD, losses)) == body
    assert not losses


def test_a_conversation_is_refused_by_what_only_completes() -> None:
    for messages in (
        [Message("user", [Text("a")]), Message("assistant", [Text("b")])],
        [Message("user", [Media("image", url="u")])],
    ):
        with pytest.raises(CallerError, match="has no turns"):
            SHAPE.render_request(Request(dialect="openai_chat", model="m", messages=messages), TOWARD, Losses())


def test_whole_answers() -> None:
    logged = {
        "content": [
            {"token": "a", "logprob": -1.0, "top_logprobs": [{"token": "b", "logprob": -2.0}]},
            {"token": "cd", "logprob": -3.0},
        ]
    }
    answer = Answer(choices=[Choice([Thinking("hm"), Text("acd")], "length", logprobs=logged)], spent=Spent(3, output=2))
    body = SHAPE.render_answer(answer, reply())
    Completion.model_validate_json(body)
    (choice,) = json.loads(body)["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("acd", "length")
    assert choice["logprobs"] == {
        "tokens": ["a", "cd"], "token_logprobs": [-1.0, -3.0], "top_logprobs": [{"b": -2.0}, {}], "text_offset": [0, 1]
    }  # fmt: skip


def test_streams() -> None:
    renderer = SHAPE.renderer(reply())
    stream = renderer.render([Started("c", "m", 9), ThinkingDelta("hm"), TextDelta("a"), TextDelta("b")])
    stream += renderer.render([Finished("stop"), SpentSoFar(Spent(3, output=2))]) + renderer.end()
    *chunks, last = [line.removeprefix(b"data: ") for line in stream.split(b"\n\n")[:-1]]
    assert last == b"[DONE]"
    Completion.model_validate_json(chunks[-2])  # (its type says that a stream's finish_reason is never null; OpenAI sends null)
    said = [json.loads(chunk) for chunk in chunks]
    assert "".join(choice["text"] for chunk in said for choice in chunk["choices"]) == "ab"
    assert said[-1]["usage"]["total_tokens"] == 5
    parser = SHAPE.parser()
    events = parser.feed(stream)
    assert events == [Started("c", "m", 9), TextDelta("a"), TextDelta("b"), Finished("stop"), SpentSoFar(Spent(3, output=2))]
    assert parser.done
