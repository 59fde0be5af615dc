"""What a store and a counter must answer: the contracts behind which SQLite, PostgreSQL, memory and Redis stand.

One test suite (`tests/contracts/`) runs over every implementation.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from math import inf
from typing import Any, NamedTuple, Protocol

import msgspec

from aigw.consumer import Consumer, ConsumerKey
from aigw.exchange import Record


class Change(msgspec.Struct, frozen=True):
    """An edit that running servers must hear of. `kind` is "consumer" or "key", and `id` the row's; or what `swap` was told."""

    seq: int
    kind: str
    id: str


class UsageRow(msgspec.Struct, kw_only=True):
    """One line of `aigw stats`: a group of exchanges, named as `usage` was asked (no name: all there are). Times are
    microseconds, costs nano-units by currency.

    `unpriced` counts exchanges with tokens and no known price. `stream_output` are the tokens of streams, `stream_took` the
    time from their first token to their end. `trend` counts requests in equal parts of the window. The percentiles come from
    histograms whose buckets grow by less than 10 %, so they are off by 5 % at most; None where nothing was measured.
    """

    group: tuple[str, ...]
    requests: int = 0
    errors: int = 0
    input: int = 0
    cached: int = 0
    output: int = 0
    costs: dict[str, int] = {}
    unpriced: int = 0
    total_p50: int | None = None
    total_p95: int | None = None
    first_token_p50: int | None = None
    first_token_p95: int | None = None
    stream_output: int = 0
    stream_took: int = 0
    trend: list[int] = []


GROUPINGS = ("model", "consumer", "provider", "route", "group", "key", "operation", "error", "day", "hour")
"""What `usage` can group by. A route is the name that was asked for where no route is written for it; a key is a consumer key's
id; an error is our code, or nothing."""


Rows = Callable[[str], AsyncIterator[list[tuple[Any, ...]]]]
"""From a table's name to its rows, some thousand at a time."""


class Filling(NamedTuple):
    """A database being filled, in one transaction: `put` adds rows to a table, `rows` reads what stands there."""

    put: Callable[[str, list[tuple[Any, ...]]], Awaitable[None]]
    rows: Rows


class Store(Protocol):
    """Consumers, keys, records, small values. Every method may be awaited from one event loop; a store that is out of reach
    raises StoreError. All writes are safe to repeat."""

    async def consumers(self) -> tuple[list[Consumer], list[ConsumerKey], int]:
        """All consumers, all keys (revoked ones too) and the newest change's number."""

    async def changes(self, since: int) -> list[Change]:
        """Edits after change number *since*, oldest first."""

    async def last_change(self) -> int:
        """The newest change's number: cheap, asked twice a second."""

    async def changed(self, timeout: float) -> None:  # noqa: ASYNC109 - nothing is cancelled
        """Returns when an edit may have been made that `last_change` does not know of yet, after *timeout* seconds at most."""

    async def consumer(self, name_or_id: str) -> Consumer | None: ...

    async def keys_of(self, consumer_id: str) -> list[ConsumerKey]: ...

    async def key(self, key_id: str) -> ConsumerKey | None: ...

    async def put_consumer(self, consumer: Consumer) -> None:
        """Insert or replace, with its change row, in one transaction. A name that another id holds raises StoreError."""

    async def put_key(self, key: ConsumerKey) -> None: ...

    async def revoke_key(self, key_id: str, at: float) -> bool:
        """True when it was live. A revoked key stays, so that its records keep their name."""

    async def append(self, records: Sequence[Record], lines: Sequence[bytes] | None = None) -> int:
        """Keep *records* and add the new ones to the hourly roll-ups, in one transaction; those already kept (same id) are
        skipped. Returns how many were new. *lines* are the same records as the journal has them (JSON, without a line end),
        for a store that keeps them so and need not write them again."""

    async def usage(
        self,
        by: str,
        since: float,
        until: float,
        tz: str = "UTC",
        *,
        only: Mapping[str, str] | None = None,
        parts: int = 0,
    ) -> list[UsageRow]:
        """Sums between two times (epoch seconds), grouped by some of `GROUPINGS`, with commas between them
        ("consumer,model"), or by "" (one row). Days and hours are those of the time zone *tz*, and come in order; within them,
        and where time is not asked for, most requests come first. *only* names what is counted ({"consumer": "alice"}); *parts*
        is the length of each row's `trend`. Raises ValueError for a grouping or a zone that is none."""

    async def spent(self, holders: Iterable[str], since: float) -> dict[str, tuple[int, int]]:
        """Nano-USD and tokens that each of *holders* (a consumer's id; "g:" and a group's name) was charged by the kept records
        that began at *since* (epoch seconds, the start of a quarter of an hour) or later. It is exactly their sum, however long
        the records are kept: from 0 on for ever, else for the last hundred days. Who has nothing is left out."""

    async def records(
        self,
        *,
        limit: int = 100,
        since: float = 0.0,
        until: float = inf,
        ids: Iterable[str] = (),
        failed: bool = False,
        prefix: str = "",
    ) -> list[Record]:
        """Newest first, or exactly those named; with *failed* those that ended with an error (a caller that left is none), with
        *prefix* those whose ids begin so. *since* and *until* are the first and the last moment of their beginning."""

    async def records_after(self, after: tuple[float, str], until: float, limit: int = 2000) -> list[Record]:
        """The first records, oldest first, that come after that time and id and began before *until*: page by page, however
        many there are."""

    async def appended(self, after: int | None = None, limit: int = 1000) -> tuple[list[Record], int]:
        """The records that came after place *after* (None: all), in the order they came, and the place of the last one, to ask
        from next time. Of more than *limit* the newest."""

    async def expire(self, records_before: float, rollups_before: float, limit: int = 5000) -> int:
        """Delete at most *limit* old rows (bounded work: a nightly purge must not stop the writer). Returns how many."""

    async def get(self, key: str) -> bytes | None: ...

    async def put(self, key: str, value: bytes, ttl: float | None = None) -> None: ...

    async def delete(self, key: str) -> None: ...

    async def swap(self, key: str, value: bytes, *, expected: bytes | None, change: str = "") -> bool:
        """Put *value* (for ever) if what stands there is *expected* (None: nothing does); False when somebody else was there
        first. With *change* running servers hear of it: a change of that kind, whose id is the key, in the same transaction."""

    async def lease(self, name: str, holder: str, ttl: float) -> bool:
        """True when *holder* has the lease now (taken, renewed, or the old one ran out)."""

    def snapshot(self) -> AbstractAsyncContextManager[Rows]:
        """Everything as it is at one moment: a function from a table of `rows.TABLES` to its rows, some thousand at a time."""

    def filling(self, *, replace: bool = False) -> AbstractAsyncContextManager[Filling]:
        """To put rows into such tables; all of it happens at the end, or nothing does. Raises StoreError when there is
        something already, unless it is to be replaced."""

    async def close(self) -> None: ...


