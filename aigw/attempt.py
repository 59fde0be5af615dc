"""One try at one deployment with one key: the request in the provider's dialect, the relay for its answer, and what the answer
means when it is none."""

from __future__ import annotations

import asyncio
from time import perf_counter, time
from typing import Any, Protocol, cast
from weakref import WeakKeyDictionary

from aigw.canonical import Losses
from aigw.config.scrub import Scrubber
from aigw.deployment import Deployment, ProviderKey, Route
from aigw.errors import CallerError, GatewayError, UpstreamError
from aigw.exchange import Attempt, Cost, Exchange, Headers, Sink, UpstreamRequest, Usage
from aigw.hooks import AskAgain
from aigw.metering import usage as metering
from aigw.protocols import DIALECTS, gemini, splice
from aigw.protocols.operations import Operation
from aigw.protocols.translation import count, shape, translator
from aigw.protocols.translation.contract import Reply, Settled
from aigw.providers.base import Credential, Keeper, Lender, Provider, RawProvider, Stepper
from aigw.providers.redact import BODY_LIMIT
from aigw.relay import Relay
from aigw.transform import LARGEST, Transform
from aigw.upstream.answer import WholeAnswer
from aigw.upstream.transport import Transport

TOKEN = 256 * 1024
"""Bytes of an answer that holds a token; they are a few KB."""


_FIRST_WAIT, _LONGEST_WAIT = 0.5, 5.0
"""Seconds between two looks at an answer that is not ready."""


