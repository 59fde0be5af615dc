"""The catalog: every row is sound, found quickly, and claims what it should."""

from __future__ import annotations

import re
import time
import tomllib
from collections import Counter
from urllib.parse import urlsplit

import pytest

from aigw.errors import ConfigError
from aigw.protocols.operations import OPERATIONS
from aigw.providers import catalog

ROWS = {name: catalog.row(name) for name in catalog.ids()}


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
        *row.urls.values(),
        *row.openai_url_when.values(),
        *row.other_urls.values(),
    ]
    urls += [url for url in (row.models_url, row.key_check) if not url.startswith("/")]
    for url in filter(None, urls):
        parts = urlsplit(re.sub(r"\{\w+\}", "x", url))
        assert parts.scheme == ("demo" if row.id == "demo" else "https") or (row.local and parts.scheme == "http"), url
        assert parts.hostname
        assert parts.username is None
        assert not url.endswith("/")
    assert row.category in {"vendor", "cloud", "host", "aggregator", "subscription", "app", "local", "generic"}
    assert row.residency in {"", "cn", "eu", "ru", "intl", "local"}
    assert row.protocol in {"openai", "anthropic", "gemini", "vertex", "azure", "bedrock", "cohere", "ollama", "other", "demo"}
    assert row.auth in {"bearer", "none"} or re.fullmatch(r"[a-z-]+", row.auth)
    assert set(row.urls) <= set(OPERATIONS)
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]*", name) for name in row.env)
    places = {
        place for url in filter(None, urls) if url not in row.other_urls.values() for place in re.findall(r"\{(\w+)\}", url)
    }
    if row.served:
        assert places <= {setting.name for setting in row.settings}
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
