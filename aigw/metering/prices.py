"""The price book: provider, model, usage, moment -> cost.

Asked in this order, and the cost says which one answered:
  1. "config": the operator's [prices], the most specific entry first. The only right place for contracts, discounts, CNY;
  2. "demo": the built-in demo provider is free;
  3. "genai-prices": list prices in USD, vendored (see `price_list.py`);
  4. "fallback": vendors that genai-prices does not cover; international USD list prices, not checked against their pages;
  5. nobody: None. An unknown price is never 0.

What a provider itself reported stays beside the cost, in `Usage.reported_cost`. Not priced, because a usage does not count
them: web searches, characters, seconds of audio, pages, video. Batch, flex and priority prices follow the answer's service
tier; of tables borrowed from another vendor (a model of OpenAI at Azure) only the standard price is known.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path

from aigw.config.schema import Price
from aigw.errors import ConfigError
from aigw.exchange import Cost, Usage
from aigw.metering.price_list import PATH, SOURCES, PriceList
from aigw.metering.tariff import Tariff

TABLES = {
    "gemini": "google",
    "vertex": "google",
    "bedrock": "aws",
    "moonshot": "moonshotai",
    "moonshot-intl": "moonshotai",
    "xai": "x-ai",
    "zhipu": "zhipuai",
    "minimax-intl": "minimax",
    "voyage": "voyageai",
    "claude-code": "anthropic",  # what it would cost by the list: a subscription has no bill per token
    "huggingface": "huggingface_*",  # one table for each provider behind its router
}
"""Catalog row -> table of the price data, where their names differ."""

DEMO = "demo"  # the catalog row of the built-in offline provider

REMEMBERED = 4096
"""Names are remembered with their tariff; a book that was asked for more forgets them all and starts again (names come from
callers, so the memory must have an end). 4,096 are about 1 MB."""

UNITS = {"request": 10**12}  # config figures -> pico-units; all others are per million tokens
FIGURES = {name: name for name in Price.__struct_fields__ if name != "currency"} | {"cache_read": "cached"}


class PriceBook:
    """Prices of the configured providers. Made anew with each config; asked once per exchange, so answers are remembered."""

    def __init__(self, overrides: Mapping[str, Price], kinds: Mapping[str, str], path: Path = PATH) -> None:
        """*overrides*: [prices] of the config, by "provider/model" (`*` and `?` allowed, any case; the provider is a name of
        the config or a catalog row). *kinds*: provider name -> catalog row. *path*: the price file. Raises ConfigError for an
        entry that cannot be."""
        self._kinds = dict(kinds)
        self._overrides = [(pattern(key), tariff(key, price)) for key, price in sorted(overrides.items(), key=specific)]
        self._list = PriceList({TABLES.get(kind, kind) for kind in kinds.values()}, path)
        self._found: dict[tuple[str, tuple[str, ...]], Tariff | None] = {}

    def price(self, provider: str, models: tuple[str, ...], usage: Usage, at: float) -> Cost | None:
        """The cost of *usage* at *provider* (name in the config), or None when its price is not known.

        *models*: names for what was used, the best first: the one in the answer, then the one asked of the provider; empty
        ones are skipped. *at*: the start of the exchange, seconds since the epoch.
        """
        try:
            found = self._found[provider, models]
        except KeyError:
            if len(self._found) >= REMEMBERED:
                self._found.clear()
            found = self._found[provider, models] = self._find(provider, [name for name in models if name])
        return None if found is None else found.cost(usage, at)

    def flat(self, provider: str, model: str) -> tuple[int, int, int, int, str] | None:
        """Pico-units for a request, a token of the prompt, one of it from the cache, one of the answer; and the currency. None
        where the price depends on more than these, or is not known."""
        self.price(provider, (model,), Usage(), 0.0)  # so that it is found
        found = self._found[provider, (model,)]
        return None if found is None else found.flat

    def _find(self, provider: str, models: list[str]) -> Tariff | None:
        kind = self._kinds.get(provider, provider)
        for accepts, override in self._overrides:
            if any(accepts.fullmatch(f"{name}/{model}") for model in models for name in (provider, kind)):
                return override
        if kind == DEMO:
            return Tariff([(None, {"input": 0, "output": 0})], source="demo")
        for source in SOURCES:
            for model in models:
                name, table = model.removeprefix("models/"), TABLES.get(kind, kind)  # Gemini names models/gemini-...
                if table.endswith("*"):
                    name, _, behind = name.rpartition(":")
                    table = table[:-1] + behind
                if (row := self._list.find(source, table, name)) is None:
                    continue
                lender, entry, borrowed = row
                if not any(figures for _, figures in entry.prices):
                    return None  # the data knows the model, and that nothing we count has a price
                return Tariff(entry.prices, () if borrowed else entry.variants, source=source, version=lender.edition)
        return None


def specific(entry: tuple[str, Price]) -> tuple[int, int, str]:
    """Sorts the most specific pattern first: without wildcards, then by how much of it is literal, then by name."""
    key = entry[0]
    wild = key.count("*") + key.count("?")
    return (bool(wild), wild - len(key), key)


def pattern(key: str) -> re.Pattern[str]:
    provider, slash, model = key.partition("/")
    if not (provider and slash and model):
        raise ConfigError('expected "provider/model", for example "openai/gpt-*"', key=f'prices."{key}"')
    first, *others = ["".join("." if letter == "?" else re.escape(letter) for letter in part) for part in re.split(r"\*+", key)]
    if not others:
        return re.compile(first, re.IGNORECASE | re.DOTALL)
    # the leftmost fit of each part between stars is as good as any: atomic groups spare us from trying the rest
    between = "".join(f"(?>.*?{part})" for part in others[:-1])
    return re.compile(f"{first}{between}.*{others[-1]}", re.IGNORECASE | re.DOTALL)


def tariff(key: str, price: Price) -> Tariff:
    figures = {}
    for field, name in FIGURES.items():
        value = getattr(price, field)
        if value is None:
            continue
        if not (math.isfinite(value) and 0 <= value < 10**6):
            raise ConfigError(f"expected a price from 0 to 1,000,000, got {value}", key=f'prices."{key}".{field}')
        # repr gives back the digits that were typed; beyond 6 decimals they are rounded, half to even
        exact = Decimal(repr(value)) * UNITS.get(field, 10**6)
        figures[name] = int(exact.quantize(Decimal(1), ROUND_HALF_EVEN))
    return Tariff([(None, figures)], currency=price.currency, source="config")
