"""One exchange that is over, in words."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from aigw.cli import past
from aigw.config.schema import Price
from aigw.exchange import Attempt, Record
from aigw.metering.prices import PriceBook
from aigw.storage.open import open_store

BOOK = PriceBook({"p/m": Price(input=2, output=8, cache_read=0.5)}, {"p": "openai-compatible"})
CHAIN = [
    Attempt(provider="q", model="m", key="q#1", took=5000, status=503, error="provider_overloaded", detail="busy", cost=7),
    Attempt(provider="p", model="m", key="p#1", started=255_000, took=900_000, status=200),
]
ONE = Record(
    id="req_7c2a4e1b9d3000000001",
    at=1_790_000_000.0,
    took=1_200_000,
    first_token=400_000,
    status=200,
    stream=True,
    operation="chat",
    dialect="openai_chat",
    consumer="alice",
    requested_model="fast",
    route="fast",
    provider="p",
    model="m",
    input=1000,
    cached=400,
    output=100,
    cost=1000 * (600 * 2 + 400 // 2 + 100 * 8),
    config_hash="abc",
    loss="seed",
    canary="c1",
    arm="new",
    attempts=msgspec.json.encode(CHAIN).decode(),
)


def text(record: Record, config_hash: str = "abc") -> str:
    return "\n".join(f"{label}: {said}" for label, said in past.lines(record, BOOK, config_hash))


def test_all_that_became_of_it() -> None:
    """The chain with reasons and waits, the first token, what the cost is made of, losses, the canary's arm, the config."""
    said = text(ONE)
    assert "1. +0.00 ms: q/m with q#1: 503 after 5.00 ms" in said
    assert "provider_overloaded: busy" in said
    assert "2. +255 ms: p/m with p#1: 200 after 900 ms, after a wait of 250 ms" in said
    assert "first token: 400 ms, 145 ms after the last attempt began; then 125 tokens/s" in said
    assert "600 input x 2/M + 400 cached x 0.5/M + 100 output x 8/M" in said
    assert "seed" in said
    assert "c1, arm new" in said
    assert "the one of now" in said
    assert "another than now" in text(ONE, "other")


def test_the_parts_add_up() -> None:
    """To the cost, always; when prices have changed there are none."""
    parts = past.spent(ONE, BOOK)
    assert sum(one["cost"] for one in parts) == ONE.cost
    assert past.spent(msgspec.structs.replace(ONE, cost=1), BOOK) == []
    assert past.spent(msgspec.structs.replace(ONE, cost=None), BOOK) == []
    assert past.spent(ONE, None) == []
    assert "[prices" in text(msgspec.structs.replace(ONE, cost=None))


def test_for_programs() -> None:
    """The same in values: waits in microseconds, costs as decimals, and the next command."""
    found = past.told(msgspec.structs.replace(ONE, error="provider_overloaded"), BOOK, "abc")
    assert [one["waited"] for one in found["attempts"]] == [0, 250_000]
    assert found["next"] == "aigw routes"
    assert found["config_is_current"]
    assert [one["part"] for one in found["parts"]] == ["input", "cached", "output"]


def test_nobody_was_asked() -> None:
    """A refusal has no attempts, no tokens and no cost."""
    refused = Record(id="r", at=0.0, status=401, error="policy_key_invalid", outcome="policy_error")
    assert "none: nobody was asked" in text(refused)
    assert "cost" not in text(refused)
    assert "aigw keys list --all" in text(refused)
    assert "change the request" in text(Record(id="r", at=0.0, status=400, error="caller_invalid_json"))


async def test_finding(tmp_path: Path) -> None:
    """By its id, by its beginning, and what may have been meant."""
    store = open_store("sqlite:", tmp_path)
    await store.append([ONE, msgspec.structs.replace(ONE, id="req_7c2a4e1b9d3000000002")])
    assert await past.find(store, ONE.id) == [ONE]
    assert len(await past.find(store, "req_7c2a")) == 2
    assert await past.find(store, "x") == []
    began = time.monotonic()
    assert await past.find(store, "req_000000000000000000000") == []
    assert time.monotonic() - began < 3
    assert await past.similar(store, "0001") == [ONE.id]
    assert ONE.id in await past.similar(store, "req_7c2a4e1b9d300000000")
    await store.close()
