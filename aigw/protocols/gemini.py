"""Gemini's API (generateContent, countTokens, embedContent), by passthrough. The model and whether the answer is a stream stand
in the path, so a request's body tells neither.

A stream comes as server-sent events (`?alt=sse`), or else as one JSON array whose elements are written as they come: the second
is the dialect `gemini_array`, which differs in nothing else. Streams have no word for their end: the connection's is theirs.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from aigw.errors import CODES, GatewayError, UpstreamError
from aigw.exchange import Usage
from aigw.protocols import framing
from aigw.protocols.dialect import Asked, Said, Told, complain, decode_answer, says
from aigw.protocols.openai_chat import Number, whole


class _Config(msgspec.Struct, gc=False):
    limit: Number = msgspec.field(default=None, name="maxOutputTokens")
    proto_limit: Number = msgspec.field(default=None, name="max_output_tokens")  # protobuf's own spelling is taken as well


class _Head(msgspec.Struct, gc=False):
    config: _Config | None = msgspec.field(default=None, name="generationConfig")
    proto_config: _Config | None = msgspec.field(default=None, name="generation_config")


class _Modality(msgspec.Struct, gc=False, rename="camel"):
    modality: str | None = None
    token_count: Number = None


class GeminiUsage(msgspec.Struct, gc=False, rename="camel"):
    """`usageMetadata`."""

    prompt_token_count: Number = None
    tool_use_prompt_token_count: Number = None
    candidates_token_count: Number = None
    response_token_count: Number = None  # the Live API's word for candidates
    thoughts_token_count: Number = None
    cached_content_token_count: Number = None
    total_token_count: Number = None
    prompt_tokens_details: list[_Modality] | None = None
    candidates_tokens_details: list[_Modality] | None = None
    service_tier: str | None = None


class _Candidate(msgspec.Struct, gc=False, rename="camel"):
    finish_reason: str | None = None


class _Feedback(msgspec.Struct, gc=False, rename="camel"):
    block_reason: str | None = None


class _Answer(msgspec.Struct, gc=False, rename="camel"):
    candidates: list[_Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: GeminiUsage | None = None
    model_version: str | None = None
    total_tokens: Number = None  # countTokens answers this


class _Failed(msgspec.Struct, gc=False):
    error: Said = msgspec.UNSET


_head = msgspec.json.Decoder(_Head).decode
_answer = msgspec.json.Decoder(_Answer).decode
_failed = msgspec.json.Decoder(_Failed).decode
_encode = msgspec.json.encode
_content = re.compile(rb'"(?:text|functionCall|inlineData|executableCode|codeExecutionResult)"').search


def usage_of(seen: GeminiUsage) -> Usage:
    """Normalised. Gemini counts cache reads inside the prompt, what its own tools brought beside it, and thoughts beside the
    candidates - but some servers count them inside: the total tells."""
    tools = whole(seen.tool_use_prompt_token_count)
    prompt = whole(seen.prompt_token_count)
    made = whole(seen.candidates_token_count if seen.candidates_token_count is not None else seen.response_token_count)
    thoughts = whole(seen.thoughts_token_count)
    total = whole(seen.total_token_count)
    inside = thoughts and thoughts <= made and total in (prompt + made, prompt + tools + made)
    usage = Usage(
        input=prompt + tools,
        cached=whole(seen.cached_content_token_count),
        output=made if inside else made + thoughts,
        reasoning=thoughts,
        service_tier=seen.service_tier or "",
    )
    for detail in seen.prompt_tokens_details or ():
        if detail.modality == "AUDIO":
            usage.audio_input += whole(detail.token_count)
        elif detail.modality == "IMAGE":
            usage.image_input += whole(detail.token_count)
    for detail in seen.candidates_tokens_details or ():
        if detail.modality == "AUDIO":
            usage.audio_output += whole(detail.token_count)
        elif detail.modality == "IMAGE":
            usage.image_output += whole(detail.token_count)
    return usage


def _note(told: Told, answer: _Answer) -> None:
    """Add what *answer* tells; in a stream the last word of each kind counts."""
    if answer.usage_metadata is not None:
        told.usage = usage_of(answer.usage_metadata)
    if answer.model_version:
        told.model = answer.model_version
    if answer.candidates:
        told.finish_reason = answer.candidates[0].finish_reason or told.finish_reason
    if answer.prompt_feedback is not None and answer.prompt_feedback.block_reason:
        told.finish_reason = answer.prompt_feedback.block_reason


def rename(body: bytes, model: str) -> bytes:
    """*body* with *model* wherever it names one (embedContent may, batchEmbedContents and countTokens must)."""
    if b'"model"' not in body:
        return body
    try:
        value = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return body  # read_request has complained of it
    name = f"models/{model}"
    requests = value.get("requests")
    for holder in (value, *(requests if isinstance(requests, list) else ()), value.get("generateContentRequest")):
        if isinstance(holder, dict) and "model" in holder:
            holder["model"] = name
    return _encode(value)


class Gemini:
    """The dialect `gemini`."""

    name = "gemini"
    names_model = "modelVersion"

    def read_request(self, body: bytes) -> Asked:
        try:
            head = _head(body)
        except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
            raise complain(error) from None
        limit: Number = None
        for config in (head.config, head.proto_config):
            if config is not None and limit is None:
                limit = config.limit if config.limit is not None else config.proto_limit
        return Asked("", False, None if limit is None else whole(limit), wants_usage=True)

    def read_answer(self, body: bytes) -> Told:
        told = Told()
        answer = decode_answer(_answer, body)
        if answer is not None:
            _note(told, answer)
            if told.usage is None and answer.total_tokens is not None:
                told.usage = Usage()  # a token count is free: what it counts was not used
        return told

    def tap(self, *, hide_usage: bool) -> GeminiTap:
        return GeminiTap()

    def render_error(self, error: GatewayError, request_id: str) -> bytes:
        inner: dict[str, Any] = {
            "code": error.status,
            "message": error.message,
            "status": CODES[error.code].gemini_status,
            "details": [],
        }
        if isinstance(error, UpstreamError) and error.body and not error.code.startswith("provider_credentials"):
            inner |= _their_words(error.body)
        if error.retry_after is not None:
            delay = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{max(1, round(error.retry_after))}s"}
            if not any(isinstance(one, dict) and one.get("@type") == delay["@type"] for one in inner["details"]):
                inner["details"].append(delay)
        inner |= {"aigw_code": error.code, "request_id": request_id}
        return _encode({"error": inner})

    def render_error_event(self, error: GatewayError, request_id: str) -> bytes:
        return b"data: " + self.render_error(error, request_id) + b"\n\n"


class GeminiArray(Gemini):
    """The dialect `gemini_array`: the same, with streams that are one JSON array."""

    name = "gemini_array"

    def tap(self, *, hide_usage: bool) -> ArrayTap:
        return ArrayTap()

    def render_error_event(self, error: GatewayError, request_id: str) -> bytes:
        return b",\r\n" + self.render_error(error, request_id) + b"\n]"


def _their_words(body: bytes) -> dict[str, Any]:
    """Status and details of the provider's own error, where it is of this shape."""
    try:
        value = msgspec.json.decode(body)
        inner = (value[0] if isinstance(value, list) else value)["error"]
        status, details = inner.get("status"), inner.get("details")
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return {}
    found: dict[str, Any] = {}
    if isinstance(status, str) and status.isupper():
        found["status"] = status
    if isinstance(details, list):
        found["details"] = [detail for detail in details if isinstance(detail, dict)]
    return found


