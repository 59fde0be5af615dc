"""OpenAI's Responses in front of every conversation provider, and as the shape of providers (and models) that serve nothing
else.

Nothing is kept here between two requests: what refers to an earlier answer (`previous_response_id`, `conversation`, items by
their id) is refused with the remedy, and works where the provider speaks Responses itself (`routing/stateful.py`).
"""

from __future__ import annotations

from aigw.canonical import Answer, Losses, Request
from aigw.protocols.dialect import Told
from aigw.protocols.translation.contract import Reply, Toward
from aigw.protocols.translation.openai_responses import answer, request, stream


class OpenAIResponses:
    """Implements `Translator`."""

    name = "responses"
    dialect = "openai_responses"
    spelling = request.SPELLING
    content_type = b"text/event-stream"
    streams = True

    def parse_request(self, body: bytes, model: str, *, stream: bool) -> Request:
        return request.parse(body, model, stream=stream)

    def render_request(self, asked: Request, toward: Toward, losses: Losses) -> bytes:
        return request.render(asked, toward, losses)

    def parse_answer(self, body: bytes) -> tuple[Answer, Told]:
        return answer.parse(body)

    def render_answer(self, whole: Answer, reply: Reply) -> bytes:
        return answer.render(whole, reply)

    def parser(self) -> stream.Parser:
        return stream.Parser()

    def renderer(self, reply: Reply) -> stream.Renderer:
        return stream.Renderer(reply)
