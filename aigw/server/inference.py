"""The data port's hot path: which operation a path asks for, one exchange for each request, and its body once it is welcome."""

from __future__ import annotations

import secrets
import time
from functools import partial
from http import HTTPStatus
from itertools import count
from typing import Protocol

from aiohttp import web
from aiohttp.web_protocol import RequestPayloadError

from aigw.errors import CallerError
from aigw.exchange import Exchange
from aigw.gateway import Gateway
from aigw.protocols import DIALECTS
from aigw.protocols.operations import OPERATIONS, Operation
from aigw.server.front import Front
from aigw.server.sink import AlreadySent, HttpSink

_BY_PATH = {operation.path: operation for operation in OPERATIONS.values()}
_EXACT = {"/v1" + path: operation for path, operation in _BY_PATH.items()}

PREFIXES = frozenset({"v1", "openai", "anthropic", "api", "v1beta"})
"""Leading path segments that clients write in every combination (base URLs with and without /v1, or twice)."""

_KEPT = AlreadySent(keep_alive=True)
_CLOSED = AlreadySent(keep_alive=False)

_BOOT = secrets.token_hex(6)
_ids = count(1)


class Holder(Protocol):
    """Where the running gateway is found: a reload swaps it between two requests."""

    gateway: Gateway


def new_id() -> str:
    """A request id: unique across processes by its first half, in order within one by its second."""
    return f"req_{_BOOT}{next(_ids):08x}"


def operation_at(path: str) -> Operation | None:
    """The operation that *path* (as it came, with its query) asks for; lenient about prefixes and slashes."""
    found = _EXACT.get(path)
    if found is not None:
        return found
    path = path.partition("?")[0]
    segments = [segment for segment in path.split("/") if segment]
    while segments and segments[0] in PREFIXES:
        del segments[0]
    return _BY_PATH.get("/" + "/".join(segments))


class Inference:
    """Answers one request for a model. `dispatch` hands every other request on to the application."""

    def __init__(self, holder: Holder, application: web.Server) -> None:
        self.holder = holder
        self._application = application.request_handler

    async def dispatch(self, request: web.BaseRequest) -> web.StreamResponse:
        message = request._message  # noqa: SLF001 - the parsed head; the properties cost as much as the routing
        operation = _EXACT.get(message.path) or operation_at(message.path)
        if operation is None or message.method != "POST":
            return await self._application(request)
        gateway = self.holder.gateway
        front = request.protocol
        assert isinstance(front, Front)
        headers = message.headers
        exchange = Exchange(new_id(), operation.name, operation.dialect, b"", headers)
        exchange.started = time.perf_counter()
        exchange.started_at = time.time()
        if gateway.keeps_address:
            peer = front.peername
            exchange.client_ip = peer[0] if isinstance(peer, tuple) else ""
        if gateway.keeps_agent:
            exchange.client_agent = headers.get("User-Agent", "")[:200]
        patience = headers.get("x-stainless-timeout")
        if patience is not None:
            exchange.patience = _seconds(patience)
        sink = HttpSink(front, request, exchange.id)
        gateway.began()
        try:
            await gateway.pipeline.serve(exchange, sink, partial(_receive, request, sink, gateway.max_body))
        finally:
            gateway.ended()
        if not sink.started:
            sink.abort()
        return _KEPT if sink.keep_alive else _CLOSED


async def _receive(request: web.BaseRequest, sink: HttpSink, max_body: int) -> bytes:
    """The request's body. Everything that can be refused by the head alone is refused before a byte of it is read."""
    headers = request._message.headers  # noqa: SLF001
    payload = request._payload  # noqa: SLF001
    kind = headers.get("Content-Type")
    if kind is not None and kind != "application/json":
        media = kind.partition(";")[0].strip().lower()
        if media != "application/json" and not media.endswith("+json"):
            sink.keep_alive = sink.keep_alive and payload.is_eof()
            raise CallerError(
                "caller_unsupported_media_type",
                "The content type must be application/json. Add the header 'content-type: application/json'.",
            )
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        sink.keep_alive = sink.keep_alive and payload.is_eof()
        raise CallerError("caller_unsupported_media_type", "Compressed request bodies are not accepted. Send it uncompressed.")
    length = headers.get("Content-Length")
    if length is not None and int(length) > max_body:
        sink.keep_alive = False
        raise too_large(max_body)
    if payload.is_eof():
        body = payload.read_nowait(-1)
        return body if len(body) <= max_body else _refuse_size(sink, max_body)
    if (expected := headers.get("Expect")) is not None:
        if expected.lower() != "100-continue":
            sink.keep_alive = False
            raise CallerError("caller_expectation_failed", "The only expectation that can be met is 100-continue.")
        if request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    blocks = []
    size = 0
    try:
        while not payload.at_eof():
            block = await payload.readany()
            size += len(block)
            if size > max_body:
                return _refuse_size(sink, max_body)
            blocks.append(block)
    except (RequestPayloadError, web.RequestPayloadError) as error:
        sink.keep_alive = False
        raise CallerError("caller_invalid_request", "The request's body is not framed as its head says.") from error
    return b"".join(blocks)


def _refuse_size(sink: HttpSink, max_body: int) -> bytes:
    sink.keep_alive = False
    raise too_large(max_body)


def too_large(max_body: int) -> CallerError:
    return CallerError(
        "caller_body_too_large",
        f"The request's body is larger than {max_body // 1024 // 1024} MiB ([server] max_body).",
    )


def _seconds(text: str) -> float:
    """A header's number of seconds; 0 (not said) when it is none."""
    try:
        seconds = float(text)
    except ValueError:
        return 0.0
    return seconds if 0 < seconds < 86400 else 0.0


def error_response(request: web.BaseRequest, error: CallerError) -> web.Response:
    """An error outside an exchange, in the dialect that the request seems to speak."""
    anthropic = "anthropic-version" in request.headers or request.path.rstrip("/").endswith("/messages")
    dialect = DIALECTS["anthropic_messages" if anthropic else "openai_chat"]
    request_id = new_id()
    headers = {"x-request-id": request_id, "x-aigw-error": error.code}
    if error.status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["allow"] = "POST"
    body = dialect.render_error(error, request_id)
    return web.Response(status=error.status, body=body, headers=headers, content_type="application/json")
