"""Budgets hold on a real server, whatever comes at once and however it ends.

A real server, a provider that bills exactly what was held, and as many connections as requests.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from aigw.consumer import Budget, Terms
from aigw.storage.base import Store
from aigw.storage.open import open_store
from tests.e2e.far_side import FarSide, answer, completion, provider, route
from tests.e2e.world import Gateway, eventually
from tests.loopback import Peer, Request

T = TypeVar("T")

BODY = {"model": "paid", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 10}
PROMPT = (len(json.dumps(BODY)) + 3) // 4
ONE = PROMPT * 1000 + 10 * 10_000
"""What a request holds, and costs, in billionths of a dollar."""

PAID = completion(usage={"prompt_tokens": PROMPT, "completion_tokens": 10, "total_tokens": PROMPT + 10})

PRICE = '[prices."paid/m"]\ninput = 1\noutput = 10\n'


async def pays(peer: Peer, request: Request, number: int) -> None:
    await asyncio.sleep(0.05)
    await peer.send(answer(200, PAID))


def config(far: FarSide) -> str:
    return provider("paid", far.url("paid")) + route("paid") + PRICE


def in_store(gateway: Gateway, work: Callable[[Store], Awaitable[T]]) -> T:
    """*work* with the gateway's database, while no server runs."""

    async def run() -> T:
        store = open_store("sqlite:", gateway.data_dir)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())


def give(gateway: Gateway, name: str, terms: Terms) -> tuple[str, str]:
    """A consumer with *terms*: its id and its key."""
    made = gateway.create_key(name)

    async def change(store: Store) -> str:
        consumer = await store.consumer(name)
        assert consumer is not None
        await store.put_consumer(replace(consumer, terms=terms))
        return consumer.id

    return in_store(gateway, change), made["key"]


async def one(gateway: Gateway, key: str, body: Mapping[str, object]) -> tuple[int, dict[str, str]]:
    """One request on a connection of its own: status and headers, the names in lower case."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    try:
        data = json.dumps(body).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nconnection: close\r\n"
        writer.write(f"{head}content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data)
        raw = await reader.read()
        lines = raw.partition(b"\r\n\r\n")[0].decode().split("\r\n")
        pairs = (line.partition(": ") for line in lines[1:])
        return int(lines[0].split()[1]) if raw else 0, {name.lower(): value for name, _, value in pairs}
    except ConnectionError:
        return 0, {}
    finally:
        writer.close()


def many(gateway: Gateway, key: str, number: int) -> Counter[tuple[int, str]]:
    """*number* requests at once: how many got which status and error."""

    async def run() -> Counter[tuple[int, str]]:
        found = await asyncio.gather(*(one(gateway, key, BODY) for _ in range(number)))
        return Counter((status, headers.get("x-aigw-error", "")) for status, headers in found)

    return asyncio.run(run())


def test_a_thousand_at_once_for_a_hundred(tmp_path: Path) -> None:
    """Exactly a hundred pass, of the consumer's budget and of the group's; the ledger has what the provider was paid."""
    with FarSide() as far:
        far.scripts["paid"] = pays
        gateway = Gateway(tmp_path / "gw", config(far))
        terms = Terms(budgets=(Budget(100 * ONE, "usd", "total"), Budget(150 * (PROMPT + 10), "tokens", "total")), rpm=100_000)
        holder, key = give(gateway, "alice", terms)
        gateway.start()
        try:
            assert many(gateway, key, 1000) == {(200, ""): 100, (429, "policy_budget_exhausted"): 900}
            assert len(far.seen["paid"]) == 100
            status, headers = asyncio.run(one(gateway, key, BODY))
            assert (status, headers["x-should-retry"]) == (429, "false")
            assert "retry-after" not in headers  # this budget never begins anew
        finally:
            gateway.close()
        spent = in_store(gateway, lambda store: store.spent([holder], 0))
        assert spent == {holder: (100 * ONE, 100 * (PROMPT + 10))}
        gateway.assert_calm()


def test_kill_9_with_requests_in_flight(tmp_path: Path) -> None:
    """What was held is gone with the process; what was recorded is still used, and the rest of the budget is there."""
    hanging = asyncio.Event()

    async def some_hang(peer: Peer, request: Request, number: int) -> None:
        if 30 <= number < 50:
            await hanging.wait()
        await peer.send(answer(200, PAID))

    with FarSide() as far:
        far.scripts["paid"] = some_hang
        gateway = Gateway(tmp_path / "gw", config(far))
        holder, key = give(gateway, "bob", Terms(budgets=(Budget(100 * ONE, "usd", "month"),), concurrency=60))
        gateway.start()
        try:
            for _ in range(30):
                assert many(gateway, key, 1) == {(200, ""): 1}

            async def cut() -> None:
                tasks = [asyncio.ensure_future(one(gateway, key, BODY)) for _ in range(20)]
                while len(far.seen["paid"]) < 50:
                    await asyncio.sleep(0.01)
                await asyncio.to_thread(gateway.kill)
                assert {status for status, _ in await asyncio.gather(*tasks)} == {0}

            asyncio.run(cut())
            gateway.start()
            assert many(gateway, key, 50) == {(200, ""): 50}
            assert many(gateway, key, 50) == {(200, ""): 20, (429, "policy_budget_exhausted"): 30}
        finally:
            gateway.close()
        spent = in_store(gateway, lambda store: store.spent([holder], 0))
        assert spent == {holder: (100 * ONE, 100 * (PROMPT + 10))}


def test_a_budget_set_later_knows_what_was_used(tmp_path: Path) -> None:
    """A running server hears of it within a second, and counts what was used before."""
    with FarSide() as far:
        far.scripts["paid"] = pays
        gateway = Gateway(tmp_path / "gw", config(far))
        _, key = give(gateway, "carol", Terms())
        gateway.start()
        try:
            assert many(gateway, key, 30) == {(200, ""): 30}

            async def limit(store: Store) -> None:
                consumer = await store.consumer("carol")
                assert consumer is not None
                await store.put_consumer(replace(consumer, terms=Terms(budgets=(Budget(50 * ONE, "usd", "day"),))))

            in_store(gateway, limit)
            eventually(lambda: _is_known(gateway, key, far), every=0.2)
            many(gateway, key, 60)
            assert len(far.seen["paid"]) == 50
        finally:
            gateway.close()


def _is_known(gateway: Gateway, key: str, far: FarSide) -> bool:
    """Whether the budget is: a prompt that is larger than all of it is refused for that, and costs nothing."""
    huge = BODY | {"messages": [{"role": "user", "content": "word " * 10_000}]}
    return b"policy_request_too_large" in gateway.ask(huge, key=key).body
