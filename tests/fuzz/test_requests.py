"""The partial decoders, both directions: facts or a clean refusal, and the same facts that Python's own decoder finds."""

from __future__ import annotations

import json
from typing import Any

from aigw.errors import CODES, CallerError, UpstreamError
from aigw.protocols import DIALECTS
from tests.fuzz.inputs import fuzzed

WORDS = [
    b'"model":',
    b'"m"',
    b'"stream":true',
    b'"stream":null',
    b'"max_tokens":',
    b"100.0",
    b"1e400",
    b"-5",
    b"1" * 50,
    b"NaN",
]
WORDS += [b'"messages":[]', b'"user":"u"', b'"metadata":{"user_id":"u"}', b'"usage":{', b'"prompt_tokens":1', b'"choices":[{']
WORDS += [
    b'"finish_reason":"stop"',
    b'"stop_reason":"end_turn"',
    b'"status":"completed"',
    b'"error":{"message":"x","type":"t"}',
]
WORDS += [
    b'"code":{"a":[1]}',
    b'"param":"p"',
    b"[" * 1200,
    b"]",
    b"{",
    b"}",
    b"null",
    b"\\ud800",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b",",
]
WORDS += [
    b"sk-planted-0123456789",
    b'"\\u006dodel":"x"',
    b'"input_tokens":2',
    b'"cost":0.5',
    b'"cache_creation":{',
    b"true",
    b"\x00",
]


def second_opinion(data: bytes) -> dict[str, Any] | None:
    """What Python's decoder takes *data* for, numbers left as text; None when it is no JSON object in UTF-8."""
    try:
        value = json.loads(data.decode(), parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def fit_for_the_caller(error: CallerError) -> None:
    assert CODES[error.code].status < 500
    assert error.message.isprintable()
    assert len(error.message) < 300
    assert "planted" not in error.message + str(error.param)


UNNAMED = ("gemini", "gemini_array", "raw")
"""Dialects whose paths name the model and say whether it streams, or nobody does."""


@fuzzed("requests", WORDS, 500)
def test_requests(data: bytes) -> None:
    """Nothing but the promised exceptions; no part of the body in a complaint; error bodies of any shape make ours."""
    seen = second_opinion(data)
    for dialect in DIALECTS.values():
        if dialect.name == "raw":
            continue  # it reads nothing, and its errors have no shape of their own
        try:
            asked = dialect.read_request(data)
        except CallerError as error:
            fit_for_the_caller(error)
        else:
            assert asked.model.__class__ is str
            assert asked.end_user.__class__ is str
            assert asked.max_tokens is None or asked.max_tokens.__class__ is int
            if seen is not None and dialect.name not in UNNAMED:
                assert asked.model == seen["model"]
                assert asked.stream is bool(seen.get("stream"))
        try:
            told = dialect.read_answer(data)
        except ValueError:
            assert seen is None, dialect.name
        else:
            assert told.model.__class__ is str
            assert told.finish_reason.__class__ is str
            if told.usage is not None:
                assert {type(told.usage.input), type(told.usage.output), type(told.usage.cached)} == {int}
        failed = UpstreamError("provider_error", "The provider failed.", body=data)
        body = json.loads(dialect.render_error(failed, "id"))
        assert body["error"]["aigw_code"] == "provider_error"
        assert dialect.render_error_event(failed, "id").endswith(b"]" if dialect.name == "gemini_array" else b"\n\n")
