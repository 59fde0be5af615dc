"""The price book: who is asked, in which order, and that the figures are right."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from aigw.config.schema import Price
from aigw.errors import ConfigError
from aigw.exchange import Usage
from aigw.metering.prices import REMEMBERED, PriceBook

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()
GOLDEN = json.loads(Path(__file__).with_name("golden_prices.json").read_text("utf-8"))
MILLION = Usage(input=1_000_000, output=1_000_000)


@pytest.fixture(scope="module")
def list_prices() -> PriceBook:
    kinds = {case["kind"] for case in GOLDEN["cases"]} | {
        "dashscope",
        "dashscope-intl",
        "doubao",
        "tencent-tokenhub",
        "huggingface",
    }
    return PriceBook({}, {kind: kind for kind in kinds})


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: f"{case['kind']}/{case['model']}")
def test_golden(list_prices: PriceBook, case: dict[str, Any]) -> None:
    """To the nano what genai-prices' own calculator says: tiers, service tiers, dates, hours, names, parts."""
    at = datetime.fromisoformat(case["at"]).timestamp()
    cost = list_prices.price(case["kind"], (case["model"],), Usage(**case["usage"]), at)
    assert cost is not None
    assert (cost.nano, cost.currency, cost.source, cost.version) == (case["nano"], "USD", "genai-prices", "0.2.3")


@pytest.mark.parametrize(
    ("kind", "model", "usage", "nano"),
    [
        ("dashscope-intl", "qwen3.8-max", Usage(input=1_000_000, cached=200_000, output=100_000), 2_250_000_000),
        ("dashscope-intl", "qwen3.7-max", Usage(input=1000, cache_write_5m=1000), 3_125_000),
        ("dashscope-intl", "qwen-flash", Usage(input=256_000, output=1000), 13_200_000),
        ("dashscope-intl", "qwen-flash", Usage(input=256_001, output=1000), 66_000_250),
        ("dashscope-intl", "qwen-plus-2025-07-14", Usage(input=1000, output=500, reasoning=400), 2_120_000),
        ("doubao", "doubao-seed-2-1-lite-260915", Usage(input=1000, audio_input=600, output=1000), 1_469_126),
    ],
)
def test_the_fallback_table(list_prices: PriceBook, kind: str, model: str, usage: Usage, nano: int) -> None:
    """Vendors that genai-prices does not cover, at the figures of the fallback table."""
    cost = list_prices.price(kind, (model,), usage, NOW)
    assert cost is not None
    assert (cost.nano, cost.source, cost.version) == (nano, "fallback", "litellm 1.106.2")


@pytest.mark.parametrize(
    ("at", "nano"),
    [
        ("2026-11-20T03:00:00", 1_320_000_000),  # Friday, peak
        ("2026-11-20T05:00:00", 660_000_000),
        ("2026-11-20T10:00:00", 660_000_000),
        ("2026-11-21T03:00:00", 660_000_000),  # Saturday
    ],
)
def test_off_peak_windows(list_prices: PriceBook, at: str, nano: int) -> None:
    """Half price outside working hours in Shanghai, and at weekends."""
    moment = datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp()
    cost = list_prices.price("tencent-tokenhub", ("deepseek-v4-pro-0813",), Usage(input=1_000_000), moment)
    assert cost is not None
    assert cost.nano == nano


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("dashscope", "qwen3.8-max"),  # mainland accounts are billed in CNY at rates we do not know
        ("doubao", "doubao-seed-2.0-pro"),
        ("doubao", "doubao-embedding"),
        ("openai", "no-such-model"),
        ("openai", "whisper-1"),  # priced by the hour, which a usage does not count
        ("openai", "tts-1"),
        ("cerebras", "qwen-3-coder-480b"),  # no longer listed: no figures, which is not free
        ("openrouter", "google/lyria-3-pro-preview"),
        ("vllm", "gpt-6-sol"),
        ("ollama", "llama3"),
        ("openai-compatible", "gpt-6-sol"),
    ],
)
def test_an_unknown_price_is_none_and_never_zero(kind: str, model: str) -> None:
    assert PriceBook({}, {"here": kind}).price("here", (model, model), Usage(input=1, output=1), NOW) is None


