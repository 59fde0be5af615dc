"""May this consumer call now: requests a minute, and requests at once."""

from __future__ import annotations

import logging
import math

from aigw.config.schema import Limits
from aigw.consumer import Caller
from aigw.errors import PolicyError, StoreError
from aigw.storage.base import Claim, Counters, Permit

_log = logging.getLogger("aigw.access")

MINUTE = 60


class RateLimit:
    """The operator's `[limits]`, overridden by a consumer's own; 0 is no limit. All keys of a consumer count together."""

    def __init__(self, limits: Limits, counters: Counters) -> None:
        self._rpm, self._concurrency, self._counters = limits.rpm or 0, limits.concurrency or 0, counters
        self._down = False

    def claims(self, caller: Caller) -> tuple[Claim, ...]:
        """What one request of this caller takes up; () where nothing limits it."""
        consumer = caller.consumer
        rpm = self._rpm if consumer.terms.rpm is None else consumer.terms.rpm
        concurrency = self._concurrency if consumer.terms.concurrency is None else consumer.terms.concurrency
        if not rpm and not concurrency:
            return ()
        wanted = []
        if rpm:
            wanted.append(Claim(f"rpm:{consumer.id}", 1, rpm, MINUTE))
        if concurrency:
            wanted.append(Claim(f"concurrency:{consumer.id}", 1, concurrency, 0))
        return tuple(wanted)

    async def admit(self, caller: Caller, now: float) -> Permit | None:
        """Let a request in. *now* is seconds since the epoch. Give the permit back with `release`; None needs none.

        Raises PolicyError `policy_rate_limited` or `policy_concurrency_limited` with `retry_after`. Counters that are out of
        reach refuse nobody.
        """
        claims = self.claims(caller)
        if not claims:
            return None
        try:
            permit = await self._counters.hold(claims, now)
        except StoreError as error:
            if not self._down:
                self._down = True
                _log.warning("limits: %s; requests are let in uncounted", error)
            return None
        if self._down:
            self._down = False
            _log.info("limits: the counters answer again")
        refused = permit.refused
        if refused is None:
            return permit
        name = caller.consumer.name
        if refused.window:
            wait = max(permit.retry_after, 0.1)
            raise PolicyError(
                "policy_rate_limited",
                f"rate limit of consumer {name!r}: {refused.limit} requests a minute; try again in {math.ceil(wait)} s",
                retry_after=wait,
            )
        raise PolicyError(
            "policy_concurrency_limited",
            f"limit of consumer {name!r}: {refused.limit} requests at once; wait until one of them has ended",
            retry_after=permit.retry_after or 1.0,  # nobody knows when a request ends
        )

    def release(self, permit: Permit | None) -> None:
        """The request ended. It stays counted in its minute; its place among those at once is free again."""
        if permit is not None:
            self._counters.settle(permit, {})
