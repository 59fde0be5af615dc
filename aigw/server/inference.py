"""The data port's hot path: which operation a path asks for, one exchange for each request, and its body once it is welcome."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple, Protocol
from urllib.parse import parse_qs, unquote

from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import PayloadAccessError, RequestPayloadError
from multidict import CIMultiDict, CIMultiDictProxy

from aigw.errors import CallerError
from aigw.exchange import Exchange
from aigw.gateway import Gateway
from aigw.protocols import DIALECTS
from aigw.protocols.operations import OPERATIONS, RAW, Operation
from aigw.server import forwarded, hosts, objects, raw
from aigw.server.front import Front, Payload
from aigw.server.refusal import refusal
from aigw.server.repeat import Whole
from aigw.server.request_id import new_id
from aigw.server.sink import HttpSink
from aigw.server.uploads import Streamed

_BY_PATH = {
    operation.path: operation
    for operation in OPERATIONS.values()
    if operation.door and operation.method == "POST" and "{" not in operation.path
}
JSON = "application/json"
_EXACT = {"/v1" + path: operation for path, operation in _BY_PATH.items()}

PREFIXES = frozenset({"v1", "openai", "anthropic", "api", "v1beta"})
"""Leading path segments that clients write in every combination (base URLs with and without /v1, or twice)."""

_BY_METHOD = {
    operation.path.rpartition(":")[2]: operation
    for operation in OPERATIONS.values()
    if operation.door and operation.path.startswith("/models/{model}:")
}
_NAMED = re.compile(r"/models/(.+)(?::|%3[Aa])([A-Za-z]+)\Z")  # what stands behind a name's last colon


_OTHERWISE = re.compile(r"/(?:v1/|v1beta/)?(?:models|realtime|usage|dashboard)(?:/|\Z)")
"""Paths behind a prefix that is also a provider's name, which the application answers."""


class Holder(Protocol):
    """Where the running gateway is found: a reload swaps it between two requests."""

    gateway: Gateway


class Named(NamedTuple):
    """What a path asks for. Gemini's paths say the model and whether a stream is wanted, too."""

    operation: Operation | None
    model: str = ""
    stream: bool = False


def operation_at(path: str) -> Operation | None:
    """The operation that *path* (as it came, with its query) asks for; lenient about prefixes and slashes."""
    return _EXACT.get(path) or asked_at(path).operation


def asked_at(path: str) -> Named:
    """All that *path* (as it came, with its query) asks for."""
    path, _, query = path.partition("?")
    segments = [segment for segment in path.split("/") if segment]
    while segments and segments[0] in PREFIXES:
        del segments[0]
    rest = "/" + "/".join(segments)
    found = _BY_PATH.get(rest)
    if found is not None:
        return Named(found)
    match = _NAMED.match(rest)
    found = None if match is None else _BY_METHOD.get(match[2])
    if match is None or found is None:
        return Named(None)
    if found.name == "generate_array":
        by_events = "sse" in parse_qs(query).get("alt", ())
        return Named(OPERATIONS["generate"] if by_events else found, unquote(match[1]), stream=True)
    return Named(found, unquote(match[1]))


def with_key(path: str, headers: CIMultiDictProxy[str]) -> CIMultiDictProxy[str]:
    """*headers*, and among them the key that Gemini's callers may write into the query (`?key=`)."""
    query = path.partition("?")[2]
    if "key=" not in query:
        return headers
    key = parse_qs(query).get("key", [""])[0].strip()
    if not key or "x-goog-api-key" in headers:
        return headers
    every = CIMultiDict(headers)
    every["x-goog-api-key"] = key
    return CIMultiDictProxy(every)


