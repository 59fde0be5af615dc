"""Money in one currency: what budgets are counted in. Rates are fixed, the operator's or these; nobody is asked for today's."""

from __future__ import annotations

import msgspec

from aigw.config import schema

_PARTS = 10**9


class Currencies:
    """US dollars for any cost. Integers: a rate is taken in billionths."""

    def __init__(self, rates: schema.Currencies | None = None) -> None:
        """*rates*: the operator's; without them those that a config without `[currencies]` has."""
        written = msgspec.structs.asdict(rates or schema.Currencies())
        self._rates = {name: round(rate * _PARTS) for name, rate in written.items()}

    def usd(self, nano: int, currency: str) -> int:
        """Nano-units of *currency* as nano-USD, rounded half up; of one without a rate as if it were dollars: better too much
        is counted than nothing."""
        if currency == "USD":
            return nano
        rate: int = self._rates.get(currency, _PARTS)
        return (nano * rate + _PARTS // 2) // _PARTS
