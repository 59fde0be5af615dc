"""OpenAI's Chat Completions and the endpoints that share its shapes: completions, embeddings, images, speech, moderations,
rerank. By passthrough: what is decoded here is only what the walk must know.

Shapes: facts of the OpenAI SDK's types; the usage variants of other hosts (`choices[0].usage`, `x_groq.usage`, DeepSeek's
`prompt_cache_hit_tokens`, Moonshot's `cached_tokens`) are read as well.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from aigw.errors import GatewayError, UpstreamError
from aigw.exchange import Usage
from aigw.protocols import framing
from aigw.protocols.dialect import Asked, Said, Told, complain, decode_answer, openai_error, says

Number = int | float | None

_content = re.compile(rb'"content": ?"[^"]').search


class _Head(msgspec.Struct, gc=False):
    model: str
    stream: bool | None = None
    max_tokens: Number = None
    max_completion_tokens: Number = None
    user: Any = None
    safety_identifier: Any = None
    stream_options: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Details(msgspec.Struct, gc=False):
    cached_tokens: Number = None
    cache_write_tokens: Number = None
    reasoning_tokens: Number = None
    audio_tokens: Number = None
    image_tokens: Number = None


_NONE = _Details()


class OpenAIUsage(msgspec.Struct, gc=False):
    """Every spelling of usage that OpenAI-shaped hosts send."""

    prompt_tokens: Number = None
    completion_tokens: Number = None
    input_tokens: Number = None
    output_tokens: Number = None
    total_tokens: Number = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None
    prompt_cache_hit_tokens: Number = None
    cached_tokens: Number = None
    cost: Any = None
    estimated_cost: Any = None


class _Choice(msgspec.Struct, gc=False):
    finish_reason: str | None = None
    usage: OpenAIUsage | None = None


class _Groq(msgspec.Struct, gc=False):
    usage: OpenAIUsage | None = None


class _Units(msgspec.Struct, gc=False):
    input_tokens: Number = None
    output_tokens: Number = None


class _Meta(msgspec.Struct, gc=False):
    tokens: _Units | None = None
    billed_units: _Units | None = None


class _Answer(msgspec.Struct, gc=False):
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: OpenAIUsage | None = None
    service_tier: str | None = None
    x_groq: _Groq | None = None
    meta: _Meta | None = None


class _Named(msgspec.Struct, gc=False):
    model: str | None = None


class _Failed(msgspec.Struct, gc=False):
    error: Said = msgspec.UNSET
    object: Any = None


_head = msgspec.json.Decoder(_Head).decode
_answer = msgspec.json.Decoder(_Answer).decode
_named = msgspec.json.Decoder(_Named).decode
_failed = msgspec.json.Decoder(_Failed).decode
_encode = msgspec.json.encode


def whole(number: Number) -> int:
    """A token count as an integer; 100.0 is 100, nothing is 0, nonsense is 0."""
    if number is None:
        return 0
    try:
        return int(number)
    except (OverflowError, ValueError):
        return 0


def reported(cost: Any) -> int | None:
    """A cost that the provider reports in dollars, as nano-USD."""
    return int(cost * 1_000_000_000 + 0.5) if isinstance(cost, (int, float)) and 0 <= cost < 1_000_000 else None


def usage_of(seen: OpenAIUsage, tier: str | None = None) -> Usage:
    """Normalised: OpenAI counts cache reads and writes inside the prompt, and reasoning inside the completion."""
    prompt = seen.prompt_tokens if seen.prompt_tokens is not None else seen.input_tokens
    completion = seen.completion_tokens if seen.completion_tokens is not None else seen.output_tokens
    if prompt is None and completion is None:
        prompt = seen.total_tokens  # rerank and some embeddings say only this
    into = seen.prompt_tokens_details or seen.input_tokens_details or _NONE
    out = seen.completion_tokens_details or seen.output_tokens_details or _NONE
    cached = into.cached_tokens
    if cached is None:
        cached = seen.prompt_cache_hit_tokens if seen.prompt_cache_hit_tokens is not None else seen.cached_tokens
    cost = seen.cost if seen.cost is not None else seen.estimated_cost
    usage = Usage(
        input=prompt or 0,  # type: ignore[arg-type]  # a float becomes whole below
        cached=cached or 0,  # type: ignore[arg-type]
        output=completion or 0,  # type: ignore[arg-type]
        service_tier=tier or "",
        reported_cost=None if cost is None else reported(cost),
    )
    if into.cache_write_tokens:
        usage.cache_write_5m = whole(into.cache_write_tokens)
    if into.audio_tokens:
        usage.audio_input = whole(into.audio_tokens)
    if into.image_tokens:
        usage.image_input = whole(into.image_tokens)
    if out.reasoning_tokens:
        usage.reasoning = whole(out.reasoning_tokens)
    if out.audio_tokens:
        usage.audio_output = whole(out.audio_tokens)
    if out.image_tokens:
        usage.image_output = whole(out.image_tokens)
    if (usage.input + usage.cached + usage.output).__class__ is not int:
        usage.input, usage.cached, usage.output = whole(usage.input), whole(usage.cached), whole(usage.output)
    return usage


def _told(answer: _Answer) -> Told:
    told = Told(model=answer.model or "")
    seen = answer.usage
    if answer.choices:
        told.finish_reason = answer.choices[0].finish_reason or ""
        if seen is None:
            seen = answer.choices[0].usage
    if seen is None and answer.x_groq is not None:
        seen = answer.x_groq.usage
    if seen is not None:
        told.usage = usage_of(seen, answer.service_tier)
    elif answer.meta is not None:
        units = answer.meta.tokens or answer.meta.billed_units
        if units is not None and (units.input_tokens is not None or units.output_tokens is not None):
            told.usage = Usage(input=whole(units.input_tokens), output=whole(units.output_tokens))
    return told


class OpenAIChat:
    """The dialect `openai_chat`."""

    name = "openai_chat"
    names_model = "model"

    def read_request(self, body: bytes) -> Asked:
        try:
            head = _head(body)
        except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
            raise complain(error) from None
        limit = head.max_completion_tokens if head.max_completion_tokens is not None else head.max_tokens
        user = head.user or head.safety_identifier
        return Asked(
            head.model,
            bool(head.stream),
            None if limit is None else whole(limit),
            user if isinstance(user, str) else "",
            head.stream_options is not msgspec.UNSET,
        )

    def read_answer(self, body: bytes) -> Told:
        answer = decode_answer(_answer, body)
        return Told() if answer is None else _told(answer)

    def tap(self, *, hide_usage: bool) -> ChatTap:
        return ChatTap(hide_usage)

    def render_error(self, error: GatewayError, request_id: str) -> bytes:
        return _encode(openai_error(error, request_id, _error_object(error)))

    def render_error_event(self, error: GatewayError, request_id: str) -> bytes:
        return b"data: " + self.render_error(error, request_id) + b"\n\n"


def _error_object(error: GatewayError) -> Any:
    """The error object of the provider's own body, when it is OpenAI-shaped and its words may reach the caller."""
    if not isinstance(error, UpstreamError) or not error.body or error.code.startswith("provider_credentials"):
        return None
    try:
        return msgspec.json.decode(error.body).get("error")
    except (ValueError, AttributeError, RecursionError):
        return None


