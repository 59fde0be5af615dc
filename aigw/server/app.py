"""The data port's application: everything on it that is no exchange. Lists of models, health, and what is not found."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from aiohttp import web

from aigw.access.authenticate import REFUSAL
from aigw.access.throttle import ThrottledError
from aigw.consumer import Caller
from aigw.errors import CallerError, GatewayError
from aigw.protocols import DIALECTS
from aigw.server import billing, forwarded, heads, hosts, keys, models, realtime
from aigw.server.inference import Holder, dialect_of, error_response, operation_at, with_key
from aigw.server.request_id import new_id
from aigw.storage.base import Store

HOLDER: web.AppKey[Holder] = web.AppKey("holder")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(holder: Holder) -> web.Application:
    """The routes beside the hot path (see `Inference.dispatch`)."""
    app = web.Application(middlewares=[_ours])
    app.on_response_prepare.append(unnamed)
    app[HOLDER] = holder
    app[realtime.SESSIONS] = realtime.Sessions(holder.gateway.services.http.peers)
    app.on_cleanup.append(_close_sessions)
    for path in sorted(heads.SESSIONS):
        app.router.add_get(path, _realtime)
    app.router.add_get("/healthz", _healthy)
    app.router.add_get("/readyz", _ready)
    for prefix in ("/v1", "", "/v1/v1", "/openai/v1", "/anthropic/v1", "/v1beta"):
        app.router.add_get(prefix + "/usage", _usage)
        app.router.add_get(prefix + "/dashboard/billing/subscription", _subscription)
        app.router.add_get(prefix + "/dashboard/billing/usage", _spent)
        app.router.add_get(prefix + "/keys", _list_keys)
        app.router.add_post(prefix + "/keys", _create_key)
        app.router.add_delete(prefix + "/keys/{id:.+}", _end_key)
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


def _caller(request: web.Request) -> Caller:
    """Who asks, from where it may. Raises PolicyError."""
    gateway = request.app[HOLDER].gateway
    address = forwarded.caller(request.remote or "", request.headers, gateway.config.server.trusted)
    caller = gateway.directory.authenticate(with_key(request.raw_path, request.headers), address)
    permissions = gateway.pipeline.permissions
    rule = None if permissions is None else permissions.rule(caller.consumer)
    if rule is not None:
        rule.at(address)
    return caller


async def _list_keys(request: web.Request) -> web.Response:
    return web.json_response(_keys(request).listed(_caller(request)))


async def _create_key(request: web.Request) -> web.Response:
    return await _on_keys(request, lambda caller, body: _keys(request).create(caller, body))


async def _end_key(request: web.Request) -> web.Response:
    return await _on_keys(request, lambda caller, body: _keys(request).end(caller, request.match_info["id"]))


async def _on_keys(request: web.Request, work: Callable[[Caller, bytes], Awaitable[dict[str, Any]]]) -> web.Response:
    """A change of keys, within the caller's limits."""
    caller = _caller(request)
    body = await keys.body_of(request)
    limits = request.app[HOLDER].gateway.pipeline.limits
    permit = await limits.admit(caller, time.time())
    try:
        return web.json_response(await work(caller, body))
    finally:
        limits.release(permit)


def _keys(request: web.Request) -> keys.Keys:
    gateway = request.app[HOLDER].gateway
    return keys.Keys(gateway.services.store, gateway.directory, gateway.config)


async def _subscription(request: web.Request) -> web.Response:
    caller = _caller(request)
    limits = request.app[HOLDER].gateway.pipeline.limits
    return web.json_response(billing.subscription(caller, await limits.used(caller.consumer, time.time())))


async def _spent(request: web.Request) -> web.Response:
    return await _asked(request, billing.spent)


async def _usage(request: web.Request) -> web.Response:
    limits = request.app[HOLDER].gateway.pipeline.limits

    async def answer(store: Store, caller: Caller, query: Mapping[str, str], now: float) -> dict[str, Any]:
        found = await billing.usage(store, caller, query, now)
        return found | {"budgets": billing.budgets(await limits.used(caller.consumer, now))}

    return await _asked(request, answer)


async def _asked(request: web.Request, answer: Callable[..., Awaitable[dict[str, Any]]]) -> web.Response:
    """What only the store knows: asked of it within the caller's limits."""
    gateway = request.app[HOLDER].gateway
    caller = _caller(request)
    limits, now = gateway.pipeline.limits, time.time()
    permit = await limits.admit(caller, now)
    try:
        return web.json_response(await answer(gateway.services.store, caller, request.query, now))
    finally:
        limits.release(permit)


async def _models(request: web.Request) -> web.Response:
    gateway = request.app[HOLDER].gateway
    caller = _caller(request)
    permissions = gateway.pipeline.permissions
    rule = None if permissions is None else permissions.rule(caller.consumer)
    return models.listing(gateway.table, _shape(request), None if rule is None else rule.allows)


async def _model(request: web.Request) -> web.Response:
    gateway = request.app[HOLDER].gateway
    caller, model = _caller(request), request.match_info["id"]
    permissions = gateway.pipeline.permissions
    rule = None if permissions is None else permissions.rule(caller.consumer)
    if rule is not None and not rule.allows(model):
        raise CallerError("caller_model_not_found", "This API key may not ask for a model of that name.", param="model")
    return models.one(gateway.table, model, _shape(request))


def _shape(request: web.Request) -> models.Shape:
    """Whose SDK seems to ask."""
    headers = request.headers
    if "anthropic-version" in headers:
        return "anthropic"
    if request.path.startswith("/v1beta/") or ("x-goog-api-key" in headers and "Authorization" not in headers):
        return "gemini"
    return "openai"
