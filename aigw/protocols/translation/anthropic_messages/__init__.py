"""Anthropic's Messages, both ways: `request.py` reads callers', `upstream.py` writes providers', `answer.py` whole answers,
`stream.py` streams, `models.py` knows what which Claude refuses."""

from __future__ import annotations

from typing import Any, ClassVar

from aigw.canonical import Answer, Losses, Request
from aigw.protocols.dialect import Told
from aigw.protocols.translation.anthropic_messages import answer, blocks, request, upstream
from aigw.protocols.translation.anthropic_messages.parser import MessagesParser
from aigw.protocols.translation.anthropic_messages.renderer import MessagesRenderer
from aigw.protocols.translation.contract import Reply, Toward


class Messages:
    """Implements `Translator`."""

    name = "messages"
    dialect = blocks.DIALECT
    spelling: ClassVar[dict[str, str]] = {
        "stop": "stop_sequences",
        "parallel": "tool_choice.disable_parallel_tool_use",
        "reasoning": "thinking",
        "format": "output_config.format",
        "user": "metadata.user_id",
        "cache": "cache_control",
    }
    content_type = b"text/event-stream"
    streams = True

    def parse_request(self, body: bytes, model: str, *, stream: bool) -> Request:
        return request.read(body, model, stream=stream)

    def render_request(self, request: Any, toward: Toward, losses: Losses) -> bytes:
        return upstream.write(request, toward, losses)

    def parse_answer(self, body: bytes) -> tuple[Answer, Told]:
        return answer.read(body)

    def render_answer(self, said: Any, reply: Reply) -> bytes:
        return answer.write(said, reply)

    def parser(self) -> MessagesParser:
        return MessagesParser()

    def renderer(self, reply: Reply) -> MessagesRenderer:
        return MessagesRenderer(reply)
