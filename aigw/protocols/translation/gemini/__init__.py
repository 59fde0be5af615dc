"""Gemini's generateContent, both ways: `request.py` reads callers', `upstream.py` writes providers', `schemas.py` schemas,
`answer.py` whole answers, `stream.py` streams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec

from aigw.canonical import Answer, Losses, Request
from aigw.protocols.dialect import Told
from aigw.protocols.translation.contract import Reply, Toward
from aigw.protocols.translation.gemini import answer, request, upstream
from aigw.protocols.translation.gemini.stream import GeminiParser, GeminiRenderer

_encode = msgspec.json.encode


class Generate:
    """Implements `Translator`: generateContent, its streams as server-sent events."""

    name = "generate"
    dialect = "gemini"
    spelling: ClassVar[Mapping[str, str]] = request.SPELLING
    content_type = b"text/event-stream"
    streams = True

    def parse_request(self, body: bytes, model: str, *, stream: bool) -> Request:
        return request.read(body, model, stream=stream)

    def render_request(self, asked: Any, toward: Toward, losses: Losses) -> bytes:
        return _encode(upstream.write(asked, toward, losses))

    def parse_answer(self, body: bytes) -> tuple[Answer, Told]:
        return answer.read(body)

    def render_answer(self, said: Any, reply: Reply) -> bytes:
        return answer.write(said, reply)

    def parser(self) -> GeminiParser:
        return GeminiParser()

    def renderer(self, reply: Reply) -> GeminiRenderer:
        return GeminiRenderer(reply)


class GenerateArray(Generate):
    """The same, its streams as one JSON array: what callers get who do not say `alt=sse`."""

    name = "generate_array"
    dialect = "gemini_array"
    content_type = b"application/json"

    def renderer(self, reply: Reply) -> GeminiRenderer:
        return GeminiRenderer(reply, array=True)
