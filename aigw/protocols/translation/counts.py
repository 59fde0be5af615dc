"""Counts of a prompt's tokens, Gemini's and Anthropic's: the request is the conversation's, the answer is one number.

The canonical answer has no choices, and the count in `spent.input`. (Where a provider counts nothing, nobody is asked: see
`count.py`.)
"""

from __future__ import annotations

from typing import Any, NoReturn

import msgspec

from aigw.canonical import Answer, Losses, Spent
from aigw.protocols.anthropic_messages import AnthropicMessages
from aigw.protocols.dialect import Told
from aigw.protocols.gemini import Gemini
from aigw.protocols.translation.anthropic_messages import Messages
from aigw.protocols.translation.contract import Reply, Toward
from aigw.protocols.translation.gemini import Generate

_decode = msgspec.json.decode
_encode = msgspec.json.encode

_NOT_COUNTED = ("max_tokens", "stream", "temperature", "top_p", "top_k", "stop_sequences", "metadata", "service_tier")
"""Members of a Messages request that Anthropic's count refuses: they are no part of the prompt."""


class CountGemini(Generate):
    """`:countTokens`. Implements `Translator`."""

    name = "count_gemini"
    content_type = b"application/json"
    streams = False

    def render_request(self, asked: Any, toward: Toward, losses: Losses) -> bytes:
        body = _decode(super().render_request(asked, toward, losses))
        return _encode({"generateContentRequest": {"model": f"models/{toward.model}", **body}})

    def parse_answer(self, body: bytes) -> tuple[Answer, Told]:
        told = Gemini().read_answer(body)
        return _counted(_decode(body).get("totalTokens")), told

    def render_answer(self, said: Any, reply: Reply) -> bytes:
        return _encode({"totalTokens": said.spent.input})

    def parser(self) -> NoReturn:
        raise NotImplementedError("a count is never a stream")

    def renderer(self, reply: Reply) -> NoReturn:
        raise NotImplementedError("a count is never a stream")


class CountMessages(Messages):
    """`/v1/messages/count_tokens`. Implements `Translator`."""

    name = "count_tokens"
    content_type = b"application/json"
    streams = False

    def render_request(self, request: Any, toward: Toward, losses: Losses) -> bytes:
        body = _decode(super().render_request(request, toward, losses))
        return _encode({name: value for name, value in body.items() if name not in _NOT_COUNTED})

    def parse_answer(self, body: bytes) -> tuple[Answer, Told]:
        told = AnthropicMessages().read_answer(body)
        return _counted(_decode(body).get("input_tokens")), told

    def render_answer(self, said: Any, reply: Reply) -> bytes:
        return _encode({"input_tokens": said.spent.input})

    def parser(self) -> NoReturn:
        raise NotImplementedError("a count is never a stream")

    def renderer(self, reply: Reply) -> NoReturn:
        raise NotImplementedError("a count is never a stream")


def _counted(total: Any) -> Answer:
    if isinstance(total, bool) or not isinstance(total, int) or total < 0:
        raise ValueError("no count of tokens")
    return Answer(choices=[], spent=Spent(input=total))
