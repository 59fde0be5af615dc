"""Counts in each dialect's words, and a prompt's tokens where the provider cannot count them."""

from __future__ import annotations

import json

import pytest

from aigw.protocols.operations import OPERATIONS
from aigw.protocols.translation import count
from tests.walk import ASK, CONFIG, GOOD, Walk, says

ROUTES = '\n[routes.claude]\ntargets = [{provider = "anthropic", model = "claude-x"}]\n'


def test_every_operation_that_counts_has_its_words() -> None:
    """And they are JSON."""
    for operation in OPERATIONS.values():
        if operation.family == "count":
            assert 7 in json.loads(count.write(operation.name, 7)).values()
    with pytest.raises(KeyError):
        count.write("chat", 7)


async def test_a_provider_that_cannot_count_is_not_asked() -> None:
    """The answer is marked; it costs nothing."""
    walk = Walk(CONFIG, GOOD)
    near, record = await walk.ask(ASK | {"messages": [{"role": "user", "content": "word " * 1000}]}, "count_tokens")
    assert 1000 <= json.loads(near.body)["input_tokens"] <= 1500
    assert (near.headers[b"x-aigw-estimated"], near.headers[b"content-type"]) == (b"true", b"application/json")
    assert near.headers[b"x-aigw-provider"] == b"openai"
    assert walk.transport.requests == []
    assert (record.outcome, record.estimated, record.input, record.model) == ("ok", True, 0, "gpt-fast")


async def test_a_server_that_has_the_dialect_but_not_the_count() -> None:
    """Its 404 is no answer for the caller."""
    walk = Walk(CONFIG + ROUTES, says(404))
    near, record = await walk.ask(ASK | {"model": "claude"}, "count_tokens")
    assert near.status == 200
    assert json.loads(near.body)["input_tokens"] > 0
    assert (len(walk.transport.requests), record.outcome, record.estimated) == (1, "ok", True)
