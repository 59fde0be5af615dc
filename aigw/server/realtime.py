"""Realtime sessions: `GET /v1/realtime` as a websocket on both sides, whose frames are passed on as they come.

    authenticate -> admit -> route -> handshakes with providers, until one opens -> 101 -> frames both ways -> record -> close

The provider is connected before the caller is answered, so that a refusal is an HTTP error in the caller's dialect. A slow side
slows the other: each direction reads a frame only after it has sent the one before. One record is made of a session, with the
usage of all its answers, before the caller sees its end.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from time import perf_counter
from typing import Any, Protocol

from aiohttp import web
from multidict import CIMultiDict

from aigw.deployment import Deployment, ProviderKey, Route
from aigw.errors import CallerError, GatewayError, InternalError, UpstreamError
from aigw.exchange import Attempt, Exchange, Headers, Usage
from aigw.gateway import Gateway
from aigw.protocols import realtime as protocol
from aigw.protocols.realtime import REALTIME, Told
from aigw.providers.base import Provider, RealtimeProvider
from aigw.providers.redact import BODY_LIMIT
from aigw.routing import retry
from aigw.server import forwarded
from aigw.server.request_id import new_id
from aigw.upstream.peers import Peers
from aigw.upstream.websocket import GOODBYE, Refused, WebSocket, WebSocketTransport, frame_of

log = logging.getLogger("aigw.server")

LOOK = 0.5
"""Seconds between two looks at all sessions: whether their callers are still welcome, and both sides alive."""

PING = 20.0
"""Seconds of silence after which a side is asked whether it is there. Most proxies cut what is silent for 60."""

DEAD = 45.0
"""Seconds of silence, a ping in between, after which it is not."""

_IN_QUERY = ("key", "api-key")
"""Where browsers and Azure's clients put the key when they can set no header."""


class Holder(Protocol):
    """Where the running gateway is found."""

    gateway: Gateway


