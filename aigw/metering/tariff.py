"""What one model costs: prices by date and time of day, by service tier, by length of the prompt; and a usage's cost by them.

Money is integers throughout: prices are pico-units (1e-12) of the currency per token, sums are exact, and a cost is rounded
once, to nano-units (1e-9), half up. So the parts of a bill may differ from the bill by one nano each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from aigw.exchange import Cost, Usage

DAY = 86400

Figures = Mapping[str, Any]
"""Pico-units by what is priced ("input", "cached" ...); a figure may be [base, [start, pico], ...] (see Tariff)."""

PARENTS = {
    "cached": "input",
    "cache_write_5m": "input",
    "cache_write_1h": "cache_write_5m",
    "audio_input": "input",
    "image_input": "input",
    "audio_cached": "audio_input",
    "image_cached": "image_input",
    "reasoning": "output",
    "audio_output": "output",
    "image_output": "output",
}
"""What a part costs when it has no price of its own: as much as this. In this order, so that parents come first."""


class Rates:
    """Flat prices in pico-units per token (`request`: per request). Parts without a price have their parent's."""

    __slots__ = (
        "audio_cached",
        "audio_input",
        "audio_output",
        "cache_write_1h",
        "cache_write_5m",
        "cached",
        "image_cached",
        "image_input",
        "image_output",
        "input",
        "output",
        "partial",
        "reasoning",
        "request",
    )

    input: int
    output: int
    cached: int
    cache_write_5m: int
    cache_write_1h: int
    audio_input: int
    image_input: int
    audio_cached: int
    image_cached: int
    reasoning: int
    audio_output: int
    image_output: int
    request: int

    def __init__(self, figures: Mapping[str, int]) -> None:
        self.partial = not {"input", "output"} <= figures.keys()
        """One side has no price: tokens there make the cost unknown."""
        self.input = figures.get("input", -1)
        self.output = figures.get("output", -1)
        self.request = figures.get("request", 0)
        for part, parent in PARENTS.items():
            setattr(self, part, figures.get(part, getattr(self, parent)))


