"""What a consumer is told of its own spending."""

from __future__ import annotations

from typing import Any

import pytest

from aigw.consumer import Caller, Consumer, ConsumerKey
from aigw.errors import CallerError, InternalError
from aigw.exchange import Record
from aigw.server import billing
from aigw.storage.sqlite import SqliteStore

NOW = 1_800_000_000.0
ME = Caller(Consumer(id="c1", name="me"), ConsumerKey(id="k1", consumer_id="c1", digest=b"", expires=NOW + 9))


@pytest.fixture
async def store(tmp_path: Any) -> Any:
    made = SqliteStore(tmp_path / "aigw.db")
    common = {"provider": "p", "outcome": "ok", "operation": "chat", "status": 200}
    await made.append(
        [
            Record(
                "r1", NOW - 100, model="m", consumer="me", consumer_id="c1", input=10, output=5, cost=2_500_000_000, **common
            ),
            Record(
                "r2", NOW - 90, model="n", consumer="me", consumer_id="c1", input=1, output=1, cost=7, currency="CNY", **common
            ),
            Record(
                "r3", NOW - 90, model="n", consumer="bob", consumer_id="c2", input=99, output=1, cost=9_000_000_000, **common
            ),
        ]
    )
    yield made
    await made.close()


async def test_usage(store: Any) -> None:
    """Its own requests, by model, in whole units of each currency."""
    found = await billing.usage(store, ME, {}, NOW)
    assert {row["model"]: row["input_tokens"] for row in found["data"]} == {"m": 10, "n": 1}
    assert found["total"]["requests"] == 2
    assert found["total"]["costs"]["USD"] == 2.5
    assert (await billing.usage(store, ME, {"since": str(int(NOW + 7200)), "until": str(int(NOW + 9999))}, NOW))["data"] == []


async def test_the_old_dashboard(store: Any) -> None:
    """Hundredths of dollars; other currencies beside them."""
    found = await billing.spent(store, ME, {"start_date": "2020-01-01", "end_date": "2090-01-01"}, NOW)
    assert found["total_usage"] == 250.0
    assert found["costs"]["CNY"] == 7e-9


def test_no_limit() -> None:
    """As one-api says it."""
    assert billing.subscription(ME)["hard_limit_usd"] == 100_000_000
    assert billing.subscription(ME)["access_until"] == NOW + 9


@pytest.mark.parametrize("query", [{"by": "consumer"}, {"since": "yesterday"}, {"until": "9" * 40}, {"since": "-1"}])
async def test_wrong_questions(store: Any, query: dict[str, str]) -> None:
    with pytest.raises(CallerError):
        await billing.usage(store, ME, query, NOW)


async def test_a_store_that_is_gone() -> None:
    """Is ours to say sorry for."""

    class Gone:
        async def usage(self, *_: object, **__: object) -> None:
            raise OSError

    with pytest.raises(InternalError):
        await billing.usage(Gone(), ME, {}, NOW)  # type: ignore[arg-type]
