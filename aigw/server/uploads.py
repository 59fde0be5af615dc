"""Bodies that are passed on while they arrive: the `Upload` of an exchange, from a caller's connection.

A small one is held whole, and is then a body like any other: it can be sent again with another key. Of a larger one only its
beginning is held, until the provider is found; the rest is read as fast as the provider takes it, and no faster. So its size
costs no memory, and what has begun to go out cannot be tried again.
"""

from __future__ import annotations

import asyncio
import re

from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import PayloadAccessError, RequestPayloadError
from multidict import CIMultiDictProxy

from aigw.errors import CallerError
from aigw.protocols.forms import Form, boundary_of
from aigw.server.front import Front, Payload
from aigw.server.repeat import Whole
from aigw.server.sink import HttpSink

HELD = 512 * 1024
"""Bytes that are held before a provider is asked: of a shorter body all."""

SOUGHT = 32 * 1024 * 1024
"""Bytes of files that are held until the form names its model. Speech comes in files of at most 25 MB (OpenAI's limit), and
curl's users write the file first."""

_TYPE = re.compile(r"[ -~]{1,1024}")


class Streamed:
    """Implements `exchange.Upload`. Called as the walk calls for a body, it says whether the head alone is welcome."""

    def __init__(
        self, front: Front, headers: CIMultiDictProxy[str], payload: Payload, sink: HttpSink, most: int, *, named: bool
    ) -> None:
        """*most* bytes are taken. *named*: it is a form that names its model."""
        self._front, self._headers, self._payload, self._sink, self._most = front, headers, payload, sink, most
        self._named = named
        self._blocks: list[bytes] = []
        self._form: Form | None = None
        self._model: bytes | None = None  # instead of the one it names
        self._ended = False
        self._waited = 0.0  # seconds for the caller
        self._asked = False
        self.content_type = headers.get("Content-Type", "")
        self.size = 0
        self.begun = False
        self.length: int | None = None

    async def __call__(self) -> bytes:
        """The body that the exchange keeps: none. Raises CallerError for what the head says; reads nothing yet."""
        headers = self._headers
        if headers.get("Expect", "100-continue").lower() != "100-continue":
            raise self._refused("caller_expectation_failed", "The only expectation that can be met is 100-continue.")
        if headers.get("Content-Encoding", "identity").lower() != "identity":
            raise self._refused(
                "caller_unsupported_media_type", "Compressed request bodies are not accepted. Send it uncompressed."
            )
        if self.content_type and not _TYPE.fullmatch(self.content_type):
            raise self._refused("caller_unsupported_media_type", "The content type must be printable ASCII.")
        length = headers.get("Content-Length")
        if isinstance(self._payload, Whole):
            self.length = len(self._payload.body)
        elif length is not None:
            self.length = int(length)
        elif self._payload is EMPTY_PAYLOAD:
            self.length = 0
        if self.length is not None and self.length > self._most:
            raise self._too_large()
        if self._named:
            try:
                self._form = Form(boundary_of(self.content_type))
            except CallerError as error:
                raise self._refused(error.code, error.message) from None
        return b""

    @property
    def fields(self) -> dict[str, str]:
        return {} if self._form is None else self._form.fields

    async def open(self) -> None:
        """Take in the beginning: all of a small body; of a form until it has named its model."""
        if isinstance(self._payload, Whole):
            self._blocks, self.size, self._ended = [self._payload.body], len(self._payload.body), True
            self._look(self._payload.body)
        form = self._form
        while not self._ended:
            if self.size >= HELD and (form is None or (form.at is not None and form.files) or form.ended):
                break
            if self.size >= SOUGHT:
                raise self._refused(
                    "caller_invalid_request",
                    f"The form does not name its `model` in its first {SOUGHT // 2**20} MiB. Write that field before files.",
                )
            block = await self._next()
            if block:
                self._blocks.append(block)
        if self._ended:
            self.length = self.size

    def held(self) -> bytes:
        """What has been read so far."""
        if len(self._blocks) > 1:
            self._blocks = [b"".join(self._blocks)]
        return self._blocks[0] if self._blocks else b""

    def rename(self, model: str) -> None:
        if self._form is None or self._form.at is None:
            return
        self._model = model.encode()

    def whole(self) -> bytes | None:
        return self._renamed(self.held()) if self._ended and not self.begun else None

    @property
    def sent_length(self) -> int | None:
        if self.length is None or self._model is None or self._form is None or self._form.at is None:
            return self.length
        start, end = self._form.at
        return self.length - (end - start) + len(self._model)

    async def read(self) -> bytes:
        if self._blocks:
            self.begun = True
            first = self._renamed(self.held())
            self._blocks = []
            return first
        while not self._ended:
            block = await self._next()
            if block:
                self.begun = True
                return block
        return b""

    def _renamed(self, body: bytes) -> bytes:
        if self._model is None or self._form is None or self._form.at is None:
            return body
        start, end = self._form.at
        return b"".join((body[:start], self._model, body[end:]))

    async def _next(self) -> bytes:
        """The next block; b"" at the end. Only the time that the caller takes counts: a provider may be slow."""
        payload, settings = self._payload, self._front.settings
        assert not isinstance(payload, Whole)
        if payload.at_eof():
            self._ended = True
            return b""
        if not self._asked:
            self._asked = True
            if "Expect" in self._headers and not payload.is_eof() and self._front.transport is not None:
                self._front.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(settings.body_timeout):
                block = await payload.readany()
        except (RequestPayloadError, PayloadAccessError):
            raise self._refused("caller_invalid_request", "The request's body is not framed as its head says.") from None
        except TimeoutError:
            raise self._refused("caller_timeout", "The request's body did not come in time.") from None
        self._waited += clock() - began
        self.size += len(block)
        if self.size > self._most:
            raise self._too_large()
        if self._waited > settings.body_timeout + self.size / settings.body_rate:
            raise self._refused("caller_timeout", "The request's body did not come in time.")
        if block:
            self._look(block)
        return block

    def _look(self, block: bytes) -> None:
        if self._form is None:
            return
        try:
            self._form.feed(block)
        except CallerError:
            self._sink.keep_alive = self._sink.keep_alive and self._payload.is_eof()
            raise

    def _refused(self, code: str, message: str) -> CallerError:
        """The rest is not worth reading: unless all of it is here, the connection ends with the refusal."""
        self._sink.keep_alive = self._sink.keep_alive and self._payload.is_eof()
        return CallerError(code, message)

    def _too_large(self) -> CallerError:
        return self._refused(
            "caller_body_too_large", f"The upload is larger than {self._most // 2**20} MiB ([server] max_upload)."
        )
