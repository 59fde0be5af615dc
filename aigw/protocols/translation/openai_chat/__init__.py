"""OpenAI's Chat Completions, both ways: `request.py` reads callers' requests, `upstream.py` writes those for providers,
`answer.py` has whole answers and `stream.py` streams."""

from __future__ import annotations

from typing import Any, ClassVar

from aigw.canonical import Answer, Losses, Request
from aigw.protocols.dialect import Told
from aigw.protocols.translation.contract import Reply, Toward
from aigw.protocols.translation.openai_chat import answer, request, upstream
from aigw.protocols.translation.openai_chat.stream import ChatParser, ChatRenderer


class OpenAIChat:
    """Implements `Translator`."""

    name = "chat"
    dialect = request.DIALECT
    spelling: ClassVar[dict[str, str]] = {
        "max_tokens": "max_completion_tokens",
        "parallel": "parallel_tool_calls",
        "reasoning": "reasoning_effort",
        "format": "response_format",
        "cache_key": "prompt_cache_key",
        "include_usage": "stream_options",
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

    def parser(self) -> ChatParser:
        return ChatParser()

    def renderer(self, reply: Reply) -> ChatRenderer:
        return ChatRenderer(reply)
