"""Which deployment and which key next, until one answers or the rules say stop: another key, another target, the fallbacks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import perf_counter

from aigw.attempt import Attempter
from aigw.deployment import Deployment, Route
from aigw.errors import CallerError, GatewayError, InternalError
from aigw.exchange import Exchange, Sink
from aigw.protocols.operations import Operation
from aigw.providers.base import Provider
from aigw.relay import Relay
from aigw.routing import retry
from aigw.routing.key_pool import KeyPool
from aigw.routing.selection import candidates


class Failover:
    """One config's deployments and key pools."""

    def __init__(self, providers: Mapping[str, Provider], pools: Mapping[str, KeyPool], attempter: Attempter) -> None:
        self.providers, self.pools, self.attempter = providers, pools, attempter

    async def serve(self, exchange: Exchange, sink: Sink, route: Route, operation: Operation) -> Relay:
        """Try deployments and their keys until one answers or the rules say stop: another key, another target, the
        fallbacks, and at last the one that failed, when it was the only one."""
        allowed = retry.MAX_ATTEMPTS if route.retries is None else route.retries + 1
        last: GatewayError | None = None
        again: Deployment | None = None
        timeouts = 0
        for deployment in candidates(route):
            provider = self.providers[deployment.provider]
            if provider.serving(operation, deployment.model or exchange.requested_model) is None:
                last = last or _not_spoken(provider, operation)
                continue
            pool = self.pools[deployment.provider]
            tried: list[str] = []
            while len(exchange.chain) < allowed:
                model = deployment.model or exchange.requested_model
                tokens = len(exchange.body) // 4 if pool.counts_tokens else 0
                key = pool.pick(perf_counter(), tried, model, "", tokens)
                if key is None:
                    exchange.provider = exchange.provider or provider.name
                    last = last or pool.refusal(provider.name, perf_counter(), model)
                    break
                try:
                    relay, error = await self.attempter.attempt(exchange, sink, operation, deployment, provider, key)
                except CallerError as refused:
                    if refused.code != "caller_unsupported":
                        raise
                    last = last or refused  # its dialect cannot say this; another's may
                    break
                finally:
                    pool.let_go(key)
                if tokens:
                    pool.settle(key, _used(exchange) - tokens, perf_counter())
                if error is None:
                    pool.succeeded(key, relay.upstream_headers, perf_counter(), model)
                    return relay
                last = error
                pool.failed(key, error, perf_counter())
                if relay.started:
                    raise error
                timeouts += error.sent and error.code == "provider_timeout"
                if not retry.may_retry(error, safe=operation.safe, timeouts=timeouts) or perf_counter() >= exchange.deadline:
                    raise error
                tried.append(key.label)
                if error.fault == "deployment":
                    again = again or deployment
                    break
        if again is not None and len(exchange.chain) == 1 and allowed > 1:
            return await self._second_try(exchange, sink, operation, again)
        raise last or InternalError("gateway_no_provider", "No provider is configured for this model.")

    async def _second_try(self, exchange: Exchange, sink: Sink, operation: Operation, deployment: Deployment) -> Relay:
        """There was only one deployment and it failed in a way that often passes: once more, after a moment."""
        await asyncio.sleep(retry.SECOND_TRY_PAUSE)
        provider, pool = self.providers[deployment.provider], self.pools[deployment.provider]
        model = deployment.model or exchange.requested_model
        key = pool.pick(perf_counter(), (), model)
        if key is None:
            raise pool.refusal(provider.name, perf_counter(), model)
        try:
            relay, error = await self.attempter.attempt(exchange, sink, operation, deployment, provider, key)
        finally:
            pool.let_go(key)
        if pool.counts_tokens:
            pool.settle(key, _used(exchange), perf_counter())
        if error is not None:
            pool.failed(key, error, perf_counter())
            raise error
        pool.succeeded(key, relay.upstream_headers, perf_counter(), model)
        return relay


def _not_spoken(provider: Provider, operation: Operation) -> CallerError:
    return CallerError(
        "caller_unsupported",
        f"The provider {provider.name!r} does not serve {operation.path!r}. Use a model of another provider for it, "
        "or another endpoint for this model.",
    )


def _used(exchange: Exchange) -> int:
    """Tokens of the attempt that just ended, as its provider counted them."""
    usage = exchange.usage
    return 0 if usage is None else usage.input + usage.output
