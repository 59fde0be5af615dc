"""Which deployment and which key next, until one answers or the rules say stop: another key, another target, the fallbacks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import perf_counter

from aigw.attempt import Attempter
from aigw.deployment import Deployment, Route
from aigw.errors import CallerError, GatewayError, InternalError, UpstreamError
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
                key = pool.pick(perf_counter(), tried)
                if key is None:
                    exchange.provider = exchange.provider or provider.name
                    last = last or _all_rest(provider, pool)
                    break
                try:
                    relay, error = await self.attempter.attempt(exchange, sink, operation, deployment, provider, key)
                except CallerError as refused:
                    if refused.code != "caller_unsupported":
                        raise
                    last = last or refused  # its dialect cannot say this; another's may
                    break
                if error is None:
                    pool.succeeded(key)
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
        key = pool.pick(perf_counter())
        if key is None:
            raise _all_rest(provider, pool)
        relay, error = await self.attempter.attempt(exchange, sink, operation, deployment, provider, key)
        if error is not None:
            pool.failed(key, error, perf_counter())
            raise error
        pool.succeeded(key)
        return relay


def _not_spoken(provider: Provider, operation: Operation) -> CallerError:
    return CallerError(
        "caller_unsupported",
        f"The provider {provider.name!r} does not serve {operation.path!r}. Use a model of another provider for it, "
        "or another endpoint for this model.",
    )


def _all_rest(provider: Provider, pool: KeyPool) -> UpstreamError:
    now = perf_counter()
    reasons = {reason for _, _, reason in pool.resting(now)}
    code = reasons.pop() if len(reasons) == 1 else "provider_rate_limited"
    return UpstreamError(
        code,
        f"Every key of the provider {provider.name!r} rests after its last answer.",
        retry_after=pool.wait(now) or None,
        sent=False,
    )
