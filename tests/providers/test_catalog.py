"""The catalog: every row is sound, found quickly, and claims what it should."""

from __future__ import annotations

import json
import re
import time
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from aigw.config import schema
from aigw.errors import ConfigError
from aigw.gateway import claimant
from aigw.protocols.operations import OPERATIONS
from aigw.providers import catalog, compatible
from aigw.routing.table import Table

ROWS = {name: catalog.row(name) for name in catalog.ids()}

FACTS: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("facts.json").read_text(encoding="utf-8"))
"""What was read about each provider, and where, in November 2026: the research that the rows were written from. A correction
is made here and in the row, with its source."""

OTHERWISE = {
    # a row that says something else than the facts, and why
    ("cohere", "base_url"): "its OpenAI surface is on api.cohere.ai, and a base_url of one's own must lead to both",
    ("cohere", "key_check"): "as its base_url",
    ("openai-compatible", "base_url"): "the operator's",
    ("openai-compatible", "key_check"): "behind the operator's base_url",
    ("generic", "base_url"): "the operator's",
    ("anthropic", "key_check"): "the whole list in one answer",
    ("deepseek", "key_check"): "the balance tells an empty account as well (a note in the facts)",
    ("gemini", "key_check"): "its OpenAI surface is the one that is called; its own API wants another header",
    ("gemini", "auth"): "as its key_check",
    ("vertex", "auth"): "takes an access token as well as credentials that are exchanged for one",
    ("vertex", "env"): "as its auth",
    ("bedrock", "auth"): "takes its API keys as well as credentials that sign",
    ("bedrock", "env"): "as its auth",
    ("ollama", "auth"): "its cloud takes a key",
    ("ollama", "env"): "OLLAMA_HOST is an address",
    ("anthropic", "env"): "ANTHROPIC_AUTH_TOKEN is sent as Bearer: the row claude-code",
    ("ai360", "env"): "a variable cannot begin with a digit",
    ("302ai", "env"): "a variable cannot begin with a digit",
    ("oci", "env"): "names a file of another kind",
    ("oci", "auth"): "takes its API keys on the OpenAI-shaped surface (docs.oracle.com: OCI OpenAI-Compatible Endpoints)",
    ("meta", "anthropic_url"): "read in its capabilities, not among its URLs",
    ("litellm-proxy", "anthropic_url"): "read in its capabilities, not among its URLs",
    ("aihubmix", "name_zh"): "is its English name",
    ("302ai", "name_zh"): "is its English name",
    ("fastgpt", "name_zh"): "is its English name",
    ("dify", "name_zh"): "is its English name",
    ("ollama", "name_zh"): "is its English name",
}

TWINS = {"dashscope": "dashscope-intl", "moonshot": "moonshot-intl", "zhipu": "zai", "minimax": "minimax-intl"}
"""One vendor, two sides of the border."""


def in_words_of_the_facts(row: catalog.Row) -> dict[str, Any]:
    url = row.key_check or (row.models_url if row.key_evidence else "")
    auth = row.auth if row.auth in ("bearer", "none") else f"header {row.auth}"
    return {
        **{
            field: getattr(row, field)
            for field in ("name", "name_zh", "category", "status", "protocol", "base_url", "anthropic_url")
        },
        "auth": auth,
        "env": list(row.env),
        "default_model": row.default_model,
        "key_check": f"GET {row.base_url * url.startswith('/')}{url}" if url else "",
        "key_evidence": row.key_evidence,
        "docs_url": row.docs_url,
        "evidence": row.evidence,
        "as_of": row.as_of,
        "sources": list(row.sources),
    }


def test_each_provider_of_the_facts_has_a_row_and_no_other_has() -> None:
    """All that was read about is there; resellers whose domains may lapse, and would then harvest keys, are not."""
    assert set(ROWS) - {"demo"} == set(FACTS)
    assert not [fact for fact in FACTS.values() if fact["category"] == "legacy"]


def test_rows_say_what_the_facts_say() -> None:
    """Addresses, variables, checks, evidence and sources; where a row knows better, the reason is written above."""
    differing = set()
    for name, fact in FACTS.items():
        mine = in_words_of_the_facts(ROWS[name])
        for field, value in mine.items():
            said = fact[field].rstrip("/") if field in ("base_url", "anthropic_url") else fact[field]
            if field == "auth":
                said = said.lower()
            if said != value and not (field == "key_check" and not said):
                differing.add((name, field))
    assert differing == set(OTHERWISE)


