"""aiohttp's connection handling, with its edges closed: what is malformed gets a JSON answer that repeats nothing of the
request, a caller who does not read is paused and in the end cut off, and a caller who writes far ahead is dropped.

Tried on aiohttp 3.14.5, which this leans on (its version is locked exactly).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_server import Server

log = logging.getLogger("aigw.server")

PIPELINE = 8
"""Requests one connection may send ahead. A caller that is gone is not seen while reading is paused, which aiohttp does at
32; nobody who waits for answers sends more than one."""


class Front(RequestHandler):
    """One connection of a caller."""

    __slots__ = ("_stall", "on_resume")

    def __init__(self, manager: FrontServer, **settings: Any) -> None:
        super().__init__(manager, **settings)
        self.on_resume: Callable[[], None] | None = None
        self._stall: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if len(self._messages) > PIPELINE:
            log.warning("a caller sent more than %d requests ahead of their answers: connection closed", PIPELINE)
            self.force_close()

    def pause_writing(self) -> None:
        super().pause_writing()
        manager = self._manager
        if isinstance(manager, FrontServer):
            self._stall = self._loop.call_later(manager.stall_timeout, self._stalled)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        resume, self.on_resume = self.on_resume, None
        if resume is not None:
            resume()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        self.on_resume = None
        super().connection_lost(exc)

    def _stalled(self) -> None:
        self._stall = None
        if self.transport is not None:
            log.warning("a caller did not read its answer: connection closed")
            self.transport.abort()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """aiohttp's own answer repeats the offending line, which may hold a key, and logs it."""
        log.debug("refused a malformed request: %s", type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was begun")
        if type(exc).__name__ == "ContentEncodingError":
            status = 400
        ours = status >= 500
        if ours and exc is not None:
            log.error("the server failed on a request: %s", type(exc).__name__)
        error = {
            "message": "The gateway failed on this request; this is a bug of ours." if ours else "This is no valid HTTP/1.1.",
            "type": "server_error" if ours else "invalid_request_error",
            "param": None,
            "code": None,
            "aigw_code": "gateway_internal" if ours else "caller_invalid_request",
        }
        response = web.json_response({"error": error}, status=status)
        response.force_close()
        return response


class FrontServer(Server):
    """Makes a `Front` for each connection. (`Server.__call__` drops all its settings when one of them is wrong.)"""

    stall_timeout = 60.0

    def __call__(self) -> RequestHandler:
        return Front(self, loop=self._loop, **self._kwargs)