class Sessions:
    """All that are open, and the one timer that looks after them. Without sessions there is no timer."""

    def __init__(self, peers: Peers | None = None) -> None:
        self.transport = WebSocketTransport(peers)
        self._open: set[Session] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    def add(self, session: Session) -> None:
        self._open.add(session)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK, self._look)

    def remove(self, session: Session) -> None:
        self._open.discard(session)

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Run what nobody waits for."""
        task = asyncio.get_running_loop().create_task(work, name="realtime")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, (OSError, RuntimeError)):
            log.error("a realtime session: %s; this is a bug of ours", type(error).__name__)

    def _look(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        for session in list(self._open):
            session.look(now)
        if self._open:
            self._timer = asyncio.get_running_loop().call_later(LOOK, self._look)

    async def cut(self, within: float = 1.5) -> None:
        """End every session: the server stops. Both sides get 1001, and the records are written."""
        for session in list(self._open):
            session.end(
                InternalError("gateway_draining", "The gateway stops."), protocol.AWAY, protocol.AWAY, "the gateway stops"
            )
        deadline = asyncio.get_running_loop().time() + within
        while self._open and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 - ends within the second
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.transport.close()


SESSIONS: web.AppKey[Sessions] = web.AppKey("sessions")


class SessionSink:
    """The `Sink` of a session: keeps the refusal that the walk may answer with. Frames do not go through it."""

    def __init__(self) -> None:
        self.started = False
        self.status = 0
        self.headers: Headers = []
        self.body = b""

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    def begin(self, status: int, headers: Headers, length: int | None = None) -> None:
        self.started, self.status = True, status

    def write(self, block: bytes) -> bool:
        return False

    def end(self) -> None: ...

    def abort(self) -> None: ...

    def on_resume(self, callback: Callable[[], None]) -> None: ...


class Side:
    """One of the two: what is known of it."""

    __slots__ = ("asked", "heard", "sending_since")

    def __init__(self, now: float) -> None:
        self.heard = now  # when a frame of any kind came
        self.asked = False  # by a ping, since then
        self.sending_since = 0.0  # when the frame began that is being sent to it; 0: none is


class Session:
    """One caller and one provider, connected. `run` returns when it is over; `end` ends it, once."""

    def __init__(
        self,
        exchange: Exchange,
        caller: web.WebSocketResponse[bool],
        upstream: WebSocket,
        gateway: Gateway,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.exchange, self.caller, self.upstream, self.gateway = exchange, caller, upstream, gateway
        self._topping: asyncio.Task[None] | None = None  # more is being held of its consumer's budgets
        now = loop.time()
        settings = gateway.config.server
        self._idle, self._stall = settings.realtime_idle, settings.stall_timeout
        self._clock = loop.time
        self._near, self._far = Side(now), Side(now)
        self._event = now  # when the last event came, from either side
        self._over: asyncio.Future[None] = loop.create_future()
        self._deaf = False  # the caller gets nothing more
        self.code, self._upstream_code, self._reason = protocol.NORMAL, protocol.NORMAL, ""
        self._pings: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Pass frames on until a side ends it, or we do; then end the provider's side, and read what it still says of usage."""
        loop = asyncio.get_running_loop()
        inward = loop.create_task(self._from_caller(), name="realtime in")
        outward = loop.create_task(self._from_provider(), name="realtime out")
        inward.add_done_callback(self._ended)
        outward.add_done_callback(self._ended)
        try:
            await self._over
            self._deaf = True
            inward.cancel()
            try:
                async with asyncio.timeout(GOODBYE):
                    await self.upstream.say_goodbye(self._upstream_code, protocol.reason(self._reason))
                    await outward
            except (OSError, TimeoutError, RuntimeError):
                pass
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._over.cancelled() or task is None:
                raise  # the caller is gone, or we are
            task.uncancel()  # it had ended before, and the caller did not wait for our answer
        finally:
            inward.cancel()
            outward.cancel()
            self.exchange.finish_reason = str(1006 if self._over.cancelled() else self.code)  # RFC 6455: it went without a word
        self.upstream.abort()
        topping = [self._topping] if self._topping is not None else []
        await asyncio.gather(inward, outward, *topping, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A direction is over. It has said why, unless it failed in a way we did not think of."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("session %s: %s; this is a bug of ours", self.exchange.id, type(error).__name__)
            self.end(InternalError("gateway_internal", "The gateway failed."), protocol.FAILED, protocol.AWAY, "internal error")

    async def close(self) -> None:
        """Tell the caller how it ended."""
        await self.caller.close(code=self.code, message=protocol.reason(self._reason))

    def end(self, failure: GatewayError | None, code: int, upstream_code: int, reason: str = "") -> None:
        """It is over: *code* and *reason* are for the caller, *upstream_code* is for the provider. The first to say so wins."""
        if not self._over.done():
            self.exchange.failure = failure
            self.code, self._upstream_code, self._reason = code, upstream_code, reason
            self._over.set_result(None)

    # frames

    async def _from_caller(self) -> None:
        exchange, side = self.exchange, self._near
        while True:
            frame = frame_of(await self.caller.receive())
            now = self._clock()
            side.heard, side.asked = now, False
            kind, data, code = frame
            if kind == "text" or kind == "binary":
                if kind == "text" and not _is_text(data):
                    failure = CallerError("caller_invalid_request", "A text frame was no UTF-8.")
                    self.end(failure, protocol.INVALID_TEXT, protocol.AWAY, "text frames must be UTF-8")
                    return
                self._event = now
                exchange.bytes_in += len(data)
                if not await self._to_provider(kind, data):
                    return
            elif kind == "ping":
                await self.caller.pong(data)
            elif kind == "close":
                self.end(None, _answered(code), protocol.passed_on(code))
                return
            elif kind == "broken":
                large = code == protocol.TOO_BIG
                what = "An event was larger than [server] realtime_message." if large else "A frame was no websocket frame."
                failure = CallerError("caller_body_too_large" if large else "caller_invalid_request", what)
                self.end(failure, code or protocol.FAILED, protocol.AWAY, what)
                return
            elif kind == "gone":
                return  # the connection's own task hears of it, too

    async def _to_provider(self, kind: str, data: bytes) -> bool:
        side = self._far
        side.sending_since = self._clock()
        try:
            await self.upstream.send(kind, data)
        except (OSError, RuntimeError):
            self._lost()
            return False
        finally:
            side.sending_since = 0.0
        return True

    async def _from_provider(self) -> None:
        exchange, side = self.exchange, self._far
        while True:
            kind, data, code = await self.upstream.receive()
            now = self._clock()
            side.heard, side.asked = now, False
            if kind == "text" or kind == "binary":
                if kind == "text":
                    if not _is_text(data):
                        self._lost("sent a text frame that is no UTF-8")
                        return
                    self._note(protocol.told(data))
                if self._deaf:
                    continue
                self._event = now
                exchange.bytes_out += len(data)
                if not await self._to_caller(kind, data):
                    return
            elif kind == "ping":
                await self.upstream.send("pong", data)
            elif kind == "close":
                self._closed_by_provider(code, data)
                return
            elif kind == "broken":
                self._lost("sent what is no websocket frame, or one that is too large")
                return
            elif kind == "gone":
                self._lost()
                return

    async def _to_caller(self, kind: str, data: bytes) -> bool:
        side = self._near
        side.sending_since = self._clock()
        try:
            await (self.caller.send_bytes(data) if kind == "binary" else self.caller.send_frame(data, web.WSMsgType.TEXT))
        except (OSError, RuntimeError):
            return False  # it is gone; its connection's task hears of it
        finally:
            side.sending_since = 0.0
        return True

    def _note(self, told: Told) -> None:
        exchange = self.exchange
        if told.model:
            exchange.answer_model = told.model
        total = exchange.usage
        assert total is not None
        if told.usage is not None:
            exchange.usage = total = protocol.added(total, told.usage)
            if exchange.hold is not None and self._topping is None and exchange.hold.short(total.input + total.output):
                self._topping = asyncio.get_running_loop().create_task(self._top_up(), name="realtime budget")
        elif told.billed:
            total.estimated = True  # an answer that says nothing of its tokens: the sum is less than the truth

    async def _top_up(self) -> None:
        """Hold as much again for what comes next; where the budgets have no more, the session ends."""
        try:
            await self.gateway.pipeline.limits.more(self.exchange)
        except GatewayError as error:
            self.end(error, protocol.POLICY, protocol.AWAY, error.message)
        finally:
            self._topping = None

    def _closed_by_provider(self, code: int | None, data: bytes) -> None:
        ours = protocol.passed_on(code)
        said = self.gateway.services.scrubber.text(data.decode("utf-8", "replace"))
        failure: GatewayError | None = None
        if ours in (protocol.FAILED, 1012, protocol.TRY_AGAIN):
            name = self.exchange.provider
            failure = UpstreamError(
                "provider_error", f"The provider {name!r} ended the session: {code} {said[:200]}".rstrip(), detail=said[:300]
            )
        self.end(failure, ours, ours, said)

    def _lost(self, how: str = "ended the connection without a word") -> None:
        name = self.exchange.provider
        self.end(
            UpstreamError("provider_connection_lost", f"The provider {name!r} {how}."),
            protocol.FAILED,
            protocol.AWAY,
            f"the provider {how}",
        )

    # limits

    def look(self, now: float) -> None:
        """Twice a second: whether it may go on."""
        caller = self.exchange.caller
        if caller is not None and (problem := self.gateway.directory.objection(caller)) is not None:
            self.end(problem, protocol.POLICY, protocol.AWAY, problem.message)
        elif now - self._event > self._idle:
            failure = CallerError("caller_timeout", "Nothing happened for too long ([server] realtime_idle).")
            self.end(failure, protocol.AWAY, protocol.AWAY, "nothing happened for too long")
        elif self._near.sending_since and now - self._near.sending_since > self._stall:
            failure = CallerError("caller_timeout", "The caller did not read what it was sent ([server] stall_timeout).")
            self.end(failure, protocol.POLICY, protocol.AWAY, "read faster")
        elif self._far.sending_since and now - self._far.sending_since > self._stall:
            self._lost("did not read what it was sent")
        else:
            self._look_at(self._near, self._far, now, self.caller.ping, self._caller_lost)
            self._look_at(self._far, self._near, now, self._ping_provider, self._provider_silent)

    def _look_at(
        self, side: Side, other: Side, now: float, ping: Callable[[], Coroutine[Any, Any, None]], lost: Callable[[], None]
    ) -> None:
        """Is *side* alive? While the *other* one is slow, nobody reads what this one says."""
        if other.sending_since:
            side.heard = now
        elif now - side.heard > DEAD and side.asked:
            lost()
        elif now - side.heard > PING and not side.asked:
            side.asked = True
            task = asyncio.get_running_loop().create_task(_quietly(ping()), name="realtime ping")
            self._pings.add(task)
            task.add_done_callback(self._pings.discard)

    async def _ping_provider(self) -> None:
        await self.upstream.send("ping", b"")

    def _caller_lost(self) -> None:
        failure = CallerError("caller_closed", "The caller's side no longer answers.")
        self.end(failure, protocol.AWAY, protocol.AWAY, "no answer to a ping")

    def _provider_silent(self) -> None:
        self._lost("no longer answers")


async def serve(request: web.Request, holder: Holder) -> web.StreamResponse:
    """Answer `GET /v1/realtime`: a session, or an error in OpenAI's shape."""
    gateway, sessions = holder.gateway, request.app[SESSIONS]
    offer = protocol.offered(",".join(request.headers.getall("Sec-WebSocket-Protocol", [])))
    exchange = Exchange(
        new_id(),
        time.time(),
        operation=REALTIME.name,
        dialect=REALTIME.dialect,
        stream=True,
        headers=_with_key(request, offer),
        address=forwarded.caller(request.remote or "", request.headers, gateway.config.server.trusted),
        started=perf_counter(),
    )
    exchange.requested_model = request.query.get("model") or request.query.get("deployment", "")
    if gateway.keeps_address:
        exchange.client_ip = exchange.address
    if gateway.keeps_agent:
        exchange.client_agent = request.headers.get("User-Agent", "")[:200]
    sink = SessionSink()
    socket = web.WebSocketResponse(
        timeout=GOODBYE,
        autoclose=False,
        autoping=False,
        protocols=(offer.answer,) if offer.answer else (),
        compress=False,
        max_msg_size=gateway.config.server.realtime_message,
        decode_text=False,
    )
    session: Session | None = None

    async def hold() -> None:
        nonlocal session
        _check(request, socket, offer, exchange)
        route = gateway.pipeline.table.resolve(exchange.requested_model)
        exchange.chosen = route = await gateway.pipeline.reserved(exchange, route, REALTIME)
        upstream = await _open(exchange, route, gateway, sessions, dict(request.query))
        try:
            for name, value in _answer_headers(exchange):
                socket.headers[name] = value
            await socket.prepare(request)
            sink.begin(HTTPStatus.SWITCHING_PROTOCOLS, [])
            exchange.status, exchange.usage = sink.status, Usage()
            session = Session(exchange, socket, upstream, gateway)
            sessions.add(session)
            await session.run()
        except BaseException:
            sessions.begin(upstream.leave(protocol.AWAY))
            raise
        if exchange.failure is not None and isinstance(exchange.failure, GatewayError):
            raise exchange.failure

    gateway.began()
    try:
        await gateway.pipeline.host(exchange, sink, hold)
        if session is not None:
            await session.close()
    finally:
        gateway.ended()
        if session is not None:
            sessions.remove(session)
    if session is not None:
        return socket
    response = web.Response(status=sink.status, body=sink.body)
    for header, text in sink.headers:
        response.headers[header.decode()] = text.decode("latin-1")
    response.headers["x-request-id"] = exchange.id
    if sink.status == HTTPStatus.UPGRADE_REQUIRED:
        response.headers["upgrade"] = "websocket"
    response.force_close()
    return response


def _with_key(request: web.Request, offer: protocol.Offer) -> Mapping[str, str]:
    """The caller's headers, and among them the key and the beta that it had to say elsewhere."""
    key = offer.key or request.headers.get("api-key") or next(filter(None, map(request.query.get, _IN_QUERY)), "")
    if not key and not offer.beta:
        return request.headers
    headers = CIMultiDict(request.headers)
    if key:
        headers.setdefault("Authorization", f"Bearer {key}")
    if offer.beta:
        headers.setdefault("OpenAI-Beta", offer.beta)
    return headers


def _check(request: web.Request, socket: web.WebSocketResponse[bool], offer: protocol.Offer, exchange: Exchange) -> None:
    """Raises CallerError for what can be no session. Asked of callers who may ask."""
    if request.headers.get("Upgrade", "").strip().lower() != "websocket":
        raise CallerError("caller_invalid_request", "This path is a websocket: connect to it with wss:// or ws://.", status=426)
    if not exchange.requested_model:
        raise CallerError("caller_invalid_request", "Name the model in the address: ?model=NAME.", param="model")
    if "Sec-WebSocket-Protocol" in request.headers and not offer.answer:
        raise CallerError("caller_invalid_request", "Offer the sub-protocol 'realtime' besides the one with the key.")
    if not socket.can_prepare(request).ok:
        raise CallerError("caller_invalid_request", "This is no valid websocket handshake (RFC 6455, version 13).")


async def _open(exchange: Exchange, route: Route, gateway: Gateway, sessions: Sessions, asked: Mapping[str, str]) -> WebSocket:
    """A session with the first provider of *route* that opens one: another key, another target, the fallbacks."""
    failover = gateway.pipeline.failover
    allowed = failover.rules.attempts if route.retries is None else route.retries + 1
    last: GatewayError | None = None
    for one in failover.selection.ranked(route, exchange, perf_counter()):
        deployment = one.deployment
        if one.dropped:
            break  # so are all that follow
        provider, pool = gateway.providers[deployment.provider], gateway.pools[deployment.provider]
        model = deployment.model or exchange.requested_model
        tried: list[str] = []
        while len(exchange.chain) < allowed:
            key = pool.pick(perf_counter(), tried, model)
            if key is None:
                exchange.provider = exchange.provider or provider.name
                last = last or pool.refusal(provider.name, perf_counter(), model)
                break
            try:
                upstream = await _attempt(exchange, deployment, provider, key, gateway, sessions, asked)
            except UpstreamError as error:
                last = error
                now = perf_counter()
                pool.failed(key, error, now)
                if not retry.may_retry(error, safe=True, timeouts=0) or now >= exchange.deadline:
                    raise
                tried.append(key.label)
                if error.fault == "deployment":
                    break
                continue
            finally:
                pool.let_go(key)
            if upstream is None:
                last = last or CallerError(
                    "caller_unsupported", f"The provider {provider.name!r} has no realtime sessions; use another's model."
                )
                break
            pool.succeeded(key, upstream.headers, perf_counter(), model)
            return upstream
    raise last or InternalError("gateway_no_provider", "No provider is configured for this model.")


async def _attempt(
    exchange: Exchange,
    deployment: Deployment,
    provider: Provider,
    key: ProviderKey,
    gateway: Gateway,
    sessions: Sessions,
    asked: Mapping[str, str],
) -> WebSocket | None:
    """One handshake; None when this provider has no such thing. Raises UpstreamError, cleaned of secrets."""
    model = deployment.model or exchange.requested_model
    handshake = None
    if isinstance(provider, RealtimeProvider):
        handshake = provider.handshake(model, key, exchange.headers, asked)
    if handshake is None:
        return None
    exchange.provider, exchange.residency, exchange.model = provider.name, provider.residency, model
    began = perf_counter()
    attempt = Attempt(provider=provider.name, model=model, key=key.label, started=int((began - exchange.started) * 1e6))
    exchange.chain.append(attempt)
    try:
        left = exchange.deadline - began
        upstream = await sessions.transport.connect(handshake, gateway.config.server.realtime_message, left)
    except Refused as refused:
        attempt.status = refused.status
        if refused.status < HTTPStatus.BAD_REQUEST:
            error = UpstreamError(
                "provider_bad_response",
                "did not answer as a websocket server does",
                upstream_status=refused.status,
                fault="deployment",
                may_retry=True,
                sent=False,
            )
        else:
            error = provider.judge(refused.status, refused.headers, refused.body, key)
    except UpstreamError as failure:
        error = failure
    except BaseException:
        attempt.error = "caller_closed"
        raise
    else:
        attempt.status = HTTPStatus.SWITCHING_PROTOCOLS
        exchange.upstream_id = dict(upstream.headers).get(b"x-request-id", b"").decode("latin-1")
        return upstream
    finally:
        attempt.took = int((perf_counter() - began) * 1e6)
    scrubber = gateway.services.scrubber
    error.message, error.detail = scrubber.text(error.message), scrubber.text(error.detail)
    error.body = scrubber.clean(error.body, BODY_LIMIT)
    attempt.error, attempt.detail = error.code, error.detail[:300]
    error.message = f"The provider {provider.name!r} {error.message}"
    raise error


def _answer_headers(exchange: Exchange) -> list[tuple[str, str]]:
    headers = [("x-request-id", exchange.id), ("x-aigw-provider", exchange.provider)]
    if exchange.model.isascii() and exchange.model.isprintable():
        headers.append(("x-aigw-model", exchange.model))
    if len(exchange.chain) > 1:
        headers.append(("x-aigw-attempts", str(len(exchange.chain))))
    return headers


def _answered(code: int | None) -> int:
    """The code that answers a close of the caller's: its own, where it may be sent."""
    passed = protocol.passed_on(code)
    return protocol.NORMAL if passed == protocol.FAILED and code != protocol.FAILED else passed


def _is_text(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


async def _quietly(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except (OSError, RuntimeError):
        pass  # it is gone; whoever reads from it hears so
