"""OpenAI's Realtime API, sans-IO: what a gateway must know of a websocket session whose frames it only passes on.

Events are JSON in text frames. Two kinds of them hold usage: `response.done` (each one is billed) and the end of a
transcription of the caller's audio. They are found by their bytes; nothing else is decoded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec

from aigw.exchange import Origin, Usage
from aigw.protocols.operations import Operation

REALTIME = Operation("realtime", "/realtime", "openai_chat", safe=False)
"""No entry of `OPERATIONS`: it is a websocket, which no POST asks for."""

PROTOCOL = "realtime"
"""The sub-protocol that callers offer and we answer with."""

_KEY = "openai-insecure-api-key."
_BETA = "openai-beta."
_PRIVATE = (_KEY, "openai-organization.", "openai-project.")  # of the caller's; never answered, never passed on

NORMAL, AWAY, INVALID_TEXT, POLICY, TOO_BIG, FAILED, TRY_AGAIN = 1000, 1001, 1007, 1008, 1009, 1011, 1013
"""Close codes, RFC 6455 7.4.1 and IANA's registry."""

_SENDABLE = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})
_REASON = 123  # bytes: a control frame has 125, two of them are the code


class Handshake(NamedTuple):
    """How a provider is asked for a session. `path` has its query; it and `headers` may hold the key."""

    origin: Origin
    path: str
    headers: dict[str, str]
    connect_timeout: float = 10.0
    first_byte_timeout: float = 300.0

    def __repr__(self) -> str:
        return f"Handshake({self.origin!r}, {self.path.partition('?')[0]!r})"


class Offer(NamedTuple):
    """What a caller's `Sec-WebSocket-Protocol` says: the sub-protocol to answer with ("": none), the key that a browser puts
    there because it can set no header, and the beta it asks for (as the value of an `OpenAI-Beta` header)."""

    answer: str = ""
    key: str = ""
    beta: str = ""


def offered(header: str) -> Offer:
    """Read a `Sec-WebSocket-Protocol` header. Of what is answered nothing is a secret, whatever was offered."""
    names = [name for name in (part.strip() for part in header.split(",")) if name]
    key = next((name.removeprefix(_KEY) for name in names if name.startswith(_KEY)), "")
    beta = next((name.removeprefix(_BETA) for name in names if name.startswith(_BETA)), "")
    public = [name for name in names if not name.startswith(_PRIVATE)]
    answer = PROTOCOL if PROTOCOL in public else next(iter(public), "")
    return Offer(answer, key, beta.replace("-", "=", 1))


def query(model: str, asked: Mapping[str, str], *, parameter: str = "model") -> str:
    """The query a provider gets: the model under *parameter*, unless the caller joins a call (`call_id`) or wants
    transcriptions (`intent`), which go on in its place."""
    instead = {name: asked[name] for name in ("intent", "call_id") if asked.get(name)}
    return urlencode(instead or {parameter: model})


def passed_on(code: int | None) -> int:
    """The close code that the other side gets for one that came. None, and what may not be sent (RFC 6455 7.4.1: 1005, 1006,
    1015), say that a side went without one: an error of the other's."""
    if code is not None and (code in _SENDABLE or 3000 <= code <= 4999):
        return code
    return NORMAL if code in (0, 1005) else FAILED


def reason(text: str) -> bytes:
    """*text* as a close frame's reason: at most 123 bytes, no half character."""
    return text.encode("utf-8", "replace")[:_REASON].decode("utf-8", "ignore").encode()


# usage

_DONE = b"response.done"
_TRANSCRIBED = b"input_audio_transcription.completed"
_CREATED = b"session.created"
_BEGINNING = 4096  # bytes of an event in which its type stands, where it is no usage that is looked for


class _InputDetails(msgspec.Struct, gc=False):
    cached_tokens: int | None = None
    audio_tokens: int | None = None
    image_tokens: int | None = None


class _OutputDetails(msgspec.Struct, gc=False):
    audio_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_token_details: _InputDetails | None = None
    output_token_details: _OutputDetails | None = None
    input_tokens_details: _InputDetails | None = None  # DashScope's spelling
    output_tokens_details: _OutputDetails | None = None


class _Session(msgspec.Struct, gc=False):
    model: str | None = None


class _Response(msgspec.Struct, gc=False):
    usage: _Usage | None = None


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    response: _Response | None = None
    usage: _Usage | None = None
    session: _Session | None = None


_decode = msgspec.json.Decoder(_Event, strict=False).decode


class Told(NamedTuple):
    """What an event says that is worth keeping: the usage of one answer or transcription, or the session's model. `billed` is
    an answer's end, with or without its usage."""

    usage: Usage | None = None
    model: str = ""
    billed: bool = False


_NOTHING = Told()


def told(event: bytes) -> Told:
    """Read one text frame of a provider's. Costs a search, unless it is one of the three events that are read."""
    if _DONE not in event and _TRANSCRIBED not in event and event.find(_CREATED, 0, _BEGINNING) < 0:
        return _NOTHING
    try:
        read = _decode(event)
    except (msgspec.DecodeError, RecursionError):  # no event of this kind; the caller gets it all the same
        return _NOTHING
    if read.type == "response.done":
        return Told(_normal(read.response.usage if read.response else None), billed=True)
    if read.type.endswith(_TRANSCRIBED.decode()):
        return Told(_normal(read.usage))  # by the second for some models: then there are no tokens
    if read.type == "session.created" and read.session is not None and read.session.model:
        return Told(model=read.session.model)
    return _NOTHING


def _normal(usage: _Usage | None) -> Usage | None:
    """OpenAI's counts in our words. Its input includes the cached part."""
    if usage is None or (usage.input_tokens is None and usage.output_tokens is None):
        return None
    before: Any = usage.input_token_details or usage.input_tokens_details or _InputDetails()
    after: Any = usage.output_token_details or usage.output_tokens_details or _OutputDetails()
    return Usage(
        input=usage.input_tokens or 0,
        output=usage.output_tokens or 0,
        cached=before.cached_tokens or 0,
        audio_input=before.audio_tokens or 0,
        image_input=before.image_tokens or 0,
        audio_output=after.audio_tokens or 0,
        reasoning=after.reasoning_tokens or 0,
    )


def added(total: Usage, more: Usage) -> Usage:
    """Both together."""
    return Usage(
        input=total.input + more.input,
        output=total.output + more.output,
        cached=total.cached + more.cached,
        reasoning=total.reasoning + more.reasoning,
        audio_input=total.audio_input + more.audio_input,
        audio_output=total.audio_output + more.audio_output,
        image_input=total.image_input + more.image_input,
        estimated=total.estimated or more.estimated,
    )
