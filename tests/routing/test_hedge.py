"""Two at once: who may, and whose bytes go through. (The whole of it is tried in tests/test_failover.py.)"""

from __future__ import annotations

import time

import pytest

from aigw.exchange import Exchange
from aigw.protocols.operations import OPERATIONS
from aigw.routing.conditions import quarter
from aigw.routing.hedge import Gate, Race, may_hedge
from tests.walk import Near


@pytest.mark.parametrize(
    ("body", "operation", "truth"),
    [
        (b'{"messages": []}', "chat", True),
        (b'{"messages": [], "tools": [{}]}', "chat", False),
        (b'{"messages": [], "store": true}', "chat", False),
        (b'{"input": "x"}', "embeddings", False),
        (b'{"input": "x"}', "responses", False),
        (b'{"prompt": "x"}', "images", False),
        (b'{"messages": "' + b"a" * 40_000 + b'"}', "chat", False),
        (b'{"messages": "' + b"a" * 20_000 + b'"}', "chat", True),
    ],
)
def test_who_may(body: bytes, operation: str, truth: bool) -> None:
    """No tools, no state, no more than 8,000 tokens."""
    exchange = Exchange("r", time.time(), operation=operation, headers={}, body=body)
    assert may_hedge(exchange, OPERATIONS[operation], quarter) is truth


async def test_one_gate_opens() -> None:
    """The first to begin is heard; nothing of the other gets through, whatever it does."""
    race, near = Race(), Near()
    first, second = Gate(near, race), Gate(near, race)
    second.begin(200, [])
    first.begin(500, [])
    first.write(b"no")
    second.write(b"yes")
    first.abort()
    first.end()
    first.answer(500, [], b"no")
    assert (second.started, first.started, first.status, second.status) == (True, False, 0, 200)
    second.end()
    assert (near.status, near.body, near.ended, near.aborted) == (200, b"yes", True, False)
    assert race.decided.done()
