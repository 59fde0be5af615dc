"""Replicate: a prediction that runs is asked for again, at the operator's address and nowhere else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aigw import attempt
from aigw.protocols.operations import OPERATIONS
from aigw.providers.replicate import unfinished
from tests.walk import KEY, Walk, answers

CONFIG = f'[consumers.ci]\nkey = "{KEY}"\n[providers.replicate]\nkeys = ["r8_golden"]\nbase_url = "http://r.example/v1"\n'


def prediction(status: str, **more: Any) -> dict[str, Any]:
    return {"id": "p1", "status": status, "urls": {"get": "http://evil.example/steal"}, **more}


async def test_a_prediction_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for by its id where it was made, whatever URL the answer names, until it is there."""
    monkeypatch.setattr(attempt, "_FIRST_WAIT", 0.01)
    done = prediction("succeeded", output=["h", "i"])
    walk = Walk(CONFIG, answers(prediction("starting"), 201), answers(prediction("processing")), answers(done))
    body = {"model": "replicate/openai/gpt-5", "messages": [{"role": "user", "content": "x"}]}
    near, _ = await walk.ask(body)
    assert near.status == 200
    assert json.loads(near.body)["choices"][0]["message"]["content"] == "hi"
    assert [(one.target.method, one.target.origin.host, one.target.path) for one in walk.transport.requests] == [
        ("POST", "r.example", "/v1/models/openai/gpt-5/predictions"),
        ("GET", "r.example", "/v1/predictions/p1"),
        ("GET", "r.example", "/v1/predictions/p1"),
    ]
    assert b"prefer: wait" in walk.transport.requests[0].target.wire


@pytest.mark.parametrize("model", ["../../account", "a/../b", "a/b/c", "a", "a/b?x=1", "a%2Fb/c", ".a/b"])
async def test_a_models_name_leads_nowhere_else(model: str) -> None:
    """It becomes a part of the path: only OWNER/NAME is one."""
    walk = Walk(CONFIG, answers({}))
    near, _ = await walk.ask({"model": f"replicate/{model}", "messages": [{"role": "user", "content": "x"}]})
    assert near.status == 400
    assert not walk.transport.requests


def test_what_is_unfinished() -> None:
    """Only what says so, by an id that is one."""
    assert unfinished(b'{"id":"p1","status":"processing"}') == "p1"
    for body in (b"", b"[]", b'{"id":"p1","status":"failed"}', b'{"id":"../x","status":"starting"}', b'{"id":7}'):
        assert unfinished(body) == ""
    assert OPERATIONS["replicate"].polls
