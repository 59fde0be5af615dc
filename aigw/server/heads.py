"""What a request's head may say: HTTP/1.0 or 1.1, one host and that host's paths, no protocol of another kind.

aigw speaks to callers directly or through a proxy that may read the same bytes otherwise. Where two readings are possible the
request is refused, and the connection with it. What aiohttp's parser refuses (two lengths, broken lines) is not
looked at again.
"""

from __future__ import annotations

import re

from aiohttp.http import HttpVersion10, HttpVersion11, RawRequestMessage

from aigw.errors import CallerError

_HOST = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*\Z")  # RFC 3986, host and port, without a user
_NOT_SERVED = frozenset(("CONNECT", "TRACE"))
SESSIONS = frozenset(("/v1/realtime", "/realtime", "/openai/v1/realtime", "/openai/realtime", "/v1/v1/realtime"))
"""The paths that are websockets. The third and fourth are Azure's."""

_UPGRADES = frozenset(("websocket", "tcp"))  # those that aiohttp would switch to; others (h2c) may be overlooked, RFC 9110 7.8


def objection(message: RawRequestMessage) -> CallerError | None:
    """Why this head is not answered; None when it is."""
    headers = message.headers
    version = message.version
    if version not in (HttpVersion11, HttpVersion10):
        return CallerError("caller_invalid_request", "Only HTTP/1.1 and HTTP/1.0 are spoken here.", status=505)
    if message.method in _NOT_SERVED:
        return CallerError("caller_method_not_allowed", f"{message.method} is not served here.")
    host = headers.get("Host", "")
    if not _HOST.match(host):
        return CallerError("caller_invalid_request", "The Host header is no name or address.")
    if message.path[:1] != "/" and message.path != "*" and _authority(message.path) != host.lower():
        return CallerError("caller_invalid_request", "The request names another server than its Host header does.", status=421)
    if version == HttpVersion10 and "Transfer-Encoding" in headers:
        return CallerError("caller_invalid_request", "HTTP/1.0 knows no Transfer-Encoding.")
    if message.upgrade and headers.get("Upgrade", "").lower() in _UPGRADES and not is_session(message):
        return CallerError("caller_invalid_request", "This path speaks HTTP only; it cannot be upgraded to another protocol.")
    return None


def is_session(message: RawRequestMessage) -> bool:
    """Whether this asks for a websocket where one is served."""
    path = message.path.partition("?")[0]
    return path in SESSIONS and message.method == "GET" and message.headers.get("Upgrade", "").lower() == "websocket"


def _authority(target: str) -> str:
    """Of an absolute-form target (`http://host:port/path`); "?" when it is none, which no Host can be."""
    scheme, separator, rest = target.partition("://")
    if not separator or scheme.lower() != "http":
        return "?"
    return re.split(r"[/?#]", rest, maxsplit=1)[0].lower()


def in_origin_form(message: RawRequestMessage) -> RawRequestMessage:
    """The same request with a path for its target, when it came with a whole URL of this server (which RFC 9112 3.2.2 wants
    served)."""
    if message.path[:1] == "/" or message.path == "*":
        return message
    rest = message.path.partition("://")[2]
    start = re.search(r"[/?]", rest)
    path = rest[start.start() :] if start else "/"
    path = path if path.startswith("/") else "/" + path
    return message._replace(path=path, url=message.url.relative())
