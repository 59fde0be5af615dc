"""Anthropic's Messages API and its token count, by passthrough. Both API versions: nothing that differs is read here."""

from __future__ import annotations

from typing import Any

import msgspec

from aigw.errors import CODES, GatewayError, UpstreamError
from aigw.exchange import Usage
from aigw.protocols import framing
from aigw.protocols.dialect import Asked, Said, Told, complain, decode_answer, says
from aigw.protocols.openai_chat import Number, whole


class _Head(msgspec.Struct, gc=False):
    model: str
    stream: bool | None = None
    max_tokens: Number = None
    metadata: Any = None


class _CacheWrites(msgspec.Struct, gc=False):
    ephemeral_5m_input_tokens: Number = None
    ephemeral_1h_input_tokens: Number = None


class _OutputDetails(msgspec.Struct, gc=False):
    thinking_tokens: Number = None


class AnthropicUsage(msgspec.Struct, gc=False):
    """Usage as Anthropic writes it."""

    input_tokens: Number = None
    output_tokens: Number = None
    cache_read_input_tokens: Number = None
    cache_creation_input_tokens: Number = None
    cache_creation: _CacheWrites | None = None
    output_tokens_details: _OutputDetails | None = None
    service_tier: str | None = None
    speed: str | None = None


class _Message(msgspec.Struct, gc=False):
    model: str | None = None
    stop_reason: str | None = None
    usage: AnthropicUsage | None = None
    input_tokens: Number = None  # count_tokens answers only this


class _Delta(msgspec.Struct, gc=False):
    stop_reason: str | None = None


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    message: _Message | None = None
    delta: _Delta | None = None
    usage: AnthropicUsage | None = None
    error: Said = msgspec.UNSET


_head = msgspec.json.Decoder(_Head).decode
_message = msgspec.json.Decoder(_Message).decode
_event = msgspec.json.Decoder(_Event).decode
_encode = msgspec.json.encode


def usage_of(seen: AnthropicUsage) -> Usage:
    """Normalised: Anthropic reports input without the cache parts; ours holds them."""
    cached = whole(seen.cache_read_input_tokens)
    written = whole(seen.cache_creation_input_tokens)
    hour = whole(seen.cache_creation.ephemeral_1h_input_tokens) if seen.cache_creation is not None else 0
    return Usage(
        input=whole(seen.input_tokens) + cached + written,
        cached=cached,
        cache_write_5m=max(written - hour, 0),
        cache_write_1h=hour,
        output=whole(seen.output_tokens),
        reasoning=whole(seen.output_tokens_details.thinking_tokens) if seen.output_tokens_details is not None else 0,
        service_tier="fast" if seen.speed == "fast" else seen.service_tier or "",
    )


def usage_with(seen: AnthropicUsage, more: AnthropicUsage) -> Usage:
    """A stream's usage so far: *more* is put into *seen*, number by number, the last one of each kind."""
    for field in AnthropicUsage.__struct_fields__:
        value = getattr(more, field)
        if value is not None:
            setattr(seen, field, value)
    return usage_of(seen)


def _is_last(data: bytes) -> bool:
    try:
        return _event(data).type == "message_stop"
    except (ValueError, RecursionError):
        return False


class AnthropicMessages:
    """The dialect `anthropic_messages`."""

    name = "anthropic_messages"
    names_model = "model"

    def read_request(self, body: bytes) -> Asked:
        try:
            head = _head(body)
        except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
            raise complain(error) from None
        user = head.metadata.get("user_id") if isinstance(head.metadata, dict) else None
        limit = None if head.max_tokens is None else whole(head.max_tokens)
        return Asked(head.model, bool(head.stream), limit, user if isinstance(user, str) else "", wants_usage=True)

    def read_answer(self, body: bytes) -> Told:
        message = decode_answer(_message, body)
        if message is None:
            return Told()
        usage = None
        if message.usage is not None:
            usage = usage_of(message.usage)
        elif message.input_tokens is not None:
            usage = Usage()  # a token count is free: what it counts was not used
        return Told(usage, message.model or "", message.stop_reason or "")

    def tap(self, *, hide_usage: bool) -> MessagesTap:
        return MessagesTap()

    def render_error(self, error: GatewayError, request_id: str) -> bytes:
        kind = CODES[error.code].anthropic_type
        if isinstance(error, UpstreamError) and error.body and not error.code.startswith("provider_credentials"):
            try:
                theirs = msgspec.json.decode(error.body)["error"]["type"]
                kind = theirs if isinstance(theirs, str) else kind
            except (ValueError, TypeError, KeyError, RecursionError):
                pass
        inner = {"type": kind, "message": error.message, "aigw_code": error.code}
        return _encode({"type": "error", "error": inner, "request_id": request_id})

    def render_error_event(self, error: GatewayError, request_id: str) -> bytes:
        return b"event: error\ndata: " + self.render_error(error, request_id) + b"\n\n"


class MessagesTap:
    """Watches a Messages stream: input usage comes in `message_start`, the rest (cumulative) in `message_delta`, which may
    repeat or correct the input. The last number seen of each kind is the one that counts; adding them up would count twice."""

    __slots__ = ("_seen", "begun", "failed", "last", "told")

    def __init__(self) -> None:
        self.told = Told()
        self.failed = b""
        self.begun = False
        self.last = b""
        self._seen = AnthropicUsage()

    def plain(self, block: bytes) -> bool:
        return not (b'"usage"' in block or b'"error"' in block or self.told.finish_reason)

    def look(self, block: bytes) -> bytes:
        if not self.begun and b"content_block_delta" in block:
            self.begun = True
        if b'"usage"' in block or b'"error"' in block:
            at = 0
            for event in framing.split(block):
                self._event(event)
                if self.failed:
                    return block[:at]
                at += len(event)
        if self.told.finish_reason and b"message_stop" in block:
            at = framing.find(block, _is_last)
            if at >= 0:
                self.last, block = block[at:], block[:at]
        return block

    def _event(self, event: bytes) -> None:
        if b'"usage"' not in event and b'"error"' not in event:
            return
        data = framing.data(event)
        try:
            seen = _event(data)
        except (ValueError, RecursionError):
            return
        if says(seen.error) or seen.type == "error":
            self.failed = data
        elif seen.type == "message_start" and seen.message is not None:
            self.told.model = seen.message.model or ""
            self._merge(seen.message.usage)
        elif seen.type == "message_delta":
            if seen.delta is not None:
                self.told.finish_reason = seen.delta.stop_reason or self.told.finish_reason
            self._merge(seen.usage)

    def _merge(self, usage: AnthropicUsage | None) -> None:
        if usage is not None:
            self.told.usage = usage_with(self._seen, usage)
