"""The data port's application: everything on it that is no exchange. Lists of models, health, and what is not found."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web

from aigw.access.authenticate import REFUSAL
from aigw.access.throttle import ThrottledError
from aigw.errors import CallerError, GatewayError
from aigw.protocols import DIALECTS
from aigw.server import billing, heads, hosts, models, realtime
from aigw.server.inference import Holder, dialect_of, error_response, operation_at, with_key
from aigw.server.request_id import new_id

HOLDER: web.AppKey[Holder] = web.AppKey("holder")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(holder: Holder) -> web.Application:
    """The routes beside the hot path (see `Inference.dispatch`)."""
    app = web.Application(middlewares=[_ours])
    app.on_response_prepare.append(unnamed)
    app[HOLDER] = holder
    app[realtime.SESSIONS] = realtime.Sessions()
    app.on_cleanup.append(_close_sessions)
    for path in sorted(heads.SESSIONS):
        app.router.add_get(path, _realtime)
    app.router.add_get("/healthz", _healthy)
    app.router.add_get("/readyz", _ready)
    for prefix in ("/v1", "", "/v1/v1", "/openai/v1", "/anthropic/v1", "/v1beta"):
        app.router.add_get(prefix + "/usage", _usage)
        app.router.add_get(prefix + "/dashboard/billing/subscription", _subscription)
        app.router.add_get(prefix + "/dashboard/billing/usage", _spent)
        app.router.add_get(prefix + "/models", _models)
        app.router.add_get(prefix + "/models/{id:.+}", _model)
    return app


async def _realtime(request: web.Request) -> web.StreamResponse:
    return await realtime.serve(request, request.app[HOLDER])


async def _close_sessions(app: web.Application) -> None:
    await app[realtime.SESSIONS].close()


async def unnamed(request: web.Request, response: web.StreamResponse) -> None:
    """Nobody need know which library answers, and in which version."""
    response.headers.popall("Server", None)


@web.middleware
async def _ours(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors in the caller's dialect with our request id, whoever raised them."""
    try:
        if request.app[HOLDER].gateway.keyless:
            refused = hosts.objection(request.headers)
            if refused is not None:
                raise refused
        response = await handler(request)
    except ThrottledError as error:
        await request.app[HOLDER].gateway.directory.throttle.pause()
        return _refusal(request, error)
    except GatewayError as error:
        return _refusal(request, error)
    except web.HTTPNotFound:
        if operation_at(request.raw_path) is not None:
            return _not_allowed(request, ["POST"])
        shown = request.path if len(request.path) <= 100 else request.path[:100] + "..."
        where = "the OpenAI and Anthropic APIs are served at /v1/..., Gemini's at /v1beta/models/..."
        return error_response(request, CallerError("caller_path_not_found", f"Nothing is served at {shown!r}; {where}"))
    except web.HTTPMethodNotAllowed as error:
        return _not_allowed(request, sorted(error.allowed_methods))
    except web.HTTPException as error:
        return error_response(request, CallerError("caller_invalid_request", error.reason, status=error.status))
    if not response.prepared:
        response.headers.setdefault("x-request-id", new_id())
    return response


def _not_allowed(request: web.Request, methods: list[str]) -> web.Response:
    error = CallerError("caller_method_not_allowed", f"{request.method} is not served here; send {' or '.join(methods)}.")
    response = error_response(request, error)
    response.headers["allow"] = ", ".join(methods)
    return response


def _refusal(request: web.Request, error: GatewayError) -> web.Response:
    request_id = new_id()
    headers = {"x-request-id": request_id, "x-aigw-error": error.code}
    if error.retry_after is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after))
    if error.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        headers["x-should-retry"] = "false"
    body = DIALECTS[dialect_of(request.path, request.headers)].render_error(error, request_id)
    if error.status == HTTPStatus.UNAUTHORIZED:
        body = body.ljust(REFUSAL)
    return web.Response(status=error.status, body=body, headers=headers, content_type="application/json")


async def _healthy(request: web.Request) -> web.Response:
    """The process answers."""
    return web.json_response({"status": "ok"})


async def _ready(request: web.Request) -> web.Response:
    """New requests are welcome: a provider is configured, and no drain is under way."""
    gateway = request.app[HOLDER].gateway
    why = gateway.not_ready()
    answer = {"status": why or "ready"}
    if gateway.directory.away:  # serving goes on: who takes us out of rotation for that would take out every node
        answer["database"] = "away; known keys are served, records wait in the journal"
    return web.json_response(answer, status=503 if why else 200)


async def _subscription(request: web.Request) -> web.Response:
    gateway = request.app[HOLDER].gateway
    caller = gateway.directory.authenticate(with_key(request.raw_path, request.headers), request.remote or "")
    return web.json_response(billing.subscription(caller))


async def _spent(request: web.Request) -> web.Response:
    return await _asked(request, billing.spent)


async def _usage(request: web.Request) -> web.Response:
    return await _asked(request, billing.usage)


async def _asked(request: web.Request, answer: Callable[..., Awaitable[dict[str, Any]]]) -> web.Response:
    """What only the store knows: asked of it within the caller's limits."""
    gateway = request.app[HOLDER].gateway
    caller = gateway.directory.authenticate(with_key(request.raw_path, request.headers), request.remote or "")
    limits, now = gateway.pipeline.limits, time.time()
    permit = await limits.admit(caller, now)
    try:
        return web.json_response(await answer(gateway.services.store, caller, request.query, now))
    finally:
        limits.release(permit)


async def _models(request: web.Request) -> web.Response:
    gateway = request.app[HOLDER].gateway
    caller = gateway.directory.authenticate(with_key(request.raw_path, request.headers), request.remote or "")
    permissions = gateway.pipeline.permissions
    rule = None if permissions is None else permissions.rule(caller.consumer)
    return models.listing(gateway.table, _shape(request), None if rule is None else rule.allows)


async def _model(request: web.Request) -> web.Response:
    gateway = request.app[HOLDER].gateway
    gateway.directory.authenticate(with_key(request.raw_path, request.headers), request.remote or "")
    return models.one(gateway.table, request.match_info["id"], _shape(request))


def _shape(request: web.Request) -> models.Shape:
    """Whose SDK seems to ask."""
    headers = request.headers
    if "anthropic-version" in headers:
        return "anthropic"
    if request.path.startswith("/v1beta/") or ("x-goog-api-key" in headers and "Authorization" not in headers):
        return "gemini"
    return "openai"
