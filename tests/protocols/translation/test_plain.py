"""A conversation as one text, and what is lost on the way: what the shapes that know no more have in common, and keep alike."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aigw.canonical import Losses, Message, Request, Text, Tool, ToolChoice, ToolResult
from aigw.errors import CallerError
from aigw.protocols.translation import shape
from aigw.protocols.translation.contract import Toward
from aigw.protocols.translation.plain import last_words, refuse_tools, transcript

TOWARD = Toward(model="openai/gpt-5", settings={"target_lang": "DE", "bot_id": "7"})
PLAIN = ("dify", "coze", "replicate", "triton", "deepl")
VALUES: dict[str, Any] = {
    "parallel": False,
    "max_tokens": 5,
    "temperature": 0.5,
    "top_p": 0.5,
    "top_k": 5,
    "stop": ["x"],
    "n": 2,
    "seed": 1,
    "presence_penalty": 1.0,
    "frequency_penalty": 1.0,
    "logprobs": True,
    "top_logprobs": 2,
    "logit_bias": {"1": 1},
    "verbosity": "low",
    "modalities": ["audio"],
    "audio": {"voice": "x"},
    "user": "u",
    "metadata": {"a": "b"},
    "service_tier": "flex",
}


def request(*messages: Message, **fields: Any) -> Request:
    return Request(dialect="openai_chat", model="m", messages=list(messages or [said("user", "hi")]), **fields)


def said(role: Any, text: str) -> Message:
    return Message(role, [Text(text)])


@pytest.mark.parametrize("name", [*PLAIN, "cohere_chat"])
@pytest.mark.parametrize("field", VALUES)
def test_every_field_is_said_or_named(name: str, field: str) -> None:
    """No field is passed over: each changes what is sent, or is a loss, never both and never neither."""
    plain = shape(name).render_request(request(), TOWARD, Losses())
    losses = Losses()
    sent = shape(name).render_request(request(**{field: VALUES[field]}), TOWARD, losses)
    assert (sent != plain) != (field in list(losses))


@pytest.mark.parametrize("name", PLAIN)
def test_tools_are_refused_not_dropped(name: str) -> None:
    """Whoever offers tools wants them called; results of calls cannot be told; a server's own tool is a loss."""
    with pytest.raises(CallerError, match="calls no tools"):
        shape(name).render_request(request(tools=[Tool("a")]), TOWARD, Losses())
    with pytest.raises(CallerError, match="knows no tools"):
        shape(name).render_request(request(Message("user", [ToolResult("c", [Text("x")])])), TOWARD, Losses())
    losses = Losses()
    shape(name).render_request(request(tools=[Tool("web_search", server=True)]), TOWARD, losses)
    assert list(losses) == ["tools.web_search"]


@pytest.mark.parametrize("name", PLAIN)
def test_unknown_members_are_named(name: str) -> None:
    """What has no canonical word either."""
    losses = Losses()
    shape(name).render_request(request(extras={"odd": 1}), TOWARD, losses)
    assert list(losses) == ["odd"]


@pytest.mark.parametrize("name", [*PLAIN, "cohere_chat"])
@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"null", b"<html>", b"[" * 10_000, b'{"data":{"status":"failed"}}'])
def test_garbage_is_no_answer(name: str, body: bytes) -> None:
    """Said so, and nothing breaks."""
    with pytest.raises(ValueError):
        shape(name).parse_answer(body)


@pytest.mark.parametrize("name", ["dify", "coze", "triton", "cohere_chat"])
def test_garbage_in_a_stream(name: str) -> None:
    """Skipped, also deep nesting and halves of characters."""
    parser = shape(name).parser()
    for block in (b"data: {\n\n", b"data: " + b"[" * 10_000 + b"\n\n", b"data: \xff\n\n", b"\r\n: x\r\n\r\n", b"data: 7\n\n"):
        parser.feed(block)
    parser.end()
    assert not parser.failed
    assert not parser.begun


def test_a_transcript() -> None:
    """One question is itself; several have their speakers."""
    assert transcript(request(), Losses(), "It") == "hi"
    talk = request(said("developer", "Be brief."), said("user", "a"), said("assistant", "b"), said("user", "c"))
    assert transcript(talk, Losses(), "It") == "SYSTEM:\nBe brief.\n\nUSER:\na\n\nASSISTANT:\nb\n\nUSER:\nc"
    assert last_words(talk, Losses(), "It") == "c"
    with pytest.raises(CallerError, match="no user"):
        last_words(request(said("system", "x")), Losses(), "It")


def test_tools_that_may_not_be_called_are_no_matter() -> None:
    """`none` asks for what happens anyway."""
    refuse_tools(request(tools=[Tool("a")], tool_choice=ToolChoice("none")), Losses(), "It")
    assert json.loads(shape("deepl").render_request(request(), TOWARD, Losses())) == {"text": ["hi"], "target_lang": "DE"}
