"""What Prometheus reads: it parses, it adds up, and callers cannot make it grow."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from aigw.config.schema import Config
from aigw.exchange import Record
from aigw.gateway import Services
from aigw.telemetry.metrics import BOUNDS, MOST_LABELS, Metrics, Reading

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def record(**fields: Any) -> Record:
    usual = {"operation": "chat", "provider": "openai", "model": "gpt-6", "outcome": "ok"}
    return Record(id="r", at=0.0, **(usual | fields))


def samples(metrics: Metrics) -> Samples:
    """Every sample of the exposition, by name and labels; each must occur once."""
    body, content_type = metrics.render()
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    found: Samples = {}
    for family in text_string_to_metric_families(body.decode()):
        assert family.documentation.endswith("."), f"{family.name} is not explained"
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found, f"{key} twice"
            found[key] = sample.value
    return found


def labelled(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    usual = {"operation": "chat", "provider": "openai", "model": "gpt-6", "outcome": "ok"}
    return name, frozenset((usual | labels).items())


def test_nothing_happened_yet() -> None:
    """The first scrape of a new server parses; what was never counted has no sample but the one that is certain."""
    found = samples(Metrics(list))
    assert found == {("aigw_unpriced_requests_total", frozenset()): 0.0}


def test_exchanges_are_counted_with_tokens_time_and_money() -> None:
    """By operation, provider, model and outcome."""
    metrics = Metrics(list)
    metrics.recorded(record(took=200_000, input=100, output=10, cost=1_500_000_000, first_token=60_000))
    metrics.recorded(record(took=3_000_000, input=5, output=1, cost=250_000_000))
    metrics.recorded(record(took=1, outcome="provider_error", error="provider_timeout"))
    metrics.recorded(record(provider="deepseek", model="", took=1, cost=2_000_000_000, currency="CNY"))
    found = samples(metrics)
    assert found[labelled("aigw_requests_total")] == 2
    assert found[labelled("aigw_requests_total", outcome="provider_error")] == 1
    assert found[labelled("aigw_tokens_total", direction="input")] == 105
    assert found[labelled("aigw_tokens_total", direction="output")] == 11
    assert found[labelled("aigw_request_seconds_count")] == 2
    assert found[labelled("aigw_request_seconds_sum")] == 3.2
    assert found[labelled("aigw_first_token_seconds_count")] == 1
    assert found[labelled("aigw_first_token_seconds_sum")] == 0.06
    assert labelled("aigw_first_token_seconds_count", outcome="provider_error") not in found
    assert found["aigw_errors_total", frozenset({("code", "provider_timeout")})] == 1
    assert found["aigw_cost_total", frozenset({("provider", "openai"), ("currency", "USD")})] == 1.75
    assert found["aigw_cost_total", frozenset({("provider", "deepseek"), ("currency", "CNY")})] == 2.0


@pytest.mark.parametrize(("took", "first_bound"), [(0, 0.05), (50_000, 0.05), (50_001, 0.1), (600_000_000, 600.0)])
def test_a_duration_is_in_every_bucket_from_its_own_on(took: int, first_bound: float) -> None:
    """Upper bounds are inclusive, as Prometheus has it."""
    metrics = Metrics(list)
    metrics.recorded(record(took=took))
    found = samples(metrics)
    for bound in (*BOUNDS, math.inf):
        text = "+Inf" if bound == math.inf else str(bound)
        assert found[labelled("aigw_request_seconds_bucket", le=text)] == (bound >= first_bound), bound


def test_longer_than_the_last_bucket_is_still_counted() -> None:
    """In +Inf only."""
    metrics = Metrics(list)
    metrics.recorded(record(took=601_000_000))
    found = samples(metrics)
    assert found[labelled("aigw_request_seconds_bucket", le="600.0")] == 0
    assert found[labelled("aigw_request_seconds_bucket", le="+Inf")] == 1


def test_tokens_without_a_price_are_counted() -> None:
    """Also those of embeddings, which have input only; an exchange without tokens needs no price."""
    metrics = Metrics(list)
    metrics.recorded(record(input=10, output=1))
    metrics.recorded(record(operation="embeddings", input=10))
    metrics.recorded(record(input=10, output=1, cost=0))
    metrics.recorded(record(outcome="policy_error", provider="", model=""))
    assert samples(metrics)["aigw_unpriced_requests_total", frozenset()] == 2


def test_callers_cannot_make_it_grow() -> None:
    """Model names are theirs to choose: beyond the limit they are counted together, and nothing is lost."""
    metrics = Metrics(list)
    for number in range(MOST_LABELS + 500):
        metrics.recorded(record(model=f"m{number}", input=1))
    metrics.recorded(record(model="m0", input=1))
    found = samples(metrics)
    rows = [key for key in found if key[0] == "aigw_requests_total"]
    assert len(rows) == MOST_LABELS + 1
    assert found[labelled("aigw_requests_total", model="(other)")] == 500
    assert found[labelled("aigw_requests_total", model="m0")] == 2
    assert sum(found[row] for row in rows) == MOST_LABELS + 501


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "模型", "{x}", "a,b=c", "\x00", "\u2028"])
def test_odd_names_are_labels_like_others(name: str) -> None:
    """What a caller writes as a model cannot break the page for everybody."""
    metrics = Metrics(list)
    metrics.recorded(record(model=name))
    found = samples(metrics)
    (row,) = (key for key in found if key[0] == "aigw_requests_total")
    assert dict(row[1])["model"] == name


def test_readings_are_asked_at_each_scrape() -> None:
    """Gauges as they are, what only grows as a counter."""
    moment = iter([3.0, 5.0])
    metrics = Metrics(lambda: [Reading("active", "Under way.", next(moment)), Reading("lost", "Lost.", 7, grows=True)])
    assert samples(metrics)["aigw_active", frozenset()] == 3.0
    found = samples(metrics)
    assert found["aigw_active", frozenset()] == 5.0
    assert found["aigw_lost_total", frozenset()] == 7.0


async def test_a_server_tells_of_its_journal(tmp_path: Path) -> None:
    """Everything that may go wrong with records is on the page."""
    services = Services(Config(), tmp_path)
    try:
        services.journal.write(record())
        found = samples(services.metrics)
        names = {name for name, _ in found}
        assert found["aigw_records_written_total", frozenset()] == 1
        assert found["aigw_records_pending", frozenset()] == 1
        for name in ("records_lost", "records_recovered", "journal_failed_writes", "journal_damaged_lines"):
            assert found[f"aigw_{name}_total", frozenset()] == 0
        assert {"aigw_exchanges_active", "aigw_upstream_requests_active"} <= names
    finally:
        await services.close()