class Claim(msgspec.Struct, frozen=True, gc=False):
    """A wish to use *amount* of the counter *key*, which may hold at most *limit*. There are three kinds:

    - `window` seconds long (it slides, up to an hour): requests or tokens a minute;
    - `window` 0, a gauge: what is held counts until it is released (requests at once);
    - `ends` (epoch seconds; `inf` for ever), a period: one window of a budget. Its key names the period, what is held is
      replaced by what was used, and it must be primed with what the period had used before (see `Counters.prime`).
    """

    key: str
    amount: int
    limit: int
    window: int = 60
    ends: float = 0.0


class Permit(msgspec.Struct, gc=False):
    """What `hold` gave: keep it until `settle` or `release`. `refused` is the claim that did not fit, None when all were
    granted; `retry_after` (seconds) says when it may. `unknown` are keys of periods that must be primed first. A permit with
    one of these two holds nothing. `left` says, claim by claim, how much of each limit is still free after this hold (never
    below 0), also where it was refused (then before it)."""

    claims: tuple[Claim, ...] = ()
    refused: Claim | None = None
    retry_after: float = 0.0
    token: Any = None
    left: Sequence[int] = ()
    unknown: Sequence[str] = ()


class Counters(Protocol):
    """Rate windows, gauges and budgets, shared by all who serve. All claims of one hold are granted together or not at all."""

    async def hold(self, claims: Sequence[Claim], now: float) -> Permit:
        """One round trip. *now* is seconds since the epoch. Raises StoreError when the counters are out of reach."""

    def settle(self, permit: Permit, used: Mapping[str, int]) -> None:
        """What was really used, by key, which may be more than the limit; keys not named keep what they held, gauges fall back.
        Only enqueues; once."""

    def release(self, permit: Permit) -> None:
        """Nothing was used: windows, periods and gauges get back what was held. Only enqueues; once."""

    async def prime(self, used: Mapping[str, tuple[int, float]]) -> None:
        """What periods had used already, with their ends, by key; those that are known stay as they are."""

    async def read(self, keys: Sequence[str]) -> list[int | None]:
        """What each of these periods has used, holds included; None where it is not known."""

    def add(self, used: Mapping[str, int]) -> None:
        """More was used of these periods than anybody held. Only enqueues; those that are not known stay so."""

    async def sweep(self, now: float) -> None:
        """Forget windows that ended. Called now and then."""

    async def close(self) -> None: ...
