"""`aigw stats` after a known number of requests: the figures are those of what was sent, with the server on and off."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from tests.e2e.far_side import FarSide, answer, completion, plays, provider, route
from tests.e2e.world import DEMO, HELLO, Gateway, eventually

Own = Callable[..., Gateway]

PRICED = {
    "prompt_tokens": 1000,
    "completion_tokens": 200,
    "total_tokens": 1200,
    "prompt_tokens_details": {"cached_tokens": 400},
}

PRICES = '[prices."priced/m"]\ninput = 2.0\ncache_read = 0.5\noutput = 10.0\n'

COST = Decimal(12 * (600 * 2_000 + 400 * 500 + 200 * 10_000)) / 10**9
"""Dollars of 12 answers: a thousand tokens in, 400 of them cached, and 200 out."""


def by(found: dict[str, Any], column: str) -> dict[str, dict[str, Any]]:
    return {row[column]: row for row in found["rows"]}


def test_stats_agree_with_what_was_sent(own: Own, far_side: FarSide) -> None:
    """Requests, errors, tokens in, cached and out, cost to the nano-dollar, latencies, by everything one can group by; the same
    figures with the server on, with it off, and after it has started again."""
    far_side.scripts["priced"] = plays(answer(200, completion(usage=PRICED)))
    far_side.scripts["failing"] = plays(answer(400, {"error": {"message": "no"}}))
    names = ("priced", "failing")
    gateway = own(DEMO + "".join(provider(name, far_side.url(name)) + route(name) for name in names) + PRICES)
    gateway.key = gateway.create_key("me")["key"]
    other = gateway.create_key("other", "--group", "team")["key"]
    gateway.start()
    for _ in range(12):
        assert gateway.ask(HELLO | {"model": "priced"}).status == 200
    for _ in range(5):
        assert gateway.ask(HELLO | {"model": "failing"}, key=other).status == 400
    for _ in range(7):
        assert gateway.ask(HELLO | {"stream": True}).status == 200
    assert gateway.ask(HELLO, key="nonsense").status == 401
    eventually(lambda: len(gateway.records()) == 25)

    total = gateway.stats()["total"]
    assert (total["requests"], total["errors"]) == (25, 6)
    assert (total["input_tokens"], total["cached_tokens"], total["output_tokens"]) == (12_014, 4_800, 2_610)
    assert Decimal(total["cost_usd"]) == COST
    records = gateway.records()
    slowest = max(record.took for record in records) / 1000
    assert 0 < total["latency_p50_ms"] <= total["latency_p95_ms"] <= slowest * 1.05
    middle = sorted(record.took for record in records)[12] / 1000
    assert abs(total["latency_p50_ms"] - middle) <= 0.05 * middle
    assert 0 < total["first_token_p50_ms"] < total["latency_p95_ms"]

    consumers = by(gateway.stats("consumer"), "consumer")
    assert {name: (row["requests"], row["errors"]) for name, row in consumers.items()} == {
        "me": (19, 0),
        "other": (5, 5),
        "": (1, 1),
    }
    providers = by(gateway.stats("provider"), "provider")
    assert {name: row["requests"] for name, row in providers.items()} == {"priced": 12, "failing": 5, "demo": 7, "": 1}
    assert Decimal(providers["priced"]["cost_usd"]) == COST
    assert providers["priced"]["latency_p95_ms"] is not None
    assert providers["priced"]["first_token_p50_ms"] is None  # no streams
    routes = by(gateway.stats("route"), "route")
    assert routes["priced"]["requests"] == 12
    hours = gateway.stats("hour")["rows"]
    assert sum(row["requests"] for row in hours) == 25
    table = gateway.aigw("stats")
    assert table.returncode == 0
    assert "total" in table.stdout
    sheet = list(csv.DictReader(io.StringIO(gateway.aigw("stats", "--csv", "--by", "provider").stdout)))
    assert {row["provider"]: int(row["requests"]) for row in sheet} == {"priced": 12, "failing": 5, "demo": 7, "": 1}

    assert gateway.stop() == 0
    assert gateway.stats()["total"] == total
    gateway.start()
    assert gateway.ask(HELLO | {"model": "priced"}).status == 200
    eventually(lambda: len(gateway.records()) == 26)
    assert gateway.stats()["total"]["requests"] == 26
    assert gateway.stats("model", "--until", "1h")["total"]["requests"] == 0