class _Whole:
    """The flow of an answer that is all here: there is nothing to hold back."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def stop(self) -> None: ...

    def complete(self) -> None: ...


class Prices(Protocol):
    """What a usage costs; None when nobody knows."""

    def price(self, provider: str, models: tuple[str, ...], usage: Usage, at: float) -> Cost | None: ...


class Attempter:
    """Makes attempts. Holds nothing of an exchange's; `transport` may be replaced."""

    def __init__(self, transport: Transport, prices: Prices, scrubber: Scrubber, *, lossless: bool = False) -> None:
        """*lossless*: what a provider's dialect cannot say is refused, not left out (`[server] lossy = "deny"`)."""
        self.lossless = lossless
        self.transport, self.prices = transport, prices
        self._scrubber = scrubber
        self._wire: dict[tuple[str, str], Headers] = {}
        self._refreshing: WeakKeyDictionary[Credential, asyncio.Lock] = WeakKeyDictionary()

    async def attempt(
        self,
        exchange: Exchange,
        sink: Sink,
        operation: Operation,
        deployment: Deployment,
        provider: Provider,
        key: ProviderKey,
    ) -> tuple[Relay, UpstreamError | None]:
        """One try: the relay that holds (or has sent) a good answer, and None; or what went wrong, classified. Other
        GatewayErrors say that no try will do better."""
        began = perf_counter()
        exchange.provider, exchange.residency = provider.name, provider.residency
        exchange.model = model = deployment.model or exchange.requested_model
        via = provider.serving(operation, model) or operation
        if provider.own_login:
            key = cast("Lender", provider).login(
                exchange.headers, b"" if exchange.caller is None else exchange.caller.key.digest
            )
        run = exchange.run
        if run is not None:
            run.begin()
        if via is operation and (run is None or not run.reads):
            if exchange.chain:
                exchange.loss = ""  # of a place before, which needed a translation
            relay = self._relay(exchange, sink, operation, provider, key)
            if exchange.edited:
                body = self._written(exchange, operation, provider)
            else:
                body = self._body(exchange, operation, deployment, provider)
        else:
            relay, body = self._translated(exchange, sink, operation, via, provider, key)
        if deployment.params and exchange.upload is None:
            body = _with(body, deployment.params)
        started = int((began - exchange.started) * 1e6)
        attempt = Attempt(provider=provider.name, model=exchange.model, key=key.label, started=started)
        exchange.chain.append(attempt)
        error: UpstreamError | None
        try:
            credential = provider.credential(key)
            if credential is not None:
                await self._fresh(credential)
            if exchange.object_id or operation.placed or exchange.upload is not None:
                request = self._reaching(exchange, operation, provider, key)
            else:
                request = provider.prepare(via, body, key, exchange.headers, model, stream=exchange.stream)
            self._hurry(exchange, deployment, request, began)
            if not operation.safe:
                request.once = True
            if via.polls:
                await self._awaited(exchange, provider, via, request, relay, key)
            else:
                await self.transport.send(request, relay)
            if run is not None and run.waits and isinstance(relay, Transform):
                await relay.pumped()
            relay.complete()
            if run is not None and relay.error is None and isinstance(relay, Transform):
                await relay.heard()
            error = relay.error
            if error is None and not 200 <= relay.status < 300:
                error = provider.judge(relay.status, relay.upstream_headers, relay.body, key)
            elif error is None and relay.body and relay.told.usage is None:
                error = provider.error_in_body(relay.body, key)
        except UpstreamError as failure:
            error = failure
        except GatewayError as refused:
            attempt.error = refused.code
            raise
        except AskAgain:
            attempt.detail = "a plugin had the model asked again"
            attempt.cost = self._cost(exchange, relay.told.usage)
            raise
        except BaseException:
            attempt.error = "caller_closed"
            raise
        finally:
            relay.let_go()
            attempt.took = int((perf_counter() - began) * 1e6)
            attempt.status = relay.status or None
            told = relay.told
            exchange.usage, exchange.answer_model, exchange.finish_reason = told.usage, told.model, told.finish_reason[:64]
        if error is None:
            exchange.status = relay.status
            if relay.body:
                exchange.sample, exchange.bytes_out = relay.body, len(relay.body)
            return relay, None
        if exchange.upload is not None and exchange.upload.begun:
            error.may_retry, error.kind = False, ""  # part of it is gone
        self._scrub(error)
        if via is not operation:
            error.body = b""  # its type and code are words of the other dialect; its message we have
        attempt.error, attempt.detail = error.code, error.detail[:300]
        if run is not None:
            run.failed(attempt)
        error.message = f"The provider {provider.name!r} {error.message}"  # who failed says only what it did
        if not relay.started:
            exchange.usage = None
            if error.sent and error.upstream_status is None and not relay.status:
                attempt.cost = self._abandoned(exchange)
        return relay, error

    async def _awaited(
        self, exchange: Exchange, provider: Provider, via: Operation, request: UpstreamRequest, relay: Relay, key: ProviderKey
    ) -> None:
        """Send *request*, and ask again for its answer while the provider says that it is not ready."""
        wait = _FIRST_WAIT
        while True:
            answer = WholeAnswer(LARGEST)
            await self.transport.send(request, answer)
            step = provider.next_step(via, answer.status, answer.body, key) if isinstance(provider, Stepper) else None
            if step is None:
                break
            if perf_counter() + wait > exchange.deadline:
                raise UpstreamError("provider_timeout", "was not ready with its answer in time", fault="deployment")
            await asyncio.sleep(wait)
            wait = min(wait * 1.5, _LONGEST_WAIT)
            request = step
        relay.head(answer.status, answer.headers, _Whole())
        relay.feed(answer.body)

    @staticmethod
    def _reaching(exchange: Exchange, operation: Operation, provider: Provider, key: ProviderKey) -> UpstreamRequest:
        """The request for something that the provider keeps, for a body that is passed on as it arrives, or for a path of the
        provider's own."""
        upload = exchange.upload
        if exchange.raw is not None and isinstance(provider, RawProvider) and provider.credential(key) is None:
            _, method, path = exchange.raw
            request = provider.raw(method, path, exchange.query, key, exchange.headers)
        elif exchange.raw is None and isinstance(provider, Keeper):
            name = f"{exchange.object_id}/{exchange.item}" if exchange.item else exchange.object_id
            more = {} if upload is None else {"content_type": upload.content_type, "model": exchange.model}
            request = provider.reach(operation, name, exchange.query, exchange.body, key, exchange.headers, **more)
        else:
            raise CallerError("caller_unsupported", f"The provider {provider.name!r} does not serve {operation.path!r}.")
        if upload is not None:
            upload.rename(exchange.model)
            whole = upload.whole()
            if whole is None:
                request.source = upload
            else:
                request.body = whole
        return request

    def counted(
        self, exchange: Exchange, sink: Sink, operation: Operation, deployment: Deployment, provider: Provider
    ) -> Relay:
        """The tokens of a prompt as we estimate them, where the provider has no endpoint that counts: nobody is asked."""
        exchange.provider, exchange.residency = provider.name, provider.residency
        exchange.model = deployment.model or exchange.requested_model
        exchange.status, exchange.usage = 200, Usage(estimated=True)  # a count is free
        wire = [(b"content-type", b"application/json"), (b"x-aigw-estimated", b"true")]
        wire += self._named(exchange.provider, exchange.model)
        wire += exchange.wire or ()
        relay = Relay(exchange, sink, operation, DIALECTS[exchange.dialect], provider, wire)
        relay.status = 200
        relay.body = body = count.write(operation.name, metering.estimate("messages", exchange.body).input)
        exchange.bytes_out = len(body)
        return relay

    def _headers(self, exchange: Exchange) -> Headers:
        """Ours, for the caller."""
        wire = self._wire.get((exchange.provider, exchange.model))
        if wire is None:
            wire = self._named(exchange.provider, exchange.model)
        if exchange.chain:
            wire = [*wire, (b"x-aigw-attempts", b"%d" % (len(exchange.chain) + 1))]
        if exchange.wire is not None:
            wire = [*wire, *exchange.wire]
        return wire

    def _relay(self, exchange: Exchange, sink: Sink, operation: Operation, provider: Provider, key: ProviderKey) -> Relay:
        route = exchange.chosen
        return Relay(
            exchange,
            sink,
            operation,
            DIALECTS[exchange.dialect],
            provider,
            self._headers(exchange),
            key.secret.encode(),
            hide_usage=exchange.stream and self._asks_usage(exchange, operation, provider),
            rename=route is not None and route.response_model == "requested",
        )

    def _translated(
        self, exchange: Exchange, sink: Sink, operation: Operation, via: Operation, provider: Provider, key: ProviderKey
    ) -> tuple[Relay, bytes]:
        """The relay and the body for a provider that speaks another dialect than the caller."""
        front, back = translator(operation.name), shape(via.name)
        toward = provider.toward(via, exchange.model, stream=exchange.stream)
        if toward.settings and isinstance(back, Settled):
            back = back.settled(toward.settings)
        route, model = exchange.chosen, exchange.model
        if exchange.canonical is None:
            exchange.canonical = front.parse_request(exchange.body, exchange.requested_model, stream=exchange.stream)
        asked = exchange.canonical
        losses = Losses(front.spelling)
        body = back.render_request(asked, toward, losses)
        wire = self._headers(exchange)
        exchange.loss = ""
        if losses:
            exchange.loss = lost = losses.header()
            if self.lossless or exchange.headers.get("x-aigw-lossy", "").strip().lower() == "deny":
                raise CallerError(
                    "caller_unsupported",
                    f"{provider.name}/{model} cannot be told everything this request says, and nothing may be lost: {lost}. "
                    "Leave these out, use a model that takes them, or allow losses.",
                )
            wire = [*wire, (b"x-aigw-loss", lost.encode("ascii", "replace"))]
        reply = Reply(
            request=asked,
            id=exchange.id,
            model=exchange.requested_model if route is not None and route.response_model == "requested" else "",
            now=exchange.at,
            include_usage=getattr(asked, "include_usage", True),
        )
        secret = key.secret.encode()
        run = exchange.run if exchange.run is not None and exchange.run.reads else None
        relay = Transform(exchange, sink, operation, provider, wire, secret, front=front, back=back, reply=reply, run=run)
        return relay, body

    def _written(self, exchange: Exchange, operation: Operation, provider: Provider) -> bytes:
        """A request that a plugin has changed, in the provider's dialect, which is the caller's as well: what the caller sent
        must not go out. The answer's bytes pass as they come."""
        losses = Losses(translator(operation.name).spelling)
        toward = provider.toward(operation, exchange.model, stream=exchange.stream)
        body = shape(operation.name).render_request(exchange.canonical, toward, losses)
        exchange.loss = losses.header() if losses else ""
        return body

    async def _fresh(self, credential: Credential) -> None:
        """A token that is good: exchanged once, however many wait for it."""
        if credential.refresh(time()) is None:
            return
        lock = self._refreshing.setdefault(credential, asyncio.Lock())
        async with lock:
            request = credential.refresh(time())
            if request is None:
                return
            answer = WholeAnswer(TOKEN)
            await self.transport.send(request, answer)
            credential.accept(answer.status, answer.headers, answer.body, time())

    def _named(self, provider: str, model: str) -> Headers:
        """The headers that say who answers; remembered, for a bounded number of names."""
        wire: Headers = [(b"x-aigw-provider", provider.encode())]
        if model and model.isascii() and model.isprintable():
            wire.append((b"x-aigw-model", model.encode()))
        if len(self._wire) >= 1000:
            self._wire.clear()
        self._wire[provider, model] = wire
        return wire

    @staticmethod
    def _asks_usage(exchange: Exchange, operation: Operation, provider: Provider) -> bool:
        """Whether we ask for a stream's usage ourselves: where the row allows it and the caller said nothing of it."""
        return provider.stream_usage and not exchange.wants_usage and operation.name in ("chat", "completions")

    def _scrub(self, error: UpstreamError) -> None:
        """The one door by which a provider's complaints come in: from here on anybody may read them."""
        error.message, error.detail = self._scrubber.text(error.message), self._scrubber.text(error.detail)
        error.body = self._scrubber.clean(error.body, BODY_LIMIT)

    def _body(self, exchange: Exchange, operation: Operation, deployment: Deployment, provider: Provider) -> bytes:
        """The request in the provider's dialect: here the caller's own bytes, but for the two edits that are ours."""
        body = exchange.body
        if exchange.upload is not None:
            return body  # whoever passes it on renames the model in it
        if deployment.model is not None and deployment.model != exchange.requested_model:
            if "{model}" in operation.path:
                return gemini.rename(body, deployment.model)  # the path names it; some bodies do as well
            body = splice.set_value(body, "model", deployment.model, exchange.requested_model, exchange.model_at)
        if exchange.stream and self._asks_usage(exchange, operation, provider):
            body = splice.add(body, "stream_options", {"include_usage": True})
        return body

    @staticmethod
    def _hurry(exchange: Exchange, deployment: Deployment, request: UpstreamRequest, now: float) -> None:
        """The place's own timeouts, else the route's, and never longer for the first byte than the caller's patience lasts."""
        route = exchange.chosen
        if route is not None and route.timed:
            _set_timeouts(request, route)
        if deployment.timed:
            _set_timeouts(request, deployment)
        left = exchange.deadline - now
        request.patience = left
        if left < request.first_byte_timeout:
            request.first_byte_timeout = request.patience = max(left, 0.05)

    def _abandoned(self, exchange: Exchange) -> int | None:
        """What an attempt may cost that reached the provider and was given up: its prompt, as far as we can tell."""
        return self._cost(exchange, metering.estimate(exchange.operation, exchange.body))

    def _cost(self, exchange: Exchange, usage: Usage | None) -> int | None:
        if usage is None:
            return None
        cost = self.prices.price(exchange.provider, (exchange.model,), usage, exchange.at)
        return None if cost is None else cost.nano


def _set_timeouts(request: UpstreamRequest, said: Deployment | Route) -> None:
    for name in ("connect_timeout", "first_byte_timeout", "timeout"):
        own = getattr(said, name)
        if own is not None:
            setattr(request, name, own)
    if said.stream_idle_timeout is not None:
        request.idle_timeout = said.stream_idle_timeout


def _with(body: bytes, params: tuple[tuple[str, Any], ...]) -> bytes:
    """*body* with what the operator sets for a place."""
    for name, value in params:
        try:
            body = splice.set_value(body, name, value)
        except ValueError:
            raise CallerError("caller_invalid_request", f"The request names `{name}` twice.", param=name) from None
    return body