class Asks:
    """What a head says of its request. A connection that repeats its head has it read once."""

    __slots__ = (
        "agent",
        "form",
        "headers",
        "item",
        "model",
        "object_id",
        "operation",
        "patience",
        "plain",
        "query",
        "raw",
        "stranger",
        "stream",
    )

    def __init__(
        self,
        operation: Operation,
        headers: CIMultiDictProxy[str],
        *,
        model: str = "",
        stream: bool = False,
        object_id: str = "",
        query: str = "",
        item: str = "",
        raw: tuple[str, str, str] | None = None,
    ) -> None:
        """*model* and *stream*: where the path says them. *raw*: a provider, the method and its path."""
        self.operation = operation
        self.headers, self.model, self.stream = headers, model, stream
        self.object_id, self.query, self.item, self.raw = object_id, query, item, raw
        self.form = operation.form and (raw is not None or _is_form(headers.get("Content-Type", "")))
        self.agent = headers.get("User-Agent", "")[:200]
        self.patience = _seconds(headers.get("x-stainless-timeout", ""))
        self.plain = headers.get("Content-Type") == JSON and "Content-Encoding" not in headers
        self.stranger = hosts.objection(headers)  # who has no key must not be


class Inference:
    """Answers requests for a model: the `Exchanges` of the front."""

    def __init__(self, holder: Holder) -> None:
        self.holder = holder

    def read(self, message: RawRequestMessage) -> Asks | None:
        operation = _EXACT.get(message.path) if message.method == "POST" else None
        if operation is not None:
            return Asks(operation, message.headers)
        kept = objects.named(message.method, message.path, PREFIXES)
        if kept is not None and kept.operation is not None and (message.method != "POST" or operation_at(message.path) is None):
            return Asks(kept.operation, message.headers, object_id=kept.object_id, query=kept.query, item=kept.item)
        operation, model, stream = asked_at(message.path)
        if operation is None and kept is None:
            return self._raw(message)
        if operation is None or message.method != "POST":
            return None
        return Asks(operation, with_key(message.path, message.headers), model=model, stream=stream)

    def _raw(self, message: RawRequestMessage) -> Asks | None:
        """A path of some provider's own, when it begins with that one's name."""
        found = raw.named(message.method, message.path, self.holder.gateway.open_to_raw)
        if found is None or (found.provider in PREFIXES and _OTHERWISE.match(found.path)):
            return None
        if not self.holder.gateway.keyless and objects.named(message.method, found.path, PREFIXES) is not None:
            return None  # what consumers keep is theirs: asked for by its own path, where that is looked after
        passed = (found.provider, message.method, found.path)
        return Asks(RAW, with_key(message.path, message.headers), query=found.query, raw=passed)

    async def serve(self, front: Front, message: RawRequestMessage, payload: Payload, asks: Asks) -> bool:
        gateway = self.holder.gateway
        operation = asks.operation
        if gateway.keyless and asks.stranger is not None:
            if front.transport is not None:
                front.transport.write(refusal(asks.stranger, operation.dialect))
            return False
        trusted = front.settings.trusted
        address = forwarded.caller(front.address, asks.headers, trusted) if trusted else front.address
        exchange = Exchange(
            new_id(),
            time.time(),
            operation=operation.name,
            dialect=operation.dialect,
            headers=asks.headers,
            requested_model=asks.model,
            stream=asks.stream,
            address=address,
            started=time.perf_counter(),
            patience=asks.patience,
        )
        if asks.object_id:
            exchange.object_id, exchange.query, exchange.item = asks.object_id, asks.query, asks.item
        elif operation.placed or asks.raw is not None:
            exchange.query, exchange.raw = asks.query, asks.raw
        if gateway.keeps_address:
            exchange.client_ip = address
        if gateway.keeps_agent:
            exchange.client_agent = asks.agent
        sink = HttpSink(front, message, exchange.id)
        receive: Upload | Streamed | None = None
        if asks.plain and asks.raw is None and isinstance(payload, Whole) and len(payload.body) <= gateway.max_body:
            exchange.body = payload.body
        elif asks.form:
            named = not (operation.placed or asks.object_id or asks.raw)
            receive = exchange.upload = Streamed(front, message.headers, payload, sink, gateway.max_upload, named=named)
        else:
            receive = Upload(front, message.headers, payload, sink, gateway.max_body)
        gateway.began()
        try:
            await gateway.pipeline.serve(exchange, sink, receive)
        finally:
            gateway.ended()
        if not sink.started:
            sink.abort()
        return sink.keep_alive