class When:
    """A condition on the moment of a request (seconds since the epoch): from a date on (UTC), or between two times of the
    UTC day, on some days of the week or all."""

    __slots__ = ("days", "end", "shift", "since", "start")

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.since = datetime.fromisoformat(raw["start"]).replace(tzinfo=UTC).timestamp() if "start" in raw else None
        self.start: int = raw.get("from", 0)
        self.end: int = raw.get("to", DAY)
        self.days: str = raw.get("days", "1234567")  # ISO: 1 is Monday
        self.shift: int = raw.get("shift", 0)  # the days are those of a clock this many seconds ahead of UTC

    def holds(self, at: float) -> bool:
        if self.since is not None:
            return at >= self.since
        now = at % DAY
        wraps = self.end < self.start
        inside = (now >= self.start or now < self.end) if wraps else self.start <= now < self.end
        # 1 January 1970 was a Thursday
        return inside and str((int(at + self.shift) // DAY + 3) % 7 + 1) in self.days


class Tariff:
    """All prices of one model.

    `prices`: (when, figures), the last one that holds counts, the first when none does. `variants`: (service tier, when,
    figures): in that tier, figures that replace those of `prices` one by one. A figure [base, [start, pico], ...] depends
    on the length of the prompt: more than `start` input tokens, and *all* tokens of the request cost that.
    """

    def __init__(
        self,
        prices: Sequence[tuple[Mapping[str, Any] | None, Figures]],
        variants: Sequence[tuple[str, Mapping[str, Any] | None, Figures]] = (),
        *,
        currency: str = "USD",
        source: str,
        version: str = "",
    ) -> None:
        self.currency, self.source, self.version = currency, source, version
        self._prices = [(When(when) if when else None, figures) for when, figures in prices]
        self._variants = [(tier, When(when) if when else None, figures) for tier, when, figures in variants]
        self._tiers = {tier for tier, _, _ in variants}
        self._ladders: dict[tuple[int, tuple[int, ...]], list[tuple[int, Rates]]] = {}
        ladder = self._ladder((0, ()))
        self._flat = ladder[0][1] if len(self._prices) == 1 and not variants and len(ladder) == 1 else None
        """The rates, when they depend on nothing: most models."""

    @property
    def flat(self) -> tuple[int, int, int, int, str] | None:
        """Pico-units for a request, a token of the prompt, one of it from the cache, one of the answer; and the currency. None
        where the price depends on the hour, the tier or the length, or a part has none."""
        rates = self._flat
        if rates is None or rates.partial:
            return None
        return rates.request, rates.input, rates.cached, rates.output, self.currency

    def cost(self, usage: Usage, at: float) -> Cost | None:
        """What *usage* of a request begun *at* (seconds since the epoch) costs; None when a needed price is unknown."""
        rates = self._flat or self._rates(usage, at)
        tokens, output, cached = usage.input, usage.output, usage.cached
        if rates.partial and ((tokens and rates.input < 0) or (output and rates.output < 0)):
            return None
        written, longer, reasoning = usage.cache_write_5m, usage.cache_write_1h, usage.reasoning
        special = usage.audio_input or usage.image_input or usage.audio_output or usage.image_output
        if special or cached + written + longer > tokens or reasoning > output:
            pico, saving = itemised(rates, usage)
        else:
            saving = cached * (rates.input - rates.cached)
            pico = rates.request + tokens * rates.input - saving + output * rates.output
            if written or longer:
                pico += written * (rates.cache_write_5m - rates.input) + longer * (rates.cache_write_1h - rates.input)
            if reasoning:
                pico += reasoning * (rates.reasoning - rates.output)
        return Cost((pico + 500) // 1000, self.currency, (saving + 500) // 1000, self.source, self.version)

    def _rates(self, usage: Usage, at: float) -> Rates:
        standing = 0
        for index in range(len(self._prices) - 1, 0, -1):
            when = self._prices[index][0]
            if when is None or when.holds(at):
                standing = index
                break
        chosen: tuple[int, ...] = ()
        tier = usage.service_tier
        if tier in self._tiers:
            chosen = tuple(
                index
                for index, (name, when, _) in enumerate(self._variants)
                if name == tier and (when is None or when.holds(at))
            )
        ladder = self._ladders.get((standing, chosen)) or self._ladder((standing, chosen))
        tokens = usage.input
        for start, rates in ladder:
            if tokens > start:
                return rates
        return ladder[-1][1]

    def _ladder(self, key: tuple[int, tuple[int, ...]]) -> list[tuple[int, Rates]]:
        """(more than so many input tokens, the rates then), longest first; remembered."""
        figures = dict(self._prices[key[0]][1])
        for index in reversed(key[1]):  # of two variants that hold, the first counts
            figures |= self._variants[index][2]
        starts = {start for figure in figures.values() if isinstance(figure, list) for start, _ in figure[1:]}
        ladder = []
        for threshold in sorted(starts | {-1}, reverse=True):
            flat = {}
            for name, figure in figures.items():
                if isinstance(figure, list):
                    reached = [pico for start, pico in figure[1:] if start <= threshold]
                    flat[name] = reached[-1] if reached else figure[0]
                else:
                    flat[name] = figure
            ladder.append((threshold, Rates(flat)))
        self._ladders[key] = ladder
        return ladder


def itemised(rates: Rates, usage: Usage) -> tuple[int, int]:
    """(pico-units, pico-units saved by cache reads) where parts may overlap or exceed their whole: audio, images.

    A usage does not say which of its cached tokens were audio. They are taken to be text first, then audio, then images: the
    dearest reading, since audio costs most. Cache writes are text. Parts that exceed their whole are counted, the rest is 0.
    """
    written = usage.cache_write_5m + usage.cache_write_1h
    text = max(0, usage.input - usage.audio_input - usage.image_input - written)
    cached_text = min(usage.cached, text)
    cached_audio = min(usage.cached - cached_text, usage.audio_input)
    cached_image = min(usage.cached - cached_text - cached_audio, usage.image_input)
    cached_more = usage.cached - cached_text - cached_audio - cached_image
    saving = (
        (cached_text + cached_more) * (rates.input - rates.cached)
        + cached_audio * (rates.audio_input - rates.audio_cached)
        + cached_image * (rates.image_input - rates.image_cached)
    )
    said = max(0, usage.output - usage.reasoning - usage.audio_output - usage.image_output)
    full = (
        rates.request
        + (text + cached_more) * rates.input
        + usage.cache_write_5m * rates.cache_write_5m
        + usage.cache_write_1h * rates.cache_write_1h
        + usage.audio_input * rates.audio_input
        + usage.image_input * rates.image_input
        + said * rates.output
        + usage.reasoning * rates.reasoning
        + usage.audio_output * rates.audio_output
        + usage.image_output * rates.image_output
    )
    return full - saving, saving