def test_demo_is_free() -> None:
    cost = PriceBook({}, {"demo": "demo"}).price("demo", ("demo",), MILLION, NOW)
    assert cost is not None
    assert (cost.nano, cost.source) == (0, "demo")


def test_the_answers_model_is_priced_before_the_one_asked_for() -> None:
    """An Azure deployment has any name; its answer says what it is. A name the data does not know gives way to the other."""
    book = PriceBook({}, {"azure": "azure"})
    both = book.price("azure", ("gpt-4o-2024-08-06", "gpt-4o-mini"), MILLION, NOW)
    asked = book.price("azure", ("our-own-name", "gpt-4o-mini"), MILLION, NOW)
    none = book.price("azure", ("", "gpt-4o-mini"), MILLION, NOW)
    assert both is not None
    assert asked is not None
    assert none is not None
    assert (both.nano, asked.nano, none.nano) == (12_500_000_000, 750_000_000, 750_000_000)
    assert book.price("azure", ("", ""), MILLION, NOW) is None


def test_names_as_vendors_write_them() -> None:
    """Gemini's resource names, and Hugging Face's provider behind the model."""
    book = PriceBook({}, {"gemini": "gemini", "hf": "huggingface"})
    long, short = (book.price("gemini", (name,), MILLION, NOW) for name in ("models/gemini-2.5-flash", "gemini-2.5-flash"))
    assert long == short is not None
    through = book.price("hf", ("", "meta-llama/Llama-3.3-70B-Instruct:novita"), MILLION, NOW)
    assert through is not None
    assert through.nano > 0
    assert book.price("hf", ("meta-llama/Llama-3.3-70B-Instruct",), MILLION, NOW) is None


def test_the_operators_price_comes_first() -> None:
    """It beats the data and the demo, in its own currency, for any kind of provider, by the config's name or the row's."""
    book = PriceBook(
        {
            "bailian/qwen-max": Price(input=2.4, output=9.6, cache_read=0.24, currency="CNY"),
            "openai/gpt-6-sol": Price(input=1.0),
            "vllm/*": Price(input=0.0),
            "demo/pay": Price(input=1.0, output=1.0),
        },
        {"bailian": "dashscope", "work": "openai", "gpu": "vllm", "demo": "demo"},
    )
    contract = book.price("bailian", ("qwen-max",), Usage(input=1_000_000, cached=500_000, output=100_000), NOW)
    assert contract is not None
    assert (contract.nano, contract.cache_saving, contract.currency) == (2_280_000_000, 1_080_000_000, "CNY")
    assert contract.source == "config"
    by_row = book.price("work", ("gpt-6-sol-2026-08-01", "gpt-6-sol"), MILLION, NOW)
    assert by_row is not None
    assert (by_row.nano, by_row.source) == (1_000_000_000, "config")
    free = book.price("gpu", ("anything",), MILLION, NOW)
    assert free is not None
    assert (free.nano, free.source) == (0, "config")
    demo = book.price("demo", ("pay",), MILLION, NOW)
    assert demo is not None
    assert demo.nano == 2_000_000_000


def test_the_most_specific_entry_wins_whatever_the_order() -> None:
    """Exact before wildcard, longer before shorter; and an exact entry for the asked name before a wildcard that fits both."""
    entries = {"*/gpt-*": 1.0, "openai/gpt-*": 2.0, "openai/gpt-6-*": 3.0, "openai/gpt-6-sol": 4.0, "openai/gpt-?-lun?": 5.0}
    for order in (list(entries), list(reversed(entries))):
        book = PriceBook({key: Price(input=entries[key]) for key in order}, {"openai": "openai"})
        found = {
            models: cost.nano // 10**9
            for models in (
                ("gpt-6-sol",),
                ("GPT-6-SOL-2026-08-01",),
                ("gpt-6-luna",),
                ("gpt-5",),
                ("gpt-6-sol-2026-08-01", "gpt-6-sol"),
            )
            if (cost := book.price("openai", models, Usage(input=1_000_000), NOW))
        }
        assert found == {
            ("gpt-6-sol",): 4,
            ("GPT-6-SOL-2026-08-01",): 3,
            ("gpt-6-luna",): 5,
            ("gpt-5",): 2,
            ("gpt-6-sol-2026-08-01", "gpt-6-sol"): 4,
        }


