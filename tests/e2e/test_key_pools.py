"""Pools of provider keys, with real processes and sockets: a limit nobody notices, a revoked key that costs one attempt, what
is known of keys while the server runs and after it was started again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.conftest import Make
from tests.e2e.far_side import FarSide, Script, answer, completion
from tests.e2e.world import Gateway, eventually
from tests.loopback import Peer, Request

ASK = {"model": "pool/m", "messages": [{"role": "user", "content": "hello"}]}

BAD = ["sk-good-key-0000001", "sk-good-key-0000002", "sk-the-one-with-trouble"]


@pytest.fixture
def far_side() -> Iterator[FarSide]:
    with FarSide() as far:
        yield far


def troubled(status: int, *fields: str, until: float = float("inf")) -> Script:
    """The last of the keys is answered *status* for *until* seconds after the first request that it came with."""
    began: list[float] = []

    async def script(peer: Peer, request: Request, number: int) -> None:
        key = request.headers.get(b"authorization", b"").decode().removeprefix("Bearer ")
        now = time.monotonic()
        if key == BAD[-1]:
            began.append(now)
            if now - began[0] < until:
                word = "invalid_api_key" if status == 401 else "rate_limit_exceeded"
                await peer.send(answer(status, {"error": {"message": "no", "type": word, "code": word}}, *fields))
                return
        await peer.send(answer(200, completion(), "x-ratelimit-limit-requests: 100", "x-ratelimit-remaining-requests: 60"))

    return script


def pool(far: FarSide, *, keys: str = "") -> str:
    return (
        f'[providers.pool]\nkind = "openai-compatible"\nbase_url = "{far.url("pool")}"\nlist_models = false\n'
        f"keys = {keys or json.dumps(BAD)}\n"
    )


def came(far: FarSide, key: str) -> list[float]:
    return [one.at for one in far.seen["pool"] if one.key == key]


def statuses(gateway: Gateway, number: int, at_once: int = 1) -> set[int]:
    with ThreadPoolExecutor(at_once) as callers:
        return set(callers.map(lambda _: gateway.ask(ASK).status, range(number)))


def test_a_limited_key_is_not_noticed(make: Make, far_side: FarSide) -> None:
    """Three keys, one answering 429 with Retry-After 2: no caller sees a 429, and the key carries traffic again between two
    and three seconds later."""
    far_side.scripts["pool"] = troubled(429, "retry-after: 2", until=2.0)
    gateway = make(pool(far_side))
    seen = set()
    until = time.monotonic() + 3.5
    while time.monotonic() < until:
        seen |= statuses(gateway, 8, 4)
        time.sleep(0.02)
    assert seen == {200}
    times = came(far_side, BAD[-1])
    early = [at for at in times if at - times[0] < 1.9]
    assert max(early) - times[0] < 0.5, "only what was under way with the first refusal"
    assert 2.0 <= next(at for at in times if at not in early) - times[0] < 3.0
    assert len(times) > len(early) + 5, "it is well again"


def test_a_revoked_key_takes_one_attempt(make: Make, far_side: FarSide) -> None:
    """In all; it stays out after a reload and a restart; its state is told, the key never."""
    far_side.scripts["pool"] = troubled(401)
    gateway = make(pool(far_side))
    assert statuses(gateway, 60) == {200}
    assert len(came(far_side, BAD[-1])) == 1
    rows = json.loads(gateway.aigw("providers", "--keys", "--json").stdout)
    states = {row["key"]: (row["state"], row["reason"]) for row in rows}
    assert states["pool#3"] == ("resting", "provider_credentials_invalid")
    assert states["pool#1"] == ("ready", "")
    assert rows[0]["limits"]["requests_limit"] == 100
    shown = gateway.aigw("providers", "--keys")
    assert "not accepted" in shown.stdout
    assert BAD[-1] not in shown.stdout + json.dumps(rows)
    metrics = gateway.metrics()
    assert metrics['aigw_provider_keys{provider="pool",state="resting"}'] == 1
    assert metrics['aigw_provider_key_rest_seconds{key="pool#3",provider="pool"}'] > 500
    begin = len(gateway.lines)
    gateway.write_config(pool(far_side) + "[limits]\nrpm = 100000\n")
    gateway.said("reloaded from", begin)
    assert statuses(gateway, 20) == {200}
    eventually(lambda: gateway.query("SELECT count(*) FROM value WHERE key LIKE 'key-rest/%'")[0][0] == 1)
    gateway.stop()
    gateway.start()
    assert statuses(gateway, 20) == {200}
    assert len(came(far_side, BAD[-1])) == 1


def test_fifty_at_once_meet_a_revoked_key(make: Make, far_side: FarSide) -> None:
    """Those already out are tried elsewhere; no later request goes there."""
    far_side.scripts["pool"] = troubled(401)
    gateway = make(pool(far_side))
    assert statuses(gateway, 50, 50) == {200}
    out = len(came(far_side, BAD[-1]))
    assert out <= 50
    assert statuses(gateway, 100, 20) == {200}
    assert len(came(far_side, BAD[-1])) == out


def test_a_pool_without_keys_left_says_when(make: Make, far_side: FarSide) -> None:
    """Its own code, and the earliest comeback."""
    far_side.scripts["pool"] = troubled(429, "retry-after: 30")
    gateway = make(pool(far_side, keys=f'["{BAD[-1]}"]'))
    gateway.ask(ASK)
    refused = gateway.ask(ASK)
    assert refused.headers["x-aigw-error"] == "provider_credentials_exhausted"
    assert 25 <= int(refused.headers["retry-after"]) <= 30
    assert len(came(far_side, BAD[-1])) == 1


def test_keys_that_are_tables(make: Make, far_side: FarSide) -> None:
    """Labels in records, models and limits of a key's own."""
    far_side.scripts["pool"] = troubled(401)
    first = f'{{key = "{BAD[0]}", label = "team-a", weight = 3}}'
    second = f'{{key = "{BAD[1]}", label = "o-only", models = ["o*"], rpm = 1}}'
    gateway = make(pool(far_side, keys=f"[{first}, {second}]"))
    assert statuses(gateway, 5) == {200}
    assert (len(came(far_side, BAD[0])), len(came(far_side, BAD[1]))) == (5, 0)
    answered = [gateway.ask(ASK | {"model": "pool/o9"}) for _ in range(4)]
    assert [one.status for one in answered] == [200] * 4
    assert len(came(far_side, BAD[1])) == 1
    assert {gateway.attempts(one.id)[0].key for one in answered} == {"team-a", "o-only"}