class GeminiTap:
    """Watches a stream of server-sent events. Nearly every event has usage, of which the last one counts: one typed decode of
    a block's last event that has it."""

    __slots__ = ("begun", "failed", "last", "told")

    def __init__(self) -> None:
        self.told = Told()
        self.failed = b""
        self.begun = False
        self.last = b""

    def plain(self, block: bytes) -> bool:
        return not (
            b'"usageMetadata"' in block
            or b'"finishReason"' in block
            or b'"error"' in block
            or b'"modelVersion"' in block
            or b'"promptFeedback"' in block
        )

    def look(self, block: bytes) -> bytes:
        if self.plain(block):
            self.begun = self.begun or _content(block) is not None
            return block
        at = 0
        events = list(framing.split(block))
        for index, event in enumerate(events):
            if b'"error"' in event and self._is_error(framing.data(event)):
                if index:
                    self.read(framing.data(events[index - 1]))
                return block[:at]
            # What an event says of usage, those behind it say anew; finish reasons and blocks stand in one alone.
            if index == len(events) - 1 or b'"finishReason"' in event or b'"promptFeedback"' in event:
                self.read(framing.data(event))
            at += len(event)
        self.begun = self.begun or _content(block) is not None
        return block

    def read(self, data: bytes) -> None:
        """Note what one answer of the stream tells."""
        try:
            _note(self.told, _answer(data))
        except (ValueError, RecursionError):
            pass

    def _is_error(self, data: bytes) -> bool:
        try:
            seen = _failed(data)
        except (ValueError, RecursionError):
            return False
        if not says(seen.error):
            return False
        self.failed = data
        return True