class Upload:
    """A request's body, as the walk asks for it: once, and only when its sender is welcome. What can be refused by the head
    alone is refused before a byte of it is read."""

    __slots__ = ("_front", "_headers", "_max", "_payload", "_sink")

    def __init__(self, front: Front, headers: CIMultiDictProxy[str], payload: Payload, sink: HttpSink, max_body: int) -> None:
        self._front, self._headers, self._payload, self._sink, self._max = front, headers, payload, sink, max_body

    async def __call__(self) -> bytes:
        headers, payload = self._headers, self._payload
        if headers.get("Expect", "100-continue").lower() != "100-continue":
            raise self._refused("caller_expectation_failed", "The only expectation that can be met is 100-continue.")
        kind = headers.get("Content-Type")
        if kind is not None and kind != JSON:
            media = kind.partition(";")[0].strip().lower()
            if media != JSON and not media.endswith("+json"):
                raise self._refused(
                    "caller_unsupported_media_type",
                    "The content type must be application/json. Add the header 'content-type: application/json'.",
                )
        if "Content-Encoding" in headers and headers["Content-Encoding"].lower() != "identity":
            raise self._refused(
                "caller_unsupported_media_type", "Compressed request bodies are not accepted. Send it uncompressed."
            )
        if isinstance(payload, Whole):
            if len(payload.body) > self._max:
                raise self._too_large()
            return payload.body
        length = headers.get("Content-Length")
        if length is not None and int(length) > self._max:
            raise self._too_large()
        if payload is EMPTY_PAYLOAD:
            return b""
        if payload._eof and payload._exception is None:  # noqa: SLF001 - it is all here: `read` would wake the transport
            blocks = payload._buffer  # noqa: SLF001
            body = blocks[0] if len(blocks) == 1 else b"".join(blocks)
            if len(body) > self._max:
                raise self._too_large()
            return body
        return await self._arriving(payload)

    async def _arriving(self, payload: StreamReader) -> bytes:
        """A body that is still on its way."""
        if "Expect" in self._headers and self._front.transport is not None:
            self._front.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        settings = self._front.settings
        clock = asyncio.get_running_loop().time
        began = clock()
        blocks = []
        size = 0
        try:
            async with asyncio.timeout(settings.body_timeout) as patience:
                while not payload.at_eof():
                    block = await payload.readany()
                    size += len(block)
                    if size > self._max:
                        raise self._too_large()
                    blocks.append(block)
                    patience.reschedule(min(clock(), began + size / settings.body_rate) + settings.body_timeout)
        except (RequestPayloadError, PayloadAccessError):
            raise self._refused("caller_invalid_request", "The request's body is not framed as its head says.") from None
        except TimeoutError:
            raise self._refused("caller_timeout", "The request's body did not come in time.") from None
        return b"".join(blocks)

    def _refused(self, code: str, message: str) -> CallerError:
        """The rest of the body is not worth reading: unless all of it is here, the connection ends with the refusal."""
        self._sink.keep_alive = self._sink.keep_alive and self._payload.is_eof()
        return CallerError(code, message)

    def _too_large(self) -> CallerError:
        return self._refused(
            "caller_body_too_large",
            f"The request's body is larger than {self._max // 1024 // 1024} MiB ([server] max_body).",
        )


def _is_form(kind: str) -> bool:
    return kind.partition(";")[0].strip().lower() == "multipart/form-data"


def _seconds(text: str) -> float:
    """A header's number of seconds; 0 (not said) when it is none."""
    try:
        seconds = float(text)
    except ValueError:
        return 0.0
    return seconds if 0 < seconds < 86400 else 0.0


def dialect_of(path: str, headers: Mapping[str, str]) -> str:
    """The dialect that a request seems to speak, where its operation is not known."""
    if "anthropic-version" in headers or path.rstrip("/").endswith("/messages"):
        return "anthropic_messages"
    return "gemini" if path.startswith("/v1beta/") or "x-goog-api-key" in headers else "openai_chat"


def error_response(request: web.BaseRequest, error: CallerError) -> web.Response:
    """An error outside an exchange, in the dialect that the request seems to speak."""
    dialect = DIALECTS[dialect_of(request.path, request.headers)]
    request_id = new_id()
    headers = {"x-request-id": request_id, "x-aigw-error": error.code}
    if error.status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["allow"] = "POST"
    body = dialect.render_error(error, request_id)
    return web.Response(status=error.status, body=body, headers=headers, content_type="application/json")
