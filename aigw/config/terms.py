"""What a consumer or a group may do, from its table of the config or the words of the command line."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation

from aigw.config.schema import Group, Limits
from aigw.consumer import NANO, WINDOWS, Budget, OnBudget, Terms

_BUDGET = re.compile(r"(\$?)\s*([0-9][0-9_]*(?:\.[0-9]+)?)\s*([kmb]?)\s*([a-z]*)\s*/\s*([a-z]+)", re.IGNORECASE)
_SCALE = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}

MOST = 2**62
"""Of nano-dollars or tokens: what 64 bits hold, with room to add."""


def budget(text: str, unit: str = "") -> Budget:
    """ "5usd/day", "$5/day", "1M tokens/month": an amount and a window. *unit* is meant where the text names none. Raises
    ValueError, which says what was expected."""
    match = _BUDGET.fullmatch(text.strip())
    if match is None:
        example = "1M/month" if unit == "tokens" else "5usd/day"
        raise ValueError(f"{text[:40]!r} is no budget; expected an amount and a window, for example {example}")
    dollar, number, scale, word, window = match.groups()
    word, window = word.lower(), window.lower()
    if dollar and not word:
        word = "usd"
    named = {"": unit, "usd": "usd", "token": "tokens", "tokens": "tokens"}.get(word, "?")
    if not named:
        raise ValueError(f"{text[:40]!r}: of what? expected usd or tokens, for example 5usd/day or 1M tokens/month")
    if named == "?" or (dollar and named == "tokens"):
        raise ValueError(f"{text[:40]!r}: budgets are in usd or in tokens (other currencies count by [currencies])")
    if unit and named != unit:
        raise ValueError(f"{text[:40]!r}: expected {unit} here")
    if window not in WINDOWS:
        raise ValueError(f"{text[:40]!r}: expected one of {', '.join(WINDOWS)} behind the slash")
    try:
        exact = Decimal(number.replace("_", "")) * _SCALE[scale.lower()] * (NANO if named == "usd" else 1)
    except InvalidOperation:
        raise ValueError(f"{text[:40]!r}: expected a number in front") from None
    amount = int(exact)
    if amount != exact:
        raise ValueError(f"{text[:40]!r} is finer than can be counted")
    if not 0 < amount <= MOST:
        raise ValueError(f"{text[:40]!r}: expected more than 0" if amount <= 0 else f"{text[:40]!r} is too much to count")
    return Budget(amount, named, window)


def written(one: Budget) -> str:
    """*one* as `budget` reads it."""
    if one.unit == "tokens":
        return f"{one.amount} tokens/{one.window}"
    return f"{(Decimal(one.amount) / NANO).normalize():f} usd/{one.window}"


def budgets(texts: Iterable[str]) -> tuple[Budget, ...]:
    """All of *texts*. Raises ValueError; also for two of the same unit and window, of which only one can be meant."""
    found: dict[tuple[str, str], Budget] = {}
    for text in texts:
        one = budget(text)
        if (one.unit, one.window) in found:
            raise ValueError(f"two budgets of {one.unit} a {one.window}: write the one that is meant")
        found[one.unit, one.window] = one
    return tuple(found.values())


def network(text: str) -> str:
    """An address or a network, in its usual form. Raises ValueError."""
    try:
        return str(ipaddress.ip_network(text.strip(), strict=False))
    except ValueError:
        raise ValueError(f"{text[:60]!r} is no address or network; expected one like 10.0.0.0/8 or 2001:db8::/32") from None


def terms(table: Limits) -> Terms:
    """*table* as the walk knows it; its texts were checked (`config.check`), so nothing is raised for a loaded config."""
    own = table if isinstance(table, Group) else Group()
    return Terms(
        models=own.models,
        deny=own.deny,
        providers=own.providers,
        residency=own.residency,
        endpoints=own.endpoints,
        max_price=own.max_price,
        allow_ip=tuple(map(network, own.allow_ip)),
        rpm=table.rpm,
        tpm=table.tpm,
        concurrency=table.concurrency,
        max_output=table.max_output,
        budgets=budgets(table.budgets),
        tz=table.tz,
        hard=table.hard,
        unpriced=table.unpriced,
        on_budget=None if table.on_budget is None else OnBudget(table.on_budget.at, table.on_budget.use),
        priority=table.priority,
    )


def price(value: float) -> float:
    """A price limit that can be one. Raises ValueError."""
    if not math.isfinite(value) or value < 0:
        raise ValueError("expected an amount of US dollars, 0 or more")
    return value