_STRUCTURE = re.compile(rb'["\\{}\[\]]')
LARGEST_ELEMENT = 64 * 1024 * 1024
"""Bytes of one element of an array that are held until it is whole; of a longer one nothing is understood."""


class ArrayReader:
    """The elements of one JSON array, from blocks cut anywhere. `ended`: its closing bracket was seen."""

    __slots__ = ("_depth", "_escaped", "_held", "_scanned", "_start", "_string", "ended")

    def __init__(self) -> None:
        self.ended = False
        self._held = bytearray()
        self._scanned = 0  # of what is held
        self._start = -1  # where the element begins that is open
        self._depth = 0
        self._string = self._escaped = False

    def feed(self, block: bytes) -> list[tuple[bytes, bytes]]:
        """The elements that *block* ends, each with the bytes it came in: those since the element before it. After the closing
        bracket one more pair comes, of no element and the bytes up to there and behind."""
        held = self._held
        held += block
        found: list[tuple[bytes, bytes]] = []
        cut = 0
        at = self._scanned
        size = len(held)
        while at < size and not self.ended:
            if self._string:
                at = self._in_string(at)
                continue
            match = _STRUCTURE.search(held, at)
            if match is None:
                break
            at = match.end()
            sign = match[0]
            if sign == b'"':
                self._string = True
            elif sign in b"{[":
                self._depth += 1
                if self._depth == 2:
                    self._start = at - 1
            elif sign in b"}]":
                self._depth -= 1
                if self._depth == 1:
                    found.append((bytes(held[self._start : at]), bytes(held[cut:at])))
                    cut = at
                elif self._depth <= 0:
                    self.ended = True
        if self.ended:
            found.append((b"", bytes(held[cut:])))
            held.clear()
            self._scanned = 0
            return found
        if cut:
            del held[:cut]
            self._start -= cut
        self._scanned = len(held)
        return found

    def _in_string(self, at: int) -> int:
        """Where the string ends that is open at *at*, or the bytes do."""
        held = self._held
        if self._escaped:
            self._escaped = False
            return at + 1
        close = held.find(b'"', at)
        escape = held.find(b"\\", at, close if close >= 0 else len(held))
        if escape >= 0:
            self._escaped = True
            return escape + 1
        if close < 0:
            return len(held)
        self._string = False
        return close + 1

    @property
    def waiting(self) -> int:
        """Bytes of an element that is not whole."""
        return len(self._held)

    @property
    def held(self) -> bytes:
        """What has come of an element that is not whole."""
        return bytes(self._held)


class ArrayTap(GeminiTap):
    """Watches a stream that is a JSON array. `look` takes blocks cut anywhere, and returns whole elements."""

    __slots__ = ("_blind", "_reader")

    def __init__(self) -> None:
        super().__init__()
        self._reader = ArrayReader()
        self._blind = False

    def plain(self, block: bytes) -> bool:
        return False

    def look(self, block: bytes) -> bytes:
        if self._blind:
            return block
        kept = []
        for element, raw in self._reader.feed(block):
            if not element:
                self.last += raw
                break
            if b'"error"' in element and self._is_error(element):
                break
            self.read(element)
            self.begun = self.begun or _content(element) is not None
            kept.append(raw)
        if self._reader.waiting > LARGEST_ELEMENT:
            self._blind = True
            kept.append(self._reader.held)
        return b"".join(kept)
