"""Triton's generate extension (`/v2/models/{model}/generate`, `generate_stream`), for providers only: a text in, a text out.

Facts: Triton's protocol extension "generate" and its vLLM backend, whose sampling parameters are those of `_WORDS`. The server
knows no roles: a conversation is told as one text. It reports no tokens.
"""

from __future__ import annotations

from typing import Any

import msgspec

from aigw.canonical import Answer, Choice, Event, Losses, Request, Text
from aigw.protocols.dialect import Said, Told, decode_leniently, says
from aigw.protocols.translation.contract import Toward
from aigw.protocols.translation.plain import EventParser, lose_all_but, refuse_tools, transcript

_WHO = "A model behind Triton's generate"
_WORDS = ("max_tokens", "temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty")
SAID = frozenset({*_WORDS, "stop"})

_encode = msgspec.json.encode


class Triton:
    """Implements `Shape`."""

    name = "triton"
    dialect = "triton"
    content_type = b"text/event-stream"
    streams = True

    def render_request(self, request: Request, toward: Toward, losses: Losses) -> bytes:
        refuse_tools(request, losses, _WHO)
        parameters: dict[str, Any] = {"stream": toward.stream}
        for name in _WORDS:
            value = getattr(request, name)
            if value is not None:
                parameters[name] = value
        if request.stop:
            parameters["stop"] = request.stop
        extra = request.extras.get("parameters")
        if isinstance(extra, dict):
            parameters |= extra
        lose_all_but(request, losses, SAID, taken=("parameters",))
        return _encode({"text_input": transcript(request, losses, _WHO), "parameters": parameters})

    def parse_answer(self, body: bytes) -> tuple[Answer, Told]:
        said = decode_leniently(body)
        text, model = said.get("text_output"), said.get("model_name")
        if isinstance(text, list) and all(isinstance(one, str) for one in text):
            text = "".join(text)
        if not isinstance(text, str):
            raise ValueError("an answer without text_output")  # noqa: TRY004 - it is no such answer
        answer = Answer(model=model if isinstance(model, str) else "", choices=[Choice([Text(text)])])
        return answer, Told(None, answer.model, "stop")

    def parser(self) -> TritonParser:
        return TritonParser()


class _Event(msgspec.Struct, gc=False):
    model_name: str | None = None
    text_output: str | list[str] | None = None
    error: Said = msgspec.UNSET


_event = msgspec.json.Decoder(_Event).decode


class TritonParser(EventParser):
    """Implements `StreamParser`. Nothing marks the end but the end itself."""

    def look(self, data: bytes, events: list[Event]) -> None:
        try:
            event = _event(data)
        except (ValueError, RecursionError):
            return
        if says(event.error):
            self.failed = data
            return
        if event.text_output is None:
            return
        self.starts(events, model=event.model_name or "")
        text = event.text_output
        self.says(text if isinstance(text, str) else "".join(text), events)

    def end(self) -> list[Event]:
        events = super().end()
        if self._started and not self.failed:
            self.finish("stop", events)
            self.done = True
        return events
