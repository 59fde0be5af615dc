"""The Responses API: usage, status as the reason it ended, and its own kind of error event."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aigw.errors import UpstreamError
from aigw.exchange import Usage
from aigw.protocols.openai_responses import OpenAIResponses

RESPONSES = OpenAIResponses()


@pytest.mark.parametrize(
    ("answer", "usage", "reason"),
    [
        (
            {
                "status": "completed",
                "usage": {
                    "input_tokens": 30,
                    "input_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 3},
                    "output_tokens": 9,
                    "output_tokens_details": {"reasoning_tokens": 4},
                },
                "service_tier": "priority",
            },
            Usage(input=30, cached=20, cache_write_5m=3, output=9, reasoning=4, service_tier="priority"),
            "completed",
        ),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, None, "max_output_tokens"),
        ({"status": "incomplete", "incomplete_details": {"reason": None}}, None, "incomplete"),
        ({"status": "failed", "usage": None, "error": {"code": "server_error"}}, None, "failed"),
        ({"status": "queued", "background": True}, None, "queued"),
        ({"status": 5}, None, ""),
    ],
)
def test_read_answer(answer: dict[str, Any], usage: Usage | None, reason: str) -> None:
    """Usage normalised; why it ended."""
    told = RESPONSES.read_answer(json.dumps(answer).encode())
    assert (told.usage, told.finish_reason) == (usage, reason)


def test_read_request() -> None:
    """Its stream always tells usage: nothing of it is ever ours to hide."""
    asked = RESPONSES.read_request(b'{"model":"m","max_output_tokens":9,"user":"u","stream":true}')
    assert (asked.max_tokens, asked.end_user, asked.stream, asked.wants_usage) == (9, "u", True, True)


def test_an_error_event_has_its_fields_at_the_top() -> None:
    """As the SDK's type has it; `code` is never empty."""
    event = RESPONSES.render_error_event(UpstreamError("provider_connection_lost", "It broke."), "req_1")
    name, data, _, _ = event.split(b"\n")
    assert name == b"event: error"
    assert json.loads(data.removeprefix(b"data: ")) == {
        "type": "error",
        "code": "provider_connection_lost",
        "message": "It broke.",
        "param": None,
        "aigw_code": "provider_connection_lost",
        "request_id": "req_1",
    }


def test_the_first_token() -> None:
    """Comes with the first delta."""
    tap = RESPONSES.tap(hide_usage=False)
    tap.look(b'event: response.created\ndata: {"type":"response.created","response":{"model":"m"}}\n\n')
    assert not tap.begun
    tap.look(b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"x"}\n\n')
    assert tap.begun
