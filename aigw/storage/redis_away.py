"""Counting on one's own while the shared counters are out of reach: each of N nodes has an N-th of every limit.

Of a period it is an N-th of what was left of it when it was last seen. What is used meanwhile is added to the shared figure
when that is back, once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf

from msgspec.structs import replace

from aigw.storage.base import Claim, Permit
from aigw.storage.counters import MemoryCounters

MOST = 200_000
"""Periods whose figures are remembered."""


class Away:
    """What one node counts by itself."""

    def __init__(self) -> None:
        self._counters = MemoryCounters()
        self._seen: dict[str, int] = {}
        self._used: dict[str, int] = {}

    def see(self, key: str, used: int) -> None:
        """The shared figure of a period, as it is now."""
        if len(self._seen) >= MOST and key not in self._seen:
            self._seen.pop(next(iter(self._seen)))
        self._seen[key] = used

    def begin(self) -> None:
        """The shared counters are lost."""
        self._counters = MemoryCounters()

    async def hold(self, claims: Sequence[Claim], now: float, nodes: int) -> Permit:
        """As `Counters.hold`, of this node's share. Its permit goes to `settle` here."""
        unknown = [claim.key for claim in claims if claim.ends and claim.key not in self._seen]
        if unknown:
            return Permit(unknown=unknown)
        shares = [self._share(claim, nodes) for claim in claims]
        await self._counters.prime({claim.key: (0, claim.ends) for claim in claims if claim.ends})
        inner = await self._counters.hold(shares, now)
        if inner.refused is None:
            return Permit(tuple(claims), None, 0.0, inner, inner.left)
        return Permit((), claims[shares.index(inner.refused)], inner.retry_after, None, inner.left)

    def _share(self, claim: Claim, nodes: int) -> Claim:
        if claim.ends:
            return replace(claim, limit=max(0, claim.limit - self._seen[claim.key]) // nodes)
        limit = max(1, claim.limit // nodes) if claim.limit > 0 else 0
        return replace(claim, limit=limit, amount=min(claim.amount, limit) if limit else claim.amount)

    def settle(self, permit: Permit, used: Mapping[str, int]) -> None:
        """What a permit of `hold` really used; once."""
        inner: Permit | None = permit.token
        if inner is None:
            return
        permit.token = None
        self._counters.settle(inner, used)
        self.add({claim.key: used.get(claim.key, claim.amount) for claim in permit.claims if claim.ends})

    def add(self, used: Mapping[str, int]) -> None:
        """Used of periods, and not yet known to the others."""
        for key, amount in used.items():
            if amount:
                self._used[key] = self._used.get(key, 0) + amount

    async def prime(self, used: Mapping[str, tuple[int, float]]) -> None:
        for key, (amount, _) in used.items():
            if key not in self._seen:
                self.see(key, amount)

    async def read(self, keys: Sequence[str]) -> list[int | None]:
        """As far as this node knows: what all had used, and what was used or is held here since."""
        await self._counters.prime({key: (0, inf) for key in keys if key in self._seen})
        here = await self._counters.read(keys)
        return [None if key not in self._seen else self._seen[key] + (own or 0) for key, own in zip(keys, here, strict=True)]

    def take(self) -> dict[str, int]:
        """What the others have to be told, and forget it."""
        used, self._used = self._used, {}
        return used

    def forget(self) -> None:
        """The shared figures begin anew, from the ledger, which has what was used here."""
        self._seen, self._used = {}, {}