def test_rows_claim_the_prefixes_of_the_facts() -> None:
    """Strong, weak or as an address; the row's own id with a slash goes without saying."""
    for name, fact in FACTS.items():
        row = ROWS[name]
        claimed = {*row.prefixes, *row.weak_prefixes, *row.namespaces, f"{name}/"}
        assert {prefix.lower() for prefix in fact["prefixes"]} <= claimed, name


def test_what_a_bad_key_is_answered_with() -> None:
    """Rows whose vendor answers something else than 401 say so; every vendor's answer is one that is told as a wrong key."""
    for name, fact in FACTS.items():
        statuses = {int(status) for status in re.findall(r"\b4\d\d\b", fact["bad_key"])}
        if fact["key_check"] and ROWS[name].served:
            by_word = {400} if "API_KEY_INVALID" in fact["bad_key"] else set()  # judge.py knows it by its word
            assert statuses <= {401, *ROWS[name].key_rejected} | by_word, name


def test_every_row_names_its_evidence() -> None:
    """How sure we are, and where it was read."""
    for row in ROWS.values():
        if row.id != "demo":
            assert row.evidence in {"high", "medium", "low"}
            assert row.sources
        assert row.key_evidence in {"", "source", "inferred", "convention"}
        assert set(row.quirks) <= set(catalog.QUIRKS)
    assert {quirk for row in ROWS.values() for quirk in row.quirks} == set(catalog.QUIRKS)


def test_rows_parsed_alone_equal_the_file_parsed_whole() -> None:
    """Cutting the file at its headings loses nothing."""
    whole = tomllib.loads(catalog.FILE.read_text(encoding="utf-8"))
    assert tuple(whole) == catalog.ids()
    for name, table in whole.items():
        text, places = catalog._source()
        assert tomllib.loads(text[slice(*places[name])]) == table


def test_the_catalog_is_as_large_as_it_claims() -> None:
    """More than ninety providers that can be called, with the ones everybody asks for."""
    served = [row.id for row in ROWS.values() if row.served]
    assert len(served) >= 95
    assert {"openai", "anthropic", "deepseek", "dashscope", "zhipu", "moonshot", "ollama", "demo", "openai-compatible"} <= set(
        served
    )
    assert sum(bool(row.anthropic_url) for row in ROWS.values()) >= 30


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: row.id)
def test_a_row_is_sound(row: catalog.Row) -> None:
    """URLs are https (http only at home), without credentials or a final slash; enumerations hold only their words."""
    urls = [
        row.base_url,
        row.openai_url,
        row.anthropic_url,
        *(row.base_url + url if url.startswith("/") else url for url in row.urls.values()),
        *(row.base_url + url if url.startswith("/") else url for urls in row.urls_when.values() for url in urls.values()),
        *row.openai_url_when.values(),
        *row.other_urls.values(),
    ]
    urls += [url for url in (row.models_url, row.key_check) if not url.startswith("/")]
    for url in filter(None, urls):
        parts = urlsplit(re.sub(r"\{\w+/?\}", "x", url))
        assert parts.scheme == ("demo" if row.id == "demo" else "https") or (row.local and parts.scheme == "http"), url
        assert parts.hostname
        assert parts.username is None
        assert not url.endswith("/")
    assert row.category in {"vendor", "cloud", "host", "aggregator", "subscription", "app", "local", "generic"}
    assert row.residency in {"", "cn", "eu", "ru", "intl", "local"}
    assert row.protocol in {"openai", "anthropic", "gemini", "vertex", "azure", "bedrock", "cohere", "ollama", "other", "demo"}
    assert row.auth in {"bearer", "none"} or re.fullmatch(r"[a-z-]+", row.auth)
    assert {name.partition(":")[0] for name in row.urls} <= {*OPERATIONS, "realtime"}
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]*", name) for name in row.env)
    places = {
        place for url in filter(None, urls) if url not in row.other_urls.values() for place in re.findall(r"\{(\w+)\}", url)
    }
    if row.served:
        assert places <= {"model", *(setting.name for setting in row.settings)}
    assert all(name == name.lower() for name in row.headers)


