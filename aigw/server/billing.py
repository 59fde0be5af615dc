"""What the calling consumer has used: `GET /v1/usage`, and the two paths by which chat applications show a balance
(`/v1/dashboard/billing/subscription` and `/usage`, OpenAI's old ones, which one-api answers as well).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from math import isinf
from typing import Any

from aigw.access.quota import Window
from aigw.consumer import Caller
from aigw.errors import CallerError, InternalError
from aigw.storage.base import Store, UsageRow

UNLIMITED = 100_000_000
"""Dollars that stand for no limit; what one-api says, which applications know."""

DAYS = 30
"""Days that are looked back where nobody says how many; the old dashboard's own paths look back for as long as records last."""

EVER = 3 * 366
GROUPS = ("model", "operation", "day", "hour")
_DAY = 86400.0


def subscription(caller: Caller, used: Sequence[tuple[Window, int]] = ()) -> dict[str, Any]:
    """The tightest budget in money, in dollars: what was used and what is left of it together, so that applications which
    subtract the usage show what is left. None: as much as anybody may spend. `access_until`: when the key ends, 0 for never."""
    money = [(window.limit - spent, window) for window, spent in used if window.money]
    most: float = UNLIMITED
    if money:
        _, tightest = min(money, key=lambda pair: pair[0])
        most = tightest.limit / 1e9
    return {
        "object": "billing_subscription",
        "has_payment_method": True,
        "soft_limit_usd": most,
        "hard_limit_usd": most,
        "system_hard_limit_usd": most,
        "access_until": int(caller.key.expires or 0),
        "budgets": budgets(used),
    }


def budgets(used: Sequence[tuple[Window, int]]) -> list[dict[str, Any]]:
    """Each budget that holds, its own or its group's, in dollars or tokens; `renews` is when it begins anew (seconds since the
    epoch), None for never."""
    return [
        {
            "whose": "group" if window.holder.startswith("g:") else "consumer",
            "unit": "usd" if window.money else "tokens",
            "window": window.name,
            "limit": window.limit / 1e9 if window.money else window.limit,
            "used": spent / 1e9 if window.money else spent,
            "left": max(0, window.limit - spent) / (1e9 if window.money else 1),
            "renews": None if isinf(window.ends) else int(window.ends),
        }
        for window, spent in used
    ]


async def spent(store: Store, caller: Caller, query: Mapping[str, str], now: float) -> dict[str, Any]:
    """`total_usage` in hundredths of a dollar, as OpenAI had it; other currencies are beside it, unconverted."""
    since = _moment(query, "start_date", now - EVER * _DAY)
    until = _moment(query, "end_date", now, end=True)
    total = _sum(await _rows(store, caller, "", since, until))
    costs = total["costs"]
    return {"object": "list", "total_usage": round(costs.get("USD", 0.0) * 100, 6), "costs": costs}


async def usage(store: Store, caller: Caller, query: Mapping[str, str], now: float) -> dict[str, Any]:
    """Requests, tokens and costs since `since` until `until` (days, or seconds since the epoch), by `by`."""
    by = query.get("by", "model")
    if by not in GROUPS:
        raise CallerError("caller_invalid_request", f"`by` must be one of {', '.join(GROUPS)}.", param="by")
    since = _moment(query, "since", now - DAYS * _DAY)
    until = _moment(query, "until", now, end=True)
    rows = await _rows(store, caller, by, since, until)
    return {
        "object": "list",
        "consumer": caller.consumer.name,
        "by": by,
        "since": int(since),
        "until": int(until),
        "data": [{by: row.group[0]} | _sum([row]) for row in rows],
        "total": _sum(rows),
    }


async def _rows(store: Store, caller: Caller, by: str, since: float, until: float) -> list[UsageRow]:
    try:
        return await store.usage(by, since, until, only={"consumer": caller.consumer.name})
    except Exception as error:
        raise InternalError(
            "gateway_overloaded", "What was used cannot be looked up just now. Try again.", retry_after=2
        ) from error


def _sum(rows: list[UsageRow]) -> dict[str, Any]:
    """Costs in whole units of each currency."""
    costs: dict[str, int] = {}
    for row in rows:
        for currency, nano in row.costs.items():
            costs[currency] = costs.get(currency, 0) + nano
    return {
        "requests": sum(row.requests for row in rows),
        "errors": sum(row.errors for row in rows),
        "input_tokens": sum(row.input for row in rows),
        "cached_tokens": sum(row.cached for row in rows),
        "output_tokens": sum(row.output for row in rows),
        "unpriced_requests": sum(row.unpriced for row in rows),
        "costs": {currency: nano / 1e9 for currency, nano in costs.items()},
    }


def _moment(query: Mapping[str, str], name: str, otherwise: float, *, end: bool = False) -> float:
    """Seconds since the epoch; a day (UTC) is its beginning, as an *end* its last moment."""
    text = query.get(name, "")
    if not text:
        return otherwise
    try:
        if text.isascii() and text.isdigit() and len(text) <= 12:
            return float(text)
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp() + (_DAY if end else 0)
    except (ValueError, OverflowError):
        raise CallerError(
            "caller_invalid_request", f"`{name}` must be a day, such as {time.strftime('%Y-%m-%d')}, or seconds.", param=name
        ) from None
