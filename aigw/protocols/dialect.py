"""What a dialect must answer: bytes in, facts out, and our errors in its shape. No sockets, no providers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import msgspec

from aigw.errors import CODES, CallerError, GatewayError
from aigw.exchange import Usage

T = TypeVar("T")


class Asked(msgspec.Struct, gc=False):
    """What the walk needs to know of a request. `model` "": the path names it, and says whether a stream is wanted.
    `wants_usage`: the caller wrote `stream_options` itself, so its stream stays as the provider sends it."""

    model: str
    stream: bool = False
    max_tokens: int | None = None
    end_user: str = ""
    wants_usage: bool = False


class Told(msgspec.Struct, gc=False):
    """What an answer says of itself."""

    usage: Usage | None = None
    model: str = ""
    finish_reason: str = ""


class Tap(Protocol):
    """Watches one stream go by. `look` is given whole events, as bytes, and returns the bytes to send on: the same, less the
    event that only we asked for, and up to the first error event, whose data is then in `failed`: nothing more is looked at.

    `begun` turns true with the first event that carries content: the first token. `last` is the event that ends the stream by
    the dialect's own word, once it was seen, kept back from what `look` returns: many callers hang up when they have read it,
    so it is sent when all else is done.
    """

    told: Told
    failed: bytes
    begun: bool
    last: bytes

    def plain(self, block: bytes) -> bool:
        """Whether *block*, whole events after the first token, holds content and nothing that `look` would have to see."""

    def look(self, block: bytes) -> bytes:
        """See above."""


class Dialect(Protocol):
    """A wire shape, seen from both sides. Stateless. `names_model` is the member by which an answer names its model."""

    name: str
    names_model: str

    def read_request(self, body: bytes) -> Asked:
        """Raises CallerError when *body* is no request of this dialect."""

    def read_answer(self, body: bytes) -> Told:
        """Raises ValueError when *body* is no JSON object: then it is no answer."""

    def tap(self, *, hide_usage: bool) -> Tap: ...

    def render_error(self, error: GatewayError, request_id: str) -> bytes:
        """The body of an error answer, with the header `x-aigw-error` beside it."""

    def render_error_event(self, error: GatewayError, request_id: str) -> bytes:
        """The events that end a stream that broke after its first byte."""


_anything = msgspec.json.Decoder().decode
_any_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def decode_answer(decode: Callable[[bytes], T], body: bytes) -> T | None:
    """An answer's typed part; None when it is an object with odd types inside (still an answer). Raises ValueError when it is
    no JSON object: then it is no answer."""
    try:
        return _decode_strictly(decode, body)
    except ValueError:
        return _decode_strictly(decode, _mended(body))


def decode_leniently(body: bytes) -> dict[str, Any]:
    """All of a provider's JSON object, odd as its numbers and strings may be. Raises ValueError when it is none."""
    try:
        value = _anything(body)
    except RecursionError:
        raise ValueError("not JSON") from None
    except ValueError:
        value = _anything(_mended(body))
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - it came from outside
    return value


def _mended(body: bytes) -> bytes:
    """*body* in strict JSON, if it is such as Python's own decoder takes: with half of a surrogate pair (JavaScript cuts
    strings so), NaN or Infinity (Python writes them), or a number beyond all bounds. Hosts send these, callers read them, and
    such an answer is paid for. Only for reading facts: what is odd becomes null."""
    try:
        value = json.loads(body, parse_constant=lambda _: None, parse_float=_bounded, parse_int=_bounded)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def _bounded(text: str) -> int | float | None:
    if len(text) < 19 and text.lstrip("-").isdigit():
        return int(text)
    number = float(text)
    return number if math.isfinite(number) else None


def _decode_strictly(decode: Callable[[bytes], T], body: bytes) -> T | None:
    try:
        return decode(body)
    except msgspec.ValidationError:
        try:
            _any_object(body)
        except (ValueError, RecursionError):
            raise ValueError("not a JSON object") from None
        return None
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None


Said = msgspec.Raw | msgspec.UnsetType
"""A member whose value is only asked whether it says anything. (`| None` would make msgspec refuse all but null.)"""

_NOTHING = frozenset({b"null", b'""', b"{}", b"[]", b"false", b"0"})


def says(member: Said) -> bool:
    """Whether a stream's `error` member means one: many hosts send an empty one along with each chunk."""
    return member is not msgspec.UNSET and bytes(member) not in _NOTHING


def complain(error: msgspec.DecodeError | RecursionError | UnicodeError) -> CallerError:
    """A decoder's complaint in words for the caller, never with the body's own bytes."""
    if not isinstance(error, msgspec.ValidationError):
        what = "nested too deeply" if isinstance(error, RecursionError) else "not valid JSON"
        return CallerError("caller_invalid_json", f"The request body is {what}. Send one JSON object.")
    text, _, path = str(error).partition(" - at `$")
    name = path.rstrip("`").lstrip(".")
    if not name:
        if "missing required field" in text:
            missing = text.rpartition("`")[0].rpartition("`")[2]
            message = f"The request has no `{missing}`. Name the model to use."
            return CallerError("caller_invalid_request", message, param=missing)
        return CallerError("caller_invalid_json", "The request body must be a JSON object.")
    if not text.startswith("Expected "):
        return CallerError("caller_invalid_request", f"`{name}` is out of range.", param=name)
    expected = text.replace("`", "").replace("Expected ", "").replace(" | null", "").partition(", got ")
    plain = {"str": "a string", "int": "a number", "float": "a number", "bool": "true or false"}
    plain |= {"object": "an object", "array": "a list"}
    wanted = " or ".join(dict.fromkeys(plain.get(word, word) for word in expected[0].split(" | ")))
    got = plain.get(expected[2], expected[2])
    return CallerError("caller_invalid_request", f"`{name}` must be {wanted}, not {got}.", param=name)


def openai_error(error: GatewayError, request_id: str, body: Any = None) -> dict[str, Any]:
    """Our error as OpenAI's object; the provider's own words (`body`, its error object) win where it gave some."""
    code = CODES[error.code]
    fields: dict[str, Any] = {
        "message": error.message,
        "type": code.openai_type,
        "param": error.param,
        "code": code.openai_code,
    }
    if isinstance(body, dict):
        fields.update({name: value for name, value in body.items() if name in ("type", "param", "code") and value is not None})
    fields["aigw_code"] = error.code
    fields["request_id"] = request_id
    return {"error": fields}
