"""A provider's last key is refused, and somebody hears of it."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Make
from tests.e2e.far_side import FarSide, answer, plays, provider
from tests.e2e.world import eventually

WRONG = answer(
    401, {"error": {"message": "Incorrect API key provided", "type": "invalid_request_error", "code": "invalid_api_key"}}
)


@pytest.fixture(scope="module")
def far() -> Iterator[FarSide]:
    with FarSide() as side:
        side.scripts["one"] = plays(WRONG)
        side.scripts["pager"] = plays(answer(200, {"ok": True}))
        yield side


def test_keys_that_are_all_refused(make: Make, far: FarSide) -> None:
    """One signed message, however many requests fail; the metric counts it, and the log does not name the address."""
    alert = f'[alerts.pager]\nurl = "{far.url("pager")}/hook-0123456789abcdef"\nsecret = "env:PAGER"\nevents = ["keys"]\n'
    gateway = make(provider("one", far.url("one"), keys=2) + alert, PAGER="a-shared-secret")
    for _ in range(3):
        assert gateway.ask({"model": "one/m", "messages": []}).status in (502, 503)
    eventually(lambda: far.seen["pager"])
    for _ in range(3):
        gateway.ask({"model": "one/m", "messages": []})
    eventually(lambda: gateway.metrics()["aigw_alerts_sent_total"] == 1)
    assert gateway.metrics()["aigw_alerts_failed_total"] == 0
    assert len(far.seen["pager"]) == 1
    request = far.seen["pager"][0].request
    event = json.loads(request.body)
    assert (event["kind"], event["subject"]) == ("keys", "one")
    assert "2 keys" in event["text"]
    signed = "sha256=" + hmac.new(b"a-shared-secret", request.body, hashlib.sha256).hexdigest()
    assert request.headers[b"x-aigw-signature"].decode() == signed
    assert "hook-0123456789abcdef" not in "\n".join(gateway.lines)
