"""Shadows: nobody waits for them, nobody is billed, and there is an end to how many."""

from __future__ import annotations

import asyncio

from aigw.consumer import Caller, Consumer, ConsumerKey
from aigw.deployment import Deployment, Route
from aigw.exchange import Exchange, Sink
from aigw.routing.shadow import MOST, Nowhere, Shadows, copied

ROUTE = Route(name="chat", targets=(Deployment(provider="new"),))


def original(number: int = 1) -> Exchange:
    return Exchange(
        id=f"req_{number}",
        at=1.0,
        operation="chat",
        dialect="openai_chat",
        stream=True,
        requested_model="chat",
        canary="c",
        arm="old",
        headers={"x": "y"},
        body=b'{"model": "chat"}',
        model_at=1,
        caller=Caller(Consumer(id="1", name="alice"), ConsumerKey(id="k", consumer_id="1", digest=b"")),
        consumer="alice",
        end_user="bob",
        client_ip="::1",
        output=5,
        cost=7,
    )


def test_a_copy_is_the_request_and_nobodys() -> None:
    """What was asked is the same; who asked, and what came of it, is not."""
    copy = copied(original(), ROUTE)
    assert (copy.id, copy.arm, copy.canary, copy.chosen) == ("req_1-shadow", "shadow", "c", ROUTE)
    assert (copy.body, copy.operation, copy.stream, copy.headers, copy.model_at) == (
        b'{"model": "chat"}',
        "chat",
        True,
        {"x": "y"},
        1,
    )
    assert (copy.caller, copy.consumer, copy.end_user, copy.client_ip, copy.output, copy.cost) == (None, "", "", "", 0, None)
    assert copy.deadline > copy.started > 0


async def test_so_many_and_no_more() -> None:
    """The next one is dropped, not queued; when one ends there is room; all are cut at the end."""
    gate, ended = asyncio.Event(), []

    async def serve(copy: Exchange, sink: Sink, route: Route) -> None:
        assert route is ROUTE
        try:
            await gate.wait()
        finally:
            ended.append(copy.id)

    shadows = Shadows()
    assert [shadows.begin(copied(original(number), ROUTE), serve) for number in range(MOST + 1)] == [True] * MOST + [False]
    assert (shadows.under_way("c"), shadows.under_way("other")) == (MOST, 0)
    await asyncio.sleep(0)
    gate.set()
    while shadows.under_way("c"):
        await asyncio.sleep(0)
    gate.clear()
    assert shadows.begin(copied(original(), ROUTE), serve)
    await asyncio.sleep(0)
    await shadows.close()
    assert len(ended) == MOST + 1
    assert shadows.under_way("c") == 0


def test_nowhere_takes_everything() -> None:
    """It keeps the status alone, and never asks for a pause."""
    sink = Nowhere()
    assert not sink.started
    sink.begin(200, [])
    assert (sink.started, sink.status, sink.write(b"x" * 10_000)) == (True, 200, False)
    sink.end()
    other = Nowhere()
    other.answer(502, [], b"")
    assert other.status == 502