def _is_last(data: bytes) -> bool:
    return data.strip() == b"[DONE]"


class ChatTap:
    """Watches a chat (or completions, images, speech) stream. Three byte searches a block; JSON only where one hits."""

    __slots__ = ("_hide", "_introduced", "begun", "failed", "last", "told")

    def __init__(self, hide_usage: bool) -> None:
        self.told = Told()
        self.failed = b""
        self.begun = False
        self.last = b""
        self._hide = hide_usage
        self._introduced = False

    def plain(self, block: bytes) -> bool:
        return not (
            b'"error"' in block
            or b'"usage":{' in block
            or b'"finish_reason":"' in block
            or b'"usage": {' in block
            or b'"finish_reason": "' in block
            or self.told.finish_reason
        )

    def look(self, block: bytes) -> bytes:
        if b'"error"' in block:
            block = self._before_error(block)
        if not self.begun:
            self._begin(block)
        if b'"usage":{' in block or b'"usage": {' in block:
            block = self._usage(block)
        if b'"finish_reason":"' in block or b'"finish_reason": "' in block:
            self._finish(block)
        if self.told.finish_reason and b"[DONE]" in block:
            at = framing.find(block, _is_last)
            if at >= 0:
                self.last, block = block[at:], block[:at]
        return block

    def _begin(self, block: bytes) -> None:
        for event in framing.split(block):
            data = framing.data(event)
            if not data.startswith(b"{"):
                continue
            if not self.told.model:
                try:
                    self.told.model = _named(data).model or ""
                except (ValueError, RecursionError):
                    pass
            if b'"choices":[]' in data or b'"choices": []' in data:
                continue  # Azure speaks of its filter first, and names no model there
            # The first delta holds only the role: content is what comes after it, or with it.
            if self._introduced or b'"role"' not in data or _content(data):
                self.begun = True
                return  # what comes later in this block is treated as in a block of its own
            self._introduced = True

    def _usage(self, block: bytes) -> bytes:
        kept = []
        for event in framing.split(block):
            if b'"usage":{' in event or b'"usage": {' in event:
                try:
                    answer = _answer(framing.data(event))
                except (ValueError, RecursionError):
                    kept.append(event)
                    continue
                told = _told(answer)
                if told.usage is not None:
                    self.told.usage = told.usage
                    self.told.model = self.told.model or told.model
                    if self._hide and not answer.choices:
                        continue  # the extra chunk that only we asked for
            kept.append(event)
        return b"".join(kept)

    def _finish(self, block: bytes) -> None:
        for event in framing.split(block):
            if b'"finish_reason":"' in event or b'"finish_reason": "' in event:
                try:
                    answer = _answer(framing.data(event))
                except (ValueError, RecursionError):
                    continue
                told = _told(answer)
                self.told.finish_reason = told.finish_reason or self.told.finish_reason

    def _before_error(self, block: bytes) -> bytes:
        at = 0
        for event in framing.split(block):
            if b'"error"' in event:
                data = framing.data(event)
                try:
                    seen = _failed(data)
                except (ValueError, RecursionError):
                    seen = _Failed()
                if says(seen.error) or seen.object == "error":  # the latter: older vLLM
                    self.failed = data
                    return block[:at]
            at += len(event)
        return block
