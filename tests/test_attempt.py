"""One try: what is sent, and what an answer means that is none."""

from __future__ import annotations

import json

import pytest

from aigw.providers.compatible import Patience
from aigw.routing import retry
from tests.walk import (
    ANSWER,
    ASK,
    CONFIG,
    GOOD,
    KEY,
    Play,
    Walk,
    answers,
    attempts,
    says,
)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "SECOND_TRY_PAUSE", 0.001)


@pytest.mark.parametrize(("status", "ours"), [(401, 502), (402, 503), (403, 502)])
async def test_a_providers_401_is_never_the_callers(status: int, ours: int) -> None:
    """Agents would ask their users to log in."""
    walk = Walk(CONFIG, says(status, "Incorrect API key provided: sk-deep"))
    near, record = await walk.ask(ASK | {"model": "alone"})
    assert near.status == ours
    assert record.error.startswith("provider_credentials_")
    assert b"sk-deep" not in near.body
    assert "sk-deep" not in record.attempts


async def test_a_provider_that_repeats_a_key_is_not_repeated() -> None:
    """Neither in the answer nor in the record."""
    walk = Walk(CONFIG, says(400, "cannot read sk-one and sk-two, sorry"))
    near, record = await walk.ask(ASK)
    assert b"sk-" not in near.body
    assert "sk-" not in record.attempts
    assert "sorry" in near.error["message"]


@pytest.mark.parametrize(
    "garbage",
    [answers(b"<html>", 200, (b"content-type", b"text/html")), answers(b"hello"), answers(b"[1]"), answers(b'{"a":')],
)
async def test_garbage_in_a_200_is_no_answer(garbage: Play) -> None:
    """Another target is asked; alone, it is a 502."""
    walk = Walk(CONFIG, garbage, GOOD)
    near, record = await walk.ask(ASK)
    assert near.status == 200
    assert attempts(record)[0]["error"] == "provider_bad_response"
    near, record = await Walk(CONFIG, garbage).ask(ASK | {"model": "alone"})
    assert (near.status, record.error) == (502, "provider_bad_response")


async def test_an_error_in_a_200_is_an_error() -> None:
    """Some gateways answer 200 with an error object."""
    told = answers({"error": {"message": "slow down", "code": "rate_limit_exceeded", "type": "requests"}})
    walk = Walk(CONFIG, told, GOOD)
    near, record = await walk.ask(ASK)
    assert json.loads(near.body) == ANSWER
    assert attempts(record)[0]["error"] == "provider_rate_limited"


async def test_the_routes_own_timeouts_are_used() -> None:
    """For this route's calls only."""
    walk = Walk(CONFIG, GOOD)
    await walk.ask(ASK | {"model": "hasty"})
    await walk.ask(ASK)
    hasty, usual = walk.transport.requests
    assert (hasty.connect_timeout, hasty.first_byte_timeout, hasty.idle_timeout, hasty.timeout) == (1, 2, 3, 4)
    assert (usual.connect_timeout, usual.idle_timeout, usual.timeout) == (Patience().connect, Patience().idle, Patience().total)


async def test_a_callers_patience_bounds_the_wait() -> None:
    """What its SDK says in x-stainless-timeout, and never more than [server] timeout."""
    walk = Walk(CONFIG, GOOD, patience=20.0)
    await walk.ask(ASK, patience=5.0)
    await walk.ask(ASK, patience=500.0)
    await walk.ask(ASK)
    waits = [request.first_byte_timeout for request in walk.transport.requests]
    assert waits == [pytest.approx(5.0, abs=0.5), pytest.approx(20.0, abs=0.5), pytest.approx(20.0, abs=0.5)]


async def test_a_provider_without_keys() -> None:
    """A server of one's own: no credential is sent, and the caller's own never is."""
    config = CONFIG + '[providers.local]\nkind = "vllm"\nbase_url = "http://127.0.0.1:8000/v1"\n'
    walk = Walk(config, GOOD)
    near, record = await walk.ask(ASK | {"model": "local/llama"})
    assert near.status == 200
    assert b"authorization" not in walk.transport.requests[0].target.wire.lower() + walk.transport.requests[0].extra.lower()
    assert KEY.encode() not in walk.transport.requests[0].target.wire + walk.transport.requests[0].extra
    assert record.residency == "local"
