"""What is passed through raw: any path of a provider's, in whatever shape it is. Only the usage is looked for, as OpenAI,
Anthropic and Gemini write it, in JSON and in event streams. What is none of these is passed on unread.
"""

from __future__ import annotations

import re

import msgspec

from aigw.errors import GatewayError, UpstreamError
from aigw.protocols import framing
from aigw.protocols.anthropic_messages import AnthropicMessages
from aigw.protocols.dialect import Asked, Dialect, Tap, Told
from aigw.protocols.gemini import Gemini
from aigw.protocols.openai_chat import OpenAIChat
from aigw.protocols.openai_responses import OpenAIResponses

_MODEL = re.compile(r"/models/([^/:?]+)")
_OPENAI, _RESPONSES, _ANTHROPIC, _GEMINI = OpenAIChat(), OpenAIResponses(), AnthropicMessages(), Gemini()


class _Head(msgspec.Struct, gc=False):
    model: object = None
    stream: object = None


_head = msgspec.json.Decoder(_Head).decode


def asked(path: str, body: bytes) -> Asked:
    """What a request says of itself, as far as it does: nothing has to be said."""
    found = _MODEL.search(path)
    model, stream = found[1] if found else "", ":stream" in path
    if body[:1] == b"{":
        try:
            head = _head(body)
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            head = _Head()
        model = head.model if isinstance(head.model, str) else model
        stream = stream or head.stream is True
    return Asked(model, stream, wants_usage=True)


def _dialect_of(body: bytes) -> Dialect:
    """Whose answer, or event, this seems to be."""
    if b'"usageMetadata"' in body or b'"candidates"' in body:
        return _GEMINI
    if b'"stop_reason"' in body or b'"message_start"' in body or b'"type":"message"' in body or b'"type": "message"' in body:
        return _ANTHROPIC if b'"object"' not in body[:4096] else _RESPONSES
    if b'"object":"response"' in body or b'"object": "response"' in body or b'"type":"response.' in body:
        return _RESPONSES
    return _RESPONSES if b'"type": "response.' in body else _OPENAI


class Raw:
    """The dialect `raw`."""

    name = "raw"
    names_model = ""  # nothing is replaced in what is passed through as it is

    def read_request(self, body: bytes) -> Asked:
        return asked("", body)

    def read_answer(self, body: bytes) -> Told:
        """Whatever it is, it is an answer."""
        try:
            return _dialect_of(body).read_answer(body)
        except ValueError:
            return Told()

    def tap(self, *, hide_usage: bool) -> RawTap:
        return RawTap()

    def render_error(self, error: GatewayError, request_id: str) -> bytes:
        """The provider's own words where it said something; else ours, as OpenAI writes them."""
        if isinstance(error, UpstreamError) and error.body:
            return error.body
        return _OPENAI.render_error(error, request_id)

    def render_error_event(self, error: GatewayError, request_id: str) -> bytes:
        return _OPENAI.render_error_event(error, request_id)


class RawTap:
    """Watches a stream for usage, and changes nothing of it: neither an error nor an end is ours to read. It takes the dialect
    of the first event that shows one."""

    __slots__ = ("_tap", "begun", "failed", "last", "told")

    def __init__(self) -> None:
        self.told = Told()
        self.failed = self.last = b""
        self.begun = False
        self._tap: Tap | None = None

    def plain(self, block: bytes) -> bool:
        return False

    def look(self, block: bytes) -> bytes:
        self.begun = True
        if self._tap is None:
            if not any(framing.data(event) for event in framing.split(block)):
                return block
            self._tap = _dialect_of(block).tap(hide_usage=False)
        if not self._tap.failed and not self._tap.last:
            self._tap.look(block)
            told = self._tap.told
            self.told.usage, self.told.model, self.told.finish_reason = told.usage, told.model, told.finish_reason
        return block