def test_brackets_and_dots_in_a_key_are_letters() -> None:
    """Only * and ? are wild: `composer-2.5[fast=true]` is a model's name, and a dot matches a dot."""
    book = PriceBook({"x/composer-2.5[fast=true]": Price(input=1.0)}, {"x": "openai-compatible"})
    assert book.price("x", ("composer-2.5[fast=true]",), MILLION, NOW) is not None
    assert book.price("x", ("composer-2x5[fast=true]",), MILLION, NOW) is None
    assert book.price("x", ("composer-2.5f",), MILLION, NOW) is None


def test_many_stars_do_not_stall() -> None:
    """A hostile name against an operator's clumsy pattern (a plain regex takes 46 seconds for this), and yet stars match."""
    book = PriceBook({"x/" + "*a" * 4 + "********b": Price(input=1.0)}, {"x": "openai-compatible"})
    start = time.perf_counter()
    assert book.price("x", ("a" * 200,), MILLION, NOW) is None
    assert time.perf_counter() - start < 5
    assert book.price("x", ("a-a-b-a-a-c-b",), MILLION, NOW) is not None
    assert book.price("x", ("a-a-a-b",), MILLION, NOW) is None


def test_decimals_are_taken_as_typed() -> None:
    """0.003625 is no binary fraction; a million tokens cost it to the nano. Request prices are whole units."""
    book = PriceBook({"x/*": Price(input=0.003625, output=0.1, request=0.012)}, {"x": "vllm"})
    cost = book.price("x", ("m",), Usage(input=1_000_000, output=3), NOW)
    assert cost is not None
    assert cost.nano == 3_625_000 + 300 + 12_000_000


@pytest.mark.parametrize(
    ("key", "price", "said"),
    [
        ("gpt-6-sol", Price(input=1.0), 'prices."gpt-6-sol": expected "provider/model"'),
        ("/gpt", Price(input=1.0), 'expected "provider/model"'),
        ("openai/", Price(input=1.0), 'expected "provider/model"'),
        ("a/b", Price(input=-1.0), 'prices."a/b".input: expected a price from 0'),
        ("a/b", Price(input=1.0, cache_read=float("nan")), 'prices."a/b".cache_read: expected'),
        ("a/b", Price(input=float("inf")), "expected a price"),
        ("a/b", Price(input=1e30), "expected a price"),
    ],
)
def test_an_entry_that_cannot_be_is_refused_by_name(key: str, price: Price, said: str) -> None:
    with pytest.raises(ConfigError, match="expected") as caught:
        PriceBook({key: price}, {})
    assert said in str(caught.value)


def test_memory_has_an_end() -> None:
    """Callers choose model names; remembering them must not grow for ever."""
    book = PriceBook({"x/*": Price(input=1.0)}, {"x": "vllm"})
    for number in range(REMEMBERED + 10):
        assert book.price("x", (f"model-{number}",), MILLION, NOW) is not None
    assert len(book._found) <= REMEMBERED


def test_plain_prices() -> None:
    """What one token costs, where that is all there is to it; None where the length or the hour matters, or nobody knows."""
    book = PriceBook({"a/*": Price(input=0.5, output=1.5, cache_read=0.1, currency="CNY")}, {"a": "openai", "b": "openai"})
    assert book.flat("a", "m") == (0, 500_000, 100_000, 1_500_000, "CNY")
    assert book.flat("b", "no-such-model-at-all") is None
    at = book.price("a", ("m",), Usage(input=10, output=3), 0.0)
    assert at is not None
    assert at.nano == (10 * 500_000 + 3 * 1_500_000 + 500) // 1000
