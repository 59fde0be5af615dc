"""Answers to what is no exchange: our own error, in the shape the caller seems to speak, as bytes. Nothing of the request is
repeated in them: it may hold a key.
"""

from __future__ import annotations

import re
from http import HTTPStatus

from aigw.errors import GatewayError
from aigw.protocols import DIALECTS
from aigw.server.request_id import new_id

_LOOKED_AT = 8 * 1024
_ANTHROPIC = re.compile(rb"\A[A-Z]+ [^ \r\n]*/messages[/? ]|\nanthropic-version:", re.IGNORECASE)


def dialect_of(head: bytes) -> str:
    """The dialect that a request of these first bytes seems to speak."""
    return "anthropic_messages" if _ANTHROPIC.search(head[:_LOOKED_AT]) else "openai_chat"


def refusal(error: GatewayError, dialect: str = "openai_chat", *, body: bool = True) -> bytes:
    """The whole answer, after which the connection closes. *body*: not to a HEAD."""
    request_id = new_id()
    content = DIALECTS[dialect].render_error(error, request_id)
    lines = [
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}",
        f"x-request-id: {request_id}",
        "content-type: application/json",
        f"x-aigw-error: {error.code}",
        f"content-length: {len(content)}",
        "connection: close",
    ]
    if error.retry_after is not None:
        lines.append(f"retry-after: {max(1, round(error.retry_after))}")
    if error.status == HTTPStatus.METHOD_NOT_ALLOWED:
        lines.append("allow: GET, POST")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (content if body else b"")
