"""OpenAI's Responses API, by passthrough."""

from __future__ import annotations

from typing import Any

import msgspec

from aigw.errors import GatewayError
from aigw.protocols import framing
from aigw.protocols.dialect import Asked, Said, Told, complain, decode_answer, says
from aigw.protocols.openai_chat import Number, OpenAIChat, OpenAIUsage, usage_of, whole


class _Head(msgspec.Struct, gc=False):
    model: str
    stream: bool | None = None
    max_output_tokens: Number = None
    user: Any = None
    safety_identifier: Any = None


class _Why(msgspec.Struct, gc=False):
    reason: str | None = None


class _Answer(msgspec.Struct, gc=False):
    model: str | None = None
    status: str | None = None
    usage: OpenAIUsage | None = None
    service_tier: str | None = None
    incomplete_details: _Why | None = None


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    response: _Answer | None = None
    error: Said = msgspec.UNSET


_head = msgspec.json.Decoder(_Head).decode
_answer = msgspec.json.Decoder(_Answer).decode
_event = msgspec.json.Decoder(_Event).decode
_encode = msgspec.json.encode


def _told(answer: _Answer) -> Told:
    reason = answer.status or ""
    if answer.incomplete_details is not None and answer.incomplete_details.reason:
        reason = answer.incomplete_details.reason
    usage = None if answer.usage is None else usage_of(answer.usage, answer.service_tier)
    return Told(usage, answer.model or "", reason)


class OpenAIResponses:
    """The dialect `openai_responses`."""

    name = "openai_responses"
    names_model = "model"

    def read_request(self, body: bytes) -> Asked:
        try:
            head = _head(body)
        except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
            raise complain(error) from None
        limit = None if head.max_output_tokens is None else whole(head.max_output_tokens)
        user = head.user or head.safety_identifier
        return Asked(head.model, bool(head.stream), limit, user if isinstance(user, str) else "", wants_usage=True)

    def read_answer(self, body: bytes) -> Told:
        answer = decode_answer(_answer, body)
        return Told() if answer is None else _told(answer)

    def tap(self, *, hide_usage: bool) -> ResponsesTap:
        return ResponsesTap()

    def render_error(self, error: GatewayError, request_id: str) -> bytes:
        return OpenAIChat().render_error(error, request_id)

    def render_error_event(self, error: GatewayError, request_id: str) -> bytes:
        """The stream's own `error` event: code, message and param at the top."""
        fields = msgspec.json.decode(self.render_error(error, request_id))["error"]
        fields["code"] = fields["code"] or error.code
        fields["type"] = "error"
        return b"event: error\ndata: " + _encode(fields) + b"\n\n"


class ResponsesTap:
    """Watches a Responses stream: usage stands in the terminal event (completed, incomplete or failed)."""

    __slots__ = ("begun", "failed", "last", "told")

    def __init__(self) -> None:
        self.told = Told()
        self.failed = b""
        self.begun = False
        self.last = b""

    def plain(self, block: bytes) -> bool:
        return not (b'"response":{' in block or b'"response": {' in block or b'"error"' in block)

    def look(self, block: bytes) -> bytes:
        if not self.begun and b".delta" in block:
            self.begun = True
        if b'"response":{' in block or b'"response": {' in block or b'"error"' in block:
            at = 0
            for event in framing.split(block):
                self._event(event)
                if self.failed:
                    return block[:at]
                if self.told.finish_reason:
                    self.last = block[at:]
                    return block[:at]
                at += len(event)
        return block

    def _event(self, event: bytes) -> None:
        if b'"response":{' not in event and b'"response": {' not in event and b'"error"' not in event:
            return
        data = framing.data(event)
        try:
            seen = _event(data)
        except (ValueError, RecursionError):
            return
        if says(seen.error) or seen.type in ("error", "response.failed"):
            self.failed = data
        if seen.response is not None:
            told = _told(seen.response)
            self.told.model = told.model or self.told.model
            self.told.usage = told.usage or self.told.usage
            if seen.type in ("response.completed", "response.incomplete", "response.failed", "response.cancelled"):
                self.told.finish_reason = told.finish_reason
