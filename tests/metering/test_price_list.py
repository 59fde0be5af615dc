"""The vendored price data is whole, and a name finds the row it means."""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from aigw.metering.price_list import PATH, SOURCES, PriceList, dash_date, matches

FIGURES = {
    "input", "output", "cached", "cache_write_5m", "cache_write_1h", "reasoning", "audio_input", "audio_output", "audio_cached",
    "image_input", "image_output", "image_cached", "request",
}  # fmt: skip


def test_the_data_is_as_it_was_built() -> None:
    """What the header says about the lines after it is true: their hash, and how many tables and models they hold."""
    head, body = PATH.read_bytes().split(b"\n", 1)
    header = json.loads(head)
    assert header["format"] == 1
    assert header["editions"]["genai-prices"] == "0.2.3"
    assert header["sha256"] == hashlib.sha256(body).hexdigest()
    tables = [json.loads(line) for line in body.splitlines()]
    assert (len(tables), sum(len(table["models"]) for table in tables)) == (header["tables"], header["models"]) == (51, 2395)
    assert len({(table["source"], table["id"]) for table in tables}) == len(tables)


def test_every_figure_is_a_whole_number_of_pico_units() -> None:
    """No float, no negative figure, no unknown name, tiers in rising order: checked for each of the 2,395 models."""

    def check(figures: dict[str, Any]) -> None:
        assert figures.keys() <= FIGURES
        for figure in figures.values():
            base, *steps = figure if isinstance(figure, list) else [figure]
            assert type(base) is int
            assert base >= 0
            assert [start for start, _ in steps] == sorted({start for start, _ in steps})
            assert all(type(number) is int and number > 0 for step in steps for number in step)

    for line in PATH.read_text("utf-8").splitlines()[1:]:
        table = json.loads(line)
        assert table["source"] in SOURCES
        for _, _, prices, *rest in table["models"]:
            for _, figures in prices:
                check(figures)
            for _, _, figures in rest[0] if rest else []:
                check(figures)


def test_the_licences_travel_with_the_data() -> None:
    """Whoever gets the data gets the notices of those who gathered it."""
    data = resources.files("aigw.metering") / "data"
    genai = (data / "LICENSE-genai-prices").read_text("utf-8")
    assert "MIT License" in genai
    assert "Pydantic Services Inc." in genai
    assert "Berri AI" in (data / "LICENSE-litellm").read_text("utf-8")


def test_only_tables_asked_for_are_decoded_with_those_they_borrow_from() -> None:
    """Azure serves OpenAI's models at OpenAI's prices, so its table brings OpenAI's along; OpenRouter's 923 rows stay away."""
    prices = PriceList({"azure"})
    assert prices.find("genai-prices", "azure", "gpt-4o-2024-08-06") is not None
    table, model, borrowed = prices.find("genai-prices", "azure", "gpt-6-sol") or pytest.fail("not found")
    assert (table.id, model.id, borrowed) == ("openai", "gpt-6-sol", True)
    assert prices.find("genai-prices", "openrouter", "openai/gpt-6-sol") is None


def test_a_vendor_without_data_is_no_error() -> None:
    assert PriceList({"vllm", "no-such-vendor"}).find("genai-prices", "vllm", "gpt-6-sol") is None


def test_a_truncated_file_is_reported(tmp_path: Path) -> None:
    """Half a file must not pass for a short price list."""
    file = tmp_path / "prices.jsonl"
    whole = PATH.read_bytes()
    file.write_bytes(whole[: whole.index(b'"id":"openai"') + 500])
    with pytest.raises(Exception, match="truncated"):
        PriceList({"openai"}, file)


@pytest.mark.parametrize(
    ("clause", "yes", "no"),
    [
        ("=gpt-4", "gpt-4", "gpt-4o"),
        ("^claude-3", "claude-3-opus", "anthropic.claude-3"),
        ("$:free", "x/y:free", "x/y:free-2"),
        ("*claude-v2", "anthropic.claude-v2:1", "claude-2"),
        (r"~^gpt-6-sol-\d{4}-\d{2}-\d{2}$", "gpt-6-sol-2026-08-01", "gpt-6-sol-2026-8-1"),
        (["|", "=a", "^b"], "bc", "ab"),
        (["&", "*a", ["|", "$1", "$2"]], "xa2", "xa3"),
    ],
)
def test_match_clauses(clause: Any, yes: str, no: str) -> None:
    """Each kind of clause accepts what it should, and no more."""
    assert matches(clause, yes)
    assert not matches(clause, no)


@pytest.mark.parametrize(
    ("name", "dashed"),
    [
        ("gpt-5.2-20251211", "gpt-5.2-2025-12-11"),
        ("x-20251211-preview", "x-2025-12-11-preview"),
        ("x-20251211:free", "x-2025-12-11:free"),
        ("x-20250231", "x-20250231"),
        ("x-123420251211", "x-123420251211"),
    ],
)
def test_compact_dates(name: str, dashed: str) -> None:
    """Aggregators drop the dashes of a date; what is no date stays."""
    assert dash_date(name) == dashed