def test_ids_are_names_a_config_can_hold() -> None:
    """Lower-case words with dashes, each once."""
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in ROWS)
    assert not [name for name, count in Counter(catalog.ids()).items() if count > 1]


def test_prefixes_are_lower_case_and_nobody_elses() -> None:
    """A strong prefix belongs to one vendor: one row, its twin, or the subscription to the same models."""
    claims: dict[str, set[str]] = {}
    for row in ROWS.values():
        for prefix in (*row.prefixes, *row.weak_prefixes, *row.namespaces):
            assert prefix == prefix.lower()
            assert len(prefix) >= 2
        assert not set(row.prefixes) & set(row.weak_prefixes)
        for prefix in row.prefixes:
            claims.setdefault(prefix, set()).add(row.id)
    shared = {prefix: owners for prefix, owners in claims.items() if len(owners) > 1}
    for prefix, owners in shared.items():
        related = set(owners)
        assert any(related <= {name, ROWS[name].twin} for name in owners) or prefix in {"claude-", "hunyuan-"}, (prefix, owners)


@pytest.mark.parametrize(
    ("model", "owner"),
    [
        ("gpt-6-sol", "openai"),
        ("claude-opus-5-5", "anthropic"),
        ("gemini-3.8-flash", "gemini"),
        ("deepseek-flash", "deepseek"),
        ("qwen3.8-max", "dashscope"),
        ("qwen3.8-max", "dashscope-intl"),
        ("kimi-k3", "moonshot-intl"),
        ("glm-5.3", "zai"),
        ("minimax-m3", "minimax"),
        ("@cf/openai/gpt-oss-120b", "cloudflare"),
        ("accounts/fireworks/models/glm-5p3", "fireworks"),
        ("demo", "demo"),
    ],
)
def test_well_known_models_are_claimed(model: str, owner: str) -> None:
    """The name alone leads to its vendor."""
    assert any(model.startswith(prefix) for prefix in ROWS[owner].prefixes)


def test_the_twins_are_those_we_know() -> None:
    """No pair is forgotten."""
    assert {row.id: row.twin for row in ROWS.values() if row.twin} == TWINS | {twin: name for name, twin in TWINS.items()}


@pytest.mark.parametrize(("name", "twin"), [*TWINS.items(), *((twin, name) for name, twin in TWINS.items())])
def test_who_configures_one_twin_calls_the_models_of_both(name: str, twin: str) -> None:
    """Configured alone, either gets the other's names; behind the other, it gets none of them."""
    tables = {name: schema.Provider(keys=("k",)), twin: schema.Provider(keys=("k",))}
    claims = {
        one: claimant(schema.Config(providers=tables), compatible.build(one, tables[one], schema.Upstream(), ["k"]))
        for one in tables
    }
    for model in (*ROWS[name].models, *ROWS[twin].models):
        assert Table({}, [claims[name]]).resolve(model).targets[0].provider == name
        assert Table({}, [claims[twin], claims[name]]).resolve(model).targets[0].provider == twin


def test_twins_know_each_other() -> None:
    """Both sides of the border claim the same names."""
    for row in ROWS.values():
        if row.twin:
            twin = ROWS[row.twin]
            assert twin.twin == row.id
            assert set(row.prefixes) == set(twin.prefixes)


def test_an_unknown_kind_is_answered_with_the_nearest() -> None:
    """A slip of the finger is put right by the message."""
    with pytest.raises(ConfigError, match="did you mean 'deepseek'") as caught:
        catalog.row("deepsek")
    assert "openai-compatible" in str(caught.value)
    with pytest.raises(ConfigError, match="'dashscope'"):
        catalog.row("dash")
    with pytest.raises(ConfigError) as caught:
        catalog.row("\x1b[31m" + "x" * 10_000)
    assert len(str(caught.value)) < 300
    assert "\x1b" not in str(caught.value)


def test_two_rows_load_within_the_budget_of_a_start() -> None:
    """5 ms of CPU for two configured providers, prefixes included."""

    def load() -> float:
        catalog._source.cache_clear()
        catalog.row.cache_clear()
        began = time.process_time()
        assert catalog.row("openai").prefixes
        assert catalog.row("demo").prefixes
        return time.process_time() - began

    assert min(load() for _ in range(5)) < 0.005
