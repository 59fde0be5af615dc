"""Who made what is found again, by those who made it, also after a restart and while the store is away."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aigw.deployment import Deployment, ProviderKey, Route
from aigw.errors import CallerError, InternalError, StoreError
from aigw.routing import stateful
from aigw.routing.stateful import Owner, Stateful, narrowed, others
from aigw.storage.open import open_store

OWNER = Owner("openai", "openai#2", "team", "gpt-5")


class Broken:
    """A store that is away until `there` is set; keeps what it is given."""

    def __init__(self) -> None:
        self.there = False
        self.values: dict[str, bytes] = {}

    async def get(self, key: str) -> bytes | None:
        if not self.there:
            raise StoreError("away")
        return self.values.get(key)

    async def put(self, key: str, value: bytes, ttl: float | None = None) -> None:
        if not self.there:
            raise StoreError("away")
        self.values[key] = value

    async def delete(self, key: str) -> None:
        if not self.there:
            raise StoreError("away")
        self.values.pop(key, None)


async def test_an_owner_outlives_the_process(tmp_path: Path) -> None:
    """For the consumer that made it, and for nobody else."""
    store = open_store("sqlite:", tmp_path)
    first = Stateful(store)
    first.note("alice", OWNER, b'{"id": "resp_1", "object": "response", "output": [{"id": "msg_1"}]}')
    await first.close()
    second = Stateful(store)
    assert await second.owner("alice", "resp_1") == OWNER
    assert await second.owner("bob", "resp_1") is None
    assert await second.owner("alice", "msg_1") is None
    second.gone("alice", "resp_1")
    assert await second.owner("alice", "resp_1") is None
    await second.close()
    assert await Stateful(store).owner("alice", "resp_1") is None
    await store.close()


async def test_the_first_event_of_a_stream_names_what_is_made() -> None:
    kept = Stateful()
    kept.note("a", OWNER, b'event: response.created\ndata: {"type":"response.created","response":{"id":"resp_9"}}\n\n')
    route, owner = await kept.route("a", "resp_9")
    assert owner == OWNER
    assert route.targets == (Deployment(provider="openai"),)
    assert route.plain


async def test_a_store_that_is_away_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known is known; of the rest nobody says that it is not there; and it is written when the store is back."""
    monkeypatch.setattr(stateful, "AGAIN", 0.01)
    store = Broken()
    kept = Stateful(store)
    kept.made("a", "resp_1", OWNER)
    await asyncio.sleep(0.03)
    assert await kept.owner("a", "resp_1") == OWNER
    with pytest.raises(InternalError) as failed:
        await kept.owner("a", "resp_2")
    assert failed.value.status == 503
    store.there = True
    await kept.close()
    assert list(store.values) == ["stateful:a:resp_1"]


async def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are given up, in memory and on the way to the store."""
    monkeypatch.setattr(stateful, "WAITING", 3)
    monkeypatch.setattr(stateful, "MOST", 4)
    store = Broken()
    kept = Stateful(store)
    for number in range(10):
        kept.made("a", f"resp_{number}", OWNER)
    store.there = True
    await kept.close()
    assert sorted(store.values) == [f"stateful:a:resp_{number}" for number in (7, 8, 9)]


async def test_what_goes_on_from_nothing_known_is_refused() -> None:
    """As OpenAI does it, with the remedy; where there is one caller only, all is its own."""
    kept = Stateful()
    kept.made("a", "resp_1", OWNER)
    assert await kept.continued("a", b'{"model":"m","input":"previous_response_id"}') is None
    assert await kept.continued("a", b'{"previous_response_id":null}') is None
    assert await kept.continued("a", b'{"previous_response_id":"resp_1"}') == OWNER
    for body, name in (
        (b'{"previous_response_id":"resp_2"}', "previous_response_id"),
        (b'{"conversation":{"id":"conv_1"}}', "conversation"),
        (b'{"conversation":"conv_1"}', "conversation"),
    ):
        with pytest.raises(CallerError) as refused:
            await kept.continued("a", body)
        assert (refused.value.code, refused.value.status, refused.value.param) == ("caller_object_not_found", 400, name)
        assert await kept.continued("a", body, keyless=True) is None
    with pytest.raises(CallerError) as refused:
        await kept.continued("b", b'{"previous_response_id":"resp_1"}')
    assert "openai" not in refused.value.message


def test_a_route_is_narrowed_to_the_owner() -> None:
    places = (Deployment(provider="other"), Deployment(provider="openai", model="x"))
    route = Route(name="r", targets=places, fallback=(Deployment(provider="openai", model="y"),))
    found = narrowed(route, OWNER)
    assert [place.model for place in (*found.targets, *found.fallback)] == ["x", "y"]
    with pytest.raises(CallerError, match="openai"):
        narrowed(Route(name="r", targets=places[:1]), OWNER)


def test_only_keys_of_its_account_see_an_object() -> None:
    """When none of them is left every one is tried."""
    keys = (ProviderKey("openai#1", "a"), ProviderKey("openai#2", "b", "team"), ProviderKey("openai#3", "c", "team"))
    assert others(keys, OWNER) == ["openai#1"]
    assert others(keys, Owner("openai", "openai#1")) == ["openai#2", "openai#3"]
    assert others(keys, Owner("openai", "openai#9")) == []
