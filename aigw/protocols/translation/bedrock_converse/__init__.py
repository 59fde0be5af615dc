"""Amazon Bedrock's Converse and ConverseStream, which only providers speak: `upstream.py` writes requests, `answer.py` reads
whole answers, `stream.py` binary streams."""

from __future__ import annotations

from typing import Any

from aigw.canonical import Answer, Losses
from aigw.protocols.dialect import Told
from aigw.protocols.eventstream import CONTENT_TYPE
from aigw.protocols.translation.bedrock_converse import answer, upstream
from aigw.protocols.translation.bedrock_converse.stream import ConverseParser
from aigw.protocols.translation.contract import Toward


class Converse:
    """Implements `Shape`."""

    name = "converse"
    dialect = "bedrock_converse"
    content_type = CONTENT_TYPE
    streams = True

    def render_request(self, request: Any, toward: Toward, losses: Losses) -> bytes:
        return upstream.write(request, toward, losses)

    def parse_answer(self, body: bytes) -> tuple[Answer, Told]:
        return answer.read(body)

    def parser(self) -> ConverseParser:
        return ConverseParser()
