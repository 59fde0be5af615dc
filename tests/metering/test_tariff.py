"""One model's prices: by date, hour, service tier and length, in integers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, strategies as st

from aigw.exchange import Usage
from aigw.metering.tariff import Tariff, When
from aigw.metering.usage import clean

FULL = {
    "input": 2_000_000, "output": 10_000_000, "cached": 200_000, "cache_write_5m": 2_500_000, "cache_write_1h": 4_000_000,
    "reasoning": 12_000_000, "audio_input": 32_000_000, "audio_output": 64_000_000, "audio_cached": 400_000,
    "image_input": 5_000_000, "image_output": 40_000_000, "image_cached": 500_000,
}  # fmt: skip


def flat(**figures: int) -> Tariff:
    return Tariff([(None, figures)], source="test")


def nano(tariff: Tariff, at: float = 0.0, **counts: int | str) -> int:
    cost = tariff.cost(Usage(**counts), at)  # type: ignore[arg-type]
    assert cost is not None
    return cost.nano


def moment(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("counts", "pico"),
    [
        ({"input": 10}, 20_000_000),
        ({"output": 10}, 100_000_000),
        ({"input": 10, "cached": 4}, 12_800_000),
        ({"input": 10, "cache_write_5m": 10}, 25_000_000),
        ({"input": 10, "cache_write_1h": 10}, 40_000_000),
        ({"input": 10, "cached": 5, "cache_write_5m": 3, "cache_write_1h": 2}, 16_500_000),
        ({"output": 10, "reasoning": 10}, 120_000_000),
        ({"output": 10, "reasoning": 4}, 108_000_000),
        ({"input": 10, "audio_input": 10}, 320_000_000),
        ({"output": 10, "audio_output": 6}, 424_000_000),
        ({"input": 10, "image_input": 10}, 50_000_000),
        ({"output": 10, "image_output": 10}, 400_000_000),
        # cached tokens are text first, then audio, then images
        ({"input": 10, "audio_input": 6, "cached": 4}, 192_800_000),
        ({"input": 10, "audio_input": 6, "cached": 9}, 34_800_000),
        ({"input": 10, "audio_input": 6, "image_input": 4, "cached": 10}, 4_400_000),
    ],
)
def test_each_part_has_its_own_price(counts: dict[str, int], pico: int) -> None:
    """Parts of the input and output are taken out of their whole, never paid twice."""
    assert nano(flat(**FULL), **counts) == pico // 1000


def test_a_part_without_a_price_costs_as_its_whole() -> None:
    """No cache price, no discount; a write for an hour falls back to the write for five minutes."""
    plain = flat(input=1_000_000, output=2_000_000, cache_write_5m=1_250_000)
    counts = {"input": 1000, "cached": 1000, "output": 10, "reasoning": 10}
    assert nano(plain, **counts) == nano(plain, input=1000, output=10) == 1_020_000
    assert nano(plain, input=1000, audio_input=500, image_input=500) == 1_000_000
    assert nano(plain, input=1000, cache_write_1h=1000) == 1_250_000


def test_rounding_is_half_up_and_once() -> None:
    """499 pico are nothing, 500 a nano; many small ones add up before they are rounded."""
    assert nano(flat(input=499, output=0), input=1) == 0
    assert nano(flat(input=500, output=0), input=1) == 1
    assert nano(flat(input=499, output=499), input=1, output=1) == 1
    assert nano(flat(input=1, output=0), input=10**15) == 10**12


def test_the_saving_is_what_cache_reads_did_not_cost() -> None:
    cost = flat(**FULL).cost(Usage(input=1000, cached=400), 0.0)
    assert cost is not None
    assert (cost.nano, cost.cache_saving) == (1_280_000, 720_000)
    assert cost.nano + cost.cache_saving == nano(flat(**FULL), input=1000)


def test_a_request_may_have_a_price_of_its_own() -> None:
    assert nano(flat(input=0, output=0, request=12_000_000_000), input=5, output=5) == 12_000_000


def test_a_side_without_a_price_is_unknown_not_free() -> None:
    """An embedding model has no output price and needs none; tokens there make the cost unknown."""
    embedding = flat(input=20_000)
    assert nano(embedding, input=1000) == 20_000
    assert embedding.cost(Usage(input=1000, output=1), 0.0) is None
    assert flat(output=20_000).cost(Usage(input=1, output=1), 0.0) is None


def test_a_tier_reprices_the_whole_request() -> None:
    """One token over the edge, and all of them cost the higher price; figures without tiers stay."""
    tiered = Tariff(
        [(None, {"input": [1000, [100, 2000], [200, 3000]], "output": [5000, [100, 6000]], "cached": 10})], source="test"
    )
    assert nano(tiered, input=100, output=10) == 150
    assert nano(tiered, input=101, output=10) == 262
    assert nano(tiered, input=201, output=10) == 663
    assert nano(tiered, input=201, cached=201) == 2
    assert nano(tiered, output=10) == 50


def test_a_service_tier_replaces_figures_one_by_one() -> None:
    """Only in that tier, only from its date on, the first of two that hold; the others keep the standard price."""
    tariff = Tariff(
        [(None, {"input": 1000, "output": 5000})],
        [
            ("flex", {"start": "2026-01-01"}, {"input": 400}),
            ("flex", None, {"input": 900, "output": 4000}),
            ("batch", None, {"input": [500, [100, 700]]}),
        ],
        source="test",
    )
    new, old = moment("2026-01-01"), moment("2025-12-31 23:59:59")
    counts = {"input": 100, "output": 10}
    assert nano(tariff, new, **counts) == 150
    assert nano(tariff, new, **counts, service_tier="default") == 150
    assert nano(tariff, new, **counts, service_tier="flex") == 80
    assert nano(tariff, old, **counts, service_tier="flex") == 130
    assert nano(tariff, old, **counts, service_tier="batch") == 100
    assert nano(tariff, old, input=101, output=0, service_tier="batch") == 71


def test_the_last_condition_that_holds_counts() -> None:
    """A price rise by date, and a cheaper night within it; the first price when nothing holds."""
    tariff = Tariff(
        [
            ({"start": "2026-01-01"}, {"input": 1000, "output": 0}),
            ({"start": "2026-06-01"}, {"input": 2000, "output": 0}),
            ({"from": 79200, "to": 21600}, {"input": 500, "output": 0}),
        ],
        source="test",
    )
    for text, expected in {
        "2025-01-01 12:00": 1000,
        "2026-05-31 21:59:59": 1000,
        "2026-06-01 12:00": 2000,
        "2026-06-01 22:00": 500,
        "2026-06-02 05:59:59": 500,
        "2026-06-02 06:00": 2000,
    }.items():
        assert nano(tariff, moment(text), input=1000) == expected, text


def test_weekdays_are_those_of_the_vendors_clock() -> None:
    """Saturday begins in Shanghai at 16:00 UTC on Friday."""
    weekend = When({"from": 0, "to": 86400, "days": "67", "shift": 8 * 3600})
    assert not weekend.holds(moment("2026-11-20 15:59:59"))  # a Friday
    assert weekend.holds(moment("2026-11-20 16:00"))
    assert weekend.holds(moment("2026-11-22 15:59:59"))
    assert not weekend.holds(moment("2026-11-22 16:00"))


counts = st.integers(0, 10**7)
usages = st.builds(
    Usage, input=counts, cached=counts, cache_write_5m=counts, cache_write_1h=counts, output=counts, reasoning=counts,
    audio_input=counts, audio_output=counts, image_input=counts, image_output=counts,
)  # fmt: skip


@given(usages)
def test_a_cost_is_never_negative(usage: Usage) -> None:
    """Not even when the parts exceed their whole."""
    for candidate in (usage, clean(usage)):
        cost = flat(**FULL).cost(candidate, 0.0)
        assert cost is not None
        assert cost.nano >= 0
        assert cost.cache_saving >= 0


@given(usages, usages)
def test_costs_add_up(one: Usage, two: Usage) -> None:
    """Two requests cost what one with all their tokens costs, but for a nano of rounding. (Without media: there, cached tokens
    of one may have been text where those of both were audio.)"""
    bare = dict.fromkeys(("audio_input", "audio_output", "image_input", "image_output"), 0)
    first, second = (clean(Usage(**{name: getattr(u, name) for name in WITHOUT_MEDIA}, **bare)) for u in (one, two))
    both = Usage(**{name: getattr(first, name) + getattr(second, name) for name in WITHOUT_MEDIA})
    tariff = flat(**FULL)
    a, b, c = (tariff.cost(usage, 0.0) for usage in (first, second, both))
    assert a is not None
    assert b is not None
    assert c is not None
    assert abs(a.nano + b.nano - c.nano) <= 1
    assert abs(a.cache_saving + b.cache_saving - c.cache_saving) <= 1


WITHOUT_MEDIA = ("input", "cached", "cache_write_5m", "cache_write_1h", "output", "reasoning")


@given(usages, st.sampled_from(["input", "output"]), st.integers(1, 10**6))
def test_more_tokens_never_cost_less(usage: Usage, name: str, more: int) -> None:
    """With tiers that rise, too."""
    tariff = Tariff([(None, FULL | {"input": [2_000_000, [10**6, 4_000_000]]})], source="test")
    before = clean(usage)
    cheaper = tariff.cost(before, 0.0)
    setattr(before, name, getattr(before, name) + more)
    dearer = tariff.cost(before, 0.0)
    assert cheaper is not None
    assert dearer is not None
    assert dearer.nano >= cheaper.nano
