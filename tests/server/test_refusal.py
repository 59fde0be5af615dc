"""Answers to what is no exchange, as bytes."""

from __future__ import annotations

import pytest

from aigw.errors import CallerError, InternalError
from aigw.server.refusal import dialect_of, refusal
from tests.e2e.world import parse


@pytest.mark.parametrize(
    "head",
    [
        b"POST /v1/messages HTTP/1.1\r\n",
        b"POST /anthropic/v1/messages?beta=true HTTP/1.1\r\n",
        b"POST /v1/messages/count_tokens HTTP/1.1\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAnthropic-Version: 2023-06-01\r\n",
    ],
)
def test_anthropics_shape(head: bytes) -> None:
    """By the path, or by its header."""
    assert dialect_of(head) == "anthropic_messages"


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\x16\x03",
        b"POST /v1/chat/completions HTTP/1.1\r\n",
        b"GET /x?a=/messages HTTP/1.1\r\nx: anthropic-version: 1\r\n",
    ],
)
def test_the_other_shape(head: bytes) -> None:
    """Everything else."""
    assert dialect_of(head) in ("openai_chat", "anthropic_messages" if b"?a=/messages" in head else "openai_chat")


def test_an_answer() -> None:
    """Whole, with our id and code, and the connection's end."""
    (answer,) = parse(refusal(InternalError("gateway_overloaded", "Full.", retry_after=1)))
    assert answer.status == 503
    assert answer.headers | {"x-request-id": "", "content-length": ""} == {
        "x-request-id": "",
        "content-type": "application/json",
        "x-aigw-error": "gateway_overloaded",
        "content-length": "",
        "connection": "close",
        "retry-after": "1",
    }
    assert answer.error["request_id"] == answer.id
    assert not answer.cut


def test_shapes() -> None:
    """Each dialect's own; no body for HEAD; what may be sent instead of a method."""
    (answer,) = parse(refusal(CallerError("caller_timeout", "Late."), "anthropic_messages"))
    assert (answer.status, answer.json["type"], answer.error["type"]) == (408, "error", "invalid_request_error")
    data = refusal(CallerError("caller_method_not_allowed", "No."), body=False)
    assert data.endswith(b"\r\n\r\n")
    assert b"\r\nallow: GET, POST\r\n" in data
