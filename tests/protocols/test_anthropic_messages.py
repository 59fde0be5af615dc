"""The Messages API: cache parts are added to the input, cumulative numbers are never added up, a token count is free."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aigw.errors import CallerError, UpstreamError
from aigw.exchange import Usage
from aigw.protocols.anthropic_messages import AnthropicMessages

MESSAGES = AnthropicMessages()


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"input_tokens": 3, "output_tokens": 4}, Usage(input=3, output=4)),
        (
            {"input_tokens": 3, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 50, "output_tokens": 4},
            Usage(input=153, cached=100, cache_write_5m=50, output=4),
        ),
        (
            {
                "input_tokens": 3,
                "cache_read_input_tokens": 0,
                "cache_creation_input_tokens": 50,
                "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 30},
                "output_tokens": 4,
            },
            Usage(input=53, cache_write_5m=20, cache_write_1h=30, output=4),
        ),
        (
            {"input_tokens": 1, "cache_creation_input_tokens": 5, "cache_creation": {"ephemeral_1h_input_tokens": 5}},
            Usage(input=6, cache_write_1h=5),
        ),
        (
            {"input_tokens": 3, "output_tokens": 9, "output_tokens_details": {"thinking_tokens": 5}, "service_tier": "batch"},
            Usage(input=3, output=9, reasoning=5, service_tier="batch"),
        ),
        ({"input_tokens": 3, "cache_read_input_tokens": None, "cache_creation": None, "output_tokens": None}, Usage(input=3)),
        ({"input_tokens": 3.0, "output_tokens": 4.0, "server_tool_use": {"web_search_requests": 1}}, Usage(input=3, output=4)),
        ({"input_tokens": "3"}, None),
        (None, None),
    ],
)
def test_usage(usage: dict[str, Any] | None, expected: Usage | None) -> None:
    """Theirs leaves the cache out of the input, ours holds it."""
    answer = {"model": "claude", "stop_reason": "end_turn", "usage": usage}
    assert MESSAGES.read_answer(json.dumps(answer).encode()).usage == expected


def test_a_token_count_is_free() -> None:
    """What it counts was not used."""
    assert MESSAGES.read_answer(b'{"input_tokens":1234}').usage == Usage()


def test_the_last_number_counts() -> None:
    """However often a stream tells its usage, the sum is never taken; what a later event leaves out stays."""
    tap = MESSAGES.tap(hide_usage=True)

    def look(kind: str, **fields: Any) -> None:
        event = f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()
        assert tap.look(event) == event

    look(
        "message_start", message={"model": "c", "usage": {"input_tokens": 10, "cache_read_input_tokens": 5, "output_tokens": 1}}
    )
    assert tap.told.usage == Usage(input=15, cached=5, output=1)
    look("message_delta", delta={"stop_reason": None}, usage={"output_tokens": 7})
    look("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 9})
    look("message_delta", delta={}, usage={"input_tokens": 12, "output_tokens": 9})
    assert tap.told.usage == Usage(input=17, cached=5, output=9)
    assert (tap.told.model, tap.told.finish_reason) == ("c", "end_turn")
    look("something_new", usage={"output_tokens": 1000})  # an event we do not know says nothing to us
    assert tap.told.usage == Usage(input=17, cached=5, output=9)


def test_a_cancelled_stream_still_has_its_input() -> None:
    """The caller may hang up at any time: what was said until then is known."""
    tap = MESSAGES.tap(hide_usage=False)
    tap.look(b'data: {"type":"message_start","message":{"model":"c","usage":{"input_tokens":10,"output_tokens":1}}}\n\n')
    assert tap.told.usage == Usage(input=10, output=1)
    assert not tap.begun
    tap.look(b'data: {"type":"content_block_start","index":0}\n\ndata: {"type":"content_block_delta","index":0}\n\n')
    assert tap.begun


def test_read_request() -> None:
    """The end user is in the metadata."""
    asked = MESSAGES.read_request(b'{"model":"c","max_tokens":9,"metadata":{"user_id":"u"},"stream":true}')
    assert (asked.max_tokens, asked.end_user, asked.stream, asked.wants_usage) == (9, "u", True, True)
    assert MESSAGES.read_request(b'{"model":"c","metadata":{"user_id":7}}').end_user == ""


def test_errors() -> None:
    """Anthropic's shape; the provider's own type, where it gave one."""
    ours = json.loads(MESSAGES.render_error(CallerError("caller_body_too_large", "Too big."), "req_1"))
    assert ours == {
        "type": "error",
        "error": {"type": "request_too_large", "message": "Too big.", "aigw_code": "caller_body_too_large"},
        "request_id": "req_1",
    }
    body = b'{"type":"error","error":{"type":"billing_error","message":"theirs"}}'
    theirs = json.loads(MESSAGES.render_error(UpstreamError("provider_rejected", "No.", body=body), "req_1"))
    assert theirs["error"]["type"] == "billing_error"
