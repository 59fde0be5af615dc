"""Usage in what nobody reads otherwise."""

from __future__ import annotations

import pytest

from aigw.errors import InternalError, UpstreamError
from aigw.protocols.raw import Raw, asked

OPENAI = b'{"object":"chat.completion","model":"m","usage":{"prompt_tokens":5,"completion_tokens":2}}'
RESPONSE = b'{"object":"response","status":"completed","model":"m","usage":{"input_tokens":5,"output_tokens":2}}'
ANTHROPIC = b'{"type":"message","model":"m","stop_reason":"end_turn","usage":{"input_tokens":5,"output_tokens":2}}'
GEMINI = b'{"candidates":[],"modelVersion":"m","usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":2}}'


@pytest.mark.parametrize("body", [OPENAI, RESPONSE, ANTHROPIC, GEMINI])
def test_answers(body: bytes) -> None:
    """In each of the shapes."""
    told = Raw().read_answer(body)
    assert told.usage is not None
    assert (told.usage.input, told.usage.output, told.model) == (5, 2, "m")


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"x", b'{"usage":7}', b'{"type":"message"}', b"[" * 10_000])
def test_anything_is_an_answer(body: bytes) -> None:
    """Only its usage is not known."""
    assert Raw().read_answer(body).usage is None


OURS = b'"usage":{"input_tokens":5,"output_tokens":2}'
STREAMS = {
    "openai": [b'data: {"choices":[]}\n\n', b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}\n\n'],
    "responses": [
        b'data: {"type":"response.created","response":{"object":"response","model":"m"}}\n\n',
        b'data: {"type":"response.completed","response":{"object":"response","status":"completed",%b}}\n\n' % OURS,
    ],
    "anthropic": [
        b'data: {"type":"message_start","message":{"model":"m","usage":{"input_tokens":5,"output_tokens":1}}}\n\n',
        b'data: {"type":"message_delta","delta":{},"usage":{"output_tokens":2}}\n\n',
        b'data: {"type":"message_stop"}\n\n',
    ],
    "gemini": [b'data: {"candidates":[],"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":2}}\n\n'],
    "error": [b'data: {"error":{"message":"no"}}\n\n', b"data: more\n\n"],
}


@pytest.mark.parametrize("name", STREAMS)
def test_streams(name: str) -> None:
    """Every byte goes on, errors too; usage is found by whoever held on to `told` from the beginning."""
    tap = Raw().tap(hide_usage=False)
    told = tap.told
    assert b"".join(tap.look(event) for event in [b": hello\n\n", *STREAMS[name]]) == b"".join([b": hello\n\n", *STREAMS[name]])
    assert not tap.last
    assert not tap.failed
    if name != "error":
        assert told.usage is not None
        assert (told.usage.input, told.usage.output) == (5, 2)


def test_what_a_request_says() -> None:
    """As far as it says anything."""
    assert (asked("/v1/x", b'{"model":"m","stream":true}').model, asked("/v1/x", b'{"stream":true}').stream) == ("m", True)
    assert asked("/v1beta/models/gemini-3:streamGenerateContent", b"").model == "gemini-3"
    assert asked("/v1beta/models/gemini-3:streamGenerateContent", b"").stream
    for body in (b"", b"{", b'{"model":7}', b"\xff", b"{" * 5000):
        assert asked("/v1/x", body).model == ""


def test_errors() -> None:
    """The provider's words; else ours."""
    raw = Raw()
    theirs = UpstreamError("provider_rejected", "no", upstream_status=404, body=b'{"theirs":1}')
    assert raw.render_error(theirs, "r") == b'{"theirs":1}'
    assert b"gateway_internal" in raw.render_error(InternalError("gateway_internal", "x"), "r")
