"""The operator's plane: metrics, on a listener of its own. Host is checked, so that a web page cannot reach it by rebinding."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.http import RawRequestMessage

from aigw.server.app import unnamed
from aigw.server.front import Front, Payload
from aigw.server.hosts import host_of, is_local

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

Render = Callable[[], Awaitable[tuple[bytes, str]]]
"""What makes the metrics: the text and its content type."""

RENDER: web.AppKey[Render] = web.AppKey("render")
HOST: web.AppKey[str] = web.AppKey("host")


class NoExchanges:
    """Of the front: nothing here is a request for a model."""

    def read(self, message: RawRequestMessage) -> None:
        return None

    async def serve(self, front: Front, message: RawRequestMessage, payload: Payload, asks: None) -> bool:
        raise AssertionError("nothing is served here")


def application(render: Render, host: str) -> web.Application:
    """*render* makes the metrics; *host* is where the listener is bound; requests must name it, or this machine."""
    app = web.Application(middlewares=[_known_host])
    app.on_response_prepare.append(unnamed)
    app[RENDER], app[HOST] = render, host
    app.router.add_get("/metrics", _metrics)
    app.router.add_get("/healthz", _healthy)
    return app


@web.middleware
async def _known_host(request: web.Request, handler: Handler) -> web.StreamResponse:
    name = host_of(request.headers.get("Host", ""))
    if not (is_local(name) or name == request.app[HOST] or _is_any(request.app[HOST])):
        return web.Response(status=421, text="This listener answers to its own address only.\n")
    if "Origin" in request.headers:
        return web.Response(status=403, text="No web page may use this listener.\n")
    return await handler(request)


def _is_any(host: str) -> bool:
    return host in ("0.0.0.0", "::")  # noqa: S104 - compared, not bound: then every name of this machine is its own


async def _metrics(request: web.Request) -> web.Response:
    body, content_type = await request.app[RENDER]()
    return web.Response(body=body, headers={"content-type": content_type})


async def _healthy(request: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})
