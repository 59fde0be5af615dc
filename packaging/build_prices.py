"""Build aigw/metering/data/prices.jsonl, the prices that travel inside the wheel.

Two sources go in: the data of genai-prices (MIT, Pydantic Services Inc.), read from the installed package, and
`prices_fallback.json` beside this file, for vendors that genai-prices does not cover. Neither is a dependency of aigw;
run this in an environment of its own:

    python3 -m venv /tmp/prices && /tmp/prices/bin/pip install genai-prices==0.2.3
    /tmp/prices/bin/python packaging/build_prices.py
    /tmp/prices/bin/python packaging/build_prices.py --golden tests/metering/golden_prices.json

The second command recomputes the expected figures of the golden file with genai-prices' own calculator, which is the
independent opinion our arithmetic is tested against. After a new edition, read both diffs before committing them.

The file, one JSON value a line:
  1. the header: `format`, `editions` (version of each source), `tables` and `models` (how many), `sha256` of all the
     lines after it;
  then one table a line: `source`, `id`, `borrows` (tables asked when a model is not in this one) and `models`, each
     `[id, match, prices, variants]`:
       match     "=x" equals, "^x" starts with, "$x" ends with, "*x" contains, "~x" regex, ["|", ...] any, ["&", ...] all;
                 the first model that matches the lower-case name wins
       prices    [[when, figures], ...]: the last one whose `when` holds; the first when none does
       variants  [[service tier, when, figures], ...]: figures that replace those of `prices` in that tier
       when      null, {"start": date}, or {"from", "to"} (seconds of the UTC day; wraps when to < from) with, if only some
                 days count, {"days": "67"} (ISO) of the day at `shift` seconds from UTC
       figures   integer pico-units (1e-12) of USD per token (`request`: per request), or [base, [start, figure], ...]:
                 a request with more than `start` input tokens pays that figure for all its tokens.
                 No figures at all: the price is unknown (free models have zeros; see `FREE`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "aigw" / "metering" / "data" / "prices.jsonl"
FALLBACK = Path(__file__).with_name("prices_fallback.json")

PER_MILLION = 10**6  # currency units per million tokens -> pico-units per token
PER_THOUSAND = 10**9  # currency units per thousand requests -> pico-units per request

FIGURES = {
    "input_mtok": ("input", PER_MILLION),
    "output_mtok": ("output", PER_MILLION),
    "cache_read_mtok": ("cached", PER_MILLION),
    "cache_write_mtok": ("cache_write_5m", PER_MILLION),  # without a duration: the default one, 5 minutes
    "cache_write_1h_mtok": ("cache_write_1h", PER_MILLION),
    "output_reasoning_mtok": ("reasoning", PER_MILLION),
    "input_audio_mtok": ("audio_input", PER_MILLION),
    "output_audio_mtok": ("audio_output", PER_MILLION),
    "cache_audio_read_mtok": ("audio_cached", PER_MILLION),
    "input_image_mtok": ("image_input", PER_MILLION),
    "output_image_mtok": ("image_output", PER_MILLION),
    "cache_image_read_mtok": ("image_cached", PER_MILLION),
    "requests_kcount": ("request", PER_THOUSAND),
}

NOT_METERED = {  # units that usage does not count: a model priced by nothing else has an unknown price
    "web_searches_kcount",
    "storage_searches_kcount",
    "audio_hours",
    "input_audio_hours",
    "input_mchars",
    "input_document_kpages",
    "input_annotated_document_kpages",
    "input_text_messages_kcount",
    "input_video_mtok",
    "output_video_mtok",
    "output_citation_mtok",
}

FREE = re.compile(
    r":free$"
    r"|^google/(gemma-3|gemma-3n|gemma-4-26b-a4b-it|gemma-4-31b-it)$"  # free of charge on the Gemini API, no paid tier
    r"|^github-copilot/(gpt-3\.5-turbo|gpt-4\.1|gpt-4o|gpt-4o-mini)$"  # included in the subscription
    r"|^openai/moderation$"
)
"""`table/model` whose missing figures mean free. Everywhere else they mean that nobody knows."""

INPUT_ONLY = re.compile(r"^(cloudflare/@cf/|openrouter/)cloudflare/clef")
"""`table/model` that answer with tokens but charge for input only (the vendor's page says so)."""

TIERS = {"service_tier", "processing", "speed"}
"""Where a price variant's condition is something an answer's service tier tells us. Others (a search type, a route) are
not in a usage, so the standard price stands."""


def pico(value: Decimal | float, per: int) -> int:
    """Integer pico-units; repeating decimals (0.0833...) are rounded half to even, off by 1 in 80,000 at most."""
    return int((Decimal(str(value)) * per).quantize(Decimal(1), ROUND_HALF_EVEN))


# ----------------------------------------------------------------------------------------------------------------------
# genai-prices


def clause(match: Any) -> Any:
    kind = type(match).__name__
    if kind in {"ClauseOr", "ClauseAnd"}:
        sign, parts = ("|", match.or_) if kind == "ClauseOr" else ("&", match.and_)
        return [sign, *map(clause, parts)]
    if kind == "ClauseRegex":
        re.compile(match.regex)
        return "~" + match.regex
    sign, field = {
        "ClauseEquals": ("=", "equals"),
        "ClauseStartsWith": ("^", "starts_with"),
        "ClauseEndsWith": ("$", "ends_with"),
        "ClauseContains": ("*", "contains"),
    }[kind]
    return sign + getattr(match, field).lower()


def figures(prices: Any) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in prices.__dict__.items():
        if value is None or key in NOT_METERED:
            continue
        name, per = FIGURES[key]  # a new unit in the data stops the build here: decide what it means
        if isinstance(value, Decimal):
            result[name] = pico(value, per)
        else:
            result[name] = [pico(value.base, per), *([tier.start, pico(tier.price, per)] for tier in value.tiers)]
    return result


def seconds(moment: Any) -> int:
    day = datetime.combine(datetime(1970, 1, 1, tzinfo=UTC), moment, tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    return day.hour * 3600 + day.minute * 60 + day.second


def when(constraint: Any) -> dict[str, Any] | None:
    if constraint is None:
        return None
    if type(constraint).__name__ == "StartDateConstraint":
        return {"start": constraint.start_date.isoformat()}
    return {"from": seconds(constraint.start_time), "to": seconds(constraint.end_time)}


def genai_model(table: str, model: Any) -> list[Any]:
    listed = model.prices if isinstance(model.prices, list) else None
    prices = [[when(c.constraint), figures(c.prices)] for c in listed] if listed else [[None, figures(model.prices)]]
    name = f"{table}/{model.id}"
    for _, found in prices:
        if not found and FREE.search(name) and not any(listed or model.prices.__dict__.values()):
            found |= {"input": 0, "output": 0}
        if INPUT_ONLY.search(name):
            found.setdefault("output", 0)
    variants = []
    for variant in model.price_variants or ():
        found = figures(variant.prices)
        if found and len(variant.when) == 1 and set(variant.when) <= TIERS:
            variants.append([*variant.when.values(), when(variant.constraint), found])
    row = [model.id, clause(model.match), prices]
    return [*row, variants] if variants else row


def genai_tables() -> list[dict[str, Any]]:
    from genai_prices.data import providers  # type: ignore[import-not-found]

    tables = []
    for provider in providers:
        table: dict[str, Any] = {"source": "genai-prices", "id": provider.id}
        if provider.fallback_model_providers:
            table["borrows"] = provider.fallback_model_providers
        table["models"] = [genai_model(provider.id, model) for model in provider.models]
        tables.append(table)
    return tables


# ----------------------------------------------------------------------------------------------------------------------
# the fallback table

FALLBACK_FIGURES = {
    "input": "input",
    "output": "output",
    "cache_read": "cached",
    "cache_write": "cache_write_5m",
    "output_reasoning": "reasoning",
    "input_audio": "audio_input",
}


def fallback_figures(prices: dict[str, float], tiers: list[dict[str, Any]]) -> dict[str, Any]:
    if not tiers:
        return {FALLBACK_FIGURES[key]: pico(value, PER_MILLION) for key, value in prices.items()}
    result: dict[str, Any] = {}
    first, *rest = sorted(tiers, key=lambda tier: tier["input_tokens_range"][0])
    for key, name in FALLBACK_FIGURES.items():
        if key not in first:
            if any(key in tier for tier in rest):
                raise ValueError(f"{key} only in a higher tier: {tiers}")
            continue
        steps = [[tier["input_tokens_range"][0], pico(tier.get(key, first[key]), PER_MILLION)] for tier in rest]
        result[name] = [pico(first[key], PER_MILLION), *steps]
    return result


def windows(off_peak: dict[str, Any]) -> list[dict[str, Any]]:
    shift = {"UTC": 0, "Asia/Shanghai": 8 * 3600}[off_peak["weekday_timezone"]]  # neither has summer time
    result = []
    for window in off_peak["windows"]:
        hours = window["hours_utc"]
        for span in [hours] if isinstance(hours, str) else hours:
            start, end = (int(text[:2]) * 3600 + int(text[3:]) * 60 for text in span.split("-"))
            when: dict[str, Any] = {"from": start, "to": end or 86400}
            if len(window["weekdays"]) < 7:
                when |= {"days": "".join(map(str, window["weekdays"])), "shift": shift}
            result.append(when)
    return result


def fallback_tables() -> list[dict[str, Any]]:
    tables: dict[str, dict[str, Any]] = {}
    for model in json.loads(FALLBACK.read_text("utf-8"))["models"]:
        if model["currency"] != "USD" or model["unit"] != "per_million_tokens":
            raise ValueError(f"{model['model']}: unexpected currency or unit")
        prices: list[list[Any]] = [[None, fallback_figures(model["prices"], model.get("tiers", []))]]
        if off_peak := model.get("off_peak"):
            cheaper = fallback_figures(off_peak["prices"], [])
            prices += [[window, cheaper] for window in windows(off_peak)]
        table = tables.setdefault(model["provider"], {"source": "fallback", "id": model["provider"], "models": []})
        table["models"].append([model["model"], "=" + model["model"].lower(), prices])
    return list(tables.values())


# ----------------------------------------------------------------------------------------------------------------------


DATE = "2026-11-20"
"""When the data was last looked through. A file of an earlier day never takes the place of one of a later day."""


def build() -> bytes:
    tables = genai_tables() + fallback_tables()
    lines = [json.dumps(table, separators=(",", ":"), ensure_ascii=False) for table in tables]
    body = "".join(line + "\n" for line in lines).encode()
    header = {
        "format": 1,
        "editions": {"genai-prices": version("genai-prices"), "fallback": "litellm 1.106.2"},
        "tables": len(tables),
        "models": sum(len(table["models"]) for table in tables),
        "sha256": hashlib.sha256(body).hexdigest(),
        "date": DATE,
    }
    return json.dumps(header).encode() + b"\n" + body


def recompute(path: Path) -> None:
    """Fill in `nano` of every golden case that genai-prices can price."""
    from genai_prices import Usage, calc_price

    golden = json.loads(path.read_text("utf-8"))
    for case in golden["cases"]:
        usage = case["usage"]
        counts = {
            "input_tokens": usage.get("input", 0),
            "output_tokens": usage.get("output", 0),
            "cache_read_tokens": usage.get("cached", 0),
            "cache_write_tokens": usage.get("cache_write_5m", 0) + usage.get("cache_write_1h", 0),
            "cache_write_5m_tokens": usage.get("cache_write_5m", 0),
            "cache_write_1h_tokens": usage.get("cache_write_1h", 0),
            "output_reasoning_tokens": usage.get("reasoning", 0),
            "input_audio_tokens": usage.get("audio_input", 0),
            "output_audio_tokens": usage.get("audio_output", 0),
            "input_image_tokens": usage.get("image_input", 0),
            "output_image_tokens": usage.get("image_output", 0),
        }
        tier = usage.get("service_tier")
        total = calc_price(
            Usage(**{key: count for key, count in counts.items() if count}),
            case["model"],
            provider_id=case["table"],
            genai_request_timestamp=datetime.fromisoformat(case["at"]),
            price_context=dict.fromkeys(sorted(TIERS), tier) if tier else None,
        ).total_price
        case["nano"] = int((total * 10**9).to_integral_value("ROUND_HALF_UP"))
    golden["computed_by"] = f"genai-prices {version('genai-prices')}, calc_price"
    cases = ",\n".join("    " + json.dumps(case) for case in golden["cases"])
    path.write_text(f'{{\n  "computed_by": {json.dumps(golden["computed_by"])},\n  "cases": [\n{cases}\n  ]\n}}\n', "utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--golden", type=Path, help="recompute the figures of this golden file instead")
    arguments = parser.parse_args()
    if arguments.golden:
        recompute(arguments.golden)
        return 0
    OUTPUT.write_bytes(build())
    print(f"{OUTPUT.relative_to(ROOT)}: {OUTPUT.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
